"""What a server in a box says where no stream is asked for: the answer as one document, its models, what is missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from holdfast.offline import assemble
from holdfast.testing import ChaosServer, Schedule
from holdfast.testing.answers import write_answer
from holdfast.testing.faults import CleanCut

USER = {"role": "user", "content": "tides"}
ONLY_JSON = {"Accept": "application/json"}
GOOGLE = "/v1beta/models/m:"
CONTENTS = {"contents": [{"parts": [{"text": "tides"}]}]}


def said_by_google(document: Any) -> str:
    parts = document["candidates"][0]["content"]["parts"]
    return "".join(part["text"] for part in parts if "text" in part and not part.get("thought"))


Reader = Callable[[Any], str]
WAYS: dict[str, tuple[str, dict[str, Any], Reader]] = {
    "chat": ("/chat/completions", {"messages": [USER]}, lambda told: told["choices"][0]["message"]["content"]),
    "completions": ("/v1/completions", {"prompt": "tides"}, lambda told: told["choices"][0]["text"]),
    "responses": (
        "/v1/responses",
        {"input": "tides"},
        lambda told: next(item for item in told["output"] if item["type"] == "message")["content"][0]["text"],
    ),
    "messages": (
        "/v1/messages",
        {"max_tokens": 4096, "messages": [USER]},
        lambda told: "".join(block["text"] for block in told["content"] if block["type"] == "text"),
    ),
    "gemini": (GOOGLE + "generateContent", CONTENTS, said_by_google),
    "gemini array": (GOOGLE + "streamGenerateContent", CONTENTS, lambda told: "".join(map(said_by_google, told))),
}


async def post(url: str, body: dict[str, Any], **headers: str) -> tuple[int, str, bytes]:
    async with aiohttp.ClientSession() as session, session.post(url, json=body, headers=headers) as response:
        return response.status, response.content_type, await response.read()


@pytest.mark.parametrize("way", WAYS)
async def test_whoever_asks_for_no_stream_gets_the_answer_in_one_piece(way: str) -> None:
    path, body, text_of = WAYS[way]
    schedule = Schedule(streams={"*": [CleanCut(after=3)] * 9})
    async with ChaosServer(schedule=schedule, tools=1) as upstream:
        status, kind, said = await post(upstream.url + path, body, **ONLY_JSON)
        if "gemini" not in way:
            assert (await post(upstream.url + path, {**body, "stream": False}))[1:] == (kind, said)
        expected = upstream.answer("tides")
    assert (status, kind) == (200, "application/json")
    assert text_of(json.loads(said)) == expected.text
    first = upstream.served[0]
    assert (first.attempt, first.bytes, first.tokens) == (0, len(said), expected.tokens)
    assert not upstream.attempts


async def test_a_document_has_what_was_thought_and_which_tools_are_called() -> None:
    async with ChaosServer(tools=1) as upstream:
        told = {
            way: json.loads((await post(upstream.url + path, body, **ONLY_JSON))[2])
            for way, (path, body, _) in WAYS.items()
        }
        answer = upstream.answer("tides")
    (tool,) = answer.tools
    message = told["chat"]["choices"][0]["message"]
    assert message["reasoning_content"] == answer.reasoning
    assert message["tool_calls"][0]["function"] == {"name": tool.name, "arguments": tool.arguments}
    thinking, _, called = told["messages"]["content"]
    assert (thinking["thinking"], called["input"]) == (answer.reasoning, json.loads(tool.arguments))
    assert told["messages"]["stop_reason"] == "tool_use"
    thought, _, call = told["gemini"]["candidates"][0]["content"]["parts"]
    assert thought == {"text": answer.reasoning, "thought": True}
    assert call["functionCall"] == {"name": tool.name, "args": json.loads(tool.arguments)}
    assert told["responses"]["status"] == "completed"


@pytest.mark.parametrize("way", ["chat", "completions", "responses", "messages"])
async def test_whoever_is_silent_and_takes_anything_gets_a_stream(way: str) -> None:
    path, body, _ = WAYS[way]
    async with ChaosServer() as upstream:
        assert (await post(upstream.url + path, body))[1] == "text/event-stream"
        assert (await post(upstream.url + path, {**body, "stream": True}, **ONLY_JSON))[1] == "text/event-stream"


async def test_older_completions_are_streamed_too() -> None:
    async with ChaosServer(thoughts=0) as upstream:
        _, _, said = await post(f"{upstream.url}/v1/completions", {"prompt": "tides", "stream": True})
    assert assemble([said], dialect="openai").text == write_answer("0 tides", thoughts=0).text


async def test_there_is_one_model() -> None:
    async with ChaosServer() as upstream, aiohttp.ClientSession() as session:
        async with session.get(f"{upstream.url}/v1/models") as response:
            assert [model["id"] for model in (await response.json())["data"]] == ["deepseek-flash"]
        async with session.get(f"{upstream.url}/v1beta/models") as response:
            assert len((await response.json())["models"]) == 1


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/chat/completions", {}, "Missing required parameter: 'messages'"),
        ("/chat/completions", {"messages": []}, "Invalid 'messages': it must hold at least one message"),
        ("/v1/completions", {}, "Missing required parameter: 'prompt'"),
        ("/v1/responses", {}, "Missing required parameter: 'input'"),
        ("/v1/messages", {}, "messages: Field required"),
        ("/v1/messages", {"messages": []}, "messages: at least one message"),
        (GOOGLE + "generateContent", {}, "contents is not specified"),
        (GOOGLE + "streamGenerateContent?alt=sse", {"contents": []}, "contents holds no text"),
        ("/v1/embeddings", {"input": "tides"}, "this is no request for a completion"),
    ],
)
async def test_what_is_missing_is_told_in_the_dialect_s_words(path: str, body: dict[str, Any], words: str) -> None:
    async with ChaosServer() as upstream:
        status, kind, said = await post(upstream.url + path, {**body, "stream": True})
    error = json.loads(said)["error"]
    assert (status, kind) == (400, "application/json")
    assert words in error["message"]
    assert ("status" in error) == ("v1beta" in path)
