"""The contract of a stream as a test that anybody can run against a source or a layer of their own.

The seven points stand at the head of `holdfast._core`. A broken one is an `AssertionError` that names it. No test
framework is needed, and nothing is left running: every stream that a check opens, it closes.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from holdfast._clock import Clock, SystemClock
from holdfast._core import Call, Source, Stream
from holdfast._errors import ConnectError, EndOfStream, StreamBroken, StreamError, UsageError
from holdfast._types import Request
from holdfast.testing.clock import FakeClock
from holdfast.testing.driving import MAX_TICKS, Driver, Outcome, ticks_or_done
from holdfast.testing.inner import Inner

A = TypeVar("A")
B = TypeVar("B")

POINTS = {
    1: "a non-empty batch of what is ready",
    2: "a sticky end after everything that arrived",
    3: "a cancelled receive() loses nothing",
    4: "aclose() is idempotent, awaits the inner stream, closes even when cancelled",
    5: "nothing of a method runs on when it has returned",
    6: "one reader at a time",
    7: "a failed or cancelled open() leaves nothing open",
}
REST_SECONDS = 100.0
"""How long a slow consumer rests between two batches; a clock that runs meanwhile breaks point 5."""
STALL_TICKS = 200


async def check_source(
    make_source: Callable[[], Source[Any]],
    *,
    expected: Sequence[Any] | None = None,
    fails: bool | None = None,
    request: Request | None = None,
    clock: Clock | None = None,
    opened: Callable[[], int] | None = None,
    settle: float = 0.0,
) -> None:
    """Checks every point of the contract against fresh sources from `make_source`, each opened with `request`.

    `expected` are the items each stream must deliver (bytes and text are compared as a whole), `fails` tells whether
    it must end in a failure; None leaves either open. `opened` counts what is open underneath, and `settle` is how
    many seconds it may take to notice. Time is `clock`'s, the system's by default.

    Raises `AssertionError` naming the point that is broken.
    """
    with Driver() as driver:
        check = _Check(driver, make_source, request or Request(), clock or SystemClock(), opened, settle)
        whole = await check.plain()
        _require(whole.same_items(expected), 2, f"delivered {whole.items!r}, not {expected!r}")
        if fails is not None:
            failed = isinstance(whole.end, StreamError)
            _require(failed == fails, 2, f"ended with {whole.end!r}, {'not a failure' if fails else 'not cleanly'}")
        await check.cancelled_open()
        if not whole.opened:
            return
        await check.rests()
        await check.cancelled_receives(whole)
        await check.second_readers(whole)
        await check.closing()


async def check_layer(
    layer: Callable[[Source[A]], Source[B]],
    *,
    items: Sequence[A],
    expected: Callable[[Sequence[A]], Sequence[Any]] = list,
    request: Request | None = None,
    waits_to_fill: bool = False,
    fails_when_cut: bool = True,
) -> None:
    """Checks a layer over inner sources that end well, break off, stall and refuse to open.

    `expected` tells what the layer makes of the items that arrived (by default the same items). `waits_to_fill`
    exempts the layer from handing over at once what is ready, `fails_when_cut=False` from raising an inner failure:
    for a layer that has another answer to it. Time is a `FakeClock`'s.

    Raises `AssertionError` naming the point that is broken.
    """
    half = list(items[: (len(items) + 1) // 2])
    fails = True if fails_when_cut else None

    async def check(source: Inner[A], arrived: Sequence[A], *, fails: bool | None) -> None:
        await check_source(
            lambda: layer(source),
            expected=expected(arrived) if fails is not None else None,
            fails=fails,
            request=request,
            clock=clock,
            opened=lambda: source.opened,
        )

    async with FakeClock() as clock:
        for ticks in (0, 2):
            for size in (1, len(items)):
                await check(Inner(batches=_batches(items, size), ticks=ticks), items, fails=False)
                broken = Inner(batches=_batches(half, size), failure=_broken, ticks=ticks)
                await check(broken, half, fails=fails)
            await check(Inner[A](batches=[], refusal=_refused, ticks=ticks), [], fails=fails)
            await check(Inner[A](batches=[], failure=_broken, ticks=ticks), [], fails=fails)
        if not waits_to_fill:
            await _check_prompt(layer, half, expected(half), request or Request(), clock)


def _broken() -> StreamError:
    return StreamBroken("the inner source was told to break off")


def _refused() -> StreamError:
    return ConnectError("the inner source was told not to open")


def _batches(items: Sequence[A], size: int) -> list[Sequence[A]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


async def _check_prompt(
    layer: Callable[[Source[A]], Source[Any]],
    items: Sequence[A],
    expected: Sequence[Any],
    request: Request,
    clock: Clock,
) -> None:
    """Everything that arrived must come out, though nothing more ever arrives."""
    source = Inner(batches=_batches(items, 1), stalls=True)
    got: list[Any] = []

    async def read() -> None:
        stream = await layer(source).open(_with_call(request, clock))
        try:
            while True:
                got.extend(await stream.receive())
        finally:
            await stream.aclose()

    with Driver() as driver:
        task = driver.start(read())
        for _ in range(STALL_TICKS):
            await asyncio.sleep(0)
        task.cancel()
        await driver.finish(task)
        await driver.end_running()
    _require(_whole(got) == _whole(expected), 1, f"held back what was ready: {_whole(got)!r} of {_whole(expected)!r}")


def _require(kept: bool, point: int, what: str) -> None:  # noqa: FBT001 - an assertion's condition
    if not kept:
        raise AssertionError(f"contract point {point} ({POINTS[point]}): {what}")


def _whole(items: Sequence[Any]) -> Any:
    """Items in a form to compare: where bytes or text are cut is no part of them."""
    if items and all(isinstance(item, bytes) for item in items):
        return b"".join(items)
    if items and all(isinstance(item, str) for item in items):
        return "".join(items)
    return list(items)


def _with_call(request: Request, clock: Clock) -> Request:
    return replace(request, call=Call(clock=clock, random=random.Random(0)))  # noqa: S311 - the same in every run


@dataclass(slots=True, frozen=True)
class _Reading:
    """What one stream said from beginning to end."""

    items: list[Any]
    end: BaseException | None
    opened: bool = True

    def same_items(self, others: Sequence[Any] | None) -> bool:
        return others is None or _whole(self.items) == _whole(others)

    def same_end(self, other: BaseException | None) -> bool:
        return type(self.end) is type(other) and str(self.end) == str(other)


@dataclass(slots=True)
class _Check:
    driver: Driver
    make_source: Callable[[], Source[Any]]
    request: Request
    clock: Clock
    opened: Callable[[], int] | None
    settle: float

    # -- steps ---------------------------------------------------------------------------------

    async def open(self, *, cancel_at: int | None = None) -> Outcome:
        source = self.make_source()
        outcome = await self.driver.run(source.open(_with_call(self.request, self.clock)), cancel_at=cancel_at)
        if outcome.error is not None and not isinstance(outcome.error, StreamError):
            raise AssertionError(f"open() raised {outcome.error!r}, not a StreamError") from outcome.error
        return outcome

    async def open_well(self) -> Stream[Any]:
        outcome = await self.open()
        _require(outcome.value is not None, 2, f"one open() succeeded, another raised {outcome.error!r}")
        stream: Stream[Any] = outcome.value
        return stream

    async def nothing_left(self, point: int, when: str) -> None:
        """Raises when something is open or running."""
        if self.settle:
            until = asyncio.get_running_loop().time() + self.settle
            while self._open_now() and asyncio.get_running_loop().time() < until:  # noqa: ASYNC110 - a count tells nobody
                await asyncio.sleep(0.001)
        left = await self.driver.end_running()
        _require(self._open_now() == 0, point, f"{when}, {self._open_now()} inner streams are open")
        _require(not left, 5, f"{when}, a task runs on: {[task.get_coro() for task in left]}")

    def _open_now(self) -> int:
        return self.opened() if self.opened is not None else 0

    async def close(self, stream: Stream[Any], point: int, when: str) -> None:
        """Closes twice and sees that nothing is left."""
        for times in ("once", "twice"):
            outcome = await self.driver.run(self._close(stream))
            _require(outcome.error is None and not outcome.cancelled, 4, f"aclose() called {times} {when}: {outcome}")
            _require(not outcome.value, 5, f"aclose() {when} did not await {outcome.value}")
            await self.nothing_left(point, f"after aclose() {when}")

    async def _close(self, stream: Stream[Any]) -> list[Any]:
        await stream.aclose()
        return [] if self.settle else [task.get_coro() for task in self.driver.running()]  # now, not a turn later

    # -- the points ----------------------------------------------------------------------------

    async def plain(self) -> _Reading:
        """Points 1 and 2: one reader, nothing cancelled."""
        outcome = await self.open()
        if outcome.error is not None:
            await self.nothing_left(7, "after open() failed")
            return _Reading([], outcome.error, opened=False)
        stream: Stream[Any] = outcome.value
        read = await self.driver.run(_read(stream))
        if read.error is not None:
            await self.driver.run(stream.aclose())
            raise read.error
        await self.close(stream, 4, "at the end")
        whole: _Reading = read.value
        return whole

    async def rests(self) -> None:
        """Point 5: nobody interrupts a consumer that does something else between two batches."""
        if not isinstance(self.clock, FakeClock):
            return
        stream = await self.open_well()
        read = await self.driver.run(_read_slowly(stream, self.clock))
        await self.driver.run(stream.aclose())
        _require(not read.cancelled, 5, "a consumer that rested between two batches was cancelled")
        await self.nothing_left(4, "after a slow consumer")

    async def cancelled_open(self) -> None:
        """Point 7."""
        for ticks in range(1, MAX_TICKS):
            outcome = await self.open(cancel_at=ticks)
            if outcome.value is not None:
                await self.close(outcome.value, 4, "when never read")
            await self.nothing_left(7, f"after open() was cancelled at tick {ticks}")
            if not outcome.cancelled:
                return

    async def cancelled_receives(self, whole: _Reading) -> None:
        """Point 3: every receive() is cancelled once, at every tick in turn."""
        for ticks in range(1, MAX_TICKS):
            stream = await self.open_well()
            reading, cancelled = await self._read_with_cancels(stream, ticks)
            when = f"with each receive() cancelled at tick {ticks}"
            await self.close(stream, 4, when)
            same = reading.same_items(whole.items)
            _require(same, 3, f"{when} came {_whole(reading.items)!r}, else {_whole(whole.items)!r}")
            _require(reading.same_end(whole.end), 3, f"{when} it ended with {reading.end!r}, else {whole.end!r}")
            if not cancelled:
                return

    async def _read_with_cancels(self, stream: Stream[Any], ticks: int) -> tuple[_Reading, int]:
        items: list[Any] = []
        cancelled = 0
        while True:
            outcome = await self.driver.run(stream.receive(), cancel_at=ticks)
            if outcome.cancelled:
                cancelled += 1
                outcome = await self.driver.run(stream.receive())
            if outcome.error is not None:
                return _Reading(items, outcome.error), cancelled
            _require(not outcome.cancelled, 3, "receive() was cancelled, and nobody had cancelled it")
            items.extend(outcome.value)

    async def second_readers(self, whole: _Reading) -> None:
        """Point 6: one that comes at any tick is turned away, and the first does not notice."""
        for ticks in range(1, MAX_TICKS):
            stream = await self.open_well()
            reading, intrusions = await self._read_with_intruder(stream, ticks)
            when = f"with a second reader at tick {ticks} of each receive()"
            await self.close(stream, 4, when)
            same = reading.same_items(whole.items) and reading.same_end(whole.end)
            _require(same, 6, f"{when} the first got {_whole(reading.items)!r} and {reading.end!r}")
            if not intrusions:
                return

    async def _read_with_intruder(self, stream: Stream[Any], ticks: int) -> tuple[_Reading, int]:
        items: list[Any] = []
        intrusions = 0
        while True:
            first = self.driver.start(stream.receive())
            await ticks_or_done(first, ticks)
            if not first.done():
                intrusions += 1
                second = await self.driver.run(_intrude(stream, first))
                if not isinstance(second.error, UsageError):
                    await self.driver.finish(first)
                    await self.driver.run(stream.aclose())
                    _require(False, 6, f"a second reader at tick {ticks} got {second}")
            outcome = await self.driver.finish(first)
            if outcome.error is not None:
                return _Reading(items, outcome.error), intrusions
            items.extend(outcome.value)

    async def closing(self) -> None:
        """Point 4: never read, read a little, cancelled while closing, and with a reader that is just giving up."""
        await self.close(await self.open_well(), 4, "when never read")
        for batches in (0, 1):
            await self._cancelled_close(batches)
        for ticks in range(MAX_TICKS):
            stream = await self.open_well()
            reader = self.driver.start(_read(stream))
            await ticks_or_done(reader, ticks)
            if reader.done():
                await self.driver.run(stream.aclose())
                return
            reader.cancel()
            await self.driver.run(stream.aclose())
            await self.driver.finish(reader)
            await self.close(stream, 4, f"while a reader gave up at tick {ticks}")

    async def _cancelled_close(self, batches: int) -> None:
        for ticks in range(1, MAX_TICKS):
            stream = await self.open_well()
            for _ in range(batches):
                await self.driver.run(stream.receive())
            outcome = await self.driver.run(stream.aclose(), cancel_at=ticks)
            await self.nothing_left(4, f"after aclose() was cancelled at tick {ticks}")
            await self.close(stream, 4, "after it was cancelled")
            if not outcome.cancelled:
                return


async def _read(stream: Stream[Any]) -> _Reading:
    """Reads to the end, in one task, and twice beyond it."""
    items: list[Any] = []
    while True:
        try:
            batch = await stream.receive()
        except (EndOfStream, StreamError) as end:
            reading = _Reading(items, end)
            break
        except Exception as error:
            raise AssertionError(f"receive() raised {error!r}, neither EndOfStream nor a StreamError") from error
        _require(len(batch) > 0, 1, "an empty batch")
        items.extend(batch)
    for _ in range(2):
        again: Any = None
        try:
            again = await stream.receive()
        except (EndOfStream, StreamError) as end:
            again = end
        _require(reading.same_end(again), 2, f"after {reading.end!r} came {again!r}")
    return reading


async def _intrude(stream: Stream[Any], first: asyncio.Task[Any]) -> None:
    if first.done():  # in the very turn of the loop before this one started
        raise UsageError("nobody reads any more")
    await stream.receive()


async def _read_slowly(stream: Stream[Any], clock: FakeClock) -> None:
    while True:
        try:
            await stream.receive()
        except (EndOfStream, StreamError):
            return
        await clock.sleep(REST_SECONDS)
