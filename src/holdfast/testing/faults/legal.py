"""What looks like a fault and is none: legal spellings and framings that clients stumble over."""

from __future__ import annotations

import re
from typing import Literal

from holdfast.testing.acts import TAKE, Asked, Begin, Bytes, Cut, Play
from holdfast.testing.faults._fault import BaseFault
from holdfast.testing.faults._parts import COMMENT, events, struck, taken, whole


class SplitCharacters(BaseFault, frozen=True, kw_only=True):
    """Every byte outside ASCII travels alone, so that no read holds a whole Chinese character."""

    words = "split characters"

    def play(self, asked: Asked) -> Play:
        yield Begin()
        while (event := (yield TAKE)) is not None:
            for part in re.findall(rb"[\x00-\x7f]+|[\x80-\xff]", event):
                yield Bytes(part)
        yield Cut()


class ByteOrderMark(BaseFault, frozen=True, kw_only=True):
    """A byte order mark stands before the first event."""

    words = "byte order mark"

    def play(self, asked: Asked) -> Play:
        yield Begin()
        yield Bytes(b"\xef\xbb\xbf")
        yield from events()
        yield Cut()


class LineEnds(BaseFault, frozen=True, kw_only=True):
    """Lines end in CR or CR LF."""

    ends: Literal["CR", "CRLF"] = "CRLF"

    def play(self, asked: Asked) -> Play:
        ending = b"\r" if self.ends == "CR" else b"\r\n"
        return whole(edit=lambda event: event.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", ending))

    def __str__(self) -> str:
        return f"lines end in {self.ends}"


class Comments(BaseFault, frozen=True, kw_only=True):
    """A comment stands before every event."""

    words = "comments between events"

    def play(self, asked: Asked) -> Play:
        return whole(edit=lambda event: COMMENT + event)


class BigEvent(BaseFault, frozen=True, kw_only=True):
    """An event is `size` bytes longer than it must be: blanks in its JSON."""

    words = "a big event"
    after: int = 20
    size: int = 300_000

    def play(self, asked: Asked) -> Play:
        return struck(self.after, lambda event: event.replace(b"{", b"{" + b" " * self.size, 1))


class NoDone(BaseFault, frozen=True, kw_only=True):
    """`[DONE]` never comes, though all has been said."""

    words = "no [DONE]"

    def play(self, asked: Asked) -> Play:
        return whole(edit=lambda event: b"" if asked.idiom.is_end(event) else event)


class Gzipped(BaseFault, frozen=True, kw_only=True):
    """The body is compressed."""

    words = "gzip"

    def play(self, asked: Asked) -> Play:
        return whole(begin=Begin(coding="gzip"))


class Framed(BaseFault, frozen=True, kw_only=True):
    """The body has no chunks: its end is known by its length, or by the connection's."""

    by: Literal["length", "close"] = "close"

    def play(self, asked: Asked) -> Play:
        if self.by == "close":
            yield from whole(begin=Begin(framing="close"))
            return
        body = yield from taken(None)
        yield Begin(framing="length", length=len(body))
        yield Bytes(body)
        yield Cut()

    def __str__(self) -> str:
        return "Content-Length in place of chunks" if self.by == "length" else "the connection's end in place of chunks"


__all__ = ["BigEvent", "ByteOrderMark", "Comments", "Framed", "Gzipped", "LineEnds", "NoDone", "SplitCharacters"]
