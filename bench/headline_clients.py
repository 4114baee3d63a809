"""Who reads the streams of the headlines: `python -m bench.headline_clients NAME URL STREAMS` prints one JSON object.

In a process of its own, so that processor time and memory are one reader's alone. Seconds to the first token count from
the moment when all streams were wanted: who waits in a queue waits.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import ssl
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiohttp

BODY: dict[str, Any] = {
    "model": "deepseek-flash",
    "messages": [{"role": "user", "content": "hello"}],
    "stream": True,
}
Heard = list[tuple[float, int]]
"""For each stream, when its first token came and how many characters it had."""


def _pipe(source: Any) -> Any:
    import holdfast

    pipe: Any = holdfast.Pipe(source)
    for layer in holdfast.default_layers("openai"):
        pipe = pipe | layer
    return pipe


async def _read(pipe: Any, url: str) -> tuple[float, int]:
    import holdfast

    first, characters = 0.0, 0
    async with pipe.stream(holdfast.Request(url=url, body=BODY), keep=False) as deltas:
        async for delta in deltas:
            first = first or time.perf_counter()
            characters += len(delta.text)
    return first, characters


def _session(*, pooled: bool) -> aiohttp.ClientSession:
    trusted = os.environ.get("HEADLINES_CA")
    context: Any = ssl.create_default_context(cafile=trusted) if trusted else True
    connector = aiohttp.TCPConnector(limit=0, force_close=not pooled, ssl=context)
    return aiohttp.ClientSession(connector=connector, auto_decompress=False)


async def _holdfast(url: str, streams: int, *, at_once: bool, pooled: bool = True, coding: str = "identity") -> Heard:
    import holdfast

    async with _session(pooled=pooled) as session:
        pipe = _pipe(holdfast.AiohttpSource(session, accept_encoding=coding))
        if at_once:
            return list(await asyncio.gather(*(_read(pipe, url) for _ in range(streams))))
        heard: Heard = []
        for _ in range(streams):  # each waits for the one before: what a connection costs, and nothing else
            began = time.perf_counter()
            first, characters = await _read(pipe, url)
            heard.append((first - began, characters))
        return heard


async def _bare(url: str, streams: int) -> Heard:
    """The floor: aiohttp, lines, and json.loads."""

    async def read() -> tuple[float, int]:
        first, characters = 0.0, 0
        async with session.post(url, json=BODY, timeout=aiohttp.ClientTimeout(total=None)) as response:
            async for line in response.content:
                if not line.startswith(b"data: ") or line == b"data: [DONE]\n":
                    continue
                content = json.loads(line[6:])["choices"][0]["delta"].get("content")
                if content:
                    first = first or time.perf_counter()
                    characters += len(content)
        return first, characters

    async with _session(pooled=True) as session:
        return list(await asyncio.gather(*(read() for _ in range(streams))))


def _blocking(url: str, streams: int, threads: int) -> Heard:
    import requests

    def read(_: int) -> tuple[float, int]:
        first, characters = 0.0, 0
        with requests.post(url, json=BODY, stream=True) as response:
            for line in response.iter_lines():
                if not line.startswith(b"data: "):
                    continue
                if line == b"data: [DONE]":
                    break
                content = json.loads(line[6:])["choices"][0]["delta"].get("content")
                if content:
                    first = first or time.perf_counter()
                    characters += len(content)
        return first, characters

    if threads == 1:
        return [read(n) for n in range(streams)]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(read, range(streams)))


Run = Callable[[str, int], Heard]
READERS: dict[str, Run] = {
    "holdfast": lambda url, n: asyncio.run(_holdfast(url, n, at_once=True)),
    "aiohttp": lambda url, n: asyncio.run(_bare(url, n)),
    "requests": lambda url, n: _blocking(url, n, 1),
    "requests-10": lambda url, n: _blocking(url, n, 10),
    "requests-100": lambda url, n: _blocking(url, n, 100),
    "pooled": lambda url, n: asyncio.run(_holdfast(url, n, at_once=False)),
    "unpooled": lambda url, n: asyncio.run(_holdfast(url, n, at_once=False, pooled=False)),
    "identity": lambda url, n: asyncio.run(_holdfast(url, n, at_once=False)),
    "gzip": lambda url, n: asyncio.run(_holdfast(url, n, at_once=False, coding="gzip")),
}
TIMED_EACH = ("pooled", "unpooled", "identity", "gzip")


def _peak_kib() -> int:
    """Tells the most that this program held; what the kernel's usage tells counts the parent's memory at the fork."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM:")))


def main(name: str, url: str, streams: int) -> None:
    run = READERS[name]
    run(url.partition("?")[0] + "?events=2", 1)  # imports and caches are nobody's
    memory = _peak_kib()
    processor, began = time.process_time(), time.perf_counter()
    heard = run(url, streams)
    ended = time.perf_counter()
    if len({characters for _, characters in heard}) != 1 or not heard[0][1]:
        raise SystemExit(f"the streams differ: {sorted({characters for _, characters in heard})}")
    firsts = sorted(first if name in TIMED_EACH else first - began for first, _ in heard)
    figures = {
        "first_median": statistics.median(firsts),
        "first_worst": firsts[-1],
        "seconds": ended - began,
        "streams_per_second": streams / (ended - began),
        "cpu_per_stream": (time.process_time() - processor) / streams,
        "memory_mib": (_peak_kib() - memory) / 1024,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
