"""Reads ahead of a slow consumer, with the one task in the house.

Everywhere else the consumer's own `receive()` drives the wire; here a task does, so that a server is read while its
reader is busy elsewhere. The task must never outlive the stream, read without a bound, or keep a failure to itself; nor
wait for ever for a reader that does not come, where it is told how long.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from holdfast._clock import Alarm
from holdfast._core import Call, Source, Stream
from holdfast._errors import DeadlineExceeded, UsageError
from holdfast._tasks import outlast
from holdfast._types import Head, Request
from holdfast.machines.settings import check_count, check_seconds
from holdfast.moments import Stalled

T = TypeVar("T")


@dataclass(slots=True, frozen=True, kw_only=True)
class ReadAhead:
    """Keeps reading while the consumer is slow, until `max_items` wait; then the wire waits, as without this layer.

    What waits is handed over in one batch of at most `max_items`; one inner batch may exceed the bound while it waits.
    The default, 1,024, is half a minute of a common model's deltas and some hundred kilobytes. A failure comes after
    all that arrived before it. Clocks to the left of this layer measure the wire, and run while the consumer is away.

    While `max_items` wait nobody reads, so those clocks stand: `unread` is how many seconds that may last. Then the
    stream is closed, and what waits is followed by `DeadlineExceeded` with the clock "unread". None: for ever.
    """

    max_items: int = 1024
    unread: float | None = None

    def __post_init__(self) -> None:
        check_count("ReadAhead(max_items=...)", self.max_items)
        check_seconds("ReadAhead(unread=...)", self.unread)

    def __call__(self, inner: Source[T]) -> Source[T]:
        return _ReadAheadSource(inner, self)


@dataclass(slots=True)
class _ReadAheadSource(Generic[T]):
    inner: Source[T]
    settings: ReadAhead

    async def open(self, request: Request) -> Stream[T]:
        return _ReadAheadStream(await self.inner.open(request), self.settings, request.call)


class _ReadAheadStream(Generic[T]):
    __slots__ = (
        "_alarm",
        "_arrived",
        "_call",
        "_end",
        "_items",
        "_max_items",
        "_reading",
        "_room",
        "_task",
        "_unread",
        "inner",
    )

    def __init__(self, inner: Stream[T], settings: ReadAhead, call: Call) -> None:
        self.inner = inner
        self._call = call
        self._alarm = Alarm(call.clock)
        self._max_items = settings.max_items
        self._unread = settings.unread
        self._items: list[T] = []
        self._end: Exception | None = None
        self._reading = False
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._task = asyncio.create_task(self._pump(), name="holdfast-read-ahead")
        self._task.add_done_callback(self._over)

    @property
    def head(self) -> Head:
        return self.inner.head

    async def _pump(self) -> None:
        try:
            while True:
                self._items += await self.inner.receive()
                self._arrived.set()
                while len(self._items) >= self._max_items:
                    self._room.clear()
                    await (self._room.wait() if self._unread is None else self._wait_for_reader(self._unread))
        except Exception as end:  # noqa: BLE001 - a task has nobody to raise to: the reader is told, whatever it is
            self._end = end

    async def _wait_for_reader(self, seconds: float) -> None:
        """Waits for room. Raises `DeadlineExceeded`, having closed the stream, when nobody has made any in time."""
        call, alarm = self._call, self._alarm
        alarm.arm(call.clock.now() + seconds)
        try:
            await self._room.wait()
        except asyncio.CancelledError:
            if not alarm.disarm():
                raise
            if self._room.is_set():
                return  # at the last moment
        else:
            alarm.disarm()
            return
        call.note(Stalled(clock="unread", seconds=seconds))
        await self.inner.aclose()
        why = f"what was read ahead waited {seconds:g} s for its reader; read sooner, or close what is not wanted"
        raise DeadlineExceeded("unread", seconds, why)

    def _over(self, _task: asyncio.Task[None]) -> None:
        # A callback and no `finally`: a task that is cancelled before its first step never enters its body.
        if self._end is None:
            self._end = UsageError("this stream is closed")
        self._arrived.set()

    async def receive(self) -> Sequence[T]:
        if self._reading:
            raise UsageError("this stream has a reader already")
        self._reading = True
        try:
            while not self._items:
                if self._end is not None:
                    raise self._end
                self._arrived.clear()
                await self._arrived.wait()
        finally:
            self._reading = False
        batch = self._items[: self._max_items]
        del self._items[: self._max_items]
        self._room.set()
        return batch

    async def aclose(self) -> None:
        self._task.cancel()
        try:
            await outlast(self._task)
        finally:
            self._alarm.close()
            await self.inner.aclose()
