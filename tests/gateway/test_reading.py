"""Readings: every reader gets every record from his place on, once, whatever he and the others do."""

from __future__ import annotations

import asyncio

import pytest

from holdfast._types import Head
from holdfast.gateway.journal import Shelved
from holdfast.gateway.journal.memory import MemoryJournal
from holdfast.gateway.log import Ending, Log
from holdfast.gateway.reading import HEARTBEAT, Heart, Reading
from holdfast.gateway.records import record
from holdfast.gateway.streams import Running
from holdfast.testing import cancel_everywhere
from tests.gateway.acting import Sink, entry, streams

WHOLE = Ending(kind="complete")


class Stage:
    """A stream that a test writes, and those who read it."""

    def __init__(self, *, max_bytes: int = 10**6, heartbeat: float = 60.0) -> None:
        self.log = Log(max_bytes=max_bytes)
        self.log.start(Head())
        self.shelved = Shelved(entry(), self.log)
        self.running = Running(streams(), self.shelved)
        self.heart = Heart(heartbeat)
        self.journal = MemoryJournal()
        self.written = b""

    def reading(self, after: int = 0, *, returns: bool = False) -> Reading:
        return Reading(self.running, after, self.journal, returns=returns)

    def read(self, to: Sink, after: int = 0) -> asyncio.Task[None]:
        return asyncio.create_task(self.reading(after).run(to, self.heart))

    def write(self, *blocks: bytes) -> None:
        first = self.log.last + 1
        records = [record(self.shelved.entry.stream, n, one) for n, one in enumerate(blocks, first)]
        self.written += b"".join(records)
        self.log.extend(records)


def block(number: int, size: int = 0) -> bytes:
    return b"data: %d %b\n\n" % (number, b"x" * size)


async def done(*tasks: asyncio.Task[None]) -> None:
    async with asyncio.timeout(20):
        await asyncio.gather(*tasks)


@pytest.mark.parametrize("place", range(7))
@pytest.mark.parametrize("live", range(7))
async def test_from_every_place_at_every_moment_the_rest_is_the_same(place: int, live: int) -> None:
    """`live` records are there when the reader comes, the others come while he reads."""
    stage, sink = Stage(), Sink()
    for number in range(live):
        stage.write(block(number))
    task = stage.read(sink, place)
    await asyncio.sleep(0)
    for number in range(live, 6):
        stage.write(block(number))
        if number % 2:
            await asyncio.sleep(0)
    stage.log.end(WHOLE)
    await done(task)
    assert stage.written.endswith(sink.data)
    assert sink.data.count(b"data: ") == 6 - place


async def test_one_who_has_everything_is_sent_what_is_new_at_once() -> None:
    stage, sink = Stage(), Sink()
    task = stage.read(sink)
    await asyncio.sleep(0)
    for number in range(10):
        stage.write(block(number))
        assert sink.data == stage.written
    assert sink.pushes == 10
    stage.log.end(WHOLE)
    await done(task)
    assert sink.data == stage.written


async def test_a_slow_reader_is_written_in_larger_pieces_and_delays_nobody() -> None:
    stage, slow, fast = Stage(), Sink(takes=100), Sink()
    tasks = [stage.read(slow), stage.read(fast)]
    await asyncio.sleep(0)
    for number in range(3_000):
        stage.write(block(number, 100))
        if number % 50 == 0:
            await asyncio.sleep(0)
        assert fast.data.endswith(b"-%d\n\n" % stage.log.last)
    assert len(slow.data) < 100 + 65 * 1024
    slow.open.set()
    stage.log.end(WHOLE)
    await done(*tasks)
    assert slow.data == fast.data == stage.written


async def test_a_hundred_readers_from_everywhere_get_all_of_it() -> None:
    stage = Stage()
    sinks = [Sink(None if number % 3 else 50) for number in range(100)]
    tasks = []
    for number, sink in enumerate(sinks):
        stage.write(block(number))
        tasks.append(stage.read(sink, number % 5))
        if number % 7 == 0:
            await asyncio.sleep(0)
    stage.log.end(WHOLE)
    for sink in sinks:
        sink.open.set()
    await done(*tasks)
    assert all(stage.written.endswith(sink.data) for sink in sinks)
    assert all(sink.data.count(b"data: ") == 100 - number % 5 for number, sink in enumerate(sinks))


async def test_silence_is_broken_by_a_comment_and_only_silence() -> None:
    stage, sink = Stage(heartbeat=0.04), Sink()
    task = stage.read(sink)
    for number in range(8):
        stage.write(block(number))
        await asyncio.sleep(0.01)
    assert HEARTBEAT not in sink.data
    async with asyncio.timeout(20):
        while sink.data.count(HEARTBEAT) < 2:  # noqa: ASYNC110 - a sink tells nobody
            await asyncio.sleep(0.005)
    stage.write(block(9))
    stage.log.end(WHOLE)
    await done(task)
    assert sink.data.replace(HEARTBEAT, b"") == stage.written
    assert HEARTBEAT.startswith(b":")
    assert not HEARTBEAT.endswith(b"\n\n")


async def test_records_that_are_gone_end_in_an_error_and_not_in_a_gap() -> None:
    stage, sink = Stage(max_bytes=1_000), Sink()
    for number in range(100):
        stage.write(block(number, 50))
    reading = stage.reading(3)
    async with asyncio.timeout(20):
        await reading.run(sink, stage.heart)
    assert reading.broken
    assert b'"error"' in sink.data
    assert b"data: 3" not in sink.data


async def test_one_slower_than_the_log_can_hold_ends_in_an_error_too() -> None:
    stage, sink = Stage(max_bytes=2_000), Sink(takes=1)
    reading = stage.reading()
    task = asyncio.create_task(reading.run(sink, stage.heart))
    await asyncio.sleep(0)
    for number in range(200):
        stage.write(block(number, 50))
        await asyncio.sleep(0)
    sink.open.set()
    await done(task)
    assert reading.broken
    assert stage.written.startswith(sink.data.partition(b"data: {")[0])


@pytest.mark.parametrize("mistake", [ZeroDivisionError, KeyError])
async def test_a_rewriting_that_fails_is_its_readers_trouble_alone(mistake: type[Exception]) -> None:
    def rewrite(data: bytes) -> bytes:
        raise mistake

    stage, sink, other = Stage(), Sink(), Sink()
    broken = asyncio.create_task(Reading(stage.running, 0, stage.journal, rewrite).run(sink, stage.heart))
    well = stage.read(other)
    await asyncio.sleep(0)
    stage.write(block(1))
    stage.log.end(WHOLE)
    await done(well)
    with pytest.raises(mistake):
        await broken
    assert other.data == stage.written


async def test_only_those_who_can_come_back_are_sent_away() -> None:
    stage, sink, stays = Stage(), Sink(), Sink()
    reading = stage.reading(returns=True)
    leaving = asyncio.create_task(reading.run(sink, stage.heart))
    staying = stage.read(stays)
    await asyncio.sleep(0)
    stage.write(block(1))
    stage.heart.send_away()
    await done(leaving)
    assert reading.left
    assert sink.data.endswith(b"retry: 500\n")
    stage.write(block(2))
    stage.log.end(WHOLE)
    await done(staying)
    assert stays.data == stage.written


async def test_cancelled_at_every_await_a_reading_leaves_nothing_behind() -> None:
    stages: list[Stage] = []

    async def scenario() -> None:
        stage, sink = Stage(), Sink(takes=10)
        stages.append(stage)
        stage.write(block(1), block(2))
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().call_soon(sink.open.set)
        asyncio.get_running_loop().call_soon(stage.write, block(3))
        asyncio.get_running_loop().call_soon(stage.log.end, WHOLE)
        await stage.reading().run(sink, stage.heart)

    def check() -> None:
        stage = stages.pop()
        stage.write(block(4))  # nobody hears it
        assert not stage.log._wakers
        assert not stage.heart._readings

    assert await cancel_everywhere(scenario, check=check) > 1
