"""ReadAhead reads while its consumer is busy, within its bound, and leaves no task behind."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast._errors import DeadlineExceeded, EndOfStream, StreamBroken, UsageError
from holdfast.layers.read_ahead import ReadAhead
from holdfast.testing import FakeClock, cancel_everywhere
from tests.puppet import Puppet, Script, Wait, drain, request_on


def test_a_bound_that_cannot_be_is_named() -> None:
    with pytest.raises(ValueError, match=r"ReadAhead\(max_items=...\) must be a whole number from 1, not 0"):
        ReadAhead(max_items=0)
    with pytest.raises(ValueError, match=r"ReadAhead\(unread=...\) must be a number of seconds above 0 or None, not 0"):
        ReadAhead(unread=0)


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_what_came_while_the_consumer_was_busy_is_one_batch(clock: FakeClock) -> None:
    stream = await ReadAhead()(Puppet(["a", ["b", "c"], Wait(1.0), "d"])).open(request_on(clock))
    await turns()
    assert await stream.receive() == ["a", "b", "c"]
    await clock.sleep(5.0)
    assert await stream.receive() == ["d"]
    assert clock.now() == 5.0
    await stream.aclose()


async def test_it_stops_reading_when_enough_items_wait(clock: FakeClock) -> None:
    puppet = Puppet([*"abcdef"])
    stream = await ReadAhead(max_items=2)(puppet).open(request_on(clock))
    (inner,) = puppet.live
    await turns()
    assert inner.received == 2
    assert await stream.receive() == ["a", "b"]
    await turns()
    assert inner.received == 4
    assert await drain(stream) == ["c", "d", "e", "f"]
    await stream.aclose()


async def test_a_batch_is_never_larger_than_the_bound(clock: FakeClock) -> None:
    stream = await ReadAhead(max_items=2)(Puppet([list("abc"), "d"])).open(request_on(clock))
    await turns()
    assert await stream.receive() == ["a", "b"]
    assert await stream.receive() == ["c"]
    assert await stream.receive() == ["d"]
    await stream.aclose()


async def test_a_failure_comes_after_everything_before_it_and_stays(clock: FakeClock) -> None:
    broken = StreamBroken("cut")
    stream = await ReadAhead()(Puppet(["a", "b", broken])).open(request_on(clock))
    await turns()
    assert await stream.receive() == ["a", "b"]
    for _ in range(2):
        with pytest.raises(StreamBroken) as caught:
            await stream.receive()
        assert caught.value is broken
    await stream.aclose()


async def test_an_error_of_the_program_reaches_the_reader(clock: FakeClock) -> None:
    stream = await ReadAhead()(Puppet(["a", ZeroDivisionError("bug")])).open(request_on(clock))
    assert await stream.receive() == ["a"]
    with pytest.raises(ZeroDivisionError):
        await stream.receive()
    await stream.aclose()


async def test_a_failure_that_nobody_read_makes_no_noise(clock: FakeClock) -> None:
    noise: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: noise.append(context))
    stream = await ReadAhead()(Puppet([StreamBroken("cut")])).open(request_on(clock))
    await turns()
    await stream.aclose()
    del stream
    gc.collect()
    await turns()
    assert noise == []


async def test_a_reader_waiting_when_the_stream_is_closed_is_told(clock: FakeClock) -> None:
    stream = await ReadAhead()(Puppet([Wait()])).open(request_on(clock))
    reader = asyncio.create_task(stream.receive())
    await turns()
    await stream.aclose()
    with pytest.raises(UsageError, match="closed"):
        await reader


async def test_a_stream_closed_before_its_task_began_does_not_hang(clock: FakeClock) -> None:
    puppet = Puppet(["a"])
    stream = await ReadAhead()(puppet).open(request_on(clock))
    await stream.aclose()
    assert not puppet.live
    with pytest.raises(UsageError, match="closed"):
        await stream.receive()


async def test_wherever_it_is_cancelled_nothing_stays_open_or_running(clock: FakeClock) -> None:
    puppet = Puppet([*"abc", Wait(1.0), "d"], repeat=True)

    async def scenario() -> None:
        stream = await ReadAhead(max_items=2)(puppet).open(request_on(clock))
        try:
            assert await drain(stream) == ["a", "b", "c", "d"]
        finally:
            await stream.aclose()

    def check() -> None:
        assert not puppet.live
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "holdfast-read-ahead"]

    assert await cancel_everywhere(scenario, check=check) > 5


@settings(max_examples=60)
@given(st.lists(st.lists(st.integers(), min_size=1, max_size=5), max_size=6), st.integers(1, 4), st.booleans())
def test_any_items_in_any_batches_come_out_as_they_are(
    inner: list[list[int]],
    max_items: int,
    slow: bool,  # noqa: FBT001 - drawn
) -> None:
    async def read() -> list[Any]:
        stream = await ReadAhead(max_items=max_items)(Puppet(Script(*inner))).open(request_on())
        got = []
        try:
            while True:
                if slow:
                    await turns(3)
                got.append(await stream.receive())
        except EndOfStream:
            await stream.aclose()
            return got

    got = asyncio.run(read())
    assert [item for batch in got for item in batch] == [item for batch in inner for item in batch]
    assert all(1 <= len(batch) <= max_items for batch in got)


# -- a reader that does not come -------------------------------------------------------------------


async def test_a_reader_that_does_not_come_ends_the_stream(clock: FakeClock) -> None:
    puppet = Puppet([*"abcdef"])
    stream = await ReadAhead(max_items=2, unread=60.0)(puppet).open(request_on(clock))
    await clock.sleep(59.0)
    assert await stream.receive() == ["a", "b"]
    await clock.sleep(59.0)  # each time that room is made the clock begins anew
    assert puppet.live
    await clock.sleep(2.0)
    assert not puppet.live
    assert await stream.receive() == ["c", "d"]
    for _ in range(2):
        with pytest.raises(DeadlineExceeded, match="waited 60 s for its reader"):
            await stream.receive()
    await stream.aclose()


async def test_a_stream_that_fits_waits_for_its_reader_as_long_as_it_likes(clock: FakeClock) -> None:
    stream = await ReadAhead(max_items=9, unread=60.0)(Puppet([*"abc"])).open(request_on(clock))
    await clock.sleep(3600.0)
    assert await drain(stream) == ["a", "b", "c"]
    await stream.aclose()


async def test_closing_while_it_waits_for_its_reader_leaves_nothing(clock: FakeClock) -> None:
    made: list[Puppet] = []

    async def scenario() -> None:
        made.append(Puppet([*"abcdef"]))
        stream = await ReadAhead(max_items=2, unread=5.0)(made[-1]).open(request_on(clock))
        try:
            await clock.sleep(6.0)
        finally:
            await stream.aclose()

    def check() -> None:
        assert not made[-1].live

    assert await cancel_everywhere(scenario, check=check) > 3
