"""The makers' own SDKs over a mount see what they see without one: the same events, the same end, in every framing.

Each transcript is a healthy answer, or one that a provider ends with an error, served over TCP to the same SDK twice.
Nothing here says what an SDK should see: the SDK alone is the measure.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from google import genai
from google.genai import types as gemini_types
from mistralai.client import Mistral
from pydantic import BaseModel

from holdfast import mounts
from holdfast.testing import Answer, ScriptedServer, in_background, write_answer
from holdfast.testing.server import LAST_CHUNK, STREAM_HEAD, ReceivedRequest, Send, Step, chunked, sse
from holdfast.testing.shapes import AnthropicShape, ChatShape, GeminiShape, InteractionsShape, ResponsesShape

pytestmark = pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")
CHAT = ChatShape(style="openai")
MESSAGES: Any = [{"role": "user", "content": "why is kelp no plant?"}]
DONE = b"data: [DONE]\n\n"


class Weather(BaseModel):
    """What a structured answer is parsed into."""

    city: str
    degrees: int


# -- transcripts -----------------------------------------------------------------------------------


def chunk(*choices: dict[str, Any], **more: Any) -> bytes:
    made = {"id": "a1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices, **more}
    return sse(json.dumps(made, ensure_ascii=False))


def said(delta: dict[str, Any], *, index: int = 0, finish: str | None = None, logprobs: Any = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "finish_reason": finish, "logprobs": logprobs}


def probable(token: str) -> dict[str, Any]:
    entry = {"token": token, "logprob": -0.25, "bytes": list(token.encode()), "top_logprobs": []}
    return {"content": [entry], "refusal": None}


USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
LOGPROBS = [
    chunk(said({"role": "assistant", "content": ""})),
    *(chunk(said({"content": token}, logprobs=probable(token))) for token in ("潮", " kelp", "🌊")),
    chunk(said({}, finish="stop")),
    chunk(usage=USAGE),
    DONE,
]
CHOICES = [
    *(chunk(said({"role": "assistant", "content": ""}, index=index)) for index in range(2)),
    *(chunk(said({"content": f"{index}{piece}"}, index=index)) for piece in ("a", "б") for index in (1, 0)),
    *(chunk(said({}, index=index, finish="stop")) for index in range(2)),
    DONE,
]
STRUCTURED = [
    chunk(said({"role": "assistant", "content": ""})),
    *(chunk(said({"content": piece})) for piece in ('{"city": "Tro', 'msø", "deg', 'rees": -', "3}")),
    chunk(said({}, finish="stop")),
    DONE,
]
NO_DONE = CHAT.events(write_answer(2), "a1", ids=False)[:-1]
AFTER_DONE = [*NO_DONE, DONE, chunk(said({"content": "too late"}))]


def completed(text: str, *, finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "text": text, "finish_reason": finish, "logprobs": None}
    made = {"id": "c1", "object": "text_completion", "created": 1, "model": "m", "choices": [choice], **more}
    return sse(json.dumps(made, ensure_ascii=False))


COMPLETIONS = [*(completed(piece) for piece in ("潮", "起", " kelp 🌊")), completed("", finish="stop"), DONE]
ANSWERS: dict[str, Answer] = {
    "words": write_answer(1, sentences=1, thoughts=0),
    "thoughts and tools": write_answer(2, sentences=1, thoughts=1, tools=2),
    "cut": write_answer(3, thoughts=0).cut(12),
}
REFUSAL = write_answer(5, refuses=True)
OVERLOADED = sse('{"type":"error","error":{"type":"overloaded_error","message":"too much kelp"}}', event="error")
BROKEN = sse('{"error":{"message":"too much kelp","type":"server_error","param":null,"code":"overloaded"}}')
GEMINI_ERROR = sse('{"error":{"code":503,"message":"too much kelp","status":"UNAVAILABLE"}}')

# -- framings --------------------------------------------------------------------------------------


def in_one(events: Sequence[bytes]) -> list[bytes]:
    return [b"".join(events)]


def byte_by_byte(events: Sequence[bytes]) -> list[bytes]:
    data, single = b"".join(events), 500  # bytes: more of them would show nothing more
    return [*(data[at : at + 1] for at in range(single)), *(data[at : at + 7] for at in range(single, len(data), 7))]


def with_crlf(events: Sequence[bytes]) -> list[bytes]:
    data = b"".join(events).replace(b"\n", b"\r\n")
    return [data[at : at + 5] for at in range(0, len(data), 5)]  # each CR is parted from its LF now and then


def unspaced(events: Sequence[bytes]) -> list[bytes]:
    return [event.replace(b"data: ", b"data:") for event in events]


def among_others(events: Sequence[bytes]) -> list[bytes]:
    """Between the events stand the things that a reader has to pass over, and one that says how long to wait."""
    others = (b": a comment\n", b"\n\n", b"retry: 3000\n", b"unknown: field\n")
    return [b": hello\n\n", *(part for at, event in enumerate(events) for part in (others[at % 4], event))]


def with_empty_events(events: Sequence[bytes]) -> list[bytes]:
    return [part for event in events for part in (b"event: ping\n\n", event)]


Framing = Callable[[Sequence[bytes]], list[bytes]]
PLAIN: list[Framing] = [list, in_one, byte_by_byte, with_crlf]
"""What all SDKs can read."""
FRAMINGS: list[Framing] = [*PLAIN, unspaced, among_others]


# -- SDKs ------------------------------------------------------------------------------------------

Told = list[str]
Ask = Callable[[Any, Told], None]
AskLater = Callable[[Any, Told], Awaitable[None]]


def makers(url: str) -> dict[str, Callable[[Any], Any]]:
    """How each SDK is made over an HTTP client."""
    once: dict[str, Any] = {"api_key": "k", "max_retries": 0}

    def gemini(**client: Any) -> genai.Client:
        options = gemini_types.HttpOptions(base_url=url, **client)
        return genai.Client(api_key="k", vertexai=False, http_options=options)

    return {
        "openai": lambda client: openai.OpenAI(base_url=f"{url}/v1", http_client=client, **once),
        "openai_async": lambda client: openai.AsyncOpenAI(base_url=f"{url}/v1", http_client=client, **once),
        "anthropic": lambda client: anthropic.Anthropic(base_url=url, http_client=client, **once),
        "anthropic_async": lambda client: anthropic.AsyncAnthropic(base_url=url, http_client=client, **once),
        "gemini": lambda client: gemini(httpx_client=client),
        "gemini_async": lambda client: gemini(httpx_async_client=client).aio,
        "mistral": lambda client: Mistral(api_key="k", server_url=url, client=client),
        "mistral_async": lambda client: Mistral(api_key="k", server_url=url, async_client=client),
    }


def chat(sdk: Any, seen: Told) -> None:
    made = sdk.chat.completions.create(model="m", messages=MESSAGES, stream=True)
    seen += (repr(event) for event in made)


async def chat_async(sdk: Any, seen: Told) -> None:
    async for event in await sdk.chat.completions.create(model="m", messages=MESSAGES, stream=True):
        seen.append(repr(event))


def chat_helper(sdk: Any, seen: Told, **more: Any) -> None:
    with sdk.chat.completions.stream(model="m", messages=MESSAGES, **more) as stream:
        seen += (repr(event) for event in stream)
        seen.append(repr(stream.get_final_completion()))


async def chat_helper_async(sdk: Any, seen: Told, **more: Any) -> None:
    async with sdk.chat.completions.stream(model="m", messages=MESSAGES, **more) as stream:
        async for event in stream:
            seen.append(repr(event))
        seen.append(repr(await stream.get_final_completion()))


def parsed(sdk: Any, seen: Told) -> None:
    chat_helper(sdk, seen, response_format=Weather)


async def parsed_async(sdk: Any, seen: Told) -> None:
    await chat_helper_async(sdk, seen, response_format=Weather)


def completions(sdk: Any, seen: Told) -> None:
    made = sdk.completions.create(model="m", prompt="kelp", stream=True)
    seen += (repr(event) for event in made)


async def completions_async(sdk: Any, seen: Told) -> None:
    async for event in await sdk.completions.create(model="m", prompt="kelp", stream=True):
        seen.append(repr(event))


def responses(sdk: Any, seen: Told) -> None:
    made = sdk.responses.create(model="m", input="kelp", stream=True)
    seen += (repr(event) for event in made)


async def responses_async(sdk: Any, seen: Told) -> None:
    async for event in await sdk.responses.create(model="m", input="kelp", stream=True):
        seen.append(repr(event))


def responses_helper(sdk: Any, seen: Told) -> None:
    with sdk.responses.stream(model="m", input="kelp") as stream:
        seen += (repr(event) for event in stream)


async def responses_helper_async(sdk: Any, seen: Told) -> None:
    async with sdk.responses.stream(model="m", input="kelp") as stream:
        async for event in stream:
            seen.append(repr(event))


ASKED: Any = {"model": "m", "max_tokens": 9_999, "messages": MESSAGES}


def messages(sdk: Any, seen: Told) -> None:
    seen += (repr(event) for event in sdk.messages.create(**ASKED, stream=True))


async def messages_async(sdk: Any, seen: Told) -> None:
    async for event in await sdk.messages.create(**ASKED, stream=True):
        seen.append(repr(event))


def messages_helper(sdk: Any, seen: Told) -> None:
    with sdk.messages.stream(**ASKED) as stream:
        seen += (repr(event) for event in stream)
        seen.append(repr(stream.get_final_message()))


async def messages_helper_async(sdk: Any, seen: Told) -> None:
    async with sdk.messages.stream(**ASKED) as stream:
        async for event in stream:
            seen.append(repr(event))
        seen.append(repr(await stream.get_final_message()))


def _nameless(event: Any) -> str:
    """The SDK keeps the headers of the response in its first chunk; a response that is relayed has others."""
    return str(event.model_dump_json(exclude={"sdk_http_response"}))


def gemini(sdk: Any, seen: Told) -> None:
    made = sdk.models.generate_content_stream(model="m", contents="kelp")
    seen += (_nameless(event) for event in made)


async def gemini_async(sdk: Any, seen: Told) -> None:
    async for event in await sdk.models.generate_content_stream(model="m", contents="kelp"):
        seen.append(_nameless(event))


async def interactions_async(sdk: Any, seen: Told) -> None:
    events: Any = await sdk.interactions.create(model="m", input="kelp", stream=True)
    async for event in events:
        seen.append(repr(event))


def mistral(sdk: Any, seen: Told) -> None:
    with sdk.chat.stream(model="m", messages=MESSAGES) as stream:
        seen += (repr(event) for event in stream)


async def mistral_async(sdk: Any, seen: Told) -> None:
    async with await sdk.chat.stream_async(model="m", messages=MESSAGES) as stream:
        async for event in stream:
            seen.append(repr(event))


# -- what is served to whom ------------------------------------------------------------------------

Served = dict[str, list[bytes]]


def framed(events: Sequence[bytes], framings: Sequence[Framing]) -> Served:
    return {framing.__name__: framing(events) for framing in framings}


def written(shape: Any, framings: Sequence[Framing], *names: str) -> Served:
    """The first of the answers in every framing, and each of them as it is."""
    events = {name: shape.events(ANSWERS[name], "a1", ids=False) for name in names or ANSWERS}
    return {**framed(next(iter(events.values())), framings), **events}


def to_chat() -> Served:
    refused = CHAT.events(REFUSAL, "a1", ids=False)
    broken = {"an error": [*NO_DONE[:4], BROKEN], "an error at once": [BROKEN]}
    odd = {"no [DONE]": NO_DONE, "after [DONE]": AFTER_DONE, "logprobs": LOGPROBS, "choices": CHOICES}
    return {**written(CHAT, FRAMINGS), "refusal": refused, **odd, **broken}


def to_responses() -> Served:
    shape = ResponsesShape()
    return {**written(shape, FRAMINGS), "refusal": shape.events(REFUSAL, "a1", ids=False)}


def to_messages() -> Served:
    events = AnthropicShape().events(ANSWERS["words"], "a1", ids=False)
    broken = {"an error": [*events[:4], OVERLOADED], "an error at once": [OVERLOADED]}
    return {**written(AnthropicShape(), [*FRAMINGS, with_empty_events]), **broken}


def to_mistral() -> Served:
    return written(ChatShape(), FRAMINGS, "words", "cut")


def to_gemini() -> Served:
    events = GeminiShape().events(ANSWERS["words"], "a1", ids=False)
    return {**written(GeminiShape(), PLAIN), "an error": [*events[:3], GEMINI_ERROR]}


BLOCKING: dict[Ask, tuple[str, Callable[[], Served]]] = {
    chat: ("openai", to_chat),
    chat_helper: ("openai", to_chat),
    parsed: ("openai", lambda: framed(STRUCTURED, FRAMINGS)),
    completions: ("openai", lambda: framed(COMPLETIONS, FRAMINGS)),
    responses: ("openai", to_responses),
    responses_helper: ("openai", to_responses),
    messages: ("anthropic", to_messages),
    messages_helper: ("anthropic", to_messages),
    gemini: ("gemini", to_gemini),
    mistral: ("mistral", to_mistral),
}
ASYNC: dict[AskLater, tuple[str, Callable[[], Served]]] = {
    chat_async: ("openai_async", to_chat),
    chat_helper_async: ("openai_async", to_chat),
    parsed_async: ("openai_async", lambda: framed(STRUCTURED, FRAMINGS)),
    completions_async: ("openai_async", lambda: framed(COMPLETIONS, FRAMINGS)),
    responses_async: ("openai_async", to_responses),
    responses_helper_async: ("openai_async", to_responses),
    messages_async: ("anthropic_async", to_messages),
    messages_helper_async: ("anthropic_async", to_messages),
    gemini_async: ("gemini_async", to_gemini),
    interactions_async: ("gemini_async", lambda: written(InteractionsShape(), PLAIN, "words")),
    mistral_async: ("mistral_async", to_mistral),
}


class Stage:
    """A server that gives everybody what is on now."""

    def __init__(self) -> None:
        self.now: list[bytes] = []
        self.url = ""

    def answer(self, request: ReceivedRequest) -> list[Step]:
        return [Send(STREAM_HEAD + b"".join(map(chunked, self.now)) + LAST_CHUNK)]


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    made = Stage()
    with in_background(ScriptedServer(made.answer)) as server:
        made.url = server.url
        yield made


def ending(error: Exception) -> str:
    """What a program goes by where it tells errors apart."""
    marks = {name: getattr(error, name, None) for name in ("code", "type", "status_code")}
    return f"{type(error).__name__} {marks}"


SETTINGS: dict[str, Any] = {"trust_env": False, "verify": False}


@pytest.mark.parametrize("ask", BLOCKING, ids=lambda ask: ask.__name__)
def test_an_sdk_that_blocks_sees_the_same(ask: Ask, stage: Stage) -> None:
    kind, served = BLOCKING[ask]
    outcomes: list[dict[str, Told]] = []
    for client in (httpx2.Client(**SETTINGS), mounts.httpx2_sync_client(max_requests=1, **SETTINGS)):
        outcomes.append({})
        with client:
            sdk = makers(stage.url)[kind](client)
            for name, stage.now in served().items():
                seen = outcomes[-1].setdefault(name, [])
                try:
                    ask(sdk, seen)
                except Exception as error:  # noqa: BLE001 - whatever it is, it is to be the same
                    seen.append(ending(error))
    assert outcomes[1] == outcomes[0]
    assert all(outcomes[0].values())
    assert len(outcomes[0]["list"]) > 3, "a whole answer was read"


@pytest.mark.parametrize("ask", ASYNC, ids=lambda ask: ask.__name__)
async def test_an_sdk_that_does_not_block_sees_the_same(ask: AskLater, stage: Stage) -> None:
    kind, served = ASYNC[ask]
    outcomes: list[dict[str, Told]] = []
    for client in (httpx2.AsyncClient(**SETTINGS), mounts.httpx2_client(max_requests=1, **SETTINGS)):
        outcomes.append({})
        async with client:
            sdk = makers(stage.url)[kind](client)
            for name, stage.now in served().items():
                seen = outcomes[-1].setdefault(name, [])
                try:
                    async with asyncio.timeout(10):
                        await ask(sdk, seen)
                except Exception as error:  # noqa: BLE001 - whatever it is, it is to be the same
                    seen.append(ending(error))
    assert outcomes[1] == outcomes[0]
    assert all(outcomes[0].values())
    assert len(outcomes[0]["list"]) > 3, "a whole answer was read"
