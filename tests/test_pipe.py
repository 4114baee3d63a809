"""The pipe and its reader: the user's edge of a stream."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from holdfast._core import Call
from holdfast._errors import BudgetExhausted, ConnectError, StreamBroken, StreamError, Truncated, UsageError
from holdfast._pipe import Pipe
from holdfast._reader import Reader
from holdfast._types import Delta, Event, Request, Usage
from holdfast.layers.concurrency import Concurrency
from holdfast.layers.parse import parse_sse
from holdfast.layers.reconnect import Reconnect
from holdfast.layers.retry import Retry
from holdfast.layers.verify import verify
from holdfast.machines.concurrency import ConcurrencyLimiter
from holdfast.machines.ladder import Seams
from holdfast.machines.retry_budget import RetryBudget
from holdfast.moments import Billed, BreakerChanged, Delivered, Ended, FirstDelta, Moment, Opened, Opening, Started
from holdfast.testing import FakeClock
from tests.puppet import Puppet, Script, Wait

RAW = Event()
WHOLE = [
    b'data: {"choices":[{"delta":{"role":"assistant"}}]}\n\n',
    b'data: {"choices":[{"delta":{"content":"Hel"}}]}\n\ndata: {"choices":[{"delta":{"content":"lo"}}]}\n\n',
    b'data: {"choices":[{"delta":{},"finish_reason":"stop"}],"usage":{"total_tokens":5}}\n\ndata: [DONE]\n\n',
]


def pipe_over(puppet: Any, clock: FakeClock, **settings: Any) -> Pipe[Delta]:
    return Pipe(puppet, clock=clock, **settings) | parse_sse() | verify("openai")


async def read_all(reader: Reader[Any]) -> list[Any]:
    return [item async for item in reader]


# -- a stream from beginning to end ----------------------------------------------------------------


async def test_a_stream_is_read_to_its_proven_end(clock: FakeClock) -> None:
    puppet = Puppet(WHOLE)
    async with pipe_over(puppet, clock).stream() as deltas:
        assert "".join([d.text async for d in deltas]) == "Hello"
        assert await read_all(deltas) == []
    assert deltas.completion.text == "Hello"
    assert str(deltas.completion.verdict) == "COMPLETE"
    assert deltas.head.status == 200
    assert not puppet.live


async def test_batches_come_as_they_arrive(clock: FakeClock) -> None:
    async with pipe_over(Puppet(WHOLE), clock).stream() as deltas:
        batches = [[d.text for d in batch] async for batch in deltas.batches()]
    assert batches == [[""], ["Hel", "lo"], [""]]


async def test_batches_go_on_where_single_items_stopped(clock: FakeClock) -> None:
    async with Pipe(Puppet([["a", "b", "c"], ["d"]]), clock=clock).stream() as items:
        assert await anext(items) == "a"
        assert [list(batch) async for batch in items.batches()] == [["b", "c"], ["d"]]


async def test_text_is_that_of_the_first_choice(clock: FakeClock) -> None:
    said = [Delta(RAW, text="a"), Delta(RAW, text="x", choice=1), Delta(RAW, reasoning="r"), Delta(RAW, text="b")]
    async with Pipe(Puppet([said]), clock=clock).stream() as deltas:
        assert [text async for text in deltas.text()] == ["a", "b"]


async def test_an_answer_that_was_not_kept_is_never_handed_out_as_a_whole_one(clock: FakeClock) -> None:
    reader = pipe_over(Puppet(WHOLE), clock).stream(keep=False)
    async with reader as deltas:
        await read_all(deltas)
    with pytest.raises(UsageError, match="keep=False"):
        _ = reader.completion
    assert (str(reader.report.verdict), reader.report.finish_reason) == ("COMPLETE", "stop")


# -- failures --------------------------------------------------------------------------------------


async def test_an_error_is_sticky_and_carries_what_arrived(clock: FakeClock) -> None:
    puppet = Puppet([*WHOLE[:2], StreamBroken("reset")])
    request = Request(url="http://upstream/v1", body={"n": 1}, headers={"Authorization": "Bearer secret"})
    async with pipe_over(puppet, clock).stream(request) as deltas:
        with pytest.raises(StreamBroken) as raised:
            await read_all(deltas)
        with pytest.raises(StreamBroken) as again:
            await anext(deltas)
    error = raised.value
    assert again.value is error
    assert error.attempts == 1
    assert error.report is deltas.report
    assert error.partial is not None
    assert (error.partial.text, error.partial.request, error.partial.dialect) == ("Hello", {"n": 1}, "openai")
    assert error.partial.offset == len(b"".join(WHOLE[:2]))
    assert "secret" not in repr(error.partial)
    with pytest.raises(StreamBroken):
        _ = deltas.completion
    assert not puppet.live


async def test_a_failed_open_is_an_error_with_a_report(clock: FakeClock) -> None:
    reader = pipe_over(Puppet(ConnectError("refused")), clock).stream()
    with pytest.raises(ConnectError) as raised:
        await reader.__aenter__()
    assert raised.value.attempts == 1
    assert reader.report.outcome == "ConnectError"
    with pytest.raises(UsageError, match="entered once"):
        await reader.__aenter__()


async def test_a_truncated_answer_never_looks_finished(clock: FakeClock) -> None:
    async with pipe_over(Puppet(WHOLE[:2]), clock).stream() as deltas:
        with pytest.raises(Truncated):
            await read_all(deltas)
    assert deltas.report.verdict is None


# -- closing and cancelling ------------------------------------------------------------------------


async def test_a_stream_closed_before_its_end_is_not_read_on(clock: FakeClock) -> None:
    puppet = Puppet(WHOLE)
    async with pipe_over(puppet, clock).stream() as deltas:
        async for delta in deltas:
            if delta.text:
                break
    with pytest.raises(UsageError, match="closed before its end"):
        await anext(deltas)
    with pytest.raises(UsageError, match="proven end"):
        _ = deltas.completion
    assert deltas.partial.text == "Hello"
    assert deltas.report.cancelled
    assert deltas.report.outcome == "cancelled"
    await deltas.aclose()
    assert puppet.closes == 1


async def test_cancel_from_another_task_ends_the_iteration_and_closes(clock: FakeClock) -> None:
    puppet = Puppet([*WHOLE[:2], Wait()])
    async with pipe_over(puppet, clock).stream() as deltas:
        task = asyncio.create_task(read_all(deltas))
        await clock.settle()
        await deltas.cancel()
        got = await task
        assert "".join(d.text for d in got) == "Hello"
        assert task.cancelling() == 0
        assert not puppet.live
        assert await read_all(deltas) == []
    assert deltas.report.cancelled


async def test_cancel_while_the_head_is_waited_for_leaves_an_empty_stream(clock: FakeClock) -> None:
    for ticks in range(1, 6):
        puppet = Puppet(Script(*WHOLE, opening=(Wait(),)))
        reader = pipe_over(puppet, clock).stream()

        async def consume(reader: Reader[Delta] = reader) -> list[Delta]:
            async with reader as deltas:
                return await read_all(deltas)

        task = asyncio.create_task(consume())
        for _ in range(ticks):
            await asyncio.sleep(0)
        await reader.cancel()
        assert await task == []
        assert not puppet.live
        assert reader.report.cancelled


async def test_cancel_by_the_reader_itself_ends_its_iteration(clock: FakeClock) -> None:
    puppet = Puppet(WHOLE)
    got = []
    async with pipe_over(puppet, clock).stream() as deltas:
        async for delta in deltas:
            got.append(delta)
            await deltas.cancel()
    assert len(got) == 1
    assert not puppet.live


async def test_a_cancellation_from_outside_that_meets_cancel_wins(clock: FakeClock) -> None:
    async with pipe_over(Puppet([Wait()]), clock).stream() as deltas:
        task = asyncio.create_task(read_all(deltas))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        await deltas.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_cancelled_open_leaves_nothing_and_is_told(clock: FakeClock) -> None:
    puppet = Puppet(Script(opening=(Wait(),)))
    reader = pipe_over(puppet, clock).stream()
    task = asyncio.create_task(reader.__aenter__())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not puppet.live
    assert reader.report.cancelled


# -- what the program may not do -------------------------------------------------------------------


async def test_a_second_reader_is_turned_away(clock: FakeClock) -> None:
    async with pipe_over(Puppet([WHOLE[0], Wait(1.0), *WHOLE[1:]]), clock).stream() as deltas:
        await anext(deltas)
        first = asyncio.create_task(read_all(deltas))
        await asyncio.sleep(0)
        with pytest.raises(UsageError, match="a reader already"):
            await anext(deltas)
        assert "".join(d.text for d in await first) == "Hello"


async def test_a_stream_is_entered_first_and_once(clock: FakeClock) -> None:
    reader = pipe_over(Puppet(WHOLE), clock).stream()
    for look in (lambda: reader.head, lambda: reader.completion):
        with pytest.raises(UsageError):
            look()
    with pytest.raises(UsageError, match="enter the stream first"):
        await anext(reader)
    async with reader:
        with pytest.raises(UsageError, match="entered once"):
            await reader.__aenter__()


async def test_requests_are_bounded_over_all_layers(clock: FakeClock) -> None:
    puppet = Puppet([*WHOLE[:2], StreamBroken("reset")], ConnectError("refused"), repeat=True)
    async with (pipe_over(puppet, clock, max_requests=3) | Reconnect(seams=Seams(max_barren=50))).stream() as deltas:
        with pytest.raises(ConnectError) as raised:
            await read_all(deltas)
    assert puppet.opens == raised.value.attempts == 3


async def test_a_spent_call_says_how_to_raise_its_bound(clock: FakeClock) -> None:
    reader = pipe_over(Puppet(WHOLE), clock, max_requests=1).stream()
    reader._call.spend_request(Request())
    with pytest.raises(BudgetExhausted, match="max_requests"):
        await reader.__aenter__()


async def test_streams_that_share_a_retry_budget_send_no_more_again_than_it_allows(clock: FakeClock) -> None:
    budget = RetryBudget(ratio=0, floor=0, burst=4)
    puppet = Puppet(ConnectError("refused"), repeat=True)
    pipe = pipe_over(puppet, clock, retry_budget=budget) | Retry(attempts=4)
    sent = []
    for _ in range(3):
        with pytest.raises(ConnectError, match="refused") as raised:
            await pipe.stream()
        sent.append(raised.value.attempts)
    assert sent == [4, 2, 1]
    assert (budget.first, budget.retries, budget.amplification) == (3, 4, 7 / 3)


async def test_a_broken_stream_says_that_the_retry_budget_kept_it_from_going_on(clock: FakeClock) -> None:
    budget = RetryBudget(ratio=0, floor=0, burst=1)
    budget.withdraw(clock.now())
    puppet = Puppet([*WHOLE[:2], StreamBroken("reset")])
    with pytest.raises(StreamBroken, match="reset") as raised:
        await (pipe_over(puppet, clock, retry_budget=budget) | Reconnect()).stream()
    assert "retry budget" in raised.value.__notes__[0]


async def test_a_fork_spends_what_its_call_may_and_reads_at_a_place_of_its_own(clock: FakeClock) -> None:
    call = Call(clock=clock, max_requests=2)
    call.spend_request(Request(upstream="a"))
    twin = call.fork()
    assert twin.spend_request(Request(upstream="b")).number == 2
    assert [attempt.upstream for attempt in call.attempts] == ["a", "b"]
    assert not call.may_request
    assert twin.cursor is not call.cursor
    assert twin.report is call.report
    call.adopt(twin)
    assert (call.cursor, call.attempt) == (twin.cursor, twin.attempts[1])


async def test_what_a_fork_has_sent_is_asked_for_again_by_its_call(clock: FakeClock) -> None:
    budget = RetryBudget(ratio=0, floor=0, burst=1)
    call = Call(clock=clock, retry_budget=budget)
    call.fork().spend_request(Request())
    assert budget.first == 1
    call.fork().spend_request(Request())
    assert (budget.first, budget.retries, call.may_request) == (1, 1, False)


async def test_what_is_resumed_elsewhere_is_asked_for_again(clock: FakeClock) -> None:
    """Else a stream that breaks and is resumed, over and over, would pay for its own retries."""
    first = RetryBudget(ratio=0, floor=0, burst=1)
    first.withdraw(clock.now())
    puppet = Puppet([*WHOLE[:2], StreamBroken("reset")], WHOLE)
    pipe = pipe_over(puppet, clock, retry_budget=first) | Reconnect()
    with pytest.raises(StreamBroken) as broken:
        await pipe.stream()
    partial = broken.value.partial
    with pytest.raises(StreamError):
        await pipe.stream(resume=partial)
    assert (puppet.opens, first.first) == (1, 1)
    budget = RetryBudget(ratio=0, floor=0, burst=1)
    resumed = pipe_over(puppet, clock, retry_budget=budget) | Reconnect()
    assert (await resumed.stream(resume=partial)).text == "Hello"
    assert (budget.first, budget.retries) == (0, 1)


async def test_a_listener_may_add_to_the_request_before_it_begins(clock: FakeClock) -> None:
    class Tracing:
        def begin(self, request: Request) -> Request:
            return request.with_headers({"traceparent": "00-1-2-01"})

        def __call__(self, moment: Moment) -> None:
            pass

    puppet = Puppet(WHOLE)
    await pipe_over(puppet, clock).stream(listeners=[Tracing()])
    assert puppet.requests[0].headers == {"traceparent": "00-1-2-01"}


async def test_a_listener_that_fails_at_the_beginning_breaks_nothing(clock: FakeClock) -> None:
    class Broken:
        def begin(self, request: Request) -> Request:
            raise RuntimeError("the exporter is gone")

        def __call__(self, moment: Moment) -> None:
            pass

    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, about: complaints.append(about))
    await pipe_over(Puppet(WHOLE), clock).stream(listeners=[Broken()])
    assert [about["message"] for about in complaints] == ["a listener failed at the beginning of a stream"]


async def test_two_tasks_that_enter_at_once_open_one_stream(clock: FakeClock) -> None:
    puppet = Puppet(Script(*WHOLE, opening=(Wait(1.0),)))
    reader = pipe_over(puppet, clock).stream()

    async def use() -> int:
        async with reader as deltas:
            return len([delta async for delta in deltas])

    first, second = await asyncio.gather(use(), use(), return_exceptions=True)
    assert first == 4
    assert isinstance(second, UsageError)
    assert (puppet.opens, puppet.live) == (1, set())


async def test_nothing_is_told_of_a_stream_behind_its_end(clock: FakeClock) -> None:
    """A place that was waited for is told of by the task that waited, and that leaves after the one that closes."""
    heard: list[Moment] = []
    pipe = pipe_over(Puppet(WHOLE, repeat=True), clock) | Concurrency(ConcurrencyLimiter(limit=1))
    async with pipe.stream():
        waiting = pipe.stream(listeners=[heard.append])
        task = asyncio.create_task(waiting.__aenter__())
        await clock.sleep(5.0)
        await waiting.cancel()
        await task
    assert [type(moment) for moment in heard] == [Started, Ended]
    assert (waiting.report.outcome, waiting.report.waited_seconds) == ("cancelled", 5.0)
    waiting._call.note(BreakerChanged(name="theirs", old="closed", new="open"))
    assert type(heard[-1]) is BreakerChanged, "that is not of the stream"


def test_a_pipe_without_a_single_request_is_refused() -> None:
    with pytest.raises(ValueError, match="max_requests must be a whole number from 1, not 0"):
        Pipe(Puppet(), max_requests=0)


# -- the report ------------------------------------------------------------------------------------


async def test_the_report_counts(clock: FakeClock) -> None:
    puppet = Puppet(Script(WHOLE[0], Wait(2.0), WHOLE[1], Wait(3.0), WHOLE[2], opening=(Wait(1.0),)))
    heard: list[Moment] = []
    reader = pipe_over(puppet, clock).stream(
        Request(url="http://upstream/v1"), labels={"team": "a"}, listeners=[heard.append]
    )
    async with reader as deltas:
        await read_all(deltas)
    report = reader.report
    assert (report.attempts, report.retries, report.seams, report.items) == (1, 0, [], 4)
    assert (report.open_seconds, report.first_delta_seconds) == (1.0, 3.0)
    assert (report.longest_gap, report.total_seconds) == (3.0, 6.0)
    assert report.usage == Usage(total_tokens=5, raw={"total_tokens": 5})
    assert (report.billed_tokens, report.billed_estimated) == (5, False)
    assert report.bytes_received == len(b"".join(WHOLE))
    assert (report.url, report.labels, report.finish_reason) == ("http://upstream/v1", {"team": "a"}, "stop")
    assert [type(m) for m in heard] == [Started, Opening, Opened, FirstDelta, Delivered, Billed, Ended]
    assert str(report).startswith("COMPLETE · 1 attempt · 4 deltas · first after 3.000 s")


async def test_what_no_dialect_judged_is_counted_as_items(clock: FakeClock) -> None:
    async with Pipe(Puppet([b"a", b"b"]), clock=clock).stream() as chunks:
        await read_all(chunks)
    assert str(chunks.report).startswith("ended · 1 attempt · 2 items")


async def test_each_stream_of_a_pipe_is_a_call_of_its_own(clock: FakeClock) -> None:
    pipe = pipe_over(Puppet(WHOLE, repeat=True), clock)
    first, second = pipe.stream(), pipe.stream()
    for reader in (first, second):
        async with reader as deltas:
            await read_all(deltas)
    assert first.report.stream_id != second.report.stream_id
    assert first.report.attempts == second.report.attempts == 1


# -- drawing ---------------------------------------------------------------------------------------


def test_a_pipe_draws_its_layers() -> None:
    drawn = str(Pipe(Puppet()) | parse_sse() | verify("openai") | Reconnect(seams=Seams(max_seams=3)))
    lines = drawn.splitlines()
    assert lines[0] == "Pipe(Puppet)"
    assert lines[1] == "  | parse_sse()"
    assert lines[2].startswith("  | ")
    assert "openai" in lines[2]
    assert "Reconnect(" in lines[3]
    assert "max_seams=3" in lines[3]
    assert len(lines) == 4


def test_a_pipe_warns_of_orders_that_cannot_work() -> None:
    events: Any = Pipe(Puppet()) | parse_sse()
    drawn = str(events | Reconnect() | verify("openai"))
    assert "  ! " in drawn
    assert "cannot tell a cut answer from a whole one" in drawn


def test_a_pipe_is_never_changed() -> None:
    base = Pipe(Puppet()) | parse_sse()
    before = str(base)
    _ = base | verify("openai")
    assert str(base) == before


async def test_who_never_began_ends_nothing(clock: FakeClock) -> None:
    """What listens learns in `begin()` whose stream it is: an end without a beginning would be nobody's."""
    heard: list[Moment] = []
    for close in (Reader.aclose, Reader.cancel):
        reader = pipe_over(Puppet(WHOLE), clock).stream(listeners=[heard.append])
        await close(reader)
        assert not heard
        assert reader.report.outcome == "cancelled"
        assert reader.report.closed
        with pytest.raises(UsageError):
            async with reader:
                raise AssertionError("it was opened")
