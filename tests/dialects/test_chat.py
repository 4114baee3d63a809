"""The chat shape: every piece that providers send, every way they say that they failed, and what proves an answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from holdfast._errors import (
    DecodeError,
    EndOfStream,
    NotAStream,
    StatusError,
    StreamError,
    Truncated,
    UpstreamError,
    UsageError,
)
from holdfast._types import Completion, Delta, Event, Head, Partial
from holdfast.dialects import DEEPSEEK, DIALECTS, OPENAI, OPENAI_COMPATIBLE, Evidence, Timeouts, find, state_of
from holdfast.machines.cursor import Cursor
from holdfast.machines.sse import SseParser
from holdfast.machines.transcript import Transcript
from holdfast.offline import assemble


def body(*payloads: Any, done: bool = True) -> bytes:
    """Payloads as a stream: what is not text already becomes JSON."""
    lines = [p if isinstance(p, str) else json.dumps(p) for p in payloads]
    return "".join(f"data: {line}\n\n" for line in (*lines, *(["[DONE]"] if done else []))).encode()


def piece(finish: str | None = None, *, index: int = 0, **delta: Any) -> dict[str, Any]:
    return {"id": "one", "choices": [{"index": index, "delta": delta, "finish_reason": finish}]}


def usage_piece(**usage: Any) -> dict[str, Any]:
    return {"id": "one", "choices": [], "usage": usage}


def tool(**call: Any) -> dict[str, Any]:
    return piece(tool_calls=[call])


def deltas_of(
    data: bytes, dialect: str = "openai", *, request: dict[str, Any] | None = None
) -> tuple[list[Delta], Evidence]:
    cursor = Cursor()
    parser, reader = SseParser(cursor), find(dialect).reader(request, cursor)
    events, deltas = list[Event](), list[Delta]()
    parser.feed([data], events)
    try:
        reader.feed(events, deltas)
        parser.end([])
        reader.end(deltas)
    except EndOfStream:
        pass
    return deltas, reader.evidence


def failed(data: bytes, dialect: str = "openai") -> tuple[StreamError, Completion]:
    with pytest.raises(StreamError) as raised:
        assemble(data, dialect)
    assert isinstance(raised.value.partial, Partial)
    return raised.value, raised.value.partial.answer


# -- pieces ----------------------------------------------------------------------------------------


def test_null_and_missing_fields_are_empty() -> None:
    data = body(
        piece(role="assistant", content=None, reasoning_content=""),
        piece(content=None, reasoning_content="H"),
        piece(content=" help", reasoning_content=None, refusal=None, tool_calls=None),
        {"id": "one", "choices": [{"delta": None}]},
        {"id": "one", "choices": [{}]},
        piece("stop", content=""),
    )
    answer = assemble(data)
    assert (answer.text, answer.reasoning, answer.refusal, answer.tool_calls) == (" help", "H", "", ())


def test_reasoning_has_two_names() -> None:
    assert assemble(body(piece(reasoning="a"), piece("stop", reasoning_content="b"))).reasoning == "ab"


def test_a_refusal_is_told_apart_from_text() -> None:
    answer = assemble(body(piece(refusal="No"), piece(refusal="."), piece("stop")))
    assert (answer.text, answer.refusal) == ("", "No.")


def test_content_may_be_a_list_of_parts() -> None:
    data = body(
        piece(content=[{"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}]),
        piece(content=[{"type": "thinking", "thinking": "m"}, {"type": "text", "text": "Yes"}]),
        piece("stop"),
    )
    answer = assemble(data)
    assert (answer.text, answer.reasoning) == ("Yes", "Hmm")


def test_a_part_without_words_is_none() -> None:
    data = body(piece(content=[{"type": "reference", "reference_ids": [1]}, {"type": "text", "text": None}]))
    thought = piece(content=[{"type": "thinking", "thinking": None}, {"type": "text", "text": "x"}])
    assert assemble(data[:-14] + body(thought, piece("stop")), "mistral").text == "x"


def test_perplexitys_message_so_far_is_not_said_twice() -> None:
    first, last = piece(content="a"), piece("stop", content="b")
    first["choices"][0]["message"], last["choices"][0]["message"] = {"content": "a"}, {"content": "ab"}
    assert assemble(body(first, last, done=False), "perplexity").text == "ab"


def test_the_older_completions_have_words_without_a_delta() -> None:
    said = [{"choices": [{"index": 0, "text": text, "finish_reason": None}]} for text in ("a", "", "b")]
    assert assemble(body(*said, {"choices": [{"text": "c", "finish_reason": "stop"}]})).text == "abc"


def test_unknown_keys_pass_and_stay_reachable() -> None:
    first = {**piece(content="x"), "obfuscation": "Qz7", "service_tier": "default"}
    deltas, _ = deltas_of(body(first, piece("stop")))
    assert deltas[0].text == "x"
    assert deltas[0].raw.json() == first


def test_several_choices_are_told_apart() -> None:
    data = body(piece(content="a"), piece(content="b", index=1), piece("stop", index=1), piece("length"))
    answer = assemble(data)
    assert [(c.index, c.text, c.finish_reason) for c in answer.choices] == [(0, "a", "length"), (1, "b", "stop")]


def test_several_choices_in_one_piece_are_several_deltas() -> None:
    both = {"choices": [piece("stop", content="a")["choices"][0], piece("stop", content="b", index=1)["choices"][0]]}
    deltas, _ = deltas_of(body({**both, "usage": {"total_tokens": 3}}))
    assert [(d.choice, d.text, d.usage is not None) for d in deltas] == [(0, "a", False), (1, "b", True)]


# -- usage -----------------------------------------------------------------------------------------

USAGE = {
    "prompt_tokens": 9,
    "completion_tokens": 5,
    "total_tokens": 14,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 2},
}


@pytest.mark.parametrize(
    "tail",
    [
        [{**piece("stop"), "usage": USAGE}],
        [piece("stop"), usage_piece(**USAGE)],
        [piece("stop"), {**piece(content=""), "usage": USAGE}],
        [piece("stop"), {"id": "one", "choices": [], "x_groq": {"usage": USAGE}}],
        [{**piece("stop"), "usage": {"total_tokens": 1}}, usage_piece(**USAGE)],
    ],
    ids=["on the finish piece", "without choices", "after the finish", "groq", "the last wins"],
)
def test_usage_is_found_wherever_it_comes(tail: list[Any]) -> None:
    usage = assemble(body({**piece(content="x"), "usage": None}, *tail)).usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (9, 5, 14)
    assert (usage.cached_tokens, usage.reasoning_tokens) == (4, 2)
    assert usage.raw == USAGE


def test_cumulative_usage_is_not_summed() -> None:
    data = body(*({**piece(content="x"), "usage": {"total_tokens": n}} for n in (1, 2, 3)), piece("stop"))
    usage = assemble(data).usage
    assert usage is not None
    assert usage.total_tokens == 3


def test_cache_writes_and_sglangs_reasoning_tokens_are_counted() -> None:
    told = {"prompt_tokens_details": {"cached_tokens": 1, "cache_write_tokens": 2}, "reasoning_tokens": 3}
    usage = assemble(body(piece("stop"), usage_piece(**told))).usage
    assert usage is not None
    assert (usage.cached_tokens, usage.cache_write_tokens, usage.reasoning_tokens) == (1, 2, 3)


def test_deepseeks_cache_hits_are_cached_tokens() -> None:
    usage = assemble(body({**piece("stop"), "usage": {"prompt_cache_hit_tokens": 7, "prompt_tokens": True}})).usage
    assert usage is not None
    assert (usage.cached_tokens, usage.input_tokens) == (7, None)


# -- tool calls ------------------------------------------------------------------------------------


def calls(*pieces: Any) -> list[tuple[int, str, str, str]]:
    answer = assemble(body(*pieces, piece("tool_calls")))
    return [(c.index, c.id, c.name, c.arguments) for c in answer.tool_calls]


def test_fragments_are_joined_by_index() -> None:
    assert calls(
        tool(index=0, id="a", type="function", function={"name": "f", "arguments": ""}),
        tool(index=1, id="b", function={"name": "g", "arguments": "{"}),
        tool(index=0, function={"arguments": "{}"}),
        tool(index=1, function={"arguments": "}"}),
    ) == [(0, "a", "f", "{}"), (1, "b", "g", "{}")]


def test_calls_without_an_index_are_counted_by_id() -> None:
    assert calls(
        tool(id="a", function={"name": "f", "arguments": "{}"}),
        tool(id="b", function={"name": "f", "arguments": "{"}),
        tool(function={"arguments": "}"}),
    ) == [(0, "a", "f", "{}"), (1, "b", "f", "{}")]


def test_two_calls_in_one_piece_are_two() -> None:
    both = [{"id": "a", "function": {"name": "f", "arguments": {}}}, {"id": "b", "function": {"name": "g"}}]
    assert calls(piece(tool_calls=both)) == [(0, "a", "f", ""), (1, "b", "g", "")]


def test_arguments_may_be_an_object() -> None:
    assert calls(tool(index=0, id="a", function={"name": "f", "arguments": {"x": [1, "你"]}})) == [
        (0, "a", "f", '{"x":[1,"你"]}')
    ]


def test_names_and_ids_said_again_are_heard_once() -> None:
    said = [tool(index=0, id="a", function={"name": "f", "arguments": part}) for part in ("{", '"x"', ":1}")]
    assert calls(*said) == [(0, "a", "f", '{"x":1}')]
    assert calls(said[0], tool(index=0, id="", function={"name": "", "arguments": "}"})) == [(0, "a", "f", "{}")]


def test_a_server_that_always_counts_zero_is_understood() -> None:
    assert calls(
        tool(index=0, id="a", function={"name": "f", "arguments": "{}"}),
        tool(index=0, id="b", function={"name": "g", "arguments": "{"}),
        tool(index=0, id="b", function={"name": "g", "arguments": "}"}),
    ) == [(0, "a", "f", "{}"), (1, "b", "g", "{}")]


@pytest.mark.parametrize("function", [{"name": "f"}, {"name": "f", "arguments": None}, {"name": "f", "arguments": ""}])
def test_no_arguments_are_an_empty_object(function: dict[str, Any]) -> None:
    answer = assemble(body(tool(index=0, id="a", function=function), piece("tool_calls")))
    assert answer.tool_calls[0].input == {}


@pytest.mark.parametrize("index", [-1, 1_001, 10**30])
def test_a_tool_call_with_an_absurd_number_is_an_error(index: int) -> None:
    error, _ = failed(body(tool(index=index, id="a", function={"name": "f"})))
    assert isinstance(error, DecodeError)


# -- what proves an answer -------------------------------------------------------------------------


@pytest.mark.parametrize("finish", ["stop", "length", "tool_calls", "content_filter", "function_call", "load"])
def test_any_finish_reason_is_an_end(finish: str) -> None:
    answer = assemble(body(piece(content="x"), piece(finish)))
    assert (answer.finish_reason, str(answer.verdict)) == (finish, "COMPLETE")


def test_an_end_without_done_is_an_end() -> None:
    assert assemble(body(piece("stop", content="x"), done=False)).text == "x"


def test_done_without_an_end_is_a_truncation() -> None:
    error, answer = failed(body(piece(content="x")))
    assert isinstance(error, Truncated)
    assert "finish_reason" in str(error)
    assert (answer.text, answer.verdict) == ("x", None)


def test_the_end_of_the_body_without_an_end_is_a_truncation() -> None:
    error, answer = failed(body(piece(content="x"), done=False) + b"data: {half")
    assert isinstance(error, Truncated)
    assert "11 bytes" in str(error)
    assert answer.text == "x"


def test_an_end_that_is_said_twice_is_heard_once() -> None:
    deltas, _ = deltas_of(body(piece("stop"), piece("stop"), usage_piece(total_tokens=1)))
    assert [d.finish_reason for d in deltas if d.finish_reason] == ["stop"]


def test_an_empty_finish_reason_is_none() -> None:
    error, _ = failed(body(piece("")))
    assert isinstance(error, Truncated)


def test_every_choice_asked_for_must_end() -> None:
    data = body(piece("stop", content="a"), piece(content="b", index=1), done=False)
    with pytest.raises(Truncated, match="1 of 2"):
        deltas_of(data, request={"n": 2})
    with pytest.raises(Truncated, match="1 of 2"):
        deltas_of(body(piece("stop", content="a")), request={"n": 2})


def test_every_choice_that_was_heard_must_end() -> None:
    opened = piece(index=1, role="assistant")
    error, _ = failed(body(opened, piece(content="left", index=0), piece("stop", index=1), done=False))
    assert isinstance(error, Truncated)


def test_nothing_after_a_proven_done_counts() -> None:
    assert assemble(body(piece("stop", content="x")) + body(piece(content="more"))).text == "x"


def test_the_forgiving_profile_takes_usage_and_done_for_an_end() -> None:
    data = body(piece(content="x"), usage_piece(total_tokens=3))
    assert assemble(data, "openai-compatible").text == "x"
    assert isinstance(failed(data, "openai")[0], Truncated)
    assert isinstance(failed(body(piece(content="x")), "openai-compatible")[0], Truncated)
    undone = body(piece(content="x"), usage_piece(total_tokens=3), done=False)
    assert isinstance(failed(undone, "openai-compatible")[0], Truncated)


@pytest.mark.parametrize("finish", ["insufficient_system_resource", "error", "abort"])
def test_a_server_that_gives_up_breaks_the_answer(finish: str) -> None:
    error, answer = failed(body(piece(content="x"), piece(finish, content="y")))
    assert isinstance(error, UpstreamError)
    assert (error.code, error.retryable) == (finish, True)
    assert (answer.text, answer.finish_reason) == ("xy", None)


# -- errors ----------------------------------------------------------------------------------------

ERROR = {"message": "too busy", "type": "server_error", "code": "overloaded"}


@pytest.mark.parametrize(
    "tail",
    [
        body({"error": ERROR}),
        body({"error": ERROR}, done=False),
        body({**piece("error", content=""), "error": ERROR}),
        b"event: error\n" + body({"error": ERROR}, done=False),
        b"event: error\n" + body({"type": "error", "error": ERROR}, done=False),
        body({"type": "error", "error": ERROR}, done=False),
        body({"type": "error", **{k: v for k, v in ERROR.items() if k != "type"}}, done=False),
        b"event: error\n" + body(ERROR, done=False),
        b"error: " + json.dumps({"error": ERROR}).encode() + b"\n\n",
        json.dumps({"error": ERROR}).encode(),
        json.dumps({"error": ERROR}, indent=2).encode() + b"\n",
    ],
    ids=["a", "a without done", "b", "c", "d", "d bare", "e flat", "e named", "g", "h", "h in lines"],
)
@pytest.mark.parametrize("before", [b"", body(piece(content="x"), done=False)], ids=["first", "mid-stream"])
def test_every_error_shape_is_recognised(tail: bytes, before: bytes) -> None:
    error, answer = failed(before + tail)
    assert isinstance(error, UpstreamError)
    assert (error.code, error.retryable) == ("overloaded", True)
    assert "too busy" in error.message
    assert "too busy" not in str(error)  # providers quote prompts: their words stay out of tracebacks and logs
    assert answer.text == ("x" if before else "")


@pytest.mark.parametrize(
    ("error", "retryable"),
    [
        ({"code": "insufficient_quota"}, False),
        ({"code": "tool_use_failed", "status_code": 400}, False),
        ({"type": "invalid_request_error"}, False),
        ({"code": 429}, True),
        ({"code": "429"}, True),
        ({"code": 400}, False),
        ({"code": 500}, True),
        ({"code": "rate_limit_exceeded"}, True),
        ("words", True),
        ({"error": {"message": "inner", "code": "insufficient_quota"}}, False),
        ({"detail": "what"}, True),
        (["odd"], True),
    ],
)
def test_an_error_says_whether_another_try_may_help(error: Any, retryable: bool) -> None:  # noqa: FBT001
    raised, _ = failed(body({"error": error}))
    assert isinstance(raised, UpstreamError)
    assert raised.retryable == retryable


def test_a_bare_error_object_is_one() -> None:
    error, answer = failed(body(piece(content="x"), {"object": "error", **ERROR, "code": 503}, done=False))
    assert isinstance(error, UpstreamError)
    assert (error.code, error.message, answer.text) == ("503", "too busy", "x")


def test_groqs_word_for_a_stream_that_stopped_early_is_an_error() -> None:
    error, _ = failed(body(piece(content="x"), {**piece("stop"), "x_groq": {"error": "over capacity"}}), "groq")
    assert isinstance(error, UpstreamError)
    assert (error.message, error.retryable) == ("over capacity", True)


def test_openrouters_word_in_a_choice_says_why_the_provider_gave_up() -> None:
    given_up = piece("error", content="")
    given_up["choices"][0]["error"] = {"code": 402, "message": "no credits"}
    error, answer = failed(body(piece(content="x"), given_up), "openrouter")
    assert isinstance(error, UpstreamError)
    assert (error.code, error.type, error.message, error.retryable) == ("402", "error", "no credits", False)
    assert answer.text == "x"


def test_an_error_after_the_end_is_an_error() -> None:
    error, answer = failed(body(piece("length", content="x"), {"error": ERROR}))
    assert isinstance(error, UpstreamError)
    assert answer.text == "x"


def test_a_null_error_is_none() -> None:
    assert assemble(body({**piece("stop", content="x"), "error": None})).text == "x"


def test_an_endless_message_is_cut_short() -> None:
    assert len(str(failed(body({"error": {"message": "x" * 10_000}}))[0])) < 400


@pytest.mark.parametrize(
    "payload",
    [
        '{"choices": [',
        "not json",
        '{"choices":[{"delta":{"content":7}}]}',
        '{"choices":[{"delta":{"content":{"a":1}}}]}',
        '{"choices":[{"index":"0","delta":{}}]}',
        '{"choices":7}',
        '{"choices":[7]}',
        '{"choices":[{"delta":{},"finish_reason":7}]}',
        '{"choices":[],"usage":7}',
        "[1,2]",
        "7",
        "null",
        '{"x":' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"error":' + "[" * 100_000,
    ],
    ids=range(14),
)
@pytest.mark.parametrize("first", [True, False])
def test_what_is_not_of_the_dialect_is_an_error_with_its_place(payload: str, first: bool) -> None:  # noqa: FBT001
    before = b"" if first else body(piece(content="x"), done=False)
    error, answer = failed(before + body(payload))
    assert isinstance(error, DecodeError)
    assert error.offset == len(before)
    assert answer.text == ("" if first else "x")


def test_bytes_that_are_not_utf8_are_mended_and_counted() -> None:
    cursor = Cursor()
    reader, deltas = OPENAI.reader(None, cursor), list[Delta]()
    reader.feed([Event(b'{"choices":[{"delta":{"content":"a\xffb"}}]}')], deltas)
    assert [d.text for d in deltas] == ["a\ufffdb"]
    assert cursor.repaired == 1


def test_an_empty_event_is_a_ping() -> None:
    assert assemble(b"data:\n\n" + body(piece(content="x"))[:-14] + b"data\n\n" + body(piece("stop"))).text == "x"


# -- halves of characters ---------------------------------------------------------------------------


def halved(*payloads: str, dialect: str = "openai") -> tuple[Completion, int]:
    """The answer of payloads in which escapes stand for halves of characters, and how many were mended."""
    cursor = Cursor()
    data = body(*payloads)
    deltas = list[Delta]()
    parser, reader, events = SseParser(cursor), find(dialect).reader(None, cursor), list[Event]()
    parser.feed([data], events)
    with pytest.raises(EndOfStream):
        reader.feed(events, deltas)
    assert state_of(reader.evidence)["halves"] == {}
    transcript = Transcript()
    transcript.add(deltas)
    return transcript.completion(), cursor.repaired


def words(delta: str, *, index: int = 0, finish: str = "null") -> str:
    return f'{{"choices":[{{"index":{index},"delta":{{{delta}}},"finish_reason":{finish}}}]}}'


STOP = words("", finish='"stop"')


@pytest.mark.parametrize("field", ["content", "reasoning_content", "reasoning", "refusal"])
def test_a_half_waits_for_the_other_in_the_next_piece(field: str) -> None:
    said = [words(rf'"{field}":"a\ud83d"'), words(""), words(rf'"{field}":"\ude00b"'), words(f'"{field}":"c"'), STOP]
    answer, repaired = halved(*said)
    assert answer.text + answer.reasoning + answer.refusal == "a\U0001f600bc"
    assert repaired == 0


def test_words_that_are_cut_in_utf16_arrive_whole_wherever_they_are_cut() -> None:
    text = "a\U0001f600\U0001f468\u200d\U0001f469 \ufffd\U00020bb7\U0001f600"
    units = [int.from_bytes(text.encode("utf-16-be")[at : at + 2]) for at in range(0, len(text.encode("utf-16-be")), 2)]
    escaped = [f"\\u{unit:04x}" for unit in units]
    for cut in range(len(escaped) + 1):
        for other in range(cut, len(escaped) + 1):
            parts = (escaped[:cut], escaped[cut:other], escaped[other:])
            answer, repaired = halved(*(words(f'"content":"{"".join(part)}"') for part in parts), STOP)
            assert (answer.text, repaired) == (text, 0)


def test_halves_wait_in_their_own_field_and_choice() -> None:
    answer, repaired = halved(
        words(r'"content":"\ud83d"'),
        words(r'"content":"\ud83c"', index=1),
        words(r'"reasoning":"\ud83e"'),
        words(r'"content":"\ude00"'),
        words(r'"content":"\udf0a"', index=1),
        words(r'"reasoning":"\udd14"', finish='"stop"'),
        words("", index=1, finish='"stop"'),
    )
    assert [choice.text for choice in answer.choices] == ["\U0001f600", "\U0001f30a"]
    assert answer.reasoning == "\U0001f914"
    assert repaired == 0


def test_halves_are_joined_in_tool_arguments() -> None:
    def call(number: int, arguments: str, more: str = "") -> str:
        return words(rf'"tool_calls":[{{"index":{number}{more},"function":{{"arguments":"{arguments}"}}}}]')

    answer, repaired = halved(
        call(0, r"[\"\ud83d", ',"id":"a"'),
        call(1, r"[\"\ud83c", ',"id":"b"'),
        call(0, r"\ude00\"]"),
        call(1, r"\udf0a\"]"),
        call(1, r" \ud83d"),
        words("", finish='"tool_calls"'),
    )
    assert [call.arguments for call in answer.tool_calls] == ['["\U0001f600"]', '["\U0001f30a"] \ufffd']
    assert repaired == 1


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ([words(r'"content":"a\ud83d"'), words('"content":"b"'), STOP], "a\ufffdb"),
        ([words(r'"content":"a\ude00b"'), STOP], "a\ufffdb"),
        ([words(r'"content":"a\ud83d"'), STOP], "a\ufffd"),
        ([words(r'"content":"a\ud83d"', finish='"stop"')], "a\ufffd"),
    ],
)
def test_a_half_that_stays_alone_is_replaced_and_counted(said: list[str], text: str) -> None:
    answer, repaired = halved(*said)
    assert (answer.text, repaired) == (text, 1)


def test_a_half_is_not_lost_where_an_answer_ends_without_a_reason() -> None:
    said = [words(r'"content":"a\ud83d"'), '{"choices":[],"usage":{"total_tokens":3}}']
    answer, repaired = halved(*said, dialect="openai-compatible")
    assert (answer.text, repaired) == ("a\ufffd", 1)


def test_a_half_goes_on_waiting_in_an_exact_continuation() -> None:
    cursor, deltas = Cursor(), list[Delta]()
    first = OPENAI.reader(None, cursor)
    first.feed([Event(words(r'"content":"a\ud83d"').encode())], deltas)
    cursor.begin("continue")
    second = OPENAI.reader(None, cursor, OPENAI.wire.revive(state_of(first.evidence)))
    second.feed([Event(words(r'"content":"\ude00b"').encode())], deltas)
    assert "".join(delta.text for delta in deltas) == "a\U0001f600b"
    assert cursor.repaired == 0


@pytest.mark.parametrize("halves", [{"0 text": 65}, {"0 text": 10**30}, {"text": 0xD83D}, {"0 text": "x"}])
def test_a_memory_of_halves_that_was_never_kept_is_refused(halves: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"no half|invalid literal|int"):
        OPENAI.wire.revive({"halves": halves})


def test_another_answer_does_not_inherit_a_half() -> None:
    cursor, deltas = Cursor(), list[Delta]()
    first = OPENAI.reader(None, cursor)
    first.feed([Event(b'{"id":"1","choices":[{"delta":{"role":"assistant","content":"a\\ud83d"}}]}')], deltas)
    cursor.begin("continue")
    second = OPENAI.reader(None, cursor, first.evidence)
    second.feed([Event(b'{"id":"2","choices":[{"delta":{"role":"assistant","content":"a"}}]}')], deltas)
    assert [delta.text for delta in deltas] == ["a", "a"]
    assert cursor.mode == "replay"
    assert cursor.repaired == 0


@pytest.mark.parametrize(
    "payload",
    [
        words(r'"content":"x"', finish=r'"st\ud83dop"'),
        r'{"id":"\ud83d","choices":[]}',
        r'{"choices":[],"usage":{"\ud83d":1}}',
        words(r'"tool_calls":[{"index":0,"id":"\ude00"}]'),
        words(r'"tool_calls":[{"index":0,"function":{"name":"\ude00"}}]'),
        words(r'"tool_calls":[{"index":0,"function":{"arguments":{"a":"\ude00"}}}]'),
    ],
)
def test_half_a_character_where_no_text_is_is_an_error(payload: str) -> None:
    error, _ = failed(body(payload))
    assert isinstance(error, DecodeError)
    assert not isinstance(error.__context__, UnicodeError)  # it would hold the event's words


def test_the_words_of_an_error_are_whole() -> None:
    error, _ = failed(body(r'{"error":{"message":"a\ud83d","code":"overloaded"}}'))
    assert isinstance(error, UpstreamError)
    assert error.message == "a?"


# -- what is no stream at all ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "words", "retryable"),
    [
        (b"", "empty body", True),
        (b"<!DOCTYPE html>\n<html><body>Bad gateway</body></html>\n", "not an event stream", True),
        (b"<html>", "not an event stream", True),
        (b'{"id":"x","object":"chat.completion","choices":[{"message":{"content":"hi"}}]}', "JSON", False),
        (json.dumps({"id": "x", "choices": [{"message": {"content": "hi"}}]}, indent=1).encode(), "JSON", False),
        (b"upstream connect error", "not an event stream", True),
    ],
)
def test_what_is_no_stream_says_so(data: bytes, words: str, retryable: bool) -> None:  # noqa: FBT001
    error, _ = failed(data)
    assert isinstance(error, NotAStream)
    assert words in str(error)
    assert error.retryable == retryable


@pytest.mark.parametrize("data", [b": keep-alive\n\n", b"\n\n\n", b"data:\n\n", b"event: x\n\n", b"data: {"])
def test_a_stream_that_ends_before_its_answer_is_a_truncation(data: bytes) -> None:
    assert isinstance(failed(data)[0], Truncated)


def test_the_content_type_is_named() -> None:
    cursor = Cursor()
    cursor.received = 6
    cursor.note_stray(b"<html>")
    reader = OPENAI.reader(None, cursor, head=Head(headers={"content-type": "Text/HTML; charset=utf-8"}))
    with pytest.raises(NotAStream, match="text/html"):
        reader.end([])


# -- the dialects as data --------------------------------------------------------------------------


def test_dialects_are_found_by_name() -> None:
    assert [find(name) for name in ("deepseek", "openai", "openai-compatible")] == [DEEPSEEK, OPENAI, OPENAI_COMPATIBLE]
    assert find(DEEPSEEK) is DEEPSEEK
    assert {name: dialect.name for name, dialect in DIALECTS.items()} == {name: name for name in DIALECTS}
    with pytest.raises(UsageError, match="deepseek, openai"):
        find("opnai")


def test_a_request_is_made_to_ask_for_a_stream_and_its_usage() -> None:
    assert DEEPSEEK.prepare({"messages": []}) == {
        "messages": [],
        "stream": True,
        "model": "deepseek-flash",
        "stream_options": {"include_usage": True},
    }
    assert OPENAI.prepare({"model": "m", "stream_options": {}}) == {"model": "m", "stream": True, "stream_options": {}}
    assert OPENAI_COMPATIBLE.prepare({}) == {"stream": True}


def test_the_key_goes_into_the_header() -> None:
    assert OPENAI.headers("secret") == {"Authorization": "Bearer secret"}
    assert OPENAI.headers(None) == {}


def test_a_refusal_tells_the_providers_words() -> None:
    def refused(status: int, body: bytes) -> StatusError:
        return OPENAI.refine(StatusError("refused", head=Head(status=status), body=body, retryable=True))

    empty = refused(429, b'{"error":{"message":"no money","type":"insufficient_quota","code":"insufficient_quota"}}')
    assert (empty.code, empty.type, empty.retryable) == ("insufficient_quota", "insufficient_quota", False)
    busy = refused(429, b'{"error":{"message":"slow down","code":"rate_limit_exceeded"}}')
    assert (busy.code, busy.retryable) == ("rate_limit_exceeded", True)
    assert refused(502, b"<html>").retryable
    held = refused(402, b'{"error":{"code":402,"message":"credits are held by other requests"}}')
    assert (held.code, held.retryable) == ("402", True)  # the status has been judged, with its Retry-After


@pytest.mark.parametrize("clock", ["open", "first_token", "progress", "total"])
@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_a_clock_that_could_not_run_is_refused(clock: str, seconds: float) -> None:
    with pytest.raises(ValueError, match=clock):
        Timeouts(**{clock: seconds})


def test_clocks_that_are_given_come_before_the_defaults() -> None:
    assert Timeouts(open=1).over(Timeouts(open=2, total=3)) == Timeouts(open=1, total=3)


def test_a_name_that_grows_without_end_is_refused() -> None:
    grows = (tool(index=0, function={"name": "ab"[n % 2] * 100}) for n in range(1_000))
    error, _ = failed(body(*grows))
    assert isinstance(error, DecodeError)
