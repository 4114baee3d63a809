"""The headlines of a field report, measured: `python -m bench.headlines` writes docs/headlines.md.

The report praises asynchronous clients, pooled connections, gzip and a buffer of 8. Each is measured beside what it is
praised over, readers taking turns, and the medians stand in the table. The machine is whatever it is: what counts is
the ratio within one run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import trustme

from bench.buffering import RATE as PACE

ROOT = Path(__file__).resolve().parent.parent
STREAMS, EVENTS, RATE, DELAY = 100, 20, 50, 0.2
"""Of the comparison with threads: streams, events of each, events a second, seconds before the first."""
SHORT, TIMES = 5, 200
"""Of the comparison of connections: events of a stream, streams one after the other."""
Figures = dict[str, float]


# -- running -----------------------------------------------------------------------------------


@contextlib.contextmanager
def _upstream(pem: str = "") -> Iterator[str]:
    """Starts the benchmark's upstream and gives its address."""
    command = [sys.executable, "-m", "bench.upstream", *([pem] if pem else [])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        yield f"https://localhost:{port}/" if pem else f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait()


def _client(name: str, url: str, streams: int, ca: str = "") -> Figures:
    environment = {**os.environ, **({"HEADLINES_CA": ca} if ca else {})}
    command = [sys.executable, "-m", "bench.headline_clients", name, url, str(streams)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT, env=environment)
    figures: Figures = json.loads(done.stdout)
    return figures


def _in_turns(rounds: int, runs: dict[str, tuple[str, str, int, str]]) -> dict[str, Figures]:
    """Runs readers in turns and gives the medians of each. A run: reader, address, streams, file of the trusted CA."""
    taken: dict[str, list[Figures]] = {title: [] for title in runs}
    for _ in range(rounds):
        for title, run in runs.items():
            taken[title].append(_client(*run))
    return {
        title: {name: statistics.median(figures[name] for figures in all_of) for name in all_of[0]}
        for title, all_of in taken.items()
    }


# -- what is measured --------------------------------------------------------------------------


def threads(rounds: int) -> dict[str, Figures]:
    """A hundred streams at once: asynchronous, and `requests` alone and in threads."""
    with _upstream() as url:
        address = f"{url}?events={EVENTS}&rate={RATE}&delay={DELAY}"
        quick = {
            "Holdfast, asynchronous": ("holdfast", address, STREAMS, ""),
            "aiohttp by hand": ("aiohttp", address, STREAMS, ""),
            "requests, 100 threads": ("requests-100", address, STREAMS, ""),
        }
        slow = {
            "requests, 10 threads": ("requests-10", address, STREAMS, ""),
            "requests alone": ("requests", address, STREAMS, ""),
        }
        return {**_in_turns(rounds, quick), **_in_turns(1, slow)}


def connections(rounds: int) -> dict[str, Figures]:
    """Short streams one after the other, over one connection and over a new one each; over TLS, too."""
    authority = trustme.CA()
    with tempfile.TemporaryDirectory() as folder, _upstream() as plain:
        pem, ca = Path(folder, "server.pem"), Path(folder, "ca.pem")
        authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(pem))
        authority.cert_pem.write_to_path(str(ca))
        with _upstream(str(pem)) as secure:
            ask = f"?events={SHORT}"
            return _in_turns(
                rounds,
                {
                    "pooled": ("pooled", plain + ask, TIMES, ""),
                    "a new connection each": ("unpooled", plain + ask, TIMES, ""),
                    "pooled, TLS": ("pooled", secure + ask, TIMES, str(ca)),
                    "a new connection each, TLS": ("unpooled", secure + ask, TIMES, str(ca)),
                },
            )


def codings(rounds: int) -> dict[str, Figures]:
    """A paced stream, as it is and compressed, by a server that flushes after each event and by one that does not."""
    with _upstream() as url:
        ask = f"{url}?events=60&rate={RATE}&delay=0.05"
        return _in_turns(
            rounds,
            {
                "identity": ("identity", ask, 2, ""),
                "gzip, flushed after each event": ("gzip", ask + "&coding=gzip", 2, ""),
                "gzip, never flushed": ("gzip", ask + "&coding=gzip-held", 2, ""),
            },
        )


def buffers() -> dict[int, Figures]:
    """What sizes of `Buffer(count=)` cost and save."""
    with _upstream() as url:
        port = url.rstrip("/").rpartition(":")[2]
        command = [sys.executable, "-m", "bench.buffering", port]
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    return {int(size): figures for size, figures in json.loads(done.stdout).items()}


# -- the page ----------------------------------------------------------------------------------

PAGE = """# Headlines, measured

Written by `make headlines` on {date}; Python {python}, {versions}, {cores} cores.
Server and readers are processes of their own on one machine, over loopback: there is no distance in these figures.
Medians of {rounds} rounds; the machine was shared, so look at ratios.

## Asynchronous or threads

{streams} streams wanted at once, {events} events each at {rate} a second, the first after {delay:g} s. The first token
counts from the moment when all were wanted, so who waits in a queue waits.

{threads}
With a thread for every stream, `requests` is about as quick as one loop at this number; its threads cost
{cpu_ratio:.1f} times the processor time and {memory_ratio:.1f} times the memory of Holdfast's loop. With fewer threads
than streams, or with none, people wait: that is where reports of large factors come from.

## Pooled connections

{times} streams of {short} events, one after the other.

{connections}
A new connection makes the first token come {plain_ratio:.1f} times as late, with TLS {tls_ratio:.1f} times. On loopback
that is processor time alone; over a distance, add one round trip for TCP and one for TLS 1.3 to each stream without a
pool.

## gzip

A stream of 60 events at {rate} a second, the first after 50 ms.

{codings}
Flushed after each event, gzip costs the first token next to nothing. A server or proxy that does not flush holds it
back: here until the compressor had enough, in effect until the end. A client cannot know which it will meet, and so
Holdfast asks for `identity` unless told otherwise, and undoes gzip where it comes all the same.

## The size of a buffer

Processor time for each event, the consumer's work included (JSON of each batch and a write), and how long deltas wait
in the buffer at {pace} events a second.

{buffers}
Where events come one at a time, {saved8:.0f} % of what buffering can save is saved at 8, and {saved16:.0f} % at 16: the
report's 8 is a fair size for whoever pays for each batch. It makes deltas wait {wait8:.0f} ms on average and
{worst8:.0f} ms at worst; larger sizes make them wait longer in proportion, and save next to nothing more. Where the
network hands over many events at once, Holdfast passes them on as the batch they came in, and a buffer makes that no
cheaper: {busy0:.1f} us an event without one, {busy8:.1f} us at 8, {busy64:.1f} us at 64.

So `Buffer()` has no default count: without one nothing waits. Give `count=8` where each batch costs you something (a
frame to a browser, a repaint), with `seconds=0.1` beside it to bound the wait.
"""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def _threads_table(figures: dict[str, Figures]) -> str:
    head = ("", "first token, median", "worst", "streams a second", "CPU a stream", "memory")
    return _table(
        head,
        (
            (
                title,
                f"{f['first_median'] * 1e3:,.0f} ms",
                f"{f['first_worst'] * 1e3:,.0f} ms",
                f"{f['streams_per_second']:.1f}",
                f"{f['cpu_per_stream'] * 1e3:.2f} ms",
                f"{f['memory_mib']:.1f} MiB",
            )
            for title, f in figures.items()
        ),
    )


def _timed_table(figures: dict[str, Figures], *, per_second: bool) -> str:
    rows = (
        (
            title,
            f"{f['first_median'] * 1e3:.2f} ms",
            *([f"{f['streams_per_second']:.0f}"] if per_second else []),
            f"{f['cpu_per_stream'] * 1e3:.2f} ms",
        )
        for title, f in figures.items()
    )
    return _table(("", "first token", *(["streams a second"] if per_second else []), "CPU a stream"), rows)


def _buffers_table(figures: dict[int, Figures]) -> str:
    head = ("count", "CPU an event, 1 a read", "CPU an event, 16 a read", "wait, mean", "wait, worst")
    return _table(
        head,
        (
            (
                str(size or "none"),
                f"{f['paced_us']:.1f} us",
                f"{f['busy_us']:.1f} us",
                f"{f['mean_ms']:.0f} ms",
                f"{f['worst_ms']:.0f} ms",
            )
            for size, f in figures.items()
        ),
    )


def page(
    streams: dict[str, Figures],
    links: dict[str, Figures],
    coded: dict[str, Figures],
    sizes: dict[int, Figures],
    rounds: int,
) -> str:
    """Writes the page."""
    ours, crowd = streams["Holdfast, asynchronous"], streams["requests, 100 threads"]
    most = sizes[1]["paced_us"] - min(figures["paced_us"] for figures in sizes.values())

    def saved(size: int) -> float:
        return 100 * (sizes[1]["paced_us"] - sizes[size]["paced_us"]) / most

    def later(slow: str, quick: str) -> float:
        return links[slow]["first_median"] / links[quick]["first_median"]

    return PAGE.format(
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        python=platform.python_version(),
        versions=", ".join(f"{name} {version(name)}" for name in ("holdfast", "aiohttp", "requests")),
        cores=os.cpu_count(),
        rounds=rounds,
        streams=STREAMS,
        events=EVENTS,
        rate=RATE,
        delay=DELAY,
        times=TIMES,
        short=SHORT,
        pace=PACE,
        threads=_threads_table(streams),
        connections=_timed_table(links, per_second=True),
        codings=_timed_table(coded, per_second=False),
        buffers=_buffers_table(sizes),
        cpu_ratio=crowd["cpu_per_stream"] / ours["cpu_per_stream"],
        memory_ratio=crowd["memory_mib"] / max(ours["memory_mib"], 0.1),
        plain_ratio=later("a new connection each", "pooled"),
        tls_ratio=later("a new connection each, TLS", "pooled, TLS"),
        saved8=saved(8),
        saved16=saved(16),
        wait8=sizes[8]["mean_ms"],
        worst8=sizes[8]["worst_ms"],
        **{f"busy{size}": sizes[size]["busy_us"] for size in (0, 8, 64)},
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.headlines", description="The report's headlines, measured.")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of which the median is taken")
    options = parser.parse_args()
    measured = threads(options.rounds), connections(options.rounds), codings(options.rounds), buffers()
    text = page(*measured, options.rounds)
    (ROOT / "docs" / "headlines.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
