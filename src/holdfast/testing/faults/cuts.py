"""Faults of the end: the connection dies, or the body ends by the book and the answer is not whole."""

from __future__ import annotations

from typing import Literal

from holdfast.testing.acts import TAKE, Asked, Begin, Bytes, Cut, Play
from holdfast.testing.faults._fault import BaseFault
from holdfast.testing.faults._parts import COMMENT, begun, events, taken, whole


class ResetMidStream(BaseFault, frozen=True, kw_only=True):
    """The connection is reset after so many events."""

    words = "reset mid-stream"
    after: int = 20

    def play(self, asked: Asked) -> Play:
        yield from begun(self.after)
        yield Cut("reset")


class ClosedMidStream(BaseFault, frozen=True, kw_only=True):
    """The connection is closed between two chunks, with no last one."""

    words = "closed mid-stream"
    after: int = 20

    def play(self, asked: Asked) -> Play:
        yield from begun(self.after)
        yield Cut("fin")


class FinInsideChunk(BaseFault, frozen=True, kw_only=True):
    """The connection is closed in the middle of the event that would come after so many."""

    words = "closed inside a chunk"
    after: int = 20

    def play(self, asked: Asked) -> Play:
        yield from begun(self.after)
        event = (yield TAKE) or COMMENT
        yield Cut("inside a chunk", event[: len(event) // 2])


class BadChunk(BaseFault, frozen=True, kw_only=True):
    """After so many events comes a chunk whose size is no number."""

    words = "bad chunk size"
    after: int = 20

    def play(self, asked: Asked) -> Play:
        yield from begun(self.after)
        yield Cut("bad chunk")


class ResetAtEnd(BaseFault, frozen=True, kw_only=True):
    """The connection is reset when all has been said, without or with `[DONE]`."""

    done: bool = True

    def play(self, asked: Asked) -> Play:
        yield Begin()
        while (event := (yield TAKE)) is not None and (self.done or not asked.idiom.is_end(event)):
            yield Bytes(event)
        yield Cut("reset")

    def __str__(self) -> str:
        return "reset after [DONE]" if self.done else "reset after the finish reason"


class CleanCut(BaseFault, frozen=True, kw_only=True):
    """The body ends by the book after so many events, and the answer is not whole."""

    words = "clean truncation"
    after: int = 20

    def play(self, asked: Asked) -> Play:
        yield from begun(self.after)
        yield Cut()


class EarlyDone(BaseFault, frozen=True, kw_only=True):
    """After so many events `[DONE]` comes, though nothing is finished."""

    words = "[DONE] without a finish reason"
    after: int = 20

    def play(self, asked: Asked) -> Play:
        yield from begun(self.after)
        if asked.idiom.end:
            yield Bytes(asked.idiom.end)
        yield Cut()


class CutInsideEvent(BaseFault, frozen=True, kw_only=True):
    """The body ends by the book in the middle of an event."""

    words = "clean end inside an event"
    after: int = 20

    def play(self, asked: Asked) -> Play:
        yield from begun(self.after)
        if (event := (yield TAKE)) is not None:
            yield Bytes(event[: len(event) // 2])
        yield Cut()


class CutAtByte(BaseFault, frozen=True, kw_only=True):
    """The body ends behind its first `byte` bytes: by the book, or with the connection."""

    byte: int = 2000
    how: Literal["clean", "reset", "fin"] = "clean"

    def play(self, asked: Asked) -> Play:
        yield Begin()
        left = self.byte
        while left > 0 and (event := (yield TAKE)) is not None:
            yield Bytes(event[:left])
            left -= len(event)
        yield Cut(self.how)

    def __str__(self) -> str:
        words = {"clean": "clean end", "reset": "reset", "fin": "closed"}
        return f"{words[self.how]} after {self.byte} bytes"


class GzipCut(BaseFault, frozen=True, kw_only=True):
    """A compressed body ends by the book, and what is compressed does not."""

    words = "gzip, cut"
    after: int = 20

    def play(self, asked: Asked) -> Play:
        yield Begin(coding="gzip")
        yield from events(self.after)
        yield Cut("inside the coding")


class LengthTooShort(BaseFault, frozen=True, kw_only=True):
    """Content-Length announces less than the body has."""

    words = "Content-Length too short"
    after: int = 20

    def play(self, asked: Asked) -> Play:
        body = yield from taken(self.after)
        yield Begin(framing="length", length=len(body))
        yield Bytes(body)
        yield from events()
        yield Cut()


class LengthTooLong(BaseFault, frozen=True, kw_only=True):
    """Content-Length announces more than comes; `after` None lets the whole answer come."""

    words = "Content-Length too long"
    after: int | None = 20

    def play(self, asked: Asked) -> Play:
        body = yield from taken(self.after)
        yield Begin(framing="length", length=len(body) + 10_000)
        yield Bytes(body)
        yield Cut("fin")


class WrongDigest(BaseFault, frozen=True, kw_only=True):
    """Content-Digest announces another body."""

    words = "wrong digest"

    def play(self, asked: Asked) -> Play:
        wrong = "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"  # of nothing
        return whole(begin=Begin(headers={"content-digest": wrong}))


__all__ = [
    "BadChunk",
    "CleanCut",
    "ClosedMidStream",
    "CutAtByte",
    "CutInsideEvent",
    "EarlyDone",
    "FinInsideChunk",
    "GzipCut",
    "LengthTooLong",
    "LengthTooShort",
    "ResetAtEnd",
    "ResetMidStream",
    "WrongDigest",
]
