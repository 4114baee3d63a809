"""The command line: parses arguments, calls the library, draws. A person never sees a traceback from here.

Exit codes: 0 it worked, 1 the thing itself failed, 2 the command was wrong, 130 interrupted, 141 nobody reads on.
Each command is a module with `add_parser(subparsers)` and `run(args) -> int`, imported only when it is asked for.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from collections.abc import Sequence

COMMANDS = {
    "demo": "watch a naive client lose text where Holdfast delivers all of it",
    "stream": "ask a model, and print its answer as it comes",
    "inspect": "say what a recorded stream holds, and what is wrong with it",
    "logs": "show the streams of a log file as timelines",
    "chaos": "make the streams of any upstream fail, by seed or by schedule",
    "gateway": "serve streams that survive the client, the network and the gateway itself",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    for out in (sys.stdout, sys.stderr):
        if isinstance(out, io.TextIOWrapper):
            out.reconfigure(errors="replace")  # an answer may hold what a terminal's encoding does not
    try:
        return _run(words)
    except SystemExit as end:  # argparse's way to say "usage"
        return end.code if isinstance(end.code, int) else 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # What Python flushes at exit must not fail a second time.
        os.dup2(os.open(os.devnull, os.O_WRONLY), _descriptor())
        return 141
    except Exception as failure:  # noqa: BLE001 - the border to a person, who gets one line
        return _fail(failure)


def _run(words: list[str]) -> int:
    chosen = next((word for word in words if not word.startswith("-")), None)
    parser = argparse.ArgumentParser(
        prog="holdfast", description="Resilient streaming for LLM completions: exact, or a typed error."
    )
    parser.add_argument("--version", action="store_true", help="print the version and leave")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND")
    module = None
    for name, summary in COMMANDS.items():
        if name == chosen:
            module = importlib.import_module(f"holdfast.cli.{name}")
            module.add_parser(subparsers)
        else:
            subparsers.add_parser(name, help=summary)
    args = parser.parse_args(words)
    if args.version:
        print(f"holdfast {_version()}")
        return 0
    if module is None:
        parser.print_help(sys.stderr)
        return 2
    code: int = module.run(args)
    sys.stdout.flush()  # here, where a reader that went away is still our business
    return code


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("holdfast")
    except PackageNotFoundError:
        return "unknown"


def _fail(failure: Exception) -> int:
    """Says in one line what went wrong."""
    from holdfast._errors import StreamError, UsageError

    if isinstance(failure, UsageError):
        print(f"holdfast: {failure}", file=sys.stderr)
        return 2
    if isinstance(failure, OSError) and failure.strerror:
        where = f"{failure.filename}: " if failure.filename else ""
        print(f"holdfast: {where}{failure.strerror}", file=sys.stderr)
        return 1
    known = isinstance(failure, StreamError | ValueError)
    hint = "" if known else " (this is a bug: HOLDFAST_TRACEBACK=1 shows where)"
    if os.environ.get("HOLDFAST_TRACEBACK"):
        raise failure
    print(f"holdfast: {type(failure).__name__}: {' '.join(str(failure).split())}{hint}", file=sys.stderr)
    return 1


def _descriptor() -> int:
    try:
        return sys.stdout.fileno()
    except (OSError, ValueError):  # a stdout that is no file, as under a test
        return os.open(os.devnull, os.O_WRONLY)


__all__ = ["COMMANDS", "main"]
