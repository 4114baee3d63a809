"""Plain events: their data as it is, and what proves that no event is missing. MCP and Replicate stand on it."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest

from holdfast._errors import DecodeError, EndOfStream, NotAStream, StreamError, Truncated, UpstreamError
from holdfast._types import BatchMode, Completion, Delta, Event, Head
from holdfast.dialects import MCP, REPLICATE, SSE, Dialect, SseWire, state_of
from holdfast.machines.cursor import Cursor
from holdfast.machines.sse import SseParser
from holdfast.offline import assemble

ENDS = Dialect(name="ends", wire=SseWire(end_event="done", end_data="[DONE]"))


def failed(data: bytes, dialect: Dialect = SSE) -> tuple[StreamError, Completion]:
    with pytest.raises(StreamError) as raised:
        assemble(data, dialect)
    return raised.value, raised.value.partial.answer


def deltas_of(data: bytes, dialect: Dialect, request: dict[str, Any] | None = None, **reader: Any) -> list[Delta]:
    cursor = Cursor()
    parser, machine = SseParser(cursor), dialect.reader(request, cursor, **reader)
    events, deltas = list[Event](), list[Delta]()
    parser.feed([data], events)
    try:
        machine.feed(events, deltas)
        parser.end([])
        machine.end(deltas)
    except EndOfStream:
        pass
    assert machine.evidence.complete
    return deltas


def test_each_event_is_a_delta_as_it_is() -> None:
    deltas = deltas_of(b"event: a\ndata:  x\ndata: y\n\n: ping\n\ndata: {not json\n\ndata\n\n", SSE)
    assert [(d.text, d.raw.type, d.empty) for d in deltas] == [
        (" x\ny", "a", False),
        ("{not json", "message", False),
        ("", "message", True),
    ]


def test_a_clean_end_proves_it_where_nothing_else_is_agreed() -> None:
    assert str(assemble(b"data: x\n\n", "sse").verdict) == "COMPLETE"
    assert assemble(b": nothing happened\n\n", "sse").text == ""


@pytest.mark.parametrize("tail", [b"data: y", b"data: y\n", b"data: y\r\n", b"dat"])
def test_an_unfinished_event_is_a_cut(tail: bytes) -> None:
    error, answer = failed(b"data: x\n\n" + tail)
    assert isinstance(error, Truncated)
    assert answer.text == "x"


@pytest.mark.parametrize("data", [b"", b"<html>\n</html>\n", b'{"result": 1}', b"upstream connect error"])
def test_what_has_no_events_is_no_stream(data: bytes) -> None:
    assert isinstance(failed(data)[0], NotAStream)


@pytest.mark.parametrize(
    ("tail", "message"),
    [
        (b'event: error\ndata: {"detail": "the words"}\n\n', "the words"),
        (b"event: error\ndata: the words\n\n", "the words"),
        (b'error: {"message": "the words"}\n\n', "the words"),
    ],
)
@pytest.mark.parametrize("dialect", [SSE, ENDS, MCP, REPLICATE], ids=lambda d: d.name)
def test_an_error_is_one(tail: bytes, message: str, dialect: Dialect) -> None:
    error, answer = failed(b'data: {"a":1}\n\n' + tail, dialect)
    assert isinstance(error, UpstreamError)
    assert (error.message, answer.text) == (message, '{"a":1}')


@pytest.mark.parametrize("end", [b"event: done\ndata: {}\n\n", b"data: [DONE]\n\n"])
def test_an_end_that_was_agreed_on_must_come(end: bytes) -> None:
    assert assemble(b"data: x\n\n" + end + b"data: y\n\n", ENDS).text == "x"
    assert [d.text for d in deltas_of(b"data: x\n\n" + end + b"data: y\n\n", ENDS, end_at_done=False)] == ["x", "", ""]
    error, answer = failed(b"data: x\n\n", ENDS)
    assert isinstance(error, Truncated)
    assert "'done'" in str(error)
    assert "'[DONE]'" in str(error)
    assert answer.text == "x"


def test_nothing_is_known_of_requests() -> None:
    assert SSE.prepare({"a": 1}) == {"a": 1}
    assert SSE.wire.asks_json({"response_format": {"type": "json_object"}}) is False
    assert not SSE.wire.recognises(Event(b'{"jsonrpc":"2.0"}'))
    assert not any(dialect.replayable for dialect in (SSE, MCP, REPLICATE))


# -- Replicate -------------------------------------------------------------------------------------

OUTPUT = b"event: output\nid: 1:0\ndata: \n\nevent: output\nid: 1:1\ndata:  a\ndata: \ndata: b\n\n"


def test_a_prediction_ends_with_done() -> None:
    answer = assemble(OUTPUT + b"event: done\nid: 1:2\ndata: {}\n\n:408: 408 Request Timeout\n", "replicate")
    assert (answer.text, answer.finish_reason, str(answer.verdict)) == (" a\n\nb", None, "COMPLETE")
    assert isinstance(failed(OUTPUT, REPLICATE)[0], Truncated)


@pytest.mark.parametrize(("reason", "retryable"), [("canceled", False), ("error", True)])
def test_a_prediction_that_came_to_nothing_says_so(reason: str, retryable: bool) -> None:  # noqa: FBT001
    error, answer = failed(OUTPUT + f'event: done\ndata: {{"reason": "{reason}"}}\n\n'.encode(), REPLICATE)
    assert isinstance(error, UpstreamError)
    assert (error.code, error.retryable, answer.text) == (reason, retryable, " a\n\nb")


def test_a_reason_nobody_knows_is_an_end() -> None:
    assert assemble(OUTPUT + b'event: done\ndata: {"reason": "new"}\n\n', "replicate").finish_reason == "new"
    assert assemble(OUTPUT + b'event: done\ndata: {"reason": 7}\n\n', "replicate").finish_reason is None


# -- MCP -------------------------------------------------------------------------------------------


def message(**said: Any) -> bytes:
    return f"event: message\r\ndata: {json.dumps({'jsonrpc': '2.0', **said})}\r\n\r\n".encode()


PRIMING = b"id: p\r\nretry: 500\r\ndata:\r\n\r\n"
PROGRESS = message(method="notifications/progress", params={"progress": 1})
ASKS = message(id=1, method="sampling/createMessage")


def test_the_response_proves_a_call() -> None:
    data = PRIMING + PROGRESS + ASKS + message(id=1, result={"content": []})
    deltas = deltas_of(data, MCP, {"id": 1, "method": "tools/call"})
    assert [d.empty for d in deltas] == [True, False, False, False]
    assert json.loads(deltas[-1].text)["result"] == {"content": []}


@pytest.mark.parametrize("response", [{"result": None}, {"result": {}}, {"error": {"code": -32601, "message": "no"}}])
def test_an_error_response_is_the_callers_to_read(response: dict[str, Any]) -> None:
    assert str(assemble(message(id="a", **response), "mcp").verdict) == "COMPLETE"


@pytest.mark.parametrize("data", [PRIMING, PROGRESS, ASKS, message(id=None, result={}), message(id=2, error=None)])
def test_a_stream_without_the_response_is_cut(data: bytes) -> None:
    error, _ = failed(data, MCP)
    assert isinstance(error, Truncated)
    assert "the response to the request" in str(error)


@pytest.mark.parametrize(("number", "ends"), [(7, True), ("7", False), (8, False)])
def test_the_response_must_bear_the_requests_number(number: Any, ends: bool) -> None:  # noqa: FBT001
    reader = MCP.reader({"id": 7}, Cursor())
    event = Event(json.dumps({"id": number, "result": {}}).encode())
    deltas = list[Delta]()
    if ends:
        with pytest.raises(EndOfStream):
            reader.feed([event, event], deltas)
    else:
        reader.feed([event], deltas)
    assert (reader.evidence.complete, len(deltas)) == (ends, 1)


def test_a_response_that_is_no_stream_says_so() -> None:
    error, _ = failed(b'{"jsonrpc":"2.0","id":1,"result":{}}', MCP)
    assert isinstance(error, NotAStream)
    assert "without a stream" in str(error)


def test_a_batch_of_messages_may_hold_the_response() -> None:
    batch = b'data: [{"jsonrpc":"2.0","method":"n"},{"jsonrpc":"2.0","id":1,"result":{}}]\n\n'
    assert assemble(batch, "mcp").verdict is not None


@pytest.mark.parametrize("payload", [b"{", b"7", b'{"id":[1]}', b'{"id":true}'])
def test_what_is_no_message_is_an_error(payload: bytes) -> None:
    error, answer = failed(PROGRESS + b"data: " + payload + b"\n\n", MCP)
    assert isinstance(error, DecodeError)
    assert error.offset == len(PROGRESS)
    assert json.loads(answer.text)["method"] == "notifications/progress"


def test_a_continuation_waits_for_the_same_response() -> None:
    cursor = Cursor()
    reader = MCP.reader({"id": 7}, cursor)
    reader.feed([Event(PROGRESS[22:-4])], [])
    evidence = MCP.wire.revive(state_of(reader.evidence))
    assert evidence == reader.evidence
    cursor.begin("continue")
    following = MCP.reader(None, cursor, evidence)
    following.feed([Event(b'{"id":8,"result":{}}')], [])
    with pytest.raises(EndOfStream):
        following.feed([Event(b'{"id":7,"result":{}}')], [])


@pytest.mark.parametrize(
    ("dialect", "mode", "whole"), [(SSE, "continue", True), (SSE, "start", False), (ENDS, "continue", False)]
)
def test_behind_its_last_event_a_stream_goes_on_with_nothing(dialect: Dialect, mode: BatchMode, whole: bool) -> None:  # noqa: FBT001 - a column of the table
    cursor = Cursor()
    first = dialect.reader(None, cursor)
    first.feed([Event(b"x")], [])
    cursor.begin(mode)
    following = dialect.reader(None, cursor, first.evidence, head=Head())
    with contextlib.nullcontext() if whole else pytest.raises(NotAStream):
        following.end([])
    assert following.evidence.complete is whole


def test_its_messages_are_recognised() -> None:
    assert MCP.wire.recognises(Event(b'{"jsonrpc":"2.0","id":1}'))
    assert not any(MCP.wire.recognises(Event(other)) for other in (b"{}", b"[]", b"", b'{"jsonrpc":"1.0"}'))
    assert (MCP.event_ids, MCP.headers(None)) == ("get", {"Accept": "application/json, text/event-stream"})
