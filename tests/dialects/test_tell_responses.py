"""The Responses shape told on: bytes as they came, and after a seam one response whose items keep their names."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from holdfast._types import Delta, Event, Request
from holdfast.dialects import OPENAI_RESPONSES
from holdfast.dialects._tell_responses import ResponsesTeller
from holdfast.machines.cursor import Cursor
from holdfast.machines.sse import SseParser
from holdfast.offline import assemble
from holdfast.sources.memory import MemorySource
from holdfast.testing import FakeClock
from holdfast.testing.answers import Answer, write_answer
from holdfast.testing.server import ScriptedServer, stream
from holdfast.testing.shapes import ResponsesShape
from tests.cuts import bytewise, randomly
from tests.dialects.test_tell_chat import relaying, told
from tests.layers.test_rungs import Reply, Upstream, cut
from tests.sdks import readers

SHAPE = ResponsesShape()
REQUEST = Request(url="http://h/v1/responses", body={"input": "Go on."})
ANSWER = replace(write_answer("told", sentences=1, thoughts=1, tools=2), reasoning_pieces=("Hm", ", 先想", "一想"))
REFUSAL = replace(write_answer("told", refuses=True), reasoning_pieces=())


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


def events_of(body: bytes) -> list[Event]:
    events: list[Event] = []
    SseParser(Cursor()).feed([body], events)
    return events


def check(body: bytes) -> Counter[tuple[Any, ...]]:
    """Gives what is told besides growth; checks that one response is told, number by number, under ids that stand."""
    found, ids, responses = Counter[tuple[Any, ...]](), dict[int, str](), set[str]()
    for number, event in enumerate(events_of(body)):
        said = event.json()
        assert said["sequence_number"] == number
        assert said["type"] == event.type
        if "response" in said:
            responses.add(said["response"]["id"])
            for index, item in enumerate(said["response"]["output"]):
                assert ids.setdefault(index, item["id"]) == item["id"]
        if "output_index" in said:
            id_ = said["item_id"] if "item_id" in said else said["item"]["id"]
            assert ids.setdefault(said["output_index"], id_) == id_
        if not event.type.endswith(".delta"):
            found[event.type, *(said.get(f"{name}_index") for name in ("output", "content", "summary"))] += 1
    assert len(responses) == 1
    return found


def begun(events: Sequence[bytes], after: int) -> int:
    return sum(b'"function_call"' in event and b"output_item.added" in event for event in events[:after])


HEALTHY = (
    b"\xef\xbb\xbf: hello\n\nretry: 10\r\n\r\n"
    + b"".join(wire(ANSWER, "one")).replace(b"\n\nevent", b"\n\n: ping\r\revent")
    + b"data: [DONE]\n\n"
)


async def test_what_is_healthy_is_told_to_the_byte(clock: FakeClock) -> None:
    whole = HEALTHY.removesuffix(b"data: [DONE]\n\n")
    for chunks in ([whole], bytewise(whole), *randomly(whole, times=5, most=60)):
        assert await told(relaying(MemorySource(chunks), clock, "openai-responses"), REQUEST) == whole


FIRST = wire(renamed(ANSWER, mark="a"), "one")


@pytest.mark.parametrize("lump", [False, True])
@pytest.mark.parametrize("after", range(1, len(FIRST)))
async def test_a_replay_is_told_as_the_rest_of_the_first_response(after: int, lump: bool, clock: FakeClock) -> None:  # noqa: FBT001
    second = wire(renamed(ANSWER), "two")
    again = [b"".join(second)] if lump else second
    server = Upstream(lambda _r, turn: cut(FIRST, after) if turn == 1 else again)
    body = await told(relaying(server, clock, "openai-responses"), REQUEST)
    expected = b"".join(wire(renamed(renamed(ANSWER, mark="a"), begun(FIRST, after)), "one"))
    assert assemble(body, "openai-responses") == assemble(expected, "openai-responses")
    assert check(body) == check(expected)
    assert set(check(body).values()) == {1}
    assert body.startswith(b"".join(FIRST[:after]))
    assert b"resp_two" not in body


@pytest.mark.parametrize("answer", [REFUSAL, replace(ANSWER, tools=(), finish="length")], ids=["refusal", "cut"])
async def test_other_ends_are_told(answer: Answer, clock: FakeClock) -> None:
    first, second = wire(answer, "one"), wire(answer, "two")
    for after in range(1, len(first), 2):
        server = Upstream(lambda _r, turn, n=after: cut(first, n) if turn == 1 else second)  # type: ignore[misc]  # a default binds the loop's value
        body = await told(relaying(server, clock, "openai-responses"), REQUEST)
        assert assemble(body, "openai-responses") == assemble(b"".join(first), "openai-responses")
        assert check(body) == check(b"".join(first))


@pytest.mark.parametrize("second", range(1, len(FIRST), 7))
@pytest.mark.parametrize("first", range(1, len(FIRST), 5))
async def test_two_replays_in_other_pieces_are_told_as_one_response(first: int, second: int, clock: FakeClock) -> None:
    others = [wire(rechunked(renamed(ANSWER)), "two"), wire(renamed(ANSWER, mark="c"), "three")]

    def handler(_request: Request, turn: int) -> Reply:
        return [cut(FIRST, first), cut(others[0], second), others[1]][turn - 1]

    body = await told(relaying(Upstream(handler), clock, "openai-responses"), REQUEST)
    answer = assemble(body, "openai-responses")
    assert (answer.text, answer.reasoning) == (ANSWER.text, ANSWER.reasoning)
    assert [call.arguments for call in answer.tool_calls] == [tool.arguments for tool in ANSWER.tools]
    assert check(body) == check(b"".join(FIRST))


# -- what servers do besides -----------------------------------------------------------------------


def numbered(*payloads: dict[str, Any], named: bool = True) -> list[bytes]:
    lines = [json.dumps({**payload, "sequence_number": n}) for n, payload in enumerate(payloads)]
    return [
        f"event: {payload['type']}\ndata: {line}\n\n".encode() if named else f"data: {line}\n\n".encode()
        for payload, line in zip(payloads, lines, strict=True)
    ]


def spoken(
    id_: str, *, silent: bool, text: Sequence[str] = ("Along", " the", " coast"), named: bool = True
) -> list[bytes]:
    """A response of a message, which an item without words may come before."""
    at = int(silent)
    thought = {"id": f"rs_{id_}", "type": "reasoning", "summary": []}
    message = {"id": f"msg_{id_}", "type": "message", "role": "assistant", "content": []}
    part = {"type": "output_text", "text": "".join(text), "annotations": []}
    where = {"item_id": message["id"], "output_index": at, "content_index": 0}
    whole = {**message, "content": [part]}
    output = [*([thought] if silent else []), whole]
    item = "response.output_item"
    return numbered(
        {"type": "response.created", "response": {"id": id_, "output": []}},
        *([{"type": f"{item}.{does}", "item": thought, "output_index": 0} for does in ("added", "done")] * silent),
        {"type": f"{item}.added", "item": message, "output_index": at},
        {"type": "response.content_part.added", **where, "part": {**part, "text": ""}},
        *({"type": "response.output_text.delta", **where, "delta": piece} for piece in text),
        {"type": "response.output_text.done", **where, "text": part["text"]},
        {"type": "response.content_part.done", **where, "part": part},
        {"type": f"{item}.done", "item": whole, "output_index": at},
        {"type": "response.completed", "response": {"id": id_, "output": output, "usage": {"total_tokens": 3}}},
        named=named,
    )


@pytest.mark.parametrize("silent", [False, True])
async def test_items_without_words_may_be_others(silent: bool, clock: FakeClock) -> None:  # noqa: FBT001
    first, second = spoken("one", silent=silent), spoken("two", silent=not silent)
    for after in range(1, len(first)):
        server = Upstream(lambda _r, turn, n=after: cut(first, n) if turn == 1 else second)  # type: ignore[misc]  # a default binds the loop's value
        body = await told(relaying(server, clock, "openai-responses"), REQUEST)
        assert assemble(body, "openai-responses").text == "Along the coast"
        assert set(check(body).values()) == {1}
        assert sum(said[0] == "response.output_text.done" for said in check(body)) == 1


async def test_events_may_have_no_names(clock: FakeClock) -> None:
    first, second = (spoken(id_, silent=True, named=False) for id_ in ("one", "two"))
    for after in range(1, len(first)):
        server = Upstream(lambda _r, turn, n=after: cut(first, n) if turn == 1 else second)  # type: ignore[misc]  # a default binds the loop's value
        body = await told(relaying(server, clock, "openai-responses"), REQUEST)
        body = body.replace(b"_two", b"_one")  # of items that had not begun
        assert [event.json() for event in events_of(body)] == [event.json() for event in events_of(b"".join(first))]
        assert b"event:" not in body


async def test_the_index_of_the_first_item_may_be_left_out(clock: FakeClock) -> None:
    def bare(id_: str) -> list[bytes]:
        return [line.replace(b'"output_index": 0, ', b"") for line in spoken(id_, silent=False)]

    first, second = bare("one"), bare("two")
    for after in range(1, len(first)):
        server = Upstream(lambda _r, turn, n=after: cut(first, n) if turn == 1 else second)  # type: ignore[misc]  # a default binds the loop's value
        body = await told(relaying(server, clock, "openai-responses"), REQUEST)
        assert assemble(body, "openai-responses").text == "Along the coast"
        assert len(events_of(body)) == len(first)


async def test_what_the_server_runs_itself_is_told_once(clock: FakeClock) -> None:
    def searched(id_: str) -> list[bytes]:
        tool = {"id": f"ci_{id_}", "type": "code_interpreter_call", "status": "completed"}
        where = {"item_id": tool["id"], "output_index": 0}
        code = "response.code_interpreter_call"
        output = "response.output_item"
        return numbered(
            {"type": "response.created", "response": {"id": id_, "output": []}},
            {"type": f"{output}.added", "item": tool, "output_index": 0},
            {"type": f"{code}.in_progress", **where},
            *({"type": f"{code}_code.delta", **where, "delta": piece} for piece in ("x", " = ", "1")),
            {"type": f"{code}_code.done", **where, "code": "x = 1"},
            {"type": f"{code}.completed", **where},
            {"type": f"{output}.done", "item": tool, "output_index": 0},
            {"type": "keepalive"},
            {"type": "response.completed", "response": {"id": id_, "output": [tool], "usage": {"total_tokens": 3}}},
        )

    first, second = searched("one"), searched("two")
    for after in range(1, len(first)):
        server = Upstream(lambda _r, turn, n=after: cut(first, n) if turn == 1 else second)  # type: ignore[misc]  # a default binds the loop's value
        body = await told(relaying(server, clock, "openai-responses"), REQUEST)
        ours, wanted = ([event.json() for event in events_of(data)] for data in (body, b"".join(first)))
        if after == 1:  # its item had not begun: it is the second one's
            ours = json.loads(json.dumps(ours).replace("ci_two", "ci_one"))
        assert ours == wanted


@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.parametrize("left_out", [0, 4])
def test_another_turn_is_an_item_of_its_own(left_out: int, silent: bool) -> None:  # noqa: FBT001
    def turn(id_: str, text: Sequence[str], *, silent: bool) -> list[Delta]:
        deltas: list[Delta] = []
        body = b"".join(spoken(id_, silent=silent, text=text))
        OPENAI_RESPONSES.wire.reader(None, Cursor(), end_at_done=False).feed(events_of(body), deltas)
        return deltas

    teller, out = ResponsesTeller(), list[bytes]()
    teller.feed(turn("one", ("Along", " the"), silent=silent)[:-1], out)
    teller.reseat()
    again = (" the",) if left_out else ()  # words that only say ours again
    teller.feed(turn("two", (*again, " coast", " a", " tide"), silent=False)[left_out:], out)
    body = b"".join(out)
    assert assemble(body, "openai-responses").text == "Along the coast a tide"
    assert set(check(body).values()) == {1}
    output = events_of(body)[-1].json()["response"]["output"][silent:]
    assert [item["id"] for item in output] == ["msg_one", "msg_two"]
    assert [item["content"][0]["text"] for item in output] == ["Along the", " coast a tide"]


def test_half_a_character_does_not_end_the_telling() -> None:
    def turn(id_: str) -> list[Delta]:
        deltas: list[Delta] = []
        lines = b"".join(spoken(id_, silent=False, text=("a", "b\ud83d", "\ude00c\ud83d")))
        OPENAI_RESPONSES.wire.reader(None, Cursor(), end_at_done=False).feed(events_of(lines), deltas)
        return deltas

    teller, out = ResponsesTeller(), list[bytes]()
    teller.feed(turn("one")[:4], out)
    teller.reseat()
    teller.feed(turn("two")[4:], out)
    assert assemble(b"".join(out), "openai-responses").text == "ab\U0001f600c\ufffd"


# -- the SDK -------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", range(2, len(FIRST), 3))
async def test_the_makers_sdk_reads_what_was_told(after: int, clock: FakeClock) -> None:
    second = wire(renamed(ANSWER), "two")
    source = Upstream(lambda _r, turn: cut(FIRST, after) if turn == 1 else second)
    body = await told(relaying(source, clock, "openai-responses"), REQUEST)
    expected = b"".join(wire(renamed(renamed(ANSWER, mark="a"), begun(FIRST, after)), "one"))
    async with ScriptedServer([stream(body)]) as server:
        said = await readers.openai_responses(server.url)
    assert said == readers.ours(assemble(expected, "openai-responses"), said)
    assert said.text == ANSWER.text
    assert len(said.calls) == 2
