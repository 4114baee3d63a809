"""Guesses who answers: from the address that was asked, or from the first events alone.

An address names its provider by host, and the shape by the end of its path; where they disagree the path is right,
because providers serve the shapes of others beside their own. Events tell their shape for sure or not at all, and of
the many who speak the chat shape those that leave a mark of their own in it. A guess is never a half: None says that
there is nothing to go by.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from holdfast._types import Event
from holdfast.dialects import DIALECTS, Dialect
from holdfast.dialects._profiles import profile_of
from holdfast.dialects._wire import plain

_SHAPES = {
    "openai-compatible": "/chat/completions",
    "openai-responses": "/responses",
    "anthropic": "/v1/messages",
    "gemini": ":streamGenerateContent",
    "gemini-interactions": "/interactions",
    "cohere": "/v2/chat",
    "mcp": "/mcp",
}
"""For each shape the dialect that speaks it wherever it is spoken, and how addresses of it end."""


def by_address(url: str) -> Dialect | None:
    """Gives the dialect that is spoken at an address, None where neither its host nor its path is known."""
    at = urlsplit(url)
    host, path = (at.hostname or "").lower(), at.path.rstrip("/")
    shape = next((DIALECTS[name] for name, ending in _SHAPES.items() if path.endswith(ending)), None)
    here = [dialect for dialect in DIALECTS.values() if any(_lives(host, known) for known in dialect.hosts)]
    if shape is None:
        return here[0] if here else None
    return next((dialect for dialect in here if type(dialect.wire) is type(shape.wire)), shape)


def _lives(host: str, known: str) -> bool:
    return host.endswith(known) if known.startswith(".") else host == known


def by_events(events: Sequence[Event]) -> Dialect | None:
    """Gives the dialect of which the first events surely are, None where they could be anybody's.

    The chat shape without a mark of its speaker is `openai-compatible`, which forgives most.
    """
    shape = next(
        (DIALECTS[name] for event in events for name in _SHAPES if DIALECTS[name].wire.recognises(event)), None
    )
    if shape is None or shape.name != "openai-compatible":
        return shape
    chunks = [chunk for event in events if isinstance(chunk := plain(event), dict)]
    return next((DIALECTS[name] for chunk in chunks if (name := profile_of(chunk)) is not None), shape)
