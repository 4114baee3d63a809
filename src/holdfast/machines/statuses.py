"""What a refused response means: whether trying again helps, when, and what a person should do.

It must never put the body into a message: messages reach logs, and a body may quote the prompt. The rules: RFC 9110
sections 10.2.3 and 15, RFC 6585 (429), RFC 8470 (425), and the practice of providers (529) and of Cloudflare (520-524).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus

from holdfast._errors import StatusError
from holdfast._types import Head

RETRYABLE = frozenset({408, 409, 425, 429, 500, 502, 503, 504, *range(520, 525), 529})
"""Statuses after which the same request may succeed. 409 is a lock held for a moment, not a conflict of contents."""

_ADVICE = {
    400: "the request is malformed; the body says what is wrong with it",
    401: "the API key is missing or wrong",
    402: "the account's balance is used up",
    403: "this key may not do that",
    404: "no such endpoint or model; see base_url and the model's name",
    407: "the proxy wants credentials",
    408: "the server gave up waiting for the request",
    413: "the request is too large",
    415: "the server takes no such body; see the Content-Type",
    422: "a parameter has a value that the server does not take; the body says which",
    425: "the server would not risk a replayed request",
    429: "too many requests, or a quota is used up; slow down",
    500: "the server failed",
    501: "the server cannot do that",
    502: "a gateway got no answer from its upstream",
    503: "the server is overloaded or down",
    504: "a gateway waited too long for its upstream",
    529: "the provider is overloaded",
}
EPOCH = 1_000_000_000
"""Seconds: nobody asks for 30 years, so from here on a number is a time since 1970, from a hundred times it in ms."""
_REASONS = {status.value: status.phrase for status in HTTPStatus}


def retryable(head: Head) -> bool:
    """Says whether the same request may succeed when sent again. The server's `x-should-retry` outranks its status."""
    if 200 <= head.status < 300:
        return False
    asked = head.headers.get("x-should-retry", "").strip().lower()
    if asked in ("true", "false"):
        return asked == "true"
    if head.status == 402:  # OpenRouter's word for credits that other requests hold for the moment
        return "retry-after" in head.headers
    return head.status in RETRYABLE


def retry_after(headers: Mapping[str, str], wall: datetime) -> float | None:
    """Gives the seconds the server asked us to wait, counted from `wall` (UTC); None where it said nothing sensible.

    `retry-after-ms` is milliseconds; `retry-after` seconds or an HTTP date, or a time since 1970. Where the response
    tells the server's own time (`Date`) a time counts from that. Times that have passed are 0.
    """
    milliseconds = _number(headers.get("retry-after-ms", ""))
    text = headers.get("retry-after", "").strip()
    seconds = _number(text) if milliseconds is None else milliseconds / 1000
    if seconds is None:
        when = _date(text)
        seconds = None if when is None else (when - answered_at(headers, wall)).total_seconds()
    elif seconds >= EPOCH:
        seconds = since_1970(seconds) - answered_at(headers, wall).timestamp()
    return None if seconds is None else max(0.0, seconds)


def answered_at(headers: Mapping[str, str], wall: datetime) -> datetime:
    """Gives the time of a response by the clock of the server that names other times in it; by ours (`wall`) else."""
    return _date(headers.get("date", "")) or wall


def since_1970(number: float) -> float:
    """Gives the seconds since 1970 of a time that is in seconds or milliseconds."""
    return number / 1000 if number >= EPOCH * 100 else number


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _date(text: str) -> datetime | None:
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    # "-0000" is a UTC time of unknown origin.
    return when.replace(tzinfo=UTC) if when.tzinfo is None else when


def status_error(head: Head, body: bytes, wall: datetime) -> StatusError:
    """Makes the error for a response that is not a stream; the body stays in `.body` and out of the message."""
    reason = _REASONS.get(head.status, "")
    wait = retry_after(head.headers, wall)
    message = f"the server answered {head.status}{f' {reason}' if reason else ''}"
    advice = _ADVICE.get(head.status) or _advice_for_others(head)
    if advice:
        message += f": {advice}"
    if wait is not None:
        message += f"; it asks to wait {wait:g} s"
    return StatusError(message, head=head, body=body, retry_after=wait, retryable=retryable(head))


def _advice_for_others(head: Head) -> str:
    if 300 <= head.status < 400:
        return "a redirect is not followed, since it would take the key along; use the final address"
    if 520 <= head.status < 530:
        return "the proxy before the server could not reach it"
    return ""
