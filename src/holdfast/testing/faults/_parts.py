"""What the faults are made of: plays that most of them share, and where on the wire the words of an answer stand.

Nothing here is a fault, and nothing waits or draws. Words are found in the bytes and not in their JSON, so that what a
fault does not mean to change stays as it was, to the byte.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator

from holdfast.testing.acts import TAKE, Begin, Bytes, Cut, Play, Take

DONE = b"data: [DONE]\n\n"
COMMENT = b": keep-alive\n\n"

# -- plays -------------------------------------------------------------------------------------

Edit = Callable[[bytes], bytes]


def _same(event: bytes) -> bytes:
    return event


def events(limit: int | None = None, edit: Edit = _same) -> Play:
    """Sends so many events, by default all."""
    while limit is None or limit > 0:
        event = yield TAKE
        if event is None:
            return
        yield Bytes(edit(event))
        limit = None if limit is None else limit - 1


def whole(edit: Edit = _same, begin: Begin | None = None) -> Play:
    """Sends every event, and ends by the book."""
    yield begin or Begin()
    yield from events(edit=edit)
    yield Cut()


def begun(after: int) -> Play:
    """Sends the head and so many events."""
    yield Begin()
    yield from events(after)


def struck(after: int, strike: Edit) -> Play:
    """Edits one event, the first behind so many that the edit can change, and goes on."""
    yield from begun(after)
    while (event := (yield TAKE)) is not None:
        changed = strike(event)
        yield Bytes(changed)
        if changed != event:
            break
    yield from events()
    yield Cut()


def taken(limit: int | None) -> Generator[Take, bytes | None, bytes]:
    """Takes so many events before anything is said of them: whoever announces a length has buffered the body."""
    body = b""
    while limit is None or limit > 0:
        event = yield TAKE
        if event is None:
            break
        body += event
        limit = None if limit is None else limit - 1
    return body


# -- words of the wire -------------------------------------------------------------------------

_MEMBERS = b"content|reasoning_content|reasoning|refusal|text|thinking|delta|arguments|partial_json"
"""Those that hold what a model says, in the shapes of today's providers."""
SAID = re.compile(rb'("(?:%b)"\s*:\s*)"((?:[^"\\]|\\.)+)"' % _MEMBERS)


def edit_said(event: bytes, edit: Edit, *, count: int = 1) -> bytes:
    """Edits the first words of an event, with `count` 0 all; the escapes of JSON stand as they are."""
    return SAID.sub(lambda found: b'%b"%b"' % (found[1], edit(found[2])), event, count=count)


def has_said(event: bytes) -> bool:
    """True where an event has words."""
    return SAID.search(event) is not None


def is_done(event: bytes) -> bool:
    """True for the end mark."""
    return event.rstrip().endswith(b"data: [DONE]")


def error_body(code: str, message: str = "The service is overloaded.") -> bytes:
    """Gives an error as providers write it."""
    return json.dumps({"error": {"message": message, "type": code, "code": code}}).encode()


HOPELESS = ("content_filter", "insufficient_quota", "invalid_api_key", "invalid_request_error")
"""Codes of errors that no other try mends."""
