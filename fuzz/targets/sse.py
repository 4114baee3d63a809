"""The parser of event streams: the same events with the same bytes at the same places, in every mode."""

from __future__ import annotations

from functools import partial
from typing import Any

from fuzz.engine import Target
from fuzz.oracle import after_lf, cuttings, same_however_cut, told
from holdfast._errors import DecodeError
from holdfast._types import Event
from holdfast.machines.cursor import Cursor
from holdfast.machines.sse import SseParser

TIGHT: dict[str, Any] = {"max_line": 40, "max_event": 80, "max_stream": 1_000}


def parse(chunks: list[bytes], **mode: Any) -> tuple[list[Event], SseParser, Cursor, Any]:
    """Gives events, parser and cursor, and how the input was refused, if it was."""
    cursor = Cursor()
    parser, events = SseParser(cursor, **mode), list[Event]()
    try:
        for chunk in chunks:
            parser.feed([chunk], events)
        parser.end(events)
    except DecodeError as error:
        return events, parser, cursor, told(error, chunks)
    return events, parser, cursor, None


def said(events: list[Event]) -> list[tuple[Any, ...]]:
    """Gives what the standard dispatches."""
    return [(e.type, e.payload, e.last_event_id, e.id) for e in events if e.type]


def seen(chunks: list[bytes], *, strict: bool) -> tuple[Any, ...]:
    """Gives all that a reader could see of these chunks."""
    events, parser, cursor, refused = parse(chunks, strict=strict)
    data = b"".join(chunks)
    for event in events:
        assert data[event.offset : event.end] == event.wire, f"{event.wire!r} is not what stands at {event.offset}"
    places = [(after_lf(data, e.offset), after_lf(data, e.end)) for e in events]
    if refused:  # the parser may have looked ahead in a longer chunk
        return said(events), places, refused
    return said(events), places, parser.last_event_id, parser.retry, bytes(cursor.stray), cursor.unfinished > 0


def whole_wire(chunks: list[bytes], *, strict: bool) -> tuple[Any, ...]:
    """With comments: how silent bytes are grouped follows the chunks; that every one comes back, in order, does not."""
    events, parser, _, refused = parse(chunks, comments=True, strict=strict)
    wire = b"".join(e.wire for e in events)
    assert b"".join(chunks).startswith(wire), "bytes were lost or changed"
    if refused:
        return said(events), refused
    assert wire == b"".join(chunks), "bytes were lost"
    return said(events), parser.last_event_id


def check(data: bytes) -> None:
    """Raises what is a finding."""
    for strict in (False, True):
        same_however_cut(data, partial(seen, strict=strict))
        same_however_cut(data, partial(whole_wire, strict=strict))
    # Where a limit trips may follow the chunks; what was handed over before it is right all the same.
    everything = said(parse([data])[0])
    for chunks in ([data], *cuttings(data)):
        events, _, _, refused = parse(chunks, **TIGHT)
        assert said(events) == everything[: len(said(events))], f"{TIGHT}: cut as {chunks!r}: other events"
        assert refused or len(said(events)) == len(everything), f"{TIGHT}: cut as {chunks!r}: events were lost"


TARGETS = [
    Target(
        name="sse",
        check=check,
        seeds=("sse", "chat"),
        words=(
            *(b"data", b"data:", b"data: ", b"id:", b"id: 7", b"event: x", b"retry: 10", b": ping", b":", b" "),
            *(b"\n", b"\r", b"\r\n", b"\n\n", b"\r\r", b"\r\n\r\n", b"\n\r", b"\xef\xbb\xbf", b"\0", b"\xe2\x80\xa8"),
            *(b"\xf0\x9f\x92\xa9", b"\xff", b"\xc0\xaf", b"\xe4\xbd", b"[DONE]", b'{"choices":[]}', b"9" * 30),
        ),
        recordings=True,
        longest=1_024,
    )
]
