"""Silent corruption: what only ids, sequence numbers or digests give away. `FlippedBit` in a word is one, too."""

from __future__ import annotations

from collections import deque

from holdfast.testing.acts import ID_LINE, TAKE, Asked, Begin, Bytes, Cut, Play
from holdfast.testing.faults._fault import BaseFault
from holdfast.testing.faults._parts import begun, edit_said, events, struck


class InvalidUtf8(BaseFault, frozen=True, kw_only=True):
    """A byte inside the words of an event is none of UTF-8; a reader that is not strict repairs it, and counts."""

    words = "invalid UTF-8"
    evident = False
    after: int = 20

    def play(self, asked: Asked) -> Play:
        return struck(self.after, lambda event: edit_said(event, lambda text: text + b"\xff"))


class DroppedEvent(BaseFault, frozen=True, kw_only=True):
    """One event never comes."""

    words = "event dropped"
    evident = False
    after: int = 20

    def play(self, asked: Asked) -> Play:
        return struck(self.after, lambda _: b"")


class ReorderedEvents(BaseFault, frozen=True, kw_only=True):
    """Two events come in the wrong order."""

    words = "events reordered"
    evident = False
    after: int = 20

    def play(self, asked: Asked) -> Play:
        yield from begun(self.after)
        held = yield TAKE
        yield from events(1)
        if held is not None:
            yield Bytes(held)
        yield from events()
        yield Cut()


class RepeatedEvents(BaseFault, frozen=True, kw_only=True):
    """From so many events on each comes twice; only ids give that away."""

    words = "events repeated"
    evident = False
    after: int = 20

    def play(self, asked: Asked) -> Play:
        yield from begun(self.after)
        yield from events(edit=lambda event: event if asked.idiom.is_end(event) else event * 2)
        yield Cut()


class DoneInText(BaseFault, frozen=True, kw_only=True):
    """The words of an event have `[DONE]` added to them; a reader that looks for it anywhere stops there."""

    words = "[DONE] in the text"
    evident = False
    after: int = 20

    def play(self, asked: Asked) -> Play:
        return struck(self.after, lambda event: edit_said(event, lambda text: text + b"[DONE]"))


class IdRewound(BaseFault, frozen=True, kw_only=True):
    """An event bears the id of the one `back` before it, and there the connection is reset."""

    words = "id rewound, and reset,"
    evident = False
    after: int = 20
    back: int = 3

    def play(self, asked: Asked) -> Play:
        yield Begin()
        ids: deque[bytes] = deque(maxlen=self.back)
        for _ in range(self.after):
            if (event := (yield TAKE)) is None:
                break
            ids += ID_LINE.findall(event)
            yield Bytes(event)
        if (event := (yield TAKE)) is not None and ids:
            yield Bytes(ID_LINE.sub(lambda _: ids[0], event))
        yield Cut("reset")


__all__ = ["DoneInText", "DroppedEvent", "IdRewound", "InvalidUtf8", "ReorderedEvents", "RepeatedEvents"]
