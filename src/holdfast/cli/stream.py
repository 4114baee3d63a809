"""`holdfast stream PROMPT`: asks a model, and prints its answer as it comes."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import sys
from typing import Any

from holdfast._defaults import default_layers
from holdfast._errors import (
    BudgetExhausted,
    CircuitOpen,
    ConnectError,
    DeadlineExceeded,
    NotAStream,
    StatusError,
    StreamBroken,
    StreamError,
    UpstreamError,
    UsageError,
)
from holdfast._types import Delta
from holdfast.cli._paper import Paper, cut, wrap
from holdfast.client import Client
from holdfast.dialects import AUTO, DIALECTS, Dialect, Timeouts, at_address, find
from holdfast.layers.record import Record
from holdfast.machines.redact import scrub
from holdfast.moments import Moment, RecordingFailed, Report

_WORDS = 400
"""Columns shown of what a refusing server wrote."""

_EXAMPLES = """examples:
  holdfast stream "Why is the sky blue?"
  holdfast stream --record sky.sse "Why is it blue?" && holdfast inspect sky.sse
  holdfast stream --dialect openai --model gpt-5-mini - < question.txt
  holdfast stream --dialect openai-compatible --model my-model \\
      --base-url http://localhost:8000/v1 "Why is the sky blue?\""""


def add_parser(subparsers: Any) -> None:
    """Declares the command."""
    keys = "\n".join(f"  {name:<20}{DIALECTS[name].key_variable or 'none'}" for name in _asked())
    named = ", ".join(name for name in _asked() if DIALECTS[name].default_model)
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "stream",
        help="ask a model, and print its answer as it comes",
        description=f"""\
Prints the answer's text to standard output as it comes, and the report to
standard error. Exits with 1 when the answer is not whole.

The API key is read from the dialect's environment variable:
{keys}
  {AUTO.name:<20}that of the dialect spoken at --base-url""",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("prompt", metavar="PROMPT", nargs="+", help="what to ask: quoted, or its words; - reads it from standard input")
    add(
        "--dialect",
        metavar="NAME",
        default="deepseek",
        choices=[*DIALECTS, AUTO.name],
        help="the provider (deepseek); auto tells by --base-url",
    )
    add("--model", help=f"the model; these have a default: {named}")
    add("--base-url", metavar="URL", help="another server of that dialect, /v1 included where it has one")
    add("--system", metavar="TEXT", help="a system prompt")
    add("--timeout", metavar="SECONDS", type=_seconds, help="give up after so long in all, new attempts included")
    add("--record", metavar="FILE", help="write what arrives to FILE, for `holdfast inspect FILE`")
    add("--json", action="store_true", help="one JSON object per piece, and the report as the last")


def _asked() -> list[str]:
    """Names the dialects that a prompt can be put to."""
    return [name for name, dialect in DIALECTS.items() if dialect.wire.question("") is not None]


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be seconds above 0, not {text!r}")
    return value


def run(args: argparse.Namespace) -> int:
    """Asks, prints. Returns 1 when the stream failed."""
    prompt = sys.stdin.read() if args.prompt == ["-"] else " ".join(args.prompt)
    if not prompt.strip():
        raise UsageError("the prompt is empty")
    dialect, base_url = _dialect(args)
    return asyncio.run(_ask(args, dialect, base_url, _request(args, dialect, prompt)))


def _dialect(args: argparse.Namespace) -> tuple[Dialect, str | None]:
    """Gives who is asked, and where it is if not at the dialect's own place."""
    dialect = find(args.dialect)
    if dialect is not AUTO:
        return dialect, args.base_url
    if not args.base_url:
        raise UsageError("--dialect auto needs --base-url: the endpoint's address tells who answers")
    return at_address(args.base_url)


def _request(args: argparse.Namespace, dialect: Dialect, prompt: str) -> dict[str, Any]:
    """Gives the dialect's own request. Raises `UsageError` for one that could only be refused."""
    request = dialect.wire.question(prompt, args.system or "")
    if request is None:
        raise UsageError(f"--dialect {dialect.name} takes no prompt; these do: {', '.join(_asked())}")
    if args.model:
        return {**request, "model": args.model}
    if dialect.needs_model and not dialect.default_model:
        raise UsageError(f"--dialect {dialect.name} has no default model: name one with --model")
    return request


async def _ask(args: argparse.Namespace, dialect: Dialect, base_url: str | None, request: dict[str, Any]) -> int:
    printer = _Json() if args.json else _Text()
    layers = default_layers(dialect, timeouts=Timeouts(total=args.timeout))
    if args.record:
        layers.insert(0, _recorder(args.record))
    async with Client(dialect, base_url=base_url, layers=layers, listeners=[_hear]) as client:
        reader = client.stream(request)
        try:
            async with reader as deltas:
                async for batch in deltas.batches():
                    for delta in batch:
                        printer.show(delta)
                    sys.stdout.flush()
        except StreamError as error:
            printer.failed(
                error, _server_words(error, dialect), advice(error, model=bool(args.model or dialect.default_model))
            )
            return 1
        printer.done(reader.report)
    return 0


def _recorder(file: str) -> Record:
    try:
        return Record(file)
    except ValueError:
        raise UsageError(f"--record must name a file in a folder that exists, not {file!r}") from None


def _hear(moment: Moment) -> None:
    """A recording that is given up stops no stream, but who asked for it should know."""
    if isinstance(moment, RecordingFailed):
        _say(f"holdfast: --record: nothing more is written to {moment.path}: {moment.reason}")


def _server_words(error: StreamError, dialect: Dialect) -> str:
    """Gives what the provider said of a failure, or what stands in its place; errors keep it out of their own text.

    It is shown to the one who asked and to nobody else, and still without the key.
    """
    if not isinstance(error, StatusError | UpstreamError):
        return ""
    words = error.message
    if not words and isinstance(error, StatusError):
        words = error.body.decode("utf-8", "replace").strip()
        words = "" if words.startswith("<") else words  # a page says nothing
    key = os.environ.get(dialect.key_variable, "")
    return cut(scrub(" ".join(_tame(words).split()), {"authorization": key}), _WORDS)


class _Text:
    """For a person: text to stdout, all else to stderr. What a model says must not steer a terminal."""

    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty()
        self._aside = sys.stderr.isatty()
        self._last = "\n"
        self._thinking = False

    def show(self, delta: Delta) -> None:
        if delta.reasoning and self._aside:
            sys.stderr.write(f"\x1b[2m{_tame(delta.reasoning)}\x1b[0m")
            sys.stderr.flush()
            self._thinking = True
        text = delta.text or delta.refusal
        if text:
            if self._thinking:
                sys.stderr.write("\n\n")
                sys.stderr.flush()
                self._thinking = False
            sys.stdout.write(_tame(text) if self._terminal else text)
            self._last = text[-1]
        for call in delta.tool_calls:
            if call.name:
                sys.stderr.write(f"[the model calls {_tame(call.name)}]\n")

    def _end_line(self) -> None:
        if self._thinking:
            sys.stderr.write("\n")
        if self._last != "\n":
            sys.stdout.write("\n")
        sys.stdout.flush()

    def done(self, report: Report) -> None:
        self._end_line()
        _say(str(report))

    def failed(self, error: StreamError, words: str, hint: str) -> None:
        self._end_line()
        _say(f"holdfast: {type(error).__name__}: {_tame(str(error))}")
        if words:
            _say(f"the server says: {words}", indent=2)
        _say(hint, indent=2)
        if error.report is not None:
            _say(str(error.report), indent=2)


def _say(words: str, *, indent: int = 0) -> None:
    paper = Paper(sys.stderr)
    lines = wrap(words, paper.width - indent) if paper.terminal else [words]
    paper.write([[(" " * indent + line, "")] for line in lines])


class _Json:
    """For a program: one object per piece, then one with the report."""

    def show(self, delta: Delta) -> None:
        calls = [{"index": c.index, "id": c.id, "name": c.name, "arguments": c.arguments} for c in delta.tool_calls]
        told = {
            "text": delta.text,
            "reasoning": delta.reasoning,
            "refusal": delta.refusal,
            "tool_calls": calls,
            "finish_reason": delta.finish_reason,
            "choice": delta.choice,
        }
        piece = {name: value for name, value in told.items() if value}
        if piece:
            print(json.dumps(piece))

    def done(self, report: Report) -> None:
        print(json.dumps({"report": _facts(report)}))

    def failed(self, error: StreamError, words: str, hint: str) -> None:
        said = {"error": type(error).__name__, "message": str(error), "server": words, "advice": hint}
        print(json.dumps({**said, "report": _facts(error.report)}))


def _facts(report: Report) -> dict[str, Any]:
    return {
        "stream_id": report.stream_id,
        "outcome": report.outcome,
        "attempts": report.attempts,
        "seams": len(report.seams),
        "faults": [type(fault).__name__ for fault in report.faults],
        "items": report.items,
        "first_delta_seconds": report.first_delta_seconds,
        "longest_gap": report.longest_gap,
        "seconds": report.total_seconds,
        "finish_reason": report.finish_reason,
        "usage": report.usage.raw if report.usage is not None else None,
        "billed_tokens": report.billed_tokens,
    }


_REFUSED = "the server does not take this request: look at --dialect, --model and the prompt"
_UNNAMED = "the server does not take this request: name a --model, and look at --dialect"
_STATUS_ADVICE = {
    400: _REFUSED,
    401: "the API key is not accepted: see the provider's environment variable",
    402: "the account has no balance left",
    403: "the API key may not do this",
    404: "there is no such model or path: see --model and --base-url",
    422: _REFUSED,
    429: "too many requests, or no quota left: wait, then ask again",
}


def advice(error: StreamError, *, model: bool = True) -> str:
    """Says what to do about a failure, in one line; `model` says whether the request named one, or a default did."""
    if isinstance(error, StatusError):
        hint = _STATUS_ADVICE.get(error.status, "the server is in trouble: ask again later")
        return _UNNAMED if hint is _REFUSED and not model else hint
    if isinstance(error, ConnectError):
        return "nobody answered: see the network, a proxy, and --base-url"
    if isinstance(error, NotAStream):
        return "this is not an API's streaming endpoint: see --base-url"
    if isinstance(error, DeadlineExceeded):
        return "--timeout ran out" if error.clock == "total" else "the server was silent for too long: ask again later"
    if isinstance(error, StreamBroken):
        return "what is printed is only a part of the answer: ask again"
    if isinstance(error, CircuitOpen | BudgetExhausted):
        return "nothing more was sent: ask again later"
    return "ask again" if error.retryable else "asking again will not help"


def _tame(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() or c in "\n\t" else " " for c in text)


__all__ = ["add_parser", "advice", "run"]
