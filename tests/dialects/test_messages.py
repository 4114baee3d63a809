"""The Messages shape: what its events say, their order, what proves an answer, and how one is continued."""

from __future__ import annotations

import json
from typing import Any

import pytest

from holdfast._errors import DecodeError, EndOfStream, NotAStream, StreamError, Truncated, UpstreamError
from holdfast._types import Completion, Delta, Event, Request
from holdfast.dialects import ANTHROPIC, DEEPSEEK_ANTHROPIC, Evidence, Said, TurnPrefix, state_of
from holdfast.machines.cursor import Cursor
from holdfast.machines.sse import SseParser
from holdfast.offline import assemble

WIRE = ANTHROPIC.wire
STOP = {"type": "message_stop"}
PING = {"type": "ping"}


def stream(*payloads: Any) -> bytes:
    lines = [payload if isinstance(payload, str) else json.dumps(payload) for payload in payloads]
    return "".join(f"data: {line}\n\n" for line in lines).encode()


def started(**usage: Any) -> dict[str, Any]:
    told = usage or {"input_tokens": 9, "output_tokens": 1}
    return {"type": "message_start", "message": {"id": "msg_1", "content": [], "stop_reason": None, "usage": told}}


def begun(index: int, kind: str = "text", **more: Any) -> dict[str, Any]:
    given = {"text": {"text": ""}, "thinking": {"thinking": "", "signature": ""}}.get(kind, {})
    return {"type": "content_block_start", "index": index, "content_block": {"type": kind, **given, **more}}


def more(index: int, kind: str, **delta: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **delta}}


def text(piece: Any, index: int = 0) -> dict[str, Any]:
    return more(index, "text_delta", text=piece)


def ended(index: int = 0) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


def stopped(reason: Any = "end_turn", **usage: Any) -> dict[str, Any]:
    told = {"usage": usage} if usage else {}
    return {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}, **told}


def tool(index: int = 0, **more: Any) -> dict[str, Any]:
    return begun(index, "tool_use", **{"id": "toolu_1", "name": "f", "input": {}, **more})


def piece(json_: Any, index: int = 0) -> dict[str, Any]:
    return more(index, "input_json_delta", partial_json=json_)


def answer_of(*payloads: Any) -> Completion:
    return assemble(stream(started(), *payloads, stopped(), STOP), ANTHROPIC)


def failed(*payloads: Any) -> StreamError:
    with pytest.raises(StreamError) as raised:
        assemble(stream(*payloads), ANTHROPIC)
    return raised.value


def read(
    data: bytes, cursor: Cursor, evidence: Evidence | None = None, *, end_at_done: bool = True
) -> tuple[list[Delta], Evidence, bool]:
    """Gives the deltas of one attempt, its evidence, and whether it ended there."""
    events, deltas = list[Event](), list[Delta]()
    SseParser(Cursor()).feed([data], events)
    reader = WIRE.reader(None, cursor, evidence, end_at_done=end_at_done)
    try:
        reader.feed(events, deltas)
    except EndOfStream:
        return deltas, reader.evidence, True
    return deltas, reader.evidence, False


# -- pieces ----------------------------------------------------------------------------------------


def test_the_channels_are_told_apart() -> None:
    answer = answer_of(
        begun(0, "thinking"),
        more(0, "thinking_delta", thinking="Hm"),
        more(0, "signature_delta", signature="QQ=="),
        ended(0),
        begun(1),
        PING,
        text("Hi ", 1),
        text("you", 1),
        ended(1),
    )
    assert (answer.reasoning, answer.text, answer.tool_calls) == ("Hm", "Hi you", ())


def test_a_block_may_begin_with_words() -> None:
    answer = answer_of(begun(0, "thinking", thinking="H"), ended(0), begun(1, text="a"), text("b", 1), ended(1))
    assert (answer.reasoning, answer.text) == ("H", "ab")


def test_calls_are_counted_from_0_and_come_in_fragments() -> None:
    answer = answer_of(
        begun(0),
        text("x"),
        ended(0),
        tool(1),
        piece("", 1),
        piece('{"x"', 1),
        piece(":1}", 1),
        ended(1),
        tool(2, id="toolu_2", name="g"),
        ended(2),
    )
    assert [(c.index, c.id, c.name, c.arguments) for c in answer.tool_calls] == [
        (0, "toolu_1", "f", '{"x":1}'),
        (1, "toolu_2", "g", ""),
    ]
    assert answer.tool_calls[1].input == {}


def test_input_may_come_whole_at_a_calls_beginning() -> None:
    whole = tool(input={"x": [1, "你"]})
    assert answer_of(whole, ended()).tool_calls[0].arguments == '{"x":[1,"你"]}'
    assert answer_of(whole, piece(""), ended()).tool_calls[0].arguments == '{"x":[1,"你"]}'
    assert answer_of(whole, piece('{"x":1}'), ended()).tool_calls[0].arguments == '{"x":1}'


def test_a_call_that_the_server_runs_is_none_of_ours() -> None:
    payloads = [
        started(),
        begun(0, "server_tool_use", id="srvtoolu_1", name="web_search", input={}),
        piece('{"query":"x"}'),
        ended(),
        begun(1, "web_search_tool_result", tool_use_id="srvtoolu_1", content=[{"text": 7}]),
        ended(1),
        begun(2, "mcp_tool_use", id=7, name=None, input="x"),
        ended(2),
    ]
    deltas, _, _ = read(stream(*payloads), Cursor())
    assert [(d.empty, d.raw.json()) for d in deltas] == [(True, payload) for payload in payloads]
    assert answer_of(*payloads[1:]).tool_calls == ()


@pytest.mark.parametrize(
    "payload",
    [
        PING,
        {"type": "never_seen", "deltas": 7},
        more(0, "citations_delta", citation={"cited_text": "x"}),
        more(0, "signature_delta", signature="x"),
        more(0, "never_seen", text=7),
        more(0, "thinking_delta", thinking="of another block"),
        more(0, "input_json_delta", partial_json=7),
    ],
)
def test_what_is_unknown_passes_in_raw(payload: dict[str, Any]) -> None:
    deltas, _, _ = read(stream(started(), begun(0), payload), Cursor())
    assert [(d.empty, d.raw.json()) for d in deltas[2:]] == [(True, payload)]


def test_a_block_of_an_unknown_kind_is_not_text() -> None:
    answer = answer_of(begun(0, "redacted_thinking", data="QQ=="), ended(0), begun(1, "new"), text("x", 1), ended(1))
    assert (answer.text, answer.reasoning) == ("", "")


@pytest.mark.parametrize(
    "payload",
    [
        text(7),
        text(None),
        {"type": "content_block_delta", "index": "0", "delta": {"type": "text_delta", "text": "x"}},
        {"type": "content_block_delta", "index": 0, "delta": "x"},
        {"type": "content_block_delta", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": 7}},
        {"type": "message_delta", "usage": 7},
        {"type": "message_start", "message": 7},
        {"type": 7},
        [1],
        "not json",
    ],
)
def test_a_known_key_of_another_type_is_an_error_with_its_place(payload: Any) -> None:
    before = stream(started(), begun(0))
    with pytest.raises(DecodeError) as raised:
        assemble(before + stream(payload), ANTHROPIC)
    assert raised.value.offset == len(before)


@pytest.mark.parametrize(
    "block",
    [begun(0, text=7), begun(0, "thinking", thinking=[]), tool(id=None), tool(name=7), tool(input="x"), tool(input=[])],
)
def test_a_block_of_a_known_kind_must_be_right(block: Any) -> None:
    assert isinstance(failed(started(), block), DecodeError)


# -- the order -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "payloads",
    [
        [begun(0)],
        [text("x")],
        [ended()],
        [stopped()],
        [STOP],
        [started(), started()],
        [started(), text("x")],
        [started(), ended()],
        [started(), begun(1)],
        [started(), begun(-1)],
        [started(), begun(0), begun(1)],
        [started(), begun(0), text("x", 1)],
        [started(), begun(0), ended(1)],
        [started(), begun(0), ended(), text("x")],
        [started(), begun(0), ended(), ended()],
        [started(), begun(0), ended(), begun(0)],
        [started(), begun(0), ended(), begun(2)],
        [started(), begun(0), stopped()],
        [started(), begun(0), ended(), stopped(), begun(1)],
        [started(), begun(0), ended(), stopped(), text("x")],
    ],
)
def test_events_out_of_order_are_an_error_at_the_first_of_them(payloads: list[Any]) -> None:
    error = failed(*payloads)
    assert isinstance(error, DecodeError)
    assert error.retryable
    assert error.offset == len(stream(*payloads[:-1]))


def test_a_message_that_starts_again_is_no_continuation() -> None:
    cursor = Cursor()
    _, evidence, _ = read(stream(started(), begun(0), text("a")), cursor)
    cursor.begin("continue")
    deltas, evidence, _ = read(stream(started(), begun(0), text("b"), ended(), stopped()), cursor, evidence)
    assert cursor.mode == "replay"
    assert "".join(d.text for d in deltas) == "b"
    assert evidence.complete


def test_a_continuation_goes_on_inside_its_block() -> None:
    payloads = [started(), begun(0), text("a"), ended(), tool(1), piece("{", 1), piece("}", 1), ended(1), stopped()]
    for cut in range(1, len(payloads)):
        cursor = Cursor()
        first, evidence, _ = read(stream(*payloads[:cut]), cursor)
        cursor.begin("continue")
        rest, evidence, _ = read(stream(*payloads[cut:]), cursor, WIRE.revive(state_of(evidence)))
        calls = [c for d in (*first, *rest) for c in d.tool_calls]
        assert "".join(d.text for d in (*first, *rest)) == "a"
        assert "".join(c.arguments for c in calls) == "{}"
        assert {c.index for c in calls} == {0}
        assert evidence.complete


# -- what proves an answer -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reason", ["end_turn", "max_tokens", "stop_sequence", "tool_use", "pause_turn", "refusal", "x"]
)
def test_a_stop_reason_is_the_end_in_the_providers_word(reason: str) -> None:
    answer = assemble(stream(started(), begun(0), text("x"), ended(), stopped(reason), STOP), ANTHROPIC)
    assert (answer.text, answer.finish_reason, str(answer.verdict)) == ("x", reason, "COMPLETE")


def test_nothing_is_missing_where_only_message_stop_is() -> None:
    assert assemble(stream(started(), begun(0), text("x"), ended(), stopped()), ANTHROPIC).text == "x"


def test_message_stop_proves_nothing_by_itself() -> None:
    error = failed(started(), begun(0), text("x"), ended(), stopped(None), STOP)
    assert isinstance(error, Truncated)
    assert "stop_reason" in str(error)
    assert error.partial.text == "x"


@pytest.mark.parametrize(
    ("payloads", "missing"),
    [
        ([started()], "a stop_reason"),
        ([started(), begun(0), text("x")], "content block 0"),
        ([started(), begun(0), text("x"), ended()], "a stop_reason"),
        ([started(), begun(0), text("x"), STOP], "content block 0"),
        ([started(), begun(0), text("x"), "[DONE]"], "content block 0"),
        ([PING], "a stop_reason"),
    ],
)
def test_an_answer_that_ends_early_is_a_truncation(payloads: list[Any], missing: str) -> None:
    error = failed(*payloads)
    assert isinstance(error, Truncated)
    assert missing in str(error)


def test_the_end_mark_ends_the_answer() -> None:
    whole = [started(), begun(0), text("x"), ended(), stopped(), STOP]
    assert assemble(stream(*whole, text("more")), ANTHROPIC).text == "x"
    assert assemble(stream(*whole[:-1], "[DONE]", text("more")), ANTHROPIC).text == "x"
    deltas, evidence, over = read(stream(*whole, PING, "[DONE]"), Cursor(), end_at_done=False)
    assert (len(deltas), over, evidence.complete, evidence.answer_id) == (7, False, True, "msg_1")


def test_an_end_that_is_said_twice_is_heard_once() -> None:
    deltas, evidence, _ = read(stream(started(), stopped(), stopped("max_tokens", output_tokens=7), STOP), Cursor())
    assert [d.finish_reason for d in deltas if d.finish_reason] == ["end_turn"]
    assert evidence.usage is not None
    assert evidence.usage.output_tokens == 7


def test_a_stream_of_another_shape_says_so() -> None:
    error = failed({"choices": [{"delta": {"content": "x"}}]})
    assert isinstance(error, NotAStream)
    assert not error.retryable


# -- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "retryable"),
    [
        ("overloaded_error", True),
        ("api_error", True),
        ("rate_limit_error", True),
        ("timeout_error", True),
        ("invalid_request_error", False),
        ("authentication_error", False),
        ("billing_error", False),
        ("permission_error", False),
        ("not_found_error", False),
        ("request_too_large", False),
    ],
)
def test_an_errors_type_says_whether_another_try_may_help(kind: str, retryable: bool) -> None:  # noqa: FBT001
    told = {"type": "error", "error": {"type": kind, "message": "too busy"}, "request_id": "req_1"}
    error = failed(started(), begun(0), text("x"), told)
    assert isinstance(error, UpstreamError)
    assert (error.type, error.message, error.retryable) == (kind, "too busy", retryable)
    assert error.partial.text == "x"
    bare = WIRE.error_in(json.dumps(told).encode())
    assert bare is not None
    assert (bare.type, bare.retryable) == (kind, retryable)


# -- usage -----------------------------------------------------------------------------------------


def test_usage_comes_in_two_halves_and_the_later_one_counts() -> None:
    first = {
        "input_tokens": 9,
        "cache_read_input_tokens": 4,
        "cache_creation_input_tokens": 2,
        "cache_creation": {"ephemeral_5m_input_tokens": 2},
        "output_tokens": 1,
        "service_tier": "standard",
    }
    last = {"input_tokens": 10, "cache_read_input_tokens": None, "output_tokens": 5}
    details = {"output_tokens_details": {"thinking_tokens": 3}}
    deltas, evidence, _ = read(stream(started(**first), stopped(**last, **details), STOP), Cursor())
    usage = evidence.usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (16, 5, 21)
    assert (usage.cached_tokens, usage.cache_write_tokens, usage.reasoning_tokens) == (4, 2, 3)
    assert usage.raw == {**first, "input_tokens": 10, "output_tokens": 5, **details}
    assert [d.usage for d in deltas] == [None, usage, None]


def test_what_was_asked_is_known_from_the_start_and_is_no_progress() -> None:
    deltas, evidence, _ = read(stream(started(input_tokens=9)), Cursor())
    assert evidence.usage is not None
    assert (evidence.usage.input_tokens, evidence.usage.total_tokens) == (9, None)
    assert deltas[0].empty


# -- halves of characters --------------------------------------------------------------------------


def test_a_character_that_was_cut_in_half_arrives_whole() -> None:
    answer = answer_of(begun(0), text("a\ud83d"), text("\ude00c"), ended(), begun(1), text("b\ud83d", 1), ended(1))
    assert answer.text == "a\U0001f600cb\ufffd"
    halves = [tool(), piece('{"x":"\ud83d'), piece('\ude00"}'), ended()]
    assert answer_of(*halves).tool_calls[0].arguments == '{"x":"\U0001f600"}'


def test_a_half_waits_over_a_seam() -> None:
    cursor = Cursor()
    first, evidence, _ = read(stream(started(), begun(0), text("a\ud83d")), cursor)
    cursor.begin("continue")
    rest, _, _ = read(stream(text("\ude00"), ended()), cursor, WIRE.revive(state_of(evidence)))
    assert "".join(d.text for d in (*first, *rest)) == "a\U0001f600"


def test_a_half_of_one_answer_does_not_wait_for_another() -> None:
    cursor = Cursor()
    _, evidence, _ = read(stream(started(), begun(0), text("a\ud83d")), cursor)
    cursor.begin("continue")
    deltas, _, _ = read(stream(started(), begun(0), text("\ude00b")), cursor, evidence)
    assert "".join(d.text for d in deltas) == "\ufffdb"


@pytest.mark.parametrize("block", [tool(id="\ud83d"), tool(name="\ud83d"), tool(input={"x": "\ud83d"})])
def test_half_a_character_that_nothing_completes_is_an_error(block: Any) -> None:
    assert isinstance(failed(started(), block), DecodeError)


# -- requests --------------------------------------------------------------------------------------

ASKED = {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": "Q"}]}


def continued(said: Said, **body: Any) -> Any:
    request = Request(url="https://h/v1/messages", headers={"x": "y"}, body={**ASKED, **body})
    longer = TurnPrefix().extend(request, said)
    return longer and longer.body


def test_an_answer_is_continued_from_the_assistants_turn() -> None:
    body = continued(Said(text="Once upon", tokens=30), tools=[{"name": "f"}], tool_choice={"type": "auto"})
    assert body["messages"] == [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "Once upon"}]
    assert body["max_tokens"] == 70
    assert ASKED["messages"] == [{"role": "user", "content": "Q"}]
    assert continued(Said(text="x", tokens=300))["max_tokens"] == 1


@pytest.mark.parametrize(
    ("given", "longer"),
    [
        ("A: ", "A: once"),
        ([{"type": "text", "text": "A: "}], [{"type": "text", "text": "A: once"}]),
        (
            [{"type": "tool_use", "id": "t"}],
            [{"type": "tool_use", "id": "t"}, {"type": "text", "text": "once"}],
        ),
    ],
)
def test_words_that_were_put_into_the_models_mouth_stay_before_its_own(given: Any, longer: Any) -> None:
    turns = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": given}]
    body = continued(Said(text="once"), messages=turns)
    assert body["messages"] == [turns[0], {"role": "assistant", "content": longer}]


@pytest.mark.parametrize(
    "body",
    [
        {"thinking": {"type": "enabled", "budget_tokens": 1024}},
        {"thinking": {"type": "adaptive"}},
        {"tool_choice": {"type": "any"}},
        {"tool_choice": {"type": "tool", "name": "f"}},
        {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
        {"mcp_servers": [{"url": "https://h"}]},
        {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
        {"messages": []},
        {"messages": "Q"},
        {"messages": ["Q"]},
    ],
)
def test_what_cannot_be_continued_is_refused(body: dict[str, Any]) -> None:
    assert continued(Said(text="x"), **body) is None


@pytest.mark.parametrize("said", [Said(text=""), Said(text="x "), Said(text="x\n"), Said(text="x", reasoning="Hm")])
def test_a_turn_must_end_in_text(said: Said) -> None:
    assert continued(said) is None


def test_thinking_that_is_off_stands_in_nobodys_way() -> None:
    assert continued(Said(text="x"), thinking={"type": "disabled"}) is not None


@pytest.mark.parametrize("key", ["output_format", "output_config"])
def test_a_request_may_ask_for_json(key: str) -> None:
    def body(wanted: Any) -> dict[str, Any]:
        return {key: wanted if key == "output_format" else {"format": wanted}}

    assert WIRE.asks_json(body({"type": "json_schema", "schema": {"type": "object"}})) == {"type": "object"}
    assert WIRE.asks_json(body({"type": "json_schema"})) is True
    assert WIRE.asks_json(body({"type": "text"})) is False
    assert WIRE.asks_json(body(None)) is False
    assert WIRE.asks_json({}) is False


def test_an_event_tells_its_shape() -> None:
    assert WIRE.recognises(Event(b'{"type":"message_start","message":{}}'))
    for payload in (b'{"type":"ping"}', b'{"type":"message-start"}', b'{"choices":[]}', b"[]", b"x", b'{"type":7}'):
        assert not WIRE.recognises(Event(payload))


def test_the_dialects_are_tables() -> None:
    assert ANTHROPIC.headers("key") == {"x-api-key": "key", "anthropic-version": "2023-06-01"}
    assert ANTHROPIC.url(ANTHROPIC.base_url, {}) == "https://api.anthropic.com/v1/messages"
    assert DEEPSEEK_ANTHROPIC.url(DEEPSEEK_ANTHROPIC.base_url, {}) == "https://api.deepseek.com/anthropic/v1/messages"
    assert DEEPSEEK_ANTHROPIC.prepare({}) == {"stream": True, "model": "deepseek-flash"}
    assert (ANTHROPIC.prefix, DEEPSEEK_ANTHROPIC.prefix) == (TurnPrefix(), None)
    assert (ANTHROPIC.cursor, DEEPSEEK_ANTHROPIC.cursor) == (None, None)


def test_a_usage_that_grows_without_end_is_refused() -> None:
    grows = (stopped(None, **{f"key_{n}": n}) for n in range(1_000))
    assert isinstance(failed(started(), *grows), DecodeError)
