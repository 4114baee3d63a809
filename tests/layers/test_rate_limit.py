"""RateLimit: within the upstream's limits, first come, first served, and nothing left behind by who goes away."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from holdfast import MemorySource, Pipe, Request, Retry, parse_sse, verify
from holdfast._core import Source
from holdfast._errors import BudgetExhausted, CircuitOpen, StatusError, StreamError, UpstreamError, UsageError
from holdfast._types import Head
from holdfast.layers.rate_limit import RateLimit
from holdfast.machines.rate_limiter import RateLimiter
from holdfast.machines.statuses import status_error
from holdfast.moments import Moment, Waited
from holdfast.testing import FakeClock, cancel_everywhere, check_layer
from tests.layers.limited_upstream import LimitedUpstream
from tests.layers.store import Store
from tests.puppet import Puppet, Script, drain, request_on


def refusal(clock: FakeClock, status: int = 429, body: bytes = b"", **headers: str) -> StatusError:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return status_error(Head(status=status, headers=named), body, clock.wall())


async def ask(source: Source[Any], clock: FakeClock, **settings: Any) -> list[Any]:
    stream = await source.open(request_on(clock, **settings))
    try:
        return await drain(stream)
    finally:
        await stream.aclose()


@pytest.mark.parametrize("limiter", [RateLimiter(), RateLimiter(requests_per_minute=1e9, tokens_per_minute=1e9)])
async def test_it_keeps_the_contract_of_a_stream(limiter: RateLimiter) -> None:
    await check_layer(RateLimit(limiter), items=["a", "b", "c"])


async def test_it_keeps_the_contract_with_others(clock: FakeClock) -> None:
    store = Store(clock=clock)
    await check_layer(RateLimit(RateLimiter(tokens_per_minute=1e9), shared=store), items=["a", "b", "c"])


async def test_callers_leave_in_the_order_they_came(clock: FakeClock) -> None:
    source = RateLimit(RateLimiter(requests_per_minute=60, burst=1))(Puppet(["a"], repeat=True))
    order: list[int] = []

    async def caller(number: int) -> None:
        await clock.sleep(number / 1000)
        await ask(source, clock)
        order.append(number)

    await asyncio.gather(*(caller(number) for number in range(20)))
    assert order == list(range(20))
    assert clock.now() == pytest.approx(19 * 60 / 59, rel=0.01)


async def test_a_caller_who_goes_away_holds_nobody_up(clock: FakeClock) -> None:
    puppet = Puppet(["a"], repeat=True)
    source = RateLimit(RateLimiter(requests_per_minute=60, burst=1))(puppet)
    tasks = [asyncio.create_task(ask(source, clock)) for _ in range(6)]
    await clock.sleep(0.5)
    for task in tasks[1:5]:
        task.cancel()
    assert await tasks[5] == ["a"]
    assert clock.now() == pytest.approx(60 / 59, rel=0.01)
    assert (puppet.opens, len(puppet.live)) == (2, 0)


@pytest.mark.parametrize("with_others", [False, True])
async def test_cancelled_anywhere_nothing_is_left_in_the_line(*, with_others: bool) -> None:
    async with FakeClock() as clock:
        store = Store(clock=clock, slow=3)
        limiter = RateLimiter(requests_per_minute=6000, burst=0.01)
        source = RateLimit(limiter, shared=store if with_others else None)(Puppet(["a"], repeat=True))

        async def check() -> None:
            assert not limiter.lane("upstream  ").line
            assert await asyncio.wait_for(ask(source, clock), 5) == ["a"]

        async def two() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(ask(source, clock))
                group.create_task(ask(source, clock))

        await cancel_everywhere(two, check=check)


async def test_too_many_who_wait_and_too_long_a_wait_are_refused_and_nothing_is_sent(clock: FakeClock) -> None:
    puppet = Puppet(["a"], repeat=True)
    limiter = RateLimiter(requests_per_minute=6, burst=1, max_waiting=2, max_wait=15)
    source = RateLimit(limiter)(puppet)
    seen = await asyncio.gather(*(ask(source, clock) for _ in range(4)), return_exceptions=True)
    assert [type(one) for one in seen] == [list, list, BudgetExhausted, BudgetExhausted]
    late, full = seen[2], seen[3]
    assert isinstance(late, BudgetExhausted)
    assert isinstance(full, BudgetExhausted)
    assert "max_wait=" in str(late)
    assert "max_waiting=" in str(full)
    assert late.retry_after is not None
    assert puppet.opens == 2


async def test_where_nobody_may_wait_a_request_goes_at_once_or_not_at_all(clock: FakeClock) -> None:
    for shared in (None, Store(clock=clock)):
        limiter = RateLimiter(requests_per_minute=60, burst=1, max_waiting=0, max_wait=0.5)
        source = RateLimit(limiter, shared=shared)(Puppet(["a"], repeat=True))
        assert await ask(source, clock) == ["a"]
        with pytest.raises(BudgetExhausted):
            await ask(source, clock)


async def test_a_pause_that_is_longer_than_anybody_waits_is_told_at_once(clock: FakeClock) -> None:
    puppet = Puppet(refusal(clock, retry_after="90"), ["a"])
    source = RateLimit(RateLimiter(max_wait=60))(puppet)
    with pytest.raises(StatusError):
        await ask(source, clock)
    for _ in range(2):
        with pytest.raises(BudgetExhausted) as refused:
            await ask(source, clock)
        assert clock.now() == 0.0
    assert puppet.opens == 1
    assert "upstream" in str(refused.value)


async def test_a_refusal_of_ours_names_what_the_limit_is_of(clock: FakeClock) -> None:
    source = RateLimit(RateLimiter(requests_per_minute=6, burst=1, max_wait=1))(Puppet(["a"], repeat=True))
    asked = replace(request_on(clock), body={"model": "m"})
    await (await source.open(asked)).aclose()
    with pytest.raises(BudgetExhausted, match="the rate limit of 'upstream m' refused"):
        await source.open(asked)


async def test_a_refusal_pauses_everybody_until_the_time_it_told(clock: FakeClock) -> None:
    puppet = Puppet(refusal(clock, retry_after="10"), ["a"], ["a"])
    source = RateLimit(RateLimiter())(puppet)
    with pytest.raises(StatusError):
        await ask(source, clock)
    await asyncio.gather(ask(source, clock), ask(source, clock))
    assert puppet.opened_at[1] >= 10
    assert puppet.opened_at[2] > puppet.opened_at[1]


@pytest.mark.parametrize(
    "body",
    [
        b'{"error": {"message": "x", "code": "insufficient_quota"}}',
        b'{"error": {"message": "x", "code": "concurrency"}}',
    ],
)
async def test_an_empty_account_and_too_many_at_once_slow_no_rate_down(clock: FakeClock, body: bytes) -> None:
    puppet = Puppet(refusal(clock, body=body), [b"data: {}\n\n"], repeat=True)
    pipe = Pipe(puppet, clock=clock) | parse_sse() | verify("openai") | RateLimit(RateLimiter())
    with pytest.raises(StatusError):
        await pipe.stream(Request(url="http://upstream"))
    for _ in range(50):
        with pytest.raises(StreamError):
            await pipe.stream(Request(url="http://upstream"))
    assert clock.now() == 0.0


async def test_an_empty_account_is_not_tried_again(clock: FakeClock) -> None:
    body = b'{"error": {"message": "x", "code": "insufficient_quota"}}'
    source = MemorySource[bytes](refusal(clock, body=body))
    stream = (Pipe(source, clock=clock) | parse_sse() | verify("openai") | RateLimit() | Retry()).stream(Request())
    with pytest.raises(StatusError):
        await stream
    assert (stream.report.attempts, clock.now()) == (1, 0.0)


async def test_a_bare_429_of_deepseek_is_of_concurrency_and_elsewhere_of_the_rate(clock: FakeClock) -> None:
    times = {}
    for dialect in ("deepseek", "openai"):
        limiter = RateLimiter()
        source = MemorySource[bytes](refusal(clock))
        pipe = Pipe(source, clock=clock) | parse_sse() | verify(dialect) | RateLimit(limiter)
        started = clock.now()
        for _ in range(3):
            with pytest.raises(StatusError):
                await pipe.stream(Request(url="http://upstream"))
        times[dialect] = clock.now() - started
    assert times["deepseek"] == 0.0
    assert times["openai"] > 5


async def test_a_refusal_in_the_place_of_the_first_item_counts_as_well(clock: FakeClock) -> None:
    failure = UpstreamError("x", code="rate_limit_exceeded", retryable=True)
    failure.retry_after = 7.0
    puppet = Puppet([failure], ["a"])
    source = RateLimit(RateLimiter())(puppet)
    with pytest.raises(UpstreamError):
        await ask(source, clock)
    await ask(source, clock)
    assert puppet.opened_at[1] >= 7


async def test_waits_are_told(clock: FakeClock) -> None:
    heard: list[Moment] = []
    source = RateLimit(RateLimiter(requests_per_minute=60, burst=1))(Puppet(["a"], repeat=True))
    await ask(source, clock)
    await ask(source, clock, listeners=[heard.append])
    assert [(moment.reason, round(moment.seconds, 2)) for moment in heard if isinstance(moment, Waited)] == [
        ("requests", 1.02)
    ]


async def test_what_a_request_really_cost_is_settled_when_its_stream_is_closed(clock: FakeClock) -> None:
    chunk = b'{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}],"usage":{"prompt_tokens":%d,'
    chunk += b'"completion_tokens":1,"total_tokens":%d}}'
    answer = [b"data: " + chunk % (99, 100) + b"\n\n", b"data: [DONE]\n\n"]
    limiter = RateLimiter(tokens_per_minute=6000, burst=30, output_share=1)
    pipe = Pipe(MemorySource(answer), clock=clock) | parse_sse() | verify("openai-compatible") | RateLimit(limiter)
    for _ in range(10):
        async with pipe.stream(Request(url="http://upstream", body={"max_tokens": 1900})) as deltas:
            assert [delta.text async for delta in deltas] == ["a"]
    assert clock.now() == 0.0  # 10 x 1,909 tokens would have been three minutes' worth


async def test_a_call_that_may_send_nothing_gives_back_what_it_took(clock: FakeClock) -> None:
    limiter = RateLimiter(requests_per_minute=60, burst=1)
    pipe = Pipe(MemorySource(["a"]), clock=clock) | RateLimit(limiter)
    request = Request(url="http://upstream")
    stream = pipe.stream(request)
    spent = RateLimit(limiter)(Puppet(BudgetExhausted("spent")))
    with pytest.raises(BudgetExhausted):
        await ask(spent, clock)
    async with stream as items:
        assert [item async for item in items] == ["a"]
    assert clock.now() == 0.0


async def test_after_a_reset_those_who_wait_leave_spread(clock: FakeClock) -> None:
    upstream = LimitedUpstream(clock=clock, per_minute=60, semantics="window")
    source = RateLimit(RateLimiter(slow_down_below=0, max_wait=600))(upstream)
    await asyncio.gather(*(ask(source, clock) for _ in range(30)))
    upstream.taken.clear()
    await asyncio.gather(*(ask(source, clock) for _ in range(59)))
    after = [time for time in upstream.taken if time >= 60]
    assert len(after) == 29
    assert after[-1] - after[0] > 5
    assert all(sum(second <= time < second + 1 for time in after) <= 6 for second in after)


async def test_processes_share_the_limits_set_by_hand_and_pauses(clock: FakeClock) -> None:
    store = Store(clock=clock)
    puppet = Puppet(["a"], repeat=True)
    sources = [
        RateLimit(RateLimiter(requests_per_minute=60, burst=2, max_wait=100), shared=store)(puppet) for _ in range(8)
    ]
    await asyncio.gather(*(ask(source, clock) for source in sources * 8))
    assert clock.now() == pytest.approx((64 - 2) * 60 / 58, rel=0.02)
    refused = RateLimit(RateLimiter(), shared=store)(Puppet(refusal(clock, retry_after="30")))
    with pytest.raises(StatusError):
        await ask(refused, clock)
    before = clock.now()
    await ask(sources[0], clock)
    assert clock.now() >= before + 30


@pytest.mark.parametrize("told", ["4102444800", "999999999", "86400"])
async def test_no_refusal_stops_a_model_for_long(clock: FakeClock, told: str) -> None:
    store = Store(clock=clock)
    limiter = RateLimiter(max_wait=700)
    puppet = Puppet(refusal(clock, retry_after=told), ["a"], repeat=True)
    here = RateLimit(limiter, shared=store)(puppet)
    there = RateLimit(RateLimiter(max_wait=700), shared=store)(Puppet(["a"], repeat=True))
    with pytest.raises(StatusError):
        await ask(here, clock)
    assert (await ask(here, clock), await ask(there, clock)) == (["a"], ["a"])
    assert clock.now() < 610


async def test_a_pause_is_common_whatever_time_it_is_there(clock: FakeClock) -> None:
    store = Store(clock=clock)
    with pytest.raises(StatusError):
        await ask(RateLimit(RateLimiter(), shared=store)(Puppet(refusal(clock, retry_after="9"))), clock)
    (told,) = store.notes.values()
    assert told[1] == {"told": 9.0}  # no time of day
    await ask(RateLimit(RateLimiter(), shared=store)(Puppet(["a"])), clock)
    assert 9 <= clock.now() < 10


async def test_what_was_used_is_taken_from_the_store_whatever_is_there(clock: FakeClock) -> None:
    chunk = b'{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}],"usage":{"prompt_tokens":0,'
    chunk += b'"completion_tokens":1000,"total_tokens":1000}}'
    answer = [b"data: " + chunk + b"\n\n", b"data: [DONE]\n\n"]
    store = Store(clock=clock)
    limiter = RateLimiter(tokens_per_minute=6000, max_wait=60)  # 600 at once, 90 a second
    layer = RateLimit(limiter, shared=store)
    pipe = Pipe(MemorySource(answer), clock=clock) | parse_sse() | verify("openai-compatible") | layer
    for _ in range(4):
        async with pipe.stream(Request(url="http://upstream", body={"max_tokens": 100})) as deltas:
            assert [delta.text async for delta in deltas] == ["a"]
    assert clock.now() == pytest.approx((3 * 1000 - 600 + 60) / 90, rel=0.02)


@pytest.mark.parametrize("with_others", [False, True])
async def test_what_an_open_circuit_refused_was_not_sent(clock: FakeClock, *, with_others: bool) -> None:
    store = Store(clock=clock) if with_others else None
    layer = RateLimit(RateLimiter(requests_per_minute=60, burst=1, tokens_per_minute=60, max_wait=0.1), shared=store)
    for _ in range(5):
        with pytest.raises(CircuitOpen):
            await ask(layer(Puppet(CircuitOpen("open"))), clock)
    assert await ask(layer(Puppet(["a"])), clock) == ["a"]
    assert clock.now() == 0.0


@dataclass(slots=True, kw_only=True)
class _Gated(Store):
    """One that never answers for tokens."""

    reached: asyncio.Event = field(default_factory=asyncio.Event)

    async def take(self, name: str, amount: float, **settings: Any) -> float | None:
        if name.endswith("tokens"):
            self.reached.set()
            await asyncio.sleep(3600)
        return await Store.take(self, name, amount, **settings)


async def test_cancelled_between_two_takes_the_first_is_given_back(clock: FakeClock) -> None:
    store = _Gated(clock=clock)
    source = RateLimit(RateLimiter(requests_per_minute=60, tokens_per_minute=6000), shared=store)(Puppet(["a"]))
    for _ in range(10):
        asking = asyncio.create_task(ask(source, clock))
        await store.reached.wait()
        store.reached.clear()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    (bucket,) = store.buckets.values()
    assert bucket.level(clock.now()) == 6.0
    assert Counter(store.asked)["take rate  upstream   requests"] == 20


async def test_without_the_store_each_process_keeps_the_limits_by_itself(clock: FakeClock) -> None:
    store = Store(clock=clock, gone=True)
    source = RateLimit(RateLimiter(requests_per_minute=60, burst=1), shared=store)(Puppet(["a"], repeat=True))
    await asyncio.gather(*(ask(source, clock) for _ in range(5)))
    assert clock.now() == pytest.approx(4 * 60 / 59, rel=0.02)


def test_it_takes_a_limiter() -> None:
    with pytest.raises(
        UsageError, match=r"RateLimit\(\.\.\.\) takes .* RateLimit\(RateLimiter\(requests_per_minute=60\)\), not 60"
    ):
        RateLimit(60)  # type: ignore[arg-type]  # what is tested


def test_a_pipe_warns_of_a_place_where_it_sees_one_attempt_of_several() -> None:
    assert "RateLimit belongs left of Retry" in str(Pipe(MemorySource(["a"])) | Retry() | RateLimit())
    assert "belongs" not in str(Pipe(MemorySource(["a"])) | RateLimit() | Retry())


async def test_a_stream_that_broke_may_be_opened_again(clock: FakeClock) -> None:
    puppet = Puppet(refusal(clock, retry_after="5"), Script("a"))
    source = Retry()(RateLimit(RateLimiter())(puppet))
    assert await ask(source, clock) == ["a"]
    assert puppet.opened_at[1] >= 5
