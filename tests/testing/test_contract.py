"""The contract suite passes what keeps the contract and names the point that each broken layer breaks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from holdfast._core import Source, Stream
from holdfast._errors import EndOfStream, StreamError
from holdfast._types import Head, Request
from holdfast.testing import cancel_everywhere, check_layer, check_source
from holdfast.testing.inner import Inner

ITEMS = ["a", "b", "c", "d", "e"]


class Good:
    """A layer that hands everything through; the broken ones below differ from it in one thing each."""

    def __init__(self, inner: Stream[Any]) -> None:
        self.inner = inner

    @property
    def head(self) -> Head:
        return self.inner.head

    async def receive(self) -> Sequence[Any]:
        return await self.inner.receive()

    async def aclose(self) -> None:
        await self.inner.aclose()


class Swallows(Good):
    async def receive(self) -> Sequence[Any]:
        try:
            return await self.inner.receive()
        except StreamError:
            raise EndOfStream from None


class ForgetsTheEnd(Good):
    over = False

    async def receive(self) -> Sequence[Any]:
        if self.over:
            return ["more"]
        try:
            return await self.inner.receive()
        except EndOfStream:
            self.over = True
            raise


class ForgetsTheFailure(Good):
    over = False

    async def receive(self) -> Sequence[Any]:
        if self.over:
            raise EndOfStream
        try:
            return await self.inner.receive()
        except StreamError:
            self.over = True
            raise


class FailsEarly(Good):
    """Reads one batch ahead, and drops it when the next one is a failure."""

    held: Sequence[Any] | None = None

    async def receive(self) -> Sequence[Any]:
        if self.held is None:
            self.held = await self.inner.receive()
        try:
            following = await self.inner.receive()
        except EndOfStream:
            if not self.held:
                raise
            following = []
        batch, self.held = self.held, following
        return batch


class LosesABatch(Good):
    async def receive(self) -> Sequence[Any]:
        batch = await self.inner.receive()
        await asyncio.sleep(0)
        return batch


class Empty(Good):
    said = False

    async def receive(self) -> Sequence[Any]:
        if not self.said:
            self.said = True
            return []
        return await self.inner.receive()


class WaitsToFill(Good):
    def __init__(self, inner: Stream[Any]) -> None:
        super().__init__(inner)
        self.held: list[Any] = []

    async def receive(self) -> Sequence[Any]:
        with contextlib.suppress(EndOfStream, StreamError):
            while len(self.held) < 4:
                self.held += await self.inner.receive()
        batch, self.held = self.held, []
        return batch or await self.inner.receive()


class ForeignError(Good):
    async def receive(self) -> Sequence[Any]:
        try:
            return await self.inner.receive()
        except StreamError as error:
            raise OSError(str(error)) from error


class ForgetsToClose(Good):
    async def aclose(self) -> None:
        pass


class ClosesInATask(Good):
    async def aclose(self) -> None:
        self.task = asyncio.create_task(self.inner.aclose())


class ClosesAfterAnAwait(Good):
    async def aclose(self) -> None:
        await asyncio.sleep(0)
        await self.inner.aclose()


class ClosesOnce(Good):
    closed = False

    async def aclose(self) -> None:
        if self.closed:
            raise ValueError("closed already")
        self.closed = True
        await self.inner.aclose()


class LeavesATask(Good):
    task: asyncio.Task[None] | None = None

    async def receive(self) -> Sequence[Any]:
        if self.task is None:
            self.task = asyncio.create_task(asyncio.sleep(3600))
        return await self.inner.receive()


class CancelsATaskOnly(LeavesATask):
    async def aclose(self) -> None:
        await self.inner.aclose()
        if self.task is not None:
            self.task.cancel()


class Queues(Good):
    """Lets a second reader wait instead of telling it that it must not be there."""

    def __init__(self, inner: Stream[Any]) -> None:
        super().__init__(inner)
        self.lock = asyncio.Lock()

    async def receive(self) -> Sequence[Any]:
        async with self.lock:
            return await self.inner.receive()


@dataclass
class Over:
    """A source that puts a stream class over its inner one, at once or after it `lingers` for a turn of the loop."""

    inner: Source[Any]
    make: Callable[[Any], Any] = Good
    lingers: bool = False

    async def open(self, request: Request) -> Stream[Any]:
        stream = await self.inner.open(request)
        if self.lingers:
            await asyncio.sleep(0)
        made: Stream[Any] = self.make(stream)
        return made


@dataclass
class TimesOut:
    """Leaves a timer behind that cancels the reader, whatever it does by then."""

    inner: Stream[Any]
    request: Request

    @property
    def head(self) -> Head:
        return self.inner.head

    async def receive(self) -> Sequence[Any]:
        task = asyncio.current_task()
        assert task is not None
        self.request.call.clock.call_at(self.request.call.clock.now() + 5.0, task.cancel)  # type: ignore[arg-type]  # tells too much
        return await self.inner.receive()

    async def aclose(self) -> None:
        await self.inner.aclose()


@dataclass
class TimesOutSource:
    inner: Source[Any]

    async def open(self, request: Request) -> Stream[Any]:
        return TimesOut(await self.inner.open(request), request)


async def test_a_layer_that_keeps_the_contract_passes() -> None:
    await check_layer(lambda inner: Over(inner, Good), items=ITEMS)


@pytest.mark.parametrize(
    ("broken", "point"),
    [
        (Empty, 1),
        (WaitsToFill, 1),
        (Swallows, 2),
        (ForgetsTheEnd, 2),
        (ForgetsTheFailure, 2),
        (FailsEarly, 2),
        (LosesABatch, 3),
        (ForgetsToClose, 4),
        (ClosesInATask, 5),
        (ClosesAfterAnAwait, 4),
        (ClosesOnce, 4),
        (LeavesATask, 5),
        (CancelsATaskOnly, 5),
        (Queues, 6),
    ],
)
async def test_a_broken_layer_is_caught_at_its_point(broken: Any, point: int) -> None:
    with pytest.raises(AssertionError, match=f"contract point {point}"):
        await check_layer(lambda inner: Over(inner, broken), items=ITEMS)


async def test_an_error_that_is_no_stream_error_is_caught() -> None:
    with pytest.raises(AssertionError, match="neither EndOfStream nor a StreamError"):
        await check_layer(lambda inner: Over(inner, ForeignError), items=ITEMS)


async def test_an_open_that_awaits_after_its_inner_stream_opened_leaks_when_cancelled() -> None:
    with pytest.raises(AssertionError, match="contract point 7"):
        await check_layer(lambda inner: Over(inner, Good, lingers=True), items=ITEMS)


async def test_a_timer_that_outlives_its_receive_is_caught() -> None:
    with pytest.raises(AssertionError, match="contract point 5"):
        await check_layer(TimesOutSource, items=ITEMS)


async def test_a_layer_exempt_from_handing_over_at_once_may_wait() -> None:
    await check_layer(lambda inner: Over(inner, WaitsToFill), items=ITEMS, waits_to_fill=True)


async def test_what_a_layer_makes_of_its_items_is_compared() -> None:
    class Shouts(Good):
        async def receive(self) -> Sequence[Any]:
            return [item.upper() for item in await self.inner.receive()]

    await check_layer(
        lambda inner: Over(inner, Shouts), items=ITEMS, expected=lambda items: [item.upper() for item in items]
    )
    with pytest.raises(AssertionError, match="contract point 2"):
        await check_layer(lambda inner: Over(inner, Shouts), items=ITEMS)


async def test_a_source_is_compared_by_its_bytes_not_by_where_they_are_cut() -> None:
    source = Inner(batches=[[b"da"], [b"ta", b": 1\n"]])
    await check_source(lambda: source, expected=[b"data: 1\n"], fails=False, opened=lambda: source.opened)
    with pytest.raises(AssertionError, match="contract point 2"):
        await check_source(lambda: source, expected=[b"data: 2\n"])
    with pytest.raises(AssertionError, match="contract point 2"):
        await check_source(lambda: source, fails=True)


async def test_a_source_that_hangs_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.testing.driving.PATIENCE_SECONDS", 0.01)
    with pytest.raises(AssertionError, match="hangs"):
        await check_source(lambda: Inner(batches=[["a"]], stalls=True))


async def test_cancel_everywhere_reaches_every_tick() -> None:
    reached: list[int] = []
    steps = 0

    async def scenario() -> None:
        nonlocal steps
        for steps in range(5):  # noqa: B007 - read after the loop was cut
            await asyncio.sleep(0)

    ticks = await cancel_everywhere(scenario, check=lambda: reached.append(steps))
    assert reached == [0, 1, 2, 3, 4, 4]
    assert ticks == 6


async def test_cancel_everywhere_awaits_its_check_and_lets_it_raise() -> None:
    open_now = 0

    async def leaks() -> None:
        nonlocal open_now
        open_now += 1
        await asyncio.sleep(0)
        open_now -= 1

    async def check() -> None:
        await asyncio.sleep(0)
        assert open_now == 0, "left open"

    with pytest.raises(AssertionError, match="left open"):
        await cancel_everywhere(leaks, check=check)


async def test_cancel_everywhere_does_not_take_an_error_for_an_end() -> None:
    async def turns_cancelling_into_an_error() -> None:
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            raise RuntimeError("lost") from None

    with pytest.raises(AssertionError, match="tick 1"):
        await cancel_everywhere(turns_cancelling_into_an_error, check=lambda: None)
