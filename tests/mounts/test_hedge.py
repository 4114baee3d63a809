"""Hedge under mounts: the client gets the winner's head and body, and nothing of the loser is left or mixed in."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncGenerator
from typing import Any

import aiohttp
import httpx
import httpx2
import pytest
import requests

from holdfast import Hedge, mounts
from holdfast.testing.background import in_background
from holdfast.testing.server import Handler, Pause, ScriptedServer, Send, Stall, Step, head, respond
from tests.mounts.shop import BODY as ASKED
from tests.mounts.shop import CHAT, TEXT, WIRE, Nought, text_of

BOTH: dict[Any, Any] = {httpx: mounts.httpx_client, httpx2: mounts.httpx2_client}
BODY: Any = ASKED
LATE = 0.03
NDJSON = b'{"done": false}\n{"done": true}\n'
OTHER = respond(NDJSON, content_type="application/x-ndjson")


def settings(**more: Any) -> dict[str, Any]:
    return {"random": Nought(), "traffic": [Hedge(delay=LATE, share=1.0)], **more}


@pytest.fixture(params=BOTH, ids=lambda library: str(library.__name__))
def library(request: pytest.FixtureRequest) -> Any:
    return request.param


def client(library: Any) -> Any:
    return BOTH[library](trust_env=False, verify=False, **settings())


def busy(client: Any) -> list[Any]:
    return [one for one in client._transport.inner._pool.connections if not one.is_idle()]


async def nothing_left(client: Any, before: set[asyncio.Task[Any]]) -> bool:
    for _ in range(200):
        if not busy(client) and not asyncio.all_tasks() - before:
            return True
        await asyncio.sleep(0.005)
    return False


MEET: Any = object()
"""A step: who has come to it waits there for the other. No clock decides who of two is first."""


def raced(first: list[Step], second: list[Step]) -> Handler:
    """Plays one script to the first request, one to the second; a third would be an error of the server's."""
    both, scripts = asyncio.Barrier(2), iter([first, second])

    async def play(script: list[Step]) -> AsyncGenerator[Step, None]:
        for step in script:
            if step is MEET:
                await both.wait()
            else:
                yield step

    return lambda _request: play(next(scripts))


def opened(name: str, *steps: Step, **headers: Any) -> list[Step]:
    return [Send(head(content_type="text/event-stream", connection="close", x_request_id=name, **headers)), *steps]


SCRIPTS: dict[str, tuple[str, list[list[Step]]]] = {
    "the first wins, the other has a head": (
        "first",
        [
            opened("first", MEET, Send(WIRE)),
            opened("second", MEET, Stall(), content_encoding="gzip"),
        ],
    ),
    "the second wins, the other had a head": (
        "second",
        [
            opened("first", MEET, Stall(), content_encoding="gzip"),
            opened("second", MEET, Send(WIRE)),
        ],
    ),
    "the second wins, and is packed": (
        "second",
        [
            opened("first", Stall()),
            opened("second", Send(gzip.compress(WIRE)), content_encoding="gzip"),
        ],
    ),
}


@pytest.mark.parametrize("script", SCRIPTS)
async def test_httpx_gets_the_winners_head(library: Any, script: str) -> None:
    winner, steps = SCRIPTS[script]
    before = asyncio.all_tasks()
    async with ScriptedServer(raced(*steps)) as server, client(library) as c:
        response = await c.post(f"{server.url}{CHAT}", json=BODY)
        assert text_of(response.content) == TEXT
        assert response.headers["x-request-id"] == winner
        assert "content-encoding" not in response.headers
        assert len(server.requests) == 2
        assert not busy(c)
    assert asyncio.all_tasks() - before == set()


@pytest.mark.parametrize("script", SCRIPTS)
async def test_aiohttp_gets_the_winners_head(script: str) -> None:
    winner, steps = SCRIPTS[script]
    middleware = mounts.aiohttp_middleware(**settings())
    async with ScriptedServer(raced(*steps)) as server, aiohttp.ClientSession(middlewares=[middleware]) as session:
        async with session.post(f"{server.url}{CHAT}", json=BODY) as response:
            assert text_of(await response.read()) == TEXT
        assert response.headers["x-request-id"] == winner
        assert len(server.requests) == 2


@pytest.mark.parametrize("script", SCRIPTS)
def test_requests_gets_the_winners_head(script: str) -> None:
    winner, steps = SCRIPTS[script]
    with in_background(ScriptedServer(raced(*steps))) as server, requests.Session() as session:
        session.mount("http://", mounts.RequestsAdapter(**settings()))
        response = session.post(f"{server.url}{CHAT}", json=BODY)
        assert text_of(response.content) == TEXT
        assert response.headers["x-request-id"] == winner
        assert len(server.requests) == 2


# -- what is no stream -----------------------------------------------------------------------------

SLOW: dict[str, list[list[Step]]] = {
    "the first is late": [[MEET, *OTHER], [MEET, Stall()]],
    "the second is there first": [[Stall()], OTHER],
    "both come at once": [[MEET, *OTHER], [MEET, *OTHER]],
}


@pytest.mark.parametrize("script", SLOW)
async def test_httpx_passes_on_what_is_none_of_ours(library: Any, script: str) -> None:
    before = asyncio.all_tasks()
    async with ScriptedServer(raced(*SLOW[script])) as server, client(library) as c:
        response = await c.post(f"{server.url}/api/chat", json=BODY)
        assert (response.status_code, response.content) == (200, NDJSON)
        assert len(server.requests) == 2
        assert await nothing_left(c, before | asyncio.all_tasks())


@pytest.mark.parametrize("script", SLOW)
async def test_aiohttp_passes_on_what_is_none_of_ours(script: str) -> None:
    middleware = mounts.aiohttp_middleware(**settings())
    async with (
        ScriptedServer(raced(*SLOW[script])) as server,
        aiohttp.ClientSession(middlewares=[middleware]) as session,
    ):
        async with session.post(f"{server.url}/api/chat", json=BODY) as response:
            assert (response.status, await response.read()) == (200, NDJSON)
        assert len(server.requests) == 2
        assert session.connector is not None
        assert not session.connector._acquired


@pytest.mark.parametrize("script", SLOW)
def test_requests_passes_on_what_is_none_of_ours(script: str) -> None:
    with in_background(ScriptedServer(raced(*SLOW[script]))) as server, requests.Session() as session:
        session.mount("http://", mounts.RequestsAdapter(**settings()))
        response = session.post(f"{server.url}/api/chat", json=BODY)
        assert (response.status_code, response.content) == (200, NDJSON)
        assert len(server.requests) == 2


# -- what is refused -------------------------------------------------------------------------------


async def test_of_two_long_refusals_one_is_given_and_the_other_closed(library: Any) -> None:
    long: list[Step] = [Send(head(400, content_length=2_000_000) + b"x" * 100_000), Stall()]
    before = asyncio.all_tasks()
    async with ScriptedServer(raced([MEET, Pause(LATE), *long], [MEET, *long])) as server, client(library) as c:
        alone = before | asyncio.all_tasks()
        async with c.stream("POST", f"{server.url}{CHAT}", json=BODY) as response:
            assert response.status_code == 400
            assert len(server.requests) == 2
        assert await nothing_left(c, alone)


async def test_a_refusal_that_lost_is_closed(library: Any) -> None:
    long: list[Step] = [Send(head(400, content_length=2_000_000) + b"x" * 100_000), Stall()]
    won = opened("first", Pause(4 * LATE), Send(WIRE))
    before = asyncio.all_tasks()
    async with ScriptedServer(raced([MEET, Pause(LATE), *won], [MEET, *long])) as server, client(library) as c:
        alone = before | asyncio.all_tasks()
        async with c.stream("POST", f"{server.url}{CHAT}", json=BODY) as response:
            assert text_of(await response.aread()) == TEXT
            assert len(server.requests) == 2
        assert await nothing_left(c, alone)
