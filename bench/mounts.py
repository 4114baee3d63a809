"""What a mount costs the client that it is in: `python -m bench mounts [--quick] [--rounds N] [--write] [NAME ...]`.

Each client, in a process of its own, reads the same streams with the mount and without it in turns: one event a read,
16 events a read, and a short one for the time to the first token. What counts is the difference within a round, in CPU
time of the whole process, threads included. `--write` puts the table into the page.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import aiohttp
import requests

from bench.contenders import BODY
from holdfast import mounts
from holdfast._background import Worker
from holdfast._foreground import foreground
from holdfast._types import Delta, Event, Head, Request
from holdfast.dialects import find
from holdfast.machines.cursor import Cursor
from holdfast.machines.sse import SseParser
from holdfast.mounts._relay import Mount
from holdfast.testing.server import sse

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "mounts.md"
BURSTS = (1, 16)
"""Events a read."""
SECONDS = 0.3
"""Of one measured stream: it is paced, so that a read holds one burst."""
BURSTS_A_SECOND = {1: 400, 16: 100}
MESSAGES: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": BODY["messages"], "stream": True}
CHAT = "/v1/chat/completions"
_EVENT = b"data: {"
Read = Callable[[dict[str, str]], Iterator[int]]
ReadAsync = Callable[[dict[str, str]], AsyncIterator[int]]
"""Asks for a stream, and yields how many events came at a time."""
Close = Callable[[], Any]


# -- who reads: given an address and whether the mount is in, each gives a way to read a stream ----


def _sdk(kind: str, url: str, *, mounted: bool) -> Any:
    """Gives the client of an SDK, of which `kind` is the class."""
    module = importlib.import_module(kind.removeprefix("Async").lower())
    make = mounts.httpx2_client if kind.startswith("Async") else mounts.httpx2_sync_client
    settings = {"http_client": make()} if mounted else {}
    return getattr(module, kind)(api_key="k", base_url=url + "/v1" * kind.endswith("OpenAI"), **settings)


def openai(url: str, *, mounted: bool) -> tuple[Read, Close]:
    client = _sdk("OpenAI", url, mounted=mounted)

    def read(query: dict[str, str]) -> Iterator[int]:
        for chunk in client.chat.completions.create(**BODY, extra_query=query):
            yield len(chunk.choices)

    return read, client.close


def openai_async(url: str, *, mounted: bool) -> tuple[ReadAsync, Close]:
    client = _sdk("AsyncOpenAI", url, mounted=mounted)

    async def read(query: dict[str, str]) -> AsyncIterator[int]:
        async for chunk in await client.chat.completions.create(**BODY, extra_query=query):
            yield len(chunk.choices)

    return read, client.close


def anthropic(url: str, *, mounted: bool) -> tuple[Read, Close]:
    client = _sdk("Anthropic", url, mounted=mounted)

    def read(query: dict[str, str]) -> Iterator[int]:
        for event in client.messages.create(**MESSAGES, extra_query=query):
            yield event.type == "content_block_delta"

    return read, client.close


def anthropic_async(url: str, *, mounted: bool) -> tuple[ReadAsync, Close]:
    client = _sdk("AsyncAnthropic", url, mounted=mounted)

    async def read(query: dict[str, str]) -> AsyncIterator[int]:
        async for event in await client.messages.create(**MESSAGES, extra_query=query):
            yield event.type == "content_block_delta"

    return read, client.close


def any_httpx(library: str, url: str, *, mounted: bool) -> tuple[Read, Close]:
    plain = importlib.import_module(library).Client
    client = getattr(mounts, f"{library}_sync_client")() if mounted else plain(timeout=60)

    def read(query: dict[str, str]) -> Iterator[int]:
        with client.stream("POST", url + CHAT, params=query, json=BODY) as response:
            for data in response.iter_bytes():
                yield data.count(_EVENT)

    return read, client.close


def any_httpx_async(library: str, url: str, *, mounted: bool) -> tuple[ReadAsync, Close]:
    plain = importlib.import_module(library).AsyncClient
    client = getattr(mounts, f"{library}_client")() if mounted else plain(timeout=60)

    async def read(query: dict[str, str]) -> AsyncIterator[int]:
        async with client.stream("POST", url + CHAT, params=query, json=BODY) as response:
            async for data in response.aiter_bytes():
                yield data.count(_EVENT)

    return read, client.aclose


def aiohttp_(url: str, *, mounted: bool) -> tuple[ReadAsync, Close]:
    sessions: list[aiohttp.ClientSession] = []

    async def read(query: dict[str, str]) -> AsyncIterator[int]:
        if not sessions:  # it belongs to the loop
            sessions.append(aiohttp.ClientSession(middlewares=[mounts.aiohttp_middleware()] if mounted else []))
        async with sessions[0].post(url + CHAT, params=query, json=BODY) as response:
            async for data in response.content.iter_any():
                yield data.count(_EVENT)

    async def close() -> None:
        for session in sessions:
            await session.close()

    return read, close


def requests_(url: str, *, mounted: bool) -> tuple[Read, Close]:
    session = requests.Session()
    if mounted:
        session.mount("http://", mounts.RequestsAdapter())

    def read(query: dict[str, str]) -> Iterator[int]:
        body: Any = BODY
        with session.post(url + CHAT, params=query, json=body, stream=True) as response:
            for data in response.iter_content(chunk_size=None):
                yield data.count(_EVENT)

    return read, session.close


CLIENTS: dict[str, tuple[Callable[..., tuple[Any, Close]], str]] = {
    "openai, async": (openai_async, "10 %"),
    "openai": (openai, "25 %"),
    "anthropic, async": (anthropic_async, "10 %"),
    "anthropic": (anthropic, "25 %"),
    "httpx2, async": (partial(any_httpx_async, "httpx2"), "10 us"),
    "httpx2": (partial(any_httpx, "httpx2"), "10 us"),
    "httpx, async": (partial(any_httpx_async, "httpx"), "10 us"),
    "httpx": (partial(any_httpx, "httpx"), "10 us"),
    "aiohttp": (aiohttp_, "10 us"),
    "requests": (requests_, "10 us"),
}
"""Name -> how it is made, and what the mount may cost on top at most."""
_SDKS = ("openai", "anthropic")
Figures = dict[str, float]


# -- one process, one client -----------------------------------------------------------------------


def measure(name: str, url: str, *, rounds: int, seconds: float = SECONDS) -> dict[str, list[Figures]]:
    """Reads "with" the mount and "without" it in turns.

    A round's figures are CPU microseconds an event by events a read ("1", "16"), and milliseconds to the "first" token.
    """
    made = {title: CLIENTS[name][0](url, mounted=title == "with") for title in ("without", "with")}
    taken: dict[str, list[Figures]] = {title: [] for title in made}
    with asyncio.Runner() as runner:

        def timed(title: str, *, events: int, rate: int = 0, burst: int = 1) -> tuple[int, float, float]:
            stream = made[title][0]({"events": str(events), "rate": str(rate), "burst": str(burst)})
            return runner.run(_timed_async(stream)) if hasattr(stream, "__aiter__") else _timed(stream)

        for title in made:
            for _ in range(5):
                timed(title, events=64)  # imports, caches, the first connection
        for turn in range(rounds):
            for title in sorted(made, reverse=bool(turn % 2)):
                taken[title].append(_round(partial(timed, title), seconds))
        for _, close in made.values():
            if (closing := close()) is not None:
                runner.run(closing)
    return taken


def _round(timed: Callable[..., tuple[int, float, float]], seconds: float) -> Figures:
    figures: Figures = {}
    for burst in BURSTS:
        rate = BURSTS_A_SECOND[burst] * burst
        events, cpu, _ = timed(events=int(rate * seconds) // burst * burst, rate=rate, burst=burst)
        figures[str(burst)] = cpu / events * 1e6
    figures["first"] = timed(events=2)[2] * 1e3
    return figures


def _timed(stream: Iterator[int]) -> tuple[int, float, float]:
    """Gives how many events came, the seconds of CPU time, and those until the first came."""
    events, first, begun, cpu = 0, 0.0, time.perf_counter(), time.process_time()
    for some in stream:
        first = first or (time.perf_counter() - begun if some else 0.0)
        events += some
    return events, time.process_time() - cpu, first


async def _timed_async(stream: AsyncIterator[int]) -> tuple[int, float, float]:
    events, first, begun, cpu = 0, 0.0, time.perf_counter(), time.process_time()
    async for some in stream:
        first = first or (time.perf_counter() - begun if some else 0.0)
        events += some
    return events, time.process_time() - cpu, first


# -- what no mount can be cheaper than -------------------------------------------------------------


def floor(events: int, pause: float) -> Figures:
    """Gives the microseconds of CPU that an event costs without any client, with a pause before each.

    "parse": reading it, which is what tells a whole answer from a torn one. "pipe": that and all layers, in the thread
    that asks. "hop": to another thread and back, which a pipe that runs elsewhere costs besides.
    """
    wire = [sse(json.dumps(_chunk(number))) for number in range(events)]
    taken: Figures = {}
    for name, steps in (("parse", _parse(wire)), ("pipe", _pipe(wire)), ("hop", _hop())):
        with steps as step:
            taken[name] = _paced(step, events, pause)
    return taken


def _chunk(number: int) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": f"word{number} "}, "finish_reason": None}
    return {"id": "a", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


def _paced(step: Callable[[], object], times: int, pause: float) -> float:
    """Gives the median of what a step costs, in microseconds of the process's CPU time."""
    taken = []
    for _ in range(times):
        if pause:
            time.sleep(pause)
        begun = time.process_time_ns()
        step()
        taken.append(time.process_time_ns() - begun)
    return statistics.median(taken) / 1000


@contextlib.contextmanager
def _parse(wire: Sequence[bytes]) -> Iterator[Callable[[], object]]:
    left, cursor = iter(wire), Cursor()
    parser, reader = SseParser(cursor), find("openai-compatible").reader(BODY, cursor)

    def step() -> None:
        found: list[Event] = []
        deltas: list[Delta] = []
        parser.feed((next(left),), found)
        reader.feed(found, deltas)

    yield step


@dataclass(slots=True)
class _Wire:
    """A source and its stream, which has everything at hand."""

    left: Iterator[bytes]
    head: Head = field(default_factory=lambda: Head(status=200, headers={"content-type": "text/event-stream"}))

    async def open(self, request: Request) -> _Wire:
        return self

    async def receive(self) -> Sequence[bytes]:
        return (next(self.left),)

    async def aclose(self) -> None:
        pass


@contextlib.contextmanager
def _pipe(wire: Sequence[bytes]) -> Iterator[Callable[[], object]]:
    loop = foreground()
    request = Request(url=f"http://localhost{CHAT}", method="POST", body=BODY)
    relay = Mount().relay(_Wire(iter(wire)), request, {}, lambda inner: inner)
    loop.run(relay.open())
    yield lambda: loop.run(relay.receive())
    loop.run(relay.aclose())


@contextlib.contextmanager
def _hop() -> Iterator[Callable[[], object]]:
    there = Worker()
    yield lambda: there.submit(int).result()
    there.end()


# -- all of them, in turns -------------------------------------------------------------------------


@contextlib.contextmanager
def upstream() -> Iterator[str]:
    """Starts the benchmark's upstream and gives its address."""
    process = subprocess.Popen([sys.executable, "-m", "bench.upstream"], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.terminate()
        process.communicate()


def _one(name: str, url: str, rounds: int, seconds: float) -> dict[str, list[Figures]]:
    command = [sys.executable, "-m", "bench.mounts", "--one", name, url, str(rounds), str(seconds)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    taken: dict[str, list[Figures]] = json.loads(done.stdout)
    return taken


def run(names: Sequence[str], rounds: int, seconds: float) -> dict[str, dict[str, Figures]]:
    """Gives the medians by client: "without", "with", and what is "added", paired round by round."""
    with upstream() as url:
        return {name: medians(_one(name, url, rounds, seconds)) for name in names}


def medians(taken: dict[str, list[Figures]]) -> dict[str, Figures]:
    """Gives the medians of what `measure()` gives."""
    pairs = list(zip(taken["without"], taken["with"], strict=True))
    keys = pairs[0][0]
    return {
        "without": {key: statistics.median(plain[key] for plain, _ in pairs) for key in keys},
        "with": {key: statistics.median(ours[key] for _, ours in pairs) for key in keys},
        "added": {key: statistics.median(ours[key] - plain[key] for plain, ours in pairs) for key in keys},
    }


# -- the table -------------------------------------------------------------------------------------

SECTION = """## What it costs

Written by `python -m bench mounts --write`; CPython {python} on {cores} cores, {versions}.
CPU time an event of the whole client process, and what the mount adds to it; medians of {rounds} rounds over loopback,
with and without in turns. "16 a read": the events come in bursts. "1 a read": each wakes the client, {pace} a second.

{table}
The first token is timed from the call on, over a connection that is there already. The aim is for what is added to an
event: 10 % of an asynchronous SDK's own cost, 25 % of a blocking one's, 10 us for a plain client.

The asynchronous transports that a mount makes for itself take what comes straight from asyncio, without the scope, the
timer and the two system calls that httpcore spends on each read: that pays for the pipe. A transport of yours is not
touched. A blocking client is read in its own thread, and hops to no other.

What is left is the pipe, and where events come one at a time, {pace} a second, most of that is a processor that has
forgotten it since the last one. Measured in the same run, without any client:

| microseconds an event | one after another | {pace} a second |
|---|---:|---:|
| parsing it, which tells a whole answer from a torn one | {hot[parse]:.1f} | {cold[parse]:.0f} |
| the pipe: that, and all layers | {hot[pipe]:.1f} | {cold[pipe]:.0f} |
| a hop to another thread and back, which is saved | {hot[hop]:.1f} | {cold[hop]:.0f} |

Parsing alone is beyond 10 us there, so no plain client can keep to that aim at one event a read, and a blocking SDK
only where an event costs it four times the pipe. [The decision](adr/0020-a-blocking-client-drives-its-own-pipe.md) says
more.
"""


def table(measured: dict[str, dict[str, Figures]]) -> str:
    """Draws the figures in Markdown."""
    lines = [
        "| client | 16 a read | added | 1 a read | added | first token | added | aim |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, figures in measured.items():
        plain, added = figures["without"], figures["added"]
        cells = [name]
        for key in ("16", "1"):
            share = f" ({added[key] / plain[key]:+.0%})" if name.startswith(_SDKS) else ""
            cells += [f"{plain[key]:.0f} us", f"{added[key]:+.0f} us{share}"]
        cells += [f"{plain['first']:.1f} ms", f"{added['first']:+.1f} ms", CLIENTS[name][1]]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write(measured: dict[str, dict[str, Figures]], rounds: int, hot: Figures, cold: Figures) -> None:
    """Puts the section into the page, in the place of the one that was there."""
    libraries = ("openai", "anthropic", "httpx2", "httpx", "aiohttp", "requests")
    section = SECTION.format(
        python=platform.python_version(),
        cores=os.cpu_count(),
        versions=", ".join(f"{name} {version(name)}" for name in libraries),
        rounds=rounds,
        pace=BURSTS_A_SECOND[1],
        table=table(measured),
        hot=hot,
        cold=cold,
    )
    page = PAGE.read_text(encoding="utf-8")
    before, _, after = re.sub(r"## What it costs\n.*?\n(?=## )", "", page, flags=re.DOTALL).partition("## aiohttp\n")
    PAGE.write_text(f"{before}{section}\n## aiohttp\n{after}", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench mounts", description="What a mount costs its client.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"clients, of {', '.join(CLIENTS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="shorter streams, fewer rounds: more noise")
    parser.add_argument("--rounds", type=int, default=25, help="interleaved rounds of each client")
    parser.add_argument("--write", action="store_true", help="put the table into docs/mounts.md")
    options = parser.parse_args(arguments)
    names = options.names or list(CLIENTS)
    rounds, seconds = (min(5, options.rounds), SECONDS / 2) if options.quick else (options.rounds, SECONDS)
    measured = run(names, rounds, seconds)
    print(table(measured))
    if options.write:
        write(measured, rounds, floor(2000, 0), floor(400, 1 / BURSTS_A_SECOND[1]))
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measure(sys.argv[2], sys.argv[3], rounds=int(sys.argv[4]), seconds=float(sys.argv[5]))))
    else:
        sys.exit(main())
