"""docs/sdk-matrix.md, written from the cards and from nothing else: no figure in it is typed by hand."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime

from bench.scoreboard.ask import IDLE, TOTAL
from bench.scoreboard.page import named
from bench.scoreboard.plan import AFTER
from bench.scoreboard.pulse import disturbed
from bench.sdks.plan import MEANINGLESS, MOST, PARTS, WATCHDOG, key, rows
from bench.sdks.players import PLAYERS
from bench.sdks.run import Card, Cell
from holdfast.testing.faults import Fault

SILENT, HUNG, MIXED, LEAK = "SILENT", "HUNG", "MIXED", "LEAK"
BAD = (SILENT, HUNG, MIXED, LEAK)
"""What stands in the cells that break the promise."""
NOTHING = "·"

HEAD = """# SDKs, with Holdfast and without

Written by `make sdk-matrix` on {date}; Python {python}.

Real SDKs, unmodified but for the [one line](mounts.md), read the [scoreboard](scoreboard.md)'s streams from
`holdfast.testing.ChaosServer` over TCP. Every fault that leaves a trace stands in a row; what was shown is held against
what the server said. A cell has the outcome and the requests that the server was sent for one call:

- `✓ 2`: the whole answer, once, of two requests.
- `APIConnectionError 4`: an error of the family that the SDK's documentation tells users to catch, and before it no
  wrong word.
- **{SILENT}**: a normal end with less or other text than the answer. **{MIXED}**: an error, and before it text that is
  no answer's beginning. **{HUNG}**: neither end nor error after {watchdog:g} s. **{LEAK}**: an error that is none of
  the SDK's. **!**: more requests than the {most} that a mount allows to one call.

Where the asynchronous way (a) and the blocking one (s) differ, the cell has both.

## In sums

"""
HOW = """## How it is played

- The one line is in `bench/sdks/players/`, a short module for each SDK. Its mount has the scoreboard's clocks
  (`timeouts=`: {idle:g} s without data, {total:g} s for the whole call), and so has the SDK where it has a setting for
  them; tries are each SDK's own, with its defaults, on both sides.
- Faults that strike in the middle do so after {after} events. Silent corruption is left out: see
  [what detects it](detection.md).
- A tool's result over MCP comes whole, in the last event: a server that sends another one, or an empty one, cannot be
  found out. Such a cell has a dot. A call of a tool is never sent twice: where it fails without ids, an error is the
  best there is. Where no answer began, mcp lets its HTTP client's error out of its `async with` in a group, whose one
  error stands here; a result of the wrong type is pydantic's `ValidationError` to it.
- google-genai has errors of its own for what a provider says, and for the rest those of its HTTP client, aiohttp's too;
  langchain-openai has those of openai; aiohttp's documentation names `TimeoutError` beside `ClientError`.
- The clocks are real: the requests of a cell with a stall may differ by one from run to run.
"""


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *(f"| {' | '.join(line)} |" for line in lines), ""]


def told(cell: Cell) -> str:
    """Writes what came of one stream."""
    error = cell.error.rpartition(".")[2]
    if cell.outcome == "exact":
        said = "✓"
    elif cell.outcome == "typed":
        said = error
    elif cell.outcome == "foreign":
        said = f"**{LEAK}** {error}"
    elif cell.outcome == "hang":
        said = f"**{HUNG}**"
    else:
        said = f"**{MIXED}** {error}" if error else f"**{SILENT}**"
    return f"{said} {cell.requests}{' **!**' if cell.requests > MOST else ''}"


def _cell(cards: Sequence[Card], part: str, fault: Fault) -> str:
    """Writes the cell of one player: both ways at once where they agree."""
    if isinstance(fault, MEANINGLESS.get(cards[0].player, ())):
        return NOTHING
    ways = {card.way: told(card.cells[key(part, fault)]) for card in cards}
    if len(set(ways.values())) == 1:
        return next(iter(ways.values()))
    return "<br>".join(f"{way[0]}: {text}" for way, text in ways.items())


def _matrix(cards: Sequence[Card], title: str, *, mounted: bool) -> list[str]:
    part, mode = PARTS[title]
    found = {name: [c for c in cards if c.player == name and c.mounted is mounted] for name in PLAYERS}
    players = {name: ways for name, ways in found.items() if ways}
    lines: list[Sequence[str]] = []
    for group, faults in rows(mode).items():
        lines.append((f"**{group}**", *[""] * len(players)))
        lines += [(named(fault), *(_cell(ways, part, fault) for ways in players.values())) for fault in faults]
    return [f"### {title}, {'with' if mounted else 'without'} Holdfast", "", *_table(["fault", *players], lines)]


def cells(card: Card) -> list[Cell]:
    """Gives the cells that stand on the page."""
    return [
        card.cells[key(part, fault)]
        for part, mode in PARTS.values()
        for faults in rows(mode).values()
        for fault in faults
        if not isinstance(fault, MEANINGLESS.get(card.player, ()))
    ]


def counts(card: Card) -> tuple[int, int, int]:
    """Counts a card's cells: exact, the SDK's own error, and those that break the promise."""
    all_of, most = cells(card), MOST if card.mounted else math.inf
    bad = sum(not cell.keeps(most) for cell in all_of)
    exact = sum(cell.outcome == "exact" and cell.keeps(most) for cell in all_of)
    return exact, len(all_of) - exact - bad, bad


def _sums(cards: Sequence[Card]) -> list[str]:
    lines = []
    total = [0] * 6
    for without, mounted in _pairs(cards):
        figures = [*counts(without), *counts(mounted)]
        total = [a + b for a, b in zip(total, figures, strict=True)]
        versions = ", ".join(f"{name} {version}" for name, version in without.versions.items())
        lines.append((f"{without.player}, {without.way}", versions, *map(_bold_last(figures), range(6))))
    lines.append(("**all**", "", *map(_bold_last(total), range(6))))
    head = ["", "versions", *(f"{word}, {which}" for which in ("without", "with") for word in WORDS_OF_SUMS)]
    return _table(head, lines)


WORDS_OF_SUMS = ("exact", "own error", "promise broken")


def _bold_last(figures: Sequence[int]) -> Callable[[int], str]:
    return lambda place: f"**{figures[place]}**" if place % 3 == 2 and figures[place] else str(figures[place])


def _pairs(cards: Sequence[Card]) -> list[tuple[Card, Card]]:
    named_so = {(card.player, card.way, card.mounted): card for card in cards}
    return [(card, named_so[name, way, True]) for (name, way, mounted), card in named_so.items() if not mounted]


def page(cards: Sequence[Card]) -> str:
    """Writes the page."""
    python, today = platform.python_version(), f"{datetime.now(UTC):%Y-%m-%d}"
    words = {"SILENT": SILENT, "MIXED": MIXED, "HUNG": HUNG, "LEAK": LEAK}
    spoiled = disturbed(cards)
    lines = [HEAD.format(date=today, python=python, watchdog=WATCHDOG, most=MOST, **words).rstrip("\n"), ""]
    lines += _sums(cards)
    if spoiled:
        worst = max(card.late for card in spoiled)
        lines += [
            f"The machine was busy: it stood still for up to {worst:.1f} s in {len(spoiled)} of {len(cards)} runs.",
            "",
        ]
    for mounted, title in ((True, "## With Holdfast"), (False, "## Without Holdfast")):
        lines += [title, ""]
        for part in PARTS:
            lines += _matrix(cards, part, mounted=mounted)
    lines.append(HOW.format(idle=IDLE, total=TOTAL, after=AFTER).rstrip("\n"))
    return "\n".join(lines) + "\n"
