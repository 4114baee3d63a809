"""Halves of characters in one reader: joined across pieces, counted where one stays alone, kept in the evidence.

What waits is part of what an answer has proven so far: an attempt that goes on exactly goes on with it, in another
process even. A lone half is no text that JSON could carry there, so its number is kept.
"""

from __future__ import annotations

import msgspec

from holdfast._errors import DecodeError
from holdfast._types import Delta, Event, ToolCallDelta
from holdfast.machines.cursor import Cursor
from holdfast.machines.surrogates import SurrogateJoiner


class Halves:
    """A `SurrogateJoiner` whose memory is `waiting`, a part of the evidence: "choice channel" -> the half's number.

    Raises `ValueError` for a memory that it never kept.
    """

    __slots__ = ("_cursor", "_joiner", "_waiting")

    def __init__(self, waiting: dict[str, int], cursor: Cursor) -> None:
        self._waiting = waiting
        self._cursor = cursor
        self._joiner = SurrogateJoiner()
        for name, half in waiting.items():
            choice, _, channel = name.partition(" ")
            if not 0xD800 <= half <= 0xDBFF:
                raise ValueError(f"{half} is no half of a character that could wait")
            self._joiner.join((int(choice), channel), chr(half))

    def join(self, choice: int, channel: str, text: str) -> str:
        """Gives a piece of a channel with what waited before it, without the half at its end; a lone one is U+FFFD."""
        if not text:
            return ""
        name = f"{choice} {channel}"
        self._waiting.pop(name, None)
        if "\ud800" <= text[-1] <= "\udbff":
            self._waiting[name] = ord(text[-1])
        joined = self._joiner.join((choice, channel), text)
        self._cursor.repaired += joined.count("\ufffd") - text.count("\ufffd")
        return joined

    def flush(self, choice: int) -> dict[str, str]:
        """Gives up waiting in a choice that has ended: each channel's lone half, as U+FFFD."""
        left = {channel: text for (_, channel), text in self._joiner.flush(choice)}
        for channel in left:
            del self._waiting[f"{choice} {channel}"]
        self._cursor.repaired += len(left)
        return left

    def mend(self, delta: Delta, *, last: bool = False) -> None:
        """Joins all that a delta says. With the `last` of its choice, which a finish reason tells, nothing waits on."""
        for channel in ("text", "reasoning", "refusal"):
            setattr(delta, channel, self.join(delta.choice, channel, getattr(delta, channel)))
        for call in delta.tool_calls:
            call.arguments = self.join(delta.choice, f"call {call.index}", call.arguments)
        if last or delta.finish_reason is not None:
            self.give_up(delta)

    def give_up(self, delta: Delta) -> None:
        """Adds to a delta what waited in its choice for another half in vain."""
        for channel, lone in self.flush(delta.choice).items():
            _, is_call, index = channel.partition("call ")
            if is_call:
                delta.tool_calls += (ToolCallDelta(int(index), arguments=lone),)
            else:
                setattr(delta, channel, getattr(delta, channel) + lone)


def no_halves_in(event: Event, *values: object) -> None:
    """Raises `DecodeError` where half a character is in what no other piece completes: an id, a name, usage."""
    broken = False
    try:
        msgspec.json.encode(values)
    except UnicodeEncodeError:
        broken = True
    if broken:  # here and not in the `except`: the error would hang on to the event's words
        raise DecodeError("half a character stands where no text does", offset=event.offset)
