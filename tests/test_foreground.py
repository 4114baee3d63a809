"""The loop without a thread: it runs in whoever waits, lets others in while he blocks, and rings its timers."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from weakref import ref

import pytest

from holdfast._background import background
from holdfast._clock import Alarm, SystemClock
from holdfast._errors import UsageError
from holdfast._foreground import Foreground, _watch, foreground


class Line:
    """A connection whose reader blocks."""

    def __init__(self, loop: Foreground) -> None:
        self.loop = loop
        self.near, self.far = socket.socketpair()
        self.readers: list[str] = []

    def recv(self) -> bytes:
        self.readers.append(threading.current_thread().name)
        return self.near.recv(100)

    def hang_up(self) -> None:
        self.near.shutdown(socket.SHUT_RDWR)

    async def read(self) -> bytes:
        return await self.loop.block(self.recv, self.hang_up)


@pytest.fixture
def loop() -> Foreground:
    return foreground()


@pytest.fixture
def line(loop: Foreground) -> Iterator[Line]:
    made = Line(loop)
    with made.near, made.far:
        yield made


def test_it_runs_in_the_thread_and_the_context_of_who_asks(loop: Foreground) -> None:
    var = contextvars.ContextVar("var", default="none")
    var.set("mine")

    async def look() -> tuple[str, str]:
        await asyncio.sleep(0)
        assert asyncio.get_running_loop() is loop
        return threading.current_thread().name, var.get()

    assert loop.run(look()) == (threading.current_thread().name, "mine")
    with ThreadPoolExecutor(1, "other") as pool:
        assert pool.submit(loop.run, look()).result(5) == ("other_0", "none")


def test_it_raises_what_is_raised(loop: Foreground) -> None:
    async def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        loop.run(fail())


def test_timers_and_timeouts_work_without_a_socket(loop: Foreground) -> None:
    async def wait() -> str:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await asyncio.sleep(60)
        return "done"

    assert loop.run(wait()) == "done"


def test_it_can_be_woken_from_a_thread(loop: Foreground) -> None:
    async def wait() -> int:
        future: asyncio.Future[int] = loop.create_future()
        threading.Timer(0.01, lambda: loop.call_soon_threadsafe(future.set_result, 7)).start()
        return await future

    assert loop.run(wait()) == 7


async def test_where_a_loop_runs_it_takes_a_thread_of_its_own(loop: Foreground) -> None:
    async def name() -> str:
        return threading.current_thread().name

    assert loop.run(name()) == "holdfast-worker"


def test_what_runs_in_it_cannot_wait_for_it(loop: Foreground) -> None:
    async def nothing() -> None: ...

    async def nested() -> None:
        loop.run(nothing())

    with pytest.raises(UsageError, match="itself"):
        loop.run(nested())


def test_a_read_blocks_in_the_thread_of_its_reader(loop: Foreground, line: Line) -> None:
    line.far.send(b"kelp")
    assert loop.run(line.read()) == b"kelp"
    assert line.readers == [threading.current_thread().name]


def test_what_reading_raises_is_the_readers(loop: Foreground, line: Line) -> None:
    line.near.close()
    with pytest.raises(OSError, match="descriptor"):
        loop.run(line.read())


def test_a_timer_ends_a_read_that_blocks(loop: Foreground, line: Line) -> None:
    async def read() -> str:
        alarm = Alarm(SystemClock())
        alarm.arm(time.monotonic() + 0.05)
        try:
            await line.read()
        except asyncio.CancelledError:
            return "rung" if alarm.disarm() else "cancelled"
        return "read"

    begun = time.monotonic()
    assert loop.run(read()) == "rung"
    assert time.monotonic() - begun < 5


def test_a_timer_that_has_been_moved_ends_nothing(loop: Foreground, line: Line) -> None:
    """An alarm that finds itself early goes to sleep again; who blocks sleeps on."""

    async def read() -> bytes:
        alarm = Alarm(SystemClock())
        alarm.arm(time.monotonic() + 0.02)
        alarm.arm(time.monotonic() + 60)
        try:
            return await line.read()
        finally:
            alarm.close()

    threading.Timer(0.15, line.far.send, [b"late"]).start()
    assert loop.run(read()) == b"late"


def test_many_loops_are_watched_at_once() -> None:
    loops = [foreground() for _ in range(60)]

    def one(number: int) -> bool:
        loop = loops[number]
        line = Line(loop)

        async def read() -> bytes:
            async with asyncio.timeout(0.02 + number % 7 / 50):
                return await line.read()

        with line.near, line.far, pytest.raises(TimeoutError):
            loop.run(read())
        loop.close()
        return True

    with ThreadPoolExecutor(20) as pool:
        assert all(pool.map(one, range(60), timeout=20))
    deadline = time.monotonic() + 5
    while _watch._loops & set(loops) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _watch._loops & set(loops)


def test_another_thread_closes_while_the_first_reads(loop: Foreground, line: Line) -> None:
    async def close() -> str:
        await loop.unblock()
        return "closed"

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(loop.run, line.read())
        while not line.readers:
            time.sleep(0.001)
        assert loop.run(close()) == "closed"
        assert reading.result(5) == b"", "it came back, with nothing"


def test_two_readers_take_turns(loop: Foreground) -> None:
    counts: list[int] = []

    async def count() -> None:
        for _ in range(50):
            counts.append(1)
            await asyncio.sleep(0.0005)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: loop.run(count()), range(4), timeout=20))
    assert len(counts) == 200


def test_an_interruption_ends_what_was_waited_for_and_leaves_the_loop_whole(loop: Foreground, line: Line) -> None:
    cleaned: list[bool] = []

    async def read() -> None:
        try:
            await line.read()
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        with pytest.raises(KeyboardInterrupt):
            loop.run(read())
    finally:
        signal.signal(signal.SIGALRM, before)
    assert cleaned == [True]
    line.far.send(b"more")
    assert loop.run(line.read()) == b"more"


def test_what_is_left_is_seen_to_by_another_thread(loop: Foreground) -> None:
    seen: list[str] = []
    told = threading.Event()

    async def close() -> None:
        seen.append(threading.current_thread().name)
        told.set()

    background()
    loop.leave(close)
    assert told.wait(5)
    assert seen == ["holdfast-worker"]


def test_a_child_of_a_fork_has_no_part_in_it(loop: Foreground) -> None:
    async def nothing() -> None: ...

    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            loop.run(nothing())
        except UsageError as error:
            os.write(write, str(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    assert b"before a fork" in os.read(read, 200)
    os.close(read)
    os.waitpid(child, 0)
    loop.run(nothing())


def test_it_is_collected_with_its_call() -> None:
    loop = foreground()
    loop.run(asyncio.sleep(0))
    gone = ref(loop)
    del loop
    gc.collect()
    assert gone() is None
