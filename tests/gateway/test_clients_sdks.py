"""The makers' own SDKs for Python through a gateway, unmodified but for their base URL; the upstream breaks."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anthropic
import httpx
import openai
import pytest
from google import genai
from google.genai import errors as google_errors
from google.genai import types as google

from holdfast.testing.chaos import ChaosServer
from holdfast.testing.faults import FinInsideChunk, ResetMidStream
from holdfast.testing.schedule import Schedule
from holdfast.testing.server import (
    Close,
    Pause,
    ReceivedRequest,
    Reply,
    ScriptedServer,
    Send,
    head,
    respond,
    sse,
    stream,
)
from tests.gateway.serving import Served, serving, settings

# google-genai makes a subclass of aiohttp's session, which aiohttp advises against.
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")
QUESTION = "why is kelp no plant?"
KEY = "no-key"
CUTS = Schedule(streams={"*": (ResetMidStream(after=10), FinInsideChunk(after=60))})


def openai_of(url: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(api_key=KEY, base_url=f"{url}/v1", max_retries=0)


def anthropic_of(url: str) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(api_key=KEY, base_url=url, max_retries=0)


def google_of(url: str) -> genai.Client:
    return genai.Client(api_key=KEY, http_options=google.HttpOptions(base_url=url))


# -- how each reads a stream: it gives its words, and raises what its users catch ---------------------


async def chat(url: str) -> str:
    async with openai_of(url) as client:
        asked: Any = {"model": "m", "messages": [{"role": "user", "content": QUESTION}], "stream": True}
        return "".join(
            [
                chunk.choices[0].delta.content or ""
                async for chunk in await client.chat.completions.create(**asked)
                if chunk.choices
            ]
        )


async def responses(url: str) -> str:
    async with openai_of(url) as client:
        stream = await client.responses.create(model="m", input=QUESTION, stream=True)
        return "".join([event.delta async for event in stream if event.type == "response.output_text.delta"])


async def messages(url: str) -> str:
    async with (
        anthropic_of(url) as client,
        client.messages.stream(model="m", max_tokens=4096, messages=[{"role": "user", "content": QUESTION}]) as stream,
    ):
        return await stream.get_final_text()


async def gemini(url: str) -> str:
    client = google_of(url)
    try:
        answer = await client.aio.models.generate_content_stream(model="m", contents=QUESTION)
        return "".join([chunk.text or "" async for chunk in answer])
    finally:
        await client.aio.aclose()


Read = Callable[[str], Awaitable[str]]
CLIENTS: dict[str, tuple[str, Read, type[Exception]]] = {
    "openai chat": ("openai", chat, openai.APIError),
    "openai responses": ("openai", responses, openai.APIError),
    "anthropic": ("anthropic", messages, anthropic.APIStatusError),
    "google-genai": ("gemini", gemini, google_errors.APIError),
}


async def chat_whole(url: str) -> str:
    async with openai_of(url) as client:
        answer = await client.chat.completions.create(model="m", messages=[{"role": "user", "content": QUESTION}])
        return answer.choices[0].message.content or ""


async def completions_whole(url: str) -> str:
    async with openai_of(url) as client:
        return (await client.completions.create(model="m", prompt=QUESTION)).choices[0].text


async def completions(url: str) -> str:
    async with openai_of(url) as client:
        answer = await client.completions.create(model="m", prompt=QUESTION, stream=True)
        return "".join([chunk.choices[0].text async for chunk in answer])


async def responses_whole(url: str) -> str:
    async with openai_of(url) as client:
        return (await client.responses.create(model="m", input=QUESTION)).output_text


async def messages_whole(url: str) -> str:
    async with anthropic_of(url) as client:
        asked: Any = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": QUESTION}]}
        return str((await client.messages.create(**asked)).content[0].text)


async def gemini_whole(url: str) -> str:
    client = google_of(url)
    try:
        return (await client.aio.models.generate_content(model="m", contents=QUESTION)).text or ""
    finally:
        await client.aio.aclose()


_PART = {"type": "output_text", "text": "kelp", "annotations": []}
_ITEM = {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [_PART]}
WHOLE: dict[str, tuple[str, Read, str, dict[str, Any]]] = {
    "openai chat": (
        "openai",
        chat_whole,
        "/v1/chat/completions",
        {"id": "c", "choices": [{"index": 0, "finish_reason": "stop", "message": {"content": "kelp"}}]},
    ),
    "openai completions": (
        "openai",
        completions_whole,
        "/v1/completions",
        {"id": "c", "choices": [{"index": 0, "finish_reason": "stop", "text": "kelp"}]},
    ),
    "openai responses": ("openai", responses_whole, "/v1/responses", {"id": "r", "output": [_ITEM]}),
    "anthropic": (
        "anthropic",
        messages_whole,
        "/v1/messages",
        {"id": "m", "type": "message", "role": "assistant", "content": [{"type": "text", "text": "kelp"}]},
    ),
    "google-genai": (
        "gemini",
        gemini_whole,
        "/v1beta/models/m:generateContent",
        {"candidates": [{"content": {"parts": [{"text": "kelp"}]}, "finishReason": "STOP"}]},
    ),
}
"""What a whole answer is in each API."""
FAILS = {
    "openai chat": openai.InternalServerError,
    "openai completions": openai.InternalServerError,
    "openai responses": openai.InternalServerError,
    "anthropic": anthropic.InternalServerError,
    "google-genai": google_errors.ServerError,
}


@asynccontextmanager
async def over(handler: Any, dialect: str, **more: Any) -> AsyncIterator[tuple[ScriptedServer, Served]]:
    base = "/v1" if dialect == "openai" else ""
    async with ScriptedServer(handler) as upstream, serving(settings(upstream.url + base, dialect, **more)) as served:
        yield upstream, served


@pytest.mark.parametrize("journal", ["memory", "none"])
@pytest.mark.parametrize("name", CLIENTS)
async def test_an_upstream_that_is_cut_twice_is_one_whole_answer(name: str, journal: str) -> None:
    dialect, read, _ = CLIENTS[name]
    set_ = partial(settings, dialect=dialect, journal=journal)
    async with ChaosServer(schedule=CUTS) as upstream, serving(set_(upstream.url)) as served:
        assert await read(served.url) == upstream.answer(QUESTION).text
        assert len(upstream.served) == 3


@pytest.mark.parametrize("journal", ["memory", "none"])
@pytest.mark.parametrize("name", CLIENTS)
async def test_an_answer_that_cannot_be_saved_raises_what_users_of_the_sdk_catch(name: str, journal: str) -> None:
    dialect, read, error = CLIENTS[name]
    cut = Schedule(streams={"*": [ResetMidStream(after=20)] * 20})
    set_ = partial(settings, dialect=dialect, journal=journal)
    async with ChaosServer(schedule=cut) as upstream, serving(set_(upstream.url)) as served:
        with pytest.raises(error) as raised:
            await read(served.url)
    assert str(upstream.server.port) not in str(raised.value)


@pytest.mark.parametrize("name", WHOLE)
async def test_a_whole_answer_is_never_half_of_one(name: str) -> None:
    dialect, read, path, said = WHOLE[name]
    body = json.dumps(said).encode()
    cut = [Send(head(content_type="application/json", content_length=len(body)) + body[:-9]), Close()]
    short = [*respond(body[:-9], content_type="application/json")]
    async with over([cut, short, respond(body, content_type="application/json")], dialect) as (upstream, served):
        assert await read(served.url) == "kelp"
        assert [request.path for request in upstream.requests] == [path] * 3
    async with over([cut], dialect) as (_, served):
        with pytest.raises(FAILS[name]):
            await read(served.url)


@pytest.mark.parametrize("name", WHOLE)
async def test_what_a_provider_says_of_the_request_is_told_and_what_it_says_of_the_key_is_not(name: str) -> None:
    dialect, read, _, _ = WHOLE[name]
    said: dict[str, dict[str, Any]] = {
        "openai": {"type": "invalid_request_error", "code": "bad_kelp"},
        "anthropic": {"type": "rate_limit_error"},
    }
    said["gemini"] = {"status": "RESOURCE_EXHAUSTED", "code": 429}
    words = {**said[dialect], "message": "too much kelp for sk-upstream"}
    seen = "incorrect API key provided: sk-upstream"
    replies = [
        respond(json.dumps({"type": "error", "error": words}).encode(), 400, content_type="application/json"),
        respond(json.dumps({"error": {**words, "message": seen}}).encode(), 401, content_type="application/json"),
    ]
    async with over(replies, dialect) as (_, served):
        for wanted in ("too much kelp", "the upstream refused the gateway"):
            with pytest.raises(Exception, match=wanted) as raised:
                await read(served.url)
            assert "sk-upstream" not in str(raised.value)
            assert "API key provided" not in str(raised.value)
            assert isinstance(raised.value, openai.APIStatusError | anthropic.APIStatusError | google_errors.APIError)


async def test_a_limit_is_told_with_the_time_to_wait() -> None:
    body = b'{"error": {"message": "slow down", "type": "requests", "code": "rate_limit_exceeded"}}'
    reply = respond(body, 429, content_type="application/json", retry_after="61.5")
    async with over([reply], "openai") as (_, served):
        with pytest.raises(openai.RateLimitError, match="slow down") as raised:
            await chat(served.url)
        assert raised.value.response.headers["retry-after"] == "62"
        assert raised.value.code == "rate_limit_exceeded"


async def test_the_older_endpoint_streams_and_is_resumed() -> None:
    texts = [f"word{n} " for n in range(9)]
    chunks = [sse(json.dumps({"id": "c", "choices": [{"index": 0, "text": text}]})) for text in texts]
    chunks += [sse(json.dumps({"id": "c", "choices": [{"index": 0, "text": "", "finish_reason": "stop"}]}))]
    whole = stream(*chunks, sse("[DONE]"))
    async with over([[*whole[:6], Close()], whole], "openai") as (upstream, served):
        assert await completions(served.url) == "".join(texts)
        assert {request.path for request in upstream.requests} == {"/v1/completions"}


async def test_comments_and_heartbeats_reach_only_those_who_can_read_them() -> None:
    """The SDKs for chat and for Gemini die on legal bytes once there are ids: see `mounts/_quirks.py`."""

    async def chat_server(_: ReceivedRequest) -> Reply:
        piece = '{"id":"c","choices":[{"index":0,"delta":{"content":"kelp "},"finish_reason":%s}]}'
        return slow(sse(piece % "null"), sse(piece % '"stop"'), b"data: [DONE]\n\n")

    async def gemini_server(_: ReceivedRequest) -> Reply:
        piece = '{"candidates":[{"content":{"parts":[{"text":"kelp "}]}%s}]}'
        return slow(sse(piece % ""), sse(piece % ',"finishReason":"STOP"'), b"")

    async with over(chat_server, "openai", heartbeat=0.1) as (_, served):
        assert await chat(served.url) == "kelp kelp "
        body = {"model": "m", "messages": [], "stream": True}
        async with httpx.AsyncClient() as http:
            answer = await http.post(f"{served.url}/v1/chat/completions", json=body, headers={"User-Agent": "mine"})
        assert ": still here\n" in answer.text
        assert ": ping\n\n" in answer.text
    async with over(gemini_server, "gemini", heartbeat=0.1) as (_, served):
        assert await gemini(served.url) == "kelp kelp "


def slow(first: bytes, last: bytes, done: bytes) -> Reply:
    whole = stream(first, b": ping\n\n", last + done)
    return [*whole[:3], Pause(0.25), *whole[3:]]
