"""What a refusal is for: numbers first, then words, then what the provider documents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from holdfast._errors import ConnectError, StreamError, UpstreamError
from holdfast._types import Head
from holdfast.dialects import find
from holdfast.machines.refusal import refusal_of
from holdfast.machines.statuses import status_error
from holdfast.testing import FakeClock

NONE: Mapping[str, str] = {}
USED_UP = {
    "x-ratelimit-limit-requests": "10",
    "x-ratelimit-remaining-requests": "0",
    "x-ratelimit-reset-requests": "6s",
}
LEFT = {**USED_UP, "x-ratelimit-remaining-requests": "4"}


def refused(status: int, body: bytes = b"", headers: Mapping[str, str] = NONE) -> StreamError:
    head = Head(status=status, headers=headers)
    return find("openai").refine(status_error(head, body, FakeClock().wall()))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (refused(429, headers={"retry-after": "3"}), "rate"),
        (refused(429, headers=USED_UP), "rate"),
        (
            refused(429, b'{"error": {"message": "Number of concurrent connections has exceeded your rate limit"}}'),
            "concurrency",
        ),
        (
            refused(429, b'{"error": {"message": "x", "code": "concurrency_limit"}}', headers={"retry-after": "1"}),
            "concurrency",
        ),
        (
            refused(429, b'{"error": {"message": "x", "code": "insufficient_quota"}}', headers={"retry-after": "1"}),
            "account",
        ),
        (refused(503), "overload"),
        (refused(529), "overload"),
        (refused(500), None),
        (refused(402), None),
        (UpstreamError("x", code="rate_limit_exceeded", retryable=True), "rate"),
        (UpstreamError("x", code="429", retryable=True), "rate"),
        (UpstreamError("x", type="overloaded_error", retryable=True), "overload"),
        (UpstreamError("x", code="server_error", retryable=True), None),
        (ConnectError("nobody"), None),
    ],
    ids=repr,
)
def test_a_refusal_is_told_by_what_it_says(error: StreamError, kind: str | None) -> None:
    assert refusal_of(error) == kind


@pytest.mark.parametrize("headers", [{}, LEFT])
def test_one_that_says_nothing_is_what_the_provider_documents(headers: dict[str, Any]) -> None:
    error = refused(429, headers=headers)
    assert refusal_of(error, find("deepseek").refuses) == "concurrency"
    assert refusal_of(error, find("openai").refuses) == "rate"


def test_an_empty_account_is_never_retried() -> None:
    assert not refused(
        429, b'{"error": {"message": "x", "code": "insufficient_quota"}}', headers={"retry-after": "1"}
    ).retryable
