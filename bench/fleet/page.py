"""docs/fleet.md, written from the figures of a run and from nothing else: none of them is typed by hand."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version

from bench.fleet.figures import LEARNED, RECOVERED, WINDOW, Figures
from bench.fleet.scenarios import ALL, CLOCKS, DAY, OFF, RESET, SCENARIOS, Scenario
from bench.fleet.upstream import ANSWER_SECONDS, DELTAS

Played = Mapping[tuple[str, frozenset[str]], Figures]
"""Figures by the scenario's name and the layers that were on."""

HEAD = """# A fleet on a clock that needs no waiting

Written by `make fleet` on {date}; seed {seed}, Holdfast {holdfast}, Python {python}.

{clients:,} clients ask, read and think again. Their upstream is a model (`bench/fleet/upstream.py`): a bucket of
requests and one of tokens a minute, told in `x-ratelimit-*` as OpenAI does; so many streams at a time; a queue for its
workers, which makes first tokens late under load; and bad times. The layers are the real ones, with their defaults
(`Concurrency` adaptive by `aimd`), on a `FakeClock`. `tests/test_fleet_tcp.py` and
`tests/stores/test_fleet.py` do the same over TCP, with about 50 clients.

![A bad day](fleet.svg)

## The aims

"""
READING = """
## How to read the tables

- Each line is one run. `none` is what a `Client` does without traffic layers: `Retry`, `Reconnect` and clocks
  ({first_token:g} s to a first token, {progress:g} s between deltas). The next have one layer each, the last all.
- Answers have {deltas} deltas and take {answer:.1f} s. All figures are of what began after the first {learned:g} s:
  until then buckets are full, and limits are being learned.
- *Lost* are calls that ended in an error, what a breaker refused included. *First token* counts from the call on,
  waiting included, over answered calls: who loses the slow ones looks fast.
- *Recovery* is the time from the end of a bad time until there are {recovered:.0%} of the answers of before, over
  {window:g} s.
- *Fairness* is Jain's index of the shares of their calls that clients had answered.
- In this model a refused request costs the upstream nothing. OpenAI counts it against the limit, so the lines without
  `RateLimit` are better here than they would be there.
"""
FINDINGS = """
## What is not in the averages

- **One layer alone often makes another thing worse.** `RateLimit` does not count streams, `Concurrency` knows no
  minute, and a `RetryBudget` ends storms by losing calls. They are made to stand together.
- **A breaker that counts 429s shuts out a crowd.** Alone, it opens after five refusals in a row, and most calls are
  lost though the upstream is well. With `RateLimit` and `Concurrency` left of it there are hardly any; else leave them
  out with `exclude` ([breaker.md](breaker.md)).
- **What is slow is not always a queue.** In the slow phase `Concurrency(adaptive="gradient")` in the place of `"aimd"`
  takes late first tokens for too many streams, and gives fewer answers than no layer at all while the phase lasts.
- **Limits do not make capacity.** Where more is wanted than there is, somebody waits or is refused. With the layers it
  is everybody's wait, first come, first served, up to `max_wait` (60 s).
- **A retry budget alone** lets a tenth of the calls try again, and one a second besides: that floor weighs more the
  less is asked ([retry-budget.md](retry-budget.md)).
- **A probe is a whole stream.** After one that failed just before the upstream's return, the next is due {reset:g} s
  later, and the circuit closes at its end: an answer later than the aim.
- **Half an answer is the hardest to mend.** In the half-dead region a call tries twice more where its answer broke, and
  pays for the replays, before it goes on at the other one: `Seams(leave_after=1)` leaves sooner.
"""


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %" if 0 < share < 0.01 else f"{100 * share:.1f} %"


def _row(name: str, one: Figures) -> list[str]:
    cells = [name, f"{one.goodput:.1f}", _percent(one.lost), f"{one.p50:.2f} s", f"{one.p99:.2f} s"]
    cells += [_percent(one.too_many), f"{one.amplification:.2f}"]
    cells += [] if one.in_outage is None else [f"{one.in_outage:.2f}"]
    cells += [] if one.recovery is None else [f"{one.recovery:.0f} s"]
    return [*cells, f"{one.fairness:.3f}"]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}", *(f"| {' | '.join(row)} |" for row in rows)]


def _scenario(scenario: Scenario, played: Played, lines: Iterable[tuple[str, frozenset[str]]]) -> list[str]:
    rows = [(name, played[scenario.name, on]) for name, on in lines]
    head = ["layers", "answers/s", "lost", "first token, p50", "p99", "429s", "requests a call"]
    head += [] if rows[0][1].in_outage is None else ["in the outage"]
    head += [] if rows[0][1].recovery is None else ["recovery"]
    about = f"{scenario.about} Wanted: {scenario.wanted:.1f} answers a second; capacity: {scenario.capacity:.1f}."
    table = _table([*head, "fairness"], [_row(name, one) for name, one in rows])
    return ["", f"## {scenario.name.capitalize()}", "", about, "", *table]


def aims(played: Played, recoveries: Mapping[float, float]) -> list[tuple[str, str, str, bool]]:
    """Gives what was aimed at: the aim, what came, beside what comes without the layers, and whether it was met."""
    crowds = [(played[name, OFF], played[name, ALL]) for name in ("crowd", "tokens", "places")]
    storm, quiet = max(off.too_many for off, _ in crowds), max(on.too_many for _, on in crowds)
    storms, calm = (played["outage", on].in_outage or 0.0 for on in (OFF, ALL))
    slowest = max(recoveries.values())
    late, hedged = played["late tokens", OFF], played["late tokens", frozenset({"Hedge"})]
    more = hedged.amplification / late.amplification - 1
    return [
        ("429s once limits are learned: under 1 % of requests", _percent(quiet), _percent(storm), quiet < 0.01),
        ("requests a call in a full outage: under 1.2", f"{calm:.2f}", f"{storms:.2f}", calm < 1.2),
        (
            f"recovery from an outage: one reset time of the breaker, {RESET:g} s",
            f"{slowest:.0f} s at most, in {len(recoveries)} outages of {min(recoveries):g} to {max(recoveries):g} s",
            "",
            slowest <= RESET,
        ),
        (
            "3 % late first tokens: p99 by half",
            f"{hedged.p99:.2f} s",
            f"{late.p99:.2f} s",
            hedged.p99 <= late.p99 / 2,
        ),
        ("for at most 5 % more requests", _percent(more), "", more <= 0.05),
    ]


def page(played: Played, recoveries: Mapping[float, float]) -> str:
    """Writes the page. `recoveries` has seconds until recovery by the length of the outage, all layers on."""
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    head = HEAD.format(
        date=today, seed=DAY.seed, holdfast=version("holdfast"), python=platform.python_version(), clients=DAY.clients
    )
    judged = [(aim, came, off, "met" if met else "**missed**") for aim, came, off, met in aims(played, recoveries)]
    reading = READING.format(
        first_token=CLOCKS.first_token,
        progress=CLOCKS.progress,
        deltas=DELTAS,
        answer=ANSWER_SECONDS,
        learned=LEARNED,
        recovered=RECOVERED,
        window=WINDOW,
    )
    lines = [*_table(["aim", "with the layers", "without", ""], judged), reading.rstrip("\n")]
    for scenario in SCENARIOS:
        singles = [(f"`{name}`", frozenset({name})) for name in scenario.layers]
        lines += _scenario(scenario, played, [("none", OFF), *singles, ("all", ALL)])
    lines += _scenario(DAY, played, [("none", OFF), ("all", ALL)])
    return head + "\n".join(lines) + "\n" + FINDINGS.format(reset=RESET)
