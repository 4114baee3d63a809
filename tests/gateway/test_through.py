"""A gateway that keeps nothing: what comes goes through, mended and checked, and what breaks is said to have broken."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from holdfast.testing.server import ReceivedRequest, Reply, ScriptedServer, Stall, respond, sse, stream
from tests.gateway.serving import serving, settings
from tests.gateway.test_server import ANSWER, BODY, chunk


async def read_until_cut(response: aiohttp.ClientResponse) -> bytes:
    """Gives what came of a body that must not end cleanly."""
    got = b""

    async def read() -> None:
        nonlocal got
        async for data in response.content.iter_any():
            got += data

    with pytest.raises(aiohttp.ClientPayloadError):
        await read()
    return got


async def test_an_answer_goes_through_byte_for_byte() -> None:
    async def upstream(request: ReceivedRequest) -> Reply:
        return stream(*ANSWER)

    async with (
        ScriptedServer(upstream) as http,
        serving(settings(f"http://127.0.0.1:{http.port}/v1", journal="none")) as served,
        aiohttp.ClientSession() as session,
        session.post(f"{served.url}/v1/chat/completions", json=BODY) as response,
    ):
        assert await response.read() == b"".join(ANSWER)
        assert "X-Holdfast-Stream" not in response.headers
    assert served.gateway.through.producing == 0


async def test_a_refusal_has_its_status() -> None:
    async def upstream(request: ReceivedRequest) -> Reply:
        return respond(b'{"error":{"message":"no such thing","code":"bad"}}', 400, content_type="application/json")

    async with (
        ScriptedServer(upstream) as http,
        serving(settings(f"http://127.0.0.1:{http.port}/v1", journal="none")) as served,
        aiohttp.ClientSession() as session,
        session.post(f"{served.url}/v1/chat/completions", json=BODY) as response,
    ):
        assert response.status == 400
        assert (await response.json())["error"]["message"] == "no such thing"


async def test_an_answer_that_broke_has_no_clean_end() -> None:
    """It is asked for again, and is another one each time: there is nothing exact to go on with."""

    async def upstream(request: ReceivedRequest) -> Reply:
        return stream(chunk("one "), sse('{"error":{"message":"it fell over","code":"server_gone"}}'))

    async with (
        ScriptedServer(upstream) as http,
        serving(settings(f"http://127.0.0.1:{http.port}/v1", journal="none")) as served,
        aiohttp.ClientSession() as session,
        session.post(f"{served.url}/v1/chat/completions", json=BODY) as response,
    ):
        got = await read_until_cut(response)
        assert got.startswith(chunk("one "))
        assert b'"error"' in got.removeprefix(chunk("one "))
        assert b"[DONE]" not in got


async def test_a_reader_that_leaves_gives_the_answer_up() -> None:
    async def upstream(request: ReceivedRequest) -> Reply:
        return [*stream(chunk("one "))[:-1], Stall()]

    async with (
        ScriptedServer(upstream) as http,
        serving(settings(f"http://127.0.0.1:{http.port}/v1", journal="none")) as served,
        aiohttp.ClientSession() as session,
    ):
        async with session.post(f"{served.url}/v1/chat/completions", json=BODY) as response:
            assert await response.content.readany() == chunk("one ")
            assert served.gateway.through.producing == 1
        async with asyncio.timeout(20):
            while served.gateway.through.producing:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.005)


async def test_a_gateway_that_ends_says_so_in_answers_that_do_not() -> None:
    async def upstream(request: ReceivedRequest) -> Reply:
        return [*stream(chunk("one "))[:-1], Stall()]

    async with (
        ScriptedServer(upstream) as http,
        serving(settings(f"http://127.0.0.1:{http.port}/v1", journal="none", drain=0.05)) as served,
        aiohttp.ClientSession() as session,
        session.post(f"{served.url}/v1/chat/completions", json=BODY) as response,
    ):
        got = await response.content.readany()
        await served.gateway.through.drain(0.05)
        assert b"shutting_down" in got + await read_until_cut(response)


async def test_a_silent_upstream_is_told_apart_from_a_dead_line() -> None:
    async def upstream(request: ReceivedRequest) -> Reply:
        return [*stream(chunk("one "))[:-1], Stall()]

    async with (
        ScriptedServer(upstream) as http,
        serving(settings(f"http://127.0.0.1:{http.port}/v1", journal="none", heartbeat=0.05)) as served,
        aiohttp.ClientSession() as session,
        session.post(f"{served.url}/v1/chat/completions", json=BODY) as response,
    ):
        got = b""
        async with asyncio.timeout(20):
            while got.count(b": still here\n") < 2:
                got += await response.content.readany()
        assert got.replace(b": still here\n", b"") == chunk("one ")
