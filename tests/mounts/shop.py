"""What the tests of mounts share: a known answer on the wire, and chance that never waits."""

from __future__ import annotations

import json
from typing import Any

from holdfast.layers.parse import parse_sse
from holdfast.layers.verify import verify
from holdfast.testing.server import LAST_CHUNK, STREAM_HEAD, Send, Step, chunked, sse

PIECES = ("潮", "起潮落", " 🌊", " and", " the", " kelp", " holds", ".")
TEXT = "".join(PIECES)
DONE = b"data: [DONE]\n\n"
BODY = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "a secret prompt"}]}
CHAT = "/v1/chat/completions"

WHOLE = (parse_sse(comments=True), verify("auto", relay=True))
"""The least that a mount's own layers must be."""


class Nought:
    """Chance without chance: full jitter of it waits 0 s."""

    def random(self) -> float:
        return 0.0


def chunk(delta: dict[str, Any], *, finish: str | None = None, answer: str = "a1") -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    made = {"id": answer, "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return sse(json.dumps(made, ensure_ascii=False))


def answer(name: str = "a1", pieces: tuple[str, ...] = PIECES) -> list[bytes]:
    """Gives an answer's events, `[DONE]` the last."""
    first, last = chunk({"role": "assistant", "content": ""}, answer=name), chunk({}, finish="stop", answer=name)
    return [first, *(chunk({"content": piece}, answer=name) for piece in pieces), last, DONE]


EVENTS = answer()
WIRE = b"".join(EVENTS)


def begun(*more: Step, events: list[bytes] = EVENTS[:5]) -> list[Step]:
    """A stream that begins well, and goes on with other steps."""
    return [Send(STREAM_HEAD), *(Send(chunked(event)) for event in events), *more]


def healthy(events: list[bytes] = EVENTS) -> list[Step]:
    return begun(Send(LAST_CHUNK), events=events)


def text_of(data: bytes) -> str:
    """Puts the text together that a stream's bytes tell."""
    lines = [line[6:] for line in data.splitlines() if line.startswith(b"data: ") and line != DONE.strip()]
    deltas = [json.loads(line)["choices"][0]["delta"] for line in lines]
    return "".join(delta.get("content") or "" for delta in deltas)
