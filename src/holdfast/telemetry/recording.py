"""What a recorded body of server-sent events holds, and what is wrong with it, told with byte offsets.

The same machines as a live stream's read it, so the verdict is the one that a reader would have had. Nothing is kept
per event: a recording of any length costs its answer and some counters.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from holdfast._errors import DecodeError, EndOfStream, NotAStream, StreamError
from holdfast._types import Completion, Delta, Event, Head, Verdict
from holdfast.dialects import Dialect
from holdfast.machines.cursor import MAX_IDS, Cursor
from holdfast.machines.sse import SseParser
from holdfast.machines.transcript import Transcript

MAX_PROBLEMS = 50
"""Problems kept in words; further ones are only counted."""
_FIELDS = frozenset((b"data", b"event", b"id", b"retry"))
_LINE = re.compile(rb"([^\r\n]*)(?:\r\n?|\n|\Z)")
_BOM = b"\xef\xbb\xbf"


@dataclass(slots=True, frozen=True)
class Problem:
    """Something that is not as it must be, `offset` bytes into the body."""

    offset: int
    words: str


@dataclass(slots=True, kw_only=True)
class Recording:
    """The anatomy of one body. `error` is what a reader's stream would have raised, None with a `verdict`.

    `head` is None where nobody told it.
    """

    dialect: str = ""
    head: Head | None = None
    size: int = 0
    events: int = 0
    types: Counter[str] = field(default_factory=Counter)
    comments: int = 0
    first_comment: str = ""
    ids: int = 0
    first_id: str = ""
    last_event_id: str = ""
    retry_ms: int | None = None
    line_ends: Counter[str] = field(default_factory=Counter)
    first: Event | None = None
    last: Event | None = None
    largest: int = 0
    after_end: int = 0
    unfinished: int = 0
    answer: Completion = field(default_factory=Completion)
    verdict: Verdict | None = None
    error: StreamError | None = None
    problems: list[Problem] = field(default_factory=list)
    more_problems: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Gives the whole as JSON values."""
        return {
            "dialect": self.dialect,
            "status": self.head.status if self.head is not None else None,
            "content_type": self.head.content_type if self.head is not None else None,
            "bytes": self.size,
            "events": self.events,
            "types": dict(self.types),
            "comments": self.comments,
            "ids": self.ids,
            "last_event_id": self.last_event_id,
            "retry": None if self.retry_ms is None else self.retry_ms / 1000,
            "line_ends": dict(self.line_ends),
            "largest_event": self.largest,
            "events_after_the_end": self.after_end,
            **judged(self.answer, self.verdict, self.error),
            "problems": [{"offset": one.offset, "problem": one.words} for one in self.problems],
            "more_problems": self.more_problems,
        }


def judged(answer: Completion, verdict: Verdict | None, error: StreamError | None) -> dict[str, Any]:
    """Gives an answer and what became of it as JSON values."""
    return {
        "verdict": verdict.kind if verdict is not None else None,
        "error": type(error).__name__ if error is not None else None,
        "error_message": str(error) if error is not None else None,
        "finish_reason": answer.finish_reason,
        "text": answer.text,
        "reasoning": answer.reasoning,
        "tool_calls": [{"id": c.id, "name": c.name, "arguments": c.arguments} for c in answer.tool_calls],
        "choices": len(answer.choices),
        "usage": None if answer.usage is None else answer.usage.raw,
    }


class Inspector:
    """Takes a body in chunks, and gives its `Recording` at the end.

    `head` is the response's, where that is known; the body of a refusal holds no events. `each` is shown every event.
    """

    def __init__(
        self,
        dialect: Dialect | None = None,
        *,
        head: Head | None = None,
        each: Callable[[Event], None] | None = None,
    ) -> None:
        self._cursor = Cursor()
        self._parser = SseParser(self._cursor, comments=True)
        self._reader = dialect.reader(None, self._cursor, head=head) if dialect is not None else None
        self._answer = Transcript()
        self._each = each
        self._ids: dict[str, int] = {}
        self._framed = head is None or 200 <= head.status < 300
        self._ended = False
        self._found = Recording(dialect=dialect.name if dialect is not None else "", head=head)
        self._after_cr = False

    def feed(self, chunk: bytes) -> None:
        """Takes more of the body in."""
        found = self._found
        found.size += len(chunk)
        self._count_line_ends(chunk)
        if not self._framed:
            return
        events: list[Event] = []
        try:
            self._parser.feed((chunk,), events)
        except DecodeError as error:  # over a limit: what comes after cannot be framed
            self._framed = False
            self._fail(error, error.offset)
        for event in events:
            self._take(event)

    def end(self, known: StreamError | Verdict | None = None) -> Recording:
        """The body is over: gives the verdict. `known` is how it ended, where that is known better than from here."""
        found, cursor = self._found, self._cursor
        events: list[Event] = []
        if self._framed:
            self._parser.end(events)
        for event in events:
            self._take(event)
        found.unfinished = cursor.unfinished
        if found.unfinished:
            self._problem(found.size - found.unfinished, f"the last event has no blank line: {found.unfinished} bytes")
        if isinstance(known, StreamError) and found.error is None:
            self._fail(known, found.size)
        elif isinstance(known, Verdict):
            found.error = None  # what looks wrong from here alone was right where it stood
        else:
            self._judge()
        found.last_event_id, found.retry_ms = self._parser.last_event_id, cursor.retry
        if self._reader is not None:
            recognised = getattr(self._reader, "dialect", None)
            found.dialect = recognised.name if recognised is not None else found.dialect
            found.verdict = Verdict() if found.error is None else None
            found.answer = self._answer.completion(usage=self._reader.evidence.usage, verdict=found.verdict)
        found.problems.sort(key=lambda one: one.offset)
        if isinstance(found.error, NotAStream) and not found.events:
            found.problems[1:-1], found.more_problems = [], 0  # of a page, the first line says enough
        return found

    def _judge(self) -> None:
        """Asks the dialect whether the answer is whole."""
        found = self._found
        if self._reader is None or self._ended or found.error is not None:
            return
        deltas: list[Delta] = []
        try:
            self._reader.end(deltas)
        except EndOfStream:
            pass
        except NotAStream as error:
            if found.events == 0 and found.head is None:
                # The dialect speaks of what the server answered, and nobody knows: a file is all there is.
                error = NotAStream("it holds no event" if found.size else "it is empty", retryable=error.retryable)
            self._fail(error, found.size)
        except StreamError as error:
            self._fail(error, found.size)
        self._tell(deltas)

    # -- one event -----------------------------------------------------------------------------

    def _take(self, event: Event) -> None:
        found = self._found
        self._look_at_lines(event)
        if event.id is not None:
            self._note_id(event)
        if not event.type:
            return
        found.events += 1
        found.types[event.type if event.type in found.types or len(found.types) < MAX_PROBLEMS else "(others)"] += 1
        found.first = found.first or event
        found.last = event
        found.largest = max(found.largest, len(event.wire))
        if self._each is not None:
            self._each(event)
        if self._ended:
            found.after_end += 1
        elif self._reader is not None and found.error is None:
            self._read(event)

    def _read(self, event: Event) -> None:
        deltas: list[Delta] = []
        try:
            if self._reader is not None:
                self._reader.feed([event], deltas)
        except EndOfStream:
            self._ended = True
        except StreamError as error:
            self._fail(error, event.offset)
        self._tell(deltas)

    def _tell(self, deltas: list[Delta]) -> None:
        if deltas:
            self._answer.add(deltas)

    def _note_id(self, event: Event) -> None:
        found, name = self._found, event.id or ""
        found.ids += 1
        found.first_id = found.first_id or name
        before = self._ids.get(name)
        if before is not None and event.type and before == hash(event.payload):
            self._problem(event.offset, f"the same event came before under this id: {name[:80]!r}")
        elif len(self._ids) < MAX_IDS:
            self._ids[name] = hash(event.payload)

    def _look_at_lines(self, event: Event) -> None:
        found, wire = self._found, event.wire
        try:
            wire.decode()
        except UnicodeDecodeError as error:
            self._problem(event.offset + error.start, f"a byte that is not UTF-8 ({error.reason})")
        start = 0
        if event.offset == 0 and wire.startswith(_BOM):
            start = len(_BOM)
            self._problem(0, "a byte order mark: legal, but many clients lose the first event over it")
        for line in _LINE.finditer(wire, start):
            text = line[1]
            name, _, value = text.partition(b":")
            if text and not name:
                found.comments += 1
                found.first_comment = found.first_comment or str(text, "utf-8", "replace")[:80]
            elif name and name not in _FIELDS:
                self._problem(event.offset + line.start(), f"a line that is no field: {_preview(text)}")
            elif name == b"retry" and not value.strip().isdigit():
                self._problem(event.offset + line.start(), f"a retry time that is no number: {_preview(text)}")

    def _count_line_ends(self, chunk: bytes) -> None:
        """Counts in the raw bytes: a CRLF may be cut between two chunks."""
        ends = self._found.line_ends
        both = chunk.count(b"\r\n")
        if self._after_cr and chunk.startswith(b"\n"):
            ends["CR"] -= 1
            ends["CRLF"] += 1
            ends["LF"] -= 1
        for name, number in (("CRLF", both), ("CR", chunk.count(b"\r") - both), ("LF", chunk.count(b"\n") - both)):
            ends[name] += number
        if chunk:
            self._after_cr = chunk.endswith(b"\r")

    # -- what is wrong -------------------------------------------------------------------------

    def _fail(self, error: StreamError, offset: int) -> None:
        if isinstance(error, DecodeError) and error.offset:
            offset = error.offset
        self._found.error = error
        said = getattr(error, "message", "")  # the provider's words: here is nobody who may not read them
        words = f"{type(error).__name__}: {error}" + (f": {said!r}" if said else "")
        self._found.problems.append(Problem(offset, words))

    def _problem(self, offset: int, words: str) -> None:
        if len(self._found.problems) < MAX_PROBLEMS:
            self._found.problems.append(Problem(offset, words))
        else:
            self._found.more_problems += 1


def _preview(text: bytes) -> str:
    return repr(str(text[:60], "utf-8", "replace"))


__all__ = ["MAX_PROBLEMS", "Inspector", "Problem", "Recording", "judged"]
