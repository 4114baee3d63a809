"""What each size of `Buffer(count=)` costs and saves: processor time per event, and how long deltas wait in it.

A buffer cannot make an answer arrive sooner. What it saves is the consumer's work per batch (a frame to a browser, a
write, a repaint), so the consumer here does one: it makes JSON of a batch and hands it to the kernel. `python -m
bench.buffering PORT` prints one JSON object, sizes as keys.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.upstream import CHUNK, DONE, LAST
from holdfast import AiohttpSource, Buffer, MemorySource, Pipe, Request, Source, Stream, default_layers
from holdfast._types import Head

SIZES = (0, 1, 2, 4, 5, 8, 10, 12, 15, 16, 24, 32, 64)
"""Events a batch; 0 is the pipe without a `Buffer`."""
RATE, EVENTS = 50, 200
"""Of the paced stream, on which waiting is measured: 50 events a second is what a quick model gives."""
BODY = {"model": "deepseek-flash", "messages": [{"role": "user", "content": "hello"}], "stream": True}


def _pipe(source: Any, size: int, *more: Any) -> Any:
    pipe: Any = Pipe(source)
    for layer in (*default_layers("openai"), *more):
        pipe = pipe | layer
    return pipe | Buffer(count=size) if size else pipe


# -- processor time ----------------------------------------------------------------------------


async def _body(events: int, per_read: int) -> AsyncIterator[bytes]:
    for _ in range(events // per_read):
        yield CHUNK * per_read
    yield LAST + DONE


async def _consume(size: int, per_read: int, events: int) -> float:
    """Gives microseconds of processor time an event."""
    head = Head(headers={"content-type": "text/event-stream"})
    pipe = _pipe(MemorySource(_body(events, per_read), head=head), size)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    began = time.process_time()
    async with pipe.stream(keep=False) as deltas:
        async for batch in deltas.batches():
            os.write(nowhere, json.dumps({"text": "".join([delta.text for delta in batch])}).encode())
    spent = time.process_time() - began
    os.close(nowhere)
    return spent / events * 1e6


def throughput(per_read: int, rounds: int, events: int = 6_400) -> dict[int, float]:
    """Measures every size in turn, again and again, and gives the median of each."""
    taken: dict[int, list[float]] = {size: [] for size in SIZES}
    for _ in range(rounds):
        for size in SIZES:
            taken[size].append(asyncio.run(_consume(size, per_read, events)))
    return {size: statistics.median(values) for size, values in taken.items()}


# -- waiting -----------------------------------------------------------------------------------


@dataclass(slots=True)
class _Stamp:
    """A layer that notes when each item passed."""

    arrived: list[float] = field(default_factory=list)

    def __call__(self, inner: Source[Any]) -> Source[Any]:
        return _StampSource(inner, self.arrived)


@dataclass(slots=True)
class _StampSource:
    inner: Source[Any]
    arrived: list[float]

    async def open(self, request: Request) -> Stream[Any]:
        return _StampStream(await self.inner.open(request), self.arrived)


@dataclass(slots=True)
class _StampStream:
    inner: Stream[Any]
    arrived: list[float]

    @property
    def head(self) -> Head:
        return self.inner.head

    async def receive(self) -> Sequence[Any]:
        batch = await self.inner.receive()
        self.arrived += [time.perf_counter()] * len(batch)
        return batch

    async def aclose(self) -> None:
        await self.inner.aclose()


async def _waits(source: AiohttpSource, size: int, url: str) -> tuple[float, float]:
    """Gives the mean and the longest wait of a delta in the buffer, in milliseconds."""
    stamp = _Stamp()
    waits: list[float] = []
    async with _pipe(source, size, stamp).stream(Request(url=url, body=BODY)) as deltas:
        async for batch in deltas.batches():
            now = time.perf_counter()
            waits += [now - arrived for arrived in stamp.arrived[len(waits) : len(waits) + len(batch)]]
    return statistics.mean(waits) * 1e3, max(waits) * 1e3


async def latency(port: int) -> dict[int, tuple[float, float]]:
    """Reads a paced stream through every size, all at once."""
    url = f"http://127.0.0.1:{port}/?events={EVENTS}&rate={RATE}"
    async with AiohttpSource() as source:
        got = await asyncio.gather(*(_waits(source, size, url) for size in SIZES))
    return dict(zip(SIZES, got, strict=True))


def main(port: int, rounds: int = 7) -> None:
    waits = asyncio.run(latency(port))
    single, full = throughput(1, rounds), throughput(16, rounds)
    rows = {
        s: {"paced_us": single[s], "busy_us": full[s], "mean_ms": waits[s][0], "worst_ms": waits[s][1]} for s in SIZES
    }
    print(json.dumps(rows))


if __name__ == "__main__":
    main(int(sys.argv[1]))
