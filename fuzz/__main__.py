"""Throws mutated streams at everything that reads bytes of strangers.

    python -m fuzz --seconds 60                 each target for a minute, as many at once as there are processors
    python -m fuzz sse utf8                     these targets
    python -m fuzz sse --again fuzz/crashes/x   tries stored inputs again

A failing input is stored under fuzz/crashes/. Once it is mended, move it to fuzz/regressions/<target>/: `make test`
tries all of those, and all seeds.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def options() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("targets", nargs="*", help="names of targets (all)")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long for each target (60)")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000, help="of the mutations (another one)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="targets at once (one a processor)")
    parser.add_argument("--plain", action="store_true", help="mutate without atheris, even where it is installed")
    parser.add_argument("--again", nargs="+", type=Path, metavar="FILE", help="inputs to try again with one target")
    parser.add_argument("--drive", action="store_true", help=argparse.SUPPRESS)  # in a process of its own
    return parser.parse_args()


def drive(given: argparse.Namespace) -> int:
    """Runs one target in this process."""
    from fuzz import engine, targets  # noqa: PLC0415 - these import the library, which the parent need not

    name = given.targets[0]
    if given.again:
        target = targets.find(name)
        return int(sum(engine.fails(target, path.read_bytes()) for path in given.again) > 0)
    if given.plain or not engine.has_atheris():
        return engine.run_plain(targets.find(name), given.seconds, given.seed)
    engine.run_atheris(lambda: targets.find(name), given.seconds, given.seed)
    return 0


def run(name: str, given: argparse.Namespace) -> bool:
    """Runs one target in a process of its own, and reports on it. True: it failed."""
    command = [
        sys.executable,
        "-m",
        "fuzz",
        "--drive",
        name,
        "--seconds",
        f"{given.seconds:g}",
        "--seed",
        str(given.seed),
    ]
    command += ["--plain"] * given.plain
    started = time.monotonic()
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace", check=False)
    took = time.monotonic() - started
    count = re.search(r"stat::number_of_executed_units: +(\d+)", ended.stderr)
    failed = ended.returncode != 0 or count is None
    executed = int(count[1]) if count else 0
    print(f"{name:28} {executed:>10,} {executed / took:>8,.0f}/s  {'FAILED' if failed else 'clean'}", flush=True)
    stored = re.search(r"(?:written to|stored as) (\S+)", ended.stderr)
    if stored:
        print(f"    python -m fuzz {name} --again {os.path.relpath(stored[1], ROOT)}", flush=True)
    elif failed:
        print(ended.stdout[-2_000:] + ended.stderr[-2_000:], file=sys.stderr, flush=True)
    return failed


def main() -> int:
    """Returns the exit status: 0 when nothing failed."""
    given = options()
    if given.drive or given.again:
        return drive(given)
    from fuzz import engine, targets  # noqa: PLC0415

    names = given.targets or [target.name for target in targets.targets()]
    driver = "the plain loop" if given.plain or not engine.has_atheris() else "atheris"
    print(f"{len(names)} targets, {given.seconds:g} s each, driven by {driver}, seed {given.seed}", flush=True)
    with ThreadPoolExecutor(given.jobs) as pool:
        failed = sum(pool.map(lambda name: run(name, given), names))
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
