"""Lets the players read, each way with the mount and without, in a process of its own against a server of its own."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from bench.scoreboard.judge import Outcome, judge
from bench.scoreboard.pulse import Pulse, steady
from bench.scoreboard.run import work
from bench.sdks.plan import KEYS, MOST, PLAN, server, shifts
from bench.sdks.players import PLAYERS

THREADS, PLAYING = 8, 3
"""Streams that a player reads at once, and players at a time."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Cell:
    """What came of one stream: the outcome, the error's name where there was one, and the requests upstream."""

    outcome: Outcome
    error: str = ""
    requests: int = 0

    def keeps(self, most: float) -> bool:
        """Says whether the promise was kept, with no more requests than so many."""
        return self.outcome in ("exact", "typed") and self.requests <= most


@dataclass(slots=True, kw_only=True)
class Card:
    """One player in one way, mounted or not: its cells by key. `late` is the scoreboard's."""

    player: str
    way: str
    mounted: bool
    versions: dict[str, str]
    cells: dict[str, Cell]
    late: float = 0.0
    title: str = ""

    def __post_init__(self) -> None:
        self.title = f"{self.player}, {self.way}, {'with' if self.mounted else 'without'}"


async def play(player: str, way: str, *, mounted: bool) -> Card:
    """Lets one player read every stream."""
    told = PLAYERS[player]
    command = ("bench.sdks.worker", told.module, way, "with" if mounted else "without", str(THREADS))
    async with server(told.module) as upstream, Pulse() as pulse:
        said: list[dict[str, Any]] = []
        versions: dict[str, Any] = {}
        for keys in shifts():
            versions, *lines = await work(told.environment, command, keys, upstream.url)
            said += lines
        heard = {line["key"]: line for line in said}
        if missing := set(KEYS) - heard.keys():
            raise RuntimeError(f"{player}, {way} said nothing of {len(missing)} streams, {min(missing)!r} among them")
        cells: dict[str, Cell] = {}
        for key in KEYS:
            cells[key] = Cell(
                outcome=judge(heard[key], [answer.text for answer in upstream.answers(key)]),
                error=heard[key]["error"],
                requests=upstream.attempts.get(key, 0),
            )
            await asyncio.sleep(0)  # others play meanwhile, against servers in this loop
    return Card(player=player, way=way, mounted=mounted, versions=versions, cells=cells, late=pulse.late)


async def play_all(names: Iterable[str]) -> list[Card]:
    """Lets all play, and says on the way who is done."""
    places = asyncio.Semaphore(PLAYING)

    async def take_part(player: str, way: str, mounted: bool) -> Card:  # noqa: FBT001 - one of a product
        async with places:
            card = await steady(lambda: play(player, way, mounted=mounted))
        print(f"{card.title:<40} {dict(Counter(cell.outcome for cell in card.cells.values()))}", flush=True)
        for key, cell in card.cells.items():
            if mounted and not cell.keeps(MOST):
                print(f"  {key} ({PLAN.schedule.fault(key, 1)}): {cell}", flush=True)
        return card

    turns = [(name, way, mounted) for name in names for way in PLAYERS[name].ways for mounted in (True, False)]
    return list(await asyncio.gather(*(take_part(*turn) for turn in turns)))
