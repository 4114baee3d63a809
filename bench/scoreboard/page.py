"""docs/scoreboard.md, written from the cards and from nothing else: no figure in it is typed by hand."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from bench.scoreboard.ask import IDLE, TOTAL, WATCHDOG
from bench.scoreboard.judge import MARKS, MEANING, OUTCOMES, Outcome
from bench.scoreboard.plan import AFTER, BREAKING, CORRUPTION, FAULTS, MODES, RATE, SEED, Plan, groups
from bench.scoreboard.pulse import LATE, TRIES, disturbed
from bench.scoreboard.run import Card
from holdfast.testing.chaos import Mode
from holdfast.testing.faults import Fault

WORDS = {
    "ids": "ids: the server sends `id:` and goes on after a Last-Event-ID",
    "no-ids": "no ids, the same answer to the same request",
    "divergent": "no ids, and another answer to every request, as with any temperature",
}


def named(fault: Fault) -> str:
    """Names a fault for a row."""
    return str(fault).replace(f" after {AFTER} events", "").removesuffix(", and reset,")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *(f"| {' | '.join(row)} |" for row in rows), ""]


def _matrix(cards: Sequence[Card], part: str, mode: Mode) -> list[str]:
    rows = []
    for group, faults in groups(mode).items():
        rows.append((f"**{group}**", *[""] * len(cards)))
        for fault in faults:
            key = f"{part} {mode} {FAULTS.index(fault)}"
            rows.append((named(fault), *(MARKS[card.outcomes[key]] for card in cards)))
    return _table(["fault", *(card.title for card in cards)], rows)


def _sums(cards: Sequence[Card], part: str, mode: Mode) -> list[str]:
    """Sums a matrix up, silent corruption left out."""
    blamed = [fault for group, faults in groups(mode).items() if group != CORRUPTION for fault in faults]
    counted = [f"{part} {mode} {FAULTS.index(fault)}" for fault in blamed]
    sums = [Counter(card.outcomes[key] for key in counted) for card in cards]
    rows = [(f"{MARKS[o]} {o}", *(str(one[o]) for one in sums)) for o in OUTCOMES]
    return _table([f"of {len(counted)}", *(card.title for card in cards)], rows)


def mixed(card: Card, mode: str) -> Counter[Outcome]:
    """Counts the outcomes of one contender's mix in one mode."""
    return Counter(outcome for key, outcome in card.outcomes.items() if key.startswith(f"mix {mode} "))


def recovered(card: Card, plan: Plan, mode: str) -> tuple[int, int]:
    """Counts the streams of the mix whose first attempt met a fault: those that ended exact, and all of them."""
    struck = [key for key in plan.keys if key.startswith(f"mix {mode} ") and plan.struck(key)]
    return sum(card.outcomes[key] == "exact" for key in struck), len(struck)


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def _mix(cards: Sequence[Card], plan: Plan, mode: str) -> list[str]:
    rows = []
    for card in cards:
        counted, (mended, struck) = mixed(card, mode), recovered(card, plan, mode)
        rows.append((card.title, *(_percent(counted[o], plan.streams) for o in OUTCOMES), _percent(mended, struck)))
    head = ["", *(f"{MARKS[o]} {o}" for o in OUTCOMES), "recovered"]
    return [f"### {WORDS[mode][0].upper()}{WORDS[mode][1:]}", "", *_table(head, rows)]


def _published(cards: Sequence[Card], plan: Plan) -> list[str]:
    """Sets our figures beside the published ones."""
    by_title = {card.title: card for card in cards}
    if "Holdfast" not in by_title:
        return []
    ours, posts = by_title["Holdfast"], cards[0]

    def failed(card: Card, mode: str) -> str:
        return _percent(plan.streams - mixed(card, mode)["exact"], plan.streams)

    def mended(card: Card, mode: str) -> str:
        return _percent(*recovered(card, plan, mode))

    rows = [
        ("failures, before", "12 %", f"{failed(posts, 'no-ids')} ({posts.title})"),
        ("failures, after, no ids", "2.3 %", f"{failed(ours, 'no-ids')} (Holdfast)"),
        ("failures, after, answers diverge", "", f"{failed(ours, 'divergent')} (Holdfast, each a typed error)"),
        ("recovered, without Last-Event-ID", "72 %", f"{mended(ours, 'no-ids')} (Holdfast, by verified replay)"),
        ("recovered, with Last-Event-ID", "98 %", f"{mended(ours, 'ids')} (Holdfast)"),
    ]
    return [PUBLISHED.format(rate=RATE, faults=len(BREAKING)), *_table(["", "published", "here"], rows)]


HEAD = """# Scoreboard

Written by `make scoreboard` on {date}; Python {python}; {versions}.

Every contender reads the same streams from the same server (`holdfast.testing.ChaosServer`, real TCP), whose replies
fail as the same schedule says (seed {seed}). What it showed is held against what the server said.

![The matrix and the mix](scoreboard.svg)
"""
MIX = """## The mix

{streams} streams for each kind of server; every attempt meets a fault with probability {rate:g}, drawn from the
{faults} that break an answer. *Recovered* is the share that ended exact of the streams whose first attempt met a fault.
"""
COST = "What that costs: requests a stream, and the median seconds of streams that met a fault and ended exact.\n"
PUBLISHED = """## Beside the published figures

Field reports on streaming from DeepSeek tell of failures down from 12 % to 2.3 %, and of retried tasks that recovered
up from 72 % to 98 % with Last-Event-ID. They do not say what faults those were; here every attempt, retries included,
meets one of {faults} faults that break an answer with probability {rate:g}.
"""
HOW = """The sums leave silent corruption out: it leaves no trace in a stream without ids, sequence numbers or digests,
so nobody can be blamed for it, Holdfast included.

## How it is judged

- `bench/scoreboard/contenders/` has one short module for each, written as the library's own page shows it. The first
  is written as tutorials and providers' guides have it, without a timeout and without a look at the status; whoever
  looks and sets one has the second.
- The same clocks for all whose library has them: {idle:g} s without data, {total:g} s for the whole; a stream that has
  neither ended nor failed after {watchdog:g} s hangs. Clocks of minutes would change the seconds, not the marks.
- The clocks are real, so the machine must have nothing else to do: where it is busy, those that need the most CPU
  hang first. When it stood still, so that the server woke late by more than {late:g} s, whoever was reading plays
  again, {tries} times at most, whatever had come of it.
- Retries are each library's own, with its defaults where it retries at all; those that reconnect by themselves
  (aiohttp-sse-client, launchdarkly-eventsource) do, with pauses from a tenth of a second.
- A `KeyError` because the user's loop did not expect an error object is the user's, but it is what such loops do: it
  is marked as foreign, not as wrong.
- launchdarkly-eventsource can only GET; the pool it is given makes a POST of that.
- The openai SDK in stamina stands here twice. Shown as it comes, a retry begins with the first word again, under the
  reader's eyes; held back until the end, nothing comes twice, and nothing comes early.
"""


def _steadiness(cards: Sequence[Card]) -> list[str]:
    """Warns of figures that a machine which stood still has spoiled, in spite of all tries."""
    spoiled = [f"{card.title} ({card.late:.1f} s)" for card in disturbed(cards)]
    if not spoiled:
        return []
    return [f"**The machine stood still while these were reading, at every try: {', '.join(spoiled)}.**", ""]


def _versions(cards: Sequence[Card]) -> str:
    listed = {f"{name} {version}" for card in cards for name, version in card.versions.items() if name != "openai"}
    for card in cards:
        if "openai" in card.versions:
            under = " (under litellm)" if "litellm" in card.versions else ""
            listed.add(f"openai {card.versions['openai']}{under}")
    return ", ".join(sorted(listed))


def page(cards: Sequence[Card], plan: Plan) -> str:
    """Writes the page."""
    costs = [(card.title, f"{card.requests:.2f}", f"{card.seconds:.2f}" if card.seconds else "-") for card in cards]
    python, today = platform.python_version(), f"{datetime.now(UTC):%Y-%m-%d}"
    lines = [
        HEAD.format(date=today, python=python, versions=_versions(cards), seed=SEED),
        *(f"- {MARKS[o]} **{o}**: {MEANING[o]}." for o in OUTCOMES),
        "",
        *_steadiness(cards),
        MIX.format(streams=plan.streams, rate=RATE, faults=len(BREAKING)),
        *(line for mode in MODES for line in _mix(cards, plan, mode)),
        COST,
        *_table(["", "requests", "seconds"], costs),
        *_published(cards, plan),
        "## One fault, then none, from a server without ids\n",
        "As DeepSeek is today: the same request gets the same answer, from its beginning.\n",
        *_sums(cards, "once", "no-ids"),
        *_matrix(cards, "once", "no-ids"),
        "## One fault, then none, from a server with ids\n",
        *_sums(cards, "once", "ids"),
        *_matrix(cards, "once", "ids"),
        "## The same fault every time, from a server without ids\n",
        "Where no answer can be had, a typed error is the best there is.\n",
        *_sums(cards, "always", "no-ids"),
        *_matrix(cards, "always", "no-ids"),
        HOW.format(idle=IDLE, total=TOTAL, watchdog=WATCHDOG, late=LATE, tries=TRIES),
    ]
    return "\n".join(lines)
