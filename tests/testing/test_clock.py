from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from holdfast._clock import Clock
from holdfast.testing import FakeClock


def test_is_a_clock() -> None:
    clock: Clock = FakeClock(now=5.0, wall=datetime(2030, 1, 1, tzinfo=UTC))
    assert clock.now() == 5.0
    assert clock.wall() == datetime(2030, 1, 1, tzinfo=UTC)


async def test_sleeping_takes_its_time_on_the_clock_and_none_in_the_world(clock: FakeClock) -> None:
    before = time.monotonic()
    await clock.sleep(3600.0)
    assert clock.now() == 3600.0
    assert time.monotonic() - before < 60
    assert clock.slept == [3600.0]


async def test_wall_time_goes_with_it(clock: FakeClock) -> None:
    before = clock.wall()
    await clock.sleep(90.0)
    assert clock.wall() - before == timedelta(seconds=90)


async def test_sleeping_for_nothing_yields_once(clock: FakeClock) -> None:
    ran: list[str] = []
    other = asyncio.create_task(_append(ran, "other"))
    await clock.sleep(0)
    ran.append("me")
    await other
    assert ran == ["other", "me"]
    assert clock.now() == 0.0


async def _append(ran: list[str], what: str) -> None:
    ran.append(what)


async def test_sleepers_wake_in_the_order_of_their_times(clock: FakeClock) -> None:
    woken: list[tuple[str, float]] = []

    async def sleeper(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append((name, clock.now()))

    async with asyncio.TaskGroup() as group:
        for name, seconds in (("c", 3.0), ("a", 1.0), ("b", 2.0), ("a2", 1.0)):
            group.create_task(sleeper(name, seconds))
    assert woken == [("a", 1.0), ("a2", 1.0), ("b", 2.0), ("c", 3.0)]


async def test_work_that_is_ready_is_never_jumped_over(clock: FakeClock) -> None:
    steps = 0

    async def busy() -> None:
        nonlocal steps
        for _ in range(500):
            await asyncio.sleep(0)
            steps += 1
            assert clock.now() == 0.0

    task = asyncio.create_task(busy())
    await clock.sleep(1.0)
    assert steps == 500
    await task


async def test_a_cancelled_timer_is_not_jumped_to(clock: FakeClock) -> None:
    timer = clock.call_at(50.0, pytest.fail)
    timer.cancel()
    await clock.sleep(100.0)
    assert clock.now() == 100.0
    with pytest.raises(asyncio.TimeoutError):
        async with asyncio.timeout(0.01):
            await asyncio.get_running_loop().create_future()
    assert clock.now() == 100.0


async def test_a_timer_called_off_by_another_of_the_same_moment_does_not_run(clock: FakeClock) -> None:
    ran: list[str] = []

    def first() -> None:
        ran.append("first")
        second.cancel()

    clock.call_at(1.0, first)
    second = clock.call_at(1.0, pytest.fail)
    await clock.sleep(2.0)
    assert ran == ["first"]


async def test_a_timer_in_the_past_runs_soon(clock: FakeClock) -> None:
    await clock.sleep(5.0)
    rang = asyncio.Event()
    clock.call_at(1.0, rang.set)
    await rang.wait()
    assert clock.now() == 5.0


async def test_a_cancelled_sleep_leaves_nothing(clock: FakeClock) -> None:
    task = asyncio.create_task(clock.sleep(10.0))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await clock.sleep(1.0)
    await asyncio.sleep(0)
    assert clock.now() == 1.0


async def test_by_hand_it_moves_only_when_told() -> None:
    async with FakeClock(autojump=False) as clock:
        woken: list[float] = []

        async def ticking() -> None:
            while True:
                await clock.sleep(2.0)
                woken.append(clock.now())

        task = asyncio.create_task(ticking())
        await clock.settle()
        assert woken == []
        await clock.advance(5.0)
        assert woken == [2.0, 4.0]
        assert clock.now() == 5.0
        await clock.advance(0.5)
        assert woken == [2.0, 4.0]
        await clock.advance(0.5)
        assert woken == [2.0, 4.0, 6.0]
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_advancing_goes_no_further_than_told_even_where_it_could_jump(clock: FakeClock) -> None:
    task = asyncio.create_task(clock.sleep(10.0))
    await clock.advance(4.0)
    assert clock.now() == 4.0
    assert not task.done()
    await task
    assert clock.now() == 10.0


async def test_real_sockets_are_served_first(clock: FakeClock) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                writer.write(await reader.readexactly(4))
                await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    alarm = asyncio.create_task(clock.sleep(60.0))
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    for _ in range(50):
        writer.write(b"ping")
        assert await reader.readexactly(4) == b"ping"
        assert clock.now() == 0.0
    writer.close()
    await writer.wait_closed()
    await alarm
    assert clock.now() == 60.0
    server.close()
    await server.wait_closed()


async def test_closing_it_takes_everything_out_of_the_loop(clock: FakeClock) -> None:
    selector: Any = getattr(asyncio.get_running_loop(), "_selector", None)
    if selector is None:
        pytest.skip("this loop shows no selector")
    await clock.sleep(1.0)
    assert "select" in vars(selector)
    clock.close()
    assert "select" not in vars(selector)
    await clock.sleep(1.0)
    assert clock.now() == 2.0


async def test_two_clocks_on_one_loop_may_be_closed_in_any_order() -> None:
    selector: Any = getattr(asyncio.get_running_loop(), "_selector", None)
    if selector is None:
        pytest.skip("this loop shows no selector")
    for order in ((0, 1), (1, 0)):
        clocks = FakeClock(), FakeClock()
        for clock in clocks:
            await clock.sleep(1.0)
        clocks[order[0]].close()
        await clocks[order[1]].sleep(1.0)
        assert clocks[order[1]].now() == 2.0
        clocks[order[1]].close()
        async with asyncio.timeout(1.0):
            await asyncio.sleep(0.001)


def test_one_clock_serves_one_loop_after_another() -> None:
    clock = FakeClock()
    for _ in range(3):
        asyncio.run(clock.sleep(7.0))
    assert clock.now() == 21.0


def _on_uvloop(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    uvloop = pytest.importorskip("uvloop")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def test_on_a_loop_without_a_selector_it_jumps_as_well() -> None:
    clock = FakeClock()
    seen: list[tuple[str, float]] = []

    async def sleeper(name: str, *seconds: float) -> None:
        for each in seconds:
            await clock.sleep(each)
            seen.append((name, clock.now()))

    async def main() -> None:
        async with clock, asyncio.TaskGroup() as group:
            group.create_task(sleeper("a", 1.0, 10.0))
            group.create_task(sleeper("b", 5.0, 5.0))

    _on_uvloop(main)
    assert seen == [("a", 1.0), ("b", 5.0), ("b", 10.0), ("a", 11.0)]


def test_on_a_loop_without_a_selector_it_moves_by_hand_as_well() -> None:
    async def main() -> None:
        async with FakeClock(autojump=False) as clock:
            task = asyncio.create_task(clock.sleep(3.0))
            await clock.advance(2.0)
            assert not task.done()
            await clock.advance(1.0)
            assert task.done()

    _on_uvloop(main)
