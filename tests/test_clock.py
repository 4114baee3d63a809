from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC

import pytest

from holdfast._clock import Alarm, Clock, Random, SystemClock, Timer, system_random
from holdfast.testing import FakeClock


def _cancelling() -> int:
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


async def _rings(alarm: Alarm, when: float, wait: Awaitable[object]) -> bool:
    """Waits under the alarm and says whether it was the alarm that ended the waiting. An outer cancellation passes."""
    alarm.arm(when)
    try:
        await wait
    except asyncio.CancelledError:
        if alarm.disarm():
            return True
        raise
    return alarm.disarm()


async def _forever() -> None:
    await asyncio.get_running_loop().create_future()


# -- the system's time and chance --------------------------------------------------------------


async def test_system_time_is_a_clock() -> None:
    clock: Clock = SystemClock()
    before = clock.now()
    await clock.sleep(0.005)
    assert clock.now() - before >= 0.003, "uvloop's timers know whole milliseconds"
    assert abs(clock.wall().timestamp() - time.time()) < 5
    assert clock.wall().tzinfo is UTC
    rang = asyncio.Event()
    clock.call_at(clock.now() - 1.0, rang.set)
    async with asyncio.timeout(5):
        await rang.wait()


def test_system_chance_differs_from_one_generator_to_the_next() -> None:
    one: Random = system_random()
    assert 0 <= one.random() < 1
    assert one.random() != system_random().random()


# -- the alarm ---------------------------------------------------------------------------------


async def test_an_alarm_interrupts_a_wait_at_its_time(clock: FakeClock) -> None:
    assert await _rings(Alarm(clock), 5.0, _forever())
    assert clock.now() == 5.0
    assert _cancelling() == 0


async def test_a_wait_that_ends_in_time_is_left_alone(clock: FakeClock) -> None:
    assert not await _rings(Alarm(clock), 5.0, clock.sleep(4.9))
    await clock.sleep(60.0)
    assert _cancelling() == 0


async def test_it_rings_once(clock: FakeClock) -> None:
    alarm = Alarm(clock)
    assert await _rings(alarm, 5.0, _forever())
    await clock.sleep(60.0)
    assert not await _rings(alarm, clock.now() + 5.0, clock.sleep(1.0))
    assert await _rings(alarm, clock.now() + 5.0, _forever())
    assert clock.now() == 71.0


async def test_it_does_not_ring_while_nobody_waits(clock: FakeClock) -> None:
    alarm = Alarm(clock)
    assert not await _rings(alarm, 5.0, clock.sleep(1.0))
    await clock.sleep(100.0)
    assert not await _rings(alarm, clock.now() + 5.0, clock.sleep(4.0))


@pytest.mark.parametrize("later", [3.0, 5.0, 8.0, 1000.0])
async def test_re_armed_it_rings_at_the_new_time_later_or_earlier(clock: FakeClock, later: float) -> None:
    alarm = Alarm(clock)
    assert not await _rings(alarm, 5.0, clock.sleep(1.0))
    assert await _rings(alarm, later, _forever())
    assert clock.now() == later


async def test_moved_on_at_every_wait_it_rings_after_the_last(clock: FakeClock) -> None:
    alarm = Alarm(clock)
    for _ in range(20):
        assert not await _rings(alarm, clock.now() + 5.0, clock.sleep(3.0))
    assert await _rings(alarm, clock.now() + 5.0, _forever())
    assert clock.now() == 65.0


async def test_one_timer_serves_many_waits() -> None:
    started = 0

    class Counting(SystemClock):
        def call_at(self, when: float, call: Callable[[], None]) -> Timer:
            nonlocal started
            started += 1
            return super().call_at(when, call)

    clock = Counting()
    alarm = Alarm(clock)
    for _ in range(100):
        assert not await _rings(alarm, clock.now() + 60.0, asyncio.sleep(0))
    assert started == 1
    alarm.close()


async def test_a_time_already_past_interrupts_a_wait_but_not_what_is_ready(clock: FakeClock) -> None:
    async def ready() -> None:
        """Returns without giving the loop a turn."""

    alarm = Alarm(clock)
    await clock.sleep(10.0)
    assert not await _rings(alarm, 5.0, ready())
    assert await _rings(alarm, 5.0, _forever())
    assert clock.now() == 10.0


async def test_closed_it_leaves_no_timer(clock: FakeClock) -> None:
    alarm = Alarm(clock)
    alarm.arm(5.0)
    assert not alarm.disarm()
    alarm.close()
    alarm.close()
    assert clock._next() is None


# -- other people's cancellations --------------------------------------------------------------


@pytest.mark.parametrize("alarm_first", [True, False])
async def test_an_outer_cancellation_that_meets_it_wins(clock: FakeClock, *, alarm_first: bool) -> None:
    counts: list[int] = []

    async def reader() -> None:
        try:
            await _rings(Alarm(clock), 5.0, _forever())
        finally:
            counts.append(_cancelling())

    def cancel() -> None:
        task.cancel()

    if not alarm_first:
        clock.call_at(5.0, cancel)
    task = asyncio.create_task(reader())
    await asyncio.sleep(0)
    if alarm_first:
        clock.call_at(5.0, cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert clock.now() == 5.0
    assert counts == [1], "the outer cancellation stays counted, the alarm's own does not"
    assert task.cancelled()


async def test_an_outer_cancellation_before_its_time_passes_through(clock: FakeClock) -> None:
    task = asyncio.create_task(_rings(Alarm(clock), 5.0, _forever()))
    await clock.advance(1.0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert clock.now() == 1.0


async def test_in_a_task_that_was_cancelled_before_it_still_knows_its_own(clock: FakeClock) -> None:
    """A task that cleans up after its cancellation may read under an alarm: the old cancellation is not the new one."""
    found: list[bool] = []

    async def reader() -> None:
        try:
            await _forever()
        except asyncio.CancelledError:
            found.append(await _rings(Alarm(clock), 5.0, _forever()))
            raise

    task = asyncio.create_task(reader())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert found == [True]


async def test_a_timeout_around_it_stays_whole(clock: FakeClock) -> None:
    """`asyncio.timeout()` of real time around, the alarm inside: each takes back its own cancellation only."""
    async with asyncio.timeout(30) as scope:
        assert await _rings(Alarm(clock), 5.0, _forever())
        assert _cancelling() == 0
    assert not scope.expired()
    async with FakeClock(autojump=False) as still:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await _rings(Alarm(still), 5.0, _forever())
    assert _cancelling() == 0


async def test_a_timeout_inside_that_expires_at_the_same_moment_stays_whole(clock: FakeClock) -> None:
    async def inner() -> None:
        async with asyncio.timeout(None) as scope:
            scope.reschedule(asyncio.get_running_loop().time())
            await clock.sleep(5.0)
            await _forever()

    with pytest.raises(TimeoutError):
        await _rings(Alarm(clock), 5.0, inner())
    assert _cancelling() == 0


@pytest.mark.parametrize("inner_first", [True, False])
async def test_of_two_alarms_at_the_same_moment_the_outer_wins(clock: FakeClock, *, inner_first: bool) -> None:
    inner, outer = Alarm(clock), Alarm(clock)

    async def wait() -> None:
        assert not await _rings(inner, 5.0, clock.sleep(0 if inner_first else 1.0))
        await _rings(inner, 5.0, _forever())

    assert await _rings(outer, 5.0, wait())
    assert clock.now() == 5.0
    assert _cancelling() == 0
    await asyncio.sleep(0)


# -- what completes at the same moment ---------------------------------------------------------


async def test_a_wait_that_completes_at_the_same_moment_before_it_is_complete(clock: FakeClock) -> None:
    answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    clock.call_at(5.0, lambda: answer.set_result("in time"))
    alarm = Alarm(clock)
    alarm.arm(5.0)
    try:
        await answer
    except asyncio.CancelledError:
        assert alarm.disarm()
    else:
        assert not alarm.disarm()
    assert answer.result() == "in time"
    assert _cancelling() == 0
    await asyncio.sleep(0)


async def test_a_wait_that_swallows_the_interruption_keeps_its_result(clock: FakeClock) -> None:
    async def stubborn() -> str:
        try:
            await _forever()
        except asyncio.CancelledError:
            return "all the same"
        raise AssertionError

    alarm = Alarm(clock)
    alarm.arm(5.0)
    assert await stubborn() == "all the same"
    assert alarm.disarm()
    assert _cancelling() == 0
    await asyncio.sleep(0)  # a cancellation that was still pending would strike here


async def test_a_wait_for_another_task_is_interrupted_and_counted_as_well(clock: FakeClock) -> None:
    child = asyncio.create_task(_forever())
    assert await _rings(Alarm(clock), 5.0, child)
    assert child.cancelled()
    assert _cancelling() == 0
    await asyncio.sleep(0)
