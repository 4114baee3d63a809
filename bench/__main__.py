"""Runs the benchmark and prints it: `python -m bench [--quick] [--rounds N]`; `mounts` and `fleet`: see there.

Every figure is a ratio against a floor measured in the same run, because machines are noisy; absolute microseconds
stand beside it for scale. `--check` exits with 1 where a ratio has passed its bound, for `make test`.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
from pathlib import Path

from bench import machines, memory, mounts, telemetry, traffic
from bench.contenders import CONTENDERS
from bench.fleet import __main__ as fleet

ROOT = Path(__file__).resolve().parent.parent
FLOOR, NAIVE, OURS = "raw aiohttp read", "naive (split + json.loads)", "holdfast"
BOUNDS = {
    "machines": 2.5,
    "busy": 2.5,
    "paced": 1.15,
    "naive": 1.0,
    "memory": 2.0,
    "import": 1.5,
    "telemetry": 1.1,
    "traffic": 1.0,
}
"""What we aim at, as ratios; `--check` allows twice that, for noise."""
TRAFFIC = 2.0
"""Microseconds an event that all traffic layers together may add: the floor of that ratio."""


def _rows(title: str, rows: list[tuple[str, float, float]], unit: str) -> None:
    print(f"\n{title}")
    for name, value, ratio in rows:
        print(f"  {name:<34}{value:>10.2f} {unit:<12}{ratio:>6.2f}x")


def run_machines(ratios: dict[str, float], rounds: int) -> None:
    for batch in (1, 4, 16, 64):
        best = machines.measure(batch, rounds=rounds)
        floor = best["floor"]
        _rows(
            f"machines, {batch} events a read (floor: split + msgspec typed decode)",
            [(name, ns / 1000, ns / floor) for name, ns in best.items()],
            "us/event",
        )
        if batch == 16:
            ratios["machines"] = best["machines"] / floor
    for variant in ("with ids", "CRLF"):
        best = machines.measure(16, variant=variant, rounds=rounds)
        print(f"  machines, 16 a read, {variant}: {best['machines'] / best['floor']:.2f}x the plain floor")


def run_telemetry(ratios: dict[str, float], rounds: int) -> None:
    for events, best in telemetry.measure(rounds).items():
        off = best["off"]
        rows = [(name, seconds / events * 1e6, seconds / off) for name, seconds in best.items()]
        _rows(f"telemetry, answers of {events:,} events, {telemetry.BATCH} a read (floor: off)", rows, "us/event")
        if events == telemetry.BATCH:
            told = ", ".join(f"{name} {(seconds - off) * 1e6:.0f}" for name, seconds in best.items() if name != "off")
            print(f"  us more for a stream: {told}; a stream without costs {off * 1e6:.0f}")
        ratios["telemetry"] = best["all"] / off  # of the longest answers


def run_traffic(ratios: dict[str, float], rounds: int) -> None:
    best = traffic.measure(rounds)
    more = traffic.more_per_event(best)
    print(f"\ntraffic layers, {traffic.BATCH} events a read: what each adds")
    for name, per_event in more.items():
        once = (best[min(best)][name] - best[min(best)]["off"]) * 1e6
        print(f"  {name:<34}{per_event:>10.3f} us/event    {once:>8.1f} us/stream")
    ratios["traffic"] = more["all"] / TRAFFIC


def _one(name: str, port: str, streams: int, events: int, rate: int) -> float:
    command = [sys.executable, "-m", "bench.contenders", name, port, str(streams), str(events), str(rate)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout)


def run_clients(ratios: dict[str, float], rounds: int, *, quick: bool) -> None:
    names = [name for name in CONTENDERS if name != "openai SDK" or _has_openai()]
    upstream = subprocess.Popen([sys.executable, "-m", "bench.upstream"], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        port = upstream.stdout.readline().strip()  # type: ignore[union-attr]  # it is a pipe
        cases = [("busy", "one busy stream", 1, 5_000 if quick else 20_000, 0)]
        cases.append(("paced", "100 streams at 50 events/s", 100, 50 if quick else 200, 50))
        for key, title, streams, events, rate in cases:
            taken: dict[str, list[float]] = {name: [] for name in names}
            for _ in range(rounds):
                for name in names:
                    taken[name].append(_one(name, port, streams, events, rate))
            medians = {name: statistics.median(values) for name, values in taken.items()}
            paired = {
                n: statistics.median(a / b for a, b in zip(v, taken[FLOOR], strict=True)) for n, v in taken.items()
            }
            _rows(
                f"{title}: CPU of the client (floor: {FLOOR})",
                [(name, medians[name], paired[name]) for name in names],
                "us/event",
            )
            ratios[key] = paired[OURS]
            against = statistics.median(a / b for a, b in zip(taken[OURS], taken[NAIVE], strict=True))
            ratios["naive"] = max(ratios.get("naive", 0.0), against)
            print(f"  {OURS} against the naive client: {against:.2f}x")
    finally:
        upstream.terminate()
        upstream.wait()


def _has_openai() -> bool:
    try:
        import openai  # noqa: F401
    except ImportError:
        print("(openai is not installed: its row is left out)")
        return False
    return True


def run_memory(ratios: dict[str, float], *, quick: bool) -> None:
    tokens = 32_000 if quick else 128_000
    held, text = asyncio.run(memory.measure(tokens))
    digest, _ = asyncio.run(memory.measure(tokens, keep=False))
    ratios["memory"] = held / text
    print(f"\nmemory over {tokens:,} tokens ({text:,} bytes of text)")
    print(f"  held more at the end              {held:>10,} bytes       {held / text:>6.2f}x the text")
    print(f"  with keep=False                   {digest:>10,} bytes       {digest / text:>6.2f}x")


def run_import(ratios: dict[str, float], rounds: int) -> None:
    def seconds(module: str) -> float:
        code = f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
        return float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)

    pairs = [(seconds("holdfast"), seconds("aiohttp")) for _ in range(max(5, rounds))]
    ours, floor = (min(values) for values in zip(*pairs, strict=True))
    ratios["import"] = ours / floor
    _rows("import (floor: aiohttp)", [("aiohttp", floor * 1e3, 1.0), ("holdfast", ours * 1e3, ours / floor)], "ms")


def main() -> int:
    if sys.argv[1:2] == ["mounts"]:
        return mounts.main(sys.argv[2:])
    if sys.argv[1:2] == ["fleet"]:
        return fleet.main(sys.argv[2:])
    parser = argparse.ArgumentParser(prog="python -m bench", description="What a stream costs, against floors.")
    parser.add_argument("--quick", action="store_true", help="a short form: less to read, more noise")
    parser.add_argument("--rounds", type=int, default=7, help="interleaved rounds per contender")
    parser.add_argument("--check", action="store_true", help="exit with 1 where a ratio is over twice its aim")
    options = parser.parse_args()
    ratios: dict[str, float] = {}
    run_machines(ratios, 15 if options.quick else 40)
    run_telemetry(ratios, 5 if options.quick else 20)
    run_traffic(ratios, 5 if options.quick else 20)
    run_clients(ratios, options.rounds, quick=options.quick)
    run_memory(ratios, quick=options.quick)
    run_import(ratios, options.rounds)
    print("\naims")
    for name, aim in BOUNDS.items():
        print(f"  {name:<12}{ratios[name]:>6.2f}x   aim {aim:g}x   {'met' if ratios[name] <= aim else 'missed'}")
    return 1 if options.check and any(ratios[name] > 2 * aim for name, aim in BOUNDS.items()) else 0


if __name__ == "__main__":
    sys.exit(main())
