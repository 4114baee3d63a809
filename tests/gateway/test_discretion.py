"""Discretion: an upstream that quotes the key it was sent tells it nobody, and an answer stays what it was."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from holdfast.gateway import Settings, UpstreamSettings
from holdfast.testing.server import (
    LAST_CHUNK,
    STREAM_HEAD,
    ReceivedRequest,
    Reply,
    ScriptedServer,
    Send,
    chunked,
    respond,
    sse,
    stream,
)
from tests.gateway.serving import serving

KEY = "Zq81kkPP0aa91xyyT4c7"  # no provider's look
BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}


def chunk(text: str, finish: str | None = None) -> bytes:
    return sse(json.dumps({"id": "c", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]}))


ANSWER = [chunk("one "), chunk("two", "stop"), sse("[DONE]")]
ERROR = json.dumps({"error": {"message": f"token {KEY} is expired", "type": "x", "code": "gone"}})


@asynccontextmanager
async def gateway(reply: Reply, key: str = KEY, **more: Any) -> AsyncIterator[aiohttp.ClientSession]:
    async def upstream(request: ReceivedRequest) -> Reply:
        return reply

    async with ScriptedServer(upstream) as http:
        one = UpstreamSettings(dialect="openai", base_url=f"http://127.0.0.1:{http.port}/v1", api_key=key)
        async with (
            serving(Settings(upstreams=(one,), max_requests=1, **more)) as served,
            aiohttp.ClientSession(served.url) as session,
        ):
            yield session


async def told(response: aiohttp.ClientResponse) -> str:
    """Gives all that a client sees, of an answer that is cut, too."""
    said = b""
    try:
        async for part in response.content.iter_any():
            said += part
    except aiohttp.ClientPayloadError:
        assert b'"error"' in said
    return f"{response.headers}{said.decode()}"


ECHOES: dict[str, Reply] = {
    "an error in the place of a stream": stream(sse(ERROR)),
    "an error in a stream": stream(ANSWER[0], sse(ERROR)),
    "a status": respond(ERROR.encode(), status=400, content_type="application/json"),
    "a text": stream(chunk(KEY), *ANSWER),
    "a comment": stream(f": {KEY}\n\n".encode(), *ANSWER),
    "a header": [
        Send(STREAM_HEAD[:-2] + f"x-request-id: {KEY}\r\n\r\n".encode()),
        Send(chunked(b"".join(ANSWER)) + LAST_CHUNK),
    ],
}


@pytest.mark.parametrize("journal", ["memory", "none"])
@pytest.mark.parametrize("what", ECHOES)
async def test_a_key_that_an_upstream_quotes_goes_no_further(what: str, journal: str) -> None:
    async with (
        gateway(ECHOES[what], journal=journal) as session,
        session.post("/v1/chat/completions", json=BODY) as response,
    ):
        assert KEY not in await told(response)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings"])
async def test_a_whole_answer_and_one_of_another_path_quote_no_key_and_are_no_page(path: str) -> None:
    said = json.dumps({"id": KEY, "text": "<script>alert(1)</script>", "choices": []}).encode()
    async with (
        gateway(respond(said, content_type="text/html", x_request_id=KEY), other="pass") as session,
        session.post(path, json={**BODY, "stream": False}) as response,
    ):
        assert response.status == 200
        assert "sandbox" in response.headers["Content-Security-Policy"]
        assert KEY not in await told(response)


@pytest.mark.parametrize("key", ["none", "EMPTY", "not-needed", "sk-no-key-required"])
async def test_a_word_that_stands_for_a_key_is_left_in_an_answer(key: str) -> None:
    said = json.dumps({"id": "c", "choices": [{"message": {"content": f"write {key}"}, "finish_reason": "stop"}]})
    async with (
        gateway(respond(said.encode(), content_type="application/json"), key) as session,
        session.post("/v1/chat/completions", json={**BODY, "stream": False}) as response,
    ):
        assert await response.text() == said


@pytest.mark.parametrize("form", ["a stream", "whole"])
async def test_a_header_that_cannot_be_said_again_is_left_out(form: str) -> None:
    stream_it = form == "a stream"
    said = b'{"id":"c","choices":[]}'
    head = STREAM_HEAD if stream_it else b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(said)
    body = chunked(b"".join(ANSWER)) + LAST_CHUNK if stream_it else said
    more = b"x-request-id: a\x01b\r\nrequest-id: %b\r\nopenai-version: 1\r\n\r\n" % (b"k" * 60_000)
    async with (
        gateway([Send(head[:-2] + more + body)]) as session,
        session.post("/v1/chat/completions", json={**BODY, "stream": stream_it}) as response,
    ):
        assert response.status == 200
        assert not {"x-request-id", "request-id"} & {name.lower() for name in response.headers}
        assert response.headers["openai-version"] == "1"
