"""Events back to bytes: `parse(encode(events)) == events`.

The format cannot say everything: an id with NUL, a type or id with a line end, have no spelling and are refused. A lone
CR in data becomes LF, because the format takes both for the end of a line.
"""

from __future__ import annotations

from holdfast._types import Event


def encode(event: Event) -> bytes:
    """Gives an event's canonical bytes: its type unless it is a message, its id where it has one, its data.

    A block that dispatched nothing (comments, an id alone) goes out as it came. Raises `ValueError` for a type or an id
    that the format cannot carry.
    """
    if not event.type:
        return event.wire
    lines: list[bytes] = []
    if event.type != "message":
        lines.append(b"event: " + _single("type", event.type))
    if event.id is not None:
        if "\0" in event.id:
            raise ValueError("an event id cannot hold NUL: readers would ignore it")
        lines.append(b"id: " + _single("id", event.id))
    payload = event.payload.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    lines += [b"data: " + line for line in payload.split(b"\n")]
    return b"\n".join(lines) + b"\n\n"


def _single(what: str, value: str) -> bytes:
    if "\n" in value or "\r" in value:
        raise ValueError(f"an event's {what} cannot hold a line end: {value!r}")
    return value.encode()
