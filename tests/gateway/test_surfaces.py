"""What goes upstream of a client's request, who is asked, and what it is told where nobody is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from yarl import URL

from holdfast.gateway import Settings, UpstreamSettings
from holdfast.testing.server import (
    STREAM_HEAD,
    Close,
    ReceivedRequest,
    Reply,
    ScriptedServer,
    Send,
    Step,
    chunked,
    head,
    respond,
    sse,
    stream,
)
from tests.gateway.serving import serving

CHAT = [
    sse('{"id":"c","choices":[{"index":0,"delta":{"content":"kelp"},"finish_reason":"stop"}]}'),
    sse("[DONE]"),
]
JSON: Any = {"content_type": "application/json"}
CANARY = "sk-upstream-canary"
HERE = "http://here"
GEMINI = {"candidates": [{"content": {"parts": [{"text": "kelp"}]}, "finishReason": "STOP"}]}


@asynccontextmanager
async def gateway(
    handler: Any, *upstreams: UpstreamSettings, **more: Any
) -> AsyncIterator[tuple[ScriptedServer, str, aiohttp.ClientSession]]:
    """Serves a gateway over one server, of which `HERE` stands for the address."""
    async with ScriptedServer(handler) as server:
        there = tuple(replace(one, base_url=(one.base_url or "").replace(HERE, server.url)) for one in upstreams)
        async with serving(Settings(upstreams=there, **more)) as served, aiohttp.ClientSession() as session:
            yield server, served.url, session


def upstream(dialect: str = "openai", base_url: str = "/v1", **more: Any) -> UpstreamSettings:
    return UpstreamSettings(**{"dialect": dialect, "base_url": HERE + base_url, "api_key": CANARY, **more})


async def ask(
    session: aiohttp.ClientSession, url: str | URL, body: bytes | Mapping[str, Any] | None = None, **more: Any
) -> tuple[int, bytes]:
    data = body if isinstance(body, bytes | None) else json.dumps(body)
    async with session.request("GET" if body is None else "POST", url, data=data, **more) as response:
        return response.status, await response.read()


def answer(request: ReceivedRequest) -> Reply:
    return stream(*CHAT) if b"true" in request.body else respond(b'{"choices": []}', **JSON)


async def test_a_body_goes_upstream_as_it_was_written() -> None:
    async with gateway(answer, upstream()) as (server, url, session):
        for body in (b'{ "stream":true,"model" :"m", "x": 1.0e0 }', b'{"model":"m","big":12345678901234567890123}'):
            assert (await ask(session, f"{url}/v1/chat/completions", body))[0] == 200
            assert server.requests[-1].body == body
            assert server.requests[-1].headers["content-type"] == "application/json"


async def test_what_a_client_sends_of_itself_passes_and_what_lets_it_in_does_not() -> None:
    sent = {
        **dict.fromkeys(("x-api-key", "Cookie", "x-goog-api-key", "OpenAI-Organization", "X-Forwarded-For"), "mine"),
        "Authorization": "Bearer mine",
        **dict.fromkeys(("OpenAI-Beta", "User-Agent", "traceparent", "X-Stainless-Lang"), "told"),
    }
    body = {"model": "m", "stream": True}
    async with gateway(answer, upstream()) as (server, url, session):
        there = f"{url}/v1/chat/completions?api-version=7&key=mine&token=mine"
        assert (await ask(session, there, body, headers=sent))[0] == 200
        (request,) = server.requests
        assert request.path == "/v1/chat/completions?api-version=7"
        assert not [name for name, value in request.headers.items() if "mine" in value]
        assert request.headers["authorization"] == f"Bearer {CANARY}"
        assert {"openai-beta", "user-agent", "traceparent", "x-stainless-lang"} <= request.headers.keys()


async def test_useful_headers_of_an_answer_pass_and_no_others() -> None:
    more: Any = {"x_request_id": "r", "openai_processing_ms": 5, "x_ratelimit_remaining_tokens": 9}
    less: Any = {
        "set_cookie": "s=1",
        "openai_organization": "acme",
        "strict_transport_security": "m",
        "x_holdfast_stream": 1,
    }
    whole = [
        Send(head(content_type="text/event-stream", transfer_encoding="chunked", **more, **less)),
        *stream(*CHAT)[1:],
    ]
    async with (
        gateway([whole], upstream()) as (_, url, session),
        session.post(f"{url}/v1/chat/completions", data=b'{"model":"m","stream":true}') as response,
    ):
        assert response.headers["x-request-id"] == "r"
        assert response.headers["openai-processing-ms"] == "5"
        assert response.headers["x-ratelimit-remaining-tokens"] == "9"
        assert len(response.headers["x-holdfast-stream"]) == 32
        assert not {"set-cookie", "openai-organization", "strict-transport-security"} & {
            n.lower() for n in response.headers
        }


@pytest.mark.parametrize("streamed", [True, False])
async def test_models_have_upstreams_of_their_own(streamed: bool) -> None:  # noqa: FBT001 - a parameter of a test
    async with gateway(
        answer,
        upstream(base_url="/a", models=("gpt-*",), name="a"),
        upstream(base_url="/b", models=("kelp",), name="b", model="kelp-2"),
    ) as (server, url, session):
        for model in ("gpt-9", "kelp"):
            body: dict[str, Any] = {"model": model, "stream": streamed, "messages": []}
            assert (await ask(session, f"{url}/v1/chat/completions", body))[0] == 200
        status, said = await ask(session, f"{url}/v1/chat/completions", {"model": "other", "stream": streamed})
        assert (status, json.loads(said)["error"]["code"]) == (404, "model_not_found")
        assert [request.path for request in server.requests] == ["/a/chat/completions", "/b/chat/completions"]
        assert server.requests[1].json() == {"model": "kelp-2", "stream": streamed, "messages": []}


@pytest.mark.parametrize("streamed", [True, False])
async def test_one_key_of_a_provider_stands_in_for_another(streamed: bool) -> None:  # noqa: FBT001 - as above
    async def limited(request: ReceivedRequest) -> Reply:
        if request.headers["authorization"] == "Bearer one":
            return respond(b'{"error": {"message": "slow down"}}', 429, **JSON)
        return answer(request)

    async with gateway(limited, upstream(api_key="one"), upstream(api_key="two")) as (server, url, session):
        body = {"model": "m", "stream": streamed}
        assert (await ask(session, f"{url}/v1/chat/completions", body))[0] == 200
        assert [request.headers["authorization"] for request in server.requests] == ["Bearer one", "Bearer two"]


@pytest.mark.parametrize(
    ("path", "body", "status", "word"),
    [
        ("/v1/chat/completions", b"{", 400, "JSON object"),
        ("/v1/chat/completions", b"[]", 400, "JSON object"),
        ("/v1/chat/completions", b"[" * 100_000, 400, "JSON object"),
        ("/v1/chat/completions", b"{}", 400, "model"),
        ("/v1/chat/completions", b'{"model": 5}', 400, "model"),
        ("/v1/chat/completions", b'{"model": "m", "stream": "yes"}', 400, "stream"),
        ("/v1/chat/completions", b'{"model": "m", "model": "n"}', 400, "twice"),
        ("/v1/chat/completions", b'{"model": "m", "mod\\u0065l": "n"}', 400, "twice"),
        ("/v1/messages", b'{"model": "m"}', 404, "no upstream"),
        ("/v1/chat/nothing", b"{}", 404, "does not serve"),
        ("/v1beta/models/m:generateContent", b"{}", 404, "no upstream"),
        ("/v1beta/models/a%2F..%2F..%2Fadmin:generateContent", b"{}", 400, "no model"),
        ("/v1beta/models/%2E%2E:streamGenerateContent?alt=sse", b"{}", 400, "no model"),
    ],
)
async def test_what_cannot_be_asked_is_refused_in_the_client_s_words(
    path: str, body: bytes, status: int, word: str
) -> None:
    async with gateway([respond()], upstream()) as (server, url, session):
        got, said = await ask(session, URL(url + path, encoded=True), body)
        error = json.loads(said)["error"]
        assert got == status
        assert word in error["message"]
        assert ("type" in error, error.get("code") == status) == ("v1beta" not in path, "v1beta" in path)
        assert not server.requests


async def test_an_error_with_a_status_that_says_all_is_well_is_an_error_and_another_upstream_is_asked() -> None:
    told = b'{"error": {"message": "try later", "type": "overloaded_error", "code": "busy"}}'
    fits = b'{"id": "r", "object": "response", "status": "failed", "error": {"message": "no"}, "output": []}'

    def reply(request: ReceivedRequest) -> Reply:
        return respond(fits if request.path.endswith("responses") else told, **JSON)

    body = {"model": "m", "stream": False}
    async with gateway(reply, upstream()) as (_, url, session):
        status, said = await ask(session, f"{url}/v1/chat/completions", body)
        assert status >= 500
        assert json.loads(said)["error"]["message"] == "try later"
        # Where it is a part of an answer it is the answer's.
        assert await ask(session, f"{url}/v1/responses", body) == (200, fits)
    replies = [respond(told, **JSON), respond(b'{"choices": []}', **JSON)]
    async with gateway(lambda _: replies.pop(0), upstream(), upstream()) as (_, url, session):
        assert (await ask(session, f"{url}/v1/chat/completions", body))[0] == 200


async def test_what_is_of_the_other_kind_than_was_asked_for_is_an_error_at_once_and_shuts_nobody_out() -> None:
    """An upstream that knows but one kind of answer is well, however often it is asked for the other one."""

    async def events() -> AsyncGenerator[Step, None]:
        yield Send(STREAM_HEAD)
        for number in range(10_000):
            yield Send(chunked(b": a moment\n\n" if not number else CHAT[0]))
            await asyncio.sleep(0.02)

    def reply(request: ReceivedRequest) -> Reply:
        kind = request.json()["only"]
        return events() if kind == "events" else respond(b'{"choices": []}', **JSON)

    async with gateway(reply, upstream()) as (server, url, session):
        path = f"{url}/v1/chat/completions"
        for number in range(1, 7):
            async with asyncio.timeout(20):
                status, said = await ask(session, path, {"model": "m", "only": "events"})
            error = json.loads(said)["error"]
            assert (status, error["code"]) == (502, "NotAStream")
            assert "ask for a stream" in error["message"]
            assert len(server.requests) == number
        for _ in range(6):
            status, said = await ask(session, path, {"model": "m", "stream": True, "only": "document"})
            assert b"NotAStream" in said
        assert await ask(session, path, {"model": "m", "only": "document"}) == (200, b'{"choices": []}')


async def test_events_by_name_that_are_a_document_are_one() -> None:
    reply = respond(b'\n{"choices": []}', content_type="text/event-stream")
    async with gateway([reply], upstream()) as (_, url, session):
        assert await ask(session, f"{url}/v1/chat/completions", {"model": "m"}) == (200, b'\n{"choices": []}')


async def test_gemini_is_a_stream_with_alt_sse_and_a_whole_array_without() -> None:
    said = json.dumps(GEMINI)

    async def google(request: ReceivedRequest) -> Reply:
        if request.path.endswith("?alt=sse"):
            return stream(sse(said))
        return respond(f"[{said}]".encode(), **JSON)

    async with gateway(google, upstream("gemini", "")) as (server, url, session):
        path = "/v1beta/models/m:streamGenerateContent"
        _, body = await ask(session, f"{url}{path}?alt=sse&key=mine", {"contents": []})
        assert body.startswith(sse(said)[:-1] + b"id: ")
        assert (await ask(session, url + path, {"contents": []}))[1] == f"[{said}]".encode()
        assert [request.path for request in server.requests] == [f"{path}?alt=sse", path]
        assert all(request.headers["x-goog-api-key"] == CANARY for request in server.requests)


# -- models ----------------------------------------------------------------------------------------


async def test_models_are_those_of_all_upstreams_that_may_be_asked_for() -> None:
    async def lists(request: ReceivedRequest) -> Reply:
        names = {"/a/models": ["gpt-9", "other"], "/b/models": ["kelp", "gpt-9"]}.get(request.path)
        if names is None:
            return [Close()]
        return respond(json.dumps({"data": [{"id": name, "object": "model"} for name in names]}).encode(), **JSON)

    async with gateway(
        lists,
        upstream(base_url="/a", models=("gpt-*",)),
        upstream(base_url="/b"),
        upstream(base_url="/gone", models=("named", "a-*")),
    ) as (server, url, session):
        status, said = await ask(session, f"{url}/v1/models")
        assert status == 200
        assert [one["id"] for one in json.loads(said)["data"]] == ["gpt-9", "kelp", "named"]
        assert json.loads((await ask(session, f"{url}/v1/models/named"))[1])["object"] == "model"
        assert (await ask(session, f"{url}/v1/models/other"))[0] == 404
        status, said = await ask(session, f"{url}/v1/models", headers={"anthropic-version": "2023-06-01"})
        assert json.loads(said) == {"data": [], "has_more": False, "first_id": None, "last_id": None}
        assert len(server.requests) == 3  # whoever asks a hundred times asks the upstreams once


async def test_who_asks_for_models_at_once_asks_once() -> None:
    async with gateway([respond(b'{"data": [{"id": "m"}]}', **JSON)], upstream()) as (server, url, session):
        told = await asyncio.gather(*(ask(session, f"{url}/v1/models") for _ in range(20)))
        assert {status for status, _ in told} == {200}
        assert len(server.requests) == 1


# -- other paths -------------------------------------------------------------------------------------


async def test_other_paths_pass_as_configured_and_to_no_other_place() -> None:
    async def other(request: ReceivedRequest) -> Reply:
        return respond(request.body or b"[]", x_request_id="r", set_cookie="s=1", **JSON)

    async with gateway(other, upstream(base_url="/proxy/v1"), other="pass") as (server, url, session):
        assert (await ask(session, f"{url}/v1/embeddings?a=1", {"input": "x"}))[1] == b'{"input": "x"}'
        assert (await ask(session, f"{url}/v1/files/f-1"))[0] == 200
        assert [one.path for one in server.requests] == ["/proxy/v1/embeddings?a=1", "/proxy/v1/files/f-1"]
        assert all(one.headers["authorization"] == f"Bearer {CANARY}" for one in server.requests)
        for path in ("/v1/%2e%2e/admin", "/v1/..%2fadmin", "/v1//evil.test/x", "/v1/a%0d%0aX:y"):
            request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
            assert (await raw(url, request)).split(b" ")[1] in (b"400", b"404")
        assert (await ask(session, f"{url}/v1/realtime", headers={"Upgrade": "websocket"}))[0] == 400
        assert len(server.requests) == 2


async def test_what_is_ours_goes_upstream_by_no_method() -> None:
    async with gateway(answer, upstream(), other="pass") as (server, url, session):
        for path in (f"/v1/streams/{'0' * 32}", "/v1/streams", "/ui", "/ui/events", "/metrics", "/healthz"):
            async with session.put(url + path) as response:
                assert response.status == 404
        async with session.head(f"{url}/v1/streams/{'0' * 32}") as response:
            assert response.status == 404
        assert not server.requests


async def test_another_answer_that_breaks_is_no_whole_one() -> None:
    cut = [Send(head(content_type="audio/mpeg", transfer_encoding="chunked") + b"4\r\nabcd\r\n"), Close()]
    async with gateway([cut], upstream(), other="pass") as (_, url, session):
        with pytest.raises(aiohttp.ClientError):
            await ask(session, f"{url}/v1/audio/speech", {"input": "x"})


async def raw(url: str, request: str) -> bytes:
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request.encode())
    try:
        return await asyncio.wait_for(reader.read(), 20)
    finally:
        writer.close()
