"""The journal that is there without any server: streams in this process's memory, for as long as it lives.

A log in memory is all there is of a stream here, so what it lets go of is gone. Streams that ended are forgotten after
`keep` seconds, and the oldest of them sooner where all together outgrow `max_bytes`.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence

from holdfast._clock import Clock, SystemClock
from holdfast._types import Head
from holdfast.gateway.journal import Entry, JournalError, Shelved, Writer
from holdfast.gateway.log import Ending, Log

_OF_A_STREAM = 4096
"""Bytes that a stream takes beside what it says: an answer may be shorter than what it is kept in."""
_OF_A_RECORD = 48


class MemoryJournal:
    """A `Journal` for one process."""

    shared = False

    def __init__(
        self,
        *,
        keep: float = 600.0,
        max_stream: int = 16 * 1024 * 1024,
        max_bytes: int = 256 * 1024 * 1024,
        clock: Clock | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self._keep = keep
        self._max_stream = max_stream
        self._max_bytes = max_bytes
        self._streams: dict[str, Shelved] = {}
        self._ended: dict[str, float] = {}
        """When streams ended, the earliest first."""
        self._size = 0
        """Bytes of all of them as of the last sweep, and the requests that came since."""
        self._named: dict[tuple[str, str], str] = {}

    @property
    def pulse(self) -> None:
        return None

    async def start(self, cancelled: Callable[[str], None]) -> None:
        """There is no other node, and nothing to run."""

    async def secret(self) -> str:
        return secrets.token_hex(32)

    async def begin(self, entry: Entry) -> Writer | Shelved:
        name = (entry.owner, entry.idempotency_key)
        if entry.idempotency_key:
            known = self._streams.get(self._named.get(name, ""))
            if known is not None:
                return known
        self._make_room(len(entry.body))
        if entry.idempotency_key:
            self._named[name] = entry.stream
        shelved = Shelved(entry, Log(max_bytes=self._max_stream))
        self._streams[entry.stream] = shelved
        return _Writer(self, shelved)

    async def find(self, stream: str) -> Shelved | None:
        return self._streams.get(stream)

    async def read(self, shelved: Shelved, after: int) -> tuple[bytes, int]:
        raise JournalError("the records behind that place are no longer kept")

    async def cancel(self, shelved: Shelved) -> None:
        """There is no other process: who writes a stream here is told directly."""

    def held(self, shelved: Shelved, readers: int) -> None:
        """Nobody else reads here."""

    def forget(self, shelved: Shelved) -> None:
        """What is here is followed by nobody."""

    def sweep(self) -> None:
        """Forgets what is old, or too much. Called now and then."""
        self._sweep(self._max_bytes)

    def _sweep(self, most: int) -> None:
        oldest = self._clock.now() - self._keep
        size = sum(map(_size, self._streams.values()))
        for stream, ended in list(self._ended.items()):
            if ended > oldest and size <= most:
                break
            size -= _size(self._streams[stream])
            self._drop(stream)
        self._size = size

    async def aclose(self) -> None:
        self._streams.clear()

    def _make_room(self, size: int) -> None:
        """Counts what a new stream brings. Raises `JournalError` where those that run are as much as may be."""
        size += _OF_A_STREAM
        if self._size + size > self._max_bytes:
            self._sweep(self._max_bytes - self._max_bytes // 16 - size)  # some more, so that not each of them looks
            if self._size + size > self._max_bytes:
                raise JournalError("the streams that run here take as much memory as they may")
        self._size += size

    def _end(self, stream: str) -> None:
        if stream in self._streams:
            self._ended[stream] = self._clock.now()

    def _drop(self, stream: str) -> None:
        self._ended.pop(stream, None)
        shelved = self._streams.pop(stream, None)
        if shelved is not None:
            self._named.pop((shelved.entry.owner, shelved.entry.idempotency_key), None)


def _size(shelved: Shelved) -> int:
    """Gives the bytes that a stream takes: its records, the request that they answer, and what holds them."""
    log = shelved.log
    return log.size + _OF_A_RECORD * (log.last + 1 - log.first) + len(shelved.entry.body) + _OF_A_STREAM


class _Writer:
    """Who writes in the same process cannot lose its lease."""

    __slots__ = ("_journal", "_log", "shelved")

    def __init__(self, journal: MemoryJournal, shelved: Shelved) -> None:
        self._journal = journal
        self._log = shelved.log
        self.shelved = shelved

    def check(self) -> None:
        pass

    async def start(self, head: Head, *, upstream: str = "") -> None:
        self._log.start(head)

    def note(self, **state: bool | str) -> None:
        pass

    async def write(self, records: Sequence[bytes]) -> None:
        self._log.extend(records)

    async def end(self, ending: Ending) -> None:
        self._log.end(ending)
        self._journal._end(self.shelved.entry.stream)  # noqa: SLF001 - two halves of one thing

    async def drop(self) -> None:
        self._journal._drop(self.shelved.entry.stream)  # noqa: SLF001 - two halves of one thing

    async def release(self) -> None:
        raise JournalError("the gateway was shut down, and what it keeps in memory ends with it")

    async def read_elsewhere(self) -> bool:
        return False
