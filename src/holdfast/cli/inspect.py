"""`holdfast inspect FILE.sse`: what a recorded stream holds, and what is wrong with it."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import nullcontext
from typing import Any, BinaryIO

from holdfast._types import Event
from holdfast.cli._paper import Paper, Row, cut, wrap
from holdfast.dialects import DIALECTS, find
from holdfast.telemetry.recording import Inspector, Recording

_CHUNK = 64 * 1024
_NAME = 12


def add_parser(subparsers: Any) -> None:
    """Declares the command."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "inspect",
        help="say what a recorded stream holds, and what is wrong with it",
        description="Reads recorded server-sent events as a stream would, and tells their anatomy, the answer, the "
        "verdict and every problem with its byte offset. Exits with 1 when the answer is not proven whole.",
    )
    parser.add_argument("file", metavar="FILE", help="a recorded body; - is standard input")
    parser.add_argument(
        "--dialect",
        default="openai-compatible",
        choices=[*DIALECTS, "none"],
        help="whose stream it is (openai-compatible); none looks at the events alone",
    )
    parser.add_argument("--events", action="store_true", help="list every event")
    parser.add_argument("--json", action="store_true", help="one JSON object, after one per event with --events")


def run(args: argparse.Namespace) -> int:
    """Reads, shows. Returns 1 when the recording ends in an error."""
    paper = Paper()
    each = None
    if args.events:

        def each(event: Event) -> None:
            if args.json:
                print(json.dumps(_event(event)))
            else:
                paper.write([_event_row(event, paper.width)])

    inspector = Inspector(None if args.dialect == "none" else find(args.dialect), each=each)
    stream: BinaryIO = sys.stdin.buffer
    with nullcontext(stream) if args.file == "-" else open(args.file, "rb") as file:  # noqa: PTH123 - named as typed
        while chunk := file.read(_CHUNK):
            inspector.feed(chunk)
    found = inspector.end()
    if args.json:
        print(json.dumps(found.as_dict()))
    else:
        paper.write([*([[]] if args.events else []), *draw(found, args.file, paper.width)])
    return 0 if found.error is None else 1


def _event(event: Event) -> dict[str, Any]:
    return {
        "offset": event.offset,
        "bytes": len(event.wire),
        "type": event.type,
        "id": event.id,
        "last_event_id": event.last_event_id,
        "data": event.data,
    }


def _event_row(event: Event, width: int) -> Row:
    name = f" id={_clean(event.id)}" if event.id is not None else ""
    head = f"{event.offset:>9,}  {_clean(event.type)}{name}  "
    return [(head, "cyan"), (cut(_clean(event.data), max(10, width - len(head))), "")]


# -- drawing ---------------------------------------------------------------------------------------


def draw(found: Recording, name: str, width: int) -> list[Row]:
    """Draws the anatomy in rows of at most `width` columns."""
    rows: list[Row] = [[(cut(name, width - 24), "bold"), (f"  {found.size:,} bytes", "")], _verdict(found), []]
    rows += _anatomy(found, width)
    if found.dialect:
        rows += [[], *_answer(found, width)]
    return [*rows, [], *_problems(found, width)]


def _verdict(found: Recording) -> Row:
    if found.verdict is not None:
        return [(str(found.verdict), "bold green"), (f"  as {found.dialect}", "")]
    if found.error is not None:
        return [(type(found.error).__name__, "bold red"), (f"  as {found.dialect or 'events alone'}", "")]
    return [("not judged: no dialect was asked for", "bold yellow")]


def _anatomy(found: Recording, width: int) -> list[Row]:
    types = ", ".join(f"{number:,} {_clean(kind)}" for kind, number in found.types.most_common(6))
    ends = ", ".join(f"{number:,} {kind}" for kind, number in found.line_ends.most_common() if number)
    ids = f"{found.ids:,}, from {found.first_id!r} to {found.last_event_id!r}"
    rows = [
        *_field("events", f"{found.events:,}" + (f": {types}" if len(found.types) > 1 else ""), width),
        *_field("largest", f"{found.largest:,} bytes", width),
        *_field(
            "comments", f"{found.comments:,}" + (f", first {found.first_comment!r}" if found.comments else ""), width
        ),
        *_field("ids", ids if found.ids else "none: after a cut, only a replay can be compared", width),
        *_field("retry", "not told" if found.retry_ms is None else f"{found.retry_ms:,} ms", width),
        *_field("line ends", (ends or "none") + (" (mixed)" if ends.count(",") else ""), width),
    ]
    for label, event in (("first", found.first), ("last", found.last)):
        if event is not None:
            where = f"byte {event.offset:,}  "
            rows += _field(label, where + cut(_clean(event.data), width - _NAME - 2 - len(where)), width)
    if found.after_end:
        rows += _field("after end", f"{found.after_end:,} events came after the proven end", width)
    return rows


def _answer(found: Recording, width: int) -> list[Row]:
    rows: list[Row] = []
    for choice in found.answer.choices:
        label = "answer" if not choice.index else f"choice {choice.index}"
        for what, text in (("text", choice.text), ("reasoning", choice.reasoning), ("refusal", choice.refusal)):
            if text:
                rows += _field(
                    label, cut(f"{what}, {len(text):,} characters: {_clean(text)}", width - _NAME - 2), width
                )
                label = ""
        for call in choice.tool_calls:
            words = f"tool call {call.index}: {_clean(call.name)} {_clean(call.arguments)}"
            rows += _field(label, cut(words, width - _NAME - 2), width)
            label = ""
        rows += _field(label, f"finish reason {choice.finish_reason or 'none'}", width)
    usage = found.answer.usage
    if usage is not None:
        numbers = {
            "in": usage.input_tokens,
            "out": usage.output_tokens,
            "in all": usage.total_tokens,
            "cached": usage.cached_tokens,
            "reasoning": usage.reasoning_tokens,
        }
        rows += _field("tokens", ", ".join(f"{n:,} {what}" for what, n in numbers.items() if n is not None), width)
    return rows


def _problems(found: Recording, width: int) -> list[Row]:
    if not found.problems:
        return [[("nothing is wrong with it", "green")]]
    rows: list[Row] = [[("what is wrong", "bold red")]]
    for problem in found.problems:
        where = f"  byte {problem.offset:<9,} "
        first, *more = wrap(_clean(problem.words), width - len(where))
        rows += [[(where, "dim"), (first, "red")], *([(" " * len(where) + line, "red")] for line in more)]
    if found.more_problems:
        rows.append([(f"  and {found.more_problems:,} more", "dim")])
    return rows


def _field(name: str, value: str, width: int) -> list[Row]:
    first, *more = wrap(value, width - _NAME - 2)
    return [[(f"  {name:<{_NAME}}", "dim"), (first, "")], *([(" " * (_NAME + 2) + line, "")] for line in more)]


def _clean(text: str) -> str:
    """Makes one line of a text, without what would steer a terminal."""
    return "".join(c if c.isprintable() else " " for c in text[:2_000])


__all__ = ["add_parser", "draw", "run"]
