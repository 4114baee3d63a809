"""How the makers' own SDKs read a stream: one reader an endpoint, each giving what its SDK says of the answer.

Where an SDK puts answers together itself, its own sum is taken and nothing is added up here. A reader must never reach
any host but the one it is given, nor ask twice.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import anthropic
import httpx2
import openai
from anthropic.types import Message
from google import genai
from google.genai import types as gemini_types
from mistralai.client import Mistral
from mistralai.client import models as mistral_models
from openai.types.chat import ChatCompletion
from openai.types.responses import Response, ResponseUsage

from holdfast._types import Completion

KEY = "no-key"
MODEL = "some-model"
QUESTION = "why is kelp no plant?"
MESSAGES = [{"role": "user", "content": QUESTION}]
COUNTS = ("input_tokens", "output_tokens", "total_tokens", "cached_tokens", "reasoning_tokens")


@dataclass(slots=True, frozen=True, kw_only=True)
class Call:
    """A tool call. Its arguments are text where the SDK hands text on, else JSON values."""

    id: str
    name: str
    arguments: Any


@dataclass(slots=True, frozen=True, kw_only=True)
class Said:
    """What a client says that the answer was. `reasoning` is None where an SDK has no place for it.

    `usage` counts what `COUNTS` names; what an SDK does not tell is not in it.
    """

    text: str = ""
    reasoning: str | None = ""
    refusal: str = ""
    calls: tuple[Call, ...] = ()
    finish_reason: str | None = None
    usage: Mapping[str, int] | None = None


Reader = Callable[[str], Awaitable[Said]]
"""Asks the server at a base URL for an answer, and says what it was."""


def counted(**counts: int | None) -> dict[str, int]:
    """Gives what was told."""
    return {name: count for name, count in counts.items() if count is not None}


def ours(answer: Completion, like: Said) -> Said:
    """What this library says, as far as the SDK says something of the kind."""
    told = answer.usage
    counts = {name: getattr(told, name) for name in like.usage or {}} if told is not None else None
    as_text = all(isinstance(call.arguments, str) for call in like.calls)
    calls = [
        Call(id=call.id, name=call.name, arguments=call.arguments if as_text else call.input)
        for call in answer.tool_calls
    ]
    return Said(
        text=answer.text,
        reasoning=None if like.reasoning is None else answer.reasoning,
        refusal=answer.refusal,
        calls=tuple(calls),
        finish_reason=answer.finish_reason,
        usage=counts,
    )


@asynccontextmanager
async def _http() -> AsyncIterator[httpx2.AsyncClient]:
    """A client that knows no proxies, and does not load the certificates that nothing here needs."""
    async with httpx2.AsyncClient(verify=False, trust_env=False, follow_redirects=False) as http:
        yield http


@asynccontextmanager
async def openai_client(url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    """A client of a server here, which asks once."""
    async with _http() as http:
        yield openai.AsyncOpenAI(api_key=KEY, base_url=url, max_retries=0, http_client=http)


# -- openai ------------------------------------------------------------------------------------


async def openai_chat(url: str) -> Said:
    """Chat completions, as the SDK's accumulator puts them together."""
    async with openai_client(url) as client:
        asked: list[Any] = list(MESSAGES)
        async with client.chat.completions.stream(model=MODEL, messages=asked) as stream:
            try:
                return _completion(await stream.get_final_completion())
            except openai.LengthFinishReasonError as cut:  # so the SDK hands over what ended at its limit
                return _completion(cut.completion)


def _completion(answer: ChatCompletion) -> Said:
    choice = answer.choices[0]
    message, more = choice.message, choice.message.model_extra or {}
    calls = [
        Call(id=call.id, name=call.function.name, arguments=call.function.arguments)
        for call in message.tool_calls or ()
        if call.type == "function"
    ]
    return Said(
        text=message.content or "",
        reasoning=more.get("reasoning_content") or more.get("reasoning") or "",
        refusal=message.refusal or "",
        calls=tuple(calls),
        finish_reason=choice.finish_reason,
        usage=None if answer.usage is None else _openai_usage(answer.usage),
    )


def _openai_usage(usage: openai.types.CompletionUsage) -> dict[str, int]:
    asked, answered = usage.prompt_tokens_details, usage.completion_tokens_details
    return counted(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        total_tokens=usage.total_tokens,
        cached_tokens=asked.cached_tokens if asked is not None else None,
        reasoning_tokens=answered.reasoning_tokens if answered is not None else None,
    )


async def openai_completions(url: str) -> Said:
    """The older completions, chunk by chunk: the SDK does not put them together."""
    async with openai_client(url) as client:
        stream = await client.completions.create(model=MODEL, prompt=QUESTION, stream=True)
        return _completions([chunk async for chunk in stream])


def _completions(chunks: Iterable[openai.types.Completion]) -> Said:
    text, usage = "", None
    finish: str | None = None
    for chunk in chunks:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.text
            finish = getattr(choice, "finish_reason", None) or finish  # always there, say their types
    return Said(text=text, finish_reason=finish, usage=None if usage is None else _openai_usage(usage))


async def openai_responses(url: str) -> Said:
    """Responses, as the SDK's accumulator puts them together; an incomplete one as its last event says it."""
    async with openai_client(url) as client, client.responses.stream(model=MODEL, input=QUESTION) as stream:
        async for event in stream:
            if event.type == "response.incomplete":
                return _response(event.response)
        return _response(await stream.get_final_response())


def _response(answer: Response) -> Said:
    text, refusal, thought = "", "", ""
    calls = list[Call]()
    for item in answer.output:
        if item.type == "message":
            text += "".join(part.text for part in item.content if part.type == "output_text")
            refusal += "".join(part.refusal for part in item.content if part.type == "refusal")
        elif item.type == "reasoning":
            thought += "".join(part.text for part in (*(item.content or ()), *item.summary))
        elif item.type == "function_call":
            calls.append(Call(id=item.call_id, name=item.name, arguments=item.arguments))
        elif item.type == "custom_tool_call":
            calls.append(Call(id=item.call_id, name=item.name, arguments=item.input))
    return Said(
        text=text,
        reasoning=thought,
        refusal=refusal,
        calls=tuple(calls),
        finish_reason=_ending(answer, calls),
        usage=None if answer.usage is None else _responses_usage(answer.usage),
    )


def _responses_usage(usage: ResponseUsage) -> dict[str, int]:
    """The details are always there in the SDK's types, and not in every provider's answers."""
    return counted(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        total_tokens=usage.total_tokens,
        cached_tokens=getattr(usage.input_tokens_details, "cached_tokens", None),
        reasoning_tokens=getattr(usage.output_tokens_details, "reasoning_tokens", None),
    )


def _ending(answer: Response, calls: Sequence[Call]) -> str | None:
    """A response has a status in the place of a finish reason: in the chat shape's words, as this library says it."""
    if answer.status == "completed":
        return "tool_calls" if calls else "stop"
    reason = answer.incomplete_details.reason if answer.incomplete_details is not None else None
    return "length" if reason == "max_output_tokens" else reason or answer.status


# -- anthropic ---------------------------------------------------------------------------------


async def anthropic_messages(url: str) -> Said:
    """Messages, as the SDK's accumulator puts them together."""
    async with _http() as http:
        client = anthropic.AsyncAnthropic(api_key=KEY, base_url=url, max_retries=0, http_client=http)
        async with client.messages.stream(
            model=MODEL, max_tokens=9_999, messages=[{"role": "user", "content": QUESTION}]
        ) as stream:
            return _message(await stream.get_final_message())


def _message(message: Message) -> Said:
    usage = message.usage
    cached, written = usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
    asked = usage.input_tokens + cached + written  # the SDK counts what came from a cache on its own
    thought = usage.output_tokens_details.thinking_tokens if usage.output_tokens_details is not None else None
    return Said(
        text="".join(block.text for block in message.content if block.type == "text"),
        reasoning="".join(block.thinking for block in message.content if block.type == "thinking"),
        calls=tuple(
            Call(id=block.id, name=block.name, arguments=block.input)
            for block in message.content
            if block.type == "tool_use"
        ),
        finish_reason=message.stop_reason,
        usage=counted(
            input_tokens=asked,
            output_tokens=usage.output_tokens,
            total_tokens=asked + usage.output_tokens,
            cached_tokens=usage.cache_read_input_tokens,
            reasoning_tokens=thought,
        ),
    )


# -- google-genai ------------------------------------------------------------------------------


@asynccontextmanager
async def _gemini(url: str) -> AsyncIterator[genai.Client]:
    async with _http() as http:
        # Given a client of httpx2, the SDK leaves aiohttp alone, of whose sessions it would make a deprecated subclass.
        options = gemini_types.HttpOptions(base_url=url, httpx_async_client=http)
        client = genai.Client(api_key=KEY, vertexai=False, http_options=options)
        try:
            yield client
        finally:
            await client.aio.aclose()
            client.close()


async def gemini(url: str) -> Said:
    """`generate_content_stream`, chunk by chunk: the SDK does not put them together."""
    async with _gemini(url) as client:
        chunks = await client.aio.models.generate_content_stream(model=MODEL, contents=QUESTION)
        return _chunks([chunk async for chunk in chunks])


def _chunks(chunks: Iterable[gemini_types.GenerateContentResponse]) -> Said:
    text, thought, finish, usage = "", "", None, None
    calls = list[Call]()
    for chunk in chunks:
        usage = chunk.usage_metadata or usage
        for candidate in chunk.candidates or ():
            finish = candidate.finish_reason or finish
            for part in (candidate.content.parts if candidate.content is not None else None) or ():
                if part.thought:
                    thought += part.text or ""
                else:
                    text += part.text or ""
                if (call := part.function_call) is not None:
                    calls.append(Call(id=call.id or "", name=call.name or "", arguments=call.args or {}))
    return Said(
        text=text,
        reasoning=thought,
        calls=tuple(calls),
        finish_reason=finish.value if finish is not None else None,
        usage=usage
        and counted(
            input_tokens=(usage.prompt_token_count or 0) + (usage.tool_use_prompt_token_count or 0),
            output_tokens=(usage.candidates_token_count or 0) + (usage.thoughts_token_count or 0),
            total_tokens=usage.total_token_count,
            cached_tokens=usage.cached_content_token_count,
            reasoning_tokens=usage.thoughts_token_count,
        ),
    )


async def gemini_interactions(url: str) -> Said:
    """`interactions.create(stream=True)`, event by event: the SDK does not put them together."""
    async with _gemini(url) as client:
        events: Any = await client.aio.interactions.create(model=MODEL, input=QUESTION, stream=True)
        return _interaction([event async for event in events])


def _interaction(events: Iterable[Any]) -> Said:
    """Steps bear their number; `Any`, because each of the SDK's events is one of many types."""
    text, thought, ending = "", "", None
    calls: dict[int, Call] = {}
    for event in events:
        if event.event_type == "step.start" and event.step.type == "function_call":
            calls[event.index] = Call(id=event.step.id, name=event.step.name, arguments="")
        elif event.event_type == "step.delta":
            if event.delta.type == "text":
                text += event.delta.text
            elif event.delta.type == "thought_summary":
                thought += event.delta.content.text
            elif event.delta.type == "arguments_delta":
                call = calls[event.index]
                calls[event.index] = replace(call, arguments=call.arguments + event.delta.arguments)
        elif event.event_type == "interaction.completed":
            ending = event.interaction
    usage = ending and ending.usage
    return Said(
        text=text,
        reasoning=thought,
        calls=tuple(calls.values()),
        finish_reason=ending and ending.status,
        usage=usage
        and counted(
            input_tokens=(usage.total_input_tokens or 0) + (usage.total_tool_use_tokens or 0),
            output_tokens=(usage.total_output_tokens or 0) + (usage.total_thought_tokens or 0),
            total_tokens=usage.total_tokens,
            cached_tokens=usage.total_cached_tokens,
            reasoning_tokens=usage.total_thought_tokens,
        ),
    )


# -- mistralai ---------------------------------------------------------------------------------


async def mistral(url: str) -> Said:
    """`chat.stream_async`, chunk by chunk: the SDK does not put them together, and has calls whole."""
    async with _http() as http:
        client = Mistral(api_key=KEY, server_url=url, async_client=http)
        asked: list[Any] = list(MESSAGES)
        async with await client.chat.stream_async(model=MODEL, messages=asked) as stream:
            chunks = [event.data async for event in stream]
    return _mistral(chunks)


def _mistral(chunks: Iterable[mistral_models.CompletionChunk]) -> Said:
    text, thought, finish, usage = "", "", None, None
    calls = list[Call]()
    for chunk in chunks:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            finish = choice.finish_reason or finish
            content = choice.delta.content or ""
            for part in content if isinstance(content, list) else [mistral_models.TextChunk(text=content)]:
                if isinstance(part, mistral_models.TextChunk):
                    text += part.text
                elif isinstance(part, mistral_models.ThinkChunk):
                    thought += "".join(inner.text for inner in part.thinking if inner.type == "text")
            for call in choice.delta.tool_calls or ():
                arguments = call.function.arguments
                whole = arguments if isinstance(arguments, str) else json.dumps(arguments)
                calls.append(Call(id=call.id or "", name=call.function.name, arguments=whole))
    return Said(
        text=text,
        reasoning=thought,
        calls=tuple(calls),
        finish_reason=finish,
        usage=usage
        and counted(
            input_tokens=usage.prompt_tokens,
            output_tokens=usage.completion_tokens,
            total_tokens=usage.total_tokens,
        ),
    )
