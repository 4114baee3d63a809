"""`holdfast gateway`: the pipe before every client in every language.

With a provider's key in the environment it needs no configuration; with `--demo` it needs no key either: it brings an
upstream that fails by schedule. It must never print a key, but for the one that it has just made.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from holdfast._errors import UsageError
from holdfast.dialects import at_address, find
from holdfast.gateway.config import environment_upstreams, is_loopback, load, with_keys
from holdfast.gateway.settings import KeySettings, Settings, UpstreamSettings
from holdfast.gateway.surfaces import SURFACES

_EXAMPLES = """examples:
  holdfast gateway --demo
  DEEPSEEK_API_KEY=... holdfast gateway
  holdfast gateway --upstream http://localhost:8000/v1 --dialect vllm
  holdfast gateway --config gateway.toml --workers 4 --journal redis://localhost
  holdfast gateway --config gateway.toml --check
  holdfast gateway new-key phone >> gateway.toml"""

_FLAGS = ("host", "port", "journal", "workers", "grace", "drain", "open")
"""The settings that have a flag of their own name."""
_EVERYWHERE = ("", "0.0.0.0", "::")  # noqa: S104 - compared with


def add_parser(subparsers: Any) -> None:
    """Declares the command."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "gateway",
        help="serve streams that survive the client, the network and the gateway itself",
        description="""\
Serves the APIs of the providers whose keys are in the environment: their
streams do not break, and readers come back to them. SIGTERM or Ctrl-C ends it
when what runs has ended, a second one at once.

  holdfast gateway                 serves
  holdfast gateway new-key [NAME]  makes a gateway key: shown once, its hash as
                                   a block for the --config file""",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("words", nargs="*", metavar="new-key [NAME]", help="make a key instead")
    add("--host", metavar="HOST", help="on which address (127.0.0.1)")
    add("--port", type=int, metavar="N", help="where to listen (8700); 0 is any free port")
    add("--upstream", metavar="URL", help="whom to ask, in the place of the providers whose keys are there")
    add("--dialect", metavar="NAME", help="what is spoken at --upstream, where its address does not tell")
    add("--journal", metavar="WHERE", help="where streams are kept: memory (the default), none, or redis://HOST")
    add("--workers", type=int, metavar="N", help="processes that share the port (1)")
    add("--grace", type=float, metavar="S", help="seconds that a stream goes on which nobody reads (60)")
    add("--drain", type=float, metavar="S", help="seconds that streams go on behind a SIGTERM (30)")
    add("--config", metavar="FILE", help="a TOML file, for more than this; what is said here is over it")
    add("--check", action="store_true", help="say what would be served, or what is wrong, and leave")
    add("--log", metavar="FILE", help="append the structured log to FILE, for `holdfast logs FILE`")
    add("--open", action="store_true", default=None, help="let everybody in at an address that others can reach")
    add("--demo", action="store_true", help="bring an upstream whose streams fail; needs no key and no network")


def run(args: argparse.Namespace) -> int:
    """Serves until a signal comes."""
    if args.words:
        return _new_key(args.words)
    if args.demo:
        return _demo(args)
    settings = _settings(args, os.environ)
    if args.check:
        return _checked(settings)
    return _serve(settings, args.log)


# -- keys --------------------------------------------------------------------------------------


def _new_key(words: list[str]) -> int:
    """Prints the key where a person sees it, and its block where a file may take it: a file has only the hash."""
    from holdfast.gateway.door import digest_of, new_key

    if words[0] != "new-key" or len(words) > 2:
        raise UsageError(f"holdfast gateway takes new-key [NAME], or options, not {' '.join(words)!r}")
    name = words[1] if len(words) > 1 else "default"
    key = new_key()
    try:
        settings = KeySettings(name=name, sha256=digest_of(key))
    except ValueError as error:
        raise UsageError(f"the key's {error}") from None
    print(f"The key, shown this once: {key}\nIts block for the --config file:", file=sys.stderr, flush=True)
    print(f'\n[[keys]]\nname = "{settings.name}"\nsha256 = "{settings.sha256}"')
    return 0


# -- settings ----------------------------------------------------------------------------------


def _settings(args: argparse.Namespace, environment: Mapping[str, str]) -> Settings:
    """Gives what the file says, what the command line says over it, and the environment's keys where neither does."""
    settings = _over(args, load(Path(args.config), environment) if args.config else Settings())
    if args.upstream:
        settings = replace(settings, upstreams=(_upstream(args.upstream, args.dialect),))
    elif args.dialect:
        settings = replace(settings, upstreams=(UpstreamSettings(dialect=find(args.dialect).name),))
    elif not settings.upstreams:
        settings = replace(settings, upstreams=environment_upstreams(environment))
    return with_keys(settings, environment)


def _over(args: argparse.Namespace, settings: Settings) -> Settings:
    said = {name: value for name in _FLAGS if (value := getattr(args, name)) is not None}
    try:
        return replace(settings, **said)
    except ValueError as error:
        raise UsageError(f"--{error}") from None


def _upstream(url: str, dialect: str | None) -> UpstreamSettings:
    """Gives what is at an address: where nothing tells what is spoken there, it is what most servers speak."""
    try:
        if dialect is not None:
            return UpstreamSettings(dialect=find(dialect).name, base_url=url)
        try:
            found, base = at_address(url)
        except UsageError:
            return UpstreamSettings(dialect="openai-compatible", base_url=url)
        return UpstreamSettings(dialect=found.name, base_url=base)
    except ValueError as error:
        raise UsageError(f"--upstream: {str(error).removeprefix('base_url: ')}") from None


# -- the demo ----------------------------------------------------------------------------------


_INVENTED = "(An invented text of the demo's, in several scripts: no model was asked.)\n\n"


def _demo(args: argparse.Namespace) -> int:
    """Serves before an upstream of its own, in whose every answer two faults strike."""
    from holdfast.testing.answers import Answer, in_pieces, write_answer
    from holdfast.testing.background import in_background
    from holdfast.testing.chaos import ChaosServer
    from holdfast.testing.faults import CleanCut, Healthy, ResetMidStream
    from holdfast.testing.schedule import Schedule

    def write(seed: str) -> Answer:
        answer = write_answer(seed)
        return replace(answer, pieces=(*in_pieces(_INVENTED), *answer.pieces))

    settings = _over(args, Settings())
    if settings.workers > 1 or args.upstream or args.config:
        raise UsageError("--demo brings its own upstream, for one worker: leave --upstream, --config and --workers out")
    faults = (ResetMidStream(after=25), CleanCut(after=60), Healthy()) * 1000
    chaos = ChaosServer(schedule=Schedule(streams={"*": faults}), every=0.02, write=write)
    with in_background(chaos) as upstream:
        names = ("deepseek", "gemini")  # which answer at all paths
        upstreams = tuple(UpstreamSettings(dialect=name, base_url=upstream.url, api_key="demo") for name in names)
        return _serve(replace(settings, upstreams=upstreams), args.log, demo=True)


# -- serving -----------------------------------------------------------------------------------


def _serve(settings: Settings, log: str | None, *, demo: bool = False) -> int:
    from holdfast.gateway.serve import serve_port

    def started(bound: Settings) -> None:
        print("\n".join(_greeting(bound, demo=demo)), flush=True)
        _warn(bound)

    def work(serve: Callable[[], None]) -> int:
        """What each process does: one line for a person where it fails, and a log of its own."""
        from holdfast.cli import _fail
        from holdfast.gateway.journal import JournalError

        try:
            with _logged(log):
                serve()
        except JournalError as failure:  # it is elsewhere, and no mistake of ours
            _say(str(failure))
            return 1
        except Exception as failure:  # noqa: BLE001 - the border to a person
            return _fail(failure)
        return 0

    return serve_port(settings, started=started, tell=_say, work=work)


@contextlib.contextmanager
def _logged(log: str | None) -> Iterator[None]:
    if log is None:
        yield
        return
    from holdfast.telemetry.logs import configure_logs

    configure_logs(log, json=True)
    try:
        yield
    finally:
        configure_logs(level=None)


def _checked(settings: Settings) -> int:
    from holdfast.gateway.serve import rehearse

    rehearse(settings)
    upstreams = len(settings.upstreams)
    print(f"The configuration can be served, on host {settings.host or 'any'} port {settings.port}:")
    print(f"  {_about(settings)}, {upstreams} upstream{'s' * (upstreams != 1)}")
    print("\n".join(_served(settings)))
    _warn(settings)
    return 0


def _greeting(settings: Settings, *, demo: bool) -> Iterator[str]:
    url = _url(settings)
    everywhere = f" (all addresses, {settings.host or '*'})" if settings.host in _EVERYWHERE else ""
    yield f"holdfast gateway on {url}{everywhere}: {_about(settings)}"
    yield from _served(settings)
    if demo:
        yield f"Open {url}/try in a browser: every answer breaks on its way, and arrives whole. Or:"
    else:
        yield "Try it:"
    yield from _example(settings, url)


def _about(settings: Settings) -> str:
    where = "Redis" if settings.journal not in ("memory", "none") else settings.journal
    keys = "no keys needed" if not settings.keys else f"{len(settings.keys)} key{'s' * (len(settings.keys) != 1)}"
    workers = f", {settings.workers} workers" if settings.workers > 1 else ""
    return f"journal {where}, {keys}{workers}"


def _served(settings: Settings) -> Iterator[str]:
    """Says which paths are served, and by whom."""
    for surface in SURFACES.values():
        names = [one.name or one.dialect for one in settings.upstreams if surface.dialect_of(one.dialect) is not None]
        if names and surface.path:
            yield f"  {_plain(surface.path):<46} {', '.join(names)}"


def _plain(path: str) -> str:
    """Gives a route as a person writes it, with the newest of the versions that it takes."""
    return re.sub(r"\{(\w+):[^{}]*\}", r"{\1}", path).replace("{version}", "v1beta")


def _example(settings: Settings, url: str) -> Iterator[str]:
    """Gives a command that shows a stream."""
    for surface in SURFACES.values():
        for one in settings.upstreams:
            dialect = surface.dialect_of(one.dialect)
            if surface.name not in ("chat", "messages", "responses") or dialect is None:
                continue
            model = one.model or dialect.default_model or next((m for m in one.models if "*" not in m), "MODEL")
            asked = {
                "chat": '"messages": [{"role": "user", "content": "Why is the sky blue?"}]',
                "messages": '"max_tokens": 500, "messages": [{"role": "user", "content": "Why is the sky blue?"}]',
                "responses": '"input": "Why is the sky blue?"',
            }[surface.name]
            key = ' -H "Authorization: Bearer $GATEWAY_KEY"' if settings.keys else ""
            insecure = "k" if settings.certificate is not None else ""
            yield f"  curl -sN{insecure} {url}{surface.path}{key} -H 'Content-Type: application/json' \\"
            yield f"""    -d '{{"model": "{model}", "stream": true, {asked}}}'"""
            return


def _url(settings: Settings) -> str:
    host = settings.host if settings.host not in _EVERYWHERE else "localhost"
    host = f"[{host}]" if ":" in host else host
    return f"http{'s' * (settings.certificate is not None)}://{host}:{settings.port}"


def _warn(settings: Settings) -> None:
    if not settings.keys and not is_loopback(settings.host):
        _say(f"warning: everybody who can reach {settings.host or 'this machine'} may ask at your expense (--open)")


def _say(words: str) -> None:
    print(f"holdfast: {words}", file=sys.stderr, flush=True)


__all__ = ["add_parser", "run"]
