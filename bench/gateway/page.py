"""Draws what was measured: docs/gateway-cost.md."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from bench.gateway.relays import FLOORS, RELAYS

Rounds = Sequence[Mapping[str, Any]]

_PAGE = """# What the gateway costs

Written by `make bench-gateway`: {rounds} rounds of {seconds:g} s, all relays in turns in one run, medians. CPython
{python}, aiohttp {aiohttp}, uvloop {uvloop}, on {cores} cores that others used meanwhile: **the ratios are what
counts**, each taken round by round against the naive relay on the same loop.

The upstream and the readers are processes of their own, which were busy for {upstream:.0%} and {own:.0%} of a core at
the largest load without a relay: they are not what is measured. Each stream has {rate:g} events a second of 250 bytes,
one write each. CPU is that of the relay's processes, by the kernel's account, over the steady middle of the run.
Latency is from the upstream's write to the reader's read, less what it is without a relay; "first" is from the request
to the first event, connecting to the gateway not included. Below nothing is noise.

- *nginx* passes bytes through, unbuffered: the limit.
- *naive* is an aiohttp handler that writes what it reads, in {naive} lines, and checks nothing.
- *holdfast* parses and checks every event, gives it an id and keeps it for readers who come back (journal in memory).
  With `--journal none` it checks and keeps nothing.
- *Portkey* and *LiteLLM* are relays for language models; neither checks that an answer is whole, or resumes one.

{tables}
{aims}{missing}"""


def _median(rounds: Rounds, name: str) -> float:
    return float(statistics.median(one[name] for one in rounds))


def _ratio(rounds: Rounds, floor: Rounds) -> float:
    return float(statistics.median(one["us"] / other["us"] for one, other in zip(rounds, floor, strict=False)))


def _added(rounds: Rounds, direct: Rounds, name: str) -> float:
    return float(statistics.median(one[name] - other[name] for one, other in zip(rounds, direct, strict=False)))


def table(taken: Mapping[str, Mapping[int, Rounds]], streams: int, rate: float) -> str:
    """Draws one load."""
    lines = [
        f"## {streams} streams of {rate:g} events a second\n",
        "| relay | CPU an event | naive = 1 | an event later: p50 | p99 | the first: p50 | p99 | memory | kept up |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    direct = taken["direct"].get(streams, [])
    for name in RELAYS:
        rounds = taken.get(name, {}).get(streams)
        if not rounds:
            continue
        floor = taken.get(FLOORS[name], {}).get(streams)
        cells = [name, f"{_median(rounds, 'us'):.0f} us", f"{_ratio(rounds, floor):.2f}" if floor else ""]
        cells += [f"{_added(rounds, direct, what):.2f} ms" for what in ("p50", "p99", "first50", "first99")]
        cells += [f"{_median(rounds, 'loaded') / 1e6:.0f} MB", f"{_median(rounds, 'share'):.0%}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _idle(taken: Mapping[str, Mapping[int, Rounds]]) -> str:
    lines = ["## At rest\n", "| relay | memory once it has started | from its start to an answer |", "|---|---:|---:|"]
    for name in RELAYS:
        loads = taken.get(name, {})
        if loads:
            first = loads[min(loads)][0]
            lines.append(f"| {name} | {first['idle'] / 1e6:.0f} MB | {first['ready']:.1f} s |")
    return "\n".join(lines) + "\n"


def _aims(taken: Mapping[str, Mapping[int, Rounds]]) -> str:
    """Says which aims are met: at the smallest load, on uvloop."""
    first = min(taken["direct"])
    at = {name: loads[first] for name, loads in taken.items() if first in loads}
    floor, ours, none = at.get("naive, uvloop"), at.get("holdfast"), at.get("holdfast --journal none")
    if not floor or not ours or not none:
        return ""
    others = [_median(at[name], "us") for name in ("Portkey", "LiteLLM") if name in at]
    direct, idle = at["direct"], ours[0]["idle"] / 1e6
    rows: list[tuple[str, float, float, str]] = [
        ("checked, with ids and journal: CPU of the naive relay", _ratio(ours, floor), 1.25, "{:.2f}"),
        ("`--journal none`: CPU of the naive relay", _ratio(none, floor), 1.1, "{:.2f}"),
        ("p99 added to an event, ms", _added(ours, direct, "p99"), 2.0, "{:.2f}"),
        ("median added to the first event, ms", _added(ours, direct, "first50"), 3.0, "{:.2f}"),
        ("memory at rest, MB", idle, 60.0, "{:.0f}"),
        ("seconds to the first answer", ours[0]["ready"], 1.0, "{:.1f}"),
    ]
    if others:
        share = _median(ours, "us") / min(others)
        rows.insert(2, ("CPU of the next best gateway for language models", share, 0.5, "{:.2f}"))
    lines = [f"## What we aim at ({first} streams, uvloop)\n", "| | measured | aim | |", "|---|---:|---:|---|"]
    for name, value, aim, form in rows:
        verdict = "met" if value <= aim else "not met"
        lines.append(f"| {name} | {form.format(value)} | {form.format(aim)} | {verdict} |")
    return "\n".join(lines) + "\n"


def page(
    taken: Mapping[str, Mapping[int, Rounds]], missing: Mapping[str, str], *, rate: float, rounds: int, seconds: float
) -> str:
    """Gives the whole page."""
    loads = sorted(taken["direct"])
    largest = taken["direct"][loads[-1]]
    return _PAGE.format(
        rounds=rounds,
        seconds=seconds,
        python=platform.python_version(),
        aiohttp=version("aiohttp"),
        uvloop=version("uvloop"),
        cores=os.cpu_count(),
        upstream=_median(largest, "others"),
        own=_median(largest, "own"),
        rate=rate,
        naive=8,
        tables="\n".join([*(table(taken, streams, rate) for streams in loads), _idle(taken)]),
        aims=_aims(taken),
        missing="".join(f"\n{name} is missing here: {why}.\n" for name, why in missing.items()),
    )
