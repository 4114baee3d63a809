"""Coalesces items into larger batches: by number, by sentence, by time.

It groups, it never merges: every item arrives as it was, in its order. It must never hold without a bound, nor hold
the first piece of an answer back unless it is told to. Reading ahead of a slow consumer is `ReadAhead`'s business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Generic, Literal, Self, TypeVar

from holdfast._clock import Alarm, Clock
from holdfast._core import Source, Stream
from holdfast._errors import EndOfStream, StreamError, UsageError
from holdfast._types import Head, Request
from holdfast.machines.grouping import Grouping
from holdfast.machines.settings import check_bool, check_count, check_seconds

T = TypeVar("T")

Profile = Literal["realtime", "sentences", "throughput"]
"""Settings by what they are for; docs/buffer.md has what each was measured to cost and save."""

_PROFILES: MappingProxyType[str, dict[str, Any]] = MappingProxyType(
    {
        "realtime": {"count": 3, "seconds": 0.05},
        "sentences": {"sentences": True, "seconds": 2.0},
        "throughput": {"count": 64, "seconds": 0.5},
    }
)


@dataclass(slots=True, frozen=True, kw_only=True)
class Buffer:
    """Hands over a batch when `count` items are in it, a sentence ends, or `seconds` have passed since its first item.

    Whichever comes first; `Buffer()` without any of them is immediate and costs nothing. `sentences` cuts between the
    sentences of Chinese and Latin text (`machines/grouping.py` has the rules); a mark at the very end of a delta is
    decided by the next one, so give `seconds` too where a speaker waits. `max_items` bounds every batch and what
    is held: 256 deltas are several sentences, or five seconds of a fast model in a text without any mark. Finish
    reason, tool calls, usage, the end and a failure wait for nothing, nor does the first delta that is not empty:
    `hold_first=True` groups it too.

    A cancelled `receive()` keeps what is held.
    """

    count: int | None = None
    sentences: bool = False
    seconds: float | None = None
    max_items: int = 256
    hold_first: bool = False

    def __post_init__(self) -> None:
        check_count("Buffer(max_items=...)", self.max_items)
        check_count("Buffer(count=...)", self.count, optional=True)
        check_seconds("Buffer(seconds=...)", self.seconds)
        for name in ("sentences", "hold_first"):
            check_bool(f"Buffer({name}=...)", getattr(self, name))
        if self.count is not None and self.count > self.max_items:
            raise ValueError(f"Buffer(count=...) must be from 1 to max_items={self.max_items}, not {self.count!r}")

    @classmethod
    def profile(cls, name: Profile) -> Self:
        """Gives the buffer for a purpose. Raises `ValueError` for a name that is none of these.

        - "realtime": for eyes. 3 deltas, and none waits over 50 ms.
        - "sentences": for a voice. Whole sentences, and none waits over 2 s for its end.
        - "throughput": for a file, a database, a queue. 64 deltas, and none waits over half a second.
        """
        if name not in _PROFILES:
            raise ValueError(f"Buffer.profile() takes one of {', '.join(map(repr, _PROFILES))}, not {name!r}")
        return cls(**_PROFILES[name])

    def __call__(self, inner: Source[T]) -> Source[T]:
        if self.count is None and not self.sentences and self.seconds is None:
            return inner
        return _BufferSource(inner, self)


@dataclass(slots=True)
class _BufferSource(Generic[T]):
    inner: Source[T]
    settings: Buffer

    async def open(self, request: Request) -> Stream[T]:
        settings = self.settings
        groups = Grouping[T](
            count=settings.count,
            sentences=settings.sentences,
            max_items=settings.max_items,
            hold_first=settings.hold_first,
        )
        return _BufferStream(await self.inner.open(request), groups, settings.seconds, request.call.clock)


class _BufferStream(Generic[T]):
    __slots__ = ("_alarm", "_clock", "_end", "_groups", "_reading", "_seconds", "inner")

    def __init__(self, inner: Stream[T], groups: Grouping[T], seconds: float | None, clock: Clock) -> None:
        self.inner = inner
        self._groups = groups
        self._seconds = seconds
        self._clock = clock
        self._alarm = Alarm(clock)
        self._end: Exception | None = None
        self._reading = False

    @property
    def head(self) -> Head:
        return self.inner.head

    async def receive(self) -> Sequence[T]:
        if self._reading:  # not left to the inner stream: a second reader would take over the alarm
            raise UsageError("this stream has a reader already")
        self._reading = True
        try:
            while (group := self._groups.take()) is None:
                if self._end is not None:
                    raise self._end
                await self._fill()
            return group
        finally:
            self._reading = False

    async def _fill(self) -> None:
        """Takes one inner batch in, or ends the wait for it: time is up, or nothing more comes."""
        since = self._groups.held_since
        try:
            if self._seconds is None or since is None:
                batch = await self.inner.receive()
            else:
                batch = await self._receive_until(since + self._seconds)
        except (EndOfStream, StreamError) as end:
            self._end = end
            self._groups.flush()
        else:
            if batch:
                self._groups.feed(batch, self._clock.now())
            else:
                self._groups.flush()

    async def _receive_until(self, when: float) -> Sequence[T]:
        """Returns nothing at the given time. Interrupting the inner receive() loses nothing: its contract says so."""
        if self._clock.now() >= when:
            return ()
        alarm = self._alarm
        alarm.arm(when)
        try:
            batch = await self.inner.receive()
        except asyncio.CancelledError:
            if alarm.disarm():
                return ()
            raise
        except BaseException:
            alarm.disarm()
            raise
        alarm.disarm()
        return batch

    async def aclose(self) -> None:
        self._alarm.close()
        await self.inner.aclose()
