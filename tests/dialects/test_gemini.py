"""Gemini's `streamGenerateContent`: parts, calls, ends that are none, errors on bare lines."""

from __future__ import annotations

import json
from typing import Any

import pytest

from holdfast._errors import DecodeError, EndOfStream, NotAStream, StatusError, StreamError, Truncated, UpstreamError
from holdfast._types import Completion, Delta, Event, Head
from holdfast.dialects import GEMINI, OPENAI, state_of
from holdfast.machines.cursor import Cursor
from holdfast.machines.sse import SseParser
from holdfast.offline import assemble


def body(*chunks: Any) -> bytes:
    """Chunks as Google sends them: CRLF, no end mark. What is text stands as it is."""
    return "".join(c if isinstance(c, str) else f"data: {json.dumps(c)}\r\n\r\n" for c in chunks).encode()


def chunk(*parts: Any, finish: str | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": list(parts), "role": "model"}, "index": index}
    if finish is not None:
        candidate["finishReason"] = finish
    return {"candidates": [candidate], "responseId": "one", **more}


def text(words: str, **more: Any) -> dict[str, Any]:
    return chunk({"text": words}, **more)


def call(name: str, args: Any = None, **more: Any) -> dict[str, Any]:
    return {"functionCall": {"name": name, **({} if args is None else {"args": args}), **more}}


def deltas_of(data: bytes, cursor: Cursor | None = None, **reader: Any) -> list[Delta]:
    cursor = cursor or Cursor()
    parser, machine = SseParser(cursor), GEMINI.reader(None, cursor, **reader)
    events, deltas = list[Event](), list[Delta]()
    parser.feed([data], events)
    try:
        machine.feed(events, deltas)
        parser.end([])
        machine.end(deltas)
    except EndOfStream:
        pass
    return deltas


def failed(data: bytes) -> tuple[StreamError, Completion]:
    with pytest.raises(StreamError) as raised:
        assemble(data, "gemini")
    return raised.value, raised.value.partial.answer


# -- parts -----------------------------------------------------------------------------------------


def test_thoughts_are_told_apart_from_text() -> None:
    data = body(
        chunk({"text": "Hm", "thought": True}),
        text("Yes"),
        chunk({"text": "", "thoughtSignature": "x" * 9}),
        chunk(finish="STOP"),
    )
    answer = assemble(data, "gemini")
    assert (answer.text, answer.reasoning, answer.finish_reason) == ("Yes", "Hm", "STOP")


def test_several_parts_of_one_chunk_keep_their_order() -> None:
    parts = [{"text": "a"}, {"text": "b"}, {"text": "Hm", "thought": True}, {"text": "c"}, call("f"), {"text": "d"}]
    deltas = deltas_of(body(chunk(*parts, finish="STOP", usageMetadata={"totalTokenCount": 3})))
    assert [(d.reasoning, d.text, [c.name for c in d.tool_calls]) for d in deltas] == [
        ("", "ab", []),
        ("Hm", "c", ["f"]),
        ("", "d", []),
    ]
    assert [(d.finish_reason, d.usage is not None) for d in deltas] == [(None, False), (None, False), ("STOP", True)]


@pytest.mark.parametrize("part", [{"inlineData": {"data": "AAAA"}}, {"executableCode": {"code": "1"}}, {"new": 1}, {}])
def test_parts_of_other_kinds_stay_in_raw(part: dict[str, Any]) -> None:
    first = chunk(part)
    deltas = deltas_of(body(first, chunk(finish="STOP")))
    assert deltas[0].empty
    assert deltas[0].raw.json() == first


@pytest.mark.parametrize("content", [None, {}, {"role": "model"}, {"parts": None}])
def test_a_candidate_may_have_no_parts(content: Any) -> None:
    assert assemble(body({"candidates": [{"content": content, "finishReason": "SAFETY"}]}), "gemini").text == ""


def test_calls_are_counted_over_the_whole_stream() -> None:
    data = body(
        chunk(call("f", {"x": [1, "你"], "n": 99999999999999999999999})),
        text("between"),
        chunk(call("g", id="g1"), call("f", {}), finish="STOP"),
    )
    answer = assemble(data, "gemini")
    assert [(c.index, c.id, c.name, c.input) for c in answer.tool_calls] == [
        (0, "", "f", {"x": [1, "你"], "n": 99999999999999999999999}),
        (1, "g1", "g", {}),
        (2, "", "f", {}),
    ]
    assert " " not in answer.tool_calls[0].arguments


@pytest.mark.parametrize(
    "odd", [{"args": [1]}, {"args": "{}"}, {"args": {}, "willContinue": True}, {"partialArgs": []}]
)
def test_a_call_that_cannot_be_told_whole_is_an_error(odd: dict[str, Any]) -> None:
    error, answer = failed(body(text("x"), chunk({"functionCall": {"name": "f", **odd}}, finish="STOP")))
    assert isinstance(error, DecodeError)
    assert (answer.text, answer.tool_calls) == ("x", ())


# -- usage -----------------------------------------------------------------------------------------


def test_the_last_usage_is_the_answers_and_thoughts_are_output() -> None:
    last = {
        "promptTokenCount": 257,
        "toolUsePromptTokenCount": 3,
        "cachedContentTokenCount": 50,
        "candidatesTokenCount": 8,
        "thoughtsTokenCount": 100,
        "totalTokenCount": 368,
    }
    data = body(text("a", usageMetadata={"promptTokenCount": 55}), text("b", finish="STOP", usageMetadata=last))
    usage = assemble(data, "gemini").usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (260, 108, 368)
    assert (usage.cached_tokens, usage.reasoning_tokens, usage.raw) == (50, 100, last)


def test_usage_that_is_said_again_is_no_news() -> None:
    same = {"promptTokenCount": 5}
    deltas = deltas_of(
        body(
            chunk({"inlineData": {}}, usageMetadata=same),
            chunk({"inlineData": {}}, usageMetadata=same),
            chunk(finish="STOP", usageMetadata=same),
        )
    )
    assert [d.usage is not None for d in deltas] == [True, False, False]
    assert deltas[1].empty


def test_numbers_that_are_none_are_not_told() -> None:
    usage = assemble(body(text("x", finish="STOP", usageMetadata={"promptTokenCount": "5"})), "gemini").usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens) == (None, None)


# -- what proves an answer -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "finish", ["STOP", "MAX_TOKENS", "SAFETY", "RECITATION", "OTHER", "TOO_MANY_TOOL_CALLS", "NEW"]
)
def test_a_finish_reason_is_an_end_in_the_providers_word(finish: str) -> None:
    answer = assemble(body(text("x"), chunk(finish=finish)), "gemini")
    assert (answer.text, answer.finish_reason, str(answer.verdict)) == ("x", finish, "COMPLETE")


@pytest.mark.parametrize("finish", ["MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "MALFORMED_RESPONSE"])
def test_what_was_thrown_away_is_an_error_to_try_again(finish: str) -> None:
    error, answer = failed(body(text("x"), text("y", finish=finish)))
    assert isinstance(error, UpstreamError)
    assert (error.code, error.retryable, answer.text, answer.finish_reason) == (finish, True, "xy", None)


@pytest.mark.parametrize("finish", ["MAX_TOKENS", "SAFETY", "ESCALATION", "PUP_LIMITED_DISABLED", "CONTINUATION"])
def test_before_an_end_that_is_not_the_models_own_no_call_may_run(finish: str) -> None:
    answer = assemble(body(chunk(call("f", {"x": 1})), chunk(finish=finish)), "gemini")
    assert (answer.finish_reason, answer.tool_calls[0].complete) == (finish, False)


@pytest.mark.parametrize("finish", ["", "FINISH_REASON_UNSPECIFIED", None])
def test_a_reason_that_says_nothing_is_no_end(finish: str | None) -> None:
    error, answer = failed(body(text("x", finish=finish)))
    assert isinstance(error, Truncated)
    assert "finishReason" in str(error)
    assert answer.text == "x"


def test_every_candidate_must_end() -> None:
    one, two = text("a", finish="STOP"), text("b", index=1)
    assert isinstance(failed(body(two, one))[0], Truncated)
    answer = assemble(body(two, one, chunk(finish="MAX_TOKENS", index=1)), "gemini")
    assert [(c.text, c.finish_reason) for c in answer.choices] == [("a", "STOP"), ("b", "MAX_TOKENS")]
    reader = GEMINI.reader({"generationConfig": {"candidateCount": 2}}, Cursor())
    reader.feed([Event(json.dumps(one).encode())], [])
    assert reader.evidence.missing == "a finishReason for 1 of 2 candidates"


def test_an_end_said_twice_is_heard_once() -> None:
    deltas = deltas_of(body(chunk(finish="STOP"), chunk(finish="STOP")))
    assert [d.finish_reason for d in deltas] == ["STOP", None]


def test_a_gateways_done_ends_a_proven_answer_only() -> None:
    assert assemble(body(text("x", finish="STOP"), "data: [DONE]\n\n", text("y")), "gemini").text == "x"
    assert isinstance(failed(body(text("x"), "data: [DONE]\n\n"))[0], Truncated)
    assert [d.text for d in deltas_of(body(text("x", finish="STOP"), "data: [DONE]\n\n"), end_at_done=False)] == ["x"]


# -- errors ----------------------------------------------------------------------------------------

ERROR = {"code": 503, "message": "too busy", "status": "UNAVAILABLE"}


@pytest.mark.parametrize(
    "tail",
    [
        json.dumps({"error": ERROR}, indent=2) + "\n",
        json.dumps({"error": ERROR}),
        json.dumps([{"error": ERROR}], indent=2) + "\n",
        f"data: {json.dumps({'error': ERROR})}\n\n",
        f"event: error\ndata: {json.dumps(ERROR)}\n\n",
    ],
    ids=["lines", "one line", "array", "data", "event"],
)
@pytest.mark.parametrize("before", [(), (text("x"),)], ids=["first", "mid-stream"])
def test_every_error_shape_is_recognised(tail: str, before: tuple[Any, ...]) -> None:
    error, answer = failed(body(*before, tail))
    assert isinstance(error, UpstreamError)
    assert (error.code, error.type, error.message, error.retryable) == ("503", "UNAVAILABLE", "too busy", True)
    assert answer.text == ("x" if before else "")


@pytest.mark.parametrize(
    ("code", "status", "retryable"),
    [
        (429, "RESOURCE_EXHAUSTED", True),
        (500, "INTERNAL", True),
        (504, "DEADLINE_EXCEEDED", True),
        (400, "INVALID_ARGUMENT", False),
        (403, "PERMISSION_DENIED", False),
        (None, "UNAUTHENTICATED", False),
    ],
)
def test_an_error_says_whether_another_try_may_help(code: int | None, status: str, retryable: bool) -> None:  # noqa: FBT001
    error, _ = failed(body({"error": {"code": code, "status": status, "message": "m"}}))
    assert error.retryable == retryable


@pytest.mark.parametrize(("said", "seconds"), [("34s", 34.0), ("0.5s", 0.5), ("soon", None), ("-1s", None), (7, None)])
def test_the_server_says_how_long_to_wait(said: Any, seconds: float | None) -> None:
    details = [{"@type": "type.googleapis.com/google.rpc.Help"}, "odd", {"retryDelay": said}]
    document = {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "details": details}}
    assert failed(body(document))[0].retry_after == seconds
    refused = StatusError("refused", head=Head(status=429), body=json.dumps(document).encode())
    assert GEMINI.refine(refused).retry_after == seconds


@pytest.mark.parametrize("document", ["words", [], [7], {"code": {}}, {"message": None}])
def test_an_odd_error_is_an_error(document: Any) -> None:
    if document:
        assert isinstance(failed(body({"error": document}))[0], UpstreamError)


def test_a_prompt_that_was_blocked_is_not_sent_again() -> None:
    feedback = {"blockReason": "PROHIBITED_CONTENT", "blockReasonMessage": "the words"}
    error, _ = failed(body({"promptFeedback": feedback, "usageMetadata": {"promptTokenCount": 4}}))
    assert isinstance(error, UpstreamError)
    assert (error.code, error.message, error.retryable) == ("PROHIBITED_CONTENT", "the words", False)
    assert assemble(body({**text("x", finish="STOP"), "promptFeedback": {"safetyRatings": []}}), "gemini").text == "x"


def test_a_body_that_is_an_array_says_what_to_do() -> None:
    error, _ = failed(json.dumps([text("x", finish="STOP")], indent=2).encode())
    assert isinstance(error, NotAStream)
    assert "alt=sse" in str(error)
    assert not error.retryable


def test_events_of_another_shape_are_no_answer() -> None:
    error, _ = failed(b'data: {"choices":[]}\n\n')
    assert isinstance(error, NotAStream)
    assert isinstance(failed(b"<html>")[0], NotAStream)
    assert isinstance(failed(b"")[0], NotAStream)


@pytest.mark.parametrize(
    "payload",
    [
        '{"candidates":7}',
        '{"candidates":[{"index":"0"}]}',
        '{"candidates":[{"index":-1}]}',
        '{"candidates":[{"content":{"parts":[{"text":7}]}}]}',
        '{"candidates":[{"content":{"parts":[{"text":"y","thought":7}]}}]}',
        '{"candidates":[{"content":{"parts":[{"functionCall":{"name":7}}]}}]}',
        '{"candidates":[{"content":{"parts":7}}]}',
        '{"candidates":[{"content":7}]}',
        '{"candidates":[{"finishReason":7}]}',
        '{"promptFeedback":{"blockReason":7}}',
        '{"usageMetadata":7}',
        "[1]",
        "null",
        "{",
        '{"responseId":7}',
    ],
)
def test_what_is_not_of_the_dialect_is_an_error_with_its_place(payload: str) -> None:
    before = body(text("x"))
    error, answer = failed(before + f"data: {payload}\n\n".encode())
    assert isinstance(error, DecodeError)
    assert (error.offset, answer.text) == (len(before), "x")


# -- continuing ------------------------------------------------------------------------------------


def continued(first: bytes, second: Any) -> tuple[Cursor, Any]:
    """Reads a cut answer, then a chunk of the attempt that was asked to continue it."""
    cursor, events = Cursor(), list[Event]()
    reader = GEMINI.reader(None, cursor)
    SseParser(cursor).feed([first], events)
    reader.feed(events, [])
    cursor.begin("continue")
    evidence = GEMINI.wire.revive(state_of(reader.evidence))
    assert evidence == reader.evidence
    GEMINI.reader(None, cursor, evidence).feed([Event(json.dumps(second).encode())], [])
    return cursor, evidence


def test_a_continuation_goes_on_from_what_was_proven() -> None:
    cursor, evidence = continued(body(chunk(call("f"))), chunk(call("g"), finish="STOP"))
    assert (cursor.mode, evidence.calls, evidence.complete) == ("continue", {0: 2}, True)


def test_another_answers_id_is_another_answer() -> None:
    cursor, evidence = continued(body(chunk(call("f"))), {**text("x"), "responseId": "two"})
    assert (cursor.mode, evidence.calls, evidence.answer_id) == ("replay", {}, "two")


def test_nothing_is_said_after_an_end() -> None:
    assert continued(body(text("x", finish="STOP")), text("x"))[0].mode == "replay"
    assert continued(body(text("x", finish="STOP")), chunk(usageMetadata={"totalTokenCount": 1}))[0].mode == "continue"


# -- the request -----------------------------------------------------------------------------------


def test_the_model_goes_into_the_address() -> None:
    request = {"model": "gemini-3-flash", "contents": []}
    assert GEMINI.prepare(request) == {"contents": []}
    assert GEMINI.url(GEMINI.base_url, request) == (
        "https://generativelanguage.googleapis.com/v1beta/models/gemini-3-flash:streamGenerateContent?alt=sse"
    )
    assert GEMINI.headers("secret") == {"x-goog-api-key": "secret"}


@pytest.mark.parametrize(
    ("config", "asked"),
    [
        ({"generationConfig": {"responseMimeType": "application/json"}}, True),
        ({"generation_config": {"response_mime_type": "application/json"}}, True),
        (
            {"generationConfig": {"responseMimeType": "application/json", "responseJsonSchema": {"type": "object"}}},
            {"type": "object"},
        ),
        ({"generationConfig": {"responseMimeType": "application/json", "responseSchema": {"type": "OBJECT"}}}, True),
        ({"generationConfig": {"responseMimeType": "text/x.enum", "responseSchema": {"type": "STRING"}}}, False),
        ({"generationConfig": {}}, False),
        ({}, False),
    ],
)
def test_a_request_says_whether_json_is_wanted(config: dict[str, Any], asked: Any) -> None:
    assert GEMINI.wire.asks_json(config) == asked


def test_its_events_are_recognised() -> None:
    known = [text("x"), {"promptFeedback": {"blockReason": "OTHER"}}]
    assert all(GEMINI.wire.recognises(Event(json.dumps(one).encode())) for one in known)
    assert not any(
        GEMINI.wire.recognises(Event(other)) for other in (b'{"choices":[]}', b"[1]", b"x", b'{"candidates":1}')
    )


@pytest.mark.parametrize("model", ["gemini-3-flash-preview", "tuned/mine:1", "日"])
def test_the_model_is_read_out_of_an_address_again(model: str) -> None:
    url = GEMINI.url("https://gateway.example/google?x=1", {"model": model})
    assert GEMINI.model_in(url) == model
    assert GEMINI.model_in("https://gateway.example/other") == ""
    assert OPENAI.model_in("https://gateway.example/v1/chat/completions") == ""
