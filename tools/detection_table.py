"""Writes docs/detection.md: `python -m tools.detection_table`. For each silent fault and dialect, what detects it.

Nothing is typed by hand: every cell comes from runs in memory in which the fault really strikes at each place of an
answer. tests/docs/test_detection.py keeps the page true.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from fuzz.targets.dialects import families
from holdfast._core import Source, Stream
from holdfast._errors import StreamBroken, StreamError
from holdfast._pipe import Pipe
from holdfast._types import Head, Request
from holdfast.dialects import DIALECTS, ChatWire, Dialect
from holdfast.layers.parse import parse_sse
from holdfast.layers.reconnect import Reconnect
from holdfast.layers.verify import verify
from holdfast.sources.memory import MemorySource
from holdfast.testing import FakeClock
from holdfast.testing.acts import Asked, Bytes, acts
from holdfast.testing.faults import SILENT, Fault

PAGE = Path(__file__).resolve().parent.parent / "docs/detection.md"
WORDS = ("The", " tide", " pulls", ",", " the", " kelp", " holds", ".")
DONE = b"data: [DONE]\n\n"

INTRODUCTION = """# Silent corruption: what detects it

Evident faults leave a trace, and under them a stream ends exact or in a typed error. The faults below leave none by
themselves. Each was played in memory at every place of a short answer: with plain events, with an `id:` on each event,
with strict decoding, and with a digest in the head. A cell says what became of it: **harmless** (the answer is the true
one), **mended** (what the reader counts as repaired or dropped), the error that was raised, or **nothing**: the
answer is wrong at some place, and no reader could know; **-**: it cannot strike there. What is cut besides is resumed.
Written by `python -m tools.detection_table`.

"""


def events(*, ids: bool) -> list[bytes]:
    """The answer, as every speaker of the chat shape sends it."""
    deltas: list[dict[str, str]] = [{"role": "assistant", "content": ""}, *({"content": word} for word in WORDS)]
    chunks: list[dict[str, Any]] = [
        {"id": "a", "choices": [{"index": 0, "delta": d, "finish_reason": None}]} for d in deltas
    ]
    ending = {"index": 0, "delta": {}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 5, "completion_tokens": 8, "total_tokens": 13}
    chunks.append({"id": "a", "choices": [ending], "usage": usage})
    lines = [b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks]
    return [*(b"id: %d\n" % n + line if ids else line for n, line in enumerate(lines, 1)), DONE]


def placed(fault: Fault, place: int) -> Fault:
    """The same fault after so many events, where it strikes at a place."""
    if not isinstance(fault, msgspec.Struct) or "after" not in fault.__struct_fields__:
        return fault
    moved: Any = msgspec.structs.replace(fault, after=place)
    return moved  # type: ignore[no-any-return]  # the same type, which msgspec does not say


def spoilt(fault: Fault, healthy: Sequence[bytes]) -> bytes:
    """The body with the fault in it."""
    return b"".join(act.data for act in acts(fault.play(Asked()), healthy) if isinstance(act, Bytes))


@dataclass(slots=True)
class Upstream:
    """Serves the answer, from a Last-Event-ID on where there are ids; the first time as `first` has it."""

    healthy: Sequence[bytes]
    first: bytes
    head: Head
    asked: int = 0

    async def open(self, request: Request) -> Stream[bytes]:
        self.asked += 1
        if self.asked > 1:
            begin = int(request.headers.get("Last-Event-ID", "0"))
            return await MemorySource(b"".join(self.healthy[begin:]), head=self.head).open(request)
        cut = [] if self.first.endswith(DONE) else [StreamBroken("reset")]
        return await MemorySource([self.first, *cut], head=self.head).open(request)


async def outcome(source: Source[bytes], dialect: Dialect, *, strict: bool) -> str:
    """What a reader makes of it that resumes what is cut."""
    truth = "".join(WORDS)
    async with FakeClock() as clock:
        pipe = Pipe(source, clock=clock) | parse_sse(strict=strict) | verify(dialect)
        # No fault here is evident by itself, so what breaks the stream is what detects the fault, and is shown.
        whole = pipe | Reconnect() if isinstance(source, Upstream) and not source.first.endswith(DONE) else pipe
        try:
            async with whole.stream(Request(body={})) as stream:
                async for _ in stream.batches():
                    pass
                text = stream.completion.text
        except StreamError as error:
            return f"`{type(error).__name__}`"
    if stream.report.repaired or (stream.report.dropped and text == truth):
        return "mended"
    return "harmless" if text == truth else "**nothing**"


def cell(fault: Fault, dialect: Dialect, way: str) -> str:
    """All that becomes of a fault over the places at which it may strike, the worst first."""
    healthy = events(ids=way == "ids")
    digest = base64.b64encode(hashlib.sha256(b"".join(healthy)).digest()).decode()
    headers = {"content-type": "text/event-stream"}
    if way == "digest":
        headers["content-digest"] = f"sha-256=:{digest}:"
    found: set[str] = set()
    for place in range(1, len(healthy) - 3):
        body = spoilt(placed(fault, place), healthy)
        if body == b"".join(healthy) or (way == "digest" and not body.endswith(DONE)):
            continue  # it did not strike, or no digest of a cut body is ever compared
        source = Upstream(healthy, body, Head(headers=headers))
        found.add(asyncio.run(outcome(source, dialect, strict=way == "strict")))
    order = ("**nothing**", "mended", "harmless")
    return ", ".join(sorted(found, key=lambda said: (order.index(said) if said in order else 9, said))) or "-"


def page() -> str:
    """Gives the whole page."""
    parts = [INTRODUCTION]
    for family in families(dialect for dialect in DIALECTS.values() if isinstance(dialect.wire, ChatWire)):
        dialect = family[0]
        parts.append(f"## {', '.join(one.name for one in family)}\n\n")
        parts.append("| fault | plain | with ids | strict decoding | digest |\n|---|---|---|---|---|\n")
        for fault in SILENT:
            cells = (cell(fault, dialect, way) for way in ("plain", "ids", "strict", "digest"))
            parts.append(f"| {_name(fault)} | {' | '.join(cells)} |\n")
        parts.append("\n")
    return "".join(parts).rstrip("\n") + "\n"


def _name(fault: Fault) -> str:
    return str(fault).partition(" after ")[0].rstrip(", ")


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
