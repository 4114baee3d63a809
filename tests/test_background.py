"""The loop in the background: started once, interrupted cleanly, gone at exit, new in a forked child."""

from __future__ import annotations

import asyncio
import contextvars
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from holdfast._background import QUEUED, Background, Pump, Worker, background
from holdfast._errors import UsageError


@pytest.fixture
def loop() -> Iterator[Background]:
    own = Background()
    yield own
    own.stop()
    assert own.loop.is_closed()


async def _name() -> str:
    return threading.current_thread().name


def test_there_is_one_for_all_threads() -> None:
    with ThreadPoolExecutor(20) as pool:
        assert len({id(one) for one in pool.map(lambda _: background(), range(100))}) == 1
    assert background().call(_name()) == "holdfast-loop"


def test_a_call_gives_what_the_coroutine_gives_in_the_callers_context(loop: Background) -> None:
    var = contextvars.ContextVar("var", default="none")
    var.set("mine")

    async def read() -> str:
        return var.get()

    async def fail() -> None:
        raise ValueError("no")

    assert loop.call(read()) == "mine"
    with pytest.raises(ValueError, match="no"):
        loop.call(fail())


def test_a_call_from_the_loop_itself_is_refused(loop: Background) -> None:
    async def nested() -> str:
        return loop.call(_name())

    with pytest.raises(UsageError, match="itself"):
        loop.call(nested())


def test_a_loop_that_has_ended_says_so() -> None:
    own = Background()
    own.stop()
    with pytest.raises(UsageError, match="ended"):
        own.call(_name())


def test_what_still_runs_is_cancelled_at_the_end() -> None:
    own, ended = Background(), threading.Event()

    async def wait() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    own.soon(lambda: own.loop.create_task(wait()))
    own.call(_name())
    own.stop()
    assert ended.is_set()


def test_a_pump_reads_no_further_ahead_than_it_may_and_keeps_the_order(loop: Background) -> None:
    read: list[int] = []
    closed = threading.Event()

    async def next_number() -> int | None:
        read.append(len(read) + 1)
        return read[-1] if len(read) <= 200 else None

    async def close() -> None:
        closed.set()

    pump = Pump(loop, next_number, close)
    loop.soon(pump.start)
    time.sleep(0.1)
    assert len(read) == QUEUED
    got: list[int] = []
    while (number := pump.next()) is not None:
        got.append(number)
        assert len(read) <= len(got) + QUEUED + 1
    assert got == list(range(1, 201))
    assert pump.next() is None
    pump.close()
    pump.close()
    assert closed.is_set()


def test_what_a_pump_meets_comes_after_what_it_had(loop: Background) -> None:
    left = [3, 2, 1]

    async def read() -> int | None:
        if not left:
            raise ValueError("torn")
        return left.pop()

    async def close() -> None: ...

    pump = Pump(loop, read, close)
    loop.soon(pump.start)
    assert [pump.next(), pump.next(), pump.next()] == [1, 2, 3]
    for _ in range(2):
        with pytest.raises(ValueError, match="torn"):
            pump.next()
    pump.close()


def test_two_threads_that_read_one_pump_both_come_to_its_end(loop: Background) -> None:
    async def read() -> int | None:
        return None

    async def close() -> None: ...

    pump = Pump(loop, read, close)
    readers = [threading.Thread(target=pump.next, daemon=True) for _ in range(3)]
    for reader in readers:
        reader.start()
    loop.soon(pump.start)
    for reader in readers:
        reader.join(5)
        assert not reader.is_alive()
    pump.close()


def test_a_worker_does_one_thing_after_another_and_ends() -> None:
    worker = Worker()
    assert [worker.submit(lambda n=n: n).result(1) for n in range(3)] == [0, 1, 2]  # type: ignore[misc]  # a default
    with pytest.raises(ZeroDivisionError):
        worker.submit(lambda: 1 // 0).result(1)
    worker.end()
    worker._thread.join(1)
    assert not worker._thread.is_alive()


def test_a_child_gets_its_own() -> None:
    before = background()
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            mine = background()
            os.write(write, b"new" if mine is not before and mine.call(_name()) == "holdfast-loop" else b"old")
        finally:
            os._exit(0)
    os.close(write)
    assert os.read(read, 9) == b"new"
    os.close(read)
    os.waitpid(child, 0)
    assert background() is before


def test_it_is_gone_at_exit_and_keeps_nobody_from_leaving() -> None:
    program = """
import asyncio
from holdfast._background import background, Pump
async def wait(): await asyncio.sleep(3600)
pump = Pump(background(), wait, wait)
background().soon(pump.start)
print("done")
"""
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    assert (done.stdout, done.stderr) == ("done\n", "")
