"""Where a stream is: what the parser has seen, and what has been delivered past recall.

One `Cursor` lives as long as its call. The parser notes what it sees; a layer that re-opens streams commits what it
handed on, item by item, because a batch may hold events that an error kept back. An event is recognised by its
explicit `id:` and its bytes: an id alone may be a checkpoint that several events share.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from holdfast._types import BatchMode, Delta, Event

MAX_IDS = 65_536
"""Ids remembered per call: a server that resumes repeats the recent past, never the whole of a long stream."""
MAX_STRAY = 8_192
"""Bytes kept of lines that are no SSE fields: enough for an error body or the head of a page."""


class Hasher(Protocol):
    """Somebody who wants every byte of the body as it came: a digest."""

    def update(self, data: bytes, /) -> None:
        """Takes the next bytes."""


class Cursor:
    """The place in one stream, over all its attempts.

    `mode` is what the current attempt's items are; `last_event_id` the id delivered last; `retry` the server's
    reconnection time in milliseconds; `received` counts body bytes of the current attempt, `unfinished` those of an
    event that its end cut off; `numbered` is true once the server sent any id.
    """

    __slots__ = (
        "_delivered",
        "_expected",
        "_seen",
        "_shared",
        "_tail",
        "dropped",
        "hasher",
        "last_event_id",
        "mode",
        "numbered",
        "received",
        "repaired",
        "retry",
        "stray",
        "unfinished",
    )

    def __init__(self) -> None:
        self.mode: BatchMode = "start"
        self.last_event_id = ""
        self.retry: int | None = None
        self.received = 0
        self.repaired = 0
        self.dropped = 0
        self.unfinished = 0
        self.numbered = False
        self.hasher: Hasher | None = None
        self.stray = bytearray()
        self._delivered: dict[str, int] = {}
        self._seen: dict[str, int] = {}
        self._shared = False
        self._tail: list[int] = []
        self._expected: list[int] = []

    def begin(self, mode: BatchMode) -> None:
        """A new attempt starts."""
        self.mode = mode
        self.received = 0
        self.unfinished = 0
        self.hasher = None
        self.stray.clear()
        self._seen = {}
        self._expected = self._tail[::-1] if mode == "continue" else []
        if mode != "continue":
            self._delivered = {}
            self._tail = []
            self.last_event_id = ""

    def restart(self) -> None:
        """The server did not continue: what comes is an answer from its beginning, to be compared and not appended."""
        self.mode = "replay"
        self._delivered = {}
        self._tail = []
        self._expected = []

    def note_stray(self, line: bytes) -> None:
        """Keeps a line that is no field of an event stream: an error body, a page."""
        room = MAX_STRAY - len(self.stray)
        if room > 0:
            self.stray += line[:room] + b"\n"

    def admits(self, event: Event) -> bool:
        """Says whether an event is new. In a continuation, what was delivered before the cut is not.

        The first event of a continuation that contradicts what we hold (an id of ours over other bytes) shows that
        the server began another answer: from there on the attempt is a replay, and everything is admitted.
        """
        mark = hash((event.type, event.payload))
        name = event.id
        if name is None:
            return not self._repeats_tail(mark)
        seen = self._seen.get(name)
        if seen is not None:
            if seen == mark:
                self.dropped += 1
                return False
            self._shared = True
        first = not self._seen
        self._seen[name] = mark
        if len(self._seen) > MAX_IDS:
            del self._seen[next(iter(self._seen))]
        if self.mode != "continue":
            return True
        before = self._delivered.get(name)
        if before is None or (before != mark and self._shared):
            return True
        if before != mark and first and name != self.last_event_id:
            self.restart()
            return True
        self.dropped += 1
        return False

    def _repeats_tail(self, mark: int) -> bool:
        """Events without an id that followed the last id come again after a resume: they must be the same ones."""
        if not self._expected:
            return False
        if self._expected.pop() == mark:
            self.dropped += 1
            return True
        self.restart()
        return False

    def commit(self, batch: Sequence[object]) -> None:
        """Everything in this batch has been handed on: it will not be asked for again."""
        last = None
        for item in batch:
            event = item.raw if type(item) is Delta else item
            if event is last or not isinstance(event, Event):
                continue
            last = event
            if event.id is not None:
                self.last_event_id = event.id
                self._tail.clear()
                if event.id:
                    self._delivered[event.id] = hash((event.type, event.payload))
                    if len(self._delivered) > MAX_IDS:
                        del self._delivered[next(iter(self._delivered))]
            elif event.last_event_id != self.last_event_id:  # set by a block of its own, without data
                self.last_event_id = event.last_event_id
                self._tail = [hash((event.type, event.payload))]
            elif self.last_event_id and len(self._tail) < MAX_IDS:
                self._tail.append(hash((event.type, event.payload)))
