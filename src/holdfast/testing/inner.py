"""The inner source that a layer is checked over: it does what it is told, and knows how many of its streams are open.

It keeps the contract itself, and takes a few turns of the loop over everything, closing included: a layer that forgets
to await something is seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from holdfast._core import Stream
from holdfast._errors import EndOfStream, StreamError, UsageError
from holdfast._types import Head, Request

T = TypeVar("T")


@dataclass(slots=True, kw_only=True)
class Inner(Generic[T]):
    """Every `open()` gives a stream of `batches`, `ticks` turns of the loop apart.

    After them comes `failure()` if there is one, nothing at all if it `stalls`, else the clean end. With `refusal`
    no stream opens. `opened` counts the streams that are open now, `requests` has what was asked for.
    """

    batches: Sequence[Sequence[T]]
    failure: Callable[[], StreamError] | None = None
    refusal: Callable[[], StreamError] | None = None
    stalls: bool = False
    ticks: int = 1
    head: Head = field(default_factory=lambda: Head(headers={"content-type": "text/event-stream"}))
    opened: int = 0
    requests: list[Request] = field(default_factory=list)

    async def open(self, request: Request) -> Stream[T]:
        self.requests.append(request)
        await self.turn()
        if self.refusal is not None:
            raise self.refusal()
        self.opened += 1
        return _InnerStream(self)

    async def turn(self) -> None:
        """Lets the loop turn `ticks` times."""
        for _ in range(self.ticks):
            await asyncio.sleep(0)


class _InnerStream(Generic[T]):
    def __init__(self, owner: Inner[T]) -> None:
        self._owner = owner
        self._left = list(owner.batches)
        self._end = owner.failure() if owner.failure is not None else EndOfStream()
        self._reading = False
        self._open = True

    @property
    def head(self) -> Head:
        return self._owner.head

    async def receive(self) -> Sequence[T]:
        if self._reading:
            raise UsageError("this stream has a reader already")
        if not self._open:
            raise UsageError("this stream is closed")
        self._reading = True
        try:
            await self._owner.turn()
            if not self._left and self._owner.stalls:
                await asyncio.Event().wait()
        finally:
            self._reading = False
        if not self._left:
            raise self._end
        return self._left.pop(0)

    async def aclose(self) -> None:
        try:
            await self._owner.turn()
        finally:
            if self._open:
                self._open = False
                self._owner.opened -= 1
