"""The Responses shape: what its events say, what they prove, and how a background response is read on."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from holdfast._errors import (
    DecodeError,
    EndOfStream,
    IntegrityError,
    NotAStream,
    StreamBroken,
    StreamError,
    Truncated,
    UpstreamError,
)
from holdfast._types import Completion, Delta, Event, Request
from holdfast.dialects import Evidence, state_of
from holdfast.dialects.deepseek_responses import DEEPSEEK_RESPONSES
from holdfast.dialects.openai_responses import OPENAI_RESPONSES, BackgroundCursor
from holdfast.dialects.responses import ResponsesWire
from holdfast.machines.cursor import Cursor
from holdfast.machines.sse import SseParser
from holdfast.offline import assemble

WIRE = OPENAI_RESPONSES.wire


def stream(*payloads: Any, number: bool = True) -> bytes:
    """Payloads as a stream, numbered from 0 unless they are numbered already."""
    lines = []
    for at, payload in enumerate(payloads):
        if isinstance(payload, dict) and number:
            payload = {"sequence_number": at, **payload}  # noqa: PLW2901 - the same event, with its number
        lines.append(payload if isinstance(payload, str) else json.dumps(payload))
    return "".join(f"data: {line}\n\n" for line in lines).encode()


def created(**more: Any) -> dict[str, Any]:
    return {"type": "response.created", "response": {"id": "resp_1", "status": "in_progress", "output": [], **more}}


def ended(*output: Any, kind: str = "completed", **more: Any) -> dict[str, Any]:
    return {"type": f"response.{kind}", "response": {"id": "resp_1", "output": list(output), **more}}


def added(index: int, **item: Any) -> dict[str, Any]:
    return {"type": "response.output_item.added", "output_index": index, "item": item}


def done(index: int, **item: Any) -> dict[str, Any]:
    return {"type": "response.output_item.done", "output_index": index, "item": item}


def delta(kind: str, text: Any, index: int = 0, **more: Any) -> dict[str, Any]:
    return {"type": f"response.{kind}.delta", "output_index": index, "delta": text, **more}


def said(kind: str, key: str, text: Any, index: int = 0, **more: Any) -> dict[str, Any]:
    return {"type": f"response.{kind}.done", "output_index": index, key: text, **more}


def message(text: str, id_: str = "msg_1", kind: str = "output_text") -> dict[str, Any]:
    return {"type": "message", "id": id_, "content": [{"type": kind, "refusal" if kind == "refusal" else "text": text}]}


def call(arguments: str, id_: str = "call_1", name: str = "f") -> dict[str, Any]:
    return {"type": "function_call", "id": f"fc_{id_}", "call_id": id_, "name": name, "arguments": arguments}


def answer_of(*payloads: Any) -> Completion:
    return assemble(stream(*payloads), OPENAI_RESPONSES)


def failed(*payloads: Any) -> StreamError:
    with pytest.raises(StreamError) as raised:
        answer_of(*payloads)
    return raised.value


def events_of(data: bytes) -> list[Event]:
    events = list[Event]()
    SseParser(Cursor()).feed([data], events)
    return events


def read(
    data: bytes, cursor: Cursor, evidence: Evidence | None = None, *, wire: Any = WIRE, end_at_done: bool = True
) -> tuple[list[Delta], Evidence, bool]:
    """Gives the deltas of one attempt, its evidence, and whether it ended there."""
    reader, deltas = wire.reader(None, cursor, evidence, end_at_done=end_at_done), list[Delta]()
    try:
        reader.feed(events_of(data), deltas)
    except EndOfStream:
        return deltas, reader.evidence, True
    return deltas, reader.evidence, False


# -- pieces ----------------------------------------------------------------------------------------


def test_the_channels_are_told_apart() -> None:
    answer = answer_of(
        created(),
        delta("reasoning_text", "Hm", 0),
        delta("reasoning_summary_text", ", so", 0, summary_index=0),
        delta("output_text", "Hi ", 1),
        delta("output_text", "you", 1),
        delta("refusal", "No", 2),
        ended(),
    )
    assert (answer.reasoning, answer.text, answer.refusal) == ("Hm, so", "Hi you", "No")
    assert (answer.finish_reason, str(answer.verdict)) == ("stop", "COMPLETE")


def test_the_type_counts_and_not_the_name_of_the_event() -> None:
    data = b"event: response.refusal.delta\n" + stream(delta("output_text", "x"), ended())
    assert assemble(data, OPENAI_RESPONSES).text == "x"


def test_a_call_comes_in_fragments() -> None:
    answer = answer_of(
        created(),
        added(0, type="reasoning", id="rs"),
        added(1, **call("")),
        delta("function_call_arguments", '{"x"', 1),
        delta("function_call_arguments", ":1}", 1),
        said("function_call_arguments", "arguments", '{"x":1}', 1),
        done(1, **call('{"x":1}')),
        added(2, type="custom_tool_call", id="ct", call_id="call_2", name="sh", input=""),
        delta("custom_tool_call_input", "ls", 2),
        done(2, type="custom_tool_call", id="ct", call_id="call_2", name="sh", input="ls -l"),
        ended(),
    )
    assert [(c.index, c.id, c.name, c.arguments) for c in answer.tool_calls] == [
        (0, "call_1", "f", '{"x":1}'),
        (1, "call_2", "sh", "ls -l"),
    ]
    assert answer.finish_reason == "tool_calls"


def test_whose_call_it_is_is_said_once() -> None:
    deltas, _, _ = read(stream(added(0, **call("")), done(0, **call("{}")), ended(call("{}"))), Cursor())
    calls = [c for d in deltas for c in d.tool_calls]
    assert [(c.id, c.name, c.arguments) for c in calls] == [("call_1", "f", ""), ("", "", "{}")]


def test_arguments_without_an_item_before_them_are_named_by_it_after_them() -> None:
    answer = answer_of(delta("function_call_arguments", "{}", 3), done(3, **call("{}")), ended())
    assert [(c.index, c.id, c.name, c.arguments) for c in answer.tool_calls] == [(0, "call_1", "f", "{}")]


@pytest.mark.parametrize(
    "payload",
    [
        {"type": "keepalive"},
        {"type": "response.web_search_call.searching", "output_index": 0, "item_id": "ws"},
        {"type": "response.mcp_call_arguments.delta", "output_index": 0, "delta": {"x": 1}},
        {"type": "response.output_text.annotation.added", "annotation": {}, "text": 7},
        {"type": "response.never.seen", "item": 7, "delta": [], "arguments": {}},
        added(0, type="tool_search_call", id="ts", arguments={"paths": []}, call_id=None),
        done(0, type="tool_search_call", id="ts", arguments={"paths": ["f"]}, content="x"),
        done(0, type="message", id="m", content=[{"type": "output_audio", "text": 7}, {"type": "x"}]),
        done(0, type="reasoning", id="rs", content=None, summary=None, encrypted_content="gAAA"),
    ],
)
def test_what_is_unknown_passes_in_raw(payload: dict[str, Any]) -> None:
    deltas, _, _ = read(stream(payload), Cursor())
    assert [(d.empty, d.raw.json()) for d in deltas] == [(True, {"sequence_number": 0, **payload})]


@pytest.mark.parametrize(
    "payload",
    [
        delta("output_text", 7),
        delta("output_text", None),
        delta("output_text", "x", -1),
        delta("output_text", "x", 10**6),
        delta("output_text", "x", content_index=-1),
        delta("function_call_arguments", {"x": 1}),
        said("output_text", "text", None),
        said("function_call_arguments", "arguments", {"x": 1}),
        {"type": "response.output_item.added", "output_index": 0},
        added(0, type=7),
        added(0, type="function_call", call_id=7),
        done(0, type="function_call", arguments={"x": 1}),
        done(0, type="message", content="x"),
        done(0, type="message", content=[{"type": "output_text"}]),
        done(0, type="reasoning", summary=[7]),
        {"type": "response.completed", "response": 7},
        ended(7),
        ended(usage=7),
        {"type": "response.in_progress", "response": [1]},
        {"type": 7},
        {"type": "response.created", "sequence_number": "0"},
        [1],
        "not json",
    ],
)
def test_a_known_key_of_another_type_is_an_error_with_its_place(payload: Any) -> None:
    before = stream(created())
    with pytest.raises(DecodeError) as raised:
        assemble(before + stream(created(), payload)[len(before) :], OPENAI_RESPONSES)
    assert raised.value.offset == len(before)


def test_an_item_is_one_thing() -> None:
    assert isinstance(failed(added(0, **call("")), done(0, **message("x"))), DecodeError)
    assert isinstance(failed(added(0, type="message", id="m"), delta("function_call_arguments", "{}")), DecodeError)


# -- what is said again ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "again",
    [
        [said("output_text", "text", "Hi you")],
        [done(0, **message("Hi you"))],
        [ended(message("Hi you"))],
        [said("output_text", "text", "Hi you"), done(0, **message("Hi you")), ended(message("Hi you"))],
    ],
)
@pytest.mark.parametrize("before", [[], [delta("output_text", "Hi ")], [delta("output_text", "Hi you")]])
def test_what_the_deltas_lacked_is_delivered_once(before: list[Any], again: list[Any]) -> None:
    tail = [] if again[-1]["type"] == "response.completed" else [ended()]
    answer = answer_of(*before, *again, *tail)
    assert answer.text == "Hi you"


@pytest.mark.parametrize(
    "again",
    [
        said("output_text", "text", "Hi You"),
        said("output_text", "text", "Hi"),
        done(0, **message("Hi yo")),
        ended(message("")),
        ended(message("Hi yo"), kind="incomplete"),
        ended(call("{}")),
    ],
)
def test_what_contradicts_the_deltas_is_an_error(again: Any) -> None:
    error = failed(created(), delta("output_text", "Hi "), delta("output_text", "you"), again)
    assert isinstance(error, IntegrityError)
    assert error.partial.text == "Hi you"
    assert "Hi" not in str(error)


def test_a_call_that_is_said_again_under_another_name_is_an_error() -> None:
    assert isinstance(failed(added(0, **call("")), done(0, **call("", name="g"))), IntegrityError)
    assert isinstance(failed(added(0, **call("")), ended(call("", "call_2"))), IntegrityError)


def test_a_response_of_endlessly_many_parts_is_an_error() -> None:
    parts = [delta("output_text", "x", index, content_index=n) for index in range(17) for n in range(1_000)]
    reader, deltas = WIRE.reader(None, Cursor()), list[Delta]()
    with pytest.raises(DecodeError, match="more parts"):
        reader.feed(events_of(stream(*parts)), deltas)
    assert len(deltas) == 16_384


def test_a_lost_delta_is_found_without_numbers() -> None:
    data = stream(delta("output_text", "a"), delta("output_text", "c"), ended(message("abc")), number=False)
    with pytest.raises(IntegrityError):
        assemble(data, OPENAI_RESPONSES)


def test_items_of_the_last_event_are_paired_though_their_ids_differ() -> None:
    rs = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm"}]}
    answer = answer_of(
        done(0, **rs, id="rs_1"),
        done(1, **message("one")),
        done(2, **message("two", "msg_2")),
        ended({**rs, "id": "rs_9"}, message("two", "msg_2"), message("one", "msg_9")),
    )
    assert (answer.reasoning, answer.text) == ("Hm", "onetwo")


def test_a_summary_in_two_places_is_one() -> None:
    part = {"type": "summary_text", "text": "Hm"}
    assert answer_of(ended({"type": "reasoning", "content": [part], "summary": [part]})).reasoning == "Hm"


def test_endlessly_many_items_are_an_error() -> None:
    assert isinstance(failed(created(), ended(*[{"type": "x"}] * 5_000)), DecodeError)


def test_an_answer_may_come_whole_in_the_last_event() -> None:
    rs = {"type": "reasoning", "id": "rs", "content": [{"type": "reasoning_text", "text": "Hm"}]}
    answer = answer_of(created(), ended(rs, message("Hi"), message("No", "m2", "refusal"), call("{}")))
    assert (answer.reasoning, answer.text, answer.refusal) == ("Hm", "Hi", "No")
    assert [(c.id, c.arguments) for c in answer.tool_calls] == [("call_1", "{}")]
    assert answer.finish_reason == "tool_calls"


def test_an_event_that_is_wrong_counts_for_nothing() -> None:
    cursor = Cursor()
    reader, deltas = WIRE.reader(None, cursor), list[Delta]()
    good = stream(delta("output_text", "Hi "), said("output_text", "text", "Hi you"))
    bad = stream(delta("output_text", "Hi "), done(0, type="message", content=[message("Hi you")["content"][0], 7]))
    with pytest.raises(DecodeError):
        reader.feed(events_of(bad), deltas)
    cursor.begin("continue")
    more, _, _ = read(good, cursor, reader.evidence)
    assert [d.text for d in (*deltas, *more)] == ["Hi ", "you"]


def test_what_was_streamed_is_not_kept_a_second_time() -> None:
    _, evidence, _ = read(stream(*(delta("output_text", "x" * 1_000) for _ in range(100))), Cursor())
    assert len(json.dumps(state_of(evidence))) < 400


# -- numbers ---------------------------------------------------------------------------------------


def test_a_missing_event_breaks_the_stream_where_it_is_missing() -> None:
    error = failed(created(), delta("output_text", "a"), {**delta("output_text", "c"), "sequence_number": 3})
    assert type(error) is StreamBroken
    assert error.retryable
    assert "event 2" in str(error)
    assert error.partial.text == "a"


@pytest.mark.parametrize("number", [0, 1, -1])
def test_a_number_that_comes_twice_breaks_the_stream(number: int) -> None:
    error = failed(created(), delta("output_text", "a"), {**delta("output_text", "b"), "sequence_number": number})
    assert type(error) is StreamBroken
    assert error.partial.text == "a"


def test_a_lost_beginning_breaks_the_stream() -> None:
    assert type(failed({**delta("output_text", "a"), "sequence_number": 4})) is StreamBroken


def test_a_response_may_be_read_from_its_middle_on() -> None:
    queued = {"type": "response.queued", "response": {"id": "resp_1"}, "sequence_number": 1}
    answer = answer_of(queued, {**delta("output_text", "a"), "sequence_number": 2}, {**ended(), "sequence_number": 3})
    assert answer.text == "a"


def test_events_without_numbers_are_taken_as_they_come() -> None:
    data = stream(created(), delta("output_text", "a"), ended(message("a")), number=False)
    assert assemble(data, OPENAI_RESPONSES).text == "a"


def test_a_gateway_that_counts_wrongly_can_be_told_apart() -> None:
    forgiving = replace(OPENAI_RESPONSES, wire=ResponsesWire(numbered=False))
    wrong = [{**created(), "sequence_number": 1}, {**delta("output_text", "a"), "sequence_number": 1}, ended()]
    assert assemble(stream(*wrong), forgiving).text == "a"


def test_a_continuation_may_repeat_what_was_delivered() -> None:
    whole = stream(created(), delta("output_text", "a"), delta("output_text", "b"), ended(message("ab")))
    for cut in range(4):
        for back in range(min(cut, 1), cut + 1):
            cursor, events = Cursor(), events_of(whole)
            reader, deltas = WIRE.reader(None, cursor), list[Delta]()
            reader.feed(events[:cut], deltas)
            cursor.begin("continue")
            revived = WIRE.revive(state_of(reader.evidence))
            with pytest.raises(EndOfStream):
                WIRE.reader(None, cursor, revived).feed(events[back:], deltas)
            assert "".join(d.text for d in deltas) == "ab"
            assert [d.finish_reason for d in deltas if d.finish_reason] == ["stop"]
            assert cursor.dropped == cut - back


def test_an_answer_from_its_beginning_is_no_continuation_under_its_own_id_either() -> None:
    cursor = Cursor()
    _, evidence, _ = read(stream(created(), delta("output_text", "a"), delta("output_text", "b")), cursor)
    cursor.begin("continue")
    deltas, evidence, _ = read(
        stream(created(), delta("output_text", "a"), delta("output_text", "c")), cursor, evidence
    )
    assert (cursor.mode, cursor.dropped) == ("replay", 0)  # so all of it is compared
    assert "".join(d.text for d in deltas) == "ac"


def test_a_continuation_must_not_leave_anything_out() -> None:
    cursor = Cursor()
    _, evidence, _ = read(stream(created(), delta("output_text", "a")), cursor)
    cursor.begin("continue")
    with pytest.raises(StreamBroken, match="event 2"):
        read(stream({**delta("output_text", "c"), "sequence_number": 3}), cursor, evidence)


@pytest.mark.parametrize("number", [True, False])
def test_another_answer_is_no_continuation(number: bool) -> None:  # noqa: FBT001
    cursor = Cursor()
    _, evidence, _ = read(stream(created(), delta("output_text", "a"), number=number), cursor)
    cursor.begin("continue")
    other = [created(id="resp_2" if number else "resp_1"), delta("output_text", "b"), ended(message("b"))]
    deltas, evidence, _ = read(stream(*other, number=number), cursor, evidence)
    assert cursor.mode == "replay"
    assert "".join(d.text for d in deltas) == "b"
    assert evidence.complete


# -- what proves an answer -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ending", "reason"),
    [
        (ended(), "stop"),
        ({"type": "response.completed"}, "stop"),
        (ended(kind="incomplete", incomplete_details={"reason": "max_output_tokens"}), "length"),
        (ended(kind="incomplete", incomplete_details={"reason": "content_filter"}), "content_filter"),
        (ended(kind="incomplete", incomplete_details={"reason": "never_seen"}), "never_seen"),
        (ended(kind="incomplete"), "incomplete"),
    ],
)
def test_the_last_event_says_why_the_answer_ended(ending: Any, reason: str) -> None:
    answer = answer_of(created(), delta("output_text", "x"), ending)
    assert (answer.text, answer.finish_reason, str(answer.verdict)) == ("x", reason, "COMPLETE")


def test_the_last_event_ends_the_answer() -> None:
    _, evidence, over = read(stream(created(), ended(), delta("output_text", "x")), Cursor())
    assert (over, evidence.answer_id, evidence.missing) == (True, "resp_1", "")
    deltas, _, over = read(stream(created(), ended(), delta("output_text", "x"), "[DONE]"), Cursor(), end_at_done=False)
    assert ([d.text for d in deltas], over) == (["", "", ""], False)


def test_an_end_mark_is_tolerated_and_proves_nothing() -> None:
    assert answer_of(created(), delta("output_text", "x"), ended(), "[DONE]").text == "x"
    error = failed(created(), delta("output_text", "x"), "[DONE]")
    assert isinstance(error, Truncated)
    assert "response.completed" in str(error)


def test_a_body_that_ends_early_is_a_truncation() -> None:
    error = failed(created(), delta("output_text", "x"))
    assert isinstance(error, Truncated)
    assert error.partial.text == "x"


def test_a_stream_of_another_shape_says_so() -> None:
    error = failed({"choices": [{"delta": {"content": "x"}}]})
    assert isinstance(error, NotAStream)
    assert not error.retryable


# -- errors ----------------------------------------------------------------------------------------


def flat(code: str) -> dict[str, Any]:
    return {"type": "error", "code": code, "message": "too busy", "param": None}


def nested(code: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": code, "code": code, "message": "too busy", "param": None}}


def gave_up(code: str) -> dict[str, Any]:
    return ended(kind="failed", error={"code": code, "message": "too busy"}, usage={"input_tokens": 3})


@pytest.mark.parametrize("shape", [flat, nested, gave_up])
@pytest.mark.parametrize(
    ("code", "retryable"),
    [
        ("server_error", True),
        ("rate_limit_exceeded", True),
        ("vector_store_timeout", True),
        ("insufficient_quota", False),
        ("invalid_prompt", False),
        ("bio_policy", False),
        ("data_residency_mismatch", False),
        ("image_too_small", False),
        ("failed_to_download_image", False),
    ],
)
def test_every_error_shape_is_recognised(shape: Any, code: str, retryable: bool) -> None:  # noqa: FBT001
    error = failed(created(), delta("output_text", "x"), shape(code))
    assert isinstance(error, UpstreamError)
    assert (error.code, error.message, error.retryable) == (code, "too busy", retryable)
    assert error.partial.text == "x"


def test_an_error_counts_once_though_it_is_said_twice() -> None:
    error = failed(created(), nested("server_error"), gave_up("server_error"))
    assert error.report.faults == [error]


def test_an_error_is_heard_whatever_its_number() -> None:
    assert isinstance(failed(created(), {**nested("server_error"), "sequence_number": 0}), UpstreamError)


def test_a_failure_without_words_is_a_failure() -> None:
    error = failed(created(), {"type": "response.failed", "response": {"id": "resp_1", "error": None}})
    assert isinstance(error, UpstreamError)
    assert error.type == "response.failed"


def test_a_cancelled_response_is_none() -> None:
    error = failed(created(), delta("output_text", "x"), ended(kind="cancelled"))
    assert isinstance(error, UpstreamError)
    assert (error.code, error.retryable) == ("cancelled", False)


@pytest.mark.parametrize("kind", ["failed", "cancelled"])
def test_what_is_over_is_not_read_on(kind: str) -> None:
    reader = WIRE.reader(None, Cursor())
    with pytest.raises(UpstreamError):
        reader.feed(events_of(stream(created(), ended(kind=kind))), [])
    assert reader.evidence.answer_id == ""


def test_what_a_failed_response_cost_is_known() -> None:
    usage = failed(created(), gave_up("server_error")).report.usage
    assert usage is not None
    assert usage.input_tokens == 3


# -- usage -----------------------------------------------------------------------------------------


def test_usage_is_told_by_class() -> None:
    raw = {
        "input_tokens": 9,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 3},
        "total_tokens": 14,
    }
    usage = answer_of(created(usage=None), ended(usage=raw)).usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (9, 5, 14)
    assert (usage.cached_tokens, usage.cache_write_tokens, usage.reasoning_tokens) == (4, 2, 3)
    assert usage.raw == raw


# -- halves of characters --------------------------------------------------------------------------


def test_a_character_that_was_cut_in_half_arrives_whole() -> None:
    halves = [delta("output_text", "a\ud83d"), delta("refusal", "b\ud83d", 1), delta("output_text", "\ude00c")]
    answer = answer_of(
        created(),
        *halves,
        delta("refusal", "\ude00", 1),
        ended(message("a\U0001f600c"), message("b\U0001f600", "m2", "refusal")),
    )
    assert (answer.text, answer.refusal) == ("a\U0001f600c", "b\U0001f600")


def test_a_half_that_stays_alone_is_replaced_once() -> None:
    assert answer_of(delta("output_text", "a\ud83d"), ended()).text == "a\ufffd"
    assert answer_of(delta("output_text", "a\ud83d"), ended(message("a\ud83d"))).text == "a\ufffd"
    assert answer_of(delta("output_text", "a\ud83d"), said("output_text", "text", "a\ud83d"), ended()).text == "a\ufffd"


def test_a_half_waits_over_a_seam() -> None:
    cursor = Cursor()
    deltas, evidence, _ = read(stream(created(), delta("output_text", "a\ud83d")), cursor)
    cursor.begin("continue")
    rest = [
        {**delta("output_text", "\ude00"), "sequence_number": 2},
        {**ended(message("a\U0001f600")), "sequence_number": 3},
    ]
    more, _, _ = read(stream(*rest), cursor, WIRE.revive(state_of(evidence)))
    assert "".join(d.text for d in (*deltas, *more)) == "a\U0001f600"


def test_a_half_of_one_answer_does_not_wait_for_another() -> None:
    cursor = Cursor()
    _, evidence, _ = read(stream(created(), delta("output_text", "a\ud83d")), cursor)
    cursor.begin("continue")
    other = [created(id="resp_2"), delta("output_text", "\ude00b"), ended()]
    deltas, _, _ = read(stream(*other), cursor, evidence)
    assert "".join(d.text for d in deltas) == "\ufffdb"


@pytest.mark.parametrize(
    "payload",
    [
        added(0, **call("", name="\ud83d")),
        added(0, type="\ud83d"),
        created(id="\ud83d"),
        created(**{"\ud83d": 1}),
        ended(usage={"\ud83d": 1}),
        ended(kind="incomplete", incomplete_details={"reason": "\ud83d"}),
    ],
)
def test_half_a_character_that_nothing_completes_is_an_error(payload: Any) -> None:
    assert isinstance(failed(payload), DecodeError)


# -- requests --------------------------------------------------------------------------------------


def test_a_background_response_is_read_on_behind_a_number() -> None:
    cursor = BackgroundCursor()
    request = Request(url="https://h/v1/responses?api-version=7", headers={"x": "y"}, body={"background": True})
    event = Event(b'{"type":"response.output_text.delta","sequence_number":7,"delta":"x"}')
    resumed = cursor.resume(request, "resp 1", cursor.place(event, 99))
    assert resumed is not None
    assert (resumed.method, resumed.body, resumed.headers) == ("GET", None, {"x": "y"})
    assert resumed.url == "https://h/v1/responses/resp%201?api-version=7&stream=true&starting_after=7"
    stopped = cursor.cancel(request, "resp_1")
    assert stopped is not None
    assert (stopped.method, stopped.body) == ("POST", None)
    assert stopped.url == "https://h/v1/responses/resp_1/cancel?api-version=7"


def test_a_body_of_bytes_may_ask_for_the_background() -> None:
    request = Request(url="https://h/responses", body=b'{"background": true}')
    resumed = BackgroundCursor().resume(request, "r", "0")
    assert resumed is not None
    assert resumed.url == "https://h/responses/r?stream=true&starting_after=0"


@pytest.mark.parametrize("body", [{}, {"background": False}, {"background": "true"}, None, b"x"])
def test_only_a_background_response_outlives_its_connection(body: Any) -> None:
    request = Request(url="https://h/responses", body=body)
    assert BackgroundCursor().resume(request, "r", "1") is None
    assert BackgroundCursor().cancel(request, "r") is None


def test_without_an_id_or_a_number_there_is_no_way_on() -> None:
    request = Request(url="https://h/responses", body={"background": True})
    assert BackgroundCursor().resume(request, "", "1") is None
    assert BackgroundCursor().resume(request, "r", "") is None
    assert BackgroundCursor().cancel(request, "") is None


@pytest.mark.parametrize("payload", [b"[DONE]", b"{}", b'{"sequence_number":null}', b'{"sequence_number":-1}', b"7"])
def test_an_event_without_a_number_is_no_place(payload: bytes) -> None:
    assert BackgroundCursor().place(Event(payload), 7) == ""


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ({"format": {"type": "json_schema", "schema": {"type": "object"}}}, {"type": "object"}),
        ({"format": {"type": "json_schema"}}, True),
        ({"format": {"type": "json_object"}}, True),
        ({"format": {"type": "text"}}, False),
        ({"verbosity": "low"}, False),
        (None, False),
    ],
)
def test_a_request_may_ask_for_json(text: Any, wanted: Any) -> None:
    assert WIRE.asks_json({"text": text}) == wanted


def test_an_event_tells_its_shape() -> None:
    assert WIRE.recognises(Event(b'{"type":"response.created","response":{}}'))
    for payload in (b'{"type":"error"}', b'{"choices":[]}', b"[DONE]", b"[]", b'{"type":7}'):
        assert not WIRE.recognises(Event(payload))


def test_the_dialects_are_tables() -> None:
    assert OPENAI_RESPONSES.url(OPENAI_RESPONSES.base_url, {}) == "https://api.openai.com/v1/responses"
    assert OPENAI_RESPONSES.prepare({"model": "m", "input": "x"}) == {"model": "m", "input": "x", "stream": True}
    assert DEEPSEEK_RESPONSES.prepare({})["model"] == "deepseek-flash"
    assert (OPENAI_RESPONSES.cursor, DEEPSEEK_RESPONSES.cursor) == (BackgroundCursor(), None)


def test_a_server_that_loses_its_numbers_is_not_believed_to_continue() -> None:
    cursor = Cursor()
    _, evidence, _ = read(stream(created(), delta("output_text", "a"), delta("output_text", "b")), cursor)
    cursor.begin("continue")
    read(stream(delta("output_text", "b"), delta("output_text", "c"), number=False), cursor, evidence)
    assert cursor.mode == "replay"  # so all of it is compared


def test_another_response_at_our_place_is_not_gone_on_with() -> None:
    cursor, begun = (
        Cursor(),
        [created(), added(0, type="message", id="msg_1"), delta("output_text", "a", item_id="msg_1")],
    )
    for item_id, mine in (("msg_1", True), ("msg_2", False)):
        _, evidence, _ = read(stream(*begun), cursor)
        cursor.begin("continue")
        rest = stream({**delta("output_text", "b", item_id=item_id), "sequence_number": 3})
        if mine:
            assert [d.text for d in read(rest, cursor, evidence)[0]] == ["b"]
        else:
            with pytest.raises(NotAStream):
                read(rest, cursor, evidence)


def test_a_response_that_begins_in_the_middle_of_another_is_not_added_to_it() -> None:
    twice = stream(created(), delta("output_text", "a"), created(), delta("output_text", "a"), ended(), number=False)
    with pytest.raises(StreamBroken) as raised:
        assemble(twice, OPENAI_RESPONSES)
    assert raised.value.partial.text == "a"
