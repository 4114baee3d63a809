"""Time that a test holds in its hand.

A `FakeClock` stands still while anything can run. When the event loop has nothing to do but wait, it jumps to its next
timer, so waiting costs no real time and happens in the same order every run; `advance()` moves it by hand. It must
never jump past work that is ready: real sockets are polled before every jump, and a jump wakes all that is due at one
moment and nothing later. The idea is that of trio's `MockClock(autojump_threshold=0)`.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Protocol, Self

_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
_PROBE_SECONDS = 0.002
_PROBE_TURNS = 20


@dataclass(slots=True, order=True)
class _Timer:
    when: float
    number: int
    call: Callable[[], None] = field(compare=False)
    live: bool = field(default=True, compare=False)

    def cancel(self) -> None:
        self.live = False

    def run(self) -> None:
        if self.live:
            self.live = False
            self.call()


class _Watch(Protocol):
    """Calls back when the event loop is idle; told True, something became ready."""

    def look(self) -> None:
        """There is something to be idle for."""

    def stop(self) -> None:
        """Takes everything out of the loop again."""


class FakeClock:
    """A `Clock` that jumps. It takes hold of the running loop at its first use and lets go in `close()`.

    `autojump=False` leaves every move to `advance()`. `patience` is how many real seconds a jump waits for sockets or
    threads when the loop has any: with a server in the same loop 0 is enough, loopback being immediate. `slept` lists
    the seconds that `sleep()` was asked for.
    """

    def __init__(
        self, *, now: float = 0.0, wall: datetime = _EPOCH, autojump: bool = True, patience: float = 0.002
    ) -> None:
        self._now = now
        self._epoch = wall - timedelta(seconds=now)
        self._autojump = autojump
        self._patience = patience
        self._timers: list[_Timer] = []
        self._numbers = itertools.count()
        self._settling: list[asyncio.Future[None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watch: _Watch | None = None
        self.slept: list[float] = []

    # -- the Clock protocol --------------------------------------------------------------------

    def now(self) -> float:
        return self._now

    def wall(self) -> datetime:
        return self._epoch + timedelta(seconds=self._now)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken = asyncio.Event()
        timer = self.call_at(self._now + seconds, woken.set)
        try:
            await woken.wait()
        finally:
            timer.cancel()

    def call_at(self, when: float, call: Callable[[], None]) -> _Timer:
        watch, loop = self._install()
        timer = _Timer(when, next(self._numbers), call)
        if when <= self._now:
            loop.call_soon(timer.run)
        else:
            heapq.heappush(self._timers, timer)
            watch.look()
        return timer

    # -- moving by hand ------------------------------------------------------------------------

    async def advance(self, seconds: float) -> None:
        """Moves the clock on, stopping at every timer on the way until all that it woke has run."""
        target = self._now + seconds
        await self.settle()
        while (when := self._next()) is not None and when <= target:
            self._jump(when)
            await self.settle()
        self._now = max(self._now, target)

    async def settle(self) -> None:
        """Waits, in no time, until every other task waits for something."""
        watch, loop = self._install()
        idle = loop.create_future()
        self._settling.append(idle)
        watch.look()
        await idle

    # -- in the loop ---------------------------------------------------------------------------

    def _install(self) -> tuple[_Watch, asyncio.AbstractEventLoop]:
        loop = asyncio.get_running_loop()
        if self._watch is None or self._loop is not loop:
            self.close()
            self._loop = loop
            selector = getattr(loop, "_selector", None)
            if selector is None:
                self._watch = _ProbeWatch(loop, self._idle)
            else:
                self._watch = _SelectorWatch(selector, self._idle, self._patience)
        return self._watch, loop

    def close(self) -> None:
        """Lets go of the event loop; timers that have not run never will. The clock can be used again."""
        if self._watch is not None:
            self._watch.stop()
        self._watch = self._loop = None
        self._timers.clear()
        self._settling.clear()

    async def __aenter__(self) -> Self:
        self._install()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _next(self) -> float | None:
        while self._timers and not self._timers[0].live:
            heapq.heappop(self._timers)
        return self._timers[0].when if self._timers else None

    def _idle(self) -> bool:
        """The loop has nothing to do. True: now it has."""
        while self._settling:
            waiter = self._settling.pop(0)
            if not waiter.done():
                waiter.set_result(None)
                return True
        when = self._next()
        if when is None or not self._autojump:
            return False
        self._jump(when)
        return True

    def _jump(self, when: float) -> None:
        self._now = max(self._now, when)
        while (due := self._next()) is not None and due <= self._now:
            timer = heapq.heappop(self._timers)
            asyncio.get_running_loop().call_soon(timer.run)


class _SelectorWatch:
    """On asyncio's own loops: a blocking `select()` that finds nothing ready is the very definition of idle."""

    def __init__(self, selector: Any, idle: Callable[[], bool], patience: float) -> None:
        self._selector = selector
        self._idle = idle
        self._patience = patience
        self._stopped = False
        self._original: Callable[[float | None], list[Any]] = selector.select
        selector.select = self._select

    def _select(self, timeout: float | None = None) -> list[Any]:
        if self._stopped or (timeout is not None and timeout <= 0):
            return self._original(timeout)
        ready = self._original(0)
        if not ready and len(self._selector.get_map()) > 1:  # more than the loop's own wake-up pipe
            ready = self._original(self._patience)
        if ready or self._idle():
            return ready
        return self._original(timeout)

    def look(self) -> None:
        """A select is coming anyway."""

    def stop(self) -> None:
        self._stopped = True
        if self._selector.__dict__.get("select") == self._select:  # another clock's hook may lie over ours
            del self._selector.select
            if self._selector.select != self._original:
                self._selector.select = self._original


class _ProbeWatch:
    """On loops that show no selector (uvloop): idle is a real moment in which the loop's thread hardly computed.

    A guess, but a careful one: after the moment come some bare turns of the loop, in which work that somebody else's
    process held up could go on, and whoever uses the clock meanwhile starts the moment anew.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, idle: Callable[[], bool]) -> None:
        self._loop = loop
        self._idle = idle
        self._looked = False
        self._computed = 0.0
        self._probe: asyncio.Handle | None = None

    def look(self) -> None:
        self._looked = True
        if self._probe is None:
            self._start()

    def _start(self) -> None:
        self._looked = False
        self._computed = time.thread_time()
        self._probe = self._loop.call_later(_PROBE_SECONDS, self._rest)

    def _rest(self) -> None:
        if time.thread_time() - self._computed > _PROBE_SECONDS / 4:
            self._start()
        else:
            self._turn(_PROBE_TURNS)

    def _turn(self, left: int) -> None:
        if self._looked:
            self._start()
        elif left:
            self._probe = self._loop.call_soon(self._turn, left - 1)
        else:
            self._probe = None
            if self._idle():
                self._start()

    def stop(self) -> None:
        if self._probe is not None:
            self._probe.cancel()
            self._probe = None
