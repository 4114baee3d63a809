"""Faults speak the dialect of the request that they meet: errors, pings and ends look as the provider's own."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from holdfast import MemorySource, Pipe, Request
from holdfast.testing import (
    SHAPES,
    VOCABULARY,
    AnthropicShape,
    ChaosProxy,
    ChaosServer,
    Fault,
    Faults,
    PlainShape,
    Schedule,
    Shape,
    write_answer,
)
from holdfast.testing import faults as f
from holdfast.testing.acts import Asked, Bytes, Cut, Pings, acts
from holdfast.testing.idiom import CHAT, event_id
from holdfast.testing.server import ReceivedRequest
from holdfast.testing.shapes import idiom_of
from holdfast.testing.visits import idiom_for

ANSWER = write_answer("tides", sentences=2, tools=1)
ALL = (*SHAPES, PlainShape())
ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "ChatShape": ("/chat/completions", {"messages": [{"role": "user", "content": "tides"}]}),
    "ResponsesShape": ("/v1/responses", {"input": "tides"}),
    "AnthropicShape": ("/v1/messages", {"messages": [{"role": "user", "content": "tides"}]}),
    "GeminiShape": ("/v1beta/models/m:streamGenerateContent?alt=sse", {"contents": [{"parts": [{"text": "tides"}]}]}),
    "InteractionsShape": ("/v1beta/interactions", {"input": "tides"}),
    "CohereShape": ("/v2/chat", {"messages": [{"role": "user", "content": "tides"}]}),
}


def name(shape: Shape) -> str:
    return type(shape).__name__


def body(fault: Fault, shape: Shape, **asked: Any) -> bytes:
    """Gives what a fault makes of an answer."""
    events = shape.events(ANSWER, "a1", ids=False)
    played = acts(fault.play(Asked(idiom=idiom_of(shape), **asked)), events)
    return b"".join(act.data for act in played if isinstance(act, Bytes))


def whole(shape: Shape) -> bytes:
    return b"".join(shape.events(ANSWER, "a1", ids=False))


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as made:
        yield made


async def ask(session: aiohttp.ClientSession, which: str, fault: Fault) -> tuple[int, bytes]:
    path, question = ASKED[which]
    async with (
        ChaosServer(schedule=Schedule(streams={"tides": [fault]})) as server,
        session.post(server.url + path, json=question) as reply,
    ):
        return reply.status, await reply.read()


# -- errors inside a stream --------------------------------------------------------------------

ERRORS = {
    "ChatShape": rb'data: \{"error": \{"message": "[^"]+", "type": "internal_server_error", "code": "\w+"\}\}\n\n$',
    "ResponsesShape": rb'event: error\ndata: \{"type":"error","sequence_number":9,"error":'
    rb'\{"type":"server_error".*\}\}\n\n'
    rb'event: response.failed\ndata: \{"type":"response.failed",.*"status":"failed".*"sequence_number":10\}\n\n$',
    "AnthropicShape": rb'event: error\ndata: \{"type": "error", "error": '
    rb'\{"type": "overloaded_error", "message": "Overloaded"\}\}\n\n$',
    "GeminiShape": rb'\r\n\r\n\{\n  "error": \{\n    "code": 503,\n.*\n    "status": "UNAVAILABLE"\n  \}\n\}\n$',
    "InteractionsShape": rb'event: error\ndata: \{"error":\{"message":"[^"]+","code":"\w+"\},'
    rb'"event_type":"error"\}\n\n$',
    "CohereShape": rb'event: message-end\ndata: \{"type":"message-end",.*"finish_reason":"ERROR"\}\}\n\n$',
}


@pytest.mark.parametrize("which", ERRORS)
async def test_an_error_inside_a_stream_is_the_dialects_own(session: aiohttp.ClientSession, which: str) -> None:
    status, said = await ask(session, which, f.ErrorEvent(after=9, done=False))
    assert status == 200
    assert re.search(ERRORS[which], said), said[-600:]


@pytest.mark.parametrize("shape", ALL, ids=name)
def test_an_error_that_is_final_reads_otherwise(shape: Shape) -> None:
    if not isinstance(shape, PlainShape):
        final = body(f.ErrorEvent(code="insufficient_quota", done=False), shape)
        assert final != body(f.ErrorEvent(done=False), shape)


@pytest.mark.parametrize("shape", ALL, ids=name)
def test_a_server_that_gives_up_says_so_in_its_dialect(shape: Shape) -> None:
    said = body(f.GaveUp(after=9), shape)
    events = whole(shape).count(b"data: ")
    assert said.count(b"data: ") <= 12 < events
    assert re.search(rb"insufficient|error|ERROR|failed|UNAVAILABLE", said[-600:])


# -- errors in the place of one ----------------------------------------------------------------

DOCUMENTS: dict[str, dict[str, Any]] = {
    "ChatShape": {"error": {"message": str, "type": str, "code": str}},
    "ResponsesShape": {"error": {"message": str, "type": str, "param": None, "code": str}},
    "AnthropicShape": {"type": "error", "error": {"type": "overloaded_error", "message": str}, "request_id": str},
    "GeminiShape": {"error": {"code": 529, "message": str, "status": str}},
    "InteractionsShape": {"error": {"message": str, "code": str}},
    "CohereShape": {"id": str, "message": str},
}


@pytest.mark.parametrize("which", DOCUMENTS)
async def test_a_refusal_is_the_dialects_own_document(session: aiohttp.ClientSession, which: str) -> None:
    def fits(value: Any, pattern: Any) -> bool:
        if isinstance(pattern, dict):
            return set(value) == set(pattern) and all(fits(value[key], pattern[key]) for key in pattern)
        return isinstance(value, pattern) if isinstance(pattern, type) else bool(value == pattern)

    status, said = await ask(session, which, f.Refused(status=529))
    assert status == 529
    assert fits(json.loads(said), DOCUMENTS[which]), said


@pytest.mark.parametrize("which", ASKED)
async def test_an_answer_that_is_not_streamed_is_the_dialects_own_document(
    session: aiohttp.ClientSession, which: str
) -> None:
    members = {
        "ChatShape": "choices",
        "ResponsesShape": "output",
        "AnthropicShape": "content",
        "GeminiShape": "candidates",
        "InteractionsShape": "steps",
        "CohereShape": "message",
    }
    status, said = await ask(session, which, f.JsonAnswer())
    assert status == 200
    assert members.keys() == ASKED.keys()
    assert members.keys() - {name for name, member in members.items() if member in json.loads(said)} == (
        members.keys() - {which}
    )
    assert b"All at once." in said


# -- ends and pings ----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ALL, ids=name)
def test_an_end_mark_without_an_end_is_that_of_the_dialect(shape: Shape) -> None:
    said, idiom = body(f.EarlyDone(after=9), shape), idiom_of(shape)
    assert said == body(f.CleanCut(after=9), shape) + idiom.end
    assert b"[DONE]" not in said or b"[DONE]" in whole(shape)


@pytest.mark.parametrize("shape", ALL, ids=name)
def test_what_has_an_end_mark_can_lose_it(shape: Shape) -> None:
    said, idiom = body(f.NoDone(), shape), idiom_of(shape)
    assert whole(shape).startswith(said)
    assert (len(said) < len(whole(shape))) == bool(idiom.end)
    assert not any(idiom.is_end(event) for event in said.splitlines(keepends=True))


@pytest.mark.parametrize("shape", ALL, ids=name)
@pytest.mark.parametrize("fault", [f.ResetAtEnd(done=False), f.StallAtEnd(done=False)], ids=str)
def test_a_break_before_the_end_mark_comes_when_all_is_said(fault: Fault, shape: Shape) -> None:
    assert body(fault, shape) == body(f.NoDone(), shape)


async def test_a_stall_is_masked_by_the_dialects_pings(session: aiohttp.ClientSession) -> None:
    for which, ping in {
        "AnthropicShape": b'event: ping\ndata: {"type": "ping"}\n\n',
        "ChatShape": b": keep-alive\n\n",
    }.items():
        path, question = ASKED[which]
        stalled = Schedule(streams={"tides": [f.StallBehindPings(after=9, ping=0.01)]})
        async with ChaosServer(schedule=stalled) as server, session.post(server.url + path, json=question) as reply:
            said = b""
            while said.count(ping) < 4:
                said += await reply.content.readany()
            reply.close()
        assert said.endswith(ping * 3)


@pytest.mark.parametrize("shape", SHAPES, ids=name)
@pytest.mark.parametrize("ids", [False, True])
def test_an_empty_delta_names_no_place_that_was_not_reached(shape: Shape, *, ids: bool) -> None:
    events, idiom = shape.events(ANSWER, "a1", ids=ids), idiom_of(shape)
    played = list(acts(f.StallBehindEmptyDeltas(after=9).play(Asked(idiom=idiom)), events))
    sent = [act.data for act in played if isinstance(act, Bytes)]
    (pings,) = [act.data for act in played if isinstance(act, Pings)]
    assert event_id(pings) == ""
    assert idiom.place(pings) in ("", *map(idiom.place, sent))


# -- everywhere --------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ALL, ids=name)
def test_every_fault_can_strike_in_every_shape(shape: Shape) -> None:
    events = shape.events(ANSWER, "a1", ids=True)
    for fault in VOCABULARY:
        for asked in (Asked(idiom=idiom_of(shape)), Asked(attempt=2, cursor="9", idiom=idiom_of(shape))):
            played = list(acts(fault.play(asked), events))
            assert played, fault
            assert not any(isinstance(act, Cut) for act in played[:-1]), fault


@pytest.mark.parametrize("shape", SHAPES, ids=name)
@pytest.mark.parametrize(
    "fault",
    [
        *(f.TornEvent(), f.FlippedBit(), f.FlippedBit(where="word"), f.WrongType(), f.HalfSurrogate()),
        *(f.InvalidUtf8(), f.DroppedEvent(), f.DoneInText(), f.BigEvent(size=100)),
    ],
    ids=str,
)
def test_what_strikes_in_words_finds_them_in_every_shape(fault: Fault, shape: Shape) -> None:
    assert body(fault, shape) != whole(shape)


@pytest.mark.parametrize(
    "shape", [shape for shape in ALL if idiom_of(shape).place(shape.events(ANSWER, "a", ids=False)[5])]
)
@pytest.mark.parametrize(
    ("fault", "again"), [(f.RepeatedAfterResume(events=3), 3), (f.RepeatedAfterResume(events=1), 1)]
)
def test_events_are_repeated_after_a_cursor_too(fault: Fault, again: int, shape: Shape) -> None:
    events = shape.events(ANSWER, "a1", ids=False)
    said = body(fault, shape, cursor=idiom_of(shape).place(events[20]))
    assert said == b"".join(events[21 - again :])


@pytest.mark.parametrize("which", ASKED)
def test_an_idiom_is_known_by_the_request(which: str) -> None:
    path, question = ASKED[which]
    request = ReceivedRequest(method="POST", path=path, body=json.dumps(question).encode())
    expected = next(idiom_of(shape) for shape in SHAPES if name(shape) == which)
    assert idiom_for(request) is expected


async def test_before_a_real_upstream_faults_speak_its_dialect(session: aiohttp.ClientSession) -> None:
    path, question = ASKED["AnthropicShape"]
    cut = Schedule(streams={"*": [f.ErrorEvent(after=9, done=False), f.Refused(status=529)]})
    async with ChaosServer() as upstream, ChaosProxy(upstream=upstream.url, schedule=cut) as proxy:
        for expected in (ERRORS["AnthropicShape"], rb'"type":"overloaded_error"'):
            async with session.post(proxy.url + path, json={**question, "stream": True}) as reply:
                assert re.search(expected, await reply.read())


async def test_in_memory_faults_speak_the_dialect_of_the_request_or_the_one_they_are_told() -> None:
    path, question = ASKED["AnthropicShape"]
    events = AnthropicShape().events(ANSWER, "a1", ids=False)
    cut = Schedule(streams={"*": [f.ErrorEvent(after=9, done=False)]})
    for url, idiom in ((f"http://test{path}", None), ("http://test/", AnthropicShape.idiom)):
        pipe = Pipe(MemorySource(events)) | Faults(cut, idiom=idiom)
        async with pipe.stream(Request(method="POST", url=url, body=question)) as stream:
            assert re.search(ERRORS["AnthropicShape"], b"".join([data async for data in stream]))


def test_what_no_shape_reads_is_spoken_to_as_chat() -> None:
    assert idiom_for(ReceivedRequest(method="GET", path="/")) is CHAT
    assert idiom_of(object()) is CHAT  # type: ignore[arg-type]  # a shape that has no idiom
    assert Faults(Schedule()).idiom is None
