"""Requests as strangers write them: understood, or refused in words."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.gateway.asking import Asked, read_asked
from holdfast.gateway.headers import clean_target, to_client, to_upstream, with_query
from holdfast.gateway.refusals import Refused
from holdfast.gateway.surfaces import CHAT, GEMINI, GEMINI_ARRAY, SURFACES
from holdfast.machines.redact import is_secret
from tests.properties.profile import examples

NAMES = st.sampled_from(["model", "stream", "mod\\u0065l", "messages", "x"])
VALUES = st.one_of(st.none(), st.booleans(), st.text(max_size=5), st.integers(), st.lists(st.integers(), max_size=2))
OBJECTS = st.lists(st.tuples(NAMES, VALUES), max_size=4).map(
    lambda pairs: "{" + ",".join(f'"{name}":{json.dumps(value)}' for name, value in pairs) + "}"
)


@examples(50)
@given(st.one_of(st.binary(max_size=40), OBJECTS.map(str.encode)), st.sampled_from(list(SURFACES.values())), st.text())
def test_any_body_is_understood_or_refused(body: bytes, surface: Any, query: str) -> None:
    with suppress(Refused):
        asked = read_asked(surface, "/v1beta/models/m:streamGenerateContent", query, body)
        assert isinstance(asked.model, str)
        assert asked.streamed <= asked.surface.streamed


@examples(50)
@given(OBJECTS)
def test_whoever_reads_a_body_that_is_let_through_reads_the_same(body: str) -> None:
    with suppress(Refused):
        asked = read_asked(CHAT, "/v1/chat/completions", "", body.encode())
        first: dict[str, Any] = json.loads(body, object_pairs_hook=lambda pairs: dict(reversed(pairs)))
        last: dict[str, Any] = json.loads(body)
        for read in (first, last):
            assert asked == Asked(CHAT, read.get("model") or "", read.get("stream") is True)


@pytest.mark.parametrize("name", ["Model", "MODEL", "\\u004dodel", "Stream", "\u017ftream", "\\u017Ftream"])
def test_a_name_that_only_some_read_as_one_that_is_decided_by_is_refused(name: str) -> None:
    for body in (f'{{"model":"cheap","{name}":"dear"}}', f'{{"{name}":"dear"}}'):
        with pytest.raises(Refused, match="another case"):
            read_asked(CHAT, "/v1/chat/completions", "", body.encode())
    said = json.dumps({"model": "m", "messages": [{"content": "Model", "Model": "Stream"}]})
    assert read_asked(CHAT, "/v1/chat/completions", "", said.encode()) == Asked(CHAT, "m", False)


@pytest.mark.parametrize("model", ["\ud800", "m" * 1025])
def test_a_model_that_has_no_name_is_none(model: str) -> None:
    for more in ({}, {"x": "\x01"}):
        with pytest.raises(Refused):
            read_asked(CHAT, "/v1/chat/completions", "", json.dumps({"model": model, **more}).encode())


@pytest.mark.parametrize("value", ["[]", "{}", '""', "1.5"])
def test_a_body_of_values_alone_is_refused_before_they_are_made(value: str) -> None:
    body = b'{"model":"m","a":[' + (value + ",").encode() * 500_000 + b"1]}"
    with pytest.raises(Refused) as refused:
        read_asked(CHAT, "/v1/chat/completions", "", body)
    assert refused.value.refusal.status == 413


def test_a_stream_of_gemini_is_asked_for_by_its_query() -> None:
    path = "/v1beta/models/m:streamGenerateContent"
    assert read_asked(GEMINI, path, "alt=sse", b"{}") == Asked(GEMINI, "m", True)
    for query in ("", "alt=json", "alt=sse&alt=json"):
        assert read_asked(GEMINI, path, query, b"{}") == Asked(GEMINI_ARRAY, "m", False)


KEYS = ("Authorization", "Cookie", "X-Api-Key", "x-goog-api-key", "x-goog-iam-authorization-token", "Set-Cookie")
OTHERS = ("openai-organization", "x-goog-user-project", "Host", "Content-Length", "Connection", "X-Forwarded-For")
HEADERS = st.sampled_from((*KEYS, *OTHERS))


@examples(50)
@given(st.dictionaries(HEADERS, st.just("canary")))
def test_keys_cookies_and_accounts_pass_in_neither_direction(headers: dict[str, str]) -> None:
    assert to_upstream(headers) == {}
    assert to_client({name.lower(): value for name, value in headers.items()}) == {}


@examples(50)
@given(st.text(), st.text())
def test_a_query_adds_what_is_not_there_and_no_key(before: str, query: str) -> None:
    url = with_query("https://host.test/v1/x?alt=sse&v=1", f"{query}&alt=json&key=canary&token=canary&n=1")
    at = urlsplit(url)
    assert (at.scheme, at.netloc, at.path, at.fragment) == ("https", "host.test", "/v1/x", "")
    said = parse_qsl(at.query, keep_blank_values=True)
    assert said[:2] == [("alt", "sse"), ("v", "1")]
    assert [name for name, _ in said].count("alt") == 1
    assert not [name for name, _ in said if is_secret(name)]
    assert "canary" not in clean_target("/v1/x", "a=1&key=canary&access_token=canary" + before.replace("canary", ""))
