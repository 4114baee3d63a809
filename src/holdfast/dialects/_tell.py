"""What tellers share: healthy events go on to the byte, and a new one is made of JSON. See `Teller`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import msgspec

from holdfast._types import Delta, Event, Usage


class PlainTeller:
    """Passes each event on once, as it came: for shapes whose answers never go on as another's."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last: Event | None = None

    def feed(self, batch: Sequence[Delta], out: list[bytes]) -> None:
        """Appends the bytes of a batch."""
        last = self._last
        for delta in batch:
            if delta.raw is not last:
                last = delta.raw
                out.append(last.wire)
        self._last = last

    def reseat(self) -> None:
        """There is nothing to put into other terms."""

    def end(self, out: list[bytes]) -> None:
        """No event must come last."""


def by_event(batch: Sequence[Delta]) -> Iterator[tuple[Event, list[Delta]]]:
    """Gives each event with its deltas: they follow one another."""
    for _, deltas in groupby(batch, lambda delta: id(delta.raw)):
        same = list(deltas)
        yield same[0].raw, same


def eol_of(events: Sequence[Event]) -> bytes:
    """Gives the line end that a provider writes."""
    return b"\r\n" if any(event.wire.endswith(b"\r\n") for event in events) else b"\n"


def event_of(value: Any, *, name: str = "", eol: bytes = b"\n") -> bytes:
    """Makes the bytes of an event that holds JSON, with an `event:` line where it has a name that fits into one."""
    lines = [b"event: " + name.encode()] if name and name.isprintable() else []
    try:
        data = msgspec.json.encode(value)
    except UnicodeEncodeError:  # half a character is in it, which only an escape can say
        data = json.dumps(value, separators=(",", ":")).encode()
    return eol.join([*lines, b"data: " + data, b"", b""])


def counted(usage: Usage, keys: Mapping[str, str]) -> dict[str, Any]:
    """Gives a usage as its provider writes it: what it sent, with our sums where several requests were added up.

    `keys` are the provider's names for fields of `Usage`.
    """
    sums = {name: getattr(usage, field) for field, name in keys.items()}
    return {**usage.raw, **{name: value for name, value in sums.items() if value is not None}}
