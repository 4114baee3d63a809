"""Deadline: nothing waits for ever. Four clocks over one stream, each of them a typed error when it runs out.

Placement is meaning: left of the parser it watches bytes, right of it events, right of `verify()` what moves the answer
on, and right of a layer that opens again it spans attempts. It must never interrupt a reader that is not waiting, and
never mistake somebody else's cancellation for its own (`Alarm` keeps that account). There is no timeout object and no
task: those cost 5 to 25 microseconds a read, and a stream is read thousands of times.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Generic, TypeVar

from holdfast._clock import Alarm
from holdfast._core import Call, Source, Stream
from holdfast._errors import ClockName, DeadlineExceeded, UsageError
from holdfast._types import Head, Request
from holdfast.machines.progress import moves_on
from holdfast.machines.settings import check_seconds
from holdfast.moments import Stalled

T = TypeVar("T")


@dataclass(slots=True, frozen=True, kw_only=True)
class Deadline:
    """Raises `DeadlineExceeded` when one of its clocks, in seconds, runs out; None leaves a clock out.

    - `open`: from `open()` to the head.
    - `first_token`: from `open()` to the first item that is not empty. The time of opening counts, and after it the
      time spent waiting in `receive()`.
    - `progress`: waiting in `receive()` since the last item that was not empty. Only waiting counts, so a slow
      reader is no stall; and only items, so pings behind which nothing comes hide none.
    - `total`: everything since `open()`, the reader's own time included. Running out of it is not retryable. A reader
      that is busy with what it was given is not interrupted: it is told when it asks for more.

    A delta without content is empty, as is an event that dispatches nothing; bytes and anything else are not. When
    a clock runs out, what is being opened is cancelled, nothing is delivered late, and the error is sticky. A
    cancellation from outside that meets it wins.
    """

    open: float | None = None
    first_token: float | None = None
    progress: float | None = None
    total: float | None = None

    def __post_init__(self) -> None:
        for clock in fields(self):
            check_seconds(clock.name, getattr(self, clock.name))

    def __call__(self, inner: Source[T]) -> Source[T]:
        return _DeadlineSource(inner, self)

    def advise(self, left: Sequence[object], right: Sequence[object]) -> list[str]:
        """Warns of neighbours among which it cannot do its work."""
        again = [name for layer in right if (name := type(layer).__name__) in ("Retry", "Reconnect")]
        if self.total is None or not again:
            return []
        return [f"Deadline(total=...) belongs right of {again[-1]}: left of it, it begins anew at every attempt"]


@dataclass(slots=True)
class _DeadlineSource(Generic[T]):
    inner: Source[T]
    clocks: Deadline

    async def open(self, request: Request) -> Stream[T]:
        call, clocks = request.call, self.clocks
        alarm = Alarm(call.clock)
        name, seconds = _tightest(clocks)
        started = call.clock.now()
        if seconds < math.inf:
            alarm.arm(started + seconds)
        try:
            stream = await self.inner.open(request)
        except BaseException as error:
            mine = alarm.disarm()
            alarm.close()
            if mine:
                raise _exceeded(call, name, seconds) from error
            raise
        if alarm.disarm():  # opened in spite of the interruption, and too late
            alarm.close()
            await stream.aclose()
            raise _exceeded(call, name, seconds)
        if clocks.first_token is clocks.progress is clocks.total is None:
            alarm.close()
            return stream
        return _DeadlineStream(stream, call, clocks, alarm, started)


def _tightest(clocks: Deadline) -> tuple[ClockName, float]:
    """Gives the clock that runs out first while a stream is being opened."""
    candidates: tuple[tuple[ClockName, float | None], ...] = (
        ("open", clocks.open),
        ("first_token", clocks.first_token),
        ("total", clocks.total),
    )
    running = ((name, seconds) for name, seconds in candidates if seconds is not None)
    return min(running, key=lambda one: one[1], default=("open", math.inf))


def _exceeded(call: Call, name: ClockName, seconds: float) -> DeadlineExceeded:
    call.note(Stalled(clock=name, seconds=seconds))
    return DeadlineExceeded(name, seconds)


class _DeadlineStream(Generic[T]):
    __slots__ = (
        "_alarm",
        "_call",
        "_clocks",
        "_end",
        "_first_seen",
        "_left",
        "_now",
        "_progress",
        "_reading",
        "_total_at",
        "inner",
    )

    def __init__(self, inner: Stream[T], call: Call, clocks: Deadline, alarm: Alarm, started: float) -> None:
        self.inner = inner
        self._alarm = alarm
        self._call = call
        self._clocks = clocks
        self._now = now = call.clock.now
        self._end: DeadlineExceeded | None = None
        self._first_seen = False
        self._reading = False
        self._progress = math.inf if clocks.progress is None else clocks.progress
        self._total_at = math.inf if clocks.total is None else started + clocks.total
        self._left = math.inf if clocks.first_token is None else clocks.first_token - (now() - started)
        """Seconds that may still be waited for an item that is not empty."""

    @property
    def head(self) -> Head:
        return self.inner.head

    async def receive(self) -> Sequence[T]:
        if self._end is not None:
            raise self._end
        if self._reading:  # the alarm knows one task: a second would take it from the first
            raise UsageError("this stream has a reader already")
        started = self._now()
        when = started + self._left
        if when >= self._total_at:
            if started >= self._total_at:
                raise self._expire("total")
            when = self._total_at
        if self._left <= 0:  # an inner stream that has everything at hand never gives the alarm its turn
            raise self._expire(self._waiting)
        if when < math.inf:
            self._alarm.arm(when)
        self._reading = True
        try:
            batch = await self.inner.receive()
        except BaseException as error:
            self._left -= self._now() - started
            mine = self._alarm.disarm()
            self._alarm.close()
            if mine:
                raise self._expire("total" if when == self._total_at else self._waiting) from error
            raise
        finally:
            self._reading = False
        self._alarm.disarm()
        if self._left == self._progress == math.inf:  # only the total counts, whatever came
            return batch
        if moves_on(batch):
            self._first_seen = True
            self._left = self._progress
        else:
            self._left -= self._now() - started
        return batch

    @property
    def _waiting(self) -> ClockName:
        return "progress" if self._first_seen else "first_token"

    def _expire(self, name: ClockName) -> DeadlineExceeded:
        self._end = _exceeded(self._call, name, getattr(self._clocks, name))
        return self._end

    async def aclose(self) -> None:
        if not self._reading:  # a reader that still waits keeps its alarm
            self._alarm.close()
        await self.inner.aclose()
