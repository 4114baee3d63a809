"""Time and chance, the two things a test must be able to hold still.

`Clock` is the only door to time in the library and `Random` the only door to chance. `Alarm` interrupts one waiting
reader at a given time; it exists because a timeout object or a task per read costs 5 to 25 microseconds an event, and
one re-armed timer well under one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from random import Random as _Random
from typing import Protocol


class Timer(Protocol):
    """A scheduled call that can be called off."""

    def cancel(self) -> None:
        """Calls it off; harmless when it has run."""


class Clock(Protocol):
    """Monotonic seconds, wall time, sleeping and alarms."""

    def now(self) -> float:
        """Seconds on a clock that never goes back."""

    def wall(self) -> datetime:
        """The date and time, in UTC."""

    async def sleep(self, seconds: float) -> None:
        """Waits that long; zero or less still yields once."""

    def call_at(self, when: float, call: Callable[[], None]) -> Timer:
        """Runs `call` once `now()` reaches `when`."""


class Random(Protocol):
    """A source of chance; `random.Random` is one."""

    def random(self) -> float:
        """A number in [0, 1)."""


def system_random() -> Random:
    """A generator seeded by the operating system: jitter must differ between processes."""
    return _Random()  # noqa: S311 - jitter is no secret


class SystemClock:
    """Real time. `now()` is the system's monotonic clock and not the loop's: uvloop's is cached and coarse."""

    now = staticmethod(time.monotonic)

    def wall(self) -> datetime:
        return datetime.fromtimestamp(time.time(), UTC)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def call_at(self, when: float, call: Callable[[], None]) -> Timer:
        return asyncio.get_running_loop().call_later(max(0.0, when - self.now()), call)


class Alarm:
    """Interrupts the task that waits between `arm()` and `disarm()` once the clock reaches the armed time.

    One timer serves many waits: moving the time later costs two assignments, the timer that finds itself
    early goes to sleep again. `disarm()` tells whether a cancellation that the caller just caught was this
    alarm's own; an outer cancellation that met it wins (`asyncio.Task.uncancel` accounting).
    """

    __slots__ = ("_cancelling", "_clock", "_loop", "_rung", "_task", "_timer", "_timer_when", "_when")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._loop = asyncio.get_running_loop()  # asked once: on Python 3.11 it costs as much as all the rest
        self._when = 0.0
        self._timer: Timer | None = None
        self._timer_when = 0.0
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._rung = False

    def arm(self, when: float) -> None:
        """From now on the current task is interrupted at `when`."""
        self._when = when
        self._task = task = asyncio.current_task(self._loop)
        self._cancelling = task.cancelling() if task is not None else 0
        if self._timer is None or self._timer_when > when:
            self._start()

    def _start(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_when = self._when
        self._timer = self._clock.call_at(self._when, self._ring)

    def _ring(self) -> None:
        self._timer = None
        task = self._task
        if task is None:
            return  # nobody waits; the next arm() starts a timer of its own
        if self._clock.now() < self._when:
            self._start()
        else:
            self._rung = True
            task.cancel()

    def disarm(self) -> bool:
        """The wait is over, one way or the other. True: this alarm interrupted it, and nobody else did."""
        task, self._task = self._task, None
        if not self._rung:
            return False
        self._rung = False
        return task is not None and task.uncancel() <= self._cancelling

    def close(self) -> None:
        """Calls the timer off for good."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
