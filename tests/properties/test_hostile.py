"""Wrong, hostile and future streams, in every shape: a typed error, or what is unknown passes in `.raw`; never more.

Each event of a true answer is changed in every place where it has a value; events of other dialects and of none come
between. Whatever comes of it, no word is handed over that was not sent, and what is not of `StreamError` is a bug.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from holdfast._errors import EndOfStream, StreamError
from holdfast._types import Completion, Delta, Event, Head
from holdfast.dialects import Dialect
from holdfast.machines.cursor import Cursor
from holdfast.machines.sse import SseParser
from holdfast.machines.transcript import Transcript
from tests.properties.profile import DEEP
from tests.properties.rungs import FEW, Way

SHAPES = [way for way in FEW if way.rung == "replay" or way.dialect in ("mcp", "replicate", "sse")]
STRANGE: tuple[Any, ...] = (None, True, -1, 2**70, 1.5, "", "zzz", [], ["zzz"], {}, {"zzz": 1}, [None], [[]])
FUTURE = b'event: future.thing\ndata: {"type": "future.thing", "event_type": "future.thing", "text": "!"}\n\n'
REASONS = ("stop", "tool_calls")
"""What an answer's end is called where a provider does not say."""
FOREIGN = (
    FUTURE,
    b"data: {}\n\n",
    b"data: []\n\n",
    b"data: null\n\n",
    b'data: "words"\n\n',
    b"data: 7\n\n",
    b"data: not JSON\n\n",
    b"data:\n\n",
    b'data: {"choices": []}\n\n',
    b'data: {"object": "ping", "id": null}\n\n',
    b'event: ping\ndata: {"type": "ping"}\n\n',
    b": only a comment\n\n",
    b'data: {"choices": [{"index": 7, "delta": {"future": {"deep": [1]}}}]}\n\n',
)


class Heard:
    """What a dialect's machines made of a body."""

    def __init__(self, dialect: Dialect, body: dict[str, Any], wire: Sequence[bytes]) -> None:
        self.deltas: list[Delta] = []
        self.error: StreamError | None = None
        cursor = Cursor()
        cursor.begin("start")
        parser = SseParser(cursor, admits=cursor.admits)
        reader = dialect.reader(body, cursor, head=Head(headers={"content-type": "text/event-stream"}))
        events = list[Event]()
        try:
            for told in wire:
                events.clear()
                parser.feed([told], events)
                reader.feed(events, self.deltas)
            parser.end(events)
            reader.end(self.deltas)
        except EndOfStream:
            pass
        except StreamError as error:
            self.error = error
        answer = Transcript()
        answer.add(self.deltas)
        self.completion: Completion = answer.completion()


def leaves(value: Any) -> Iterator[str]:
    """Every text that stands in a JSON value, names of members included; what is no text as it is written."""
    if isinstance(value, dict):
        yield json.dumps(value, ensure_ascii=False)
        for name, member in value.items():
            yield name
            yield from leaves(member)
    elif isinstance(value, list):
        for member in value:
            yield from leaves(member)
    else:
        yield value if isinstance(value, str) else json.dumps(value)


def invents_nothing(heard: Heard) -> None:
    """Every word stands in the event that it came in; and a completion is made of these words alone."""
    for delta in heard.deltas:
        try:
            sent = list(leaves(json.loads(delta.raw.data)))
        except ValueError:
            sent = [delta.raw.data]
        sent.append(delta.raw.data)
        told = [delta.text, delta.reasoning, delta.refusal, delta.finish_reason or ""]
        told += [word for call in delta.tool_calls for word in (call.name, call.id)]
        whole = "".join(sent)
        for word in told:
            assert word in whole or word in REASONS, f"{word!r} was never sent: {delta.raw.data}"
        for call in delta.tool_calls:
            _is_sent(call.arguments, whole, sent)
    for choice in heard.completion.choices:
        assert not any(call.complete for call in choice.tool_calls)


def _is_sent(arguments: str, whole: str, sent: list[str]) -> None:
    if arguments in whole or arguments == "{}":
        return
    value = json.loads(arguments)  # an object, written anew
    assert any(text.startswith("{") and json.loads(text) == value for text in sent)


def replaced(value: Any, strange: Any) -> Iterator[Any]:
    """The value with each of its parts, in turn, replaced, left out, or given a member that nobody knows."""
    yield strange
    if isinstance(value, dict):
        for name, member in value.items():
            rest = {other: kept for other, kept in value.items() if other != name}
            for changed in replaced(member, strange):
                yield {**value, name: changed}
            yield rest
        yield {**value, "future": strange}
    elif isinstance(value, list):
        for place, member in enumerate(value):
            for changed in replaced(member, strange):
                yield [*value[:place], changed, *value[place + 1 :]]
        yield [*value, strange]


def split(told: bytes) -> tuple[bytes, Any]:
    """What stands before the data, and the data's JSON; None where it has none."""
    before, mark, data = told.partition(b"data: ")
    try:
        return before + mark, json.loads(data)
    except ValueError:
        return told, None


@pytest.mark.parametrize("way", SHAPES, ids=str)
def test_a_value_of_any_other_kind_is_an_error_or_passes(way: Way) -> None:
    healthy, errors, passed = way.healthy(), 0, 0
    for place, told in enumerate(healthy):
        before, value = split(told)
        if value is None or (place and not DEEP and told[:60] == healthy[place - 1][:60]):
            continue
        for strange in STRANGE if DEEP else STRANGE[place % 7 :: 7]:
            for changed in replaced(value, strange):
                wire = [*healthy[:place], before + json.dumps(changed).encode() + b"\n\n", *healthy[place + 1 :]]
                heard = Heard(way.of, way.body, wire)
                invents_nothing(heard)
                errors += heard.error is not None
                passed += heard.error is None
    assert passed
    assert errors or way.dialect in ("sse", "replicate")  # where any data is text


@pytest.mark.parametrize("way", SHAPES, ids=str)
def test_events_of_others_between_our_own_change_nothing(way: Way) -> None:
    healthy = way.healthy()
    whole = Heard(way.of, way.body, healthy).completion
    for place, foreign in itertools.product(range(len(healthy) + 1), FOREIGN):
        heard = Heard(way.of, way.body, [*healthy[:place], foreign, *healthy[place:]])
        invents_nothing(heard)
        if way.dialect in ("sse", "mcp", "replicate"):
            continue  # here every event is one of the answer's
        assert heard.error is not None or heard.completion == whole
        if foreign is FUTURE and 0 < place < len(healthy) - 2:
            assert heard.error is None, heard.error
            assert [delta for delta in heard.deltas if b"future.thing" in delta.raw.payload]


@pytest.mark.parametrize("way", SHAPES, ids=str)
def test_events_that_are_missing_doubled_or_exchanged_are_no_crash(way: Way) -> None:
    healthy = way.healthy()
    for place, here in enumerate(healthy):
        before, after = healthy[:place], healthy[place + 1 :]
        for changed in (after, [here, here, *after], [*after[:1], here, *after[1:]]):
            invents_nothing(Heard(way.of, way.body, [*before, *changed]))
