"""Throughput: an upstream that has become too slow counts as failing, in the middle of its answer, too.

A stream that crawls meets every other clock: one word every 59 seconds is progress. This one counts pieces, from the
first content to the finish reason; before that `first_token` runs and after it `progress`. It is a layer and no
setting of `Deadline`: it learns over streams, which a clock does not, and who leaves it out pays nothing for it. Like
`Deadline` it has one alarm, and must never count the time that its reader takes.
"""

from __future__ import annotations

import math
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from holdfast._clock import Alarm
from holdfast._core import Call, Source, Stream
from holdfast._errors import DeadlineExceeded, UsageError
from holdfast._types import Head, Request
from holdfast.machines.pace import Pace
from holdfast.machines.progress import finishes, pieces_in
from holdfast.machines.quantile import Quantile, Quantiles
from holdfast.machines.settings import check_bool, check_seconds, is_number
from holdfast.moments import Stalled

T = TypeVar("T")

WINDOW = 2048
"""Gaps that are remembered of a kind of requests: what some ten answers of a common length have."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Throughput:
    """Raises `DeadlineExceeded` with the clock "throughput" where an answer has become too slow.

    - `floor`: fewer than so many deltas a second, in the mean over `over` seconds of waiting.
    - `learned`: a gap of more than `times` the p99 of the gaps in the last answers of the same upstream, address and
      model, and of more than `shortest` seconds; below `least` gaps nothing is known, and none is too long.

    Deltas are counted that are more than padding, whatever number of tokens is in one; of events and bytes each. Only
    waiting in `receive()` counts, from the first content on and up to the first finish reason. The error is retryable,
    and sticky; a `Reconnect` right of this layer goes on elsewhere or anew.
    """

    floor: float | None = None
    over: float = 10.0
    learned: bool = False
    times: float = 5.0
    shortest: float = 2.0
    least: int = 200
    _gaps: Quantiles = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_seconds("Throughput(over=...)", self.over, optional=False)
        check_seconds("Throughput(shortest=...)", self.shortest, optional=False)
        check_bool("Throughput(learned=...)", self.learned)
        if self.floor is None and not self.learned:
            raise ValueError("Throughput() needs a floor= in deltas a second, or learned=True")
        if self.floor is not None and not (is_number(self.floor) and 1 <= self.floor * self.over < math.inf):
            raise ValueError(f"Throughput(floor=...) must be at least one delta in {self.over:g} s, not {self.floor!r}")
        if not (is_number(self.times) and self.times >= 1):
            raise ValueError(f"Throughput(times=...) must be a number from 1, not {self.times!r}")
        # The way to set a field of a frozen dataclass: what was learned is no setting.
        object.__setattr__(self, "_gaps", Quantiles(0.99, window=max(WINDOW, self.least), least=self.least))

    def __call__(self, inner: Source[T]) -> Source[T]:
        return _ThroughputSource(inner, self)

    def gaps(self, request: Request) -> Quantile:
        """Gives what has been learned of the gaps in answers to requests like this one, in seconds."""
        return self._gaps.of(request)

    def advise(self, left: Sequence[object], right: Sequence[object]) -> list[str]:
        """Warns of neighbours among which it cannot do its work."""
        early = [name for layer in left if (name := type(layer).__name__) in ("Reconnect", "ReadAhead")]
        return [
            f"Throughput belongs left of {name}: right of it, nothing goes on from where it failed" for name in early
        ]


@dataclass(slots=True)
class _ThroughputSource(Generic[T]):
    inner: Source[T]
    settings: Throughput

    async def open(self, request: Request) -> Stream[T]:
        return _ThroughputStream(await self.inner.open(request), request, self.settings)


class _ThroughputStream(Generic[T]):
    __slots__ = ("_alarm", "_call", "_end", "_gaps", "_now", "_over", "_pace", "_reading", "_settings", "inner")

    def __init__(self, inner: Stream[T], request: Request, settings: Throughput) -> None:
        self.inner = inner
        self._settings = settings
        self._call: Call = request.call
        self._now = request.call.clock.now
        self._alarm = Alarm(request.call.clock)
        self._gaps = settings.gaps(request) if settings.learned else None
        self._pace: Pace | None = None
        """None before the first content."""
        self._end: DeadlineExceeded | None = None
        self._reading = False
        self._over = False  # a choice has finished: what follows is no flow of deltas

    @property
    def head(self) -> Head:
        return self.inner.head

    def receive(self) -> Coroutine[Any, Any, Sequence[T]]:
        return self.inner.receive() if self._over else self._watched()

    async def _watched(self) -> Sequence[T]:
        if self._end is not None:
            raise self._end
        if self._reading:  # the alarm knows one task: a second would take it from the first
            raise UsageError("this stream has a reader already")
        self._reading = True
        try:
            batch = await (self.inner.receive() if self._pace is None else self._in_time(self._pace))
        finally:
            self._reading = False
        pieces = pieces_in(batch)
        if pieces:
            self._count(pieces)
            if finishes(batch):
                self._over = True
                self._alarm.close()
        return batch

    async def _in_time(self, pace: Pace) -> Sequence[T]:
        """Reads on, for no longer than the pace allows."""
        left = pace.left
        if left <= 0:  # an inner stream that has everything at hand never gives the alarm its turn
            raise self._expire(pace)
        started, alarm = self._now(), self._alarm
        if left < math.inf:
            alarm.arm(started + left)
        try:
            batch = await self.inner.receive()
        except BaseException as error:
            pace.wait(self._now() - started)
            mine = alarm.disarm()
            alarm.close()
            if mine:
                raise self._expire(pace) from error
            raise
        alarm.disarm()
        pace.wait(self._now() - started)
        return batch

    def _count(self, pieces: int) -> None:
        pace, gaps = self._pace, self._gaps
        if pace is None:
            self._pace = self._begin()
            return
        if gaps is not None:
            gaps.add(pace.since)
        pace.add(pieces)

    def _begin(self) -> Pace:
        settings, longest = self._settings, math.inf
        usual = self._gaps.value if self._gaps is not None else None
        if usual is not None:
            longest = max(settings.times * usual, settings.shortest)
        if settings.floor is None:
            return Pace(longest=longest)
        return Pace(pieces=math.ceil(settings.floor * settings.over - 1e-9), over=settings.over, longest=longest)

    def _expire(self, pace: Pace) -> DeadlineExceeded:
        settings = self._settings
        if self._gaps is not None:
            self._gaps.add(pace.since)  # it would have taken longer: an upstream that has changed is learned anew
        if pace.broken_by_gap:
            seconds, why = (
                pace.longest,
                f"no delta came for {pace.longest:.3g} s, {settings.times:g} times the usual gap",
            )
        else:
            seconds, why = settings.over, f"fewer than {settings.floor:g} deltas a second came for {settings.over:g} s"
        self._call.note(Stalled(clock="throughput", seconds=seconds))
        self._end = DeadlineExceeded("throughput", seconds, f"{why}; see Throughput(...)")
        return self._end

    async def aclose(self) -> None:
        if not self._reading:  # a reader that still waits keeps its alarm
            self._alarm.close()
        await self.inner.aclose()
