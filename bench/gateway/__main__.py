"""`python -m bench.gateway [--rounds N] [--seconds S] [--write]`: all relays in turns, in one run.

Machines are noisy: what counts are the ratios to the naive relay on the same loop, round by round, and their medians.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.gateway import page
from bench.gateway.load import Load, arguments
from bench.gateway.relays import BODY, RELAYS, ROOT, Missing, Relay, relay, upstream

STREAMS = (100, 500)
RATE = 50.0
Figures = dict[str, dict[int, list[dict[str, Any]]]]


def ask(one: Relay, streams: int, seconds: float, others: Sequence[int], *, opening: float = 1.0) -> dict[str, Any]:
    """Measures one relay once, with a reader of its own."""
    load = Load(
        port=one.port,
        headers=dict(one.headers),
        body=BODY,
        streams=streams,
        rate=RATE,
        opening=opening,
        warm=opening / 2,
        seconds=seconds,
        pids=[] if one.name == "direct" else one.pids,
        others=list(others),
    )
    command = [sys.executable, "-m", "bench.gateway.load", arguments(load)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT, timeout=120)
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def measure(
    names: Sequence[str], streams: Sequence[int], rounds: int, seconds: float
) -> tuple[Figures, dict[str, str]]:
    """Gives the rounds of each relay by load, and of those that are missing why.

    One that cannot keep up with a load is not asked for a larger one.
    """
    missing: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        direct = stack.enter_context(upstream(RATE))
        running = [direct]
        for name in names:
            try:
                running.append(stack.enter_context(relay(name, direct.port, folder / name.replace(" ", "-"))))
            except Missing as why:
                missing[name] = str(why)
        taken: Figures = {one.name: {} for one in running}
        for number in streams:
            for turn in range(rounds):
                for one in reversed(running) if turn % 2 else running:
                    before = [round_ for load, all_ in taken[one.name].items() if load < number for round_ in all_]
                    if any(round_["share"] < 0.5 for round_ in before):
                        continue
                    told = ask(one, number, seconds, direct.pids)
                    told["ready"] = one.ready
                    taken[one.name].setdefault(number, []).append(told)
                    print(f"{one.name:34}{number:5} {told['us']:8.1f} us/event {told['share']:6.0%}", file=sys.stderr)
    return taken, missing


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gateway", description="What the gateway costs.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(RELAYS)}; all by default")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--streams", type=int, nargs="+", default=STREAMS)
    parser.add_argument("--write", action="store_true", help="write docs/gateway-cost.md")
    options = parser.parse_args()
    names = options.names or list(RELAYS)
    taken, missing = measure(names, options.streams, options.rounds, options.seconds)
    text = page.page(taken, missing, rate=RATE, rounds=options.rounds, seconds=options.seconds)
    print(text)
    if options.write:
        (ROOT / "docs/gateway-cost.md").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
