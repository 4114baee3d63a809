"""`holdfast logs FILE...`: each stream of a log as a timeline."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

from holdfast import _errors
from holdfast._errors import StreamError, UsageError
from holdfast.cli._lanes import ASCII, UNICODE, draw, legend
from holdfast.cli._paper import Paper, Row, wrap
from holdfast.telemetry.health import Health, Objectives
from holdfast.telemetry.page import Page
from holdfast.telemetry.timeline import Filter, Life, LogReader
from holdfast.telemetry.words import count, judge, seconds

MAX_LINE = 4 * 1024 * 1024
"""Bytes of the longest line that is read whole: with texts in them, lines hold whole prompts."""
_OUTCOMES = ("complete", "resumed", "cancelled", "running", "ended", "error")
_MANY = 20
"""Outcomes told apart for a hint: a log is a stranger's, and may name any number."""
_MISSED = 3
"""The exit code of `--check`: 1 and 2 are of what could not be read or was not understood."""
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def add_parser(subparsers: Any) -> None:
    """Declares the command."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "logs",
        help="show the streams of a log file as timelines",
        description="Shows each stream in a file of JSON log lines (docs/logs.md) as a timeline: a lane per attempt, "
        "to scale, and its steps. Memory does not grow with the file.",
    )
    add = parser.add_argument
    add("files", nargs="+", metavar="FILE", help="files of JSON lines; - is standard input")
    add("--stream", default="", metavar="ID", help="only streams whose id begins so")
    add(
        "--outcome",
        default="",
        metavar="WORD",
        help=f"only streams that ended so: {', '.join(_OUTCOMES)}, or an error's name",
    )
    add("--faults", action="store_true", help="only streams that met a fault")
    add("--slow", type=float, metavar="SECONDS", help="only streams that took at least so long in all")
    add(
        "--since",
        type=_moment,
        metavar="WHEN",
        help="only streams begun since 2026-01-31T12:00 (UTC), or 30m, 2h, 1d ago",
    )
    add("--until", type=_moment, metavar="WHEN", help="only streams begun until then")
    add("--last", type=_positive, metavar="N", help="only the last N of them")
    add("--brief", action="store_true", help="without the list of steps")
    add("--json", action="store_true", help="one JSON object per stream; with --summary one in all")
    add("--summary", action="store_true", help="no streams, but the health of them all, against objectives")
    add(
        "--html",
        metavar="OUT.html",
        help="as --summary, and a page of HTML with pictures of it and of the worst streams",
    )
    add("--check", action="store_true", help="as --summary, and exit with 3 where an objective is missed")
    add(
        "--objective",
        action="append",
        default=[],
        metavar="NAME=NUMBER",
        help="what --summary and --html hold it against: "
        + ", ".join(f"{f.name}={f.default:g}" for f in fields(Objectives)),
    )


def run(args: argparse.Namespace) -> int:
    """Reads, shows, sums up. Returns 1 when there was no line of a stream at all, 3 where `--check` fails."""
    reader, health, paper = LogReader(), Health(_objectives(args.objective)), Paper()
    page = Page(health) if args.html is not None else None
    summary = args.summary or args.check or page is not None
    _check_page(args.html, args.files)
    wanted = Filter(
        stream=args.stream,
        outcome=args.outcome,
        faults=args.faults,
        slow=args.slow,
        since=args.since,
        until=args.until,
    )
    met: set[str] = set()
    lives = _admitted(reader, args.files, wanted, met)
    shown = False
    for life in lives if args.last is None else deque(lives, maxlen=args.last):
        health.add(life.ending())
        for name, state in life.breakers():
            health.note_breaker(name, state)
        if page is not None:
            page.add(life)
        if summary:
            continue
        if args.json:
            print(json.dumps(life.as_dict()))
            continue
        signs = UNICODE if paper.unicode else ASCII
        if not shown:
            paper.write([*legend(signs), []])
        shown = True
        paper.write([*draw(life, width=paper.width, signs=signs, steps=not args.brief), []])
    if not health.streams:
        _check_outcome(args.outcome, met)
    if page is not None:
        _write_page(page, reader, args)
    if summary and args.json:
        print(json.dumps(health.as_dict()))
    (Paper(sys.stderr) if args.json else paper).write(_sums(reader, health, paper.width))
    if summary and not args.json:
        paper.write(_held_against(health))
    if reader.lines <= reader.malformed + reader.foreign:
        return 1
    return _MISSED if args.check and not health.well else 0


def _admitted(reader: LogReader, files: list[str], wanted: Filter, met: set[str]) -> Iterator[Life]:
    """Gives the streams to show, and leaves in `met` how all of them ended."""
    for life in _lives(reader, files):
        if len(met) < _MANY:
            met.add(life.outcome)
        if wanted.admits(life):
            yield life


def _lives(reader: LogReader, files: list[str]) -> Iterator[Life]:
    for name in files:
        if name == "-":
            yield from _read(reader, sys.stdin.buffer)
        else:
            with open(name, "rb") as file:  # noqa: PTH123 - a path as it was typed is what an error should name
                yield from _read(reader, file)
    yield from reader.unfinished()


def _read(reader: LogReader, file: BinaryIO) -> Iterator[Life]:
    for line in _lines(file):
        yield from reader.feed(line)


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Gives the lines; of one that is too long only its beginning, which is no JSON and counts as malformed."""
    while line := file.readline(MAX_LINE):
        yield line
        while len(line) == MAX_LINE and not line.endswith(b"\n"):
            line = file.readline(MAX_LINE)


# -- the page --------------------------------------------------------------------------------------


def _check_page(out: str | None, read: list[str]) -> None:
    """A page is not written over a log that it tells of. Raises `UsageError`."""
    if out is not None and Path(out).resolve() in {Path(name).resolve() for name in read if name != "-"}:
        raise UsageError(f"--html writes a page, and {out} is a log to read: name another file")


def _write_page(page: Page, reader: LogReader, args: argparse.Namespace) -> None:
    names = ["standard input" if name == "-" else Path(name).name for name in args.files]
    notes = [", ".join(names), *_unused(reader)]
    with Path(args.html).open("w", encoding="utf-8", errors="replace") as file:
        file.writelines(page.write("Streams", *notes))


# -- the sums --------------------------------------------------------------------------------------


def _sums(reader: LogReader, health: Health, width: int) -> list[Row]:
    told = [count(health.streams, "stream") + _listed(health.outcomes.most_common(8))]
    if health.faults:
        told.append(count(sum(health.faults.values()), "fault") + _listed(health.faults.most_common(8)))
    first = [(p, health.first_seconds(p)) for p in (50, 99)]
    whole = [(p, health.seconds(p)) for p in (50, 99)]
    times = [
        f"{name} " + ", ".join(f"p{p} {seconds(v)}" for p, v in values if v is not None)
        for name, values in (("first text", first), ("in all", whole))
        if values[0][1] is not None
    ]
    if times:
        told.append(" · ".join(times))
    told += _unused(reader)
    return [[(line, "bold")] for text in told for line in wrap(text, width)]


def _unused(reader: LogReader) -> list[str]:
    unused = [
        count(number, f"{what} line")
        for number, what in ((reader.malformed, "malformed"), (reader.foreign, "foreign"), (reader.late, "late"))
        if number
    ]
    return [f"{', '.join(unused)} of {reader.lines} not used"] if unused else []


def _held_against(health: Health) -> list[Row]:
    """Gives what was found beside what it should be."""
    rows: list[Row] = []
    if health.seams:
        rows.append([(f"{count(health.seams, 'seam')}, {count(health.attempts, 'request')}", "bold")])
    for name, state in health.breakers.items():
        rows.append([(f"breaker {name or '(unnamed)'}: {state}", "bold" if state == "closed" else "bold red")])
    for check in health.checks():
        what, found, wanted, word, style = judge(check)
        rows.append([(f"{what:<32}", ""), (f"{found:>10}  ", "bold"), (f"{wanted:<16}", "dim"), (word, style)])
    return rows


def _listed(counts: list[tuple[str, int]]) -> str:
    return ": " + ", ".join(f"{number} {name}" for name, number in counts) if counts else ""


def _check_outcome(word: str, met: set[str]) -> None:
    """Nothing was shown: a word that no stream ends with is a mistake, and is told only now as errors' names are open.

    Raises `UsageError`.
    """
    ours = {name for name, kind in vars(_errors).items() if isinstance(kind, type) and issubclass(kind, StreamError)}
    if not word or word.lower() in {known.lower() for known in (*_OUTCOMES, *ours, *met)}:
        return
    here = f"; in this log there is {', '.join(sorted(met))}" if met else ""
    raise UsageError(f"--outcome: no stream ends as {word!r}, but {', '.join(_OUTCOMES)}, or an error's name{here}")


# -- arguments -------------------------------------------------------------------------------------


def _objectives(given: list[str]) -> Objectives:
    """Reads what `--objective` names. Raises `UsageError`."""
    wanted = {}
    for text in given:
        name, _, number = text.partition("=")
        try:
            wanted[name.strip().replace("-", "_")] = float(number)
        except ValueError:
            raise UsageError(f"--objective takes NAME=NUMBER, not {text!r}") from None
    try:
        return Objectives(**wanted)
    except (TypeError, ValueError):
        names = ", ".join(f.name for f in fields(Objectives))
        raise UsageError(f"--objective takes numbers from 0 for {names}, not {' '.join(given)}") from None


def _moment(text: str) -> datetime:
    """Reads a time: ISO 8601, UTC unless it says otherwise, or how long ago."""
    ago = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if ago is not None:
        return datetime.now(UTC) - timedelta(seconds=float(ago[1]) * _UNITS[ago[2]])
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"neither a time like 2026-01-31T12:00 nor an age like 2h: {text!r}") from None
    return when if when.tzinfo is not None else when.replace(tzinfo=UTC)


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a number above 0, not {text!r}")
    return int(text)


__all__ = ["add_parser", "run"]
