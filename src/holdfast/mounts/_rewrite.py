"""Puts legal bytes that a client is known to die on into a form that it reads: `mounts/_quirks.py` says which.

It must never hold an event for the next one, touch an event that has none of those bytes, or change what an event
means to a reader that knows the standard. It takes the events before a teller tells them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from copy import copy

from holdfast._types import Delta, Event
from holdfast.mounts._quirks import Trait

BOM = b"\xef\xbb\xbf"
_ESCAPES = ((b"\xe2\x80\xa8", rb"\u2028"), (b"\xe2\x80\xa9", rb"\u2029"), (b"\xc2\x85", rb"\u0085"))
_FIELDS = (b"id", b"retry", b"event")
_SOME_DATA: tuple[Trait, ...] = ("empty data", "not data")
_LONE_CR = re.compile(rb"\r(?!\n)")


class Rewriter:
    """Rewrites one answer for one client. `numbered`: events before it had an id."""

    __slots__ = ("_last", "_made", "_named_is_well", "_numbered", "_open", "_separators", "_traits", "_unnamed")

    def __init__(self, traits: Collection[Trait], *, numbered: bool = False) -> None:
        self._traits = frozenset(traits)
        self._separators = "separators" in traits
        self._unnamed = "no name" in traits
        # Of an event that begins with its name (`e`), has data and no id, it is enough to know that.
        self._named_is_well = self._traits.isdisjoint(("cr", "not data", "several lines"))
        self._last: Event | None = None
        self._made: Event | None = None
        self._numbered = numbered
        self._open = False  # lines of a block were passed on, and its blank line would dispatch nothing

    def events(self, batch: Sequence[Delta]) -> Sequence[Delta]:
        """Gives the batch itself, or another where an event has bytes that the client cannot read."""
        out: list[Delta] | None = None
        for place, delta in enumerate(batch):
            event = delta.raw
            wire = event.exact
            if wire is None and not self._unnamed:  # `data: `, one line and a blank one: who cannot read that?
                self._open = False
                continue
            named = wire and wire[0] == 101 and event.type != "message"
            if self._named_is_well and named and event.payload and event.id is None:
                self._open = False
                continue
            if event is not self._last:  # several deltas may be of one event, and shall stay so
                wire = event.wire
                exact = self._exact(event, wire)
                self._last, self._made = event, None if exact is wire else _as(event, exact)
            if self._made is not None:
                out = out if out is not None else list(batch)
                out[place] = _of(delta, self._made)
        return batch if out is None else out

    def told(self, data: bytes) -> bytes:
        """Gives whole lines without what the client takes for their ends; it sees also what a teller has made."""
        if not self._separators or data.isascii() or not any(raw in data for raw, _ in _ESCAPES):
            return data
        return b"".join(_escaped(line) for line in data.splitlines(keepends=True))

    def _exact(self, event: Event, exact: bytes) -> bytes:
        """Gives an event's bytes anew, or the very ones."""
        traits, told = self._traits, exact
        if "bom" in traits and told.startswith(BOM):
            told = told[len(BOM) :]
        if not event.type:
            told = self._silent(told)
        else:
            self._open = False
            if not event.payload and not traits.isdisjoint(_SOME_DATA):
                told = b""
            elif "not data" in traits:
                told = _data_alone(event, told)
            elif "several lines" in traits and b"\n" in event.payload and _is_json(event.payload):
                told = _in_one_line(event.payload, told)
            if "no name" in traits and event.type == "message":
                told = _named(event, told)
        if event.id is not None:
            self._numbered = True
        # A CR at the very end, behind a CRLF, is half of another: its LF is the next thing that comes.
        if "cr" in traits and _LONE_CR.search(told, 0, len(told) - (b"\r\n" in told)):
            told = _LONE_CR.sub(b"\n", told)
        return told

    def _silent(self, told: bytes) -> bytes:
        """What dispatches nothing: comments, and blocks without data."""
        traits = self._traits
        if "not data" in traits:
            return told if not told.strip(b"\r\n") else b""
        lines = told.splitlines(keepends=True)
        if "fields" in traits and (self._open or any(line.startswith(_FIELDS) for line in lines)):
            self._open = True
            return b"".join(line for line in lines if line.strip(b"\r\n") and not line.startswith(b"event"))
        if "blank after id" in traits and self._numbered:
            kept = b"".join(line for line in lines if line.strip(b"\r\n"))
            return told if len(kept) == len(told) else kept
        return told


def without_bom(batch: Sequence[Delta]) -> Sequence[Delta]:
    """Gives a later attempt's first batch without the byte order mark that its body began with."""
    event = batch[0].raw
    if event.exact is None or not event.exact.startswith(BOM):
        return batch
    made = _as(event, event.exact[len(BOM) :])
    return [_of(delta, made) if delta.raw is event else delta for delta in batch]


def _as(event: Event, exact: bytes) -> Event:
    made = copy(event)
    made.exact = exact
    return made


def _of(delta: Delta, event: Event) -> Delta:
    made = copy(delta)
    made.raw = event
    return made


def _is_json(payload: bytes) -> bool:
    return payload.lstrip().startswith((b"{", b"["))


def _named(event: Event, told: bytes) -> bytes:
    try:
        name = event.json()["type"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return told
    lines = told.splitlines(keepends=True)
    names = [line for line in lines if line.startswith(b"event")]  # the last one counts, and an empty one is none
    if (names and names[-1].rstrip().endswith(b"message")) or not (isinstance(name, str) and name.isidentifier()):
        return told
    return b"event: " + name.encode() + b"\n" + b"".join(line for line in lines if line not in names)


def _data_alone(event: Event, told: bytes) -> bytes:
    plain = b"data: " + event.payload.replace(b"\n", b"\ndata: ")
    # A CR at the very end may be half of a line's end: the other half is the next thing that comes.
    ends_well = told.endswith(b"\n") or (told.endswith(b"\r") and b"\n" in told)
    return told if ends_well and told.strip(b"\r\n") == plain else plain + b"\n\n"


def _in_one_line(payload: bytes, told: bytes) -> bytes:
    """In JSON, a line's end stands between two values only, where a space says the same.

    No line that is kept ends with a CR alone: the next one may be a blank LF, and together they would be one end.
    """
    lines: list[bytes] = []
    said = False
    *body, last = told.splitlines(keepends=True)
    for line in body:
        if line.startswith(b"data"):
            if said:
                continue
            said = True
            end = line[len(line.rstrip(b"\r\n")) :]
            line = b"data: " + payload.replace(b"\n", b" ") + end  # noqa: PLW2901 - the same line, with all the data
        lines.append(line[:-1] + b"\n" if line.endswith(b"\r") else line)
    return b"".join((*lines, last))


def _escaped(line: bytes) -> bytes:
    if line.startswith(b"data:") and _is_json(line[5:]):
        for raw, escape in _ESCAPES:
            line = line.replace(raw, escape)
    return line


__all__ = ["BOM", "Rewriter", "without_bom"]
