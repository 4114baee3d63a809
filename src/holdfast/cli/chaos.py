"""`holdfast chaos`: stands between any client and an upstream, and does to its streams what a schedule says.

Standard output has one JSON object per request and the sums as the last; what is for a person goes to standard error.
Without `--upstream` it answers itself, in the shape of every provider, so it needs no key and no network.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urlsplit

from holdfast._errors import UsageError
from holdfast.testing.books import Served
from holdfast.testing.chaos import ChaosServer, Mode
from holdfast.testing.proxy import ChaosProxy
from holdfast.testing.schedule import Schedule


def add_parser(subparsers: Any) -> None:
    """Declares the command."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "chaos",
        help="make the streams of any upstream fail, by seed or by schedule",
        description="Serves or proxies LLM completions and makes their streams fail: by seed, or as a schedule says. "
        "Prints one JSON object per request, and sums when it is interrupted.",
    )
    add = parser.add_argument
    add("--port", type=int, default=8001, metavar="N", help="where to listen (8001); 0 is any free port")
    add("--host", default="127.0.0.1", metavar="HOST", help="on which address (127.0.0.1)")
    add("--upstream", metavar="URL", help="the server to stand before; without it, answers are made up here")
    add("--schedule", metavar="FILE", help="a schedule as JSON, in the place of --seed and --rate")
    add("--seed", type=int, default=0, metavar="N", help="draws which attempts meet which fault (0)")
    add("--rate", type=float, default=0.12, metavar="P", help="the probability that an attempt meets one (0.12)")
    add("--mode", default="no-ids", choices=get_args(Mode), help="how made-up answers can be gone on with (no-ids)")
    add("--pace", type=float, default=100.0, metavar="N", help="events per second of made-up answers (100)")


def run(args: argparse.Namespace) -> int:
    """Serves until it is interrupted, which is how it is meant to end."""
    _check(args)
    schedule = _schedule(args)
    where: dict[str, Any] = {"schedule": schedule, "host": args.host, "port": args.port, "heard": _report}
    server: ChaosServer | ChaosProxy
    if args.upstream:
        server = ChaosProxy(upstream=args.upstream, **where)
    else:
        server = ChaosServer(mode=args.mode, seed=args.seed, every=1 / args.pace, **where)
    asyncio.run(_serve(server, schedule, args.upstream or "made-up answers"))
    return 0


def _check(args: argparse.Namespace) -> None:
    """Tells of what would else be told in the words of the parts below, who know no options."""
    if not 0 <= args.port <= 65_535:
        raise UsageError(f"--port is a number from 0 to 65535, not {args.port}")
    if not 0 < args.pace < math.inf:
        raise UsageError(f"--pace is a number of events above 0, not {args.pace:g}")
    if not 0 <= args.rate <= 1:
        raise UsageError(f"--rate is a probability between 0 and 1, not {args.rate:g}")
    if args.upstream is not None and not _is_address(args.upstream):
        raise UsageError(f"--upstream is a URL that begins with http:// or https://, not {args.upstream!r}")


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 0) >= 0
    except ValueError:  # its port is none
        return False


def _schedule(args: argparse.Namespace) -> Schedule:
    if not args.schedule:
        return Schedule.draw(args.seed, rate=args.rate)
    try:
        return Schedule.from_json(Path(args.schedule).read_bytes())
    except ValueError as error:
        raise UsageError(f"{args.schedule} is no schedule: {error}") from error


async def _serve(server: ChaosServer | ChaosProxy, schedule: Schedule, behind: str) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError, RuntimeError):  # Windows, and threads that are not the first
            loop.add_signal_handler(name, stopped.set)
    async with server:
        _say(f"chaos on {server.url} before {behind}; Ctrl-C ends it\n{schedule}")
        await stopped.wait()
    sums = server.summary
    print(json.dumps({"summary": sums}), flush=True)
    _say(
        f"{sums['requests']} requests of {sums['streams']} streams, {sum(sums['faults'].values())} of them struck; "
        f"{sums['events']} events sent, {sums['events_again']} of them again"
    )


def _report(served: Served) -> None:
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    print(json.dumps({"time": now, **served.as_dict()}), flush=True)


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


__all__ = ["add_parser", "run"]
