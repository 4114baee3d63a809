"""Ways to cut a body into chunks: what a parser makes of it must not depend on them."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from zlib import crc32


def bytewise(data: bytes) -> list[bytes]:
    """Cuts after every byte."""
    return [data[i : i + 1] for i in range(len(data))]


def at(data: bytes, places: list[int]) -> list[bytes]:
    """Cuts at the given places; a place given twice makes an empty chunk."""
    ends = sorted(min(place, len(data)) for place in places)
    return [data[a:b] for a, b in zip([0, *ends], [*ends, len(data)], strict=True)]


def randomly(data: bytes, *, times: int = 3, most: int = 30) -> Iterator[list[bytes]]:
    """Cuts at random places, drawn from the data itself, so that a failure comes again."""
    random = Random(crc32(data))
    for _ in range(times):
        yield at(data, [random.randrange(len(data) + 1) for _ in range(random.randrange(1, most))])


def cuttings(data: bytes) -> Iterator[list[bytes]]:
    """Whole, byte by byte, and at random."""
    yield [data]
    yield bytewise(data)
    yield from randomly(data)
