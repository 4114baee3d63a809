r"""Characters that a provider has cut in half: an escaped `\ud83d` ends one piece, and `\ude00` begins the next.

Half a character is legal in JSON (RFC 8259 section 8.2), but it is no text (it cannot be encoded), and must not reach a
caller. A high half waits for the low one in the next piece of the same channel; one that stays alone becomes U+FFFD.

A reader pays for this only once it has met such an event: msgspec, rightly, decodes none.
"""

from __future__ import annotations

import json
import re
from typing import TypeVar

import msgspec

Channel = tuple[int, str]
"""A choice and which of its channels: ("text", "reasoning", "tool:0" ...)."""
T = TypeVar("T")

_SURROGATE = re.compile("[\ud800-\udfff]")
# In the text of JSON: a pair, half of one, or any other escape (a backslash that is escaped begins none).
_ESCAPE = re.compile(r"\\u[dD][89abAB][\da-fA-F]{2}\\u[dD][c-fC-F][\da-fA-F]{2}|(\\u[dD][89a-fA-F][\da-fA-F]{2})|\\.")


class SurrogateJoiner:
    """Puts halves of characters together, channel by channel."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: dict[Channel, str] = {}

    def join(self, key: Channel, text: str) -> str:
        """Gives a piece's text with what waited before it, and without a half character at its end: that waits now."""
        if not text:
            return ""
        if self._waiting:
            text = self._waiting.pop(key, "") + text
        if text.isascii() or not _SURROGATE.search(text):
            return text
        if "\ud800" <= text[-1] <= "\udbff":
            self._waiting[key] = text[-1]
            text = text[:-1]
        return _whole(text)

    def flush(self, choice: int | None = None) -> list[tuple[Channel, str]]:
        """Gives up waiting, in one choice (it has finished) or in all: each half that is left is a U+FFFD."""
        left = [key for key in self._waiting if choice is None or key[0] == choice]
        return [(key, _whole(self._waiting.pop(key))) for key in left]


def _whole(text: str) -> str:
    """Joins pairs, and replaces what is none: UTF-16 is where halves of characters come from."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def decode_lenient(decoder: msgspec.json.Decoder[T], text: str) -> T:
    """Decodes JSON whose only fault is halves of characters; they stay as they are in the values, for a joiner.

    Where the decoder's type takes no plain values (a raw part, a key with a half in it) they become U+FFFD. Raises what
    the decoder raises where there is another fault, or none.
    """
    mended = _ESCAPE.sub(lambda found: "\\ufffd" if found[1] else found[0], text)
    value = decoder.decode(mended)  # the judge of everything else
    try:
        kept: T = msgspec.convert(json.loads(text), decoder.type)
    except (ValueError, RecursionError):
        return value
    return kept
