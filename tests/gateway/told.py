"""What a stream of the chat shape says to who reads it by hand."""

from __future__ import annotations

import json

from holdfast import parse_events


def told_text(body: bytes) -> str:
    """Gives the text of the first choice."""
    chunks = (json.loads(event.data) for event in parse_events(body).events if event.data.startswith("{"))
    deltas = (chunk["choices"][0]["delta"] for chunk in chunks if chunk.get("choices"))
    return "".join(delta.get("content") or "" for delta in deltas)
