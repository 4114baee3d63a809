"""Reads the same event streams with other Python parsers, and writes where they leave the standard.

    python -m tools.differential          writes docs/differential.md from the golden cases of tests/golden.py
    HOLDFAST_VECTORS=... python -m tools.differential --count    counts agreement over more vectors, theme by theme

Each body is read whole and byte by byte. What an event says is compared: type, data, last event id; and after the last
event the id and the reconnection time that a reader would go by, as far as a reader can learn them.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import logging
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.golden import CASES, Case, Said

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "differential.md"
HEADERS = {"content-type": "text/event-stream"}


@dataclass(slots=True, frozen=True)
class Heard:
    """What a parser made of a body. `failure` names the exception it ended with."""

    events: tuple[Said, ...] = ()
    last_event_id: str = ""
    retry: int | None = None
    failure: str = ""


def _heard(events: Iterable[Any], read: Callable[[Any], tuple[Said, int | None]]) -> Heard:
    """Collects from a parser that tells ids and times in its events alone."""
    said: list[Said] = []
    retry = None
    failure = ""
    try:
        for event in events:
            one, time = read(event)
            said.append(one)
            retry = time if time is not None else retry
    except Exception as error:  # noqa: BLE001 - whatever it raises is what it says
        failure = type(error).__name__
    return Heard(tuple(said), said[-1].last_event_id if said else "", retry, failure)


def _as_httpx(event: Any) -> tuple[Said, int | None]:
    return Said(event.data, event.event or "message", event.id or ""), event.retry


def httpx_sse(chunks: Sequence[bytes]) -> Heard:
    import httpx  # noqa: PLC0415 - each peer is imported where it is asked
    from httpx_sse import EventSource  # noqa: PLC0415

    response = httpx.Response(200, headers=HEADERS, content=iter(chunks))
    return _heard(EventSource(response).iter_sse(), _as_httpx)


def httpx2(chunks: Sequence[bytes]) -> Heard:
    import httpx2  # noqa: PLC0415

    request = httpx2.Request("GET", "http://localhost")
    response = httpx2.Response(200, headers=HEADERS, content=iter(chunks), request=request)
    return _heard(httpx2.EventSource(response), _as_httpx)


def openai(chunks: Sequence[bytes]) -> Heard:
    from openai._streaming import SSEDecoder  # noqa: PLC0415 - what its streams are made of has no public name

    return _heard(SSEDecoder().iter_bytes(iter(chunks)), _as_httpx)


def aiohttp_sse_client(chunks: Sequence[bytes]) -> Heard:
    return asyncio.run(_event_source(chunks))


async def _event_source(chunks: Sequence[bytes]) -> Heard:
    """`EventSource` connects again for ever; its first wish to do so is the end of the body."""
    from aiohttp import StreamReader  # noqa: PLC0415
    from aiohttp.base_protocol import BaseProtocol  # noqa: PLC0415
    from aiohttp_sse_client.client import EventSource  # type: ignore[import-untyped]  # noqa: PLC0415 - it has no types

    class EndError(Exception):
        pass

    class Protocol(BaseProtocol):
        def pause_reading(self) -> None:
            """Nothing is read from anywhere: all is there already."""

    def end() -> None:
        raise EndError

    loop = asyncio.get_running_loop()
    content = StreamReader(Protocol(loop), 2**16, loop=loop)
    for chunk in chunks:
        content.feed_data(chunk)
    content.feed_eof()
    # Its private attributes stand for what it would do: answer without a network, wait, send an id.
    source: Any = EventSource("http://localhost", session=SimpleNamespace(), on_error=end)
    vars(source)["_response"] = SimpleNamespace(status=200, content=content)
    before = vars(source)["_reconnection_time"]
    said: list[Said] = []
    failure = ""
    try:
        async for event in source:
            said.append(Said(event.data, event.type or "message", event.last_event_id))  # noqa: PERF401 - it may raise
    except EndError:
        pass
    except Exception as error:  # noqa: BLE001 - whatever it raises is what it says
        failure = type(error).__name__
    after = vars(source)["_reconnection_time"]
    retry = None if after is before else int(after.total_seconds() * 1000)
    return Heard(tuple(said), vars(source)["_last_event_id"], retry, failure)


def holdfast(chunks: Sequence[bytes]) -> Heard:
    from holdfast.offline import parse_events  # noqa: PLC0415

    log = parse_events(chunks)
    said = tuple(Said(e.data, e.type, e.last_event_id) for e in log.events)
    return Heard(said, log.last_event_id, None if log.retry is None else round(log.retry * 1000))


PEERS: dict[str, Callable[[Sequence[bytes]], Heard]] = {
    "holdfast": holdfast,
    "httpx-sse": httpx_sse,
    "httpx2": httpx2,
    "openai": openai,
    "aiohttp-sse-client": aiohttp_sse_client,
}


# -- comparing ---------------------------------------------------------------------------------


def difference(case: Case, parser: Callable[[Sequence[bytes]], Heard]) -> str:
    """Says in a few words how a parser leaves the standard; empty where it follows it."""
    whole = parser([case.body])
    cut = parser([case.body[i : i + 1] for i in range(len(case.body))])
    words = _words(case, whole)
    if cut != whole:
        other = _words(case, cut) or "as the standard says"
        words = f"{words or 'as the standard says'}; byte by byte: {other}"
    return words


def _words(case: Case, heard: Heard) -> str:
    if heard.failure:
        return f"`{heard.failure}` after {len(heard.events)} of {_count(len(case.events))}"
    said = heard.events
    if len(said) != len(case.events):
        strange = [e for e in said if not e.data] if not any(not e.data for e in case.events) else []
        without = ", of which without data: " + str(len(strange)) if strange and len(said) > len(case.events) else ""
        return f"{_count(len(said))}, not {len(case.events)}{without}"
    for mine, theirs in zip(case.events, said, strict=True):
        for what in ("data", "type", "last_event_id"):
            ours, other = getattr(mine, what), getattr(theirs, what)
            if ours != other:
                return f"{what.replace('_', ' ')} {_code(other)}, not {_code(ours)}"
    if heard.last_event_id != case.last_event_id:
        return f"id at the end {_code(heard.last_event_id)}, not {_code(case.last_event_id)}"
    if heard.retry != case.retry:
        return f"retry {_time(heard.retry)}, not {_time(case.retry)}"
    return ""


def _count(number: int) -> str:
    return f"{number} event" + "s" * (number != 1)


def _time(milliseconds: int | None) -> str:
    return "none" if milliseconds is None else str(milliseconds)


def _code(value: object) -> str:
    """Shows a value in a cell of a table: ASCII, and nothing that ends the cell."""
    return f"`{value!a}`".replace("|", "\\|")


# -- the page ----------------------------------------------------------------------------------


def page(cases: Iterable[Case] = CASES) -> str:
    """Gives the whole page."""
    cases = list(cases)
    found = {name: [difference(case, parser) for case in cases] for name, parser in PEERS.items()}
    names = list(PEERS)
    titles = ["holdfast", *(f"{name} {version(name)}" for name in names[1:])]
    lines = [INTRODUCTION, f"| theme | cases | {' | '.join(titles)} |", "|---" * (len(names) + 2) + "|"]
    for theme in dict.fromkeys(case.theme for case in cases):
        places = [i for i, case in enumerate(cases) if case.theme == theme]
        agreed = [str(sum(not found[name][i] for i in places)) for name in names]
        lines.append(f"| {theme} | {len(places)} | {' | '.join(agreed)} |")
    agreed = [str(sum(not words for words in found[name])) for name in names]
    lines += [f"| all | {len(cases)} | {' | '.join(agreed)} |", "", "## Where they do not", ""]
    lines += ["An empty cell: as the standard says.", ""]
    for theme in dict.fromkeys(case.theme for case in cases):
        rows = [i for i, case in enumerate(cases) if case.theme == theme and any(found[name][i] for name in names)]
        if not rows:
            continue
        lines += [f"### {theme}", "", f"| rule | body | {' | '.join(names[1:])} |", "|---" * (len(names) + 1) + "|"]
        for i in rows:
            cells = " | ".join(found[name][i] for name in names[1:])
            lines.append(f"| {cases[i].rule} | {_code(cases[i].body)} | {cells} |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


INTRODUCTION = """\
# Other parsers, and the standard

How four Python parsers of event streams read short bodies that
[the standard](https://html.spec.whatwg.org/multipage/server-sent-events.html) has an answer for: each body whole, and
byte by byte. Compared are the type, data and last event id of each event, and the id and the reconnection time after
the last one. This page is written by `python -m tools.differential` from tests/golden.py, and a test keeps it true.

Where httpx-sse, httpx2 and openai have more events than the standard, they hand over blocks without data: a reader
learns of a type, an id or a time that came alone, and has to tell such a block from an event whose data is empty.

## How many cases each reads as the standard says
"""


def count(path: Path) -> str:
    """Counts agreement over a file of vectors, theme by theme."""
    agreed: dict[str, Counter[str]] = defaultdict(Counter)
    for vector in json.loads(path.read_text("utf-8")):
        expect = vector["expect"]
        said = tuple(Said(e["data"], e["type"], e["last_event_id"]) for e in expect["events"])
        case = Case(
            vector["theme"],
            "",
            base64.b64decode(vector["input_b64"]),
            said,
            expect["last_event_id"],
            expect["retry_ms"],
        )
        agreed[case.theme]["cases"] += 1
        for name, parser in PEERS.items():
            agreed[case.theme][name] += not difference(case, parser)
    columns = ["cases", *PEERS]
    rows = [*agreed.items(), ("all", sum(agreed.values(), Counter()))]
    lines = ["".join(f"{word:>20}" for word in ["", *columns])]
    lines += ["".join(f"{word:>20}" for word in [theme, *(row[column] for column in columns)]) for theme, row in rows]
    return "\n".join(lines)


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", action="store_true", help="count over the vectors of HOLDFAST_VECTORS instead")
    logging.getLogger("aiohttp_sse_client").setLevel(logging.CRITICAL)  # it reports every odd `retry:`
    if parser.parse_args().count:
        vectors = os.environ.get("HOLDFAST_VECTORS", "")
        if not vectors:
            print("set HOLDFAST_VECTORS to a file of vectors", file=sys.stderr)
            return 2
        print(count(Path(vectors)))
        return 0
    PAGE.write_text(page(), "utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
