"""What a client has around its streams stays as it is without a mount: pools, hooks, auth, proxies, cookies, HTTP/2.

Where it can, a test asks the same of a bare client and of a mounted one.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Self

import httpx
import httpx2
import openai
import pytest
import trustme

from holdfast import mounts
from holdfast.mounts.httpx import HttpxTransport
from holdfast.mounts.httpx2 import Httpx2Transport
from holdfast.testing.background import in_background
from holdfast.testing.server import ReceivedRequest, Reset, ScriptedServer, Send, Stall, Step, head, respond
from tests.mounts.shop import BODY, CHAT, EVENTS, TEXT, WIRE, Nought, begun, healthy, text_of
from tests.sources.h2_server import H2Server

ASYNC: dict[Any, Any] = {httpx: mounts.httpx_client, httpx2: mounts.httpx2_client}
SYNC: dict[Any, Any] = {httpx: mounts.httpx_sync_client, httpx2: mounts.httpx2_sync_client}
MESSAGES: Any = BODY["messages"]
SETTINGS: dict[str, Any] = {"trust_env": False, "verify": False}


@pytest.fixture(params=ASYNC, ids=lambda module: module.__name__)
def library(request: pytest.FixtureRequest) -> Any:
    return request.param


def mounted(library: Any, **settings: Any) -> Any:
    return ASYNC[library](**{**SETTINGS, "random": Nought(), **settings})


def mounted_sync(library: Any, **settings: Any) -> Any:
    return SYNC[library](**{**SETTINGS, "random": Nought(), **settings})


async def text(client: Any, url: str) -> str:
    async with asyncio.timeout(30):
        return text_of((await client.post(f"{url}{CHAT}", json=BODY)).content)


# -- pools -----------------------------------------------------------------------------------------


async def _broken_off(response: Any) -> None:
    async for _ in response.aiter_raw():
        break


async def _cancelled(response: Any) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await response.aread()


async def _unread(response: Any) -> None:
    pass


async def _cancelled_from_within(response: Any) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5), asyncio.timeout(0.05):
            await response.aread()


LEAVING: list[Callable[[Any], Awaitable[None]]] = [_broken_off, _cancelled, _unread, _cancelled_from_within]


@pytest.mark.parametrize("leave", LEAVING, ids=lambda leave: leave.__name__)
async def test_a_stream_that_is_left_leaves_its_place_in_the_pool(library: Any, leave: Any) -> None:
    one = library.Limits(max_connections=1, max_keepalive_connections=1)
    async with (
        ScriptedServer([begun(Stall()), begun(Stall()), healthy()]) as server,
        mounted(library, limits=one) as client,
    ):
        for _ in range(2):
            async with client.stream("POST", f"{server.url}{CHAT}", json=BODY) as response:
                await leave(response)
            assert await server.all_closed()
        assert await text(client, server.url) == TEXT


async def test_a_seam_needs_one_place_in_the_pool(library: Any) -> None:
    one = library.Limits(max_connections=1)
    async with ScriptedServer([begun(Reset()), healthy()]) as server, mounted(library, limits=one) as client:
        assert await text(client, server.url) == TEXT
        assert server.open_connections <= 1


async def test_a_full_pool_is_the_clients_own_timeout(library: Any) -> None:
    settings = {"limits": library.Limits(max_connections=1), "timeout": library.Timeout(5, pool=0.05)}
    async with ScriptedServer([begun(Stall()), healthy()]) as server, mounted(library, **settings) as client:
        async with client.stream("POST", f"{server.url}{CHAT}", json=BODY):
            with pytest.raises(library.PoolTimeout):
                await client.post(f"{server.url}{CHAT}", json=BODY)
        assert await text(client, server.url) == TEXT


def test_blocking_a_stream_that_is_left_leaves_its_place_in_the_pool(library: Any) -> None:
    one = library.Limits(max_connections=1)
    with (
        in_background(ScriptedServer([begun(Stall()), begun(Stall()), healthy()])) as server,
        mounted_sync(library, limits=one, timeout=5) as client,
    ):
        for _ in range(2):
            with client.stream("POST", f"{server.url}{CHAT}", json=BODY) as response:
                next(response.iter_raw())
        assert text_of(client.post(f"{server.url}{CHAT}", json=BODY).content) == TEXT


# -- SDKs ------------------------------------------------------------------------------------------


def sdk(server: ScriptedServer, **settings: Any) -> openai.AsyncOpenAI:
    client = mounts.httpx2_client(**{**SETTINGS, "random": Nought(), **settings})
    return openai.AsyncOpenAI(api_key="k", base_url=f"{server.url}/v1", max_retries=0, http_client=client)


async def test_raw_and_streaming_responses_are_closed_where_they_are_left() -> None:
    async with (
        ScriptedServer([begun(Stall()), begun(Stall()), healthy(), healthy()]) as server,
        sdk(server, limits=httpx2.Limits(max_connections=1)) as client,
    ):
        ask: dict[str, Any] = {"model": "m", "messages": MESSAGES, "stream": True}
        async with client.chat.completions.with_streaming_response.create(**ask) as response:
            async for line in response.iter_lines():
                assert line
                break
        assert await server.all_closed()
        raw = await client.chat.completions.with_raw_response.create(**ask)
        async with raw.parse() as stream:
            async for _ in stream:
                break
        assert await server.all_closed()
        raw = await client.chat.completions.with_raw_response.create(**ask)
        parts = [part async for part in raw.parse()]
        assert "".join(part.choices[0].delta.content or "" for part in parts) == TEXT
        async with client.chat.completions.with_streaming_response.create(**ask) as response:
            assert await response.read() == WIRE


async def test_an_sdks_own_timeout_is_resumed_from_and_told_as_its_own_at_last() -> None:
    async with ScriptedServer([begun(Stall())]) as server:
        async with sdk(server, max_requests=2) as client:
            stream = await client.chat.completions.create(model="m", messages=MESSAGES, stream=True, timeout=0.5)
            with pytest.raises(openai.APITimeoutError, match="2 requests"):
                async for _ in stream:
                    pass
        assert len(server.requests) == 2
        assert await server.all_closed()


# -- hooks, auth, cookies, proxies -----------------------------------------------------------------


async def test_hooks_auth_and_cookies_are_the_clients(library: Any) -> None:
    seen: list[str] = []

    async def asked(request: Any) -> None:
        seen.append(request.method)
        request.headers["x-hook"] = "1"

    async def answered(response: Any) -> None:
        seen.append(str(response.status_code))

    first = [
        Send(
            head(content_type="text/event-stream", set_cookie="tide=high; Path=/", content_length=len(WIRE)) + WIRE,
        )
    ]
    hooks = {"request": [asked], "response": [answered]}
    async with (
        ScriptedServer([first, begun(Reset()), healthy()]) as server,
        mounted(library, event_hooks=hooks, auth=("user", "word")) as client,
    ):
        for _ in range(2):
            assert await text(client, server.url) == TEXT
    assert seen == ["POST", "200"] * 2, "once a call, and not an attempt"
    one, two, three = server.requests
    assert [request.headers.get("cookie") for request in (one, two, three)] == [None, "tide=high", "tide=high"]
    assert {request.headers["x-hook"] for request in server.requests} == {"1"}
    assert len({request.headers["authorization"] for request in server.requests}) == 1


async def test_auth_that_answers_a_challenge_goes_on(library: Any) -> None:
    def serve(request: ReceivedRequest) -> list[Step]:
        if "authorization" in request.headers:
            return healthy()
        asks = 'Digest realm="r", nonce="n", qop="auth", algorithm=MD5'
        return respond(b"who?", status=401, www_authenticate=asks)

    async with ScriptedServer(serve) as server, mounted(library, auth=library.DigestAuth("u", "w")) as client:
        assert await text(client, server.url) == TEXT
    assert len(server.requests) == 2


@pytest.fixture(scope="module")
def tls() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """What a server shows, and what its client trusts."""
    authority = trustme.CA()
    here, there = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(here)
    authority.configure_trust(there)
    return here, there


class Proxy:
    """Forwards what is asked in absolute form, and tunnels; `lines` are the requests' first ones."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.open = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.add(asyncio.ensure_future(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            start = (await reader.readuntil(b"\r\n")).decode()
            self.lines.append(start.strip())
            method, target, _ = start.split(" ")
            if method == "CONNECT":
                await reader.readuntil(b"\r\n\r\n")
                writer.write(b"HTTP/1.1 200 Established\r\n\r\n")
            host, _, port = target.removeprefix("http://").partition("/")[0].partition(":")
            there, back = await asyncio.open_connection(host, int(port))
            if method != "CONNECT":
                back.write(f"{method} /{target.split('/', 3)[3]} HTTP/1.1\r\n".encode())
            try:
                ends = [asyncio.ensure_future(_pass(reader, back)), asyncio.ensure_future(_pass(there, writer))]
                await asyncio.wait(ends, return_when="FIRST_COMPLETED")
                for end in ends:
                    end.cancel()
            finally:
                back.close()
        finally:
            self.open -= 1
            writer.close()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()


async def test_a_proxy_is_asked_for_every_attempt(library: Any) -> None:
    async with (
        ScriptedServer([begun(Reset()), healthy(), begun(Stall())]) as server,
        Proxy() as proxy,
        mounted(library, proxy=proxy.url) as client,
    ):
        assert await text(client, server.url) == TEXT
        assert len(proxy.lines) == 2
        async with client.stream("POST", f"{server.url}{CHAT}", json=BODY) as response:
            await _broken_off(response)
        assert await server.all_closed()
    assert [line.split(" ")[:2] for line in proxy.lines] == [["POST", f"{server.url}{CHAT}"]] * 2, (
        "the third went over the second's connection"
    )


async def test_a_tunnel_is_dug_for_every_attempt(library: Any, tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    here, there = tls
    async with (
        ScriptedServer([begun(Reset()), healthy()], tls=here) as server,
        Proxy() as proxy,
        mounted(library, proxy=proxy.url, verify=there) as client,
    ):
        assert await text(client, server.url) == TEXT
    assert [line.split(" ")[0] for line in proxy.lines] == ["CONNECT", "CONNECT"]


def test_blocking_hooks_cookies_and_proxies_are_the_clients(library: Any) -> None:
    seen: list[str] = []
    hooks = {"request": [lambda _: seen.append("asked")], "response": [lambda _: seen.append("answered")]}
    with (
        in_background(ScriptedServer([begun(Reset()), healthy()])) as server,
        in_background(Proxy()) as proxy,
        mounted_sync(library, event_hooks=hooks, proxy=proxy.url, cookies={"tide": "low"}, timeout=5) as client,
    ):
        assert text_of(client.post(f"{server.url}{CHAT}", json=BODY).content) == TEXT
        assert len(proxy.lines) == 2
    assert seen == ["asked", "answered"]
    assert {request.headers["cookie"] for request in server.requests} == {"tide=low"}


# -- HTTP/2 ----------------------------------------------------------------------------------------


async def test_a_stream_of_http2_that_is_left_ends_alone(library: Any) -> None:
    """The connection is everybody's: only its own stream is reset, and the next request goes over the same one."""
    bare = library.AsyncHTTPTransport(http1=False, http2=True)
    for transport in (bare, {httpx: HttpxTransport, httpx2: Httpx2Transport}[library](bare)):
        async with H2Server(*EVENTS[:3], "stall") as server, library.AsyncClient(transport=transport) as client:
            for _ in range(3):
                async with client.stream("POST", f"{server.url}{CHAT}", json=BODY) as response:
                    assert response.http_version == "HTTP/2"
                    await _broken_off(response)
            assert server.accepted == 1
        bare = library.AsyncHTTPTransport(http1=False, http2=True)


@pytest.fixture
def blocking_h2() -> Iterator[H2Server]:
    with in_background(H2Server(*EVENTS, "end")) as server:
        yield server


def test_blocking_http2_is_relayed(library: Any, blocking_h2: H2Server) -> None:
    with mounted_sync(library, http1=False, http2=True, timeout=5) as client:
        for _ in range(3):
            response = client.post(f"{blocking_h2.url}{CHAT}", json=BODY)
            assert response.http_version == "HTTP/2"
            assert response.content == WIRE
    assert blocking_h2.accepted == 1
