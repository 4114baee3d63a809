"""Lets the contenders read, one after the other, each in a process of its own against a server of its own."""

from __future__ import annotations

import asyncio
import json
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.scoreboard.contenders import CONTENDERS
from bench.scoreboard.judge import Outcome, judge
from bench.scoreboard.plan import WARM, Plan
from bench.scoreboard.pulse import Pulse, steady

ROOT = Path(__file__).resolve().parent.parent.parent
THREADS = 32
"""Streams that a contender reads at once."""


@dataclass(slots=True, kw_only=True)
class Card:
    """One contender's results, by key.

    `requests` are those that a stream of the mix took, `seconds` the median of what a fault met and ended exact there;
    `late` is by how many seconds the server came late at worst.
    """

    title: str
    versions: dict[str, str]
    outcomes: dict[str, Outcome]
    errors: dict[str, int] = field(default_factory=dict)
    requests: float = 0.0
    seconds: float = 0.0
    late: float = 0.0


async def work(environment: str, command: Sequence[str], keys: Sequence[str], url: str) -> list[dict[str, Any]]:
    """Lets a process of the contender's environment read; the first line it says has its versions."""
    process = await asyncio.create_subprocess_exec(
        *(str(ROOT / environment / "bin/python"), "-m", *command),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        cwd=ROOT,
    )
    asks = [json.dumps({"key": key, "base_url": url}) for key in (WARM, *keys)]
    said, _ = await process.communicate("\n".join(asks).encode())
    return [json.loads(line) for line in said.decode().splitlines()]


async def play(name: str, plan: Plan) -> Card:
    """Lets one contender read every stream of the plan."""
    title, environment = CONTENDERS[name]
    command = ("bench.scoreboard.worker", name, str(THREADS))
    async with plan.server() as server, Pulse() as pulse:
        said: list[dict[str, Any]] = []
        for keys in plan.shifts:
            versions, *lines = await work(environment, command, keys, server.url)
            said += lines
        heard: dict[str, Any] = {line["key"]: line for line in said}
        if missing := plan.keys.keys() - heard.keys():
            raise RuntimeError(f"{name} said nothing of {len(missing)} streams, {min(missing)!r} among them")
        outcomes = {key: judge(heard[key], [a.text for a in server.answers(key)]) for key in plan.keys}
        mix = [key for key in plan.keys if key.startswith("mix")]
        mended = [heard[k]["seconds"] for k in mix if plan.struck(k) and outcomes[k] == "exact"]
        return Card(
            title=title,
            versions=versions,
            outcomes=outcomes,
            errors=dict(Counter(line["error"] for line in said if line["error"])),
            requests=sum(server.attempts.get(key, 0) for key in mix) / len(mix),
            seconds=statistics.median(mended) if mended else 0.0,
            late=pulse.late,
        )


async def play_all(plan: Plan, names: list[str]) -> list[Card]:
    """Lets all read, three at a time: most of a run is waiting for watchdogs. Says on the way who is done."""
    places = asyncio.Semaphore(3)

    async def take_part(name: str) -> Card:
        async with places:
            began = asyncio.get_running_loop().time()
            card = await steady(lambda: play(name, plan))
        took = asyncio.get_running_loop().time() - began
        print(f"{card.title:<28} {dict(Counter(card.outcomes.values()))} in {took:.0f} s", flush=True)
        return card

    return list(await asyncio.gather(*map(take_part, names)))
