"""Prefix continuation on the server's side: who is asked how, how models go on, and where an answer has no room."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
import pytest

from holdfast.client import Client
from holdfast.offline import assemble
from holdfast.testing import Answer, ChaosServer, Schedule, write_answer
from holdfast.testing.answers import in_pieces
from holdfast.testing.continuing import continued
from holdfast.testing.faults import ResetMidStream
from holdfast.testing.shapes import ChatShape
from holdfast.testing.shapes.anthropic import takes_prefill

USER = {"role": "user", "content": "tides"}


def ending(beginning: str, **more: Any) -> dict[str, Any]:
    return {"messages": [USER, {"role": "assistant", "content": beginning, **more}]}


CHAT = "/v1/chat/completions"
ASKED: dict[str, tuple[str, Mapping[str, Any]]] = {
    "deepseek": ("/beta/chat/completions", {"prefix": True}),
    "mistral": (CHAT, {"prefix": True}),
    "vllm": (CHAT, {}),
    "anthropic": ("/v1/messages", {}),
}
MORE: dict[str, dict[str, Any]] = {"vllm": {"continue_final_message": True, "add_generation_prompt": False}} | {
    "anthropic": {"max_tokens": 4096, "model": "claude-sonnet-4-5"}
}


class Nought:
    """Chance without chance: no try waits."""

    def random(self) -> float:
        return 0.0


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as made:
        yield made


async def ask(
    session: aiohttp.ClientSession, server: ChaosServer, path: str, body: dict[str, Any]
) -> tuple[int, bytes]:
    async with session.post(server.url + path, json={**body, "stream": True}) as reply:
        return reply.status, await reply.read()


def said(body: bytes) -> str:
    """Puts together what chat completions and Anthropic say."""
    text = ""
    for line in body.splitlines():
        if line.startswith(b"data: {"):
            payload = json.loads(line[6:])
            delta = payload["choices"][0]["delta"] if payload.get("choices") else payload.get("delta", {})
            text += delta.get("content") or delta.get("text") or ""
    return text


@pytest.mark.parametrize("who", ASKED)
async def test_a_beginning_is_continued_in_the_dialects_own_way(session: aiohttp.ClientSession, who: str) -> None:
    path, last = ASKED[who]
    async with ChaosServer(mode="prefix") as server:
        await ask(session, server, path, {"messages": [USER], **MORE.get(who, {}), "continue_final_message": False})
        truth = server.answer("tides").text
        for cut in (1, 50, len(truth)):
            status, body = await ask(session, server, path, ending(truth[:cut], **last) | MORE.get(who, {}))
            assert status == 200
            assert truth[:cut] + said(body) == truth
        assert b"reasoning_content" not in body
        assert b"thinking" not in body
    assert [served.rung for served in server.served] == ["", "prefix", "prefix", "prefix"]
    assert [served.events_again for served in server.served[1:]] == [0, 0, 0]
    assert server.served[1].tokens < server.served[0].tokens


@pytest.mark.parametrize("who", ASKED)
async def test_what_begins_no_answer_is_answered_with_another_text(session: aiohttp.ClientSession, who: str) -> None:
    path, last = ASKED[who]
    async with ChaosServer(mode="prefix") as server:
        _, body = await ask(session, server, path, ending("Nobody said that", **last) | MORE.get(who, {}))
    assert said(body) == server.answer("tides").text


async def test_an_assistants_message_alone_is_no_beginning_for_chat(session: aiohttp.ClientSession) -> None:
    async with ChaosServer(mode="prefix") as server:
        _, body = await ask(session, server, CHAT, ending(server.answer("tides").text[:30]))
    assert said(body) == server.answer("tides").text


@pytest.mark.parametrize("how", ["echo", "word", "space"])
async def test_a_model_that_does_not_go_on_where_it_should(session: aiohttp.ClientSession, how: Any) -> None:
    async with ChaosServer(mode="prefix", continuing=how) as server:
        truth = server.answer("tides").text
        cut = truth.index(" ", 40)
        _, body = await ask(session, server, CHAT, ending(truth[:cut], prefix=True))
    expected = {"echo": truth, "word": in_pieces(truth[:cut])[-1] + truth[cut:], "space": truth[cut + 1 :]}
    assert said(body) == expected[how]


def test_a_model_may_put_a_blank_where_there_is_none() -> None:
    assert continued(Answer(pieces=("lp", " bends")), "The ke", "space").text == " lp bends"
    assert continued(Answer(), "The kelp.", "space") == Answer()


@pytest.mark.parametrize(
    "model", ["claude-opus-4-6", "claude-sonnet-4.6", "claude-opus-5", "claude-haiku-5-1-20270101"]
)
async def test_later_claudes_take_no_prefill(session: aiohttp.ClientSession, model: str) -> None:
    async with ChaosServer(mode="prefix") as server:
        status, body = await ask(session, server, "/v1/messages", {"model": model, **ending("The tide")})
    assert status == 400
    error = json.loads(body)["error"]
    assert error["type"] == "invalid_request_error"
    assert error["message"].startswith("This model does not support assistant message prefill.")
    assert server.attempts == {}
    assert [(served.attempt, served.status, served.rung) for served in server.served] == [(0, 400, "prefix")]


@pytest.mark.parametrize(
    "model", ["claude-sonnet-4-5-20250929", "claude-sonnet-4-20250514", "claude-3-7-sonnet-latest"]
)
def test_earlier_claudes_do(model: str) -> None:
    assert takes_prefill(model)


@pytest.mark.parametrize(
    ("strict", "prompts", "expected"),
    [
        (False, {}, 200),  # SGLang
        (False, {"add_generation_prompt": False}, 200),
        (False, {"add_generation_prompt": True}, 400),
        (True, {}, 400),  # vLLM
        (True, {"add_generation_prompt": False}, 200),
        (True, {"add_generation_prompt": True}, 400),
    ],
)
async def test_nobody_can_begin_and_go_on_at_once(
    session: aiohttp.ClientSession, *, strict: bool, prompts: dict[str, bool], expected: int
) -> None:
    async with ChaosServer(mode="prefix", shape=ChatShape(strict=True) if strict else None) as server:
        status, body = await ask(session, server, CHAT, ending("The tide") | {"continue_final_message": True} | prompts)
    assert status == expected
    assert (b"add_generation_prompt" in body) == (expected == 400)
    assert server.served[0].rung == "prefix"


# -- what it costs -----------------------------------------------------------------------------


async def test_a_beginning_is_billed_with_the_prompt_whether_or_not_it_is_continued(
    session: aiohttp.ClientSession,
) -> None:
    for mode in ("prefix", "no-ids"):
        async with ChaosServer(mode=mode) as server:
            beginning = server.answer("tides").text[:60]
            _, body = await ask(session, server, CHAT, ending(beginning, prefix=True, reasoning_content="The moon."))
        usage = assemble([body], dialect="deepseek").usage
        assert usage is not None
        assert usage.input_tokens == 19 + len(in_pieces(beginning)) + len(in_pieces("The moon."))


@pytest.mark.parametrize("dialect", ["deepseek", "mistral", "vllm", "sglang", "anthropic"])
async def test_a_seamed_answers_usage_is_that_of_the_uncut_one_within_the_estimate(dialect: str) -> None:
    question = {"model": "kelp-1", "max_tokens": 4096, "messages": [USER]}
    used = []
    for faults in ([], [ResetMidStream(after=40)]):
        schedule = Schedule(streams={"tides": faults})
        async with ChaosServer(mode="prefix", thoughts=0, schedule=schedule) as server:
            url = server.url if dialect == "anthropic" else f"{server.url}/v1"
            async with Client(dialect, api_key="k", base_url=url, seams=True, random=Nought()) as client:
                answer = await client.complete(question)
        assert answer.text == server.answer("tides").text
        assert [served.rung for served in server.served] == (["", "replay", "prefix"] if faults else [""])
        assert answer.usage is not None
        used.append(answer.usage)
    uncut, seamed = used
    assert (uncut.estimated, seamed.estimated) == (False, True)
    for count in ("input_tokens", "output_tokens", "total_tokens"):
        true, estimate = getattr(uncut, count), getattr(seamed, count)
        # Off by no more than the tail that was said again, of which nobody tells the tokens.
        assert abs(estimate - true) <= 8, (count, true, estimate)


# -- room --------------------------------------------------------------------------------------

LIMITED: dict[str, tuple[str, dict[str, Any], bytes]] = {
    "chat": (CHAT, {"messages": [USER], "max_tokens": 30}, b'"finish_reason":"length"'),
    "newer chat": (CHAT, {"messages": [USER], "max_completion_tokens": 30}, b'"finish_reason":"length"'),
    "responses": ("/v1/responses", {"input": "tides", "max_output_tokens": 30}, b'{"reason":"max_output_tokens"}'),
    "anthropic": ("/v1/messages", {"messages": [USER], "max_tokens": 30}, b'"stop_reason":"max_tokens"'),
    "gemini": (
        "/v1beta/models/m:streamGenerateContent?alt=sse",
        {"contents": [{"parts": [{"text": "tides"}]}], "generationConfig": {"maxOutputTokens": 30}},
        b'"finishReason": "MAX_TOKENS"',
    ),
    "interactions": (
        "/v1beta/interactions",
        {"input": "tides", "generation_config": {"max_output_tokens": 30}},
        b'"status":"incomplete"',
    ),
    "cohere": ("/v2/chat", {"messages": [USER], "max_tokens": 30}, b'"finish_reason":"MAX_TOKENS"'),
}


@pytest.mark.parametrize("which", LIMITED)
async def test_an_answer_ends_where_it_has_no_more_room(session: aiohttp.ClientSession, which: str) -> None:
    path, body, told = LIMITED[which]
    async with ChaosServer() as server:
        status, streamed = await ask(session, server, path, body)
    assert status == 200
    assert told in streamed
    assert server.served[0].tokens == 30


async def test_an_answer_can_be_asked_for_piece_by_piece(session: aiohttp.ClientSession) -> None:
    async with ChaosServer(mode="prefix", write=lambda seed: write_answer(seed, thoughts=0)) as server:
        text, finish, rounds = "", "length", 0
        while finish == "length":
            body = ending(text, prefix=True) if text else {"messages": [USER]}
            _, streamed = await ask(session, server, CHAT, {**body, "max_tokens": 25})
            completion = assemble([streamed], dialect="deepseek")
            text, finish, rounds = text + completion.text, completion.finish_reason or "", rounds + 1
    assert text == server.answer("tides").text
    assert (finish, rounds) == ("stop", -(-len(in_pieces(text)) // 25))


# -- answers -----------------------------------------------------------------------------------


def test_what_is_cut_is_the_beginning_of_it() -> None:
    answer = write_answer("tides", tools=2)
    for limit in range(1, answer.tokens):
        cut = answer.cut(limit)
        assert cut.tokens == limit
        assert cut.finish == "length"
        assert answer.text.startswith(cut.text)
        assert [tool.name for tool in answer.tools][: len(cut.tools)] == [tool.name for tool in cut.tools]
    assert answer.cut(answer.tokens) is answer
    assert answer.cut(None) is answer


def test_tools_and_refusals_are_written_by_seed_and_change_nothing_else() -> None:
    plain, calling = write_answer("tides"), write_answer("tides", tools=3)
    assert (plain.text, plain.reasoning) == (calling.text, calling.reasoning)
    assert calling == write_answer("tides", tools=3)
    assert all(isinstance(json.loads(tool.arguments), dict) for tool in calling.tools)
    refused = write_answer("tides", refuses=True)
    assert (refused.text, bool(refused.refusal)) == ("", True)
    assert write_answer("tides", thoughts=0).reasoning == ""
