"""What an upstream that refuses has too much of: requests in a time, requests at a time, work, or of an empty account.

Each asks for something else: a pause of all, fewer places, fewer places, and nothing but money. Providers say it in
numbers (`Retry-After`, limits in headers), in words, or only in their documents: a dialect's `refuses` is for those.
"""

from __future__ import annotations

from typing import Literal

from holdfast._errors import StatusError, StreamError, UpstreamError
from holdfast.machines.rate_limits import read

Refusal = Literal["rate", "concurrency", "overload", "account"]

_OVERLOADED = (503, 529)
_BUSY = ("overload", "capacity", "insufficient_system_resource", "unavailable")
_AT_ONCE = ("concurren", "parallel", "simultaneous", "too many connections")
_TOO_FAST = ("rate_limit", "ratelimit", "rate limit", "resource_exhausted", "too_many_requests")


def refusal_of(error: StreamError, usual: Literal["rate", "concurrency"] = "rate") -> Refusal | None:
    """Gives the `Refusal` that an error is, None for an error of another kind.

    `usual` is what the provider means by a 429 that says nothing.
    """
    if isinstance(error, StatusError):
        status, words = error.status, f"{error.code} {error.type} {error.message}".lower()
    elif isinstance(error, UpstreamError):
        status, words = _status(error), f"{error.code} {error.type} {error.message}".lower()
    else:
        return None
    if status in _OVERLOADED or (not status and any(word in words for word in _BUSY)):
        return "overload"
    if status != 429 and (status or not any(word in words for word in _TOO_FAST)):
        return None
    if not error.retryable:
        return "account"
    if any(word in words for word in _AT_ONCE):
        return "concurrency"
    return "rate" if error.retry_after is not None or _uses_up(error) else usual


def _uses_up(error: StreamError) -> bool:
    """Says whether its headers tell of a limit of which nothing is left."""
    limits = read(error.head.headers, 0.0) if isinstance(error, StatusError) else None
    return limits is not None and limits.used_up


def _status(error: UpstreamError) -> int:
    """The status that some providers give as their error's code; 0 without one."""
    return int(error.code) if error.code.isascii() and error.code.isdecimal() and len(error.code) == 3 else 0
