"""A hedge in a ready client: a late answer is asked for once more, and a call that may have done something never is."""

from __future__ import annotations

import httpx2
import pytest

from holdfast import Hedge, mounts
from holdfast.testing.server import STREAM_HEAD, Pause, ScriptedServer, Send, Stall, Step, sse
from tests.mounts.shop import BODY, CHAT, EVENTS, TEXT, Nought, begun, healthy, text_of


def hedged(delay: float = 0.5) -> httpx2.AsyncClient:
    return mounts.httpx2_client(traffic=[Hedge(delay=delay, share=1.0)], random=Nought())


@pytest.mark.parametrize(
    "late",
    [[Stall()], [Send(STREAM_HEAD), Stall()], begun(Stall(), events=EVENTS[:1])],
    ids=["no head", "a head", "a role"],
)
async def test_an_answer_that_is_late_is_asked_for_once_more(late: list[Step]) -> None:
    async with ScriptedServer([late, healthy()]) as server, hedged() as client:
        response = await client.post(f"{server.url}{CHAT}", json=BODY)
        told = mounts.report(response)
        assert text_of(response.content) == TEXT
        assert told is not None
        assert (told.hedges, told.losers, told.attempts, told.outcome) == (1, [1], 2, "complete")
        assert server.open_connections == 1, "the loser's is closed, and the winner's can be used again"


@pytest.mark.parametrize("accept", ["application/json, text/event-stream", "*/*"])
@pytest.mark.parametrize("headed", [False, True], ids=["before its head", "behind its head"])
async def test_a_tools_call_is_sent_once(accept: str, *, headed: bool) -> None:
    answer = sse('{"jsonrpc": "2.0", "id": 1, "result": {"content": []}}')
    whole = healthy([answer])
    late: list[Step] = [whole[0], Pause(0.2), *whole[1:]] if headed else [Pause(0.2), *whole]
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call"}
    async with ScriptedServer([late, healthy()]) as server, hedged(0.05) as client:
        response = await client.post(f"{server.url}/mcp", json=call, headers={"Accept": accept})
        assert response.content == answer
        assert len(server.requests) == 1
