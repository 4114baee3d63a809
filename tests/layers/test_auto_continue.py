"""AutoContinue asks on at a token limit and nowhere else: one text, one end, one usage, and nothing said twice."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import pytest

from holdfast._core import Source, transform
from holdfast._errors import ConnectError, DeadlineExceeded, StatusError, StreamBroken, StreamError
from holdfast._pipe import Pipe
from holdfast._reader import Reader
from holdfast._types import Delta, Event, Head, Partial, Request
from holdfast.dialects import ANTHROPIC, DEEPSEEK, LLAMA_CPP, OPENAI, Dialect, Said
from holdfast.dialects._turns import another_turn
from holdfast.layers.auto_continue import AutoContinue
from holdfast.layers.buffer import Buffer
from holdfast.layers.deadline import Deadline
from holdfast.layers.parse import parse_sse
from holdfast.layers.reconnect import Reconnect
from holdfast.layers.retry import Retry
from holdfast.layers.verify import verify
from holdfast.machines.ladder import Seams
from holdfast.moments import Continued
from holdfast.testing import FakeClock, check_layer, check_source
from holdfast.testing.answers import in_pieces
from tests.puppet import Puppet, PuppetStream, Script, Wait

TEXT = (
    "A holdfast is no root: it takes nothing from the rock. 海藻没有根，它用固着器抓住礁石。 Every wave pulls, "
    "and the kelp answers by bending instead of breaking.\n\nWhat the current tears off drifts ashore 🌊 and grows on."
)
TOKENS = in_pieces(TEXT)
PROMPT_TOKENS = 7
URL = "https://api.deepseek.com/chat/completions"
Answering = Callable[[str, int], tuple[Sequence[str], str]]


def ask(limit: int | None = 12, **more: Any) -> Request:
    limits = {} if limit is None else {"max_tokens": limit}
    return Request(url=URL, body={"messages": [{"role": "user", "content": "Why?"}], **limits, **more})


def rest_of(text: str) -> Callable[[str], tuple[str, ...]]:
    def rest(prefix: str) -> tuple[str, ...]:
        assert text.startswith(prefix)
        return in_pieces(text[len(prefix) :])

    return rest


class Model(Puppet):
    """A server that answers `TEXT`, `max_tokens` of it, and goes on from a prefix of it.

    `cuts` break replies off after so many events; `says` replaces what a reply says by its number, from 0.
    """

    def __init__(self, *, cuts: dict[int, int] | None = None, says: dict[int, Any] | None = None, **how: Any) -> None:
        super().__init__()
        self.cuts = cuts or {}
        self.says = says or {}
        self.usage = how.get("usage", True)
        self.own_usage_chunk = how.get("own_usage_chunk", False)
        self.thought = how.get("thought", "")
        self.wait = how.get("wait", 0.0)
        self.size = how.get("size", 1)

    async def open(self, request: Request) -> PuppetStream:
        given = self.says.get(self.opens, self._answer)
        script = (
            given if isinstance(given, Script) else Script(opening=(given,)) if isinstance(given, Exception) else None
        )
        if script is None:
            tokens, finish = given(request)
            script = Script(*self._reply(request, tokens, finish), opening=(Wait(self.wait),))
        self.scripts.append(script)
        return await super().open(request)

    def _answer(self, request: Request) -> tuple[Sequence[str], str]:
        body: Any = request.body
        last = body["messages"][-1]
        rest = rest_of(TEXT)(last["content"] if last["role"] == "assistant" else "")
        limit = body.get("max_tokens", 10_000)
        return (rest[:limit], "length") if len(rest) > limit else (rest, "stop")

    def _reply(self, request: Request, tokens: Sequence[str], finish: str) -> list[Any]:
        body: Any = request.body
        prefix = sum(len(in_pieces(m["content"])) for m in body["messages"] if m["role"] == "assistant")
        asked, answered = PROMPT_TOKENS + prefix, len(tokens)
        usage = {"prompt_tokens": asked, "completion_tokens": answered, "total_tokens": asked + answered}
        about = f"answer-{self.opens}"
        ending: dict[str, Any] = {"choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": finish}]}
        chunks: list[dict[str, Any]] = [{"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}]
        if self.thought:
            chunks.append({"choices": [{"index": 0, "delta": {"reasoning_content": self.thought}}]})
        chunks += [{"choices": [{"index": 0, "delta": {"content": token}}]} for token in tokens]
        chunks.append(ending)
        if self.usage and self.own_usage_chunk:
            chunks.append({"choices": [], "usage": usage})
        elif self.usage:
            ending["usage"] = usage
        events = [b"data: " + json.dumps({"id": about, **chunk}).encode() + b"\n\n" for chunk in chunks]
        events.append(b"data: [DONE]\n\n")
        cut = self.cuts.get(self.opens)
        if cut is not None:
            events = events[:cut]
        steps: list[Any] = [b"".join(events[i : i + self.size]) for i in range(0, len(events), self.size)]
        return [*steps, StreamBroken("connection reset")] if cut is not None else steps


def pipe_over(
    source: Any, clock: FakeClock, layer: AutoContinue | None = None, *, dialect: Dialect = DEEPSEEK, **more: Any
) -> Pipe[Delta]:
    return (
        Pipe(source, clock=clock, max_requests=more.get("max_requests", 40))
        | parse_sse()
        | verify(dialect)
        | Retry()
        | Reconnect(seams=more.get("seams", Seams()))
        | (layer or AutoContinue(times=50))
        | Deadline(total=more.get("total", 3600))
    )


async def read(reader: Reader[Delta]) -> tuple[list[Delta], StreamError | None]:
    got: list[Delta] = []
    try:
        async with reader:
            async for delta in reader:
                got.append(delta)  # noqa: PERF401 - what came before an error counts
    except StreamError as error:
        return got, error
    return got, None


def text(deltas: Sequence[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


def ends(deltas: Sequence[Delta]) -> list[str]:
    return [delta.finish_reason for delta in deltas if delta.finish_reason]


# -- one stream --------------------------------------------------------------------------------


@pytest.mark.parametrize("own_usage_chunk", [False, True], ids=["usage with the end", "usage after it"])
@pytest.mark.parametrize("size", [1, 1000], ids=["event by event", "at once"])
@pytest.mark.parametrize("limit", [10, 11, 12, 20, 40])
async def test_an_answer_is_one_stream_over_all_its_legs(
    limit: int, size: int, *, own_usage_chunk: bool, clock: FakeClock
) -> None:
    model = Model(size=size, own_usage_chunk=own_usage_chunk)
    reader = pipe_over(model, clock).stream(ask(limit))
    got, error = await read(reader)
    assert error is None
    assert text(got) == TEXT == reader.completion.text
    assert ends(got) == ["stop"] == [reader.completion.finish_reason]
    assert str(reader.completion.verdict) == "COMPLETE"
    assert reader.report.legs == model.opens > 1
    (usage,) = [delta.usage for delta in got if delta.usage]
    assert usage == reader.completion.usage == reader.report.usage
    assert usage is not None
    assert (usage.input_tokens, usage.estimated) == (PROMPT_TOKENS, True)
    assert usage.output_tokens is not None
    assert abs(usage.output_tokens - len(TOKENS)) <= model.opens  # words that were said again are an estimate
    assert not model.live


async def test_each_leg_goes_on_from_the_whole_answer_with_the_limit_that_was_asked_for(clock: FakeClock) -> None:
    model = Model()
    await read(pipe_over(model, clock).stream(ask(12, top_p=0.5)))
    first, *later = [request.body for request in model.requests]
    assert isinstance(first, dict)
    assert len(first["messages"]) == 1
    lengths = []
    for body in later:
        assert isinstance(body, dict)
        user, last = body["messages"]
        assert (user, last["role"], last["prefix"]) == (first["messages"][0], "assistant", True)
        assert TEXT.startswith(last["content"])
        assert (body["max_tokens"], body["top_p"]) == (12, 0.5)
        lengths.append(len(last["content"]))
    assert lengths == sorted(set(lengths))
    assert {request.url for request in model.requests[1:]} == {"https://api.deepseek.com/beta/chat/completions"}


async def test_what_was_billed_counts_the_prompt_of_each_leg(clock: FakeClock) -> None:
    model = Model()
    reader = pipe_over(model, clock).stream(ask(12))
    got, _ = await read(reader)
    billed = 0
    for request, script in zip(model.requests, model.scripts, strict=True):
        body: Any = request.body
        prefix = sum(len(in_pieces(m["content"])) for m in body["messages"] if m["role"] == "assistant")
        billed += PROMPT_TOKENS + prefix + sum(b'"content"' in step and b'""' not in step for step in script.steps)
    assert reader.report.billed_tokens == billed
    assert reader.report.billed_estimated  # as the answer's own share is: one of the two holds the words said again
    assert got[-1].usage is not None


async def test_the_moment_the_log_and_the_report_tell_of_each_leg(clock: FakeClock) -> None:
    moments: list[Any] = []
    reader = pipe_over(Model(), clock).stream(ask(30), listeners=[moments.append])
    await read(reader)
    continued = [(m.leg, m.reason) for m in moments if isinstance(m, Continued)]
    assert continued == [(leg, "length") for leg in range(2, reader.report.legs + 1)]
    assert f"{reader.report.legs} legs" in str(reader.report)


async def test_usage_that_nobody_told_is_estimated_only_where_some_was(clock: FakeClock) -> None:
    reader = pipe_over(Model(usage=False), clock).stream(ask(12))
    got, error = await read(reader)
    assert error is None
    assert text(got) == TEXT
    assert not [delta.usage for delta in got if delta.usage]
    usage = reader.report.usage
    assert usage is not None
    assert (usage.input_tokens, usage.estimated) == (None, True)


async def test_a_thought_is_part_of_the_answer_in_each_leg(clock: FakeClock) -> None:
    model = Model(thought="Hmm. ")
    reader = pipe_over(model, clock).stream(ask(30))
    got, error = await read(reader)
    assert error is None
    assert text(got) == TEXT
    thoughts = "".join(delta.reasoning for delta in got)
    assert thoughts == "Hmm. " * model.opens == reader.completion.reasoning
    last: Any = model.requests[1].body
    assert last["messages"][-1]["reasoning_content"] == "Hmm. "


async def test_a_grouping_layer_right_of_it_changes_nothing(clock: FakeClock) -> None:
    reader = (pipe_over(Model(), clock) | Buffer(count=4)).stream(ask(12))
    got, error = await read(reader)
    assert (error, text(got), ends(got)) == (None, TEXT, ["stop"])


async def test_without_reconnect_it_takes_the_answer_down_itself(clock: FakeClock) -> None:
    pipe = Pipe(Model(), clock=clock) | parse_sse() | verify(DEEPSEEK) | AutoContinue(times=50)
    reader = pipe.stream(ask(30))
    got, error = await read(reader)
    assert (error, text(got), reader.completion.text) == (None, TEXT, TEXT)


# -- a turn that was paused ----------------------------------------------------------------------


def message(stop: str, *blocks: tuple[dict[str, Any], Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"id": "msg_1", "usage": {"input_tokens": 9, "output_tokens": 1}}}
    ]
    for index, (block, deltas) in enumerate(blocks):
        events.append({"type": "content_block_start", "index": index, "content_block": block})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    events.append({"type": "message_delta", "delta": {"stop_reason": stop}, "usage": {"output_tokens": 20}})
    return [*events, {"type": "message_stop"}]


def told(events: Sequence[dict[str, Any]]) -> Script:
    return Script(*(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n".encode() for e in events))


def words(text: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    return {"type": "text", "text": ""}, [{"type": "text_delta", "text": piece} for piece in in_pieces(text)]


SEARCH = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}
FOUND = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [{"type": "web_search_result"}]}
THOUGHT = {"type": "thinking", "thinking": "", "signature": ""}
CITED = {"type": "char_location", "cited_text": "kelp"}
PAUSED = message(
    "pause_turn",
    (
        dict(THOUGHT),
        [{"type": "thinking_delta", "thinking": "Let me look."}, {"type": "signature_delta", "signature": "c2ln"}],
    ),
    words("I will look."),
    (dict(SEARCH), [{"type": "input_json_delta", "partial_json": piece} for piece in ("", '{"query":', ' "kelp"}')]),
    (dict(FOUND), []),
)
MESSAGES_ASK = Request(
    url="https://api.anthropic.com/v1/messages",
    body={
        "max_tokens": 99,
        "messages": [{"role": "user", "content": "Why?"}],
        "tools": [{"type": "web_search_20250305", "name": "web_search"}],
    },
)


async def test_a_paused_turn_goes_back_as_it_came_and_is_one_answer(clock: FakeClock) -> None:
    second = words(" It is")
    second[1].append({"type": "citations_delta", "citation": CITED})
    last = told(message("end_turn", words(" so.")))
    model = Model(says={0: told(PAUSED), 1: told(message("pause_turn", second)), 2: last})
    reader = pipe_over(model, clock, AutoContinue(), dialect=ANTHROPIC).stream(MESSAGES_ASK)
    got, error = await read(reader)
    assert error is None
    assert text(got) == "I will look. It is so." == reader.completion.text
    assert (ends(got), reader.report.legs, str(reader.completion.verdict)) == (["end_turn"], 3, "COMPLETE")
    usage = reader.completion.usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens, usage.estimated) == (9, 60, False)
    bodies: list[Any] = [request.body for request in model.requests]
    blocks = [
        {"type": "thinking", "thinking": "Let me look.", "signature": "c2ln"},
        {"type": "text", "text": "I will look."},
        {**SEARCH, "input": {"query": "kelp"}},
        FOUND,
    ]
    assert bodies[1]["messages"] == [*bodies[0]["messages"], {"role": "assistant", "content": blocks}]
    more = [*blocks, {"type": "text", "text": " It is", "citations": [CITED]}]
    assert bodies[2]["messages"] == [*bodies[0]["messages"], {"role": "assistant", "content": more}]


async def test_a_turn_that_waits_for_a_tool_of_the_callers_stays_as_it_is(clock: FakeClock) -> None:
    mine: tuple[dict[str, Any], list[Any]] = ({"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}, [])
    model = Model(says={0: told(message("pause_turn", words("I will look."), mine))})
    reader = pipe_over(model, clock, AutoContinue(), dialect=ANTHROPIC).stream(MESSAGES_ASK)
    got, error = await read(reader)
    assert (error, model.opens, ends(got)) == (None, 1, ["pause_turn"])
    assert not reader.completion.tool_calls[0].complete


async def test_a_paused_turn_that_grew_in_an_unknown_way_is_not_sent_back(clock: FakeClock) -> None:
    odd = message("pause_turn", ({"type": "text", "text": ""}, [{"type": "hologram_delta", "light": 1}]))
    model = Model(says={0: told(odd)})
    got, error = await read(pipe_over(model, clock, AutoContinue(), dialect=ANTHROPIC).stream(MESSAGES_ASK))
    assert (error, model.opens, ends(got)) == (None, 1, ["pause_turn"])


async def test_a_limit_after_a_pause_is_not_asked_on_by_text(clock: FakeClock) -> None:
    model = Model(says={0: told(PAUSED), 1: told(message("max_tokens", words(LONG)))})
    layer = AutoContinue(prompt="Go on.")
    got, error = await read(pipe_over(model, clock, layer, dialect=ANTHROPIC).stream(MESSAGES_ASK))
    assert (error, model.opens, ends(got)) == (None, 2, ["max_tokens"])


async def test_a_paused_turn_that_is_refused_ends_as_it_had(clock: FakeClock) -> None:
    model = Model(says={0: told(PAUSED), 1: refusal(400)})
    reader = pipe_over(model, clock, AutoContinue(), dialect=ANTHROPIC).stream(MESSAGES_ASK)
    got, error = await read(reader)
    assert (error, ends(got), reader.completion.text) == (None, ["pause_turn"], "I will look.")


# -- where it does not go on -------------------------------------------------------------------


async def test_it_goes_on_so_often_and_no_more(clock: FakeClock) -> None:
    model = Model()
    reader = pipe_over(model, clock, AutoContinue(times=2)).stream(ask(12))
    got, error = await read(reader)
    assert error is None
    assert model.opens == 3
    assert ends(got) == ["length"] == [reader.completion.finish_reason]
    assert TEXT.startswith(text(got))
    assert text(got) == reader.completion.text
    assert (str(reader.completion.verdict), len([d for d in got if d.usage])) == ("COMPLETE", 1)


async def test_a_natural_end_is_never_asked_on(clock: FakeClock) -> None:
    for finish in ("stop", "content_filter", "tool_calls", "something new"):
        model = Model(says={0: lambda _, finish=finish: (TOKENS[:20], finish)})
        got, error = await read(pipe_over(model, clock).stream(ask(20)))
        assert (error, model.opens, ends(got)) == (None, 1, [finish])


def raw(*choices: dict[str, Any]) -> Script:
    events = [b"data: " + json.dumps({"id": "one", "choices": [choice]}).encode() + b"\n\n" for choice in choices]
    return Script(*events, b"data: [DONE]\n\n")


LONG = "It was a long answer to "
NOT_TO_BE_CONTINUED: dict[str, tuple[Script, dict[str, Any]]] = {
    "inside a tool call": (
        raw(
            {"index": 0, "delta": {"content": LONG}},
            {
                "index": 0,
                "delta": {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{"}}]},
            },
            {"index": 0, "delta": {}, "finish_reason": "length"},
        ),
        {},
    ),
    "a refusal": (
        raw({"index": 0, "delta": {"refusal": LONG}}, {"index": 0, "delta": {}, "finish_reason": "length"}),
        {},
    ),
    "inside a thought": (
        raw(
            {"index": 0, "delta": {"content": LONG}},
            {"index": 0, "delta": {"reasoning_content": LONG}},
            {"index": 0, "delta": {}, "finish_reason": "length"},
        ),
        {},
    ),
    "two choices": (
        raw(
            {"index": 0, "delta": {"content": LONG}},
            {"index": 1, "delta": {"content": LONG}},
            {"index": 0, "delta": {}, "finish_reason": "length"},
            {"index": 1, "delta": {}, "finish_reason": "length"},
        ),
        {"n": 2},
    ),
    "too short": (
        raw({"index": 0, "delta": {"content": "Kelp is"}}, {"index": 0, "delta": {}, "finish_reason": "length"}),
        {},
    ),
    "inside JSON": (
        raw({"index": 0, "delta": {"content": '{"a": "' + LONG}}, {"index": 0, "delta": {}, "finish_reason": "length"}),
        {"response_format": {"type": "json_object"}},
    ),
}


@pytest.mark.parametrize("what", NOT_TO_BE_CONTINUED)
async def test_what_cannot_be_continued_ends_as_it_ended(what: str, clock: FakeClock) -> None:
    script, more = NOT_TO_BE_CONTINUED[what]
    model = Model(says={0: script})
    reader = pipe_over(model, clock).stream(ask(20, **more))
    got, error = await read(reader)
    assert (error, model.opens, set(ends(got))) == (None, 1, {"length"})
    assert reader.completion.finish_reason == "length"
    assert reader.report.legs == 1


async def test_json_is_continued_where_that_is_asked_for(clock: FakeClock) -> None:
    whole = '{"a": "It was a long answer to you"}'

    def goes_on(request: Request) -> tuple[Sequence[str], str]:
        body: Any = request.body
        return rest_of(whole)(body["messages"][-1]["content"]), "stop"

    model = Model(says={0: NOT_TO_BE_CONTINUED["inside JSON"][0], 1: goes_on})
    pipe = pipe_over(model, clock, AutoContinue(inside_json=True))
    reader = pipe.stream(ask(20, response_format={"type": "json_object"}))
    got, error = await read(reader)
    assert (error, text(got)) == (None, whole)


async def test_without_a_way_to_ask_on_nothing_changes(clock: FakeClock) -> None:
    model = Model()
    got, error = await read(pipe_over(model, clock, dialect=OPENAI).stream(ask(12)))
    assert (error, model.opens, ends(got)) == (None, 1, ["length"])
    assert text(got) == "".join(TOKENS[:12])


async def test_the_budget_of_requests_is_no_error(clock: FakeClock) -> None:
    model = Model()
    got, error = await read(pipe_over(model, clock, max_requests=2).stream(ask(12)))
    assert (error, model.opens, ends(got)) == (None, 2, ["length"])


async def test_a_total_limit_lowers_the_last_leg_and_ends_there(clock: FakeClock) -> None:
    model = Model()
    reader = pipe_over(model, clock, AutoContinue(times=50, max_total_tokens=30)).stream(ask(12))
    got, error = await read(reader)
    assert (error, ends(got)) == (None, ["length"])
    limits = [request.body["max_tokens"] for request in model.requests if isinstance(request.body, dict)]
    assert limits[:2] == [12, 12]
    assert limits[-1] < 12
    assert reader.report.legs == len(limits)
    told = [step.count(b'"content": "') - step.count(b'"content": ""') for s in model.scripts for step in s.steps]
    assert sum(told) <= 30


# -- the model that does not go on -------------------------------------------------------------


@pytest.mark.parametrize("tokens", [("Sure!", " Here", " is the rest."), ("no",), ()], ids=["chat", "other", "nothing"])
@pytest.mark.parametrize("leg", [1, 2])
async def test_a_model_that_does_not_take_up_its_words_adds_nothing(
    leg: int, tokens: Sequence[str], clock: FakeClock
) -> None:
    model = Model(says={leg: lambda _: (tokens, "stop")})
    reader = pipe_over(model, clock).stream(ask(12))
    got, error = await read(reader)
    assert (error, model.opens, ends(got)) == (None, leg + 1, ["length"])
    plain = (
        pipe_over(Model(), clock, AutoContinue(times=leg - 1)) if leg > 1 else pipe_over(Model(), clock, dialect=OPENAI)
    )
    expected = plain.stream(ask(12))
    whole, _ = await read(expected)
    assert text(got) == text(whole) == reader.completion.text
    assert reader.completion == expected.completion
    assert [d.usage for d in got if d.usage] == [reader.report.usage]
    assert reader.report.diverged == 1
    assert reader.report.billed_tokens > expected.report.billed_tokens
    assert not model.live


async def test_a_model_that_says_all_again_is_joined(clock: FakeClock) -> None:
    model = Model(says={1: lambda _: (TOKENS, "stop")})
    reader = pipe_over(model, clock).stream(ask(12))
    got, error = await read(reader)
    assert (error, text(got), reader.completion.text, ends(got)) == (None, TEXT, TEXT, ["stop"])


# -- failures ----------------------------------------------------------------------------------


def refusal(status: int) -> StatusError:
    return StatusError(f"the server answered {status}", head=Head(status=status), retryable=False)


async def test_a_server_that_refuses_to_continue_leaves_the_answer_as_it_was(clock: FakeClock) -> None:
    model = Model(says={1: refusal(400)})
    reader = pipe_over(model, clock).stream(ask(12))
    got, error = await read(reader)
    assert (error, ends(got), text(got)) == (None, ["length"], "".join(TOKENS[:12]))
    assert reader.completion.text == text(got)
    assert reader.report.legs == 1
    assert reader.report.usage is not None
    assert reader.report.billed_tokens == reader.report.usage.total_tokens  # who refuses sends no bill


async def test_a_server_that_refuses_a_prefix_is_asked_by_a_turn(clock: FakeClock) -> None:
    def by_turn(request: Request) -> tuple[Sequence[str], str]:
        body: Any = request.body
        _, said, prompt = body["messages"]
        assert prompt == {"role": "user", "content": "Go on."}
        return rest_of(TEXT)(said["content"]), "stop"

    model = Model(says={1: refusal(400), 2: by_turn})
    reader = pipe_over(model, clock, AutoContinue(prompt="Go on.")).stream(ask(12))
    got, error = await read(reader)
    assert (error, text(got), ends(got)) == (None, TEXT, ["stop"])


async def test_a_provider_without_prefixes_is_asked_by_a_turn(clock: FakeClock) -> None:
    def by_turn(request: Request) -> tuple[Sequence[str], str]:
        body: Any = request.body
        return rest_of(TEXT)(body["messages"][-2]["content"]), "stop"

    reader = pipe_over(Model(says={1: by_turn}), clock, AutoContinue(prompt="Go on."), dialect=OPENAI).stream(ask(12))
    got, error = await read(reader)
    assert (error, text(got), ends(got)) == (None, TEXT, ["stop"])


async def test_a_leg_that_cannot_be_opened_is_an_error_with_the_whole_text(clock: FakeClock) -> None:
    model = Model(says={n: ConnectError("refused") for n in range(1, 5)})
    reader = pipe_over(model, clock).stream(ask(12))
    got, error = await read(reader)
    assert isinstance(error, ConnectError)
    assert text(got) == error.partial.text == "".join(TOKENS[:12])
    assert (ends(got), error.partial.answer.finish_reason) == ([], None)


@pytest.mark.parametrize("leg", [0, 1, 2])
async def test_a_cut_in_any_leg_at_any_event_is_mended_exactly(leg: int, clock: FakeClock) -> None:
    reader = pipe_over(Model(), clock).stream(ask(12))
    true, _ = await read(reader)
    for cut in range(15):
        model = Model(cuts={leg: cut})
        again = pipe_over(model, clock).stream(ask(12))
        got, error = await read(again)
        assert error is None, cut
        assert (text(got), ends(got)) == (TEXT, ["stop"])
        assert again.completion.text == TEXT
        assert again.completion.finish_reason == "stop"
        assert got[-1].usage == true[-1].usage == again.report.usage
        assert again.report.legs == reader.report.legs
        assert not model.live


@pytest.mark.parametrize("second", [1, 2], ids=["of the same leg", "of the next"])
async def test_two_cuts_are_mended_exactly(second: int, clock: FakeClock) -> None:
    for first_cut in range(1, 15, 2):
        for second_cut in range(1, 15, 2):
            model = Model(cuts={0: first_cut, second: second_cut})
            reader = pipe_over(model, clock).stream(ask(12))
            got, error = await read(reader)
            assert error is None
            assert (text(got), ends(got), reader.completion.text) == (TEXT, ["stop"], TEXT)
            assert got[-1].usage == reader.report.usage


async def test_a_key_names_one_leg(clock: FakeClock) -> None:
    """Else a server that keeps answers by key would give the first once more."""

    def by_turn(request: Request) -> tuple[Sequence[str], str]:
        body: Any = request.body
        return rest_of(TEXT)(body["messages"][-2]["content"]), "stop"

    model = Model(says={1: by_turn})
    got, error = await read(pipe_over(model, clock, AutoContinue(prompt="On."), dialect=LLAMA_CPP).stream(ask(12)))
    assert (error, text(got)) == (None, TEXT)
    first, second = (request.headers["X-Conversation-Id"] for request in model.requests)
    assert second == f"{first}-2"


async def test_items_of_somebodys_own_pass_as_they_are(clock: FakeClock) -> None:
    class Texts:
        def feed(self, batch: Sequence[Delta], out: list[str]) -> None:
            out += [delta.text for delta in batch if delta.text]

        def end(self, out: list[str]) -> None: ...

    for dialect in (DEEPSEEK, ANTHROPIC):
        model = Model(says={0: told(message("max_tokens", words(LONG)))}) if dialect is ANTHROPIC else Model()
        deltas = Pipe(model, clock=clock) | parse_sse() | verify(dialect) | Retry() | Reconnect()
        async with (deltas | transform(lambda _: Texts()) | AutoContinue()).stream(ask(12)) as texts:
            got = [item async for item in texts]
        assert LONG.startswith("".join(got)) or TEXT.startswith("".join(got))
        assert (model.opens, str(texts.report.verdict)) == (1, "COMPLETE")


async def test_a_digest_cannot_be_continued(clock: FakeClock) -> None:
    model = Model()
    got, error = await read(pipe_over(model, clock).stream(ask(12), keep=False))
    assert (error, model.opens, ends(got)) == (None, 1, ["length"])


@pytest.mark.parametrize("cut", [3, 5, 9, 12])
async def test_a_leg_that_stays_broken_leaves_a_partial_that_another_process_goes_on_from(
    cut: int, clock: FakeClock
) -> None:
    model = Model(cuts={1: cut}, says={n: refusal(403) for n in range(2, 40)})
    reader = pipe_over(model, clock).stream(ask(12))
    got, error = await read(reader)
    assert error is not None
    assert error.partial.text == text(got)
    assert TEXT.startswith(text(got))
    assert len(text(got)) >= len("".join(TOKENS[:12]))
    assert ends(got) == []
    partial = Partial.from_json(error.partial.to_json())
    pipe = pipe_over(Model(), clock, seams=Seams.of(True))
    resumed = pipe.stream(replace(ask(None), body=partial.request), resume=partial)
    more, failed = await read(resumed)
    assert failed is None
    assert text(got) + text(more) == TEXT == resumed.completion.text
    assert resumed.completion.finish_reason == "stop"


# -- the contract ------------------------------------------------------------------------------


async def test_it_obeys_the_contract_where_nothing_is_to_be_continued() -> None:
    await check_layer(AutoContinue(), items=[Delta(Event(), text=word) for word in ("Kelp ", "holds ", "on.")])


async def test_it_obeys_the_contract_over_legs(clock: FakeClock) -> None:
    models: list[Model] = []

    def source() -> Source[Delta]:
        models.append(Model(wait=0.1, size=4))
        layers: list[Any] = [parse_sse(), verify(DEEPSEEK), Retry(), Reconnect(), AutoContinue(times=50)]
        made: Any = models[-1]
        for layer in layers:
            made = layer(made)
        return cast("Source[Delta]", made)

    await check_source(
        source, request=ask(30), fails=False, clock=clock, opened=lambda: sum(len(model.live) for model in models)
    )
    assert models[0].opens > 1


async def test_a_reader_that_polls_loses_nothing_between_two_legs(clock: FakeClock) -> None:
    true, _ = await read(pipe_over(Model(wait=1.0), clock).stream(ask(30)))
    for ticks in range(60):
        model = Model(wait=1.0)
        reader = pipe_over(model, clock).stream(ask(30))
        got: list[Delta] = []
        async with reader:
            polls = 0
            while True:
                task = asyncio.ensure_future(anext(reader, None))
                for _ in range(ticks if polls == 0 or polls % 7 else 0):
                    await asyncio.sleep(0)
                polls += 1
                if polls > 3:
                    delta = await task
                else:
                    task.cancel()
                    try:
                        delta = await task
                    except asyncio.CancelledError:
                        continue
                if delta is None:
                    break
                got.append(delta)
        assert [(d.text, d.finish_reason, d.usage) for d in got] == [(d.text, d.finish_reason, d.usage) for d in true]
        assert reader.completion.text == TEXT
        assert not model.live


@pytest.mark.parametrize("seconds", [0.5, 1.5, 2.5, 3.5])
async def test_a_reader_that_is_cancelled_between_two_legs_goes_on_or_leaves_nothing_open(
    seconds: float, clock: FakeClock
) -> None:
    undisturbed, model = Model(), Model(wait=1.0)
    await read(pipe_over(undisturbed, clock).stream(ask(10)))
    reader = pipe_over(model, clock).stream(ask(10))
    got: list[Delta] = []

    async def consume() -> None:
        async for delta in reader:
            got.append(delta)  # noqa: PERF401 - what came before the cancellation counts

    async with reader:
        task = asyncio.ensure_future(consume())
        await clock.sleep(seconds)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await consume()
    assert (text(got), model.opens) == (TEXT, undisturbed.opens)  # no request was sent again
    left = Model(wait=1.0)
    reader = pipe_over(left, clock).stream(ask(10))
    async with reader:
        task = asyncio.ensure_future(consume())
        await clock.sleep(seconds)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert not left.live


async def test_the_total_clock_runs_over_all_legs(clock: FakeClock) -> None:
    reader = pipe_over(Model(wait=10.0), clock, total=25.0).stream(ask(12))
    got, error = await read(reader)
    assert isinstance(error, DeadlineExceeded)
    assert error.partial.text == text(got)
    assert reader.report.legs == 2


async def test_a_closed_stream_stays_closed(clock: FakeClock) -> None:
    model = Model(wait=1.0)
    reader = pipe_over(model, clock).stream(ask(20))
    async with reader:
        async for delta in reader:
            if delta.text:
                break
        waiting = asyncio.ensure_future(consume_all(reader))
        await clock.sleep(0.5)
        await reader.cancel()
        await waiting
    assert not model.live


async def consume_all(reader: Reader[Delta]) -> None:
    async for _ in reader:
        pass


# -- settings ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"times": 0}, r"AutoContinue\(times=...\) must be a whole number from 1, not 0"),
        ({"times": "3"}, r"AutoContinue\(times=...\) must be a whole number from 1, not '3'"),
        ({"inside_json": "no"}, r"AutoContinue\(inside_json=...\) must be True or False, not 'no'"),
        ({"prompt": " "}, r"AutoContinue\(prompt=...\) must say something or be None, not ' '"),
        ({"max_total_tokens": 0}, r"AutoContinue\(max_total_tokens=...\) must be a whole number from 1 or None, not 0"),
    ],
)
def test_a_setting_that_cannot_be_is_named(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        AutoContinue(**settings)


def test_an_order_that_cannot_work_is_told() -> None:
    drawn = str(Pipe(Puppet()) | parse_sse() | verify(ANTHROPIC) | AutoContinue() | Retry() | Reconnect())
    assert "! Retry belongs left of AutoContinue" in drawn
    assert "! Reconnect belongs left of AutoContinue" in drawn


@pytest.mark.parametrize(
    ("body", "key", "asked"),
    [
        ({"input": "Why?"}, "input", [("user", "Why?"), ("assistant", "Because"), ("user", "On.")]),
        (
            {"contents": [{"role": "user", "parts": [{"text": "Why?"}]}]},
            "contents",
            [("user", [{"text": "Why?"}]), ("model", [{"text": "Because"}]), ("user", [{"text": "On."}])],
        ),
    ],
)
def test_a_turn_speaks_the_shape_of_the_request(body: dict[str, Any], key: str, asked: list[tuple[str, Any]]) -> None:
    made = another_turn(Request(body=body), Said(text="Because"), "On.")
    assert made is not None
    assert isinstance(made.body, dict)
    assert [(turn["role"], turn.get("content", turn.get("parts"))) for turn in made.body[key]] == asked


@pytest.mark.parametrize(
    "body",
    [None, b"{}", {}, {"messages": []}, {"messages": "Why?"}, {"messages": [{"role": "assistant", "content": "I"}]}],
)
def test_a_request_that_is_no_conversation_is_not_asked_on(body: Any) -> None:
    assert another_turn(Request(body=body), Said(text="Because"), "On.") is None
