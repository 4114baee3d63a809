"""The event stream format, by the letter of https://html.spec.whatwg.org/multipage/server-sent-events.html.

It frames *bytes*: line ends are ASCII, so cutting first and decoding after is the same as decoding first, and every
event keeps its exact bytes and its offset. An event is handed over as soon as the bytes of its blank line are in. Time
is linear whatever the chunking, and nothing grows past the declared limits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from holdfast._errors import DecodeError
from holdfast._types import Event
from holdfast.machines.cursor import Cursor

MAX_LINE = 8 * 1024 * 1024
"""Bytes of one line. The longest recorded is 100,867 (an image in one event); 8 MiB is 80 times that."""
MAX_EVENT = 16 * 1024 * 1024
"""Bytes of one event, comments before it included."""
MAX_STREAM = 1024 * 1024 * 1024
"""Bytes of one attempt's body: 384,000 tokens at 300 bytes an event are about a tenth of it."""
_IDLE = 64 * 1024
_MAX_RETRY_DIGITS = 15  # of milliseconds: beyond 30,000 years it is no time but an attack on arithmetic
_BOM = b"\xef\xbb\xbf"
# "Lines must be separated by either a CRLF pair, a single LF, or a single CR." Nothing else ends a line.
_LINE_END = re.compile(rb"\r\n?|\n")
_FIELDS = (b"data", b"event", b"id", b"retry", b":")


class SseParser:
    """Turns chunks of bytes into `Event`s.

    `strict` raises `DecodeError` on bytes that are not UTF-8 (else they become U+FFFD when the event is read).
    `comments` hands over blocks that dispatch nothing as events of type "", as soon as their lines are in, so that the
    `wire` of all events together is the stream. `admits` is asked about every event that has an id, and one that it
    refuses goes no further; by itself the parser drops nothing. What it sees of ids, retry times and stray lines it
    tells its cursor.
    """

    __slots__ = (
        "_admits",
        "_block_id",
        "_comments",
        "_cursor",
        "_data",
        "_head",
        "_id",
        "_last_event_id",
        "_line_at",
        "_longest",
        "_max_event",
        "_max_line",
        "_max_stream",
        "_offset",
        "_plain_size",
        "_skip_lf",
        "_strict",
        "_type",
        "_wire",
    )

    def __init__(
        self,
        cursor: Cursor | None = None,
        *,
        admits: Callable[[Event], bool] | None = None,
        strict: bool = False,
        comments: bool = False,
        max_line: int = MAX_LINE,
        max_event: int = MAX_EVENT,
        max_stream: int = MAX_STREAM,
    ) -> None:
        for name, value in (("max_line", max_line), ("max_event", max_event), ("max_stream", max_stream)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1 byte, not {value}")
        self._cursor = cursor if cursor is not None else Cursor()
        self._admits = admits
        self._strict = strict
        self._comments = comments
        self._max_line = max_line
        self._max_event = max_event
        self._max_stream = max_stream
        self._longest = min(max_line, max_event)
        self._plain_size = 0 if strict else self._longest
        self._head: bytes | None = b""  # the first bytes, until they are a BOM or not
        self._wire = bytearray()  # all bytes since the last event handed over
        self._line_at = 0  # where in it the unfinished line begins
        self._offset = 0  # of its first byte in the body
        self._skip_lf = False  # a CR ended the last line; an LF right after it belongs to it
        self._data: list[bytes] = []
        self._type = ""
        # "the last event ID string ... is not reset": a continuation starts with the id it asked for.
        self._id = self._last_event_id = self._cursor.last_event_id
        self._block_id: str | None = None

    @property
    def last_event_id(self) -> str:
        """The id that a reconnection would send, as of the last blank line."""
        return self._last_event_id

    @property
    def retry(self) -> int | None:
        """The server's reconnection time in milliseconds."""
        return self._cursor.retry

    def feed(self, batch: Sequence[bytes], out: list[Event]) -> None:
        """Appends every event whose blank line is in. Raises `DecodeError` over a limit."""
        cursor = self._cursor
        for chunk in batch:
            cursor.received += len(chunk)
            if cursor.received > self._max_stream:
                raise self._too_long("a body", self._max_stream, "max_stream")
            if cursor.hasher is not None:
                cursor.hasher.update(chunk)
            if self._head is not None or self._skip_lf or self._wire or cursor.expects or b"\r" in chunk:
                self._general(chunk, out)
                continue
            # One read, one event: what a model that is writing sends. Told apart by its first line end.
            size = len(chunk)
            if (
                chunk.find(b"\n") == size - 2
                and chunk[-1] == 10
                and chunk.startswith(b"data: ")
                and size <= self._plain_size
            ):
                out.append(Event(chunk[6:-2], self._offset, self._last_event_id))
                self._offset += size
                continue
            start = self._blocks(chunk, 0, out)
            if start < len(chunk):
                self._general(chunk[start:], out)

    def _general(self, chunk: bytes, out: list[Event]) -> None:
        """Any chunk in any state: line by line up to the next event, then by blocks where that can be."""
        if self._wire and not self._skip_lf and b"\n" not in chunk and b"\r" not in chunk:
            self._wire += chunk  # more of one line: a long one may come in single bytes
            self._settle(out)
            return
        start = 0
        if self._head is not None:
            chunk = self._begin(chunk)
        if self._skip_lf and chunk:
            self._skip_lf = False
            if chunk[0] == 10:
                self._wire += b"\n"
                self._line_at = len(self._wire)
                start = 1
        plain = b"\r" not in chunk and not self._cursor.expects
        size = len(chunk)
        while start < size:
            if plain and not self._wire:
                start = self._blocks(chunk, start, out)
            if start < size:
                start = self._lines(chunk, start, out, until_event=plain)

    def end(self, out: list[Event]) -> None:
        """The body is over. "Discard any unfinished event": its bytes are only noted, for an error message."""
        if self._head:
            self._wire += self._head
        left = bytes(self._wire[self._line_at :])
        if left and not left.startswith(_FIELDS):
            self._cursor.note_stray(left)
        self._cursor.unfinished = len(self._wire) if self._data or left else 0
        if self._comments and self._wire:
            if self._strict:  # whole lines alone: what was cut inside a character is no fault of its sender
                self._check_utf8(bytes(self._wire[: self._line_at]), self._offset)
            out.append(self._silent(bytes(self._wire)))

    def _begin(self, chunk: bytes) -> bytes:
        """Drops a byte order mark: "one leading U+FEFF BYTE ORDER MARK character must be ignored"."""
        head = (self._head or b"") + chunk
        if len(head) < len(_BOM) and _BOM.startswith(head):
            self._head = head
            return b""
        self._head = None
        if head.startswith(_BOM):
            self._wire += _BOM
            self._line_at = len(_BOM)
            head = head[len(_BOM) :]
        return head

    def _blocks(self, chunk: bytes, start: int, out: list[Event]) -> int:
        """The fast way: whole blocks in one chunk without a CR, nothing pending. Gives where it stopped.

        Nearly every event of every provider is one `data: ` line and a blank line: two searches and one slice.
        """
        base = self._cursor.received - len(chunk)
        last, longest, last_id, find = len(chunk) - 1, self._longest, self._last_event_id, chunk.find
        # Searching for one byte is several times faster than for two, so the blank line is looked at, not searched.
        while 0 <= (end := find(b"\n", start)) < last:
            if chunk[end + 1] == 10 and chunk.startswith(b"data: ", start) and end - start <= longest:
                payload = chunk[start + 6 : end]
                if self._strict:
                    self._check_utf8(payload, base + start + 6)
                out.append(Event(payload, base + start, last_id))
                start = end + 2
                continue
            blank = find(b"\n\n", end)
            # Blank lines before a block, and limits, are the general way's business.
            if blank < 0 or end == start or blank - start > longest:
                break
            self._offset = base + start
            for line in chunk[start:blank].split(b"\n"):
                if line[:6] == b"data: ":
                    self._data.append(line[6:])
                else:
                    self._field(line)
            if not self._dispatch(out, self._wire, chunk, start, blank + 2):
                self._wire += chunk[start : blank + 2]
                self._line_at = len(self._wire)
                return blank + 2
            last_id = self._last_event_id
            start = blank + 2
        self._offset = base + start
        return start

    def _lines(self, chunk: bytes, start: int, out: list[Event], *, until_event: bool) -> int:
        """The general way, line by line. Gives where it stopped: at the chunk's end, or after an event."""
        wire_from = start
        wire = self._wire
        ended = False
        for found in _LINE_END.finditer(chunk, start):
            stop, after = found.span()
            line = chunk[start:stop]
            if self._line_at < len(wire):
                line = bytes(wire[self._line_at :]) + line
            self._line_at = len(wire)  # taken: what follows in this chunk is not in `wire` yet
            start, ended = after, True
            if len(line) > self._max_line:
                raise self._too_long("a line", self._max_line, "max_line")
            if line:
                self._field(line)
                continue
            if self._data and len(wire) + after - wire_from > self._max_event:
                raise self._too_long("an event", self._max_event, "max_event")
            if self._dispatch(out, wire, chunk, wire_from, after):
                wire_from = after
                if until_event:
                    return after
        self._skip_lf = start == len(chunk) and chunk.endswith(b"\r")
        wire += chunk[wire_from:]
        if ended:
            self._line_at = len(wire) - (len(chunk) - start)
        self._settle(out)
        return len(chunk)

    def _settle(self, out: list[Event]) -> None:
        """After each chunk: limits on what is pending; comments go out at once where they are asked for."""
        pending = len(self._wire)
        if pending - self._line_at > self._max_line:
            raise self._too_long("a line", self._max_line, "max_line")
        if self._data or self._type or self._block_id is not None:
            if pending > self._max_event:
                raise self._too_long("an event", self._max_event, "max_event")
        elif self._comments or pending > _IDLE:  # comments for hours must not pile up before the next event
            idle = bytes(self._wire[: self._line_at])
            if idle:
                if self._strict:
                    self._check_utf8(idle, self._offset)
                if self._comments:
                    out.append(self._silent(idle))
                del self._wire[: self._line_at]
                self._offset += self._line_at
                self._line_at = 0

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if value[:1] == b" ":  # "If value starts with a U+0020 SPACE character, remove it from value."
            value = value[1:]
        if name == b"data":
            self._data.append(value)
        elif not name:
            return  # "If the line starts with a U+003A COLON character (:): Ignore the line."
        elif name == b"event":
            self._type = self._text(value)
        elif name == b"id":
            if (
                b"\0" not in value
            ):  # "If the field value does not contain U+0000 NULL, ..., Otherwise, ignore the field."
                self._id = self._block_id = self._text(value)
                self._cursor.numbered = True
        elif name == b"retry":
            # "If the field value consists of only ASCII digits, then interpret [it] as an integer in base ten"
            if value.isdigit() and len(value) <= _MAX_RETRY_DIGITS:
                self._cursor.retry = int(value)
        else:
            self._cursor.note_stray(line)  # "Otherwise: The field is ignored" - but an error body is worth a message

    def _dispatch(self, out: list[Event], wire: bytearray, chunk: bytes, start: int, after: int) -> bool:
        """A blank line: "dispatch the event". True when its bytes were handed over."""
        # "Set the last event ID string of the event source to the value of the last event ID buffer."
        self._last_event_id = self._id
        # "If the data buffer is an empty string, set [...] the event type buffer to the empty string"
        if not self._data and not self._comments:
            self._type = ""
            self._block_id = None
            return False
        exact = bytes(wire) + chunk[start:after]
        if self._strict:
            self._check_utf8(exact, self._offset)
        if self._data:
            payload = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
            event = Event(payload, self._offset, self._last_event_id, self._type or "message", self._block_id, exact)
            self._data = []
        else:
            event = self._silent(exact)
        self._type = ""
        self._block_id = None
        if self._admits is None or self._admits(event):
            out.append(event)
        self._offset += len(wire) + after - start
        wire.clear()
        self._line_at = 0
        return True

    def _silent(self, exact: bytes) -> Event:
        return Event(b"", self._offset, self._last_event_id, "", self._block_id, exact)

    def _text(self, value: bytes) -> str:
        return str(value, "utf-8", "replace")

    def _check_utf8(self, data: bytes, offset: int) -> None:
        try:
            data.decode()
        except UnicodeDecodeError as error:
            where, reason = offset + error.start, error.reason
        else:
            return
        # Outside the `except`: the Unicode error holds the bytes, and would go with ours into every traceback.
        raise DecodeError(f"byte {where} of the body is not UTF-8: {reason}", offset=where)

    def _too_long(self, what: str, limit: int, setting: str) -> DecodeError:
        return DecodeError(
            f"{what} is longer than {limit:,} bytes; if that is no attack, raise parse_sse({setting}=...)",
            offset=self._cursor.received,
            retryable=False,
        )
