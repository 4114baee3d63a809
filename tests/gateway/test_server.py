"""What a client of the gateway relies on, over TCP."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from holdfast import _pipe, parse_events
from holdfast.gateway.reading import HEARTBEAT
from holdfast.moments import Moment, Started
from holdfast.testing.server import (
    STREAM_HEAD,
    ReceivedRequest,
    Reply,
    ScriptedServer,
    Send,
    Stall,
    chunked,
    respond,
    sse,
    stream,
)
from tests.gateway.serving import serving, settings

BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}


def chunk(text: str, finish: str | None = None) -> bytes:
    end = f'"{finish}"' if finish else "null"
    return sse(f'{{"id":"c","choices":[{{"index":0,"delta":{{"content":"{text}"}},"finish_reason":{end}}}]}}')


ANSWER = [chunk("one "), b": ping\n\n", chunk("two "), chunk("three", "stop"), sse("[DONE]")]


async def test_a_stream_arrives_with_ids_and_otherwise_as_it_was_sent() -> None:
    async def upstream(request: ReceivedRequest) -> Reply:
        return stream(*ANSWER)

    async with (
        ScriptedServer(upstream) as http,
        serving(settings(f"http://127.0.0.1:{http.port}/v1")) as served,
        aiohttp.ClientSession() as session,
    ):
        async with session.post(f"{served.url}/v1/chat/completions", json=BODY) as response:
            body = await response.read()
            name = response.headers["X-Holdfast-Stream"]
        lines = [line for line in body.splitlines(keepends=True) if not line.startswith(b"id: ")]
        assert b"".join(lines) == b"".join(ANSWER)
        assert ids_of(body) == [f"{name}-{n}" for n in (1, 3, 4, 5)]
        for n in (0, 1, 2, 3, 4, 5):
            there = {"Last-Event-ID": f"{name}-{n}"}
            async with session.get(f"{served.url}/v1/streams/{name}", headers=there) as response:
                rest = await response.read()
                assert response.status == (200 if n < 5 else 204)
                assert body.endswith(rest)
                assert ids_of(rest) == [f"{name}-{m}" for m in (1, 3, 4, 5) if m > n]


def ids_of(body: bytes) -> list[str | None]:
    return [event.id for event in parse_events(body).events]


@pytest.mark.parametrize("journal", ["memory", "none"])
async def test_a_line_is_kept_while_the_upstream_has_not_even_sent_a_head(journal: str) -> None:
    """Some models think before their server says anything, and a load balancer ends a line that says nothing."""
    go_on = asyncio.Event()

    async def upstream(request: ReceivedRequest) -> Reply:
        await go_on.wait()
        return stream(*ANSWER)

    async with (
        ScriptedServer(upstream) as http,
        serving(settings(f"http://127.0.0.1:{http.port}/v1", journal=journal, heartbeat=0.1)) as served,
        aiohttp.ClientSession() as session,
        session.post(f"{served.url}/v1/chat/completions", json=BODY) as response,
    ):
        assert response.status == 200
        assert await response.content.readline() == HEARTBEAT
        go_on.set()
        rest = await response.read()
        data = [event.data for event in parse_events(HEARTBEAT + rest).events]
        assert data == [event.data for event in parse_events(ANSWER).events]


async def test_a_reader_that_leaves_before_the_head_gives_an_answer_up_that_is_kept_nowhere() -> None:
    async def upstream(request: ReceivedRequest) -> Reply:
        await asyncio.Event().wait()
        raise AssertionError

    async with (
        ScriptedServer(upstream) as http,
        serving(settings(f"http://127.0.0.1:{http.port}/v1", journal="none", heartbeat=0.1)) as served,
        aiohttp.ClientSession() as session,
    ):
        async with session.post(f"{served.url}/v1/chat/completions", json=BODY) as response:
            assert await response.content.readline() == HEARTBEAT
        assert await http.all_closed()
        assert served.gateway.through.producing == 0


async def test_a_look_up_of_models_is_no_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Moment] = []
    monkeypatch.setattr(_pipe, "listener_factories", [lambda: heard.append])

    async def upstream(request: ReceivedRequest) -> Reply:
        return respond(b"{}", 404) if request.path.endswith("/models") else stream(*ANSWER)

    async with (
        ScriptedServer(upstream) as http,
        serving(settings(f"http://127.0.0.1:{http.port}/v1")) as served,
        aiohttp.ClientSession() as session,
    ):
        async with session.get(f"{served.url}/v1/models") as response:
            assert (await response.json())["data"] == []
        assert not heard
        async with session.post(f"{served.url}/v1/chat/completions", json=BODY) as response:
            await response.read()
        assert sum(isinstance(moment, Started) for moment in heard) == 1


async def test_a_stream_that_has_ended_is_not_cancelled() -> None:
    async def upstream(request: ReceivedRequest) -> Reply:
        return [Send(STREAM_HEAD), Send(chunked(ANSWER[0])), Stall()]

    async with (
        ScriptedServer(upstream) as http,
        serving(settings(f"http://127.0.0.1:{http.port}/v1")) as served,
        aiohttp.ClientSession() as session,
        session.post(f"{served.url}/v1/chat/completions", json=BODY) as response,
    ):
        name = response.headers["X-Holdfast-Stream"]
        for _ in range(2):
            async with session.delete(f"{served.url}/v1/streams/{name}") as cancelled:
                assert cancelled.status == 204
        assert served.gateway.watch.counts["cancelled"] == 1


async def test_an_idempotency_key_joins_the_stream_of_the_same_request_and_of_no_other() -> None:
    go_on = asyncio.Event()

    async def upstream(request: ReceivedRequest) -> Reply:
        await go_on.wait()
        return stream(*ANSWER)

    async with (
        ScriptedServer(upstream) as http,
        serving(settings(f"http://127.0.0.1:{http.port}/v1")) as served,
        aiohttp.ClientSession(headers={"Idempotency-Key": "once"}) as session,
    ):

        async def ask(**more: object) -> tuple[int, bytes]:
            async with session.post(f"{served.url}/v1/chat/completions", json={**BODY, **more}) as response:
                return response.status, await response.read()

        asking = [asyncio.create_task(ask()) for _ in range(20)]
        await asyncio.sleep(0.05)
        status, told = await ask(temperature=0.5)
        assert (status, b"idempotency_conflict" in told) == (409, True)
        go_on.set()
        assert set(await asyncio.gather(*asking)) == {(200, await read_whole(session, served.url))}
        assert len(http.requests) == 1


async def read_whole(session: aiohttp.ClientSession, url: str) -> bytes:
    """Gives the stream of that key as one who comes late reads it."""
    async with session.post(f"{url}/v1/chat/completions", json=BODY) as response:
        return await response.read()
