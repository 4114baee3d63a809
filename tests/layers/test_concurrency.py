"""Concurrency: a place for as long as a stream runs, first come, first served, and every place comes back."""

from __future__ import annotations

import asyncio
import gc
import random
from dataclasses import replace
from typing import Any, Literal

import pytest

from holdfast import MemorySource, Pipe, Reconnect, Retry
from holdfast._core import Call, Source
from holdfast._errors import BudgetExhausted, ConnectError, StatusError, StreamBroken, UsageError
from holdfast._types import Head, Request
from holdfast.layers.concurrency import Concurrency
from holdfast.machines.concurrency import ConcurrencyLimiter
from holdfast.machines.statuses import status_error
from holdfast.moments import Moment, Waited
from holdfast.testing import FakeClock, cancel_everywhere, check_layer
from tests.layers.limited_upstream import LimitedUpstream
from tests.layers.store import Store
from tests.puppet import Puppet, Script, Wait, drain, request_on


async def ask(source: Source[Any], clock: FakeClock, **settings: Any) -> list[Any]:
    stream = await source.open(request_on(clock, **settings))
    try:
        return await drain(stream)
    finally:
        await stream.aclose()


def forget(streams: list[Any]) -> None:
    """Drops streams without closing them."""
    streams.clear()
    gc.collect()


def busy(clock: FakeClock, status: int = 503) -> StatusError:
    return status_error(Head(status=status), b"", clock.wall())


@pytest.mark.parametrize("adaptive", [None, "aimd", "gradient"])
async def test_it_keeps_the_contract_of_a_stream(adaptive: Literal["aimd", "gradient"] | None) -> None:
    limiter = ConcurrencyLimiter(limit=1, adaptive=adaptive, max_limit=1)
    await check_layer(Concurrency(limiter), items=["a", "b", "c"])
    assert limiter.places("").in_use == 0


async def test_it_keeps_the_contract_with_others(clock: FakeClock) -> None:
    store = Store(clock=clock)
    limiter = ConcurrencyLimiter(limit=1)
    await check_layer(Concurrency(limiter, shared=store), items=["a", "b", "c"])
    assert (limiter.places("").in_use, store.in_use) == (0, 0)


async def test_never_more_run_than_the_limit_and_they_run_in_the_order_they_came(clock: FakeClock) -> None:
    upstream = LimitedUpstream(clock=clock, places=3)
    source = Concurrency(ConcurrencyLimiter(limit=3))(upstream)
    order: list[int] = []

    async def caller(number: int) -> None:
        await clock.sleep(number / 1000)
        stream = await source.open(request_on(clock))
        order.append(number)
        await drain(stream)
        await stream.aclose()

    await asyncio.gather(*(caller(number) for number in range(30)))
    assert order == list(range(30))
    assert (upstream.most_open, upstream.refused) == (3, [])
    assert clock.now() == pytest.approx(10 * 2.3, rel=0.01)


@pytest.mark.parametrize("end", ["the end", "a failure", "a refusal", "closing", "a cancelled open"])
async def test_a_place_comes_back_after(clock: FakeClock, end: str) -> None:
    scripts: dict[str, Any] = {
        "the end": ["a"],
        "a failure": ["a", StreamBroken("cut")],
        "a refusal": ConnectError("nobody"),
        "closing": ["a", Wait()],
        "a cancelled open": Script("a", opening=[Wait()]),
    }
    limiter = ConcurrencyLimiter(limit=1)
    source = Concurrency(limiter)(Puppet(scripts[end]))
    opening = asyncio.ensure_future(source.open(request_on(clock)))
    await clock.sleep(1)
    if end == "a cancelled open":
        assert limiter.places("").in_use == 1
        opening.cancel()
    result = (await asyncio.gather(opening, return_exceptions=True))[0]
    if not isinstance(result, BaseException):
        assert limiter.places("").in_use == 1
        if end == "closing":
            await result.aclose()
        else:
            await asyncio.gather(drain(result), return_exceptions=True)
    assert limiter.places("").in_use == 0
    if not isinstance(result, BaseException):
        await result.aclose()


async def test_a_stream_that_nobody_closes_gives_its_place_back_and_says_so(clock: FakeClock) -> None:
    limiter = ConcurrencyLimiter(limit=1)
    source = Concurrency(limiter)(Puppet(["a"], ["b"]))
    streams = [await source.open(request_on(clock))]
    waiting = asyncio.create_task(ask(source, clock))
    await clock.sleep(1)
    with pytest.warns(ResourceWarning, match="held its place"):
        forget(streams)
    assert await waiting == ["b"]
    assert clock.now() == 1


async def test_while_retry_waits_no_place_is_held(clock: FakeClock) -> None:
    limiter = ConcurrencyLimiter(limit=1)
    limited = Concurrency(limiter)(Puppet(busy(clock), ["b"], ["a"]))
    first = asyncio.create_task(ask(Retry(base=8, jitter="decorrelated")(limited), clock))
    await clock.sleep(0.5)
    assert limiter.places("").in_use == 0
    assert await ask(limited, clock) == ["b"]
    assert clock.now() < 8
    assert await first == ["a"]


@pytest.mark.parametrize("with_others", [False, True])
async def test_cancelled_anywhere_no_place_is_held_and_nobody_left_in_the_line(*, with_others: bool) -> None:
    async with FakeClock() as clock:
        store = Store(clock=clock, slow=2)
        limiter = ConcurrencyLimiter(limit=1)
        source = Concurrency(limiter, shared=store if with_others else None)(Puppet(["a"], repeat=True))

        async def check() -> None:
            places = limiter.places("")
            assert (places.in_use, len(places.line), store.in_use) == (0, 0, 0)
            assert await asyncio.wait_for(ask(source, clock), 5) == ["a"]

        async def two() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(ask(source, clock))
                group.create_task(ask(source, clock))

        await cancel_everywhere(two, check=check)


async def test_callers_who_are_cancelled_at_random_lose_no_wake_up(clock: FakeClock) -> None:
    chance = random.Random(5)
    limiter = ConcurrencyLimiter(limit=2, max_wait=10_000)
    upstream = LimitedUpstream(clock=clock, places=2, seconds=0.4, opening=0.1)
    source = Concurrency(limiter)(upstream)
    tasks = [asyncio.create_task(ask(source, clock)) for _ in range(200)]
    for task in tasks:
        if chance.random() < 0.5:
            await clock.sleep(chance.random() / 5)
            task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(result) for result in results} == {list, asyncio.CancelledError}
    assert (limiter.places("").in_use, upstream.open_now, upstream.refused) == (0, 0, [])


async def test_too_many_who_wait_and_too_long_a_wait_are_refused_and_nothing_is_sent(clock: FakeClock) -> None:
    puppet = Puppet(["a", Wait(100), "b"], repeat=True)
    source = Concurrency(ConcurrencyLimiter(limit=1, max_waiting=1, max_wait=10))(puppet)
    seen = await asyncio.gather(*(ask(source, clock) for _ in range(3)), return_exceptions=True)
    assert [type(one) for one in seen] == [list, BudgetExhausted, BudgetExhausted]
    assert "max_wait=" in str(seen[1])
    assert "max_waiting=" in str(seen[2])
    assert puppet.opens == 1


async def test_waits_are_told(clock: FakeClock) -> None:
    heard: list[Moment] = []
    source = Concurrency(ConcurrencyLimiter(limit=1))(Puppet(["a", Wait(3)], ["b"]))
    await asyncio.gather(ask(source, clock), ask(source, clock, listeners=[heard.append]))
    assert [(moment.reason, moment.seconds) for moment in heard if isinstance(moment, Waited)] == [("concurrency", 3)]


async def test_a_thousand_callers_find_out_how_many_may_run(clock: FakeClock) -> None:
    upstream = LimitedUpstream(clock=clock, per_minute=1e9, places=40, tells="nothing")
    limiter = ConcurrencyLimiter(adaptive="gradient", max_wait=1000)
    source = Retry()(Concurrency(limiter)(upstream))
    chance = random.Random(3)

    async def caller() -> list[Any]:
        await clock.sleep(5 * chance.random())
        stream = await source.open(Request(url="http://upstream", call=Call(clock=clock, random=chance)))
        try:
            return await drain(stream)
        finally:
            await stream.aclose()

    assert await asyncio.gather(*(caller() for _ in range(1000))) == [["first", "last"]] * 1000
    assert 0 < len(upstream.refused) < 0.01 * 1000
    assert upstream.most_open == 40
    assert clock.now() < 1.5 * 1000 * 2.3 / 40


async def test_a_rate_429_takes_no_places_away(clock: FakeClock) -> None:
    limiter = ConcurrencyLimiter(limit=8, adaptive="aimd")
    told = status_error(Head(status=429, headers={"retry-after": "1"}), b"", clock.wall())
    for failure, limit in ((told, 8), (busy(clock), 6), (busy(clock, 529), 4)):
        with pytest.raises(StatusError):
            await ask(Concurrency(limiter)(Puppet(failure)), clock)
        assert limiter.places("").limit == limit


async def test_processes_share_places(clock: FakeClock) -> None:
    store = Store(clock=clock)
    upstream = LimitedUpstream(clock=clock, places=3)
    sources = [Concurrency(ConcurrencyLimiter(limit=3), shared=store)(upstream) for _ in range(4)]
    await asyncio.gather(*(ask(source, clock) for source in sources * 5))
    assert (upstream.most_open, upstream.refused, store.in_use) == (3, [], 0)
    assert clock.now() < 2 * 20 / 3 * 2.3


async def test_two_addresses_and_two_names_have_places_of_their_own_in_one_store(clock: FakeClock) -> None:
    store = Store(clock=clock)
    streams = []
    for url, name in (("https://a.example/v1", ""), ("https://b.example/v1", ""), ("https://a.example/v1", "second")):
        source = Concurrency(ConcurrencyLimiter(limit=1, max_wait=1, name=name), shared=store)(Puppet(["a"]))
        streams.append(await source.open(replace(request_on(clock), url=url)))
    again = Concurrency(ConcurrencyLimiter(limit=1, max_wait=1), shared=store)(Puppet(["a"]))
    with pytest.raises(BudgetExhausted):
        await again.open(replace(request_on(clock), url="https://me:secret@a.example/v2"))
    assert not [name for name in store.places if "secret" in name]
    for stream in streams:
        await stream.aclose()


async def test_a_place_is_held_longer_while_its_stream_runs_and_expires_with_its_process(clock: FakeClock) -> None:
    store = Store(clock=clock)
    limiter = ConcurrencyLimiter(limit=1, lease=10)
    source = Concurrency(limiter, shared=store)(Puppet(["a", Wait(300), "b"], ["c"]))
    stream: Any = await source.open(request_on(clock))
    reading = asyncio.create_task(drain(stream))
    for _ in range(29):
        await clock.sleep(10)
        assert store.in_use == 1
    assert await reading == ["a", "b"]
    await stream.aclose()
    assert store.in_use == 0
    streams = [await source.open(request_on(clock))]
    assert store.in_use == 1
    with pytest.warns(ResourceWarning, match="held its place"):  # as if its process had died
        forget(streams)
    await clock.sleep(11)
    assert store.in_use == 0


class _Stuck(Store):
    """One whose places cannot be given back for a while."""

    async def release(self, name: str, holder: str) -> None:
        await self.clock.sleep(5)
        await Store.release(self, name, holder)


@pytest.mark.parametrize("gone", [False, True])
async def test_giving_a_place_back_is_not_cut_short_by_who_cancels_it(clock: FakeClock, *, gone: bool) -> None:
    store = _Stuck(clock=clock, slow=3)
    limiter = ConcurrencyLimiter(limit=1)
    source = Concurrency(limiter, shared=store)(Puppet(["a"], repeat=True))
    for turns in range(1, 12):
        store.gone = gone
        asking = asyncio.create_task(ask(source, clock))
        for _ in range(turns):
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.sleep(0)
        asking.cancel()  # again, while the place is given back
        await asyncio.wait([asking])
        store.gone = False
        assert (store.in_use, limiter.places("").in_use) == (0, 0)


async def test_without_the_store_our_own_places_are_enough(clock: FakeClock) -> None:
    upstream = LimitedUpstream(clock=clock, places=2)
    source = Concurrency(ConcurrencyLimiter(limit=2), shared=Store(clock=clock, gone=True))(upstream)
    await asyncio.gather(*(ask(source, clock) for _ in range(6)))
    assert (upstream.most_open, upstream.refused) == (2, [])


def test_it_takes_a_limiter() -> None:
    with pytest.raises(UsageError, match=r"takes .* Concurrency\(ConcurrencyLimiter\(limit=5\)\), not 5"):
        Concurrency(5)  # type: ignore[arg-type]  # what is tested


def test_a_pipe_warns_of_a_place_where_it_would_be_held_in_pauses() -> None:
    assert "Concurrency belongs left of Reconnect" in str(Pipe(MemorySource(["a"])) | Reconnect() | Concurrency())
    assert "belongs" not in str(Pipe(MemorySource(["a"])) | Concurrency() | Retry())
