"""Where a stream is: what the parser has seen, and what has been delivered past recall.

One `Cursor` lives as long as its call. The parser notes what it sees; a layer that re-opens streams commits what it
handed on, item by item, because a batch may hold events that an error kept back. An event is recognised by its
explicit `id:` and its bytes: an id alone may be a checkpoint that several events share. A server that contradicts what
we hold is never believed: its answer becomes a replay to be compared, or the attempt breaks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from itertools import islice
from typing import Any, Protocol

from holdfast._errors import NotAStream, StreamBroken
from holdfast._types import BatchMode, Delta, Event

MAX_IDS = 65_536
"""Ids remembered per call, and events per id: a server that resumes repeats the recent past, never a whole stream."""
MAX_ID = 1_024
"""Characters of an id that can be a cursor: it goes back as a header, and is remembered for every event."""
_ANY = 0
"""The mark of an event of which only the id is known. (That a hash is 0 as well costs nothing: it agrees, too.)"""
MAX_STRAY = 8_192
"""Bytes kept of lines that are no SSE fields: enough for an error body or the head of a page."""


class Hasher(Protocol):
    """Somebody who wants every byte of the body as it came: a digest."""

    def update(self, data: bytes, /) -> None:
        """Takes the next bytes."""


class Cursor:
    """The place in one stream, over all its attempts.

    `asked` is what the next attempt's items are to be, `mode` what the current one's are; `retry` the server's
    reconnection time in milliseconds; `received` counts body bytes of the current attempt, `unfinished` those of an
    event that its end cut off; `numbered` is true once the server sent any id; `vouched` is false while what was
    committed belongs to an answer that has not yet said all that was delivered. `unnumbered` is how events begin that
    are no part of an answer in the stream's dialect: servers that number their answers leave these without an id.
    `overlap`, where it is not empty, is the `proof_of()` the event with which the next continuation must begin: one
    that was delivered, asked for again to see that the server stands where we do.
    """

    __slots__ = (
        "_admitted",
        "_bearer",
        "_delivered",
        "_dropped_here",
        "_every_id",
        "_expected",
        "_group",
        "_last_id",
        "_overlap",
        "_seen",
        "_shared",
        "_stale",
        "asked",
        "dropped",
        "hasher",
        "mode",
        "numbered",
        "overlap",
        "received",
        "repaired",
        "retry",
        "stray",
        "unfinished",
        "unnumbered",
        "vouched",
    )

    def __init__(self) -> None:
        self.asked: BatchMode = "start"
        self.mode: BatchMode = "start"
        self.retry: int | None = None
        self.received = 0
        self.repaired = 0
        self.dropped = 0
        self.unfinished = 0
        self.numbered = False
        self.vouched = True
        self.unnumbered: tuple[bytes, ...] = ()
        self.overlap = ""
        self._overlap = ""
        self.hasher: Hasher | None = None
        self.stray = bytearray()
        self._last_id = ""
        self._delivered: dict[str, int] = {}  # each id delivered, and the mark of its last event
        self._group: list[int] = []  # marks of what was delivered from the last id on
        self._bearer = False  # the first of them bore the id, which else came in a block of its own
        self._seen: dict[str, int] = {}  # ids of this attempt
        self._shared = False  # some id stood over several events: ids are checkpoints here
        self._expected: list[int] = []  # what of the last group may come again, the next one last
        self._admitted = False  # this continuation has brought something new
        self._stale = False  # what is remembered is of an answer that this attempt does not continue
        self._every_id = True  # nothing was delivered that bore no id
        self._dropped_here: set[str] = set()  # ids under which this attempt dropped something

    @property
    def last_event_id(self) -> str:
        """The id delivered last, from which a server can continue; empty where there is none."""
        # Of a group that outgrew our memory a server could repeat more than we would recognise.
        usable = self.vouched and len(self._group) < MAX_IDS and self._last_id.isprintable()
        return self._last_id if usable else ""  # RFC 9110, section 5.5: no control character may stand in a header

    @property
    def expects(self) -> bool:
        """True while a continuation may still repeat what was delivered: every event is asked about then."""
        return self.mode == "continue" and not self._admitted

    def begin(self, mode: BatchMode) -> None:
        """A new attempt starts."""
        self.mode = mode
        self.received = 0
        self.unfinished = 0
        self.hasher = None
        self.stray.clear()
        self._seen = {}
        self._dropped_here = set()
        self._admitted = False
        self._expected = self._group[::-1] if mode == "continue" else []
        self._overlap = self.overlap if mode == "continue" else ""
        if mode in ("replay", "extend"):
            self._forget()
        elif self._stale:  # nothing was committed of the other answer, and the same request is sent once more
            self._stale, self.vouched = False, True

    def restart(self) -> None:
        """The server did not continue: what comes is an answer from its beginning, to be compared and not appended."""
        self.mode = "replay"
        self.vouched = False
        self._stale = True
        self._expected = []

    def _forget(self) -> None:
        self.vouched = self._stale = False
        self._last_id = ""
        self._delivered = {}
        self._group = []
        self._expected = []
        self._every_id = True

    def state(self) -> dict[str, Any]:
        """Gives the place as JSON values: of the events that the last id stands over, only how many they are."""
        return {"last_event_id": self.last_event_id, "group": len(self._group), "bearer": self._bearer}

    def revive(self, state: Mapping[str, Any]) -> None:
        """Takes up the place that `state()` took down; what is said again from there is known by its id alone."""
        self._last_id = str(state["last_event_id"])
        self._group = [_ANY] * min(state["group"], MAX_IDS) if self._last_id else []
        self._bearer = state["bearer"]
        self.numbered = bool(self._last_id)
        self._every_id = False  # whether each event bore one is not known

    def note_stray(self, line: bytes) -> None:
        """Keeps a line that is no field of an event stream: an error body, a page."""
        room = MAX_STRAY - len(self.stray)
        if room > 0:
            self.stray += line[:room] + b"\n"

    def admits(self, event: Event) -> bool:
        """Says whether an event is new. In a continuation, what was delivered before the cut is not.

        An event of a continuation that contradicts what we hold (an id of ours over other bytes) shows that the server
        began another answer: see `restart()`.
        """
        if self._overlap:
            self._overlap, overlap = "", self._overlap
            if proof_of(event) != overlap:
                raise NotAStream("the server was to go on at a place in its answer, and another event stands there")
            self.dropped += 1
            return False
        mark, name = _mark(event), event.id or None  # the empty id names nothing
        if name is not None and len(name) > MAX_ID:
            name = None
        seen = None if name is None else self._seen.get(name)
        if name is not None:
            if seen == mark and not self._shared:
                self.dropped += 1
                self._dropped_here.add(name)
                return False
            if seen is not None and not self._shared:
                self._shared = True  # from here on ids are checkpoints, and equal events are two
                if name in self._dropped_here:
                    raise StreamBroken("an event was taken for a repeated one, and its id turned out to be shared")
            self._seen[name] = mark
            _forget_oldest(self._seen)
        if self.mode != "continue" or (self._admitted and seen is not None):
            return True
        nameless = event.id is None and not event.payload.startswith(self.unnumbered)
        if nameless and self._every_id and self._last_id and not self._admitted:
            self.restart()  # each event bore an id until now: a server without ids does not continue, it begins
            return True
        if self._repeats(event, mark):
            self.dropped += 1
            return False
        self._admitted = True
        return True

    def _repeats(self, event: Event, mark: int) -> bool:
        """Says whether a continuation's event was delivered before the cut."""
        place = event.id if event.id is not None else event.last_event_id
        if not self._admitted and place == self._last_id:
            return self._repeats_group(mark, event.id)
        known = self._delivered.get(place)
        if known is None or (event.id is None and self._admitted):
            return not self._admitted and self._repeats_nameless(event)
        # Of what followed an older id we remember nothing: an event without one cannot be recognised there.
        return self._agrees(known == mark and event.id is not None)

    def _repeats_group(self, mark: int, name: str | None) -> bool:
        """Events from the last id on come again, in order: all of them, or those after the one that bore the id."""
        expected = self._expected
        untouched = expected and self._bearer and len(expected) == len(self._group)
        if untouched and (name is None or (self._shared and expected[-1] not in (mark, _ANY))):
            expected.pop()
        return bool(expected) and self._agrees(expected.pop() in (mark, _ANY))

    def _repeats_nameless(self, event: Event) -> bool:
        """What came without an id, or with one that a NUL spoilt, may bear one when it comes again."""
        expected = self._expected
        untouched = self._bearer and len(expected) == len(self._group)
        place = 2 if untouched else 1
        if len(expected) < place or expected[-place] != hash((None, event.type, event.payload)):
            return False
        del expected[-place:]
        return True

    def _agrees(self, same: bool) -> bool:  # noqa: FBT001 - a verdict, passed on
        """False once the event has turned the attempt into a replay. Raises `StreamBroken` where it is too late."""
        if same:
            return True
        if self._admitted:
            raise StreamBroken("the server continued our stream, and then sent an id of ours over other contents")
        self.restart()
        return False

    def commit(self, batch: Sequence[object]) -> None:
        """Everything in this batch has been handed on, or compared: it need not be asked for again."""
        if self._stale:
            self._forget()
        last = None
        for item in batch:
            event = item.raw if type(item) is Delta else item
            if event is last or not isinstance(event, Event):
                continue
            last = event
            mark = _mark(event)
            # An id may come in a block of its own, without data; the empty id takes the last one back.
            name = event.id if event.id is not None else event.last_event_id
            self._every_id = self._every_id and bool(event.id)
            if len(name) > MAX_ID:
                name = ""
            if name != self._last_id or (event.id is not None and not self._shared):
                self._last_id, self._group, self._bearer = name, [mark], event.id is not None
            elif name and len(self._group) < MAX_IDS:
                self._group.append(mark)
            if name and (event.id or name not in self._delivered):
                self._delivered[name] = mark
                _forget_oldest(self._delivered)


def _forget_oldest(known: dict[str, int]) -> None:
    """Keeps `MAX_IDS` at most. Many go at once: to find a dict's first key costs a scan over all deleted before it."""
    if len(known) > MAX_IDS:
        for name in list(islice(known, 1 + MAX_IDS // 8)):
            del known[name]


def proof_of(event: Event) -> str:
    """Names an event by its contents, in every process alike."""
    return blake2b(event.type.encode() + b"\0" + event.payload, digest_size=16).hexdigest()


def _mark(event: Event) -> int:
    return hash((event.id, event.type, event.payload))
