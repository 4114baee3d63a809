"""openai and anthropic as they are, over a mount, against every evident fault: the exact text, or their own error."""

from __future__ import annotations

import asyncio
import functools
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from holdfast import Budget, mounts
from holdfast._errors import DeadlineExceeded, StreamError, UpstreamError
from holdfast.dialects import Timeouts
from holdfast.testing import EVIDENT, FINAL, ChaosServer, Fault, Schedule
from holdfast.testing import faults as f
from holdfast.testing.server import LAST_CHUNK, Reset, ScriptedServer, Send, Stall, chunked, respond, sse
from tests.mounts.shop import BODY, EVENTS, TEXT, Nought, begun, healthy

PROMPT = "a secret prompt"
MESSAGES: Any = BODY["messages"]
CLOCKS = Timeouts(open=2, first_token=2, progress=1)
"""So long must a busy machine not stand still, or what is healthy is taken for a stall."""
SLOW = (f.Drip, f.Throttle, f.ThroughputCollapse, f.Latency)
"""Faults that only take their time: the rest is played here."""
PLAYED = [fault for fault in (*EVIDENT, *FINAL) if not isinstance(fault, SLOW)]
Asking = Callable[[str], Awaitable[str]]
# Every client would read all certificates anew, which takes more CPU than a stream.
SETTINGS: dict[str, Any] = {"random": Nought(), "timeouts": CLOCKS, "verify": False}


async def openai_async(url: str, **settings: Any) -> str:
    client = mounts.httpx2_client(**{**SETTINGS, **settings})
    async with openai.AsyncOpenAI(api_key="k", base_url=f"{url}/v1", http_client=client) as c:
        stream = await c.chat.completions.create(model="m", messages=MESSAGES, stream=True)
        return "".join([part.choices[0].delta.content or "" async for part in stream if part.choices])


async def openai_responses(url: str, **settings: Any) -> str:
    client = mounts.httpx2_client(**{**SETTINGS, **settings})
    async with openai.AsyncOpenAI(api_key="k", base_url=f"{url}/v1", http_client=client) as c:
        stream = await c.responses.create(model="m", input=PROMPT, stream=True)
        return "".join([event.delta async for event in stream if event.type == "response.output_text.delta"])


def openai_blocking(url: str, **settings: Any) -> str:
    client = mounts.httpx2_sync_client(**{**SETTINGS, **settings})
    with openai.OpenAI(api_key="k", base_url=f"{url}/v1", http_client=client) as c:
        stream = c.chat.completions.create(model="m", messages=MESSAGES, stream=True)
        return "".join([part.choices[0].delta.content or "" for part in stream if part.choices])


async def anthropic_async(url: str, **settings: Any) -> str:
    client = mounts.httpx2_client(**{**SETTINGS, **settings})
    async with (
        anthropic.AsyncAnthropic(api_key="k", base_url=url, http_client=client) as c,
        c.messages.stream(model="m", max_tokens=9_999, messages=MESSAGES) as stream,
    ):
        return "".join([text async for text in stream.text_stream])


def anthropic_blocking(url: str, **settings: Any) -> str:
    client = mounts.httpx2_sync_client(**{**SETTINGS, **settings})
    with (
        anthropic.Anthropic(api_key="k", base_url=url, http_client=client) as c,
        c.messages.stream(model="m", max_tokens=9_999, messages=MESSAGES) as stream,
    ):
        return "".join(stream.text_stream)


def threaded(ask: Callable[..., str]) -> Callable[..., Awaitable[str]]:
    @functools.wraps(ask)
    async def asked(url: str, **settings: Any) -> str:
        return await asyncio.to_thread(ask, url, **settings)

    return asked


ALL: list[Callable[..., Awaitable[str]]] = [
    *(openai_async, anthropic_async, openai_responses),
    *(threaded(openai_blocking), threaded(anthropic_blocking)),
]
ERRORS = {"openai": openai.APIError, "anthropic": anthropic.APIError}


async def rest(stream: Any) -> None:
    async for _ in stream:
        pass


@pytest.fixture(params=ALL, ids=lambda ask: ask.__name__)
def ask(request: pytest.FixtureRequest) -> Any:
    return request.param


ONCE = [
    *((ask, fault) for ask in (openai_async, anthropic_async) for fault in PLAYED),
    *((ask, fault) for number, ask in enumerate(ALL[2:]) for fault in PLAYED[number::4]),
]
"""Every fault for the two that differ most; the others, which are made of the same parts, share them."""


@pytest.mark.parametrize(("ask", "fault"), ONCE, ids=lambda one: getattr(one, "__name__", str(one)))
async def test_a_fault_once_leaves_the_exact_text(ask: Any, fault: Fault) -> None:
    async with ChaosServer(schedule=Schedule(streams={PROMPT: [fault]})) as server, asyncio.timeout(50):
        try:
            text = await ask(server.url)
        except ERRORS[ask.__name__.partition("_")[0]]:
            assert fault.final
            assert len(server.served) == 1
        else:
            assert text == server.answer(PROMPT).text
            assert len(server.served) <= 2
        assert await server.server.all_closed()


LASTING = [
    f.ResetMidStream(),
    f.CleanCut(),
    f.StallMidStream(),
    f.HtmlPage(),
    f.EmptyBody(),
    f.JsonError(),
    f.TornEvent(),
]


@pytest.mark.parametrize("fault", LASTING, ids=str)
async def test_a_fault_that_lasts_is_the_sdks_own_exception(ask: Any, fault: Fault) -> None:
    async with ChaosServer(schedule=Schedule(streams={PROMPT: [fault] * 20})) as server, asyncio.timeout(50):
        with pytest.raises(ERRORS[ask.__name__.partition("_")[0]]) as caught:
            await ask(server.url, max_requests=3)
        assert isinstance(caught.value.__cause__, StreamError)
        assert caught.value.__cause__.report is not None
        assert len(server.served) == 3
        assert "3 requests" in str(caught.value)
        assert PROMPT not in str(caught.value)
        assert server.answer(PROMPT).pieces[0] not in str(caught.value)
        if isinstance(fault, f.StallMidStream):
            assert isinstance(caught.value, openai.APITimeoutError | anthropic.APITimeoutError)
            assert isinstance(caught.value.__cause__, DeadlineExceeded)
        if isinstance(fault, f.JsonError):
            assert isinstance(caught.value.__cause__, UpstreamError)


@pytest.mark.parametrize("status", [429, 503])
async def test_a_refusal_that_lasts_is_asked_for_as_often_as_the_policy_says(ask: Any, status: int) -> None:
    fault = f.Refused(status=status, retry_after=0)
    async with ChaosServer(schedule=Schedule(streams={PROMPT: [fault] * 20})) as server, asyncio.timeout(50):
        with pytest.raises((openai.APIStatusError, anthropic.APIStatusError)) as caught:
            await ask(server.url)
        assert getattr(caught.value, "status_code", None) == status
        assert len(server.served) == 4


async def test_a_line_that_cannot_be_had_is_tried_by_both_and_never_multiplied() -> None:
    async with ScriptedServer([[Reset()]]) as server:
        client = mounts.httpx2_client(**SETTINGS)
        async with openai.AsyncOpenAI(api_key="k", base_url=server.url, http_client=client, max_retries=1) as c:
            with pytest.raises(openai.APIConnectionError) as lost:
                await c.chat.completions.create(model="m", messages=MESSAGES, stream=True)
        assert len(server.requests) == 4 + 1
        told = mounts.report(lost.value)
        assert told is not None
        assert told.attempts == 1


async def test_what_is_no_stream_is_as_ever() -> None:
    document = b'{"object": "list", "data": [], "model": "m", "usage": {"prompt_tokens": 1, "total_tokens": 1}}'
    async with ScriptedServer([respond(document, content_type="application/json")]) as server:
        client = mounts.httpx2_client()
        async with openai.AsyncOpenAI(api_key="k", base_url=server.url, http_client=client) as c:
            assert (await c.embeddings.create(model="m", input="x", encoding_format="float")).data == []
            raw = await c.models.with_raw_response.list()
            assert raw.http_response.content == document
            assert mounts.report(raw) is None


async def test_streaming_responses_and_raw_ones_tell_their_story() -> None:
    async with ScriptedServer([begun(Reset()), healthy(), healthy()]) as server:
        client = mounts.httpx2_client(**SETTINGS)
        async with openai.AsyncOpenAI(api_key="k", base_url=f"{server.url}/v1", http_client=client) as c:
            stream = await c.chat.completions.create(model="m", messages=MESSAGES, stream=True)
            text = "".join([part.choices[0].delta.content or "" async for part in stream])
            assert text == TEXT
            told = mounts.report(stream)
            assert told is not None
            assert (told.outcome, told.attempts) == ("resumed", 2)
            create = c.chat.completions.with_streaming_response.create
            async with create(model="m", messages=MESSAGES, stream=True) as raw:
                assert b"".join([piece async for piece in raw.iter_bytes()]) == b"".join(EVENTS)


async def test_the_helpers_over_openais_streams_tell_their_story() -> None:
    async with ChaosServer() as server:
        client = mounts.httpx2_client(**SETTINGS)
        async with openai.AsyncOpenAI(api_key="k", base_url=f"{server.url}/v1", http_client=client) as c:
            async with c.chat.completions.stream(model="m", messages=MESSAGES) as chat:
                await rest(chat)
            async with c.responses.stream(model="m", input=PROMPT) as response:
                await rest(response)
        for helper in (chat, response):
            told = mounts.report(helper)
            assert told is not None
            assert told.outcome == "complete"


@pytest.mark.parametrize("ask", ALL)
@pytest.mark.parametrize("fault", [f.ErrorEvent(after=20), f.CleanCut(after=60)])
async def test_an_exception_tells_its_story(ask: Callable[..., Awaitable[str]], fault: Fault) -> None:
    async with ChaosServer(schedule=Schedule(streams={PROMPT: [fault] * 30})) as server, asyncio.timeout(50):
        with pytest.raises((openai.APIError, anthropic.APIError)) as caught:
            await ask(server.url, max_requests=2)
        told = mounts.report(caught.value)
        assert told is not None
        assert told.attempts == len(server.served)


async def test_its_text_says_what_was_tried_and_why_no_more() -> None:
    cut = Schedule(streams={PROMPT: [f.CleanCut(after=60)] * 9})
    async with ChaosServer(schedule=cut) as server:
        with pytest.raises(openai.APIError, match="tried: 1 request; it was not resumed: the call has sent its 1"):
            await openai_async(server.url, max_requests=1)
        with pytest.raises(openai.APIError, match=r"tried: no request$"):
            await openai_async(server.url, traffic=[Budget(limit=0, unpriced="allow")])


@pytest.mark.parametrize("ask", [openai_async, anthropic_async])
async def test_its_text_says_where_the_providers_words_are(ask: Callable[..., Awaitable[str]]) -> None:
    said = Schedule(streams={PROMPT: [f.ErrorEvent(after=20)] * 9})
    async with ChaosServer(schedule=said) as server, mounts.httpx2_client(**SETTINGS) as client:
        with pytest.raises((openai.APIError, anthropic.APIError), match=r"its words are in \.body;") as caught:
            await ask(server.url)
        with pytest.raises(httpx2.RemoteProtocolError, match=r"its words are in \.__cause__\.message;") as torn:
            await client.post(f"{server.url}/v1/chat/completions", json=BODY)
    assert isinstance(caught.value, openai.APIError | anthropic.APIError)
    assert caught.value.body
    assert isinstance(torn.value.__cause__, UpstreamError)
    assert torn.value.__cause__.message


async def test_leaving_a_stream_closes_its_connection() -> None:
    async with ScriptedServer([begun(Stall())]) as server:
        client = mounts.httpx2_client()
        async with openai.AsyncOpenAI(api_key="k", base_url=f"{server.url}/v1", http_client=client) as c:
            stream = await c.chat.completions.create(model="m", messages=MESSAGES, stream=True)
            async for _ in stream:
                break
            await stream.close()
            assert await server.all_closed()

            stream = await c.chat.completions.create(model="m", messages=MESSAGES, stream=True)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(rest(stream), 0.1)
            await stream.close()
            assert await server.all_closed()


async def test_an_error_of_the_providers_is_told_where_the_sdk_keeps_it() -> None:
    body = {"message": "the filter met it", "code": "content_filter", "type": "invalid_request_error", "more": [1]}
    said = sse(json.dumps({"error": body}))
    async with ScriptedServer([begun(Send(b"%x\r\n%b\r\n" % (len(said), said)), Send(LAST_CHUNK))]) as server:
        with pytest.raises(openai.APIError) as caught:
            await openai_async(server.url)
    assert caught.value.code == "content_filter"
    assert caught.value.body == body, "all of it: pydantic-ai reads on in what Groq adds"
    assert "the filter met it" not in str(caught.value)
    assert len(server.requests) == 1


async def test_a_client_of_another_name_is_known_by_its_version() -> None:
    class Mine(openai.AsyncOpenAI):
        pass

    async with ScriptedServer([begun(Reset())]) as server:
        client = mounts.httpx2_client(**SETTINGS, max_requests=1)
        renamed = {"User-Agent": "x"}
        async with Mine(api_key="k", base_url=f"{server.url}/v1", http_client=client, default_headers=renamed) as c:
            stream = await c.chat.completions.create(model="m", messages=MESSAGES, stream=True)
            with pytest.raises(openai.APIConnectionError, match="delivered before"):
                await rest(stream)
        async with mounts.httpx2_client(**SETTINGS, max_requests=1) as bare:
            with pytest.raises(httpx2.ReadError, match="delivered before"):
                await bare.post(f"{server.url}/v1/chat/completions", json=BODY)


async def test_what_responses_say_of_an_error_is_an_exception_and_not_an_event() -> None:
    made = {"id": "r1", "object": "response", "created_at": 1, "status": "in_progress", "model": "m", "output": []}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": made, "sequence_number": 0},
        {"type": "error", "code": "server_error", "message": "too much kelp", "param": None, "sequence_number": 1},
    ]
    script = healthy([sse(json.dumps(event), event=event["type"]) for event in events])
    async with ScriptedServer([script]) as server:
        with pytest.raises(openai.APIError) as caught:
            await openai_responses(server.url, max_requests=1)
    assert caught.value.code == "server_error"


async def test_groqs_sdk_gets_errors_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "groq", openai)  # made alike, and no more is needed of it
    body = {"message": "no such tool", "code": "tool_use_failed", "failed_generation": "{}"}
    script = healthy([EVENTS[0], sse(json.dumps({"error": body}), event="error")])
    agent = {"User-Agent": "AsyncGroq/Python 1.0.0"}
    async with ScriptedServer([script]) as server, mounts.httpx2_client(**SETTINGS, max_requests=1) as client:
        with pytest.raises(openai.APIError) as caught:
            await client.post(f"{server.url}/v1/chat/completions", json=BODY, headers=agent)
    assert caught.value.body == body


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/stream"])
async def test_nothing_but_pings_is_no_answer(path: str) -> None:
    script = healthy([b": hello\n\n", b"event: ping\ndata: {}\n\n"])
    async with ScriptedServer([script]) as server, mounts.httpx2_client(**SETTINGS, max_requests=1) as client:
        with pytest.raises(httpx2.RemoteProtocolError):
            await client.post(f"{server.url}{path}", json=BODY)


async def test_a_client_that_leaves_at_the_end_mark_has_not_given_its_answer_up() -> None:
    async with ChaosServer() as server, mounts.httpx2_client(**SETTINGS) as c:
        async with c.stream("POST", f"{server.url}/v1/chat/completions", json=BODY) as response:
            async for line in response.aiter_lines():
                if line == "data: [DONE]":
                    break
        told = mounts.report(response)
        assert told is not None
        assert told.outcome == "complete"
        async with c.stream("POST", f"{server.url}/v1/chat/completions", json=BODY) as response:
            async for _ in response.aiter_lines():
                break
        told = mounts.report(response)
        assert told is not None
        assert told.outcome == "cancelled"


async def test_a_key_that_a_provider_quotes_as_its_code_is_in_no_text() -> None:
    key = "sk-quoted-by-the-provider"
    quoted = sse('{"error":{"message":"no","code":"%s","type":"x%s"}}' % (key, key))  # noqa: UP031 - braces all over
    async with ScriptedServer([begun(Send(chunked(quoted) + LAST_CHUNK))]) as server:
        client = mounts.httpx2_client(**SETTINGS)
        async with openai.AsyncOpenAI(api_key=key, base_url=f"{server.url}/v1", http_client=client, max_retries=0) as c:
            with pytest.raises(openai.APIError) as caught:
                await rest(await c.chat.completions.create(model="m", messages=MESSAGES, stream=True))
    assert key not in str(caught.value)
    assert key not in str(caught.value.__cause__)
    assert "[redacted]" in str(caught.value)
