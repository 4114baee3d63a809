"""Cohere's chat: named events, a plan before the calls, and finish reasons that are no end."""

from __future__ import annotations

import json
from typing import Any

import pytest

from holdfast._errors import DecodeError, NotAStream, StatusError, StreamError, Truncated, UpstreamError
from holdfast._types import Completion, Delta, Event, Head
from holdfast.dialects import COHERE, state_of
from holdfast.machines.cursor import Cursor
from holdfast.offline import assemble

DONE = "data: [DONE]\n\n"


def event(name: str, **message: Any) -> dict[str, Any]:
    return {"type": name, "index": 0, "delta": {"message": message}}


def text(words: str) -> dict[str, Any]:
    return event("content-delta", content={"text": words})


def call(name: str, index: int = 0, **call: Any) -> dict[str, Any]:
    return {**event(name, tool_calls=call), "index": index}


def end(reason: str | None = "COMPLETE", **more: Any) -> dict[str, Any]:
    return {"type": "message-end", "delta": {"finish_reason": reason, **more}}


START = {
    "type": "message-start",
    "id": "m1",
    "delta": {"message": {"role": "assistant", "content": [], "tool_calls": []}},
}


def body(*events: Any) -> bytes:
    return "".join(
        e if isinstance(e, str) else f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in events
    ).encode()


def read(*events: Any) -> Completion:
    return assemble(body(*events), "cohere")


def failed(*events: Any) -> tuple[StreamError, Completion]:
    with pytest.raises(StreamError) as raised:
        read(*events)
    return raised.value, raised.value.partial.answer


def test_text_thinking_and_citations() -> None:
    cited = {"type": "citation-start", "index": 0, "delta": {"message": {"citations": {"start": 1}}}}
    answer = read(
        START,
        event("content-start", content={"type": "thinking", "thinking": ""}),
        event("content-delta", content={"thinking": "Hm"}),
        event("content-start", content={"text": "I"}),
        text("t"),
        cited,
        {"type": "citation-end"},
        {"type": "content-end", "index": 0},
        end(),
        DONE,
    )
    assert (answer.text, answer.reasoning, answer.finish_reason) == ("It", "Hm", "COMPLETE")


def test_the_plan_is_reasoning_and_calls_come_in_pieces() -> None:
    answer = read(
        START,
        event("tool-plan-delta", tool_plan="I will"),
        call("tool-call-start", id="a", function={"name": "f", "arguments": ""}),
        call("tool-call-delta", function={"arguments": '{"x":'}),
        call("tool-call-start", 1, id="b", function={"name": "g", "arguments": "{}"}),
        call("tool-call-delta", function={"arguments": "1}"}),
        call("tool-call-delta", id="a", function={"name": "f"}),
        {"type": "tool-call-end", "index": 0},
        end("TOOL_CALL"),
    )
    assert answer.reasoning == "I will"
    assert [(c.id, c.name, c.arguments) for c in answer.tool_calls] == [("a", "f", '{"x":1}'), ("b", "g", "{}")]


def test_usage_is_what_the_model_read_and_wrote() -> None:
    told = {
        "billed_units": {"input_tokens": 1},
        "tokens": {"input_tokens": 9.0, "output_tokens": 2},
        "cached_tokens": 4,
    }
    usage = read(START, text("x"), end(usage=told)).usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens, usage.cached_tokens) == (9, 2, 11, 4)
    assert usage.raw == told
    odd = read(START, end(usage={"tokens": {"input_tokens": 0.5, "output_tokens": True}, "cached_tokens": "4"})).usage
    assert odd is not None
    assert (odd.input_tokens, odd.output_tokens, odd.cached_tokens) == (None, None, None)


def test_events_nobody_knows_pass() -> None:
    reader, deltas = COHERE.reader(None, Cursor()), list[Delta]()
    for unknown in (
        {"type": "debug", "prompt": "p"},
        {"type": "message-paused", "delta": {"x": 1}},
        event("content-delta"),
    ):
        reader.feed([Event(json.dumps(unknown).encode())], deltas)
        assert deltas[-1].empty
        assert deltas[-1].raw.json() == unknown


@pytest.mark.parametrize("reason", ["COMPLETE", "STOP_SEQUENCE", "MAX_TOKENS", "TOOL_CALL", "NEW"])
def test_a_finish_reason_is_an_end(reason: str) -> None:
    assert read(START, text("x"), end(reason)).finish_reason == reason


@pytest.mark.parametrize(
    ("reason", "retryable"), [("ERROR", True), ("TIMEOUT", True), ("ERROR_TOXIC", False), ("ERROR_LIMIT", False)]
)
def test_a_server_that_gave_up_says_why(reason: str, retryable: bool) -> None:  # noqa: FBT001
    error, answer = failed(START, text("x"), end(reason, error="the words"), DONE)
    assert isinstance(error, UpstreamError)
    assert (error.code, error.message, error.retryable, answer.text) == (reason, "the words", retryable, "x")


def test_words_of_an_error_are_one_whatever_the_reason() -> None:
    error, _ = failed(START, end("COMPLETE", error="the words"))
    assert isinstance(error, UpstreamError)


@pytest.mark.parametrize("tail", [(), (DONE,), (end(None),), (end(""),), ({"type": "message-end"},)])
def test_an_answer_without_its_end_is_cut(tail: tuple[Any, ...]) -> None:
    error, answer = failed(START, text("x"), *tail)
    assert isinstance(error, Truncated)
    assert "finish_reason" in str(error)
    assert answer.text == "x"


def test_an_end_said_twice_is_heard_once() -> None:
    reader, deltas = COHERE.reader(None, Cursor()), list[Delta]()
    reader.feed([Event(json.dumps(end(usage={"tokens": {}})).encode())] * 2, deltas)
    assert [(d.finish_reason, d.usage is not None) for d in deltas] == [("COMPLETE", True), (None, False)]


@pytest.mark.parametrize("document", [{"message": "invalid api token"}, {"error": {"message": "invalid api token"}}])
def test_a_refusal_is_recognised(document: dict[str, Any]) -> None:
    error, _ = failed(json.dumps(document))
    assert isinstance(error, UpstreamError)
    assert error.message == "invalid api token"
    refused = COHERE.refine(StatusError("refused", head=Head(status=401), body=json.dumps(document).encode()))
    assert refused.message == "invalid api token"


def test_an_error_event_is_one() -> None:
    for one in ({"type": "error", "message": "m"}, {"type": "content-delta", "error": {"message": "m"}}):
        error, answer = failed(START, text("x"), one)
        assert isinstance(error, UpstreamError)
        assert (error.message, answer.text) == ("m", "x")


def test_an_answer_that_was_not_streamed_is_no_stream() -> None:
    error, _ = failed('{"id": "m1", "message": {"role": "assistant", "content": []}, "finish_reason": "COMPLETE"}')
    assert isinstance(error, NotAStream)
    assert isinstance(failed('data: {"choices":[]}\n\n')[0], NotAStream)


@pytest.mark.parametrize(
    "payload",
    [
        '{"type":7}',
        '{"type":"tool-call-start","index":-1,"delta":{"message":{"tool_calls":{}}}}',
        '{"index":"0"}',
        '{"delta":{"message":{"content":7}}}',
        '{"type":"content-delta","delta":{"message":{"content":{"text":7}}}}',
        '{"type":"content-delta","delta":{"message":{"content":{"thinking":7}}}}',
        '{"type":"content-delta","delta":{"message":{"content":[{"text":"y"}]}}}',
        '{"type":"tool-plan-delta","delta":{"message":{"tool_plan":7}}}',
        '{"type":"tool-call-start","delta":{"message":{"tool_calls":[{"id":"a"}]}}}',
        '{"type":"tool-call-delta","delta":{"message":{"tool_calls":{"function":{"arguments":7}}}}}',
        '{"type":"message-end","delta":{"finish_reason":7}}',
        '{"delta":{"usage":7}}',
        "[1]",
        "null",
        "{",
    ],
)
def test_what_is_not_of_the_dialect_is_an_error_with_its_place(payload: str) -> None:
    error, answer = failed(START, text("x"), f"data: {payload}\n\n")
    assert isinstance(error, DecodeError)
    assert (error.offset, answer.text) == (len(body(START, text("x"))), "x")


@pytest.mark.parametrize(("then", "mode"), [((text("y"), end()), "continue"), ((START, text("y"), end()), "replay")])
def test_a_beginning_is_no_continuation(then: tuple[Any, ...], mode: str) -> None:
    cursor = Cursor()
    reader = COHERE.reader(None, cursor)
    reader.feed([Event(json.dumps(e).encode()) for e in (START, text("x"))], [])
    evidence = COHERE.wire.revive(state_of(reader.evidence))
    assert evidence == reader.evidence
    cursor.begin("continue")
    COHERE.reader(None, cursor, evidence).feed([Event(json.dumps(e).encode()) for e in then], [])
    assert (cursor.mode, evidence.complete) == (mode, True)


def test_a_request_asks_for_a_stream() -> None:
    assert COHERE.prepare({"model": "m"}) == {"model": "m", "stream": True}
    assert COHERE.url(COHERE.base_url, {}) == "https://api.cohere.com/v2/chat"


@pytest.mark.parametrize(
    ("wanted", "asked"),
    [
        ({"type": "json_object", "json_schema": {"type": "object"}}, {"type": "object"}),
        ({"type": "json_object"}, True),
        ({"type": "text"}, False),
        (None, False),
    ],
)
def test_a_request_says_whether_json_is_wanted(wanted: Any, asked: Any) -> None:
    assert COHERE.wire.asks_json({"response_format": wanted}) == asked


def test_its_events_are_recognised() -> None:
    assert all(COHERE.wire.recognises(Event(json.dumps(one).encode())) for one in (START, text("x"), end()))
    others = (b'{"type":"message_start"}', b'{"type":"error"}', b"[DONE]", b'{"choices":[]}')
    assert not any(COHERE.wire.recognises(Event(other)) for other in others)


def test_a_message_that_begins_in_the_middle_of_another_is_not_added_to_it() -> None:
    error, partial = failed(START, text("It "), START, text("It "), text("is"), end())
    assert isinstance(error, DecodeError)
    assert partial.text == "It "
