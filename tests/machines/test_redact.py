"""Secrets are recognised by the names that carry them, and taken out of whatever is written down."""

from __future__ import annotations

import pytest

from holdfast.machines.redact import REDACTED, clean_url, is_secret, redact_headers, scrub


@pytest.mark.parametrize(
    "name",
    [
        "Authorization",
        "proxy-authorization",
        "api-key",
        "X-Api-Key",
        "x-goog-api-key",
        "Cookie",
        "set-cookie",
        "x-amz-security-token",
        "x-client-secret",
        "x-session-id",
        "X-Signature",
    ],
)
def test_a_header_with_a_secret_word_in_its_name_is_secret(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize(
    "name", ["content-type", "x-request-id", "x-ratelimit-remaining-tokens", "retry-after", "Idempotency-Key"]
)
def test_other_headers_are_not(name: str) -> None:
    assert not is_secret(name)


def test_headers_keep_their_names_and_order() -> None:
    headers = {"Accept": "text/event-stream", "Authorization": "Bearer sk-1", "X-Trace": "7"}
    assert list(redact_headers(headers).items()) == [
        ("Accept", "text/event-stream"),
        ("Authorization", REDACTED),
        ("X-Trace", "7"),
    ]


@pytest.mark.parametrize(
    ("url", "clean"),
    [
        ("https://me:pw@host.example:8443/v1/chat?key=sk-1#frag", "https://host.example:8443/v1/chat"),
        ("http://host/v1", "http://host/v1"),
        ("", ""),
        ("http://[broken", ""),
    ],
)
def test_an_url_loses_what_keys_travel_in(url: str, clean: str) -> None:
    assert clean_url(url) == clean


def test_a_message_loses_header_values_with_and_without_their_scheme() -> None:
    headers = {"Authorization": "Bearer sk-123456789", "Accept": "text/event-stream"}
    message = "cannot send Bearer sk-123456789 (sk-123456789) as text/event-stream to http://u:p@host/x?k=1"
    assert scrub(message, headers) == "cannot send [redacted] ([redacted]) as text/event-stream to http://host/x"


def test_a_short_header_value_is_left_alone() -> None:
    assert scrub("a word", {"x-mode": "word"}) == "a word"
