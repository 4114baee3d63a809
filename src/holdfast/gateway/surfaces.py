"""Surfaces: the paths that clients know, whose wire each speaks, and which dialect of an upstream answers there.

A table, and nothing that waits. A new one is a line here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from holdfast.dialects import Dialect, find


@dataclass(slots=True, frozen=True, kw_only=True)
class Surface:
    """One path. `dialects` says which dialect an upstream speaks there, by its own: those not named speak as they are.

    `wire` is the wire that clients of this path read: what upstreams of another wire say is not for them.
    """

    name: str
    path: str
    wire: str
    """The name of a dialect with that wire."""
    dialects: Mapping[str, str]
    in_path: bool = False
    """The address says whether a stream is asked for, and of which model (Gemini)."""

    def streams(self, path: str, body: Mapping[str, Any]) -> bool:
        """Says whether a request asks for a stream."""
        return path.endswith(":streamGenerateContent") if self.in_path else body.get("stream") is True

    def dialect_of(self, upstream: str) -> Dialect | None:
        """Gives the dialect that an upstream speaks here, None where it speaks none of this wire."""
        dialect = find(self.dialects.get(upstream, upstream))
        return dialect if type(dialect.wire) is type(find(self.wire).wire) else None


CHAT = Surface(name="chat", path="/v1/chat/completions", wire="openai", dialects={})
RESPONSES = Surface(
    name="responses",
    path="/v1/responses",
    wire="openai-responses",
    dialects={"openai": "openai-responses", "deepseek": "deepseek-responses"},
)
MESSAGES = Surface(name="messages", path="/v1/messages", wire="anthropic", dialects={"deepseek": "deepseek-anthropic"})
GEMINI = Surface(
    name="gemini", path="/v1beta/models/{model}:streamGenerateContent", wire="gemini", dialects={}, in_path=True
)

SURFACES: Mapping[str, Surface] = {one.name: one for one in (CHAT, RESPONSES, MESSAGES, GEMINI)}
"""Every surface by its name."""
