"""`holdfast inspect FILE.sse`: what a recorded stream holds, and what is wrong with it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from holdfast._types import Completion, Event, Verdict
from holdfast.cli._paper import Paper, Row, cut, wrap
from holdfast.cli._replay import Played, play
from holdfast.dialects import DIALECTS, Dialect, find
from holdfast.machines.recording import Story, numbered
from holdfast.sources.memory import recorded
from holdfast.telemetry.recording import Inspector, Recording, judged
from holdfast.telemetry.words import seconds

_CHUNK = 64 * 1024
_NAME = 12
_DIALECT = "auto"
_TYPES = 20
"""Types of events that are told, the most frequent ones: more than any dialect has."""


def add_parser(subparsers: Any) -> None:
    """Declares the command."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "inspect",
        help="say what a recorded stream holds, and what is wrong with it",
        description="Reads recorded server-sent events as a stream would, and tells their anatomy, the answer, the "
        "verdict and every problem with its byte offset. Beside a recording of Record or `holdfast stream --record` "
        "stands a .json file: it tells the status, the dialect and how the attempt ended. Given the first attempt "
        "(answer.sse), all of them (answer.2.sse, ...) are read and judged together; given another, that one alone. "
        "Exits with 1 when the answer is not proven whole.",
    )
    parser.add_argument("file", metavar="FILE", help="a recorded body; - is standard input")
    parser.add_argument(
        "--dialect",
        metavar="NAME",
        choices=[*DIALECTS, "auto", "none"],
        help=f"whose stream it is (the one recorded, else auto): {', '.join(DIALECTS)}; auto lets its first event "
        "tell, none looks at the events alone",
    )
    parser.add_argument("--events", action="store_true", help="list every event")
    parser.add_argument("--json", action="store_true", help="one JSON object, after one per event with --events")


@dataclass(slots=True, frozen=True, kw_only=True)
class _Attempt:
    """One body and what is known of it; a plain file has no `story`."""

    name: str
    found: Recording
    story: Story | None = None


def run(args: argparse.Namespace) -> int:
    """Reads, shows. Returns 1 when the recording ends in an error."""
    paper, played = Paper(), None
    files: list[tuple[Path, Story | None]] = [(Path(args.file), None)] if args.file == "-" else recorded(args.file)
    stories = [story for _, story in files if story is not None]
    dialect = _dialect(args.dialect, stories)
    if stories and dialect is not None:
        played = play(files[0][0], stories, dialect)
    attempts: list[_Attempt] = []
    for number, (path, story) in enumerate(files, 1):
        each = _lister(args, paper, path.name, number, len(files)) if args.events else None
        inspector = Inspector(dialect, head=story.response if story is not None else None, each=each)
        found = _read(inspector, path, played.ends.get(number) if played is not None else None)
        attempts.append(_Attempt(name=str(path), found=found, story=story))
    if args.json:
        print(json.dumps(_facts(attempts, played)))
    else:
        paper.write(
            [*([[]] if args.events else []), *draw(attempts, played, paper.width), *_stranger(files, paper.width)]
        )
    return 0 if (played.error if played is not None else attempts[-1].found.error) is None else 1


def _stranger(files: list[tuple[Path, Story | None]], width: int) -> list[Row]:
    """Tells of a file that looks like one more attempt and was left out."""
    path, story = files[0]
    later = numbered(path, len(files) + 1)
    if story is None or story.attempt > 1 or not later.exists():
        return []
    words = f"{later.name} was left out: what tells of it is missing (was it being written?), or it is another stream's"
    return [[], *([(line, "yellow")] for line in wrap(words, width))]


def _dialect(asked: str | None, stories: list[Story]) -> Dialect | None:
    if asked == "none":
        return None
    told = stories[0].dialect if stories else ""
    return find(asked or (told if told in DIALECTS else _DIALECT))


def _read(inspector: Inspector, path: Path, end: Any) -> Recording:
    if str(path) == "-":
        return _read_all(inspector, sys.stdin.buffer, end)
    with path.open("rb") as file:
        return _read_all(inspector, file, end)


def _read_all(inspector: Inspector, file: BinaryIO, end: Any) -> Recording:
    while chunk := file.read(_CHUNK):
        inspector.feed(chunk)
    return inspector.end(end)


# -- for programs ----------------------------------------------------------------------------------


def _facts(attempts: list[_Attempt], played: Played | None) -> dict[str, Any]:
    """Gives one body's facts; of several the whole's, and each one's below `attempts`."""
    facts = [
        {
            "file": one.name,
            "attempt": one.story.attempt if one.story is not None else None,
            "ended": one.story.ended if one.story is not None else None,
            **one.found.as_dict(),
        }
        for one in attempts
    ]
    if played is None or len(attempts) == 1:
        return facts[0] if len(facts) == 1 else {"file": attempts[0].name, "attempts": facts}
    whole = judged(played.answer, played.verdict, played.error)
    return {"file": attempts[0].name, **whole, **_seams(played.verdict), "attempts": facts}


def _seams(verdict: Verdict | None) -> dict[str, Any]:
    return {"seams": verdict.seams, "guarantee": verdict.guarantee} if verdict is not None else {}


def _lister(args: argparse.Namespace, paper: Paper, name: str, number: int, attempts: int) -> Callable[[Event], None]:
    """Gives what lists a body's events: below its name where there are several."""
    if args.json:
        extra = {"attempt": number} if attempts > 1 else {}
        return lambda event: print(json.dumps({**extra, **_event(event)}))
    if attempts > 1:
        paper.write([[(f"attempt {number} of {attempts}: {cut(name, paper.width - 24)}", "bold")]])
    return lambda event: paper.write([_event_row(event, paper.width)])


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


def draw(attempts: list[_Attempt], played: Played | None, width: int) -> list[Row]:
    """Draws the whole where there are several attempts, then each one's anatomy, in rows of at most `width` columns."""
    if len(attempts) == 1:
        return _body(attempts[0], width)
    size = sum(one.found.size for one in attempts)
    rows: list[Row] = [_title(attempts[0].name, f"{len(attempts)} attempts, {size:,} bytes", width)]
    dialect = attempts[0].found.dialect
    if played is not None:
        rows += [_outcome(played.verdict, played.error, dialect), [], *_answer(played.answer, width)]
    else:
        rows.append(_outcome(None, None, dialect))
    for number, one in enumerate(attempts, 1):
        left = f"attempt {number} of {len(attempts)}"
        see = f", see {Path(attempts[number].name).name}" if number < len(attempts) else ""
        rows += [[], [(left, "bold underline"), (cut(see, width - len(left)), "")], *_body(one, width, alone=False)]
    return rows


def _body(one: _Attempt, width: int, *, alone: bool = True) -> list[Row]:
    """Draws one attempt; the answer only where it is `alone`, else it is the whole's."""
    found, story = one.found, one.story
    rows: list[Row] = [_title(one.name, f"{found.size:,} bytes", width)]
    rows += [_outcome(found.verdict, found.error, found.dialect), []]
    if story is not None:
        rows += [*(_place(one.name, story, width) if alone else []), *_told(story, width)]
    rows += _anatomy(found, width)
    if found.dialect and alone:
        rows += [[], *_answer(found.answer, width)]
    return [*rows, [], *_problems(found, width)]


def _title(name: str, size: str, width: int) -> Row:
    return [(cut(name, width - len(size) - 2), "bold"), (f"  {size}", "")]


def _outcome(verdict: Verdict | None, error: Exception | None, dialect: str) -> Row:
    if verdict is not None:
        return [(str(verdict), "bold green"), (f"  as {dialect}", "")]
    if error is not None:
        return [(type(error).__name__, "bold red"), (f"  as {dialect or 'events alone'}", "")]
    return [("not judged: no dialect was asked for", "bold yellow")]


_ENDED = {"clean": "the body came to its end", "failure": "it failed", "closed": "closed by this side"}


def _place(name: str, story: Story, width: int) -> list[Row]:
    """Says of a later attempt what it belongs to."""
    path = Path(name)
    first = path.with_name(path.stem.removesuffix(f".{story.attempt}") + path.suffix)
    if story.attempt == 1 or numbered(first, story.attempt) != path:
        return []
    return _field("attempt", f"{story.attempt} of its stream; {first.name} is the first, and shows the whole", width)


def _told(story: Story, width: int) -> list[Row]:
    """Draws what stands beside the body."""
    head = story.response
    response = f"{head.status} {head.content_type or 'without a content type'}" if head is not None else "none came"
    ended = f"{_ENDED[story.ended]} after {seconds(story.seconds)}"
    if story.error is not None:
        ended += f": {story.error.type}: {_clean(story.error.message)}"
    return [*_field("response", response, width), *_field("ended", ended, width)]


def _anatomy(found: Recording, width: int) -> list[Row]:
    if not found.events and not found.comments:
        return _field("events", "none", width)
    types = ", ".join(f"{number:,} {_clean(kind)}" for kind, number in found.types.most_common(_TYPES))
    if len(found.types) > _TYPES:
        types += f", and {len(found.types) - _TYPES:,} more types"
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


def _answer(answer: Completion, width: int) -> list[Row]:
    rows: list[Row] = []
    for choice in answer.choices:
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
    usage = answer.usage
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
