"""Mounts send a request no more often than it allows, whatever layers are over them, and never on a closed client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import httpx
import httpx2
import pytest

from holdfast import Hedge, StreamError, Timeouts, mounts
from holdfast.layers.fallback import Fallback
from holdfast.testing.background import in_background
from holdfast.testing.server import Pause, Reset, ScriptedServer, Send, Stall, Step, chunked, respond
from holdfast.upstreams import Upstream
from tests.mounts.shop import BODY, CHAT, TEXT, Nought, begun, healthy, text_of

BOTH: dict[Any, Any] = {httpx: mounts.HttpxTransport, httpx2: mounts.Httpx2Transport}
BLOCKING: dict[Any, Any] = {httpx: mounts.httpx_sync_client, httpx2: mounts.httpx2_sync_client}
STREAM = {"accept": "text/event-stream"}


class Upload:
    """A body that could be read again, and that nothing says may be sent again."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b'{"stream": true}'


async def once() -> AsyncIterator[bytes]:
    yield b'{"stream": true}'


UPLOADS: dict[str, Callable[[], Any]] = {"a generator": once, "a file": Upload}
FAULTS: dict[str, tuple[list[Step], dict[str, Any]]] = {
    "the open clock": ([Stall()], {"timeouts": Timeouts(open=0.5)}),
    "a refusal": (respond(b"busy", status=503), {}),
    "no head": ([Reset()], {}),
}


@pytest.fixture(params=BOTH, ids=lambda library: str(library.__name__))
def library(request: pytest.FixtureRequest) -> Any:
    return request.param


def client(library: Any, **settings: Any) -> Any:
    return library.AsyncClient(transport=BOTH[library](**{"random": Nought(), **settings}))


def both(*servers: ScriptedServer) -> list[Any]:
    names = ("first", "second")
    asked = [
        Upstream("openai-compatible", base_url=f"{one.url}/v1", name=name, layers=())
        for name, one in zip(names, servers, strict=True)
    ]
    return [Fallback(upstreams=asked)]


# -- what may not be repeated ----------------------------------------------------------------------


@pytest.mark.parametrize("upload", UPLOADS)
@pytest.mark.parametrize("fault", FAULTS)
async def test_an_upload_that_asks_for_a_stream_is_sent_once(library: Any, upload: str, fault: str) -> None:
    script, settings = FAULTS[fault]
    async with ScriptedServer([script]) as server, client(library, **settings) as c:
        try:
            response = await c.post(f"{server.url}{CHAT}", content=UPLOADS[upload](), headers=STREAM)
        except library.TransportError as error:
            failure = error.__cause__
        else:
            failure = None
            assert (response.status_code, response.extensions["holdfast"].attempts) == (503, 1)
        if isinstance(failure, StreamError):
            assert failure.report.attempts == 1, "what was not sent is not counted"
        assert [request.body for request in server.requests] == [b'{"stream": true}']


@pytest.mark.parametrize("upload", UPLOADS)
async def test_an_upload_is_not_hedged(library: Any, upload: str) -> None:
    impatient = Hedge(delay=1e-9, share=1.0)  # late at once: whether there is a second request is not a matter of luck
    async with ScriptedServer([healthy()]) as server, client(library, traffic=[impatient]) as c:
        response = await c.post(f"{server.url}{CHAT}", content=UPLOADS[upload](), headers=STREAM)
        told = response.extensions["holdfast"]
    assert text_of(response.content) == TEXT
    assert (len(server.requests), told.attempts, told.hedges) == (1, 1, 0)


@pytest.mark.parametrize("upload", UPLOADS)
@pytest.mark.parametrize("fault", ["a refusal", "no head"])
async def test_an_upload_goes_to_one_upstream(library: Any, upload: str, fault: str) -> None:
    async with ScriptedServer([FAULTS[fault][0]]) as first, ScriptedServer([healthy()]) as second:
        async with client(library, traffic=both(first, second)) as c:
            try:
                response = await c.post(f"{first.url}{CHAT}", content=UPLOADS[upload](), headers=STREAM)
            except library.TransportError:
                assert fault == "no head"
            else:
                assert response.status_code == 503
        assert (len(first.requests), len(second.requests)) == (1, 0)


async def test_an_sdks_second_try_still_goes_elsewhere(library: Any) -> None:
    again = {"x-stainless-retry-count": "1"}
    async with ScriptedServer([respond(b"busy", status=503)]) as first, ScriptedServer([healthy()]) as second:
        async with client(library, traffic=both(first, second)) as c:
            response = await c.post(f"{first.url}{CHAT}", json=BODY, headers=again)
        assert text_of(response.content) == TEXT
        assert (len(first.requests), len(second.requests)) == (1, 1)


async def test_an_sdks_second_try_is_one_try_when_a_clock_runs_out(library: Any) -> None:
    again = {"x-stainless-retry-count": "1"}
    async with ScriptedServer([[Stall()]]) as server, client(library, timeouts=Timeouts(open=0.5)) as c:
        with pytest.raises(library.ReadTimeout) as caught:
            await c.post(f"{server.url}{CHAT}", json=BODY, headers=again)
    cause = caught.value.__cause__
    assert isinstance(cause, StreamError)
    assert (len(server.requests), cause.report.attempts) == (1, 1)


# -- a client that is closed -----------------------------------------------------------------------


def silent() -> list[Step]:
    return begun(Pause(0.1), Send(chunked(b": closing alone does not wake a thread that reads\n\n")), Stall())


async def test_a_closed_client_sends_no_more(library: Any) -> None:
    async with ScriptedServer([silent()]) as server:
        c = client(library)

        async def read() -> None:
            async with c.stream("POST", f"{server.url}{CHAT}", json=BODY) as response:
                async for _ in response.aiter_bytes():
                    read_some.set()

        read_some = asyncio.Event()
        reading = asyncio.create_task(read())
        await read_some.wait()
        await c.aclose()
        with pytest.raises(library.ReadError, match="the client was closed"):
            await reading
        assert len(server.requests) == 1
        assert await server.all_closed()


async def test_a_closed_session_sends_no_more() -> None:
    middleware = mounts.aiohttp_middleware(random=Nought())
    async with ScriptedServer([silent()]) as server:
        session = aiohttp.ClientSession(middlewares=[middleware])
        async with session.post(f"{server.url}{CHAT}", json=BODY) as response:
            await response.content.readany()
            reading = asyncio.create_task(response.read())
            await asyncio.sleep(0.01)
            await session.close()
            with pytest.raises(aiohttp.ClientPayloadError, match="the session was closed"):
                await reading
        assert len(server.requests) == 1


@pytest.mark.parametrize("blocks", [False, True])
def test_a_closed_blocking_client_sends_no_more(library: Any, *, blocks: bool) -> None:
    made = {httpx: mounts.HttpxSyncTransport, httpx2: mounts.Httpx2SyncTransport}[library]
    with in_background(ScriptedServer([silent()])) as server:
        c = library.Client(transport=made(library.HTTPTransport() if blocks else None, random=Nought()))
        response = c.send(c.build_request("POST", f"{server.url}{CHAT}", json=BODY), stream=True)
        pieces = response.iter_bytes()
        text = b""
        while text.count(b"\n\n") < 5:
            text += next(pieces)
        c.close()
        with pytest.raises(library.ReadError, match="the client was closed"):
            next(pieces)
        assert len(server.requests) == 1


# -- a response that somebody else closes ----------------------------------------------------------


async def test_a_reader_under_whom_another_task_closes_gets_the_librarys_own_error(library: Any) -> None:
    async with ScriptedServer([silent()]) as server, client(library) as c:
        request = c.build_request("POST", f"{server.url}{CHAT}", json=BODY)
        response = await c.send(request, stream=True)
        pieces = response.aiter_bytes()
        await anext(pieces)
        reading = asyncio.create_task(_rest(pieces))
        await asyncio.sleep(0.01)
        await response.aclose()
        with pytest.raises(library.ReadError, match="closed before its end"):
            await reading


async def _rest(pieces: AsyncIterator[bytes]) -> None:
    async for _ in pieces:
        pass


@pytest.mark.parametrize("made", BLOCKING.values(), ids=["httpx", "httpx2"])
def test_a_reader_under_whom_another_thread_closes_gets_the_librarys_own_error(made: Any) -> None:
    of = next(one for one, client in BLOCKING.items() if client is made)
    with in_background(ScriptedServer([silent()])) as server, made(random=Nought()) as c:
        response = c.send(c.build_request("POST", f"{server.url}{CHAT}", json=BODY), stream=True)
        response.stream.close()
        with pytest.raises(of.ReadError, match="closed before its end"):
            list(response.iter_bytes())
