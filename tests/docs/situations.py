"""What a migration page's programs meet: a server of chat completions, or of numbered events, that fails once.

The first request meets what the situation says, every later one is served without a fault.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from holdfast.testing.server import (
    LAST_CHUNK,
    STREAM_HEAD,
    ReceivedRequest,
    Reset,
    Send,
    Step,
    chunked,
    sse,
)

WORDS = ("Kelp ", "holds ", "on ", "to ", "rocks ", "with ", "its ", "holdfast.")
FEED = ("one", "two", "three", "four", "five", "six")


class Situation:
    """Answers requests; `name` is what a page says after a program's name: its first word is the fault."""

    def __init__(self, name: str) -> None:
        self.fault, _, self.detail = name.partition(", ")
        if self.fault not in ("healthy", "reset", "truncated", "half an event"):
            raise ValueError(f"no such situation: {name!r}")
        if self.detail not in ("", "another answer", "ids ignored"):
            raise ValueError(f"no such situation: {name!r}")
        self.requests = 0

    def __call__(self, request: ReceivedRequest) -> Iterator[Step]:
        self.requests += 1
        events = self._feed(request) if request.method == "GET" else self._answer()
        cut = self.requests == 1 and self.fault != "healthy"
        yield Send(STREAM_HEAD)
        for event in events[:4] if cut else events:
            yield Send(chunked(event))
        if cut and self.fault == "reset":
            yield Reset()
        elif cut and self.fault == "half an event":
            yield Send(chunked(events[4][: len(events[4]) // 2 + 4]))
            yield Send(LAST_CHUNK)
        else:
            yield Send(LAST_CHUNK)

    def _answer(self) -> list[bytes]:
        words: tuple[str, ...] = WORDS
        if self.detail == "another answer" and self.requests > 1:
            words = ("A ", "holdfast ", "grips ", "the ", "rock.")
        chunks = [_chunk({"role": "assistant", "content": ""}), *(_chunk({"content": word}) for word in words)]
        # Browsers and EventSource obey `retry:`; 20 ms keep the tests short.
        return [b"retry: 20\n" + chunks[0], *chunks[1:], _chunk({}, "stop"), b"data: [DONE]\n\n"]

    def _feed(self, request: ReceivedRequest) -> list[bytes]:
        last = request.headers.get("last-event-id", "")
        begin = int(last) if last and self.detail != "ids ignored" else 0
        events = [sse(text, id=str(number)) for number, text in enumerate(FEED, 1)]
        return [b"retry: 20\n" + event if place == 0 else event for place, event in enumerate(events[begin:])]


def _chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
    return sse(json.dumps({"id": "one", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}))
