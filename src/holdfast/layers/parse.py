"""From bytes to events and to text: the transforms next to the wire.

`parse_sse()` is the parser plus the cursor's say in it: an event that arrives twice on one connection, or that was
delivered before a cut, goes no further. The parser itself never drops anything.
"""

from __future__ import annotations

from holdfast._core import Layer, transform
from holdfast._types import Event, Request
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

    def parse_sse(request: Request) -> SseParser:
        cursor = request.call.cursor
        cursor.begin(cursor.asked)
        return SseParser(
            cursor,
            admits=cursor.admits,
            strict=strict,
            comments=comments,
            max_line=max_line,
            max_event=max_event,
            max_stream=max_stream,
        )

    return transform(parse_sse, takes=bytes, gives=Event)


def decode_utf8(*, strict: bool = False) -> Layer[bytes, str]:
    """Decodes UTF-8 as it comes, a character cut anywhere whole: for those who read text and not events.

    `strict` raises `DecodeError` where `U+FFFD` would stand else. Ending inside a character raises `Truncated`.
    """

    def decode_utf8(request: Request) -> Utf8Decoder:
        return Utf8Decoder(request.call.cursor, strict=strict)

    return transform(decode_utf8, takes=bytes, gives=str)
