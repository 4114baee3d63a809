"""The fuzzer, briefly (`make fuzz` runs it for longer): it passes on its seeds, and finds a parser that is wrong."""

from __future__ import annotations

from random import Random

import pytest

from fuzz import fuzz_sse
from holdfast._types import Event
from holdfast.machines.sse import SseParser

SEEDS = [path.read_bytes() for path in sorted((fuzz_sse.HERE / "seeds").iterdir())]


def test_seeds_and_their_mutations_pass() -> None:
    random = Random(20)
    for data in SEEDS + [fuzz_sse.mutate(random, SEEDS) for _ in range(200)]:
        fuzz_sse.check(data)


def test_a_parser_that_depends_on_its_chunks_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class Forgetful(SseParser):
        """Loses a line end that starts a chunk."""

        def feed(self, batch: list[bytes], out: list[Event]) -> None:  # type: ignore[override]  # narrower on purpose
            super().feed([chunk.removeprefix(b"\n") for chunk in batch], out)

    monkeypatch.setattr(fuzz_sse, "SseParser", Forgetful)
    with pytest.raises(AssertionError):
        fuzz_sse.check(SEEDS[0])
