"""The streams of one node: opened, joined, found, cancelled, and given up when nobody reads them for too long.

A reader that leaves is no cancel: its stream goes on for the grace time. Who may read is the door's to say, not ours.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Protocol, Self

from holdfast._clock import Clock, SystemClock, Timer
from holdfast.gateway.journal import Entry, Journal, JournalError, LeaseLost, Shelved, Writer
from holdfast.gateway.log import Ending
from holdfast.gateway.production import Answer, Production


class Tell(Protocol):
    """Hears what becomes of a stream."""

    def __call__(self, what: str, shelved: Shelved, /, **facts: Any) -> None:
        """Something did."""


class Conflict(Exception):
    """The idempotency key was given before, with another request."""


class Overloaded(Exception):
    """As many streams run as may."""


class Running:
    """A stream as this node's readers see it."""

    __slots__ = ("_streams", "_timer", "production", "readers", "shelved")

    def __init__(self, streams: Streams, shelved: Shelved) -> None:
        self._streams = streams
        self._timer: Timer | None = None
        self.production: Production | None = None
        """Who writes it, where that is this node."""
        self.readers = 0
        self.shelved = shelved

    def __enter__(self) -> Self:
        """A reader comes."""
        self.readers += 1
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._streams.journal.held(self.shelved, self.readers)
        return self

    def __exit__(self, *_: object) -> None:
        """A reader leaves."""
        self.readers -= 1
        self._streams.journal.held(self.shelved, self.readers)
        if not self.readers:
            self.wait_for_readers()

    async def begun(self) -> None:
        """Returns once there is a head, or it is known that there will be none: here or where it is written."""
        if self.production is not None:
            await self.production.begun.wait()
            if self.production.refusal is not None:
                return
        log, woken = self.shelved.log, asyncio.Event()
        unwatch = log.watch(woken.set)
        try:
            while log.head is None and log.ending is None:
                woken.clear()
                await woken.wait()
        finally:
            unwatch()

    def wait_for_readers(self) -> None:
        """Nobody reads: after the grace time it is given up."""
        if self._timer is None and not self.readers:
            streams = self._streams
            self._timer = streams.clock.call_at(streams.clock.now() + streams.grace, self._lonely)

    def _lonely(self) -> None:
        self._timer = None
        self._streams.spawn(self._streams.give_up(self))


class Streams:
    """All streams that run here, or are read here."""

    def __init__(
        self,
        journal: Journal,
        answer: Callable[[Writer], Answer],
        *,
        grace: float,
        patience: float,
        max_streams: int,
        tell: Tell = lambda *_, **__: None,
        clock: Clock | None = None,
    ) -> None:
        self.journal = journal
        self.clock = clock or SystemClock()
        self.grace = grace
        self.tell = tell
        """Hears what becomes of streams: see `Watch.tell()`."""
        self._answer = answer
        self._patience = patience
        self._max_streams = max_streams
        self._running: dict[str, Running] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def readers(self) -> int:
        """How many read here."""
        return sum(one.readers for one in self._running.values())

    def get(self, stream: str) -> Running | None:
        """Gives a stream that is known here already."""
        return self._running.get(stream)

    @property
    def producing(self) -> int:
        """How many streams this node writes."""
        return len(self._unfinished)

    async def open(self, entry: Entry) -> Running:
        """Opens a stream, or joins the one that has its idempotency key.

        Raises `Conflict`, `Overloaded` and `JournalError`.
        """
        if self.producing >= self._max_streams:
            raise Overloaded
        got = await self.journal.begin(entry)
        if isinstance(got, Shelved):
            if got.entry.digest != entry.digest:
                raise Conflict
            self.tell("joined", got)
            return self._of(got)
        try:
            answer = self._answer(got)
        except BaseException:
            # Nobody would ever write it, and what is never ended is never forgotten.
            with contextlib.suppress(LeaseLost, JournalError):
                await got.drop()
            got.shelved.log.end(Ending(kind="failed", error="internal_error"))
            raise
        self.tell("opened", got.shelved)
        return self._produce(got, answer)

    def produce(self, writer: Writer, answer: Answer | None = None) -> Running:
        """Goes on with a stream that another node has left, or begins it where nothing of it was shown."""
        running = self._produce(writer, answer or self._answer(writer))
        if answer is not None:
            self.tell("taken_over", writer.shelved, last=writer.shelved.log.last)
        return running

    def _produce(self, writer: Writer, answer: Answer) -> Running:
        running = self._of(writer.shelved)
        running.production = Production(writer, answer, patience=self._patience)
        running.production.then(partial(self.tell, "ended", writer.shelved))
        running.wait_for_readers()
        return running

    async def find(self, stream: str) -> Running | None:
        """Gives a stream that runs here or elsewhere, or was read to its end not long ago."""
        try:
            shelved = await self.journal.find(stream)
        except JournalError:
            shelved = None
            if stream not in self._running:
                raise
        return self._running.get(stream) if shelved is None else self._of(shelved)

    async def cancel(self, running: Running) -> None:
        """Gives a stream up at once, wherever it runs. One that has ended stays as it is."""
        if running.shelved.log.ending is not None:
            return
        self.tell("cancelled", running.shelved)
        if running.production is not None and not running.production.done:
            await running.production.stop("cancelled")
        else:
            await self.journal.cancel(running.shelved)

    def cancelled(self, stream: str) -> None:
        """Somebody on another node gave a stream up that is written here."""
        running = self._running.get(stream)
        if running is not None and running.production is not None:
            self.spawn(running.production.stop("cancelled"))

    async def give_up(self, running: Running) -> None:
        """The grace time is over."""
        production = running.production
        if running.readers:
            return
        if production is None or production.done:
            if self._running.get(running.shelved.entry.stream) is running:
                del self._running[running.shelved.entry.stream]
            self.journal.forget(running.shelved)
        elif await production.read_elsewhere():
            running.wait_for_readers()
        elif not running.readers:
            self.tell("abandoned", running.shelved, seconds=self.grace)
            await production.stop("abandoned")
            running.wait_for_readers()

    async def drain(self, seconds: float, *, listening: bool = False) -> None:
        """Lets what runs come to its end; what has not by then is left to other nodes, or ends with an error.

        Where nobody could come back for a stream, neither here (`listening`) nor elsewhere, one that nobody reads is
        given up at once. What remains is done when this is cancelled, too.
        """
        running = list(self._running.values())
        if not self.journal.shared and not listening:
            await asyncio.gather(*(self.give_up(one) for one in running))
        try:
            async with asyncio.timeout(seconds):
                while unfinished := self._unfinished:  # who had been let in opens one meanwhile
                    await unfinished[0].wait()
        except TimeoutError:
            pass
        finally:
            left = self._unfinished
            for one in left if self.journal.shared else ():
                self.tell("handed_over", one.shelved, last=one.shelved.log.last)
            await asyncio.gather(*(one.hand_over() for one in left))
            for task in tuple(self._tasks):
                task.cancel()

    @property
    def _unfinished(self) -> list[Production]:
        productions = (one.production for one in self._running.values())
        return [one for one in productions if one is not None and not one.done]

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Runs something on the side, and remembers it until it is done."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _of(self, shelved: Shelved) -> Running:
        """Gives a stream by what the journal has of it, which may not be what readers here were told last of all."""
        running = self._running.get(shelved.entry.stream)
        if running is None or running.shelved is not shelved:
            running = self._running[shelved.entry.stream] = Running(self, shelved)
            running.wait_for_readers()  # who asks for it may not be one who may read it
        return running
