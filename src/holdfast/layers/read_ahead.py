"""Reads ahead of a slow consumer, with the one task in the house.

Everywhere else the consumer's own `receive()` drives the wire; here a task does, so that a server is read while its
reader is busy elsewhere. The task must never outlive the stream, read without a bound, or keep a failure to itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from holdfast._core import Source, Stream
from holdfast._errors import UsageError
from holdfast._tasks import outlast
from holdfast._types import Head, Request
from holdfast.machines.settings import check_count

T = TypeVar("T")


@dataclass(slots=True, frozen=True, kw_only=True)
class ReadAhead:
    """Keeps reading while the consumer is slow, until `max_items` wait; then the wire waits, as without this layer.

    What waits is handed over in one batch of at most `max_items`; one inner batch may exceed the bound while it waits.
    The default, 1,024, is half a minute of a common model's deltas and some hundred kilobytes. A failure comes after
    all that arrived before it. Clocks to the left of this layer measure the wire, and run while the consumer is away.
    """

    max_items: int = 1024

    def __post_init__(self) -> None:
        check_count("ReadAhead(max_items=...)", self.max_items)

    def __call__(self, inner: Source[T]) -> Source[T]:
        return _ReadAheadSource(inner, self.max_items)


@dataclass(slots=True)
class _ReadAheadSource(Generic[T]):
    inner: Source[T]
    max_items: int

    async def open(self, request: Request) -> Stream[T]:
        return _ReadAheadStream(await self.inner.open(request), self.max_items)


class _ReadAheadStream(Generic[T]):
    __slots__ = ("_arrived", "_end", "_items", "_max_items", "_reading", "_room", "_task", "inner")

    def __init__(self, inner: Stream[T], max_items: int) -> None:
        self.inner = inner
        self._max_items = max_items
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
                    await self._room.wait()
        except Exception as end:  # noqa: BLE001 - a task has nobody to raise to: the reader is told, whatever it is
            self._end = end

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
            await self.inner.aclose()
