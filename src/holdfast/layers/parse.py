"""From bytes to events and to text: the transforms next to the wire.

`parse_sse()` is the parser plus the cursor's say in it: an event that arrives twice on one connection, or that was
delivered before a cut, goes no further. The parser itself never drops anything.
"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast._core import Layer, transform
from holdfast._types import Event, Request
from holdfast.machines.cursor import Cursor
from holdfast.machines.sse import MAX_EVENT, MAX_LINE, MAX_STREAM, SseParser
from holdfast.machines.utf8 import Utf8Decoder


def parse_sse(
    *,
    strict: bool = False,
    comments: bool = False,
    max_line: int = MAX_LINE,
    max_event: int = MAX_EVENT,
    max_stream: int = MAX_STREAM,
) -> Layer[bytes, Event]:
    """Parses an event stream by the letter of the WHATWG standard. Limits are in bytes.

    `strict` makes bytes that are not UTF-8 a `DecodeError`; without it they become U+FFFD. `comments` hands over
    blocks that dispatch nothing as events of type "". A limit that is passed raises `DecodeError`.
    """
    # Bad settings are told here, where they are written, and not at the first stream.
    SseParser(strict=strict, comments=comments, max_line=max_line, max_event=max_event, max_stream=max_stream)

    def parse_sse(request: Request) -> _Admission:
        cursor = request.call.cursor
        cursor.begin(cursor.mode)
        parser = SseParser(
            cursor, strict=strict, comments=comments, max_line=max_line, max_event=max_event, max_stream=max_stream
        )
        return _Admission(parser, cursor)

    return transform(parse_sse)


def decode_utf8(*, strict: bool = False) -> Layer[bytes, str]:
    """Decodes UTF-8 as it comes, a character cut anywhere whole: for those who read text and not events.

    `strict` raises `DecodeError` where `U+FFFD` would stand else. Ending inside a character raises `Truncated`.
    """

    def decode_utf8(request: Request) -> Utf8Decoder:
        return Utf8Decoder(request.call.cursor, strict=strict)

    return transform(decode_utf8)


class _Admission:
    """The parser, and behind it the cursor: only servers that send ids pay for it."""

    __slots__ = ("_cursor", "_parser")

    def __init__(self, parser: SseParser, cursor: Cursor) -> None:
        self._parser = parser
        self._cursor = cursor

    def feed(self, batch: Sequence[bytes], out: list[Event]) -> None:
        cursor, first = self._cursor, len(out)
        if cursor.hasher is not None:
            for chunk in batch:
                cursor.hasher.update(chunk)
        try:
            self._parser.feed(batch, out)
        finally:
            if cursor.numbered:
                out[first:] = [event for event in out[first:] if cursor.admits(event)]

    def end(self, out: list[Event]) -> None:
        self._parser.end(out)
