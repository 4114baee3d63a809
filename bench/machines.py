"""The machines against their floor: `split` + msgspec's typed decode of the same bytes."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from bench.upstream import CHUNK
from holdfast import Delta, Event
from holdfast.dialects import find
from holdfast.machines.cursor import Cursor
from holdfast.machines.sse import SseParser


class _Delta(msgspec.Struct, gc=False):
    content: str | None = None
    reasoning_content: str | None = None


class _Choice(msgspec.Struct, gc=False):
    delta: _Delta
    index: int = 0
    finish_reason: str | None = None


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice] = []
    usage: dict[str, int] | None = None


def _floor() -> Callable[[bytes], int]:
    decode = msgspec.json.Decoder(_Chunk).decode

    def read(body: bytes) -> int:
        return len([decode(block[6:]) for block in body.split(b"\n\n") if block])

    return read


def _machines() -> Callable[[bytes], int]:
    cursor = Cursor()
    parser, reader = SseParser(cursor), find("openai").reader(None, cursor)

    def read(body: bytes) -> int:
        events: list[Event] = []
        deltas: list[Delta] = []
        parser.feed((body,), events)
        reader.feed(events, deltas)
        return len(deltas)

    return read


def _parser() -> Callable[[bytes], int]:
    parser = SseParser()

    def read(body: bytes) -> int:
        events: list[Event] = []
        parser.feed((body,), events)
        return len(events)

    return read


def measure(batch: int, *, variant: str = "plain", rounds: int = 40) -> dict[str, float]:
    """Gives nanoseconds per event of each contender: the minimum of interleaved rounds."""
    chunk = {
        "plain": CHUNK,
        "with ids": b"id: 12\n" + CHUNK,
        "CRLF": CHUNK.replace(b"\n", b"\r\n"),
    }[variant]
    body = chunk * batch
    # The floor takes nothing but the plain form; against the others it stands as it is.
    contenders = {"floor": (_floor(), CHUNK * batch), "parser": (_parser(), body), "machines": (_machines(), body)}
    best = dict.fromkeys(contenders, float("inf"))
    turns = max(1, 800 // batch)
    for _ in range(rounds):
        for name, (read, data) in contenders.items():
            started = time.perf_counter_ns()
            for _ in range(turns):
                if read(data) != batch:
                    raise SystemExit(f"{name} lost events")
            best[name] = min(best[name], (time.perf_counter_ns() - started) / turns / batch)
    return best
