"""Every dialect, through the parser and its reader: the same deltas, evidence and verdict, or the same error."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from fuzz.engine import WORDS, Target
from fuzz.oracle import same_however_cut, told
from holdfast._errors import EndOfStream, StreamError
from holdfast._types import Delta, Event
from holdfast.dialects import DIALECTS, Dialect, state_of
from holdfast.machines.cursor import Cursor
from holdfast.machines.sse import SseParser


def plain(delta: Delta) -> tuple[Any, ...]:
    """Gives a delta and what its event said, but not where it stood: an LF may belong to the next chunk."""
    return (*(getattr(delta, name) for name in Delta.__struct_fields__[1:]), delta.raw.type, delta.raw.payload)


def read(chunks: list[bytes], dialect: Dialect, *, end_at_done: bool) -> tuple[Any, ...]:
    """Gives deltas, evidence, and how it ended."""
    cursor = Cursor()
    parser, reader = SseParser(cursor), dialect.reader(None, cursor, end_at_done=end_at_done)
    events, deltas = list[Event](), list[Delta]()
    try:
        for chunk in chunks:
            parser.feed([chunk], events)
            reader.feed(events, deltas)
            events.clear()
        parser.end(events)
        reader.end(deltas)
        end: object = "end"
    except EndOfStream:
        end = "end"
    except StreamError as error:
        end = told(error, chunks)
    evidence = reader.evidence
    assert (end != "end") or evidence.complete, "a clean end without proof"
    return (
        [plain(d) for d in deltas],
        end,
        (evidence.complete, evidence.missing, evidence.usage, evidence.finish_reason),
        cursor.repaired,
    )


def check(data: bytes, dialect: Dialect) -> None:
    """Raises what is a finding."""
    for end_at_done in (True, False):
        same_however_cut(data, partial(read, dialect=dialect, end_at_done=end_at_done))


def families(dialects: Iterable[Dialect] = DIALECTS.values()) -> list[list[Dialect]]:
    """Gives dialects by how they read: many providers share a wire, and are one to a reader."""
    found: dict[str, list[Dialect]] = {}
    for dialect in dialects:
        reader = dialect.reader(None, Cursor())
        found.setdefault(f"{type(reader)} {state_of(reader.evidence)}", []).append(dialect)
    return list(found.values())


def _folder(dialect: Dialect) -> str:
    """The seeds of a family stand in a folder of its module's name."""
    return type(dialect.wire).__module__.rpartition(".")[2]


def _words(folder: str) -> tuple[bytes, ...]:
    return tuple((WORDS / f"{folder}.txt").read_bytes().split())


TARGETS = [
    Target(
        name="plain-sse" if dialect.name == "sse" else dialect.name,  # the parser's own target is "sse"
        check=partial(check, dialect=dialect),
        seeds=(_folder(dialect),),
        words=(
            *_words(_folder(dialect)),
            b"data: ",
            b"\n\n",
            b"\r\n",
            b"event: error\n",
            b": x\n",
            b"\\ud83d",
            b"\xff",
        ),
        recordings=True,
        longest=2_048,
    )
    for dialect, *_ in families()
]
