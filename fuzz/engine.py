"""What drives every fuzz target: seeds, mutations, and two engines.

A target is a function that takes any bytes and returns, or raises what is a finding: see fuzz/oracle.py. `atheris`
(libFuzzer, guided by coverage) drives where its package is installed; where there is none for the system or the Python,
the plain mutation loop here does, on the same inputs. Nothing here imports the library: what atheris is to watch must
be imported under its eyes.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

HERE = Path(__file__).resolve().parent
CRASHES, REGRESSIONS, SEEDS, WORDS = (HERE / name for name in ("crashes", "regressions", "seeds", "words"))


@dataclass(slots=True, frozen=True, kw_only=True)
class Target:
    """One thing to throw bytes at. `seeds` names folders of fuzz/seeds/, `words` are what its format is made of."""

    name: str
    check: Callable[[bytes], None]
    seeds: tuple[str, ...]
    words: tuple[bytes, ...]
    recordings: bool = False
    longest: int = 4_096
    slowest: int = 10
    """Seconds that one input may take before it counts as a hang; atheris makes everything several times slower."""


# -- inputs ------------------------------------------------------------------------------------


def seeds(target: Target) -> list[bytes]:
    """Gives a target's seeds, and the recorded streams of `HOLDFAST_RECORDINGS` for those that read answers."""
    found = [path.read_bytes() for folder in target.seeds for path in sorted((SEEDS / folder).iterdir())]
    recordings = os.environ.get("HOLDFAST_RECORDINGS", "")
    if target.recordings and recordings:
        found += [path.read_bytes()[: target.longest] for path in sorted(Path(recordings).glob("*.sse"))]
    return found


def regressions(name: str) -> list[Path]:
    """Gives the files of every crash that was ever found in a target."""
    return sorted((REGRESSIONS / name).glob("*"))


def mutate(random: Random, old: Sequence[bytes], target: Target) -> bytes:
    """Makes a new input out of old ones: with the words of its format, mutations reach further than noise."""
    data = bytearray(random.choice(old))
    steps: list[Callable[[int], None]] = [
        lambda at: data.insert(at, random.randrange(256)),
        lambda at: data.__setitem__(slice(at, at), random.choice(target.words)),
        lambda at: data.__setitem__(slice(at, at + random.randrange(1, 9)), random.choice(target.words)),
        lambda at: data.__delitem__(slice(at, at + random.randrange(1, 33))),
        lambda at: data.__setitem__(slice(at, at), data[at : at + random.randrange(1, 65)]),
        lambda at: data.__setitem__(slice(at, None), random.choice(old)[random.randrange(64) :]),
    ]
    for _ in range(random.randrange(1, 9)):
        random.choice(steps)(random.randrange(len(data) + 1))
    return bytes(data[: target.longest])


# -- engines: each ends its process's work with libFuzzer's line of statistics -------------------


def has_atheris() -> bool:
    """Says whether the package is installed."""
    return importlib.util.find_spec("atheris") is not None


def run_plain(target: Target, seconds: float, seed: int) -> int:
    """Mutates the seeds until the time is over or something fails. Returns the exit status."""
    old = seeds(target)
    random = Random(seed)
    tried, ends = 0, time.monotonic() + seconds
    inputs: Iterator[bytes] = iter(old)
    while time.monotonic() < ends:
        data = next(inputs, None)
        if data is None:
            data = mutate(random, old, target)
        tried += 1
        if fails(target, data):
            CRASHES.mkdir(exist_ok=True)
            path = CRASHES / f"{target.name}-crash-{hashlib.sha1(data, usedforsecurity=False).hexdigest()}"
            path.write_bytes(data)
            print(f"stored as {path}", file=sys.stderr)
            break
    else:
        print(f"stat::number_of_executed_units: {tried}", file=sys.stderr)
        return 0
    return 1


def run_atheris(load: Callable[[], Target], seconds: float, seed: int) -> None:
    """Lets libFuzzer drive, which ends the process. `load` imports the target, and with it what is to be watched."""
    atheris: Any = importlib.import_module("atheris")  # it has no types, and not every system has it
    with atheris.instrument_imports(include=["holdfast"]):
        target = load()
    old = seeds(target)

    def mutator(data: bytes, longest: int, number: int) -> bytes:
        random = Random(number)
        if random.random() < 0.5:
            mutated: bytes = atheris.Mutate(data, longest)
            return mutated
        return mutate(random, [data, data, *old], target)[:longest]

    CRASHES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="holdfast-fuzz-") as corpus:
        for number, data in enumerate(old):
            (Path(corpus) / f"seed-{number}").write_bytes(data)
        options = {
            "max_total_time": int(seconds),
            "max_len": target.longest,
            "timeout": target.slowest,
            "report_slow_units": target.slowest,  # else 10: a slow input that may be slow would be stored as a finding
            "seed": seed,
            "print_final_stats": 1,
            "artifact_prefix": f"{CRASHES}/{target.name}-",
        }
        settings = [f"-{name}={value}" for name, value in options.items()]
        atheris.Setup([sys.argv[0], *settings, corpus], target.check, custom_mutator=mutator)
        atheris.Fuzz()


def fails(target: Target, data: bytes) -> bool:
    """Tries one input; says on stderr what went wrong."""
    try:
        target.check(data)
    except Exception:  # noqa: BLE001 - whatever it is, it is the finding
        print(f"FAILED: {target.name}, {len(data)} bytes", file=sys.stderr)
        traceback.print_exc(limit=-3)
        return True
    return False
