"""The soak: ten thousand streams over TCP, each attempt meeting a fault with probability 0.12, two hundred at once.

`python -m bench.soak [--streams N]`. Nothing may be silent, nothing may hang, and memory, tasks and sockets must be
back where they started. Client and server share one loop, so both are held to that. It runs on the real clock: what a
fake one would hide, a timer left behind for one, is what a soak is for.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import sys
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from holdfast import Client, StreamError, default_layers
from holdfast.dialects import Timeouts
from holdfast.layers.reconnect import Reconnect
from holdfast.layers.retry import Retry
from holdfast.testing.chaos import ChaosServer, Mode
from holdfast.testing.schedule import Schedule

MODES: tuple[Mode, ...] = ("ids", "no-ids", "divergent")
HANG = 90.0
"""Seconds after which a stream counts as hung: its own `total` clock is shorter."""
BLOCKS_LEFT = 2_000, 0.1
"""Blocks of memory that may be left when all is over, and how many more a stream: one stream makes thousands of them,
and what is left without a leak (caches of addresses, lists that the interpreter keeps) does not grow with streams."""


@dataclass(slots=True, kw_only=True)
class Census:
    """What a process holds: tasks, open files (sockets are files), and the interpreter's blocks of memory."""

    tasks: int
    files: int
    blocks: int
    resident_mib: float


@dataclass(slots=True, kw_only=True)
class Figures:
    """What came of a soak. `wrong` names the streams that broke the promise: it must stay empty."""

    streams: int = 0
    exact: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    resumed: int = 0
    wrong: list[str] = field(default_factory=list)
    hung: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    requests: int = 0
    faults: int = 0
    seconds: float = 0.0
    complaints: list[str] = field(default_factory=list)
    before: Census
    after: Census

    @property
    def blocks_left(self) -> int:
        """Blocks of memory left behind."""
        return self.after.blocks - self.before.blocks

    def check(self) -> None:
        """Raises `AssertionError` where the promise was broken, or something was left behind."""
        assert not self.wrong, f"silent or twice: {self.wrong[:5]}"
        assert not self.hung, f"hung: {self.hung[:5]}"
        assert not self.complaints, f"the loop heard of errors that nobody took: {self.complaints[:5]}"
        assert sum(self.exact.values()) + sum(self.errors.values()) == self.streams
        for mode in ("ids", "no-ids"):
            assert self.exact[mode] == self.asked[mode], (
                f"{mode}: {self.exact[mode]} of {self.asked[mode]} are exact: {self.failed[:5]}"
            )
        assert self.after.tasks == self.before.tasks, f"tasks: {self.before.tasks}, then {self.after.tasks}"
        assert self.after.files == self.before.files, f"open files: {self.before.files}, then {self.after.files}"
        allowed = BLOCKS_LEFT[0] + BLOCKS_LEFT[1] * self.streams
        assert self.blocks_left < allowed, f"{self.blocks_left} blocks of memory left by {self.streams} streams"


async def census() -> Census:
    """Counts, when what was closed has had its turn in the loop."""
    for _ in range(5):
        await asyncio.sleep(0.01)
        gc.collect()
    return Census(
        tasks=len(asyncio.all_tasks()),
        files=_open_files(),
        blocks=sys.getallocatedblocks(),
        resident_mib=_resident_mib(),
    )


def _open_files() -> int:
    return sum(1 for _ in Path("/dev/fd").iterdir())


def _resident_mib() -> float:
    """Tells what the kernel holds for the process; 0 where there is no /proc."""
    status = Path("/proc/self/statm")
    return int(status.read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20 if status.exists() else 0.0


def _client(url: str, idle: float) -> Client:
    """The default layers; pauses are short, so that a run is about streams and not about waiting."""
    clocks = Timeouts(open=idle, first_token=idle, progress=idle, total=HANG / 1.5)
    layers = [
        replace(layer, base=0.05, cap=0.5) if isinstance(layer, Retry | Reconnect) else layer
        for layer in default_layers("deepseek", timeouts=clocks)
    ]
    return Client("deepseek", api_key="k", base_url=url, layers=layers)


async def _stream(client: Client, server: ChaosServer, key: str, mode: str, figures: Figures) -> None:
    text, failure = "", None
    try:
        async with asyncio.timeout(HANG), client.stream({"messages": [{"role": "user", "content": key}]}) as deltas:
            async for delta in deltas:
                text += delta.text
            verdict = deltas.report.verdict
            figures.resumed += verdict is not None and verdict.kind == "resumed"
    except StreamError as error:
        failure = error
    except TimeoutError:
        figures.hung.append(key)
        return
    truths = [answer.text for answer in server.answers(key)]
    if failure is not None:
        figures.errors[f"{mode}: {type(failure).__name__}"] += 1
        if mode != "divergent":
            figures.failed.append(f"{key} ({mode}): {failure}")
        if not any(truth.startswith(text) for truth in truths):
            figures.wrong.append(key)
    elif text in truths:
        figures.exact[mode] += 1
    else:
        figures.wrong.append(key)


async def _run(figures: Figures, *, at_once: int, rate: float, seed: int, idle: float) -> None:
    keys = iter(range(figures.streams))
    modes: dict[str, Mode] = {f"stream {n}": MODES[n % len(MODES)] for n in range(figures.streams)}
    schedule = Schedule.draw(seed, rate=rate)

    async def reader() -> None:
        for number in keys:  # shared by all readers: whoever is free takes the next
            key = f"stream {number}"
            figures.asked[modes[key]] += 1
            await _stream(client, server, key, modes[key], figures)

    async with ChaosServer(schedule=schedule, modes=modes, seed=seed, sentences=2) as server:
        async with _client(server.url, idle) as client, asyncio.TaskGroup() as readers:
            for _ in range(at_once):
                readers.create_task(reader())
        assert await server.server.all_closed(), f"{server.server.open_connections} connections left open"
        figures.requests = server.summary["requests"]
        figures.faults = sum(server.summary["faults"].values())


async def soak(
    streams: int = 10_000, *, at_once: int = 200, rate: float = 0.12, seed: int = 3, idle: float = 5.0
) -> Figures:
    """Reads so many streams and gives what came of it; `idle` is seconds that a stalled attempt is waited for."""
    loop, complaints = asyncio.get_running_loop(), list[str]()
    loop.set_exception_handler(lambda _, context: complaints.append(str(context)))
    here = await census()
    first = Figures(streams=min(streams // 3, 1_000), before=here, after=here)  # fills caches and free lists
    await _run(first, at_once=at_once, rate=rate, seed=seed + 1, idle=idle)
    figures = Figures(streams=streams, complaints=complaints, before=await census(), after=here)
    began = time.monotonic()
    await _run(figures, at_once=at_once, rate=rate, seed=seed, idle=idle)
    figures.seconds = time.monotonic() - began
    figures.after = await census()
    loop.set_exception_handler(None)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description="Streams over TCP, with faults.")
    parser.add_argument("--streams", type=int, default=10_000)
    parser.add_argument("--at-once", type=int, default=200)
    parser.add_argument("--seed", type=int, default=3)
    options = parser.parse_args()
    figures = asyncio.run(soak(options.streams, at_once=options.at_once, seed=options.seed))
    print(f"{figures.streams:,} streams in {figures.seconds:.0f} s, {options.at_once} at once, seed {options.seed}")
    print(f"requests {figures.requests:,}, of which met a fault {figures.faults:,}")
    for mode in MODES:
        print(f"exact, {mode:<10}{figures.exact[mode]:>7,} of {figures.asked[mode]:,}")
    print(f"resumed           {figures.resumed:>6,}")
    print(f"typed errors      {sum(figures.errors.values()):>6,}  {dict(figures.errors) or ''}")
    for line in figures.failed[:10]:
        print(f"                          {line}")
    print(f"silent or twice   {len(figures.wrong):>6,}")
    print(f"hung              {len(figures.hung):>6,}")
    before, after = figures.before, figures.after
    print(f"tasks {before.tasks} -> {after.tasks}, open files {before.files} -> {after.files}")
    print(f"memory {before.resident_mib:.1f} -> {after.resident_mib:.1f} MiB, blocks {figures.blocks_left:+,}")
    figures.check()


if __name__ == "__main__":
    main()
