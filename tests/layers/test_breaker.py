from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pybreaker
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast._core import Source
from holdfast._errors import (
    BudgetExhausted,
    CircuitOpen,
    ConnectError,
    DeadlineExceeded,
    DecodeError,
    EndOfStream,
    IntegrityError,
    NotAStream,
    StatusError,
    StreamBroken,
    StreamError,
    Truncated,
    UpstreamError,
    UsageError,
)
from holdfast._pipe import Pipe
from holdfast._types import Head
from holdfast.layers.breaker import CircuitBreaker, _ledger_of
from holdfast.moments import BreakerChanged, Moment
from holdfast.testing import FakeClock, cancel_everywhere, check_layer
from holdfast.testing.inner import Inner
from tests.layers.store import Store
from tests.puppet import Puppet, Script, Wait, drain, request_on

GOOD = Script("a", "b")
BROKEN = Script("a", StreamBroken("cut"))


class Log(pybreaker.CircuitBreakerListener):
    """Writes down what a breaker tells its listeners."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def before_call(self, cb: Any, func: Any, *args: Any, **kwargs: Any) -> None:
        self.heard.append("before_call")

    def failure(self, cb: Any, exc: BaseException) -> None:
        self.heard.append(("failure", type(exc).__name__))

    def success(self, cb: Any) -> None:
        self.heard.append("success")

    def state_change(self, cb: Any, old_state: Any, new_state: Any) -> None:
        self.heard.append((old_state.name, new_state.name))


class SlowStorage(pybreaker.CircuitMemoryStorage):
    """A storage that may block: every look at the state waits while the gate is shut."""

    def __init__(self, state: str = pybreaker.STATE_CLOSED) -> None:
        super().__init__(state)
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.threads: set[int] = set()

    @property
    def state(self) -> str:
        self.threads.add(threading.get_ident())
        self.entered.set()
        assert self.gate.wait(10)
        return super().state

    @state.setter
    def state(self, state: str) -> None:
        self._state = state

    def shut(self) -> None:
        self.entered.clear()
        self.gate.clear()


async def read(source: Source[Any], clock: FakeClock, **about: Any) -> list[Any]:
    """Reads one stream to its end and closes it."""
    stream = await source.open(request_on(clock, **about))
    try:
        return await drain(stream)
    finally:
        await stream.aclose()


async def fail(source: Source[Any], clock: FakeClock, times: int = 1) -> None:
    for _ in range(times):
        with pytest.raises(StreamError):
            await read(source, clock)


async def until(happened: Callable[[], bool]) -> None:
    """Waits for what a thread does, leaving the event loop free."""
    while not happened():  # noqa: ASYNC110 - threads set no asyncio.Event
        await asyncio.sleep(0.0001)


async def half_opened(
    clock: FakeClock, *scripts: Any, **about: Any
) -> tuple[pybreaker.CircuitBreaker, Source[Any], Puppet]:
    """Gives a breaker that has tripped and whose reset timeout has passed; `scripts` follow the broken stream."""
    breaker = pybreaker.CircuitBreaker(**{"fail_max": 1, "reset_timeout": 30, **about})
    puppet = Puppet(BROKEN, *scripts)
    source = CircuitBreaker(breaker)(puppet)
    await fail(source, clock)
    assert breaker.current_state == "open"
    await clock.advance(30)
    return breaker, source, puppet


# -- what counts, and when ------------------------------------------------------------------------


async def test_streams_broken_midway_trip_the_circuit_and_then_nothing_is_sent(clock: FakeClock) -> None:
    breaker = pybreaker.CircuitBreaker(fail_max=3, reset_timeout=30, name="upstream")
    puppet = Puppet(BROKEN, repeat=True)
    source = CircuitBreaker(breaker)(puppet)
    await fail(source, clock, times=3)
    assert breaker.current_state == "open"
    with pytest.raises(CircuitOpen, match=r"'upstream' is open.*30 s.*nothing was sent") as refused:
        await source.open(request_on(clock))
    assert refused.value.retry_after == 30.0
    assert not refused.value.retryable
    assert puppet.opens == 3


async def test_success_is_recorded_at_the_clean_end_and_not_before(clock: FakeClock) -> None:
    log = Log()
    breaker = pybreaker.CircuitBreaker(fail_max=3, listeners=[log])
    source = CircuitBreaker(breaker)(Puppet(BROKEN, GOOD))
    await fail(source, clock)
    stream = await source.open(request_on(clock))
    assert [await stream.receive(), await stream.receive()] == [["a"], ["b"]]
    assert breaker.fail_counter == 1
    assert log.heard[-1] == "before_call"
    for _ in range(2):  # the end is sticky, and recorded once
        with pytest.raises(EndOfStream):
            await stream.receive()
    assert breaker.fail_counter == 0
    assert log.heard == ["before_call", ("failure", "StreamBroken"), "before_call", "success"]


async def test_a_sticky_failure_is_recorded_once(clock: FakeClock) -> None:
    breaker = pybreaker.CircuitBreaker(fail_max=3)
    stream = await CircuitBreaker(breaker)(Puppet(BROKEN)).open(request_on(clock))
    await stream.receive()
    for _ in range(5):
        with pytest.raises(StreamBroken):
            await stream.receive()
    await stream.aclose()
    assert breaker.fail_counter == 1


def status(code: int, *, retryable: bool) -> StatusError:
    return StatusError(f"status {code}", head=Head(status=code), retryable=retryable)


@pytest.mark.parametrize(
    "error",
    [
        ConnectError("refused"),
        StreamBroken("cut"),
        Truncated("unproven"),
        DeadlineExceeded("open", 3.0),
        DeadlineExceeded("progress", 3.0),
        NotAStream("a page"),
        DecodeError("not JSON"),
        IntegrityError("length", expected="3", actual="2"),
        UpstreamError("overloaded", retryable=True),
        status(429, retryable=True),
        status(500, retryable=True),
        status(503, retryable=False),
        StreamError("of a user's own"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("opening", [True, False], ids=["in open", "in receive"])
async def test_what_the_upstream_is_to_blame_for_is_a_failure(
    *, error: StreamError, opening: bool, clock: FakeClock
) -> None:
    breaker = pybreaker.CircuitBreaker(fail_max=3)
    source = CircuitBreaker(breaker)(Puppet(error if opening else Script("a", error)))
    with pytest.raises(type(error)) as raised:
        await read(source, clock)
    assert raised.value is error
    assert breaker.fail_counter == 1


@pytest.mark.parametrize(
    "error",
    [
        status(400, retryable=False),
        status(401, retryable=False),
        status(404, retryable=False),
        status(429, retryable=False),
        UpstreamError("content filter"),
        CircuitOpen("another one's"),
        BudgetExhausted("no more"),
        UsageError("the program's"),
        OSError("foreign"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("opening", [True, False], ids=["in open", "in receive"])
async def test_what_says_nothing_of_the_upstreams_health_is_neutral(
    *, error: Exception, opening: bool, clock: FakeClock
) -> None:
    log = Log()
    breaker = pybreaker.CircuitBreaker(fail_max=3, listeners=[log])
    source = CircuitBreaker(breaker)(Puppet(BROKEN, error if opening else Script("a", error)))
    await fail(source, clock)
    log.heard.clear()
    with pytest.raises(type(error)) as raised:
        await read(source, clock)
    assert raised.value is error
    assert breaker.fail_counter == 1  # neither more nor reset
    assert log.heard == ["before_call"]


async def test_a_second_readers_usage_error_does_not_end_the_first_ones_ticket(clock: FakeClock) -> None:
    breaker = pybreaker.CircuitBreaker(fail_max=3)
    go = asyncio.Event()
    stream = await CircuitBreaker(breaker)(Puppet(Script(go, StreamBroken("cut")))).open(request_on(clock))
    first = asyncio.create_task(stream.receive())
    await clock.settle()
    with pytest.raises(UsageError):
        await stream.receive()
    go.set()
    with pytest.raises(StreamBroken):
        await first
    assert breaker.fail_counter == 1


async def test_excluded_errors_are_successes_as_in_pybreaker(clock: FakeClock) -> None:
    overloaded = status(429, retryable=True)
    breaker = pybreaker.CircuitBreaker(fail_max=2, exclude=[lambda error: error is overloaded])
    breaker.add_excluded_exception(NotAStream)
    puppet = Puppet(BROKEN, NotAStream("a page"), BROKEN, overloaded, BROKEN)
    source = CircuitBreaker(breaker)(puppet)
    await fail(source, clock, times=5)
    assert (breaker.current_state, breaker.fail_counter) == ("closed", 1)


@pytest.mark.parametrize("throws", [True, False])
async def test_the_trip_never_replaces_the_streams_error(*, throws: bool, clock: FakeClock) -> None:
    error = StreamBroken("cut")
    breaker = pybreaker.CircuitBreaker(fail_max=1, throw_new_error_on_trip=throws)
    source = CircuitBreaker(breaker)(Puppet(Script("a", error)))
    with pytest.raises(StreamBroken) as raised:
        await read(source, clock)
    assert raised.value is error
    assert error.__cause__ is None
    assert error.__context__ is None
    assert not any("pybreaker" in str(entry.path) for entry in raised.traceback)
    assert breaker.current_state == "open"


# -- neutral ends -----------------------------------------------------------------------------------


async def test_a_stream_cancelled_or_closed_early_is_neutral(clock: FakeClock) -> None:
    log = Log()
    breaker = pybreaker.CircuitBreaker(fail_max=3, listeners=[log])
    puppet = Puppet(BROKEN, Script("a", Wait()), Script("a", "b"), Script(opening=[Wait()]))
    source = CircuitBreaker(breaker)(puppet)
    await fail(source, clock)
    cancelled = asyncio.create_task(read(source, clock))
    await clock.settle()
    cancelled.cancel()
    closed = await source.open(request_on(clock))
    await closed.receive()
    await closed.aclose()
    await closed.aclose()
    opening = asyncio.create_task(source.open(request_on(clock)))
    await clock.settle()
    opening.cancel()
    await asyncio.gather(cancelled, opening, return_exceptions=True)
    assert cancelled.cancelled()
    assert opening.cancelled()
    assert breaker.fail_counter == 1
    assert log.heard == ["before_call", ("failure", "StreamBroken"), *["before_call"] * 3]
    assert not puppet.live


async def test_a_close_after_the_end_changes_nothing(clock: FakeClock) -> None:
    breaker = pybreaker.CircuitBreaker(fail_max=3)
    source = CircuitBreaker(breaker)(Puppet(BROKEN))
    stream = await source.open(request_on(clock))
    await stream.receive()
    with pytest.raises(StreamBroken):
        await stream.receive()
    await stream.aclose()
    assert breaker.fail_counter == 1


# -- generations --------------------------------------------------------------------------------------


async def test_a_late_success_of_an_older_generation_closes_nothing(clock: FakeClock) -> None:
    log = Log()
    breaker = pybreaker.CircuitBreaker(fail_max=1, reset_timeout=30, listeners=[log])
    source = CircuitBreaker(breaker)(Puppet(GOOD, GOOD, BROKEN, Script(Wait())))
    early, earlier = [await source.open(request_on(clock)) for _ in range(2)]
    await fail(source, clock)
    log.heard.clear()
    await drain(early)
    assert breaker.current_state == "open"
    await clock.advance(30)
    await source.open(request_on(clock))
    await drain(earlier)
    assert breaker.current_state == "half-open"
    assert log.heard == [("open", "half-open"), "before_call"]


async def test_a_late_failure_from_before_the_trip_neither_reopens_nor_extends(clock: FakeClock) -> None:
    breaker = pybreaker.CircuitBreaker(fail_max=1, reset_timeout=30)
    source = CircuitBreaker(breaker)(Puppet(*[BROKEN] * 4, Script("a", Wait(5.0)), GOOD))
    late = [await source.open(request_on(clock)) for _ in range(3)]
    await fail(source, clock)
    await clock.advance(20)
    await fail_to_end(late[0])
    assert breaker.fail_counter == 1
    await clock.advance(10)  # 30 s after the trip: the late failure has not moved it
    probe = await source.open(request_on(clock))
    await fail_to_end(late[1])
    assert breaker.current_state == "half-open"
    assert await drain(probe) == ["a"]
    assert breaker.current_state == "closed"
    await fail_to_end(late[2])
    assert (breaker.current_state, breaker.fail_counter) == ("closed", 0)


async def fail_to_end(stream: Any) -> None:
    with pytest.raises(StreamBroken):
        await drain(stream)
    await stream.aclose()


async def test_changes_by_hand_are_respected(clock: FakeClock) -> None:
    breaker = pybreaker.CircuitBreaker(fail_max=2, reset_timeout=30)
    source = CircuitBreaker(breaker)(Puppet(BROKEN, BROKEN, BROKEN, Script(Wait()), Script(Wait()), GOOD))
    await fail(source, clock)
    before = await source.open(request_on(clock))
    breaker.close()
    await fail_to_end(before)
    assert breaker.fail_counter == 0  # admitted before the hand, so it counts no more
    breaker.open()
    with pytest.raises(CircuitOpen) as refused:
        await source.open(request_on(clock))
    assert refused.value.retry_after == 30.0
    breaker.close()
    await fail(source, clock)
    assert breaker.fail_counter == 1
    breaker.half_open()
    older = await source.open(request_on(clock))
    breaker.half_open()  # another generation: its place is free though the older probe runs
    newer = await source.open(request_on(clock))
    await older.aclose()
    with pytest.raises(CircuitOpen):
        await source.open(request_on(clock))
    await newer.aclose()
    assert await read(source, clock) == ["a", "b"]
    assert breaker.current_state == "closed"


async def test_a_change_made_by_another_process_is_noticed(clock: FakeClock) -> None:
    log = Log()
    storage = pybreaker.CircuitMemoryStorage("closed")
    breaker = pybreaker.CircuitBreaker(reset_timeout=30, state_storage=storage, listeners=[log])
    source = CircuitBreaker(breaker)(Puppet(GOOD))
    stream = await source.open(request_on(clock))
    storage.opened_at = clock.wall()
    storage.state = "open"
    await drain(stream)
    with pytest.raises(CircuitOpen):
        await source.open(request_on(clock))
    assert log.heard == ["before_call", ("closed", "open")]


# -- the reset timeout ----------------------------------------------------------------------------


async def test_the_reset_timeout_follows_the_calls_clock(clock: FakeClock) -> None:
    breaker = pybreaker.CircuitBreaker(fail_max=1, reset_timeout=30)
    puppet = Puppet(BROKEN, GOOD)
    source = CircuitBreaker(breaker)(puppet)
    await fail(source, clock)
    waits = []
    for _ in range(3):
        with pytest.raises(CircuitOpen) as refused:
            await source.open(request_on(clock))
        waits.append(refused.value.retry_after)
        await clock.advance(10)
    assert waits == [30.0, 20.0, 10.0]
    assert await read(source, clock) == ["a", "b"]
    assert breaker.current_state == "closed"


async def test_a_failed_probe_opens_the_circuit_for_another_full_timeout(clock: FakeClock) -> None:
    breaker, source, puppet = await half_opened(clock, BROKEN, GOOD)
    await fail(source, clock)
    assert breaker.current_state == "open"
    await clock.advance(29)
    with pytest.raises(CircuitOpen) as refused:
        await source.open(request_on(clock))
    assert refused.value.retry_after == 1.0
    await clock.advance(1)
    assert await read(source, clock) == ["a", "b"]
    assert puppet.opens == 3


async def test_a_circuit_made_open_without_a_date_is_probed_at_once(clock: FakeClock) -> None:
    storage = pybreaker.CircuitMemoryStorage("open")
    breaker = pybreaker.CircuitBreaker(state_storage=storage)
    assert await read(CircuitBreaker(breaker)(Puppet(GOOD)), clock) == ["a", "b"]
    assert breaker.current_state == "closed"


async def test_an_opening_dated_by_a_clock_ahead_of_ours_never_waits_longer_than_the_timeout(clock: FakeClock) -> None:
    storage = pybreaker.CircuitMemoryStorage("open")
    storage.opened_at = datetime(2099, 1, 1, tzinfo=UTC)
    source = CircuitBreaker(pybreaker.CircuitBreaker(reset_timeout=30, state_storage=storage))(Puppet(GOOD))
    with pytest.raises(CircuitOpen) as refused:
        await source.open(request_on(clock))
    assert refused.value.retry_after == 30.0
    await clock.advance(30)
    assert await read(source, clock) == ["a", "b"]


# -- half-open ------------------------------------------------------------------------------------


async def test_of_a_hundred_callers_exactly_one_probes(clock: FakeClock) -> None:
    breaker, source, puppet = await half_opened(clock, Script("a", Wait(1.0), opening=[Wait(1.0)]))
    outcomes = await asyncio.gather(*(read(source, clock) for _ in range(100)), return_exceptions=True)
    kinds = Counter(type(outcome) for outcome in outcomes)
    assert kinds == {list: 1, CircuitOpen: 99}
    assert {o.retry_after for o in outcomes if isinstance(o, CircuitOpen)} == {0.0}
    assert puppet.opens == 2
    assert breaker.current_state == "closed"


async def test_an_abandoned_probe_gives_its_place_back(clock: FakeClock) -> None:
    breaker, source, _ = await half_opened(clock, Script("a", Wait()), GOOD)
    probe = await source.open(request_on(clock))
    await probe.receive()
    with pytest.raises(CircuitOpen, match="half-open"):
        await source.open(request_on(clock))
    await probe.aclose()
    assert breaker.current_state == "half-open"
    assert await read(source, clock) == ["a", "b"]
    assert breaker.current_state == "closed"


async def test_a_probe_dropped_without_a_close_gives_its_place_back(clock: FakeClock) -> None:
    _, source, puppet = await half_opened(clock, Script("a", Wait()), GOOD)
    await source.open(request_on(clock))
    puppet.live.clear()
    gc.collect()
    assert await read(source, clock) == ["a", "b"]


async def test_a_probe_cancelled_while_it_opens_gives_its_place_back(clock: FakeClock) -> None:
    breaker, source, puppet = await half_opened(clock, Script(opening=[Wait()]), GOOD)
    probe = asyncio.create_task(source.open(request_on(clock)))
    await clock.settle()
    with pytest.raises(CircuitOpen):
        await source.open(request_on(clock))
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe
    assert not puppet.live
    assert breaker.current_state == "half-open"
    assert await read(source, clock) == ["a", "b"]


async def test_a_probe_that_ends_neutrally_gives_its_place_back(clock: FakeClock) -> None:
    scripts = [status(401, retryable=False), OSError("a bug"), Script(UpstreamError("filtered"))]
    breaker, source, _ = await half_opened(clock, *scripts, GOOD)
    for kind in (StatusError, OSError, UpstreamError):
        with pytest.raises(kind):
            await read(source, clock)
        assert breaker.current_state == "half-open"
    assert await read(source, clock) == ["a", "b"]


async def test_with_a_success_threshold_probes_go_one_at_a_time(clock: FakeClock) -> None:
    breaker, source, _ = await half_opened(clock, GOOD, GOOD, GOOD, GOOD, success_threshold=3)
    for successes in range(3):
        assert breaker.current_state == ("half-open" if successes else "open")
        probe = await source.open(request_on(clock))
        with pytest.raises(CircuitOpen):
            await source.open(request_on(clock))
        await drain(probe)
    assert breaker.current_state == "closed"


async def test_a_probe_keeps_its_place_among_processes_for_as_long_as_it_runs(clock: FakeClock) -> None:
    store, answer = Store(clock=clock), ["a", Wait(100), "b"]
    opens: list[Source[str]] = []
    for _ in range(2):  # two processes that know of the same opening
        breaker = pybreaker.CircuitBreaker(fail_max=1, reset_timeout=30, name="x", throw_new_error_on_trip=False)
        breaker.half_open()
        opens.append(CircuitBreaker(breaker, shared=store, probe_seconds=10)(Puppet(answer, repeat=True)))
    probe = await opens[0].open(request_on(clock))
    reading = asyncio.create_task(drain(probe))
    for _ in range(4):
        await clock.sleep(20)
        with pytest.raises(CircuitOpen):
            await opens[1].open(request_on(clock))
    assert await reading == ["a", "b"]
    await probe.aclose()
    assert store.in_use == 1  # of this opening nobody shall probe again
    await clock.sleep(10)
    assert store.in_use == 0


async def test_a_probe_that_is_given_up_gives_its_place_among_processes_back(clock: FakeClock) -> None:
    store = Store(clock=clock)
    breaker = pybreaker.CircuitBreaker(fail_max=1, reset_timeout=30, name="x")
    breaker.half_open()
    layer = CircuitBreaker(breaker, shared=store, probe_seconds=10)
    probe = await layer(Puppet(["a", "b"])).open(request_on(clock))
    assert store.in_use == 1
    await probe.aclose()
    assert store.in_use == 0


async def test_two_pipes_share_one_breaker(clock: FakeClock) -> None:
    breaker = pybreaker.CircuitBreaker(fail_max=2, reset_timeout=30)
    left, right = Puppet(BROKEN, Script("a", Wait())), Puppet(BROKEN, GOOD)
    pipes = [Pipe(puppet, clock=clock) | CircuitBreaker(breaker) for puppet in (left, right)]
    for pipe in pipes:
        with pytest.raises(StreamBroken):
            async with pipe.stream() as items:
                assert [item async for item in items] == ["a"]
    assert breaker.current_state == "open"
    await clock.advance(30)
    async with pipes[0].stream():
        with pytest.raises(CircuitOpen) as refused:
            await pipes[1].stream().__aenter__()
        assert refused.value.attempts == 0
    async with pipes[1].stream() as items:
        assert [item async for item in items] == ["a", "b"]


def test_threads_share_one_breaker_and_one_place_to_probe() -> None:
    breaker = pybreaker.CircuitBreaker(fail_max=1, reset_timeout=0)
    start, refused = threading.Barrier(8), threading.Barrier(8, timeout=10)

    async def client() -> str:
        async with FakeClock() as clock:
            source = CircuitBreaker(breaker)(Puppet(GOOD))
            start.wait(10)
            try:
                stream = await source.open(request_on(clock))
            except CircuitOpen:
                await asyncio.to_thread(refused.wait)
                return "refused"
            await asyncio.to_thread(refused.wait)
            await drain(stream)
            return "probed"

    breaker.half_open()
    with ThreadPoolExecutor(8) as pool:
        outcomes = Counter(pool.map(lambda _: asyncio.run(client()), range(8)))
    assert outcomes == {"probed": 1, "refused": 7}
    assert breaker.current_state == "closed"


# -- moments and listeners ------------------------------------------------------------------------


async def test_the_call_that_changed_the_breaker_notes_it(clock: FakeClock) -> None:
    _, source, _ = await half_opened(clock, GOOD, BROKEN, GOOD, name="upstream")
    moments: list[Moment] = []
    await read(source, clock, listeners=[moments.append])
    changes = [(m.name, m.old, m.new) for m in moments if isinstance(m, BreakerChanged)]
    assert changes == [("upstream", "open", "half-open"), ("upstream", "half-open", "closed")]
    moments.clear()
    with pytest.raises(StreamBroken):
        await read(source, clock, listeners=[moments.append])
    with pytest.raises(CircuitOpen):
        await read(source, clock, listeners=[moments.append])
    assert [(m.old, m.new) for m in moments if isinstance(m, BreakerChanged)] == [("closed", "open")]


async def test_listeners_hear_what_pybreaker_tells(clock: FakeClock) -> None:
    calls: list[Any] = []

    class Curious(Log):
        def before_call(self, cb: Any, func: Any, *args: Any, **kwargs: Any) -> None:
            super().before_call(cb, func)
            calls.append((func, args))

        def state_change(self, cb: Any, old_state: Any, new_state: Any) -> None:
            super().state_change(cb, old_state, new_state)
            assert cb.current_state == new_state.name
            assert cb._state_storage.opened_at == trip

    trip = clock.wall()
    log = Curious()
    _, source, puppet = await half_opened(clock, GOOD, listeners=[log])
    await read(source, clock)
    assert log.heard == [
        "before_call",
        ("failure", "StreamBroken"),
        ("closed", "open"),
        ("open", "half-open"),
        "before_call",
        ("half-open", "closed"),
        "success",
    ]
    assert calls == [(puppet.open, (request,)) for request in puppet.requests]


class Angry(pybreaker.CircuitBreakerListener):
    def before_call(self, cb: Any, func: Any, *args: Any, **kwargs: Any) -> None:
        raise LookupError("before_call")

    def failure(self, cb: Any, exc: BaseException) -> None:
        raise LookupError("failure")

    def success(self, cb: Any) -> None:
        raise LookupError("success")

    def state_change(self, cb: Any, old_state: Any, new_state: Any) -> None:
        raise LookupError("state_change")


async def test_a_listener_that_raises_stops_nothing_and_is_reported(clock: FakeClock) -> None:
    reported: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, about: reported.append(str(about["exception"])))
    log = Log()
    breaker, source, puppet = await half_opened(
        clock, GOOD, GOOD, listeners=[Angry(), log], success_threshold=2, name="upstream"
    )
    assert [await read(source, clock) for _ in range(2)] == [["a", "b"]] * 2
    assert breaker.current_state == "closed"
    assert Counter(reported) == {"before_call": 3, "failure": 1, "success": 2, "state_change": 3}
    assert [event for event in log.heard if type(event) is tuple] == [
        ("failure", "StreamBroken"),
        ("closed", "open"),
        ("open", "half-open"),
        ("half-open", "closed"),
    ]
    assert not puppet.live


async def test_an_exclusion_that_raises_leaves_the_stream_unjudged(clock: FakeClock) -> None:
    reported: list[BaseException] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, about: reported.append(about["exception"]))

    def clumsy(error: BaseException) -> bool:
        raise LookupError

    breaker = pybreaker.CircuitBreaker(fail_max=1, exclude=[clumsy])
    await fail(CircuitBreaker(breaker)(Puppet(BROKEN)), clock)
    assert breaker.current_state == "closed"
    assert [type(error) for error in reported] == [LookupError]


# -- storages that may block ------------------------------------------------------------------------


async def test_a_storage_that_blocks_does_not_block_the_loop(clock: FakeClock) -> None:
    storage = SlowStorage()
    source = CircuitBreaker(pybreaker.CircuitBreaker(fail_max=1, state_storage=storage))(Puppet(BROKEN))
    storage.threads.clear()
    storage.shut()
    opening = asyncio.create_task(source.open(request_on(clock)))
    await until(storage.entered.is_set)
    await clock.settle()
    assert not opening.done()
    storage.gate.set()
    stream = await opening
    await stream.receive()
    with pytest.raises(StreamBroken):
        await stream.receive()
    assert storage.state == "open"
    storage.threads.discard(threading.get_ident())  # our own look
    assert storage.threads


async def test_cancelled_while_its_admission_waits_for_the_storage_a_probe_takes_no_place(clock: FakeClock) -> None:
    storage = SlowStorage("open")
    breaker = pybreaker.CircuitBreaker(state_storage=storage)
    puppet = Puppet(GOOD)
    source = CircuitBreaker(breaker)(puppet)
    storage.shut()
    moments: list[Moment] = []
    opening = asyncio.create_task(source.open(request_on(clock, listeners=[moments.append])))
    await until(storage.entered.is_set)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert puppet.opens == 0
    storage.gate.set()
    await until(lambda: bool(moments))  # what the thread brought about is told all the same
    assert [(m.old, m.new) for m in moments if isinstance(m, BreakerChanged)] == [("open", "half-open")]
    assert await read(source, clock) == ["a", "b"]


@pytest.mark.parametrize("in_open", [True, False], ids=["open", "receive"])
@pytest.mark.parametrize("queued", [True, False], ids=["before a thread is free", "in its thread"])
async def test_cancelled_while_its_outcome_is_recorded_the_record_is_made(
    *, in_open: bool, queued: bool, clock: FakeClock
) -> None:
    pool = ThreadPoolExecutor(1)
    asyncio.get_running_loop().set_default_executor(pool)
    storage = SlowStorage("half-open")
    breaker = pybreaker.CircuitBreaker(state_storage=storage)
    ledger = _ledger_of(breaker)

    def probing() -> bool:
        return ledger.tickets.probe is not None

    error = ConnectError("refused")
    go = asyncio.Event()
    puppet = Puppet(Script(opening=[go, error]) if in_open else Script(go, error))
    source = CircuitBreaker(breaker)(puppet)
    reading = asyncio.create_task(read(source, clock))
    await until(lambda: bool(puppet.live))
    await clock.settle()
    storage.shut()
    full = pool.submit(storage.gate.wait, 10) if queued else None
    go.set()
    await (clock.settle() if queued else until(storage.entered.is_set))
    reading.cancel()
    await clock.settle()
    assert reading.done() == in_open  # a stream's aclose() waits for the record, an open() just leaves
    assert probing()  # its place is its own until the record is made
    storage.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await asyncio.to_thread(lambda: None)  # the only thread: what was before us in its queue is done
    assert full is None or full.done()
    assert breaker.current_state == "open"
    assert not probing()
    assert not puppet.live


async def test_a_breaker_held_by_a_synchronous_call_elsewhere_does_not_block_the_loop(clock: FakeClock) -> None:
    breaker = pybreaker.CircuitBreaker()
    held, gate = threading.Event(), threading.Event()

    def slow() -> None:
        held.set()
        assert gate.wait(10)

    elsewhere = asyncio.create_task(asyncio.to_thread(breaker.call, slow))
    await until(held.is_set)
    opening = asyncio.create_task(CircuitBreaker(breaker)(Puppet(GOOD)).open(request_on(clock)))
    await clock.settle()
    assert not opening.done()
    gate.set()
    await elsewhere
    assert await drain(await opening) == ["a", "b"]


async def test_a_storage_that_raises_lets_streams_through_unjudged(clock: FakeClock) -> None:
    reported: list[BaseException] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, about: reported.append(about["exception"]))

    class Broken(pybreaker.CircuitMemoryStorage):
        down = False

        @property
        def state(self) -> str:
            if self.down:
                raise ConnectionError("the storage is down")
            return super().state

        @state.setter
        def state(self, state: str) -> None:
            self._state = state

    storage = Broken("closed")
    breaker = pybreaker.CircuitBreaker(fail_max=1, state_storage=storage)
    source = CircuitBreaker(breaker)(Puppet(BROKEN, GOOD, BROKEN, BROKEN))
    storage.down = True
    with pytest.raises(StreamBroken):
        await read(source, clock)
    assert await read(source, clock) == ["a", "b"]
    assert {type(error) for error in reported} == {ConnectionError}
    reported.clear()
    before = await source.open(request_on(clock))
    storage.down = False
    await fail_to_end(before)
    assert breaker.current_state == "closed"
    await fail(source, clock)
    assert breaker.current_state == "open"


# -- the contract ---------------------------------------------------------------------------------


@pytest.mark.parametrize("storage", [pybreaker.CircuitMemoryStorage, SlowStorage])
async def test_the_layer_keeps_the_contract_of_a_stream(storage: type[pybreaker.CircuitMemoryStorage]) -> None:
    breaker = pybreaker.CircuitBreaker(fail_max=10_000, state_storage=storage("closed"))
    # Promptness is counted in turns of the loop, and a thread takes as many as it likes to admit a stream.
    threaded = storage is SlowStorage
    await check_layer(CircuitBreaker(breaker), items=["a", "b", "c"], waits_to_fill=threaded)


async def test_a_probe_cancelled_anywhere_gives_its_place_back(clock: FakeClock) -> None:
    breaker = pybreaker.CircuitBreaker()
    inner = Inner(batches=[["a"], ["b"]], ticks=3)
    source = CircuitBreaker(breaker)(inner)

    async def probe() -> None:
        breaker.half_open()
        await read(source, clock)

    async def check() -> None:
        assert inner.opened == 0
        assert await read(source, clock) == ["a", "b"]
        assert breaker.current_state == "closed"

    assert await cancel_everywhere(probe, check=check) > 10


# -- pybreaker itself -------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    outcomes=st.lists(st.sampled_from(["success", "failure", "excluded"]), max_size=25),
    fail_max=st.integers(1, 3),
    threshold=st.integers(1, 3),
    reset_timeout=st.sampled_from([0, 3600]),
    throws=st.booleans(),
)
def test_outcomes_move_the_breaker_as_its_own_call_does(
    *, outcomes: list[str], fail_max: int, threshold: int, reset_timeout: float, throws: bool
) -> None:
    def made() -> tuple[pybreaker.CircuitBreaker, Log]:
        log = Log()
        return pybreaker.CircuitBreaker(
            fail_max=fail_max,
            success_threshold=threshold,
            reset_timeout=reset_timeout,
            exclude=[NotAStream],
            listeners=[log],
            throw_new_error_on_trip=throws,
        ), log

    (theirs, their_log), (ours, our_log) = made(), made()
    error = {"failure": StreamBroken("cut"), "excluded": NotAStream("a page")}

    def function(outcome: str) -> None:
        if outcome in error:
            raise error[outcome]

    async def compare() -> None:
        async with FakeClock(wall=datetime.now(UTC) + timedelta(seconds=5)) as clock:
            for outcome in outcomes:
                with suppress(pybreaker.CircuitBreakerError, StreamError):
                    theirs.call(function, outcome)
                script = Script("a", error[outcome]) if outcome in error else GOOD
                with suppress(StreamError):
                    await read(CircuitBreaker(ours)(Puppet(script)), clock)
                assert ours.current_state == theirs.current_state
                assert (ours.fail_counter, ours.success_counter) == (theirs.fail_counter, theirs.success_counter)
                assert our_log.heard == their_log.heard

    asyncio.run(compare())


def test_pybreaker_still_has_the_private_parts_that_the_layer_touches() -> None:
    breaker = pybreaker.CircuitBreaker(listeners=[Log()])
    assert isinstance(breaker._lock, type(threading.RLock()))
    assert isinstance(breaker._state_storage, pybreaker.CircuitMemoryStorage)
    assert breaker._state is breaker.state
    assert tuple(breaker._listeners) == breaker.listeners
    assert isinstance(breaker._listeners, list)
    for change in (breaker.close, breaker.half_open, breaker.open, breaker.open):
        before = breaker.state
        change()
        assert breaker.state is not before
        assert breaker.state is breaker.state


def test_the_layer_keeps_no_breaker_alive() -> None:
    breaker = pybreaker.CircuitBreaker()
    CircuitBreaker(breaker)(Puppet())
    gone = weakref.ref(breaker)
    del breaker
    gc.collect()
    assert gone() is None


def test_the_layer_draws_its_settings_and_refuses_what_is_no_breaker() -> None:
    layer = CircuitBreaker(pybreaker.CircuitBreaker(fail_max=7, reset_timeout=12.5, name="upstream"))
    assert repr(layer) == "CircuitBreaker('upstream', fail_max=7, reset_timeout=12.5)"
    assert repr(CircuitBreaker(pybreaker.CircuitBreaker())) == "CircuitBreaker(fail_max=5, reset_timeout=60)"
    with pytest.raises(TypeError, match=r"must be a pybreaker\.CircuitBreaker, not 5"):
        CircuitBreaker(5)  # type: ignore[arg-type]  # what a program without a type checker does
