"""The server's side of every rung: each is climbed over real TCP by a client that knows nothing of the library."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any

import aiohttp
import pytest

from holdfast.testing import ChaosServer, FakeClock, Schedule
from holdfast.testing import faults as f
from holdfast.testing.acts import EventCutter
from holdfast.testing.idiom import event_id

ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"messages": [{"role": "user", "content": "tides"}]}),
    "responses": ("/v1/responses", {"input": "tides"}),
    "anthropic": ("/v1/messages", {"max_tokens": 4096, "messages": [{"role": "user", "content": "tides"}]}),
    "gemini": (
        "/v1beta/models/gemini-3-flash:streamGenerateContent?alt=sse",
        {"contents": [{"role": "user", "parts": [{"text": "tides"}]}]},
    ),
    "interactions": ("/v1beta/interactions", {"input": "tides"}),
    "cohere": ("/v2/chat", {"messages": [{"role": "user", "content": [{"type": "text", "text": "tides"}]}]}),
}


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(raise_for_status=False) as made:
        yield made


async def post(
    session: aiohttp.ClientSession,
    server: ChaosServer,
    which: str,
    more: dict[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, bytes]:
    path, body = ASKED[which]
    async with session.post(server.url + path, json={**body, "stream": True, **(more or {})}, headers=headers) as reply:
        return reply.status, await reply.read()


async def get(session: aiohttp.ClientSession, server: ChaosServer, path: str) -> tuple[int, bytes]:
    async with session.get(server.url + path) as reply:
        return reply.status, await reply.read()


def events(body: bytes) -> list[bytes]:
    return EventCutter().feed(body)


def response_id(body: bytes) -> str:
    found = re.search(rb'"id":"(resp_[0-9a-f]+|v1_[0-9a-f]+)"', body)
    assert found is not None
    return found[1].decode()


# -- any path, any shape -----------------------------------------------------------------------


@pytest.mark.parametrize("which", ASKED)
async def test_a_server_knows_a_shape_by_its_path(session: aiohttp.ClientSession, which: str) -> None:
    async with ChaosServer(tools=1) as server:
        status, body = await post(session, server, which)
    assert status == 200
    assert server.served[0].tokens == server.answer("tides").tokens
    assert {"chat": b'"object":"chat.completion.chunk"', "gemini": b"usageMetadata"}.get(which, b"event: ") in body


@pytest.mark.parametrize("which", ASKED)
async def test_any_shape_continues_after_a_last_event_id(session: aiohttp.ClientSession, which: str) -> None:
    async with ChaosServer(mode="ids", schedule=Schedule(streams={"tides": [f.CleanCut(after=25)]})) as server:
        _, begun = await post(session, server, which)
        last = event_id(events(begun)[-1])
        _, rest = await post(session, server, which, headers={"Last-Event-ID": last})
    async with ChaosServer(mode="ids") as uncut:
        assert begun + rest == (await post(session, uncut, which))[1]
    assert [served.rung for served in server.served] == ["", "last-event-id"]
    assert [served.events_again for served in server.served] == [0, 0]
    assert uncut.summary["tokens"] == server.summary["tokens"] == server.answer("tides").tokens


@pytest.mark.parametrize("which", ASKED)
async def test_a_replay_says_the_same_and_is_paid_again(session: aiohttp.ClientSession, which: str) -> None:
    async with ChaosServer(schedule=Schedule(streams={"tides": [f.CleanCut(after=9)]})) as server:
        _, begun = await post(session, server, which)
        _, whole = await post(session, server, which)
    assert len(events(begun)) == 9
    first, again = server.served
    assert (first.rung, again.rung) == ("", "replay")
    assert (again.events_again, again.tokens) == (9, server.answer("tides").tokens)
    assert re.sub(rb"[0-9a-f]{24}", b"", whole).count(b"\ndata") > 30


@pytest.mark.parametrize("which", ASKED)
async def test_a_divergent_server_diverges_in_any_shape(session: aiohttp.ClientSession, which: str) -> None:
    async with ChaosServer(mode="divergent") as server:
        bodies = [(await post(session, server, which))[1] for _ in range(2)]
    words = [re.sub(rb"[0-9a-f]{24}", b"", body) for body in bodies]
    assert words[0] != words[1]
    assert len(server.answers("tides")) == 2


# -- OpenAI Responses in the background --------------------------------------------------------


@pytest.mark.parametrize("after", [0, 7, 40])
async def test_a_background_response_goes_on_after_a_sequence_number(
    session: aiohttp.ClientSession, after: int
) -> None:
    cut = Schedule(streams={"tides": [f.ResetMidStream(after=after + 1)]})
    async with ChaosServer(schedule=cut) as server:
        path, body = ASKED["responses"]
        begun = b""
        async with session.post(server.url + path, json={**body, "background": True, "stream": True}) as reply:
            with suppress(aiohttp.ClientError):
                async for data in reply.content.iter_any():
                    begun += data
        asked = f"/v1/responses/{response_id(begun)}?stream=true&starting_after={after}"
        status, rest = await get(session, server, asked)
    assert len(events(begun)) == after + 1
    numbers = [int(found) for found in re.findall(rb'"sequence_number":(\d+)\}', begun + rest)]
    assert status == 200
    assert numbers == list(range(len(numbers)))
    assert rest.rstrip().split(b"event: ")[-1].startswith(b"response.completed")
    assert b'"status":"queued"' in begun
    assert [served.rung for served in server.served] == ["", "cursor"]
    assert [served.events_again for served in server.served] == [0, 0]
    assert [served.tokens for served in server.served] == [server.answer("tides").tokens, 0]


async def test_the_window_of_a_background_response_is_measured_on_the_servers_clock(
    session: aiohttp.ClientSession,
) -> None:
    clock = FakeClock(autojump=False)
    async with ChaosServer(clock=clock) as server:
        _, body = await post(session, server, "responses", {"background": True})
        path = f"/v1/responses/{response_id(body)}"
        clock._now = 299.0
        early, _ = await get(session, server, f"{path}?stream=true&starting_after=3")
        clock._now = 301.0
        late, said = await get(session, server, f"{path}?stream=true&starting_after=3")
        shown, whole = await get(session, server, path)
    assert (early, late, shown) == (200, 400, 200)
    assert b"more than 5 minutes old" in said
    assert json.loads(whole)["status"] == "completed"
    assert [served.status for served in server.served] == [200, 200, 400]
    assert server.attempts == {"tides": 2}


async def test_without_background_there_is_nothing_to_go_on_with(session: aiohttp.ClientSession) -> None:
    async with ChaosServer() as server:
        _, body = await post(session, server, "responses")
        status, said = await get(session, server, f"/v1/responses/{response_id(body)}?stream=true&starting_after=3")
    assert status == 404
    assert json.loads(said)["error"]["type"] == "invalid_request_error"


async def test_a_response_is_generated_without_a_reader_until_it_is_cancelled(session: aiohttp.ClientSession) -> None:
    async with ChaosServer(every=0.01) as server:
        path, body = ASKED["responses"]
        async with session.post(server.url + path, json={**body, "background": True, "stream": True}) as reply:
            begun = await reply.content.readuntil(b"\n\n")
            reply.close()
        await asyncio.sleep(0.1)
        which = f"/v1/responses/{response_id(begun)}"
        async with session.post(f"{server.url}{which}/cancel") as reply:
            cancelled = await reply.json()
        _, made = await get(session, server, f"{which}?stream=true")
        async with session.post(f"{server.url}{which}/cancel") as reply:
            assert reply.status == 200
    assert cancelled["status"] == "cancelled"
    assert 5 <= len(events(made)) < 60
    assert b"response.completed" not in made
    assert 0 < server.served[0].tokens < server.answer("tides").tokens
    assert server.summary["cancels"] == 1


async def test_a_live_response_is_followed_to_its_end(session: aiohttp.ClientSession) -> None:
    async with ChaosServer(every=0.002, sentences=1) as server:
        path, body = ASKED["responses"]
        async with session.post(server.url + path, json={**body, "background": True, "stream": True}) as reply:
            begun = await reply.content.readuntil(b"\n\n")
            reply.close()
        _, rest = await get(session, server, f"/v1/responses/{response_id(begun)}?stream=true&starting_after=0")
    assert b"event: response.completed" in rest


async def test_a_server_does_not_keep_all_there_ever_was(
    session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.testing.keeping.MAX_KEPT", 2)
    async with ChaosServer() as server:
        bodies = [(await post(session, server, "responses", {"background": True}))[1] for _ in range(3)]
        statuses = [(await get(session, server, f"/v1/responses/{response_id(body)}"))[0] for body in bodies]
    assert statuses == [404, 200, 200]


# -- Gemini interactions -----------------------------------------------------------------------


@pytest.mark.parametrize("after", [1, 20])
async def test_an_interaction_goes_on_after_an_event_id(session: aiohttp.ClientSession, after: int) -> None:
    async with ChaosServer(schedule=Schedule(streams={"tides": [f.CleanCut(after=after)]})) as server:
        _, begun = await post(session, server, "interactions")
        last = re.findall(rb'"event_id":"(\w+)"', begun)[-1].decode()
        path = f"/v1beta/interactions/{response_id(begun)}?stream=true&last_event_id={last}"
        status, rest = await get(session, server, path)
        unknown, _ = await get(session, server, path.replace(last, "e9999"))
    assert (status, unknown) == (200, 400)
    ids = re.findall(rb'"event_id":"e(\d+)"', begun + rest)
    assert [int(found) for found in ids] == list(range(1, len(ids) + 1))
    assert rest.endswith(b"event: done\ndata: [DONE]\n\n")
    assert [served.events_again for served in server.served] == [0, 0, 0]


async def test_an_interaction_that_is_not_stored_is_gone(session: aiohttp.ClientSession) -> None:
    async with ChaosServer() as server:
        _, body = await post(session, server, "interactions", {"store": False})
        status, _ = await get(session, server, f"/v1beta/interactions/{response_id(body)}?stream=true&last_event_id=e3")
    assert b"event_id" not in body
    assert status == 404


# -- llama.cpp ---------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0, 1, 333, 5000])
async def test_a_conversation_goes_on_at_any_byte(session: aiohttp.ClientSession, offset: int) -> None:
    async with ChaosServer() as server:
        _, whole = await post(session, server, "chat", headers={"X-Conversation-Id": "c1"})
        status, rest = await get(session, server, f"/v1/stream?conv_id=c1&from={offset}")
    assert status == 200
    assert rest == whole[offset:]
    assert server.served[1].rung == "cursor"
    assert server.served[1].tokens == 0


async def test_what_has_left_the_ring_is_gone(session: aiohttp.ClientSession) -> None:
    async with ChaosServer(ring=1000) as server:
        _, whole = await post(session, server, "chat", headers={"X-Conversation-Id": "c1"})
        gone, _ = await get(session, server, f"/v1/stream?conv_id=c1&from={len(whole) - 1001}")
        there, rest = await get(session, server, f"/v1/stream?conv_id=c1&from={len(whole) - 1000}")
        unknown, _ = await get(session, server, "/v1/stream?conv_id=c2&from=0")
    assert (gone, there, unknown) == (400, 200, 404)
    assert rest == whole[-1000:]


async def test_a_conversation_can_be_stopped(session: aiohttp.ClientSession) -> None:
    async with ChaosServer(every=0.01) as server:
        path, body = ASKED["chat"]
        async with session.post(server.url + path, json=body, headers={"X-Conversation-Id": "c1"}) as reply:
            await reply.content.readuntil(b"\n\n")
            async with session.delete(f"{server.url}/v1/stream?conv_id=c1") as stopped:
                assert stopped.status == 200
            left = await reply.read()
    assert b"[DONE]" not in left
    assert server.summary["cancels"] == 1


# -- faults meet cursors, too ------------------------------------------------------------------


async def test_a_request_with_a_cursor_is_the_next_attempt_and_meets_its_fault(session: aiohttp.ClientSession) -> None:
    faults: list[f.Fault] = [f.CleanCut(after=9), f.CleanCut(after=2), f.IgnoresLastEventId()]
    async with ChaosServer(schedule=Schedule(streams={"tides": faults})) as server:
        _, begun = await post(session, server, "responses", {"background": True})
        path = f"/v1/responses/{response_id(begun)}?stream=true&starting_after="
        _, more = await get(session, server, f"{path}8")
        _, forgotten = await get(session, server, f"{path}10")
    assert [len(events(begun)), len(events(more))] == [9, 2]
    assert b'"sequence_number":0}' in forgotten
    assert server.served[2].events_again == 11
