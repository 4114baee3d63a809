"""Which requests may go out again, and which answers are streams: the same in every client.

A stream is known by what comes back. What a request asks for only decides whether it may be sent again before a head
is there, and whether the clocks of a stream run meanwhile. Nothing here knows a client library.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from holdfast._types import Request
from holdfast.dialects import by_endpoint
from holdfast.mounts._relay import Mount

IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""Methods that may be sent again, whatever became of the first try: RFC 9110, section 9.2.2."""
_EVENTS = "text/event-stream"
_INSTEAD = ("text/html", "application/json", "text/plain", "")
"""What comes in the place of events that were asked for; other types are streams of another kind."""


@dataclass(slots=True, frozen=True)
class Policy:
    """What one request allows."""

    asks: bool
    """It wants a stream: asking again asks for the same."""
    surely: bool
    """It wants events, of a provider that is known: what is none of them is no answer."""
    repeatable: bool
    """It may be sent again."""

    @classmethod
    def of(cls, request: Request, mount: Mount, *, replayable: bool) -> Policy:
        """Judges a request; `replayable`: its body can be sent twice.

        Who takes JSON as well does not ask for a stream: MCP's clients do, of tools that must not run twice.
        """
        at = urlsplit(request.url)
        body = request.body
        accepts = next((value for name, value in request.headers.items() if name.lower() == "accept"), "")
        wants = accepts.partition(";")[0].strip().lower() == _EVENTS or "alt=sse" in at.query.split("&")
        wants = wants or (isinstance(body, Mapping) and body.get("stream") is True)
        asks = wants or at.path.endswith(":streamGenerateContent")
        return cls(
            asks=asks,
            surely=wants and (mount.dialect != "auto" or by_endpoint(request.url) is not None),
            repeatable=replayable and (asks or request.method in IDEMPOTENT),
        )

    def takes(self, content_type: str) -> bool:
        """Says whether an answer with status 2xx is for the pipe to judge."""
        kind = content_type.partition(";")[0].strip().lower()
        return self.asks and (kind == _EVENTS or (self.surely and kind in _INSTEAD))


def is_stream(method: str, status: int, content_type: str) -> bool:
    """Says whether an answer is a stream of events; one that cannot have a body is none."""
    if method == "HEAD" or not 200 <= status < 300 or status in (204, 205):
        return False
    return content_type.partition(";")[0].strip().lower() == _EVENTS


def as_utf8(content_type: str) -> str:
    """Gives a stream's content type without a charset that streams of events cannot have: they are UTF-8 always.

    A client that believes such a head reads other words: httpx and httpx2 by lines, and MCP's client with them.
    """
    kind, *parameters = content_type.split(";")
    if kind.strip().lower() != _EVENTS:
        return content_type
    kept = [one for one in parameters if not _is_wrong(one)]
    return content_type if len(kept) == len(parameters) else ";".join([kind, *kept])


def _is_wrong(parameter: str) -> bool:
    name, _, value = parameter.partition("=")
    return name.strip().lower() == "charset" and value.strip(' "').lower() not in ("utf-8", "utf8")


def document(body: bytes | None) -> Mapping[str, Any] | bytes | None:
    """Gives a body as the JSON object that it is, or else as it is: how an answer goes on is asked in an object."""
    if body is None or not body.lstrip().startswith(b"{"):
        return body
    try:
        value: Any = json.loads(body)
    except (ValueError, RecursionError):
        return body
    return value if isinstance(value, dict) else body
