"""Records: what a stream consists of once it can be resumed. Each is one block of an event stream, as bytes.

Record `n` of a stream (from 1) is an event with the line `id: <stream>-<n>` before the blank line that dispatches it,
or a block that dispatches nothing, as it came: an id without data would be read as an event by some clients. Ours is
the last `id:` of its block, so that it counts (https://html.spec.whatwg.org/multipage/server-sent-events.html), and it
stands in the block of the data: in one of its own it would be remembered before the data has come.

Nothing here waits, and nothing knows where records are kept.
"""

from __future__ import annotations

import re
import secrets

_BLANK = re.compile(rb"(?:\r\n|\r|\n)\Z")
_LINES = re.compile(rb"[^\r\n]*(?:\r\n|\r|\n)?")
_STREAM = re.compile(r"[0-9a-f]{32}")


def new_stream() -> str:
    """Gives a name for a stream that nobody can guess: 128 bits."""
    return secrets.token_hex(16)


def is_stream(name: str) -> bool:
    """Says whether a name can be a stream's."""
    return _STREAM.fullmatch(name) is not None


def record(stream: str, number: int, block: bytes) -> bytes:
    """Gives a block as the `number`-th record of a stream."""
    if block.startswith(b"data: ") and block.endswith(b"\n\n"):  # what nearly all are
        return b"%b%b\n\n" % (block[:-1], event_id(stream, number))
    if not _dispatches(block):
        return block
    end = _BLANK.search(block)
    if end is None:  # a block without its blank line dispatches nothing
        return block
    eol = end[0]
    return block[: end.start()] + event_id(stream, number) + eol + eol


def event_id(stream: str, number: int) -> bytes:
    """Gives the line that names a record, without its end."""
    return b"id: %b-%d" % (stream.encode(), number)


def block(stream: str, number: int, record: bytes) -> bytes:
    """Gives the block that a record was made of."""
    line = event_id(stream, number)
    for eol in (b"\r\n", b"\n", b"\r"):
        if record.endswith(line + eol + eol):
            made = record[: -len(line) - len(eol) * 2] + eol
            return made if _dispatches(made) else record  # else the line is not of ours
    return record


def place_of(given: str, stream: str) -> int | None:
    """Gives the number in a `Last-Event-ID`, 0 where it is empty; None where it is no id of this stream."""
    if not given:
        return 0
    name, dash, number = given.rpartition("-")
    if name != stream or not dash or not number.isascii() or not number.isdecimal() or len(number) > 12:
        return None
    return int(number)


def stream_of(given: str) -> str:
    """Gives the stream that a `Last-Event-ID` is of, empty where it cannot be one of ours."""
    name, _, number = given.rpartition("-")
    return name if _STREAM.fullmatch(name) and number.isascii() and number.isdecimal() else ""


def _dispatches(block: bytes) -> bool:
    """Says whether a block has data: only then its blank line makes an event."""
    return any(line.startswith(b"data") and line[4:5] in (b":", b"\r", b"\n") for line in _LINES.findall(block))
