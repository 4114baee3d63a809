"""Secrets are recognised by the names that carry them, and taken out of whatever is written down."""

from __future__ import annotations

import pytest

from holdfast.machines.redact import REDACTED, clean_url, hide, is_secret, of_one_server, redact_headers, scrub


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
        "X-JWT",
        "X-Bearer",
        "x-pat",
        "private-pat",
    ],
)
def test_a_header_with_a_secret_word_in_its_name_is_secret(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        "content-type",
        "x-request-id",
        "x-ratelimit-remaining-tokens",
        "retry-after",
        "Idempotency-Key",
        "x-path",
        "x-pattern",
    ],
)
def test_other_headers_are_not(name: str) -> None:
    assert not is_secret(name)


def test_what_is_for_one_server_is_told_by_names_schemes_and_the_secrets_themselves() -> None:
    key = "a-key-of-some-length"
    headers = {
        "Authorization": f"Bearer {key}",
        "Cookie": f"seen=yes; sid={key}-2",
        "X-Custom": "bearer of-another-kind",
        "X-Legacy": "Basic dTpw",
        "OpenAI-Organization": f"org-{key}",
        "X-Copy": f"{key}-2",
        "Referer": "https://host/page",
        "X-Short": "yes",
        "X-Basics": "basically fine",
        "Idempotency-Key": "one",
        "Content-Type": "application/json",
        "X-Session-Kind": "application/json",
    }
    assert of_one_server(headers) == {
        *("authorization", "cookie", "x-custom", "x-legacy", "openai-organization", "x-copy", "referer"),
        "x-session-kind",
    }


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


def test_what_stands_in_the_url_is_taken_out_of_a_text_too() -> None:
    url = "https://me:a-password@host/x?key=AIza-123456789&alt=sse-and-more&access_token=tok%2Bken-12"
    text = "bad AIza-123456789, tok+ken-12 or a-password at sse-and-more"
    assert hide(text, {}, url) == "bad [redacted], [redacted] or [redacted] at sse-and-more"
    assert hide(text, {}, "http://[") == text


def test_a_short_header_value_is_left_alone() -> None:
    assert scrub("a word", {"x-mode": "word"}) == "a word"
