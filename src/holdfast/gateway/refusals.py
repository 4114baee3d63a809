"""What a client is told when there is no answer, or only a part of one: in the words of the dialect that it speaks.

Before a stream begins it is a status and a document; inside one it is the dialect's own error event, and never an end
mark. Provider's words pass on where they are about the client's request; what concerns the gateway's own keys and
account does not, and nothing that looks like a key does.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiohttp import web

from holdfast._errors import (
    BudgetExhausted,
    CircuitOpen,
    ConnectError,
    DeadlineExceeded,
    StatusError,
    StreamError,
    UpstreamError,
)
from holdfast.gateway.surfaces import Surface

_OURS = (401, 402, 403, 407)
"""Statuses that speak of the gateway's keys and not of the client's."""
_OF_THE_ACCOUNT = re.compile(
    r"api.?key|authenti|permission|billing|credit|balance|quota|organi[sz]ation|account", re.IGNORECASE
)
_ABOUT_THE_ACCOUNT = re.compile(
    r"api.?key|billing|credit balance|insufficient.balance|your account|organi[sz]ation|current quota", re.IGNORECASE
)
"""Codes and words by which providers speak of whoever pays."""
_KEY = re.compile(r"(?:(?:sk|pk|rk|gsk|xai|hf|r8|pplx)[-_]|AIza|Bearer\s+)[\w.*/+=-]{6,}")
"""How keys look, starred out or not."""
_HOST = re.compile(r"^\[?[\w.:-]+\]?:\d+: ")
"""How messages of a connection begin."""
HIDDEN = "[redacted]"
_IN_VAIN = {"x-should-retry": "false"}
"""Keeps SDKs from asking again for nothing."""
_REFUSES_US = "the upstream refused the gateway: its key or account there is in no order"


@dataclass(slots=True, frozen=True)
class Refusal:
    """Why there is no answer. `status` is the HTTP status it has before a stream begins."""

    status: int
    code: str
    message: str
    retry_after: float | None = None
    """Seconds."""
    headers: dict[str, str] = field(default_factory=dict)
    type: str = ""
    """The provider's own; by the status where it is empty."""
    param: str | None = None


class Refused(Exception):
    """There is no answer, and why."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


def refusal_of(error: StreamError) -> Refusal:
    """Gives what a client is told of a failure. What the provider said of the client's own request is passed on."""
    if isinstance(error, StatusError):
        told = _of_status(error)
    elif isinstance(error, UpstreamError):
        told = _of_event(error)
    elif isinstance(error, BudgetExhausted):
        return _of_limit(error)
    else:
        told = Refusal(_status_of(error), type(error).__name__, _words(error))
    again = error.retry_after
    # SDKs ask again at any 5xx, and learn nothing new where it is no fault that passes.
    hopeless = told.status >= 500 and not error.retryable and not isinstance(error, CircuitOpen)
    headers = _IN_VAIN if hopeless else {}
    return Refusal(told.status, told.code, mask(told.message), again, headers, told.type, told.param)


def mask(text: str) -> str:
    """Takes what looks like a key out of a text."""
    return _KEY.sub(HIDDEN, text)


def _of_limit(error: BudgetExhausted) -> Refusal:
    """What a limit of the gateway's own refused: in words that a client, and who runs the gateway, can act upon."""
    if error.reason == "unpriced":
        words = (
            "this key is limited in money, and the model that was asked for has no price here:"
            " whoever runs the gateway can give it one in `prices`"
        )
        return Refusal(403, "model_not_priced", words, headers=_IN_VAIN, param="model")
    if error.reason == "spent":
        # SDKs take no Retry-After of hours, and would ask again at once.
        words = "this key has no money left at the gateway for such a request; its day ends at 00:00 UTC"
        return Refusal(429, "insufficient_quota", words, error.retry_after, _IN_VAIN)
    words = "a limit that the gateway has for its upstreams lets no more through now"
    return Refusal(429, "rate_limit_exceeded", words, error.retry_after)


def _of_status(error: StatusError) -> Refusal:
    if error.status in _OURS or _of_our_account(error.code, error.type, error.message):
        return Refusal(429 if error.status == 429 else 502, "upstream_refused", _REFUSES_US)
    status = error.status if 400 <= error.status < 600 else 502
    if status != error.status or not error.message:
        return Refusal(status, error.code or type(error).__name__, _words(error))
    return Refusal(status, error.code or error.type, error.message, type=error.type, param=_param(error.body))


def _of_event(error: UpstreamError) -> Refusal:
    if _of_our_account(error.code, error.type, error.message):
        return Refusal(502, "upstream_refused", _REFUSES_US)
    words = f"{error.code} {error.type}".lower()
    number = int(error.code) if error.code.isascii() and error.code.isdecimal() and len(error.code) == 3 else 0
    status = number if 400 <= number < 600 else 502
    if not number:
        busy = {"rate_limit": 429, "resource_exhausted": 429, "overloaded": 529, "unavailable": 503, "invalid": 400}
        status = next((found for word, found in busy.items() if word in words), status)
    code = error.code or error.type or type(error).__name__
    return Refusal(status, code, error.message or str(error), type=error.type)


def _of_our_account(code: str, kind: str, message: str) -> bool:
    return _OF_THE_ACCOUNT.search(f"{code} {kind}") is not None or _ABOUT_THE_ACCOUNT.search(message) is not None


def _status_of(error: StreamError) -> int:
    if isinstance(error, CircuitOpen):
        return 503
    return 504 if isinstance(error, DeadlineExceeded) else 502


def _words(error: StreamError) -> str:
    """Where upstreams live, and what was tried with which of them, is nobody's business out there."""
    if isinstance(error, ConnectError):
        return "the upstream could not be reached"
    if isinstance(error, StatusError):
        return f"the upstream answered {error.status}"
    return _HOST.sub("", str(error))


def _param(body: bytes) -> str | None:
    try:
        said = msgspec.json.decode(body)["error"]["param"]
    except (ValueError, RecursionError, TypeError, KeyError, IndexError):
        return None
    return said if isinstance(said, str) else None


# -- in each dialect's words ---------------------------------------------------------------------

_OPENAI_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    499: "cancelled",
    503: "service_unavailable_error",
    504: "timeout_error",
}
_ANTHROPIC_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_ANTHROPIC_KNOWN = {"invalid_request_error", "api_error", *_ANTHROPIC_TYPES.values()}
_GOOGLE_STATUSES = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    504: "DEADLINE_EXCEEDED",
}
_GOOGLE_KNOWN = {"INVALID_ARGUMENT", "FAILED_PRECONDITION", "UNAVAILABLE", *_GOOGLE_STATUSES.values()}


def error_document(surface: Surface, refusal: Refusal) -> bytes:
    """Gives the body of an answer that is an error."""
    return msgspec.json.encode(_document(surface.wire, refusal))


class RefusalResponse(web.Response):
    """The answer to a request that is refused. `code` says why, for who counts refusals."""

    code = ""


def refusal_response(surface: Surface, refusal: Refusal) -> web.Response:
    """Gives the answer to a request that is refused."""
    headers = {"Content-Type": "application/json", **refusal.headers}
    if refusal.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(refusal.retry_after)))
    response = RefusalResponse(status=refusal.status, body=error_document(surface, refusal), headers=headers)
    response.code = refusal.code
    return response


def error_event(surface: Surface, refusal: Refusal) -> bytes:
    """Gives the block that ends a stream which is not whole."""
    if surface.wire == "openai-responses":
        # As the API has it; and with the same once more under the name that its SDKs take for a failure.
        said = {"type": "error", "code": refusal.code, "message": refusal.message, "param": refusal.param}
        document = {**said, "sequence_number": 0, **_document("openai", refusal)}
    else:
        document = _document(surface.wire, refusal)
    name = b"event: error\n" if surface.wire in ("anthropic", "openai-responses") else b""
    return name + b"data: " + msgspec.json.encode(document) + b"\n\n"


def _document(wire: str, refusal: Refusal) -> dict[str, Any]:
    status, message = refusal.status, refusal.message
    if wire == "anthropic":
        kind = refusal.type if refusal.type in _ANTHROPIC_KNOWN else _of(status, _ANTHROPIC_TYPES, "api_error")
        said = message if kind == refusal.code else f"{message} ({refusal.code})"
        return {"type": "error", "error": {"type": kind, "message": said}}
    if wire == "gemini":
        known = refusal.type if refusal.type in _GOOGLE_KNOWN else ""
        kind = known or _of(status, _GOOGLE_STATUSES, "UNAVAILABLE", "INVALID_ARGUMENT")
        said = message if refusal.code in (kind, str(status)) else f"{message} ({refusal.code})"
        return {"error": {"code": status, "message": said, "status": kind}}
    kind = refusal.type or _of(status, _OPENAI_TYPES, "server_error")
    return {"error": {"message": message, "type": kind, "param": refusal.param, "code": refusal.code}}


def _of(status: int, table: dict[int, str], failed: str, refused: str = "invalid_request_error") -> str:
    return table.get(status) or (refused if status < 500 else failed)
