"""What the faults are made of: plays that most of them share, and where on the wire the words of an answer stand.

Nothing here is a fault, and nothing waits or draws. Words are found in the bytes and not in their JSON, so that what a
fault does not mean to change stays as it was, to the byte.
"""

from __future__ import annotations

from collections.abc import Callable, Generator

from holdfast.testing.acts import TAKE, Act, Begin, Bytes, Cut, Play, Take
from holdfast.testing.idiom import SAID

DONE = b"data: [DONE]\n\n"
COMMENT = b": keep-alive\n\n"

# -- plays -------------------------------------------------------------------------------------

Edit = Callable[[bytes], bytes]
Part = Generator[Act | Take, bytes | None, bytes]
"""A part of a play, which tells the last event that it sent; empty where it sent none."""


def _same(event: bytes) -> bytes:
    return event


def events(limit: int | None = None, edit: Edit = _same) -> Part:
    """Sends so many events, by default all; gives the last."""
    last = b""
    while limit is None or limit > 0:
        event = yield TAKE
        if event is None:
            break
        yield Bytes(edit(event))
        last = event
        limit = None if limit is None else limit - 1
    return last


def whole(edit: Edit = _same, begin: Begin | None = None) -> Play:
    """Sends every event, and ends by the book."""
    yield begin or Begin()
    yield from events(edit=edit)
    yield Cut()


def begun(after: int) -> Part:
    """Sends the head and so many events; gives the last."""
    yield Begin()
    return (yield from events(after))


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


def edit_said(event: bytes, edit: Edit, *, count: int = 1) -> bytes:
    """Edits the first words of an event, with `count` 0 all; the escapes of JSON stand as they are."""
    return SAID.sub(lambda found: b'%b"%b"' % (found[1], edit(found[2])), event, count=count)


def has_said(event: bytes) -> bool:
    """True where an event has words."""
    return SAID.search(event) is not None
