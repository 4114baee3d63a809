"""Faults of what is said that leave a trace: an event is torn, flipped, of the wrong type, or tells of an error."""

from __future__ import annotations

import re
from typing import Literal

from holdfast.testing.acts import TAKE, Asked, Bytes, Cut, Play
from holdfast.testing.faults._fault import BaseFault
from holdfast.testing.faults._parts import begun, edit_said, struck
from holdfast.testing.idiom import HOPELESS, SAID
from holdfast.testing.server import Stall

_FINISH = re.compile(rb'("(?:finish_reason|stop_reason)"\s*:\s*)null')


class TornEvent(BaseFault, frozen=True, kw_only=True):
    """An event ends in the middle of its JSON, and the stream goes on behind it."""

    words = "event cut in its JSON"
    after: int = 20

    def play(self, asked: Asked) -> Play:
        def tear(event: bytes) -> bytes:
            begin = event.find(b"{")
            return event if begin < 0 else event[: begin + (len(event) - begin) // 2] + b"\n\n"

        return struck(self.after, tear)


class FlippedBit(BaseFault, frozen=True, kw_only=True):
    """One bit of an event is wrong: in the syntax of its JSON, or inside a word, where nothing gives it away."""

    after: int = 20
    where: Literal["syntax", "word"] = "syntax"

    @property
    def evident(self) -> bool:  # type: ignore[override]  # of this fault alone it depends on the value
        return self.where == "syntax"

    def play(self, asked: Asked) -> Play:
        if self.where == "syntax":
            return struck(self.after, lambda event: event.replace(b"{", b"z", 1))
        return struck(self.after, lambda event: edit_said(event, _flip))

    def __str__(self) -> str:
        return f"bit flipped in {'the syntax' if self.where == 'syntax' else 'a word'} after {self.after} events"


def _flip(text: bytes) -> bytes:
    """Flips a bit that leaves JSON and UTF-8 whole: the case of a letter, or a character outside ASCII."""
    for place, byte in enumerate(text):
        if byte >= 0x80 and not (place + 1 < len(text) and 0x80 <= text[place + 1] < 0xC0):
            return text[:place] + bytes([byte ^ 1]) + text[place + 1 :]
        if chr(byte).isascii() and chr(byte).isalpha() and text[place - 1 : place] != b"\\":
            return text[:place] + bytes([byte ^ 0x20]) + text[place + 1 :]
    return text


class WrongType(BaseFault, frozen=True, kw_only=True):
    """The words of an event are a number."""

    words = "content that is a number"
    after: int = 20

    def play(self, asked: Asked) -> Play:
        return struck(self.after, lambda event: SAID.sub(rb"\g<1>7", event, count=1))


class HalfSurrogate(BaseFault, frozen=True, kw_only=True):
    """The words of an event end with half of a surrogate pair, and no other follows; a reader repairs, and counts."""

    words = "half a surrogate pair"
    evident = False
    after: int = 20

    def play(self, asked: Asked) -> Play:
        return struck(self.after, lambda event: edit_said(event, lambda text: text + rb"\ud83c"))


class ErrorEvent(BaseFault, frozen=True, kw_only=True):
    """The provider reports an error of its own after so many events, then ends as if all were well."""

    words = "error event"
    after: int = 20
    code: str = "internal_server_error"
    done: bool = True

    @property
    def final(self) -> bool:
        return self.code in HOPELESS

    def play(self, asked: Asked) -> Play:
        last = yield from begun(self.after)
        error = asked.idiom.error(self.code, "The service is overloaded.", last)
        yield Bytes(error + (asked.idiom.end if self.done else b""))
        yield Cut()

    def __str__(self) -> str:
        return f"error event {self.code}{'' if self.done else ' without [DONE]'} after {self.after} events"


class GaveUp(BaseFault, frozen=True, kw_only=True):
    """An event finishes the answer with the provider's word for not having finished it."""

    words = "the server gave up"
    after: int = 20
    reason: str = "insufficient_system_resource"

    def play(self, asked: Asked) -> Play:
        last = yield from begun(self.after)
        while (event := (yield TAKE)) is not None:
            if asked.idiom.gave_up is not None:
                yield Bytes(asked.idiom.gave_up(self.reason, last))
                break
            given_up = _FINISH.sub(rb'\g<1>"%b"' % self.reason.encode(), event)
            yield Bytes(given_up)
            if given_up != event:
                yield Bytes(asked.idiom.end)
                break
        yield Cut()


class EndlessLine(BaseFault, frozen=True, kw_only=True):
    """After so many events comes a line of `size` bytes that does not end."""

    words = "a line without an end"
    after: int = 20
    size: int = 12 * 1024 * 1024

    @property
    def final(self) -> bool:
        return True

    def play(self, asked: Asked) -> Play:
        yield from begun(self.after)
        yield Bytes(b"data: ")
        for _ in range(0, self.size, 65_536):
            yield Bytes(b"x" * 65_536)
        yield Stall()


__all__ = ["EndlessLine", "ErrorEvent", "FlippedBit", "GaveUp", "HalfSurrogate", "TornEvent", "WrongType"]
