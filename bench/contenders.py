"""Who reads the stream: floors, the naive client of blog posts, Holdfast, the openai SDK. Each says what text it got.

`python -m bench.contenders NAME PORT STREAMS EVENTS RATE` reads STREAMS streams at once and prints the CPU microseconds
it spent per event; in a process of its own, so that nobody pays for another's garbage.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import aiohttp

BODY = {"model": "deepseek-flash", "messages": [{"role": "user", "content": "hello"}], "stream": True}
Contender = Callable[[int, str], Awaitable[None]]


def _timeout() -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None)


async def raw(session: aiohttp.ClientSession, url: str) -> int:
    """The floor: bytes are read and thrown away."""
    size = 0
    async with session.post(url, json=BODY, timeout=_timeout()) as response:
        async for chunk in response.content.iter_any():
            size += len(chunk)
    return size


async def naive(session: aiohttp.ClientSession, url: str) -> int:
    """Reads, splits, `json.loads`: what blog posts do, at its fastest and without any check."""
    buffer, characters = b"", 0
    async with session.post(url, json=BODY, timeout=_timeout()) as response:
        async for chunk in response.content.iter_any():
            buffer += chunk
            *events, buffer = buffer.split(b"\n\n")
            for event in events:
                data = event[6:]
                if data == b"[DONE]":
                    return characters
                delta = json.loads(data)["choices"][0]["delta"]
                characters += len(delta.get("content") or "")
    return characters


def _aiohttp(read: Callable[[aiohttp.ClientSession, str], Awaitable[int]]) -> Contender:
    async def run(streams: int, url: str) -> None:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            await _all(streams, lambda: read(session, url))

    return run


async def _all(streams: int, read: Callable[[], Awaitable[int]]) -> None:
    got = await asyncio.gather(*(read() for _ in range(streams)))
    if len(set(got)) != 1 or not got[0]:
        raise SystemExit(f"the streams differ: {set(got)}")


def _client(url: str) -> Any:
    """The whole client with its default layers; only the URL is the benchmark's."""
    import holdfast
    from holdfast.dialects import OPENAI

    return holdfast.Client(replace(OPENAI, base_url=url, path=""), api_key="k")


async def holdfast_(streams: int, url: str) -> None:
    """Holdfast, delta by delta."""
    async with _client(url) as client:

        async def read() -> int:
            characters = 0
            async with client.stream(BODY) as deltas:
                async for delta in deltas:
                    characters += len(delta.text)
            return characters

        await _all(streams, read)


async def holdfast_batches(streams: int, url: str) -> None:
    """Holdfast, batch by batch."""
    async with _client(url) as client:

        async def read() -> int:
            characters = 0
            async with client.stream(BODY) as deltas:
                async for batch in deltas.batches():
                    for delta in batch:
                        characters += len(delta.text)
            return characters

        await _all(streams, read)


async def openai_(streams: int, url: str) -> None:
    """The openai SDK, unmodified."""
    import openai

    async with openai.AsyncOpenAI(api_key="k", base_url=url.partition("?")[0], timeout=None, max_retries=0) as client:
        query = dict(pair.split("=") for pair in url.split("?")[1].split("&"))

        async def read() -> int:
            characters = 0
            stream = await client.chat.completions.create(**BODY, extra_query=query)  # type: ignore[call-overload]
            async for chunk in stream:
                characters += len(chunk.choices[0].delta.content or "")
            return characters

        await _all(streams, read)


CONTENDERS: dict[str, Contender] = {
    "raw aiohttp read": _aiohttp(raw),
    "naive (split + json.loads)": _aiohttp(naive),
    "holdfast": holdfast_,
    "holdfast, batches()": holdfast_batches,
    "openai SDK": openai_,
}


def main() -> None:
    name, port, streams, events, rate = sys.argv[1], *sys.argv[2:6]
    run = CONTENDERS[name]
    url = f"http://127.0.0.1:{port}/?events={{}}&rate={{}}"

    async def measured() -> float:
        await run(1, url.format(200, 0))  # imports, caches, the first connection
        before = time.process_time()
        await run(int(streams), url.format(events, rate))
        return (time.process_time() - before) / int(streams) / int(events) * 1e6

    print(asyncio.run(measured()))


if __name__ == "__main__":
    main()
