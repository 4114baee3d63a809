"""The event that ends an answer comes where its provider always sends one, and is made up for nobody else."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from holdfast import mounts
from holdfast.testing.server import ScriptedServer, sse
from tests.mounts.shop import BODY, CHAT, DONE, EVENTS, Nought, healthy

MESSAGE = {"id": "m1", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": {}}
SAID: list[dict[str, Any]] = [
    {"type": "message_start", "message": MESSAGE},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "kelp"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}},
    {"type": "message_stop"},
]
MESSAGES = [sse(json.dumps(said), event=said["type"]) for said in SAID]
CASES = {
    "messages": ("auto", "/v1/messages", MESSAGES, b'"message_stop"'),
    "openai": ("openai", CHAT, EVENTS, b"[DONE]"),
    "somebody's": ("auto", CHAT, EVENTS, b"[DONE]"),
}


async def ask(case: str, *, whole: bool) -> tuple[bytes, bytes, bytes]:
    dialect, path, events, mark = CASES[case]
    sent = events if whole else events[:-1]
    client = mounts.httpx2_client(dialect=dialect, random=Nought(), trust_env=False, verify=False)
    async with ScriptedServer([healthy(sent)]) as server, client as c:
        response: httpx2.Response = await c.post(f"{server.url}{path}", json=BODY)
        assert len(server.requests) == 1
    told = mounts.report(response)
    assert told is not None
    assert told.outcome == "complete"
    return response.content, b"".join(sent), mark


@pytest.mark.parametrize("case", CASES)
async def test_a_healthy_answer_passes_to_the_byte(case: str) -> None:
    got, sent, _ = await ask(case, whole=True)
    assert got == sent


@pytest.mark.parametrize("case", ["messages", "openai"])
async def test_an_answer_cut_cleanly_behind_its_proof_gets_its_end_mark(case: str) -> None:
    got, sent, mark = await ask(case, whole=False)
    assert got.startswith(sent)
    assert got.count(mark) == 1


async def test_who_may_send_none_gets_none() -> None:
    got, sent, _ = await ask("somebody's", whole=False)
    assert got == sent
    assert DONE not in got
