"""The rungs that a dialect brings, and going on in another process: exact, seamed and said so, or a typed error."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from holdfast._errors import ConnectError, NotAStream, StatusError, StreamBroken, StreamError, UsageError
from holdfast._pipe import Pipe
from holdfast._types import Delta, Head, Partial, Request
from holdfast.dialects import Dialect
from holdfast.layers.parse import parse_sse
from holdfast.layers.reconnect import Reconnect
from holdfast.layers.retry import Retry
from holdfast.layers.verify import verify
from holdfast.machines.ladder import RUNGS, Seams
from holdfast.testing import FakeClock
from tests.layers.test_reconnect import answer, chunk, read, says, wire
from tests.puppet import Puppet, PuppetStream, Script

WORDS = ("Along", " the", " coast", " a", " tide", " pulls", ",", " the", " kelp", " bends", " and", " holds", ".")
TEXT = "".join(WORDS)
BODY = {"model": "m", "messages": [{"role": "user", "content": "Go on."}], "max_tokens": 100}
USAGE = {"prompt_tokens": 7, "completion_tokens": 10, "total_tokens": 17}


def story(words: Sequence[str] = WORDS, id_: str = "one", usage: dict[str, int] | None = None) -> list[str]:
    return [
        chunk(id_, says(role="assistant", content="")),
        *(chunk(id_, says(content=word)) for word in words),
        chunk(id_, says(finish="stop")),
        chunk(id_, usage=usage or USAGE),
        "[DONE]",
    ]


Reply = Sequence[Any]  # bytes, and what is raised behind them


class Upstream(Puppet):
    """Answers each request as `handler(request, turn)` says, and keeps the requests."""

    def __init__(self, handler: Callable[[Request, int], Reply]) -> None:
        super().__init__()
        self.handler = handler
        self.asked: list[Request] = []

    async def open(self, request: Request) -> PuppetStream:
        self.asked.append(request)
        self.scripts.append(Script(*self.handler(request, len(self.asked))))
        return await super().open(request)


def cut(events: Sequence[bytes], after: int) -> Reply:
    return [*events[:after], StreamBroken("reset")]


def refused(status: int) -> StreamError:
    return StatusError("refused", head=Head(status=status), retryable=False)


def pipe_of(server: Upstream, clock: FakeClock, dialect: str | Dialect, seams: Seams | None = None) -> Pipe[Delta]:
    layer = Reconnect(seams=seams or Seams())
    return Pipe(server, clock=clock, max_requests=12) | parse_sse() | verify(dialect) | Retry() | layer


def said(got: Sequence[Delta]) -> str:
    return "".join(delta.text for delta in got)


# -- the cursor ----------------------------------------------------------------------------------


def offsets(events: Sequence[bytes], places: Sequence[int]) -> Callable[[Request, int], Reply]:
    """A llama.cpp that keeps its body: breaks off after `places[n]` of its bytes, and goes on where it is asked to."""
    whole = b"".join(events)

    def handler(request: Request, turn: int) -> Reply:
        begin = int(request.url.rpartition("&from=")[2]) if request.method == "GET" else 0
        if turn <= len(places):
            end = places[turn - 1]
            return [whole[begin : max(begin, end)], StreamBroken("reset")]
        return [whole[begin:]]

    return handler


@pytest.mark.parametrize("at", range(80, len(b"".join(wire(answer()))) - 1, 7))
async def test_a_body_that_is_kept_is_gone_on_at_its_byte(at: int, clock: FakeClock) -> None:
    server = Upstream(offsets(wire(answer()), [at]))
    reader = pipe_of(server, clock, "llama.cpp").stream(Request(url="http://h/v1/chat/completions", body=BODY))
    got, error = await read(reader)
    assert error is None
    assert said(got) == "Hölzerne ne "
    assert [c.input for c in reader.completion.tool_calls] == [{"a": 1}]
    assert reader.completion.usage is not None
    if len(server.asked) > 1:
        assert [(seam.rung, seam.guarantee) for seam in reader.report.seams] == [("cursor", "exact")]
        assert "conv_id=holdfast-" in server.asked[1].url
        assert server.asked[1].body is None


async def test_two_cuts_count_bytes_over_all_attempts(clock: FakeClock) -> None:
    events = wire(story())
    ends = [len(b"".join(events[:n])) for n in range(2, 9)]
    for first in ends:
        for second in [e for e in ends if e >= first]:
            server = Upstream(offsets(events, [first, second]))
            request = Request(url="http://h/v1/chat/completions", body=BODY)
            got, error = await read(pipe_of(server, clock, "llama.cpp").stream(request))
            assert error is None
            assert said(got) == TEXT


@pytest.mark.parametrize("added", [b": ping\n\n", b"x" * 30 + b"\n", b"data: {}\n\n"])
async def test_bytes_that_the_server_does_not_know_cost_no_word(added: bytes, clock: FakeClock) -> None:
    events = wire(story())
    for after in range(2, 11):

        def handler(request: Request, turn: int, after: int = after) -> Reply:
            if turn == 1:
                return cut([events[0] + added, *events[1:]], after)
            return offsets(events, [])(request, turn)

        reader = pipe_of(Upstream(handler), clock, "llama.cpp").stream(
            Request(url="http://h/v1/chat/completions", body=BODY)
        )
        got, error = await read(reader)
        assert error is None
        assert said(got) == TEXT
        if after > 3:  # until then what was added stands before the event that is asked for again
            assert [seam.rung for seam in reader.report.seams] == ["replay"]


async def test_a_cursor_that_is_refused_leads_to_a_replay(clock: FakeClock) -> None:
    def handler(request: Request, turn: int) -> Reply:
        if request.method == "GET":
            return [refused(404)]
        return cut(wire(story()), 5) if turn == 1 else wire(story())

    reader = pipe_of(Upstream(handler), clock, "llama.cpp").stream(
        Request(url="http://h/v1/chat/completions", body=BODY)
    )
    got, error = await read(reader)
    assert error is None
    assert said(got) == TEXT
    assert [seam.rung for seam in reader.report.seams] == ["replay"]


async def test_an_answer_that_nobody_reads_any_more_is_cancelled_upstream(clock: FakeClock) -> None:
    server = Upstream(lambda _r, turn: [*wire(story())[:4], "hang"] if turn == 1 else [b""])
    server.handler = lambda request, _turn: [b""] if request.method == "DELETE" else wire(story())[:4]
    reader = pipe_of(server, clock, "llama.cpp").stream(Request(url="http://h/v1/chat/completions", body=BODY))
    async with reader:
        async for delta in reader:
            if delta.text:
                break
    assert [request.method for request in server.asked] == ["POST", "DELETE"]
    assert reader.report.outcome == "cancelled"
    assert reader.partial.text.startswith("Along")


async def test_an_answer_that_ended_or_broke_is_not_cancelled(clock: FakeClock) -> None:
    whole = Upstream(lambda _request, _turn: wire(story()))
    await read(pipe_of(whole, clock, "llama.cpp").stream(Request(url="http://h/v1/chat/completions", body=BODY)))
    assert [request.method for request in whole.asked] == ["POST"]
    broken = Upstream(lambda _request, _turn: cut(wire(story()), 4))
    reader = pipe_of(broken, clock, "llama.cpp", Seams(rungs=())).stream(
        Request(url="http://h/v1/chat/completions", body=BODY)
    )
    _, error = await read(reader)
    assert isinstance(error, StreamBroken)  # its reader may want to go on, here or elsewhere
    assert [request.method for request in broken.asked] == ["POST"]


# -- the prefix ----------------------------------------------------------------------------------


def continuing(
    *places: int, echo: bool = False, text: str = TEXT, other: Sequence[str] = ()
) -> Callable[[Request, int], Reply]:
    """A vLLM that goes on from a prefix of its text; each plain answer says `other` words, so that no replay agrees."""

    def handler(request: Request, turn: int) -> Reply:
        assert isinstance(request.body, dict)
        last = request.body["messages"][-1]
        words: Sequence[str] = other or WORDS
        usage = USAGE
        if last["role"] == "assistant":
            assert request.body["continue_final_message"] is True
            assert text.startswith(last["content"])
            rest = text if echo else text[len(last["content"]) :]
            words = [rest[i : i + 5] for i in range(0, len(rest), 5)]
            usage = {"prompt_tokens": 12, "completion_tokens": len(words), "total_tokens": 12 + len(words)}
        elif turn == 1:
            words = WORDS
        events = wire(story(words, f"id{turn}", usage))
        return cut(events, places[turn - 1]) if turn <= len(places) else events

    return handler


SEAMED = Seams(rungs=RUNGS)
VLLM = Request(url="http://h/v1/chat/completions", body=BODY)


@pytest.mark.parametrize("echo", [False, True])
@pytest.mark.parametrize("after", range(2, len(WORDS) + 2))
async def test_a_model_goes_on_from_its_own_words(after: int, echo: bool, clock: FakeClock) -> None:  # noqa: FBT001
    server = Upstream(continuing(after, echo=echo, other=["No", "thing", "."]))
    reader = pipe_of(server, clock, "vllm", SEAMED).stream(VLLM)
    got, error = await read(reader)
    if error is not None:  # too little had been said to go on from
        assert after < 6
        assert TEXT.startswith(said(got))
        return
    assert said(got) == TEXT
    assert reader.completion.text == TEXT
    assert str(reader.report.verdict) == "RESUMED (1 seam, seamed)"
    assert [(seam.rung, seam.guarantee) for seam in reader.report.seams] == [("prefix", "seamed")]
    usage = reader.completion.usage
    assert usage is not None
    assert usage.estimated
    assert (usage.total_tokens or 0) == (usage.input_tokens or 0) + (usage.output_tokens or 0)
    assert sum(d.finish_reason is not None for d in got) == 1
    assert [d.usage for d in got if d.usage] == [usage]
    assert reader.report.billed_tokens > (usage.total_tokens or 0)
    body = server.asked[-1].body
    assert isinstance(body, dict)
    assert body["max_tokens"] < 100


async def test_two_seams_in_one_answer(clock: FakeClock) -> None:
    server = Upstream(continuing(6, 99, 4, other=["No"]))
    reader = pipe_of(server, clock, "vllm", SEAMED).stream(VLLM)
    got, error = await read(reader)
    assert error is None
    assert said(got) == TEXT
    assert len(reader.report.seams) == 2
    bodies = [request.body for request in server.asked]
    assert [body["messages"][-1]["role"] for body in bodies if isinstance(body, dict)] == [
        "user",
        "user",
        "assistant",
        "assistant",
    ]


async def test_without_leave_a_model_is_not_asked_to_go_on(clock: FakeClock) -> None:
    server = Upstream(continuing(6, other=["No"]))
    got, error = await read(pipe_of(server, clock, "vllm").stream(VLLM))
    assert isinstance(error, StreamBroken)
    assert error.partial.text == said(got)
    assert TEXT.startswith(said(got))


async def test_a_model_that_says_something_else_is_not_believed(clock: FakeClock) -> None:
    def handler(request: Request, turn: int) -> Reply:
        return cut(wire(story()), 6) if turn == 1 else wire(story([" Nothing", " of", " this"], f"x{turn}"))

    server = Upstream(handler)
    reader = pipe_of(server, clock, "vllm", Seams(rungs=("prefix",), max_barren=3)).stream(VLLM)
    got, error = await read(reader)
    assert isinstance(error, StreamBroken)
    assert "differs" in str(error)
    assert len(server.asked) <= 4
    assert TEXT.startswith(said(got))
    assert reader.report.diverged >= 1


async def test_a_model_that_takes_no_prefix_is_remembered(clock: FakeClock) -> None:
    def handler(request: Request, turn: int) -> Reply:
        assert isinstance(request.body, dict)
        if request.body["messages"][-1]["role"] == "assistant":
            return [refused(400)]
        return cut(wire(story()), 6)

    server = Upstream(handler)
    pipe = pipe_of(server, clock, "vllm", Seams(rungs=("prefix",)))
    for requests in (2, 3):
        _, error = await read(pipe.stream(VLLM))
        # What broke is told, and not that a rung was refused: the request was right.
        assert isinstance(error, StreamBroken)
        assert error.retryable
        assert len(server.asked) == requests
        assert any("prefix" in note for note in error.__notes__)


@pytest.mark.parametrize("wanted", [{"response_format": {"type": "json_object"}}, {"n": 2}])
async def test_what_cannot_be_continued_is_not(wanted: dict[str, Any], clock: FakeClock) -> None:
    server = Upstream(continuing(6, other=["No"]))
    _, error = await read(
        pipe_of(server, clock, "vllm", Seams(rungs=("prefix",))).stream(replace(VLLM, body={**BODY, **wanted}))
    )
    assert isinstance(error, StreamBroken)
    assert len(server.asked) == 1


async def test_a_tool_call_is_never_continued(clock: FakeClock) -> None:
    server = Upstream(lambda _request, _turn: cut(wire(answer()), 9))
    _, error = await read(pipe_of(server, clock, "vllm", Seams(rungs=("prefix",))).stream(VLLM))
    assert isinstance(error, StreamBroken)
    assert len(server.asked) == 1


async def test_on_divergence_raise_stops_at_the_first_answer_that_differs(clock: FakeClock) -> None:
    server = Upstream(continuing(6, other=["No"]))
    policy = Seams(rungs=RUNGS, on_divergence="raise")
    _, error = await read(pipe_of(server, clock, "vllm", policy).stream(VLLM))
    assert isinstance(error, StreamBroken)
    assert len(server.asked) == 2


# -- in another process --------------------------------------------------------------------------


async def broken_off(server: Upstream, clock: FakeClock, dialect: str, *, keep: bool = True) -> tuple[Partial, str]:
    """Reads to the break without a rung to climb, and carries what is left through JSON."""
    reader = pipe_of(server, clock, dialect, Seams(rungs=())).stream(VLLM, keep=keep)
    got, error = await read(reader)
    assert isinstance(error, StreamBroken)
    return Partial.from_json(error.partial.to_json()), said(got)


@pytest.mark.parametrize("rung", ["last-event-id", "cursor", "replay", "prefix"])
async def test_another_process_goes_on(rung: str, clock: FakeClock) -> None:
    dialect = {"cursor": "llama.cpp", "prefix": "vllm"}.get(rung, "openai")
    events = wire(story(), ids=rung == "last-event-id", first=1)
    for after in range(6, len(events) - 2):
        first = Upstream(lambda _request, _turn, after=after: cut(events, after))  # type: ignore[misc]
        partial, before = await broken_off(first, clock, dialect)

        def handler(request: Request, turn: int) -> Reply:
            if rung == "last-event-id":
                return events[int(request.headers["Last-Event-ID"]) :]
            if rung == "cursor":
                return offsets(events, [])(request, turn)
            return continuing()(request, turn) if rung == "prefix" else events

        second = Upstream(handler)
        seams = Seams(rungs=(rung,))  # type: ignore[arg-type]  # one of them
        reader = pipe_of(second, clock, dialect, seams).stream(VLLM, resume=partial)
        got, error = await read(reader)
        assert error is None, (after, error)
        assert before + said(got) == TEXT
        assert reader.completion.text == TEXT
        assert reader.completion.finish_reason == "stop"
        assert sum(d.finish_reason is not None for d in got) <= 1
        assert [seam.rung for seam in reader.report.seams] == [rung]


async def test_what_was_not_kept_is_resumed_by_its_digests(clock: FakeClock) -> None:
    words = [f"{n:05d} " for n in range(3_000)]
    events = wire(story(words))
    partial, before = await broken_off(Upstream(lambda _r, _t: cut(events, 2_500)), clock, "openai", keep=False)
    assert partial.text == ""
    assert len(partial.to_json()) < 4_096 + 5_000
    reader = pipe_of(Upstream(lambda _r, _t: events), clock, "openai").stream(VLLM, resume=partial, keep=False)
    got, error = await read(reader)
    assert error is None
    assert before + said(got) == "".join(words)


@pytest.mark.parametrize(
    ("seams", "requests", "why"),
    [
        (Seams(), 1, "max_requests"),
        (Seams(max_barren=1), 9, "max_barren"),
        (Seams(max_seams=0), 9, "max_seams"),
        (Seams(max_repaid_tokens=0), 9, "replay: it would cost too much"),
        (Seams(rungs=("cursor",)), 9, "cursor: not to be had here"),
        (Seams(rungs=()), 9, "no rung is allowed"),
    ],
)
async def test_the_error_says_why_it_was_not_resumed(seams: Seams, requests: int, why: str, clock: FakeClock) -> None:
    server = Upstream(lambda _r, _t: cut(wire(story()), 5))
    pipe = Pipe(server, clock=clock, max_requests=requests) | parse_sse() | verify("openai") | Reconnect(seams=seams)
    _, error = await read(pipe.stream(VLLM))
    assert isinstance(error, StreamBroken)
    assert any(why in note for note in error.__notes__), error.__notes__


async def test_who_takes_an_answer_up_does_not_wait_and_meets_no_fault(clock: FakeClock) -> None:
    partial, _ = await broken_off(Upstream(lambda _r, _t: cut(wire(story()), 5)), clock, "openai")
    before = clock.now()
    reader = pipe_of(Upstream(lambda _r, _t: wire(story())), clock, "openai").stream(VLLM, resume=partial)
    _, error = await read(reader)
    assert error is None
    assert clock.now() == before
    assert reader.report.faults == []
    assert [seam.gap for seam in reader.report.seams] == [0.0]


async def test_a_partial_that_nothing_resumes_raises_at_once(clock: FakeClock) -> None:
    partial, _ = await broken_off(Upstream(lambda _r, _t: cut(wire(story()), 5)), clock, "openai")
    server = Upstream(lambda _r, _t: wire(story(["No"])))
    _, error = await read(pipe_of(server, clock, "openai").stream(VLLM, resume=partial))
    assert isinstance(error, StreamBroken)
    assert error.partial.text == partial.text
    none = Upstream(lambda _r, _t: [NotAStream("page", retryable=False)])
    _, error = await read(pipe_of(none, clock, "openai", Seams(rungs=())).stream(VLLM, resume=partial))
    assert isinstance(error, StreamBroken)
    assert not none.asked


async def test_a_partial_is_resumed_again_when_it_breaks_again(clock: FakeClock) -> None:
    events = wire(story())
    partial, text = await broken_off(Upstream(lambda _r, _t: cut(events, 4)), clock, "openai")
    for after in (6, 8):
        server = Upstream(lambda _r, turn, after=after: cut(events, after if turn == 1 else 0))  # type: ignore[misc]
        got, error = await read(pipe_of(server, clock, "openai", Seams(max_barren=1)).stream(VLLM, resume=partial))
        assert error is not None
        text += said(got)
        partial = Partial.from_json(error.partial.to_json())
        assert partial.text == text
    got, error = await read(pipe_of(Upstream(lambda _r, _t: events), clock, "openai").stream(VLLM, resume=partial))
    assert error is None
    assert text + said(got) == TEXT


@pytest.mark.parametrize(
    "state", [{}, {"call": 1}, {"call": "x", "seamed": False, "cursor": {}, "answer": {}, "evidence": {"n": 1}}]
)
async def test_a_partial_that_is_none_is_refused(state: dict[str, Any], clock: FakeClock) -> None:
    pipe = pipe_of(Upstream(lambda _r, _t: []), clock, "openai")
    with pytest.raises(UsageError, match="cannot be resumed"):
        pipe.stream(VLLM, resume=Partial(dialect="openai", request=BODY, state=state))
    with pytest.raises(UsageError, match="is of 'vllm'"):
        pipe.stream(VLLM, resume=Partial(dialect="vllm", request=BODY, state=state))


@pytest.mark.parametrize(
    "changed",
    [
        {"segments": [["text", -5]]},
        {"segments": [["text", 10**9]]},
        {"segments": [["text", 10**9, [], ""]]},
        {"segments": [["text", -3, [], "abc"]]},
        {"tokens": "many"},
        {"place": 5},
        {"offset": "5"},
        {"proof": None},
    ],
    ids=str,
)
async def test_a_partial_that_was_changed_on_its_way_is_refused(changed: dict[str, Any], clock: FakeClock) -> None:
    partial, _ = await broken_off(Upstream(lambda _r, _t: cut(wire(story()), 6)), clock, "llama.cpp")
    state = json.loads(json.dumps(dict(partial.state)))
    for place in (state, state["answer"], state["answer"]["choices"]["0"]):
        place |= {name: value for name, value in changed.items() if name in place}
    assert state != partial.state
    with pytest.raises(UsageError, match="cannot be resumed"):
        pipe_of(Upstream(lambda _r, _t: []), clock, "llama.cpp").stream(VLLM, resume=replace(partial, state=state))


@pytest.mark.parametrize("last", [7, "x" * 2_000, "7\r\nX-Other: 1"], ids=["number", "long", "lines"])
async def test_a_place_that_was_changed_on_its_way_sends_no_header_of_its_own(last: object, clock: FakeClock) -> None:
    events = wire(story(), ids=True, first=1)
    partial, before = await broken_off(Upstream(lambda _r, _t: cut(events, 6)), clock, "openai")
    cursor = {"last_event_id": last, "group": 10**12, "bearer": True}
    second = Upstream(lambda _r, _t: wire(story()))
    changed = replace(partial, state={**partial.state, "cursor": cursor})
    got, error = await read(pipe_of(second, clock, "openai").stream(VLLM, resume=changed))
    assert error is None
    assert before + said(got) == TEXT
    assert "Last-Event-ID" not in second.asked[0].headers


def test_what_is_nested_without_end_is_no_partial() -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        Partial.from_json(b'{"request":{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}}")


def test_a_pipe_that_cannot_resume_says_so(clock: FakeClock) -> None:
    bare = Pipe(Upstream(lambda _r, _t: []), clock=clock) | parse_sse() | verify("openai")
    with pytest.raises(UsageError, match="Reconnect"):
        bare.stream(VLLM, resume=Partial(dialect="openai"))


def test_a_partial_is_plain_json_and_holds_its_request() -> None:
    partial = Partial(dialect="openai", url="http://h", request=BODY)
    assert json.loads(partial.to_json())["request"] == BODY


# -- what an attempt proved ----------------------------------------------------------------------


def numbered(*payloads: dict[str, Any]) -> list[bytes]:
    """A background response's events, each with its number."""
    told = [json.dumps({**p, "sequence_number": n}, separators=(",", ":")) for n, p in enumerate(payloads)]
    return [f"event: {p['type']}\ndata: {data}\n\n".encode() for p, data in zip(payloads, told, strict=True)]


async def test_a_continuation_that_brought_nothing_new_has_still_been_read(clock: FakeClock) -> None:
    over = {"id": "resp_1", "status": "completed", "output": [], "usage": {"input_tokens": 1, "output_tokens": 1}}
    where = {"item_id": "m", "output_index": 0, "content_index": 0}
    events = numbered(
        {"type": "response.created", "response": {"id": "resp_1", "status": "queued"}},
        {"type": "response.queued", "response": {"id": "resp_1", "status": "queued"}},
        {"type": "response.in_progress", "response": {"id": "resp_1", "status": "in_progress"}},
        {"type": "response.output_text.delta", **where, "delta": "hold"},
        {"type": "response.completed", "response": over},
    )
    server = Upstream(lambda _request, turn: cut(events[turn - 1 :], 1) if turn < 4 else events[turn - 1 :])
    asked = Request(url="http://h/v1/responses", body={"model": "m", "input": "Go on.", "background": True})
    reader = pipe_of(server, clock, "openai-responses").stream(asked)
    got, error = await read(reader)
    assert error is None, error
    assert said(got) == "hold"
    assert [request.url.rpartition("=")[2] for request in server.asked[1:]] == ["0", "1", "2"]


async def test_what_another_answer_proved_is_no_part_of_a_partial(clock: FakeClock) -> None:
    other = [b"".join(wire(story(["Along", " but", " no", " further", "."])))]  # its end comes with what differs
    server = Upstream(lambda _request, turn: cut(wire(story()), 5) if turn == 1 else other)
    reader = pipe_of(server, clock, "openai").stream(VLLM)
    got, error = await read(reader)
    assert isinstance(error, StreamBroken)
    assert error.partial.answer.finish_reason is None
    assert error.partial.answer.usage is None
    partial = Partial.from_json(error.partial.to_json())
    second = pipe_of(Upstream(lambda _request, _turn: wire(story())), clock, "openai").stream(VLLM, resume=partial)
    rest, error = await read(second)
    assert error is None
    assert said(got) + said(rest) == second.completion.text == TEXT


async def test_an_attempt_that_went_wrong_leaves_nothing_to_the_one_in_its_place(clock: FakeClock) -> None:
    call = {"type": "function_call", "id": "f", "call_id": "c", "name": "tide"}
    over = {"id": "resp_1", "status": "completed", "output": [{**call, "arguments": "{}"}], "usage": {}}
    plain = numbered(
        {"type": "response.created", "response": {"id": "resp_1", "status": "in_progress"}},
        {"type": "response.output_item.added", "output_index": 0, "item": {**call, "arguments": ""}},
        {"type": "response.function_call_arguments.delta", "item_id": "f", "output_index": 0, "delta": "{}"},
        {"type": "response.completed", "response": over},
    )
    events = [event.replace(b"\ndata", b"\nid: %d\ndata" % n) for n, event in enumerate(plain)]
    contradicts = events[2].replace(b'"{}"', b'"[]"')
    replies = [cut(events, 3), [contradicts], events[3:]]
    server = Upstream(lambda _request, turn: replies[turn - 1])
    reader = pipe_of(server, clock, "openai-responses").stream(
        Request(url="http://h/v1/responses", body={"input": "Go on."})
    )
    _, error = await read(reader)
    assert error is None
    assert reader.completion.finish_reason == "tool_calls"  # which the calls before the cut say
    assert [call.input for call in reader.completion.tool_calls] == [{}]
    assert len(server.asked) == 3


# -- what is sent once ---------------------------------------------------------------------------

ACTS = {**BODY, "mcp_servers": [{"type": "url", "url": "https://pay.test", "name": "pay"}]}


def asking(body: dict[str, Any]) -> Request:
    return Request(url="http://h/v1/chat/completions", body=body)


@pytest.mark.parametrize("begun", [0, 5])
async def test_a_request_that_changes_something_is_not_sent_again_once_its_head_has_come(
    clock: FakeClock, begun: int
) -> None:
    events = wire(story())
    server = Upstream(lambda _request, turn: cut(events, begun) if turn == 1 else events)
    _, error = await read(pipe_of(server, clock, "deepseek", Seams(rungs=RUNGS)).stream(asking(ACTS)))
    assert isinstance(error, StreamBroken)
    assert len(server.asked) == 1
    if begun:
        assert "the request is not sent twice, for its `mcp_servers`" in error.__notes__[0]


async def test_before_its_head_it_is_tried_as_ever(clock: FakeClock) -> None:
    server = Puppet(ConnectError("refused"), Script(*wire(story())))
    reader = (Pipe(server, clock=clock) | parse_sse() | verify("deepseek") | Retry()).stream(asking(ACTS))
    got, error = await read(reader)
    assert (said(got), error, server.opens) == (TEXT, None, 2)


@pytest.mark.parametrize(("body", "requests"), [(BODY, 2), (ACTS, 1)])
async def test_nor_behind_an_event_id_where_that_is_the_same_request(
    clock: FakeClock, body: dict[str, Any], requests: int
) -> None:
    events = wire(story(), ids=True)
    server = Upstream(lambda _request, turn: cut(events, 5) if turn == 1 else events[5:])
    got, error = await read(pipe_of(server, clock, "deepseek").stream(asking(body)))
    assert len(server.asked) == requests
    assert (said(got) == TEXT) is (error is None) is (requests == 2)
