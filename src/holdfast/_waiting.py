"""Standing in line: the shell around `machines.line.Line`, for layers that let callers through one by one.

A caller must leave its line however its wait ends, and whoever is behind must hear of it: both are done here alone.
A wake-up may come from another thread, where a garbage collector finds what was never closed.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextvars import ContextVar

from holdfast._clock import Clock
from holdfast.machines.line import Line

SHORTEST = 0.001
"""Seconds: of two times that nearly agree the earlier would else be waited for again and again."""


class Turn:
    """One caller's place in a line."""

    __slots__ = ("_clock", "_future", "_loop", "_woken")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[None] | None = None
        self._woken = False

    def wake(self) -> None:
        """Ends the sleep that is, or the next one."""
        self._woken = True
        if self._future is None:
            return
        if asyncio._get_running_loop() is self._loop:  # noqa: SLF001 - the public one raises where none runs
            self._rouse()
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._rouse)

    def _rouse(self) -> None:
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    async def sleep(self, until: float) -> None:
        """Waits for a wake-up, and at the longest until the clock says so."""
        if not self._woken:
            self._future = self._loop.create_future()
            timer = self._clock.call_at(until, self.wake) if until < math.inf else None
            try:
                await self._future
            finally:
                self._future = None
                if timer is not None:
                    timer.cancel()
        self._woken = False


told_of_waits: ContextVar[Callable[[bool], None] | None] = ContextVar("told_of_waits", default=None)
"""Who is told that a caller of its task begins to stand in line (True), and that it does no more (False).

A layer that measures an upstream sets it in a task of its own: what this side holds back is not the upstream's delay.
"""


async def stand_in(line: Line, clock: Clock, ask: Callable[[], Awaitable[float]], *, seconds: float) -> bool:
    """Waits in line until `ask()` gives 0.0; True when it did, False once `seconds` are over or cannot suffice.

    Who is first asks, again after as many seconds as it was told, or once woken.
    """
    tell = told_of_waits.get()
    if tell is None:
        return await _stand_in(line, clock, ask, seconds)
    tell(True)
    try:
        return await _stand_in(line, clock, ask, seconds)
    finally:
        tell(False)


async def _stand_in(line: Line, clock: Clock, ask: Callable[[], Awaitable[float]], seconds: float) -> bool:
    turn, deadline = Turn(clock), clock.now() + seconds
    line.enter(turn)
    try:
        while True:
            again = math.inf
            if line.first is turn:
                wait = await ask()
                if not wait:
                    return True
                again = clock.now() + max(wait, SHORTEST)
                if again > deadline and wait < math.inf:
                    return False
            if clock.now() >= deadline:
                return False
            await turn.sleep(min(again, deadline))
    finally:
        line.leave(turn)
