"""A log: the records of one stream as this node has them in memory, for any number of readers at once.

Records come in order and stay the same for ever. Those at the front are let go of where the log outgrows its bound;
who still needs them asks the journal. Readers hold a number and nothing else, so a slow one costs no memory here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from holdfast._types import Head

EndKind = Literal["complete", "failed", "cancelled", "abandoned"]


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How a stream ended. The records say it, too: those of a stream that failed end with an error event.

    `abandoned` is one that nobody read for the grace time, `cancelled` one that its owner gave up.
    """

    kind: EndKind
    error: str = ""
    """The name of the error's class."""
    verdict: str = ""


class Log:
    """The records of one stream. `head` is None until the upstream's head is known, `ending` until all are here."""

    __slots__ = ("_gone", "_records", "_wakers", "ending", "first", "head", "left_out", "lost", "max_bytes", "size")

    def __init__(self, *, max_bytes: int) -> None:
        self.first = 1
        """The number of the oldest record that is still here, or of the next one."""
        self.head: Head | None = None
        self.ending: Ending | None = None
        self.left_out: list[tuple[int, int]] = []
        self.lost = False
        """True where nobody knows how it went on."""
        self.max_bytes = max_bytes
        self.size = 0
        """Bytes of the records that are here."""
        self._gone = 0
        """Bytes of those that were let go of."""
        self._records: list[bytes] = []
        self._wakers: set[Callable[[], None]] = set()

    @property
    def last(self) -> int:
        """The number of the newest record, 0 before the first."""
        return self.first + len(self._records) - 1

    @property
    def written(self) -> int:
        """Bytes of all records that there ever were."""
        return self._gone + self.size

    def start(self, head: Head) -> None:
        """The upstream has answered."""
        if self.head is None:
            self.head = head
            self._wake()

    def extend(self, records: Sequence[bytes]) -> None:
        """Adds the records that follow `last`."""
        self._records += records
        self.size += sum(map(len, records))
        if self.size > self.max_bytes:
            self._trim()
        self._wake()

    def end(self, ending: Ending) -> None:
        """Nothing follows. Only the first ending counts."""
        if self.ending is None:
            self.ending = ending
            self._wake()

    def lose(self) -> None:
        """Nobody knows how it went on: who reads it is told so, and that is no end of the stream."""
        if self.ending is None:
            self.lost = True
            self.end(Ending(kind="failed", error="JournalError"))

    def leave_out(self, count: int) -> None:
        """The next `count` numbers are nobody's: another node writes from here on.

        What its forerunner may have shown under them was never written, and is not what comes now: a reader who has
        such a place is one for whom there is nothing exact. The last of the numbers counts as a place before the rest.
        """
        self.left_out.append((self.last + 1, self.last + count - 1))
        self._records += [b""] * count

    def is_left_out(self, place: int) -> bool:
        """Says whether what was read up to a place is none of this stream: see `leave_out()`."""
        return any(first <= place <= last for first, last in self.left_out)

    def withdraw(self, last: int) -> None:
        """Lets go of the records behind `last`: they were shown, and never written."""
        gone = self._records[max(0, last + 1 - self.first) :]
        del self._records[max(0, last + 1 - self.first) :]
        self.size -= sum(map(len, gone))
        self.first = min(self.first, last + 1)

    def begin_at(self, first: int) -> None:
        """What is before `first` is not here (any more)."""
        self._gone += self.size
        self._records.clear()
        self.first, self.size = first, 0

    def after(self, number: int, *, most: int = 64 * 1024) -> tuple[bytes, int]:
        """Gives the bytes of the records behind `number`, about `most` of them, and the number of the last one.

        They are empty where there are none yet. Raises `LookupError` where the next one was let go of.
        """
        place = number + 1 - self.first
        if place < 0:
            raise LookupError(f"record {number + 1} is no longer here; the oldest is {self.first}")
        records = self._records
        if place + 1 == len(records):  # the reader of a live stream is one behind
            return records[place], number + 1
        end, size = place, 0
        while end < len(records) and size < most:
            size += len(records[end])
            end += 1
        return b"".join(records[place:end]), number + end - place

    def watch(self, waker: Callable[[], None]) -> Callable[[], None]:
        """Calls `waker` whenever there is something new, until what this returns is called."""
        self._wakers.add(waker)
        return lambda: self._wakers.discard(waker)

    def _wake(self) -> None:
        for waker in tuple(self._wakers):
            waker()

    def _trim(self) -> None:
        """Lets go of the oldest, and then some: half a bound at a time, so that it is seldom done."""
        gone = 0
        while self.size > self.max_bytes // 2 and gone < len(self._records) - 1:
            self.size -= len(self._records[gone])
            self._gone += len(self._records[gone])
            gone += 1
        del self._records[:gone]
        self.first += gone
