"""Standing in line: whoever is first asks, a deadline ends it, and a wake-up is never lost, wherever it comes from."""

from __future__ import annotations

import asyncio
import math

import pytest

from holdfast._clock import SystemClock
from holdfast._waiting import Turn, stand_in
from holdfast.machines.line import Line
from holdfast.testing import FakeClock


async def test_a_wake_up_before_the_sleep_ends_it_at_once(clock: FakeClock) -> None:
    turn = Turn(clock)
    turn.wake()
    await turn.sleep(math.inf)
    sleeping = asyncio.create_task(turn.sleep(math.inf))
    await clock.sleep(1)
    assert not sleeping.done()
    turn.wake()
    await sleeping


async def test_a_wake_up_may_come_from_another_thread() -> None:
    turn = Turn(SystemClock())
    sleeping = asyncio.create_task(turn.sleep(math.inf))
    await asyncio.sleep(0)
    await asyncio.to_thread(turn.wake)
    await asyncio.wait_for(sleeping, 5)


async def test_a_wake_up_for_a_loop_that_has_gone_is_harmless() -> None:
    turns: list[Turn] = []

    async def leave() -> None:
        turns.append(Turn(SystemClock()))
        task = asyncio.create_task(turns[0].sleep(math.inf))
        await asyncio.sleep(0)
        task.cancel()

    await asyncio.to_thread(asyncio.run, leave())
    turns[0].wake()


async def test_who_is_first_asks_again_after_as_long_as_it_was_told(clock: FakeClock) -> None:
    asked: list[float] = []

    async def ask() -> float:
        asked.append(clock.now())
        return 2.0 if len(asked) < 3 else 0.0

    assert await stand_in(Line(), clock, ask, seconds=10)
    assert asked == [0, 2, 4]


@pytest.mark.parametrize(("wait", "ends"), [(11.0, 0.0), (math.inf, 10.0), (4.0, 8.0)])
async def test_it_ends_when_the_time_is_over_or_cannot_suffice(clock: FakeClock, wait: float, ends: float) -> None:
    line = Line()

    async def ask() -> float:
        return wait

    assert not await stand_in(line, clock, ask, seconds=10)
    assert (clock.now(), len(line)) == (ends, 0)


async def test_who_is_not_first_is_not_asked_and_leaves_at_its_deadline(clock: FakeClock) -> None:
    line = Line()
    line.enter(Turn(clock))

    async def ask() -> float:
        raise AssertionError("it is not our turn")

    assert not await stand_in(line, clock, ask, seconds=5)
    assert (clock.now(), len(line)) == (5, 1)


async def test_what_asking_raises_leaves_nobody_in_the_line(clock: FakeClock) -> None:
    line = Line()

    async def ask() -> float:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError):
        await stand_in(line, clock, ask, seconds=5)
    assert not line
