"""What a client is told when there is no answer, or only a part of one: in the words of the dialect that it speaks.

Before a stream begins it is a status and a document; inside one it is the dialect's own error event, and never an end
mark. Provider's words pass on where they are about the client's request; what concerns the gateway's own keys does not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from holdfast._errors import (
    BudgetExhausted,
    CircuitOpen,
    DeadlineExceeded,
    StatusError,
    StreamError,
    UpstreamError,
)
from holdfast.gateway.surfaces import Surface

_OURS = (401, 402, 403, 407)
"""Statuses that speak of the gateway's keys and not of the client's."""


@dataclass(slots=True, frozen=True)
class Refusal:
    """Why there is no answer. `status` is the HTTP status it has before a stream begins."""

    status: int
    code: str
    message: str
    retry_after: float | None = None
    headers: dict[str, str] = field(default_factory=dict)


def refusal_of(error: StreamError) -> Refusal:
    """Gives what a client is told of a failure. What the provider said of the client's own request is passed on."""
    code, message = type(error).__name__, str(error)
    status = 502
    if isinstance(error, StatusError):
        status = 502 if error.status in _OURS or not 400 <= error.status < 600 else error.status
        if status == error.status and error.message:
            code, message = error.code or error.type or code, error.message
    elif isinstance(error, UpstreamError):
        code, message = error.code or error.type or code, error.message or message
    elif isinstance(error, CircuitOpen):
        status = 503
    elif isinstance(error, BudgetExhausted):
        status = 429
    elif isinstance(error, DeadlineExceeded):
        status = 504
    return Refusal(status, code, message, error.retry_after)


def error_document(surface: Surface, refusal: Refusal) -> bytes:
    """Gives the body of an answer that is an error."""
    return msgspec.json.encode(_document(surface, refusal))


def error_event(surface: Surface, refusal: Refusal) -> bytes:
    """Gives the block that ends a stream which is not whole."""
    document = msgspec.json.encode(_document(surface, refusal))
    name = b"event: error\n" if surface.wire in ("anthropic", "openai-responses") else b""
    return name + b"data: " + document + b"\n\n"


def _document(surface: Surface, refusal: Refusal) -> dict[str, Any]:
    if surface.wire == "anthropic":
        return {"type": "error", "error": {"type": refusal.code, "message": refusal.message}}
    if surface.wire == "gemini":
        return {"error": {"code": refusal.status, "message": refusal.message, "status": refusal.code}}
    if surface.wire == "openai-responses":
        return {"type": "error", "code": refusal.code, "message": refusal.message, "param": None}
    return {"error": {"message": refusal.message, "type": refusal.code, "param": None, "code": refusal.code}}
