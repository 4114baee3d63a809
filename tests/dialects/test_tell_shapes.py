"""Google's shapes, Cohere's and plain events told on: bytes as they came, and after a seam one answer as the first."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import pytest

from holdfast._errors import StreamError
from holdfast._types import Delta, Event, Request, Usage
from holdfast.dialects import DIALECTS
from holdfast.machines.cursor import Cursor
from holdfast.machines.sse import SseParser
from holdfast.offline import assemble
from holdfast.sources.memory import MemorySource
from holdfast.testing import FakeClock
from holdfast.testing.answers import Answer, CalledTool
from holdfast.testing.shapes import CohereShape, GeminiShape, InteractionsShape, PlainShape, Shape
from tests import shared
from tests.cuts import bytewise, randomly
from tests.dialects.test_tell_chat import relaying, told
from tests.layers.test_rungs import Upstream, cut

REQUEST = Request(url="http://h/v1/x", body={"input": "x"})
CALLS = (
    CalledTool(id="call_a", name="look_up", pieces=('{"query"', ":", '"固着', '器"', "}")),
    CalledTool(id="call_b", name="measure", pieces=("{", "}")),
)
ANSWER = Answer(reasoning_pieces=("The", " moon", "先"), pieces=("Every ", "wave ", "pulls 🌊", "."), tools=CALLS)
COMMENT = b": keep-alive\n\n"


@dataclass(frozen=True, kw_only=True)
class Home:
    """A dialect whose answers are compared: its shape, what begins an answer and what ends one, and how it names it."""

    dialect: str
    shape: Shape
    begins: bytes
    ends: bytes
    done: bytes = b""
    answer: Answer = ANSWER

    def events(self, name: str, answer: Answer | None = None) -> list[bytes]:
        return self.shape.events(answer or self.answer, name, ids=False)

    def __str__(self) -> str:
        return self.dialect


# Gemini says all of a call at once, so its arguments have no blanks for the comparison of the texts.
HOMES = [
    Home(dialect="gemini", shape=GeminiShape(), begins=b'"responseId"', ends=b'"finishReason"'),
    Home(
        dialect="gemini-interactions",
        shape=InteractionsShape(stored=False),
        begins=b'"interaction.created"',
        ends=b'"interaction.completed"',
        done=b"[DONE]",
    ),
    Home(dialect="cohere", shape=CohereShape(), begins=b'"message-start"', ends=b'"message-end"', done=b"[DONE]"),
]
EACH = pytest.mark.parametrize("home", HOMES, ids=str)


@EACH
async def test_what_is_healthy_is_told_to_the_byte(home: Home, clock: FakeClock) -> None:
    events = home.events("one")
    whole = b": hello\n\n" + b"".join(COMMENT + event for event in events)
    for chunks in ([whole], bytewise(whole), *randomly(whole, times=5, most=80)):
        assert await told(relaying(MemorySource(chunks), clock, home.dialect), REQUEST) == whole


@pytest.mark.parametrize("dialect", ["sse", "replicate"])
async def test_plain_events_are_told_to_the_byte(dialect: str, clock: FakeClock) -> None:
    whole = b": hi\r\n\r\n" + b"".join(PlainShape().events(ANSWER, "one", ids=True))
    for chunks in ([whole], bytewise(whole)):
        assert await told(relaying(MemorySource(chunks), clock, dialect), REQUEST) == whole


def payloads(body: bytes) -> list[dict[str, Any]]:
    return [json.loads(data) for data in re.findall(rb"^data: (\{.*\})\r?$", body, re.MULTILINE)]


def check_structure(dialect: str, events: Sequence[dict[str, Any]]) -> None:
    """Steps and blocks are numbered as they begin, are told while they are open, and all of them end."""
    if dialect == "gemini":
        assert {event["responseId"] for event in events} == {"one"}
        return
    pairs = {"step": 0} if dialect == "gemini-interactions" else {"content": 0, "tool-call": 0}
    still = dict.fromkeys(pairs, -1)
    for event in events:
        name = event.get("event_type") or event["type"]
        kind, _, what = name.replace("step.", "step-").rpartition("-")
        if kind not in pairs or name == "tool-plan-delta":
            continue
        if what == "start":
            assert (event["index"], still[kind]) == (pairs[kind], -1), event
            pairs[kind] += 1
            still[kind] = event["index"]
        else:
            assert event["index"] == still[kind], event
        if what in ("end", "stop"):
            still[kind] = -1
    assert set(still.values()) == {-1}
    assert name in ("interaction.completed", "message-end")


def sources(first: Sequence[bytes], second: Sequence[bytes], after: int, size: int) -> Upstream:
    """Breaks off, and sends another answer, `size` events in a read."""
    batches = [b"".join(second[at : at + size]) for at in range(0, len(second), size)]
    return Upstream(lambda _request, turn: cut(first, after) if turn == 1 else batches)


@pytest.mark.parametrize("size", [1, 3, 100])
@EACH
async def test_a_replay_is_told_as_the_rest_of_the_first_answer(home: Home, size: int, clock: FakeClock) -> None:
    first, second = home.events("one"), home.events("two")
    whole = assemble(b"".join(first), home.dialect)
    for after in range(1, len(first)):
        body = await told(relaying(sources(first, second, after, size), clock, home.dialect), REQUEST)
        assert body.startswith(b"".join(first[:after]))
        assert assemble(body, home.dialect) == whole, after
        assert b"two" not in body
        assert body.count(home.begins) == (1 if home.done else len(payloads(body)))
        assert body.count(home.ends) == 1
        check_structure(home.dialect, payloads(body))
        assert payloads(body) == payloads(b"".join(first)), after
        # Where all was proven nothing more is asked for, not even the mark behind it.
        assert body.count(b"[DONE]") == (home.done != b"" and after < len(first) - 1)


def retokenised(answer: Answer) -> Answer:
    """The same answer in other pieces: two in one, or each in two."""
    both = answer.pieces[0] + answer.pieces[1]
    texts = (both, *(half for piece in answer.pieces[2:] for half in (piece[:1], piece[1:]) if half))
    calls = tuple(replace(call, pieces=(call.arguments,)) for call in answer.tools)
    return replace(answer, reasoning_pieces=(answer.reasoning,), pieces=texts, tools=calls)


@EACH
async def test_a_replay_in_other_pieces_is_told_from_inside_an_event(home: Home, clock: FakeClock) -> None:
    first, second = home.events("one"), home.events("two", retokenised(ANSWER))
    whole = assemble(b"".join(first), home.dialect)
    for after in range(1, len(first)):
        body = await told(relaying(sources(first, second, after, 2), clock, home.dialect), REQUEST)
        ours = assemble(body, home.dialect)
        assert ours.choices == whole.choices, after
        assert body.count(home.ends) == 1
        check_structure(home.dialect, payloads(body))


@EACH
async def test_over_two_seams_it_is_still_one_answer(home: Home, clock: FakeClock) -> None:
    attempts = [home.events(name) for name in ("one", "two", "three")]
    whole = assemble(b"".join(attempts[0]), home.dialect)
    for after in range(1, len(attempts[0]) - 2):
        cuts = [after, after + 2, len(attempts[0])]

        def replies(_request: Request, turn: int, cuts: Sequence[int] = cuts) -> Sequence[Any]:
            events = attempts[turn - 1]
            return cut(events, cuts[turn - 1]) if turn < 3 else events

        body = await told(relaying(Upstream(replies), clock, home.dialect), REQUEST)
        assert assemble(body, home.dialect) == whole, after
        assert payloads(body) == payloads(b"".join(attempts[0])), after
        check_structure(home.dialect, payloads(body))


@EACH
async def test_comments_pass_before_and_behind_a_seam(home: Home, clock: FakeClock) -> None:
    first, second = home.events("one"), [COMMENT + event for event in home.events("two")]
    whole = assemble(b"".join(first), home.dialect)
    body = await told(relaying(sources([COMMENT, *first], second, 1, 1), clock, home.dialect), REQUEST)
    assert body.startswith(COMMENT)
    assert payloads(body) == payloads(b"".join(home.events("two")))
    assert assemble(body, home.dialect) == whole
    assert body.count(COMMENT) > len(payloads(body)) // 2
    assert body.count(home.ends) == 1


@EACH
async def test_an_id_of_a_call_that_had_begun_stands(home: Home, clock: FakeClock) -> None:
    other = replace(ANSWER, tools=tuple(replace(call, id=f"{call.id}2") for call in CALLS))
    first, second = home.events("one"), home.events("two", other)
    at = next(place for place, event in enumerate(first) if b"look_up" in event) + 1
    body = await told(relaying(sources(first, second, at, 3), clock, home.dialect), REQUEST)
    ids = [call.id for call in assemble(body, home.dialect).tool_calls]
    assert ids == (["", ""] if home.dialect == "gemini" else ["call_a", "call_b2"])


# -- by hand -------------------------------------------------------------------------------------


def deltas_of(dialect: str, events: Sequence[Any]) -> list[Delta]:
    """What a reader makes of JSON values, each without a name in the event stream."""
    deltas: list[Delta] = []
    DIALECTS[dialect].reader(None, Cursor()).feed([Event(json.dumps(event).encode()) for event in events], deltas)
    return deltas


def retold(dialect: str, first: Sequence[Any], then: Sequence[Delta]) -> list[dict[str, Any]]:
    """Tells an answer's beginning, and then deltas of another one; gives what was told of these."""
    teller, out = DIALECTS[dialect].wire.teller(), list[bytes]()
    teller.feed(deltas_of(dialect, first), out)
    assert b"".join(out) == b"".join(Event(json.dumps(event).encode()).wire for event in first)
    teller.reseat()
    teller.reseat()
    out.clear()
    for delta in then:
        teller.feed([delta], out)
    assert not any(line.startswith(b"event:") for told in out for line in told.splitlines())
    return payloads(b"".join(out))


def part(**said: Any) -> dict[str, Any]:
    return {"candidates": [{"content": {"parts": [said]}}], "responseId": "two"}


def test_what_stands_beside_the_words_goes_on_with_them() -> None:
    parts = [
        {"text": "Hm", "thought": True},
        {"text": "ab", "thoughtSignature": "s1"},
        {"inlineData": {"data": "AA"}},
        {"text": "cd", "thoughtSignature": "s2"},
        {"functionCall": {"name": "f", "args": {"n": 1.50}}, "thoughtSignature": "s3"},
    ]
    end = {"content": {"parts": parts}, "finishReason": "STOP", "safetyRatings": []}
    (delta,) = deltas_of("gemini", [{"candidates": [end], "usageMetadata": {"promptTokenCount": 1}}])
    delta.text, delta.reasoning = "bcd", ""
    (told,) = retold("gemini", [{"responseId": "one"}], [delta])
    (one,) = told["candidates"]
    assert one["content"]["parts"] == [{"text": "b", "thoughtSignature": "s1"}, *parts[2:]]
    assert (one["finishReason"], one["safetyRatings"], told["responseId"]) == ("STOP", [], "one")
    delta.text, delta.finish_reason, delta.usage = "", None, None
    (told,) = retold("gemini", [{"responseId": "one"}], [delta])
    assert told["candidates"][0]["content"]["parts"] == [parts[4]]
    delta.tool_calls = ()
    assert retold("gemini", [{"responseId": "one"}], [delta]) == []


def test_a_chunk_without_words_is_told_and_the_usage_so_far_stays() -> None:
    first = [{**part(text="a"), "responseId": "one", "usageMetadata": {"totalTokenCount": 3}}]
    then = deltas_of("gemini", [part(inlineData={"data": "AA"})])
    (told,) = retold("gemini", first, then)
    assert told == {**part(inlineData={"data": "AA"}), **told, "responseId": "one"}
    assert told["candidates"][0]["content"]["parts"] == [{"inlineData": {"data": "AA"}}]
    assert told["usageMetadata"] == {"totalTokenCount": 3}


async def test_an_end_that_is_kept_back_is_not_told() -> None:
    (delta,) = deltas_of(
        "gemini", [{"candidates": [{"content": {"parts": [{"text": "a"}]}, "finishReason": "MAX_TOKENS"}]}]
    )
    words, end = Delta(delta.raw, "a"), Delta(delta.raw, finish_reason="MAX_TOKENS")
    teller, out = DIALECTS["gemini"].wire.teller(), list[bytes]()
    teller.feed([words], out)
    assert [one["candidates"][0].get("finishReason") for one in payloads(b"".join(out))] == [None]
    teller.feed([end], out)
    assert [one["candidates"][0].get("finishReason") for one in payloads(b"".join(out))] == [None, "MAX_TOKENS"]
    assert b"".join(out).count(b'"a"') == 1


def step(name: str, index: int = 0, **more: Any) -> dict[str, Any]:
    return {"event_type": f"step.{name}", "index": index, **more}


CREATED = {"event_type": "interaction.created", "interaction": {"id": "one", "status": "in_progress"}}
THOUGHT = [CREATED, step("start", step={"type": "thought"})]


def test_steps_of_other_kinds_are_numbered_on() -> None:
    rest = [
        {"event_type": "interaction.created", "interaction": {"id": "two"}},
        step("start", 0, step={"type": "thought"}),
        step("delta", 0, delta={"type": "text", "text": "Hm"}, event_id="e9"),
        step("delta", 0, delta={"type": "thought_signature", "signature": "s"}),
        step("stop", 0),
        step("start", 1, step={"type": "google_search_call", "id": "s"}),
        step("delta", 1, delta={"type": "google_search_call", "arguments": {"queries": []}}),
        step("stop", 1),
        step("delta", 2, delta={"type": "google_search_result", "result": []}),
        step("start", 3, step={"type": "model_output", "content": [{"type": "text", "text": "It"}]}),
        step("delta", 3, delta={"type": "text", "text": ""}),
        step("delta", 3, delta={"type": "image", "data": "AA"}),
        step("start", 4, step={"type": "function_call", "id": "c", "name": "f", "arguments": {"x": 1}}),
        step("start", 5, step={"type": "function_call", "id": "d", "name": "g"}),
        {"event_type": "interaction.status_update", "interaction_id": "two", "status": "requires_action"},
        {
            "event_type": "interaction.completed",
            "interaction": {"id": "two", "status": "requires_action", "usage": {"total_tokens": 7}},
        },
    ]
    told = retold(
        "gemini-interactions",
        [*THOUGHT, step("delta", delta={"type": "text", "text": "So. "})],
        deltas_of("gemini-interactions", rest),
    )
    check_structure("gemini-interactions", [*THOUGHT, *told])
    names = [event["event_type"].removeprefix("step.") for event in told]
    assert names == [
        *("delta", "delta", "stop"),
        *("start", "delta", "stop"),
        *("start", "delta", "stop"),
        *("start", "delta", "delta", "stop"),
        *("start", "delta", "stop", "start", "interaction.status_update", "stop", "interaction.completed"),
    ]
    assert not any("event_id" in event for event in told)
    assert [event["step"]["type"] for event in told if "step" in event] == [
        *("google_search_call", "google_search_result", "model_output", "function_call", "function_call")
    ]
    assert told[-3]["interaction_id"] == "one"
    assert told[-1]["interaction"] == {"id": "one", "status": "requires_action", "usage": {"total_tokens": 7}}


def test_what_a_model_continues_goes_on_in_the_open_block() -> None:
    usage = Usage(
        input_tokens=3,
        output_tokens=9,
        total_tokens=12,
        estimated=True,
        raw={"tokens": {"input_tokens": 8, "output_tokens": 4}},
    )
    first: list[dict[str, Any]] = [
        {"type": "message-start", "id": "one"},
        {"type": "content-start", "index": 0, "delta": {"message": {"content": {"type": "thinking"}}}},
        {"type": "content-end", "index": 0},
        {"type": "content-start", "index": 1, "delta": {"message": {"content": {"type": "text", "text": ""}}}},
        {"type": "content-delta", "index": 1, "delta": {"message": {"content": {"text": "It "}}}},
    ]
    rest = deltas_of(
        "cohere",
        [
            {"type": "message-start", "id": "two"},
            {"type": "content-start", "index": 0, "delta": {"message": {"content": {"type": "text", "text": ""}}}},
            {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "It is"}}}},
            {"type": "citation-start", "index": 0, "delta": {"message": {"citations": {"start": 0}}}},
            {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "!"}}}, "logprobs": [1]},
            {"type": "content-end", "index": 0},
            {"type": "tool-plan-delta", "delta": {"message": {"tool_plan": "I look."}}},
            {
                "type": "tool-call-start",
                "index": 0,
                "delta": {"message": {"tool_calls": {"id": "c", "function": {"name": "f"}}}},
            },
            {"type": "tool-call-end", "index": 0},
            {"type": "message-end", "delta": {"finish_reason": "TOOL_CALL", "usage": {"tokens": {"input_tokens": 8}}}},
        ],
    )
    rest[2].text, rest[-1].usage = "is", usage
    told = retold("cohere", first, rest)
    check_structure("cohere", [*first, *told])
    assert [event["type"] for event in told] == [
        *("content-delta", "citation-start", "content-delta", "content-end", "tool-plan-delta"),
        *("tool-call-start", "tool-call-end", "message-end"),
    ]
    assert [event["index"] for event in told[:4]] == [1, 0, 1, 1]
    assert told[0]["delta"]["message"]["content"] == {"text": "is"}
    assert told[2]["logprobs"] == [1]
    assert told[-1]["delta"]["usage"] == {"tokens": {"input_tokens": 3, "output_tokens": 9}}


@pytest.mark.parametrize("dialect", ["gemini", "gemini-interactions"])
def test_sums_are_written_in_the_providers_names(dialect: str) -> None:
    usage = Usage(input_tokens=3, output_tokens=9, total_tokens=12, cached_tokens=1, reasoning_tokens=4, estimated=True)
    if dialect == "gemini":
        (delta,) = deltas_of(dialect, [{"candidates": [{"finishReason": "STOP"}]}])
        delta.usage = usage
        raw = retold(dialect, [{"responseId": "one"}], [delta])[0]["usageMetadata"]
    else:
        (delta,) = deltas_of(dialect, [{"event_type": "interaction.completed", "interaction": {"status": "completed"}}])
        delta.usage = usage
        raw = retold(dialect, [CREATED], [delta])[0]["interaction"]["usage"]
    (again,) = deltas_of(
        dialect,
        [{"usageMetadata": raw}]
        if dialect == "gemini"
        else [{"event_type": "interaction.completed", "interaction": {"status": "completed", "usage": raw}}],
    )
    assert again.usage is not None
    again.usage.raw, again.usage.estimated = {}, True
    assert again.usage == usage


def test_a_character_in_halves_is_told_whole() -> None:
    halves = deltas_of("gemini", [part(text="a\ud83d"), part(text="\ude00b", thought=False)])
    told = retold("gemini", [{"responseId": "one"}], halves)
    assert [one["candidates"][0]["content"]["parts"][0]["text"] for one in told] == ["a", "😀b"]
    events = [step("delta", delta={"type": "text", "text": text}) for text in ("a\ud83d", "\ude00b")]
    opened = [CREATED, step("start", step={"type": "model_output"})]
    told = retold("gemini-interactions", opened, deltas_of("gemini-interactions", [*opened, *events])[2:])
    assert [one["delta"]["text"] for one in told] == ["a", "😀b"]
    events = [
        {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": text}}}}
        for text in ("a\ud83d", "\ude00b")
    ]
    told = retold("cohere", [{"type": "message-start"}], deltas_of("cohere", events))
    assert [one["delta"]["message"]["content"]["text"] for one in told[1:]] == ["a", "😀b"]


def test_citations_that_were_told_are_told_once() -> None:
    cited = [
        {"type": name, "index": 0, "delta": {"message": {"citations": {"start": 0}}}}
        for name in ("citation-start", "citation-end")
    ]
    words = [
        {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": text}}}} for text in ("a", "b")
    ]
    whole = [{"type": "content-start", "index": 0}, words[0], *cited, words[1]]
    # What says nothing comes once more behind the words that were compared.
    rest = deltas_of("cohere", whole)[2:]
    assert retold("cohere", [{"type": "message-start"}, *whole[:4]], rest) == [words[1]]
    assert retold("cohere", [{"type": "message-start"}, *whole[:3]], rest) == [cited[1], words[1]]


def test_a_part_without_words_is_told_once() -> None:
    image = part(inlineData={"data": "AA"})
    rest = deltas_of("gemini", [image, part(text="b")])
    told = retold("gemini", [{**part(text="a"), "responseId": "one"}, {**image, "responseId": "one"}], rest)
    assert [one["candidates"][0]["content"]["parts"] for one in told] == [[{"text": "b"}]]
    assert len(retold("gemini", [{**part(text="a"), "responseId": "one"}], rest)) == 2
    counted = deltas_of("gemini", [{"usageMetadata": {"totalTokenCount": 3}}])
    assert retold("gemini", [{"responseId": "one"}], counted) == [
        {"responseId": "one", "usageMetadata": {"totalTokenCount": 3}}
    ]


JUNK: tuple[Any, ...] = (7, None, "", "a\nb", [], [7], {}, {"type": "text", "text": "x"}, True)


def spoilt(value: Any, chance: Random) -> Any:
    """The same JSON with some values that are something else."""
    if chance.random() < 0.06:
        return chance.choice(JUNK)
    if isinstance(value, dict):
        return {name: spoilt(one, chance) for name, one in value.items() if chance.random() > 0.03}
    return [spoilt(one, chance) for one in value] if isinstance(value, list) else value


@EACH
def test_whatever_a_reader_lets_pass_is_told_as_events(home: Home) -> None:
    chance, passed = Random(home.dialect), 0
    good = payloads(b"".join(home.events("one")))
    for _ in range(300):
        deltas = list[Delta]()
        reader = DIALECTS[home.dialect].reader(None, Cursor())
        for event in [spoilt(one, chance) for one in good]:
            with suppress(StreamError):
                reader.feed([Event(json.dumps(event).encode())], deltas)
        teller, out = DIALECTS[home.dialect].wire.teller(), list[bytes]()
        cut = chance.randrange(len(deltas) + 1)
        teller.feed(deltas[:cut], [])
        teller.reseat()
        teller.feed(deltas[cut:], out)
        lines = b"".join(out).splitlines()
        assert all(line.startswith((b"data: ", b"event: ")) or not line for line in lines)
        passed += sum(isinstance(json.loads(line[6:]), dict) for line in lines if line.startswith(b"data: {"))
    assert passed > 500


# -- recorded streams ------------------------------------------------------------------------------

APIS = {"gemini": "gemini", "gemini_interactions": "gemini-interactions", "cohere_v2": "cohere"}
RECORDED = [entry for entry in shared.recordings() if entry["api"] in APIS]


@pytest.mark.parametrize("entry", RECORDED, ids=lambda entry: str(entry["file"]))
async def test_a_recorded_stream_that_is_compared_is_told_as_it_was(entry: dict[str, Any], clock: FakeClock) -> None:
    data, events, dialect = shared.recorded(entry), list[Event](), APIS[entry["api"]]
    SseParser(Cursor(), comments=True).feed([data], events)
    wire = [event.wire for event in events]
    assert await told(relaying(MemorySource(bytewise(data)), clock, dialect), REQUEST) == data
    for after in range(1, len(wire)):
        body = await told(relaying(sources(wire, wire, after, 1 + after % 4), clock, dialect), REQUEST)
        assert payloads(body) == payloads(data), after
