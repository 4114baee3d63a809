"""A reading: one reader's place in one stream, and the bytes of its answer.

It holds a number and the bytes on their way, so a slow reader delays nobody. One that has everything, and whose
connection takes bytes, is sent what is new by whoever writes it: no task is woken for it.

While nothing comes, a comment goes out now and then so that load balancers keep the line: a line and no blank one,
because some clients take that for an event. A stream that broke does not end like a whole one: behind its error event
the connection is closed inside the body.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from holdfast.gateway.journal import Journal, JournalError
from holdfast.gateway.refusals import Refusal, error_event
from holdfast.gateway.streams import Running
from holdfast.gateway.surfaces import SURFACES

HEARTBEAT = b": still here\n"
COME_BACK = b"retry: 500\n"
"""Tells an EventSource, whose connection ends, to come back in so many milliseconds."""


class Writes(Protocol):
    """Where a reading goes: `Body` is one."""

    @property
    def has_room(self) -> bool:
        """True where `push()` may be called: nothing much waits to be taken."""

    def push(self, data: bytes) -> None:
        """Sends bytes without waiting."""

    async def write(self, data: bytes) -> None:
        """Sends bytes, and waits while the peer takes none."""


class Beats(Protocol):
    """One of those that a `Heart` tells."""

    quiet: int
    """Ticks of the heart since something was sent."""

    @property
    def behind(self) -> int:
        """How many records there are that it has not sent."""

    def beat(self) -> None:
        """Nothing was sent for a while."""

    def leave(self, *, everybody: bool = False) -> None:
        """Ends before the stream does, where the reader is one who comes back by itself, or `everybody` must go."""


class Heart:
    """Tells readings that nothing was sent for `seconds`: one timer for all, so that waiting costs none."""

    _TICKS = 4

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._readings: set[Beats] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, reading: Beats) -> None:
        """From now on it is told."""
        self._readings.add(reading)
        if self._timer is None:
            self._start()

    def discard(self, reading: Beats) -> None:
        """It reads no more."""
        self._readings.discard(reading)

    def far_behind(self, records: int) -> int:
        """Says how many readers have more records than that before them."""
        return sum(reading.behind > records for reading in self._readings)

    def send_away(self, *, everybody: bool = False) -> None:
        """Tells those who can come back to do so, or `everybody`: other nodes have what they read."""
        for reading in tuple(self._readings):
            reading.leave(everybody=everybody)

    def _start(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._seconds / self._TICKS, self._tick)

    def _tick(self) -> None:
        self._timer = None
        for reading in tuple(self._readings):
            reading.quiet += 1
            if reading.quiet >= self._TICKS:
                reading.beat()
        if self._readings:
            self._start()


class Reading:
    """Sends what is behind a place, then what comes, to its end."""

    __slots__ = (
        "_beats",
        "_failure",
        "_journal",
        "_log",
        "_place",
        "_returns",
        "_rewrite",
        "_to",
        "_wait",
        "broken",
        "left",
        "quiet",
        "shelved",
    )

    def __init__(
        self,
        running: Running,
        after: int,
        journal: Journal,
        rewrite: Callable[[bytes], bytes] | None = None,
        *,
        returns: bool = False,
    ) -> None:
        self.shelved = running.shelved
        self._beats = False
        self._failure: Exception | None = None
        self._journal = journal
        self._log = running.shelved.log
        self._place = after
        self._returns = returns
        self._rewrite = rewrite
        self._to: Writes | None = None
        self._wait: asyncio.Future[None] | None = None
        self.quiet = 0
        """Ticks of the heart since something was sent."""
        self.left = False
        """True where it was told to come back for the rest."""
        self.broken = False
        """True where nothing exact follows what was read, and the reader was told so."""

    @property
    def behind(self) -> int:
        """How many records there are that it has not sent."""
        return self._log.last - self._place

    @property
    def over(self) -> bool:
        """True where all there will ever be was read."""
        log = self._log
        return log.ending is not None and self._place >= log.last

    async def run(self, to: Writes, heart: Heart) -> None:
        """Sends all there is, as it comes; an error event where records are gone. Raises what `to` does."""
        try:
            await self._run(to, heart)
        except JournalError as error:
            self.broken = True
            told = error_event(SURFACES[self.shelved.entry.surface], Refusal(503, "journal_unavailable", str(error)))
            await to.write(told if self._rewrite is None else self._rewrite(told))

    async def _run(self, to: Writes, heart: Heart) -> None:
        log, self._to = self._log, to
        unwatch = log.watch(self._wake)
        heart.add(self)
        try:
            while True:
                if self._failure is not None:
                    raise self._failure
                if self.left:
                    await to.write(COME_BACK)
                    return
                if log.left_out and log.is_left_out(self._place):
                    raise JournalError("the node that served this stream was lost, and with it what was read last")
                try:
                    data, place = log.after(self._place)
                except LookupError:
                    data, place = await self._journal.read(self.shelved, self._place)
                if data:
                    self._place = place
                    self.quiet = 0
                    if self._rewrite is not None:
                        data = self._rewrite(data)
                    if data:  # else it is nothing that this reader can read
                        await to.write(data)
                elif log.lost:
                    raise JournalError("the journal has lost this stream, or cannot be had")
                elif log.ending is not None:
                    if self._place > log.last:
                        raise JournalError("this stream has ended before the place that was read to")
                    return
                elif self._beats:
                    self._beats = False
                    self.quiet = 0
                    await to.write(HEARTBEAT if self._rewrite is None else self._rewrite(HEARTBEAT))
                else:
                    self._wait = asyncio.get_running_loop().create_future()
                    await self._wait
        finally:
            heart.discard(self)
            unwatch()

    def beat(self) -> None:
        """Nothing was sent for a while."""
        self._beats = True
        self._rouse()

    def leave(self, *, everybody: bool = False) -> None:
        """Ends before the stream does, where the reader is one who comes back by itself, or `everybody` must go."""
        self.left = self._returns or (everybody and self._log.ending is None)
        self._rouse()

    def _wake(self) -> None:
        """There is something new: sends it from here, where the task has sent all that was before and has no part."""
        wait, to, log = self._wait, self._to, self._log
        if wait is None or wait.done():
            return  # it is not waiting, and looks by itself
        if to is not None and not log.left_out and log.ending is None and log.last > self._place and to.has_room:
            self._push(to)
        else:
            self._rouse()

    def _push(self, to: Writes) -> None:
        try:
            data, place = self._log.after(self._place)
        except LookupError:
            self._rouse()  # the journal has it
            return
        try:
            self._place = place
            to.push(data if self._rewrite is None else self._rewrite(data))
            self.quiet = 0
        except Exception as error:  # noqa: BLE001 - one reader's trouble must not meet the one who writes
            self._failure = error
            self._rouse()

    def _rouse(self) -> None:
        wait, self._wait = self._wait, None
        if wait is not None and not wait.done():
            wait.set_result(None)
