"""Surfaces: the paths that clients know, whose wire each speaks, and which dialect of an upstream answers there.

A table, and nothing that waits. A new one is a line here.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace

from holdfast.dialects import Dialect, find

_NO_DIALECTS: Mapping[str, str] = {}
_GEMINI_PATH = r"/{version:v1|v1beta|v1alpha}/models/{model:[^/:]+}"


@dataclass(slots=True, frozen=True, kw_only=True, eq=False)
class Surface:
    """One path. `dialects` says which dialect an upstream speaks there, by its own: those not named speak as they are.

    `wire` is the wire that clients of this path read: what upstreams of another wire say is not for them.
    """

    name: str
    path: str
    """As the server's routes have it."""
    wire: str
    """The name of a dialect with that wire."""
    dialects: Mapping[str, str]
    instead: tuple[str, str] = ("", "")
    """What of a dialect's path becomes what here; an upstream whose path has nothing of the kind is not asked."""
    in_path: bool = False
    """The address says of which model an answer is asked for, and whether as a stream (Gemini)."""
    streamed: bool = True
    """False for a path that gives no event stream, whatever the body says."""

    def dialect_of(self, upstream: str) -> Dialect | None:
        """Gives the dialect that an upstream speaks here, None where it speaks none of this wire."""
        return _dialect_of(self, upstream)


@functools.cache
def _dialect_of(surface: Surface, upstream: str) -> Dialect | None:
    dialect = find(surface.dialects.get(upstream, upstream))
    if type(dialect.wire) is not type(find(surface.wire).wire):
        return None
    before, here = surface.instead
    if not before:
        return dialect
    # Whatever a dialect has to go on from a place is of its own path.
    path = dialect.path.replace(before, here)
    return None if path == dialect.path else replace(dialect, path=path, prefix=None, cursor=None)


CHAT = Surface(name="chat", path="/v1/chat/completions", wire="openai", dialects=_NO_DIALECTS)
COMPLETIONS = Surface(
    name="completions",
    path="/v1/completions",
    wire="openai",
    dialects=_NO_DIALECTS,
    instead=("/chat/completions", "/completions"),
)
RESPONSES = Surface(
    name="responses",
    path="/v1/responses",
    wire="openai-responses",
    dialects={"openai": "openai-responses", "deepseek": "deepseek-responses"},
)
MESSAGES = Surface(name="messages", path="/v1/messages", wire="anthropic", dialects={"deepseek": "deepseek-anthropic"})
GEMINI = Surface(
    name="gemini", path=_GEMINI_PATH + ":streamGenerateContent", wire="gemini", dialects=_NO_DIALECTS, in_path=True
)
GEMINI_WHOLE = Surface(
    name="gemini-whole",
    path=_GEMINI_PATH + ":generateContent",
    wire="gemini",
    dialects=_NO_DIALECTS,
    instead=(":streamGenerateContent?alt=sse", ":generateContent"),
    in_path=True,
    streamed=False,
)
GEMINI_ARRAY = Surface(
    name="gemini-array",
    path="",  # the path is GEMINI's: it is asked for by a query without alt=sse
    wire="gemini",
    dialects=_NO_DIALECTS,
    instead=(":streamGenerateContent?alt=sse", ":streamGenerateContent"),
    in_path=True,
    streamed=False,
)

SURFACES: Mapping[str, Surface] = {
    one.name: one for one in (CHAT, COMPLETIONS, RESPONSES, MESSAGES, GEMINI, GEMINI_WHOLE, GEMINI_ARRAY)
}
"""Every surface by its name."""


def surface_for(path: str) -> Surface:
    """Gives the surface in whose words a refusal at a path is read best."""
    if path.startswith("/v1/messages"):
        return MESSAGES
    if path.startswith("/v1/responses"):
        return RESPONSES
    return GEMINI if path.startswith(("/v1beta/", "/v1alpha/", "/upload/")) else CHAT
