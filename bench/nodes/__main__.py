"""`make nodes`: two gateways, one Redis, many streams and seeds; writes docs/gateway-nodes.md with what was counted."""

from __future__ import annotations

import argparse
import asyncio
import platform
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from random import Random

import aiohttp

from bench.nodes.rig import Node, Reader, Story, nodes, paid, truths
from holdfast.testing.chaos import ChaosServer, Mode
from tests.binaries import free_port
from tests.redis_server import RedisServer, redis_server

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "gateway-nodes.md"
LEASE = 2.0
EVERY = 0.05
"""Seconds between the events of one stream."""


@dataclass(slots=True, kw_only=True)
class Counted:
    """What became of the readers of one run."""

    name: str
    readers: int = 0
    identical: int = 0
    errors: int = 0
    """Readers whose stream ended with an error event, the same that every node gives."""
    wrong: int = 0
    cuts: int = 0
    needed: int = 0
    again: int = 0
    requests: int = 0
    gap: float = 0.0


@dataclass(slots=True)
class Rig:
    """Both nodes, and what they stand between."""

    redis: RedisServer
    upstream: ChaosServer
    nodes: list[Node]
    reader: Reader

    async def played(self, name: str, modes: Sequence[Mode], streams: int, incident: Incident) -> Counted:
        """Has streams read, something happen meanwhile, and counts."""
        prompts = [f"{name} {modes[n % len(modes)]} {n}" for n in range(streams)]
        self.upstream.modes = {prompt: modes[n % len(modes)] for n, prompt in enumerate(prompts)}
        reading = [asyncio.create_task(self.reader.read(prompt, n // len(modes))) for n, prompt in enumerate(prompts)]
        await incident(self)
        stories = await asyncio.gather(*reading, return_exceptions=True)
        counted = Counted(name=name, readers=streams)
        for story in stories:
            await self._count(counted, story)
        counted.needed, counted.again = paid(self.upstream, prompts)
        counted.requests = sum(self.upstream.attempts.get(prompt, 0) for prompt in prompts)
        return counted

    async def _count(self, counted: Counted, story: Story | BaseException) -> None:
        if isinstance(story, BaseException):
            print(f"  {counted.name}: {story!r}"[:300])
            counted.wrong += 1
            return
        counted.cuts += story.cuts
        counted.gap = max(counted.gap, story.longest_gap)
        # Where nothing had been shown, it is the answer to the second request that is told.
        said, answers = "".join(story.text), truths(self.upstream, story.prompt)
        same = [await self.reader.whole(place, story.stream) == story.data for place in range(len(self.nodes))]
        if all(same) and story.in_order and story.error and any(one.startswith(said) for one in answers):
            counted.errors += 1
        elif all(same) and story.in_order and not story.error and said in answers:
            counted.identical += 1
        else:
            print(f"  {counted.name}: {story.prompt}: {same} {story.error} {len(said)} characters")
            counted.wrong += 1


class Incident:
    """What happens in the middle of a run."""

    def __init__(self, kind: str, seed: int) -> None:
        self._kind = kind
        self._random = Random(seed)

    async def __call__(self, rig: Rig) -> None:
        """Has it happen."""
        await asyncio.sleep(0.5 + 3 * self._random.random())
        place = self._random.randrange(2)
        node = rig.nodes[place]
        if self._kind == "kill":
            await node.kill()
            await asyncio.sleep(1.5 * LEASE)
            await node.start()
        elif self._kind == "roll":
            for one in rig.nodes:
                await one.stop()
                await one.start()
        elif self._kind == "freeze":
            node.signal(signal.SIGSTOP)
            await asyncio.sleep(2 * LEASE)
            node.signal(signal.SIGCONT)
        elif self._kind == "silence":
            with rig.redis.frozen():
                await asyncio.sleep(3)


@asynccontextmanager
async def rig(seed: int) -> AsyncIterator[Rig]:
    """Starts two nodes over one Redis, and an upstream."""
    upstream = ChaosServer(every=EVERY, sentences=6, seed=seed)
    connector = aiohttp.TCPConnector(limit=0)
    with redis_server() as redis:
        async with upstream, aiohttp.ClientSession(connector=connector) as session:
            one = {"dialect": "openai", "base_url": upstream.url, "api_key": "sk-upstream"}
            set_ = {"journal": redis.url, "lease": LEASE, "drain": 0.5, "upstreams": [one]}
            async with nodes(free_port(), free_port(), **set_) as made:
                yield Rig(redis, upstream, made, Reader(session, [node.url for node in made], patience=90))


async def play(streams: int, seeds: int) -> list[tuple[str, list[Counted]]]:
    """Plays all there is."""
    kinds: list[tuple[str, str, tuple[Mode, ...], int]] = [
        ("`kill -9`, upstream with event ids", "kill", ("ids",), seeds),
        ("`kill -9`, upstream that answers the same again", "kill", ("no-ids",), max(1, seeds // 6)),
        ("`kill -9`, upstream that answers otherwise", "kill", ("divergent",), max(1, seeds // 6)),
        ("rolling restart of both", "roll", ("ids", "no-ids"), max(1, seeds // 6)),
        ("node frozen for two leases", "freeze", ("ids", "no-ids"), max(1, seeds // 6)),
        ("Redis silent for 3 s", "silence", ("ids", "no-ids"), max(1, seeds // 6)),
    ]
    played = []
    async with rig(7) as there:
        for name, kind, modes, runs in kinds:
            counted = []
            for seed in range(runs):
                counted.append(await there.played(f"{kind} {modes} {seed}", modes, streams, Incident(kind, seed)))
                print(counted[-1], flush=True)
                there.upstream.books.served.clear()
            played.append((name, counted))
    return played


HEAD = """# Gateways that die: what was counted

Written by `make nodes` on {date}; Holdfast {holdfast}, Python {python}. Two `holdfast gateway` processes, one
redis-server, {streams} streams at a time of an event every {every:g} ms, half of them opened at each node, and readers
that go to the other node with `Last-Event-ID` when they are cut. The incident comes 0.5 to 3.5 s after the streams
began, at a time and a node that the seed chooses; a lease is {lease:g} s here. Each reader's text is held against the
upstream's own, and each stream is read once more, from its beginning, at both nodes: *identical* are readers whose
bytes are all of these.
"""
COLUMNS = (
    "incident",
    "runs",
    "identical",
    "same error event",
    "wrong",
    "connections cut",
    "upstream requests",
    "tokens of the answers",
    "paid again",
    "longest wait",
)
NOTES = """
- *Paid again* are tokens that the upstream generated beyond those of its answers. An upstream that goes on behind an id
  is paid only for what the dead node had been sent and nobody had been shown. One that cannot generates its answer once
  more: what had been shown is compared, piece by piece, and nothing is let through before it agrees. In the last
  three lines half of the streams are of either kind; a replay comes no faster than the first answer did.
- An upstream that answers otherwise cannot be gone on with exactly: where `seams` is off, its readers get what there
  was and an error event, on both nodes the same. Those whose node lived have their whole answer, and so have
  those of whom nothing had been shown when it died.
- A node that was frozen comes back, finds its lease gone, and sends nothing upstream; who reads there is not even cut,
  and goes on reading what the other node writes.
- While Redis is silent, readers are fed from memory; nothing is asked of the upstream again.
"""


def page(played: list[tuple[str, list[Counted]]], streams: int) -> str:
    """Writes the page."""
    facts = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "holdfast": version("holdfast")}
    facts["python"] = platform.python_version()
    lines = [
        HEAD.format(**facts, streams=streams, every=1000 * EVERY, lease=LEASE),
        f"| {' | '.join(COLUMNS)} |",
        f"| --- |{' --: |' * (len(COLUMNS) - 1)}",
    ]
    for name, runs in played:
        sums = {one: sum(getattr(run, one) for run in runs) for one in ("readers", "identical", "errors", "wrong")}
        needed, again = sum(run.needed for run in runs), sum(run.again for run in runs)
        cells = (
            name,
            len(runs),
            f"{sums['identical']:,} of {sums['readers']:,}",
            f"{sums['errors']:,}",
            sums["wrong"],
            f"{sum(run.cuts for run in runs):,}",
            f"{sum(run.requests for run in runs):,}",
            f"{needed:,}",
            "-" if sums["errors"] else f"{again:,} ({again / needed:.1%})",
            f"{max(run.gap for run in runs):.1f} s",
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n" + NOTES


def main() -> None:
    """Plays, and writes."""
    parser = argparse.ArgumentParser(prog="python -m bench.nodes", description=__doc__)
    parser.add_argument("--streams", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--write", type=Path, default=PAGE)
    given = parser.parse_args()
    played = asyncio.run(play(given.streams, given.seeds))
    given.write.write_text(page(played, given.streams), "utf-8")
    if any(run.wrong for _, runs in played for run in runs):
        raise SystemExit("some readers did not have what they must have")


if __name__ == "__main__":
    main()
