"""The Messages shape told on: bytes as they came, and after a seam one message whose blocks count on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from holdfast._types import Completion, Delta, Event, Request
from holdfast.dialects import ANTHROPIC
from holdfast.dialects._tell_messages import MessagesTeller
from holdfast.machines.cursor import Cursor
from holdfast.machines.ladder import Seams
from holdfast.machines.sse import SseParser
from holdfast.offline import assemble
from holdfast.sources.memory import MemorySource
from holdfast.testing import FakeClock
from holdfast.testing.answers import Answer, write_answer
from holdfast.testing.server import ScriptedServer, stream
from holdfast.testing.shapes import AnthropicShape
from tests.cuts import bytewise, randomly
from tests.dialects.test_tell_chat import relaying
from tests.dialects.test_tell_chat import told as told_by
from tests.layers.test_rungs import SEAMED, Reply, Upstream, cut
from tests.sdks import readers

SHAPE = AnthropicShape()
REQUEST = Request(url="http://h/v1/messages", body={"messages": [{"role": "user", "content": "Go on."}]})
ANSWER = replace(write_answer("told", sentences=1, thoughts=1, tools=2), reasoning_pieces=("Hm", ", 先想", "一想"))


def renamed(answer: Answer, begun: int = 0, mark: str = "b") -> Answer:
    """The same answer with other calls' ids, but for those that had begun."""
    tools = [tool if n < begun else replace(tool, id=f"call_{mark}{n}") for n, tool in enumerate(answer.tools)]
    return replace(answer, tools=tuple(tools))


def rechunked(answer: Answer) -> Answer:
    """The same answer in other pieces."""

    def other(pieces: Sequence[str]) -> tuple[str, ...]:
        said = "".join(pieces)
        return tuple(said[at : at + 5] for at in range(0, len(said), 5))

    tools = tuple(replace(tool, pieces=other(tool.pieces)) for tool in answer.tools)
    thought = other(answer.reasoning_pieces)
    return replace(answer, reasoning_pieces=thought, pieces=other(answer.pieces), tools=tools)


def wire(answer: Answer, name: str) -> list[bytes]:
    return SHAPE.events(answer, name, ids=False)


async def told(source: Any, clock: FakeClock, seams: Seams | None = None) -> bytes:
    return await told_by(relaying(source, clock, "anthropic", seams), REQUEST)


def events_of(body: bytes) -> list[Event]:
    events: list[Event] = []
    SseParser(Cursor()).feed([body], events)
    return events


def said_by(body: bytes) -> list[dict[str, Any]]:
    return [event.json() for event in events_of(body)]


def structure(body: bytes) -> list[tuple[Any, ...]]:
    """What is told of a message besides what its blocks grow by; checks that growth is of the block that is open."""
    found, is_open, count = list[tuple[Any, ...]](), -1, 0
    for said in said_by(body):
        kind, index = said["type"], said.get("index", -1)
        own = said.get("content_block") or said.get("delta") or {}
        if kind == "content_block_start":
            assert (is_open, index) == (-1, count)
            is_open, count = index, count + 1
        elif kind.startswith("content_block"):
            assert index == is_open
            if kind == "content_block_stop":
                is_open = -1
        if own.get("type") not in ("text_delta", "thinking_delta", "input_json_delta") and kind != "ping":
            found.append((kind, index, own.get("type"), own.get("stop_reason")))
    assert is_open == -1
    return found


def begun(events: Sequence[bytes], after: int) -> int:
    return sum(b'"tool_use"' in event and b"content_block_start" in event for event in events[:after])


HEALTHY = b"\xef\xbb\xbf: hello\n\nretry: 10\r\n\r\n" + b"".join(wire(ANSWER, "one")).replace(
    b"\n\nevent", b"\n\n: ping\r\revent"
)


async def test_what_is_healthy_is_told_to_the_byte(clock: FakeClock) -> None:
    for chunks in ([HEALTHY], bytewise(HEALTHY), *randomly(HEALTHY, times=5, most=60)):
        assert await told(MemorySource(chunks), clock) == HEALTHY


FIRST = wire(renamed(ANSWER, mark="a"), "one")


@pytest.mark.parametrize("lump", [False, True])
@pytest.mark.parametrize("after", range(1, len(FIRST)))
async def test_a_replay_is_told_as_the_rest_of_the_first_message(after: int, lump: bool, clock: FakeClock) -> None:  # noqa: FBT001
    second = wire(renamed(ANSWER), "two")
    again = [b"".join(second)] if lump else second
    body = await told(Upstream(lambda _r, turn: cut(FIRST, after) if turn == 1 else again), clock)
    expected = b"".join(wire(renamed(renamed(ANSWER, mark="a"), begun(FIRST, after)), "one"))
    assert assemble(body, "anthropic") == assemble(expected, "anthropic")
    assert structure(body) == structure(expected)
    assert body.startswith(b"".join(FIRST[:after]))
    assert b"msg_two" not in body


@pytest.mark.parametrize("second", range(1, len(FIRST), 7))
@pytest.mark.parametrize("first", range(1, len(FIRST), 5))
async def test_two_replays_in_other_pieces_are_told_as_one_message(first: int, second: int, clock: FakeClock) -> None:
    others = [wire(rechunked(renamed(ANSWER)), "two"), wire(renamed(ANSWER, mark="c"), "three")]

    def handler(_request: Request, turn: int) -> Reply:
        return [cut(FIRST, first), cut(others[0], second), others[1]][turn - 1]

    body = await told(Upstream(handler), clock)
    answer = assemble(body, "anthropic")
    assert (answer.text, answer.reasoning) == (ANSWER.text, ANSWER.reasoning)
    assert [call.arguments for call in answer.tool_calls] == [tool.arguments for tool in ANSWER.tools]
    assert structure(body) == structure(b"".join(FIRST))


async def test_what_a_block_began_with_or_ends_with_is_told_as_its_growth(clock: FakeClock) -> None:
    def whole(id_: str, *, at_start: bool) -> list[bytes]:
        payloads: list[dict[str, Any]] = [
            {"type": "message_start", "message": {"id": id_, "content": [], "usage": {"input_tokens": 1}}},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "Along"}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": " the"}},
            {"type": "content_block_stop", "index": 0},
            {
                "type": "content_block_start",
                "index": 1,
                "content_block": {"type": "tool_use", "id": id_, "name": "f", "input": {"x": 1} if at_start else {}},
            },
            *(
                {
                    "type": "content_block_delta",
                    "index": 1,
                    "delta": {"type": "input_json_delta", "partial_json": piece},
                }
                for piece in (() if at_start else ('{"x"', ":1}"))
            ),
            {"type": "content_block_stop", "index": 1},
            {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 3}},
            {"type": "message_stop"},
        ]
        return [b"data: " + json.dumps(payload).encode() + b"\n\n" for payload in payloads]

    for first in (True, False):
        ours, theirs = whole("one", at_start=first), whole("two", at_start=not first)
        for after in range(1, len(ours)):
            handler = Upstream(lambda _r, turn, o=ours, t=theirs, n=after: cut(o, n) if turn == 1 else t)  # type: ignore[misc]  # defaults bind the loop's values
            body = await told(handler, clock)
            answer = assemble(body, "anthropic")
            assert answer.text == "Along the"
            assert [(c.id, c.arguments) for c in answer.tool_calls] == [("one" if after > 4 else "two", '{"x":1}')]
            assert structure(body) == structure(b"".join(ours))


async def test_what_the_server_runs_itself_is_told_once(clock: FakeClock) -> None:
    def searched(id_: str) -> list[bytes]:
        blocks: list[tuple[dict[str, Any], list[dict[str, Any]]]] = [
            (
                {"type": "server_tool_use", "id": id_, "name": "web_search", "input": {}},
                [{"type": "input_json_delta", "partial_json": piece} for piece in ("", '{"q":', '"x"}')],
            ),
            ({"type": "web_search_tool_result", "tool_use_id": id_, "content": []}, []),
            ({"type": "text", "text": ""}, [{"type": "text_delta", "text": "kelp"}]),
            (
                {"type": "text", "text": "", "citations": []},
                [{"type": "citations_delta", "citation": {"url": "x"}}, {"type": "text_delta", "text": " bends"}],
            ),
        ]
        payloads: list[dict[str, Any]] = [{"type": "message_start", "message": {"id": id_, "content": []}}]
        for index, (block, deltas) in enumerate(blocks):
            payloads.append({"type": "content_block_start", "index": index, "content_block": block})
            payloads += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
            payloads.append({"type": "content_block_stop", "index": index})
        payloads.append({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}})
        payloads.append({"type": "message_stop"})
        return [b"data: " + json.dumps(payload).encode() + b"\n\n" for payload in payloads]

    whole = searched("one")
    for after in range(1, len(whole)):
        server = Upstream(lambda _r, turn, n=after: cut(whole, n) if turn == 1 else searched("two"))  # type: ignore[misc]  # a default binds the loop's value
        body = await told(server, clock)
        ours = [{**said, "message": None} for said in said_by(body)]
        wanted = [{**said, "message": None} for said in said_by(b"".join(whole))]
        assert json.dumps(ours).replace("two", "one") == json.dumps(wanted)


# -- a model's own continuation ------------------------------------------------------------------

LONG = "Along the coast a tide pulls, the kelp bends and holds, and lets go of nothing."


def text_only(said: str, id_: str, *, before: int = 0, asked: int = 19) -> list[bytes]:
    """A message of one text, behind blocks of another kind."""
    pieces = [said[at : at + 4] for at in range(0, len(said), 4)]
    events = wire(Answer(pieces=tuple(pieces)), id_)
    hidden = []
    for index in range(before):
        block = {"type": "redacted_thinking", "data": "QQ=="}
        hidden.append({"type": "content_block_start", "index": index, "content_block": block})
        hidden.append({"type": "content_block_stop", "index": index})
    moved = [event.replace(b'"index":0', b'"index":%d' % before) for event in events]
    moved = [event.replace(b'"input_tokens":19', b'"input_tokens":%d' % asked) for event in moved]
    return [moved[0], *(b"data: " + json.dumps(said).encode() + b"\n\n" for said in hidden), *moved[1:]]


def seams(before: int) -> Iterator[int]:
    return iter(range(before * 2 + 10, len(text_only(LONG, "one", before=before)) - 1))


@pytest.mark.parametrize("lump", [False, True])
@pytest.mark.parametrize(("before", "after"), [(n, after) for n in (0, 1, 2) for after in seams(n)])
async def test_a_prefix_is_told_as_one_message_with_one_usage(
    before: int,
    after: int,
    lump: bool,  # noqa: FBT001
    clock: FakeClock,
) -> None:
    first = text_only(LONG, "one", before=before)

    def handler(request: Request, turn: int) -> Reply:
        assert isinstance(request.body, dict)
        last = request.body["messages"][-1]
        if last["role"] == "user":
            return cut(first, after) if turn == 1 else text_only("No.", f"two{turn}")
        rest = text_only(LONG[len(last["content"]) :], "three", asked=30)
        return [b"".join(rest)] if lump else rest

    body = await told(Upstream(handler), clock, SEAMED)
    answer, whole = assemble(body, "anthropic"), assemble(b"".join(first), "anthropic")
    assert (answer.text, answer.finish_reason) == (LONG, "end_turn")
    assert structure(body) == structure(b"".join(first))
    assert b"three" not in body
    assert answer.usage is not None
    assert whole.usage is not None
    assert answer.usage.input_tokens == whole.usage.input_tokens
    assert abs((answer.usage.output_tokens or 0) - (whole.usage.output_tokens or 0)) <= 4


def test_another_turn_begins_blocks_of_its_own() -> None:
    def turn(id_: str, text: str, stop: str) -> list[Delta]:
        deltas: list[Delta] = []
        wire_ = b"".join(wire(Answer(pieces=(text,)), id_)).replace(b"end_turn", stop.encode())
        reader = ANTHROPIC.wire.reader(None, Cursor(), end_at_done=False)
        reader.feed(events_of(wire_), deltas)
        return deltas

    teller, out = MessagesTeller(), list[bytes]()
    first = turn("one", "Along", "pause_turn")
    teller.feed(first[:-2], out)
    teller.reseat()
    teller.feed(turn("two", " the coast", "end_turn"), out)
    body = b"".join(out)
    assert assemble(body, "anthropic").text == "Along the coast"
    assert [entry[:2] for entry in structure(body)] == [
        ("message_start", -1),
        ("content_block_start", 0),
        ("content_block_stop", 0),
        ("content_block_start", 1),
        ("content_block_stop", 1),
        ("message_delta", -1),
        ("message_stop", -1),
    ]


# -- the SDK -------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", range(2, len(FIRST), 3))
async def test_the_makers_sdk_reads_what_was_told(after: int, clock: FakeClock) -> None:
    second = wire(renamed(ANSWER), "two")
    body = await told(Upstream(lambda _r, turn: cut(FIRST, after) if turn == 1 else second), clock)
    expected: Completion = assemble(
        b"".join(wire(renamed(renamed(ANSWER, mark="a"), begun(FIRST, after)), "one")), "anthropic"
    )
    async with ScriptedServer([stream(body)]) as server:
        said = await readers.anthropic_messages(server.url)
    assert said == readers.ours(expected, said)
    assert said.text == ANSWER.text
    assert len(said.calls) == 2
