"""Plays every scenario and writes docs/fleet.md and docs/fleet.svg: `python -m bench fleet`.

With `--only NAME ...` some scenarios are played and printed, and nothing is written.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

from bench.fleet.figures import Figures, figures
from bench.fleet.page import page
from bench.fleet.picture import picture
from bench.fleet.run import play
from bench.fleet.scenarios import ALL, DAY, OFF, SCENARIOS, Scenario
from bench.fleet.upstream import BrownOut

DOCS = Path(__file__).resolve().parents[2] / "docs"
OUTAGES = (32.0, 34.0, 38.0, 44.0, 52.0, 60.0)
"""Seconds: an outage may end at any time between two probes."""
Job = tuple[Scenario, frozenset[str]]


def _jobs(scenarios: Sequence[Scenario]) -> Iterator[Job]:
    for scenario in scenarios:
        for on in (OFF, *(frozenset({name}) for name in scenario.layers), ALL):
            yield scenario, on


def _figures(job: Job) -> tuple[Figures, float]:
    began = time.process_time()
    return figures(play(*job)), time.process_time() - began


def _play(pool: ProcessPoolExecutor, jobs: Sequence[Job]) -> list[Figures]:
    """Plays jobs, in their order, and tells of each."""
    found = []
    for (scenario, on), (one, cpu) in zip(jobs, pool.map(_figures, jobs), strict=True):
        layers = "all" if on == ALL else ", ".join(sorted(on)) or "none"
        print(
            f"{scenario.name:<18}{layers:<16}{one.goodput:>6.1f}/s {one.lost:>7.1%} lost  ({cpu:.1f} s CPU)", flush=True
        )
        found.append(one)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench fleet", description="A fleet of clients on fake time.")
    parser.add_argument("--only", nargs="+", choices=[one.name for one in SCENARIOS], help="play these, write nothing")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args(arguments)
    played = [one for one in SCENARIOS if not options.only or one.name in options.only]
    with ProcessPoolExecutor(options.processes) as pool:
        jobs = list(_jobs(played))
        found = _play(pool, jobs)
        if options.only:
            return 0
        jobs += [(DAY, OFF), (DAY, ALL)]
        days = list(pool.map(play, (DAY, DAY), (OFF, ALL)))
        found += [figures(day) for day in days]
        outage = next(one for one in SCENARIOS if one.name == "outage")
        outages = [replace(outage, brown_outs=[BrownOut("outage", 60, 60 + seconds)]) for seconds in OUTAGES]
        recovered = [one.recovery or 0.0 for one in _play(pool, [(one, ALL) for one in outages])]
    figured = {(scenario.name, on): one for (scenario, on), one in zip(jobs, found, strict=True)}
    written = page(figured, dict(zip(OUTAGES, recovered, strict=True)))
    (DOCS / "fleet.md").write_text(written, encoding="utf-8")
    (DOCS / "fleet.svg").write_text(picture(*days), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
