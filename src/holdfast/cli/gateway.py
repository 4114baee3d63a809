"""`holdfast gateway`: the pipe before every client in every language.

With a provider's key in the environment it needs no configuration; with `--demo` it needs no key either: it brings an
upstream that fails by schedule. It must never print a key, but for the one it has just made.
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any

from holdfast._errors import UsageError

if TYPE_CHECKING:
    from holdfast.gateway.settings import Settings

_EXAMPLES = """examples:
  holdfast gateway --demo
  DEEPSEEK_API_KEY=... holdfast gateway
  holdfast gateway --upstream http://localhost:8000/v1 --dialect vllm
  holdfast gateway --config gateway.toml --workers 4 --journal redis://localhost"""


def add_parser(subparsers: Any) -> None:
    """Declares the command."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "gateway",
        help="serve streams that survive the client, the network and the gateway itself",
        description="Serves the APIs of the providers whose keys are in the environment, with streams that do not\n"
        "break and that their readers can come back to. Ends on SIGTERM or Ctrl-C, after what runs.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--host", metavar="HOST", help="on which address (127.0.0.1)")
    add("--port", type=int, metavar="N", help="where to listen (8700); 0 is any free port")
    add("--upstream", metavar="URL", help="whom to ask, in the place of the providers whose keys are there")
    add("--dialect", metavar="NAME", help="what --upstream speaks, where its address does not tell")
    add("--journal", metavar="WHERE", help="where streams are kept: memory (the default), none, redis://HOST")
    add("--workers", type=int, metavar="N", help="processes that share the port (1)")
    add("--grace", type=float, metavar="S", help="seconds that a stream goes on which nobody reads (60)")
    add("--config", metavar="FILE", help="a TOML file, for more than this; what is said here is over it")
    add("--log", metavar="FILE", help="write the structured log to FILE, for `holdfast logs FILE`")
    add("--demo", action="store_true", help="bring an upstream whose streams fail; needs no key and no network")
    add("--open", action="store_true", help="let everybody in at an address that others can reach")


def run(args: argparse.Namespace) -> int:
    """Serves until a signal comes."""
    if args.demo:
        return _demo(args)
    return _serve(_settings(args))


def _demo(args: argparse.Namespace) -> int:
    """Serves before an upstream of its own."""
    from dataclasses import replace

    from holdfast.gateway.settings import Settings, UpstreamSettings
    from holdfast.testing.background import in_background
    from holdfast.testing.chaos import ChaosServer
    from holdfast.testing.faults import CleanCut, ResetMidStream
    from holdfast.testing.schedule import Schedule

    faults = (ResetMidStream(after=20), CleanCut(after=45))
    chaos = ChaosServer(schedule=Schedule(streams={"*": faults}), every=0.03)
    with in_background(chaos) as upstream:
        names = ("openai", "openai-responses", "anthropic", "gemini")
        upstreams = tuple(
            UpstreamSettings(dialect=name, base_url=upstream.url, api_key="demo", name=f"demo-{name}") for name in names
        )
        return _serve(replace(_over(args, Settings()), upstreams=upstreams))


def _settings(args: argparse.Namespace) -> Settings:
    from dataclasses import replace

    from holdfast.gateway.config import environment_upstreams
    from holdfast.gateway.settings import Settings, UpstreamSettings

    settings = _over(args, Settings())
    if args.upstream:
        return replace(
            settings,
            upstreams=(UpstreamSettings(dialect=args.dialect or "openai-compatible", base_url=args.upstream),),
        )
    upstreams = environment_upstreams(os.environ)
    if not upstreams:
        raise UsageError("there is no upstream")
    return replace(settings, upstreams=upstreams)


def _over(args: argparse.Namespace, settings: Settings) -> Settings:
    """Puts what was said on the command line over what was said elsewhere. Raises `UsageError`."""
    from dataclasses import replace

    names = ("host", "port", "journal", "workers", "grace")
    said = {name: value for name in names if (value := getattr(args, name)) is not None}
    try:
        return replace(settings, **said)
    except ValueError as error:
        raise UsageError(f"--{error}") from None


def _serve(settings: Settings) -> int:
    from holdfast.gateway.serve import listen, run

    [sock] = listen(settings)
    with sock:
        host, port = sock.getsockname()[:2]
        print(f"holdfast gateway on http://{host}:{port}", flush=True)
        run(settings, sock)
    return 0


__all__ = ["add_parser", "run"]
