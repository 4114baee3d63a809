"""Stand-ins around a production and a reading: an answer by script, and a reader who takes what he likes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from holdfast._errors import StreamError
from holdfast._types import Head
from holdfast.gateway.journal import Entry
from holdfast.gateway.journal.memory import MemoryJournal
from holdfast.gateway.records import new_stream
from holdfast.gateway.streams import Streams

Step = list[bytes] | Exception | asyncio.Event | float


class ScriptedAnswer:
    """Gives its steps: blocks, an exception to raise, an event or seconds to wait for. Counts opens and closes."""

    def __init__(self, steps: Iterable[Step], *, head: Head | Exception | None = None) -> None:
        self._head = head or Head()
        self._steps = list(steps)
        self.opened = self.closed = 0

    async def open(self) -> Head:
        self.opened += 1
        await asyncio.sleep(0)
        if isinstance(self._head, Exception):
            raise self._head
        return self._head

    async def blocks(self) -> list[bytes]:
        while self._steps:
            step = self._steps[0]
            if isinstance(step, asyncio.Event):
                await step.wait()
            elif isinstance(step, float):
                await asyncio.sleep(step)
            self._steps.pop(0)  # only now: a cancelled wait loses nothing
            if isinstance(step, Exception):
                self._steps.insert(0, step)
                raise step
            if isinstance(step, list):
                return step
        return []

    async def aclose(self) -> None:
        self.closed += 1
        await asyncio.sleep(0)


class Sink:
    """A reader. `takes` says how many bytes it takes before it blocks; `None`: all."""

    def __init__(self, takes: int | None = None) -> None:
        self.data = b""
        self.open = asyncio.Event()
        self.pushes = 0
        self._takes = takes
        if takes is None:
            self.open.set()

    @property
    def has_room(self) -> bool:
        return self.open.is_set() or len(self.data) < (self._takes or 0)

    def push(self, data: bytes) -> None:
        assert self.has_room
        self.pushes += 1
        self.data += data

    async def write(self, data: bytes) -> None:
        self.data += data
        if not self.has_room:
            await self.open.wait()


def entry() -> Entry:
    """Gives an entry of a stream that nobody has."""
    return Entry(
        stream=new_stream(), owner="", surface="chat", url="/v1/chat/completions", headers={}, body=b"{}", digest=""
    )


def streams(answer: ScriptedAnswer | None = None, *, grace: float = 60.0, patience: float = 15.0) -> Streams:
    """Gives streams over a journal in memory, all of which have this answer."""
    given = answer or ScriptedAnswer([])
    return Streams(MemoryJournal(), lambda _: given, grace=grace, patience=patience, max_streams=10_000)


class Broke(StreamError):
    """What a scripted answer breaks with."""
