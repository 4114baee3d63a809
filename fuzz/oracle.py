"""What every target holds its subject to.

An input is accepted, or refused with a documented error (a `StreamError`), and nothing else; and however it is cut into
chunks, the same comes out. Cuts are drawn from the input itself, so a stored crash fails again from its file alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from holdfast._errors import DecodeError, StatusError, StreamError, UpstreamError


def cuttings(data: bytes) -> Iterator[list[bytes]]:
    """Gives ways to cut an input: single bytes, and some at random with empty chunks among them."""
    yield [data[i : i + 1] for i in range(len(data))]
    random = Random(hashlib.sha256(data).digest())
    for _ in range(2):
        cuts = sorted(random.randrange(len(data) + 1) for _ in range(random.randrange(1, 12)))
        yield [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def same_however_cut(data: bytes, outcome: Callable[[list[bytes]], Any]) -> Any:
    """Returns what `outcome` says of the whole input. Raises `AssertionError` where some cutting makes it differ."""
    whole = outcome([data])
    for chunks in cuttings(data):
        cut = outcome(chunks)
        assert cut == whole, f"cut into {len(chunks)} chunks:\n{cut!r}\nwhole:\n{whole!r}"
    return whole


def after_lf(data: bytes, place: int) -> int:
    """A blank line's CR hands its event over at once, so an LF in a later chunk is the next event's first byte."""
    return place + (data[place - 1 : place + 1] == b"\r\n" if place else 0)


def told(error: StreamError, chunks: list[bytes]) -> tuple[Any, ...]:
    """Gives what a program can tell errors apart by; the words of a message may follow the chunks."""
    said: tuple[Any, ...] = (type(error).__name__, error.retryable)
    if isinstance(error, UpstreamError | StatusError):
        return *said, error.code, error.type, str(error)
    return (*said, after_lf(b"".join(chunks), error.offset)) if isinstance(error, DecodeError) else said
