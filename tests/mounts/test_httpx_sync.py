"""Blocking httpx and httpx2 clients over a mount, on real sockets: the same streams, in anybody's thread."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import httpx2
import pytest

from holdfast import mounts
from holdfast._errors import StreamBroken
from holdfast.dialects import Timeouts
from holdfast.mounts.httpx import HttpxSyncTransport, HttpxTransport
from holdfast.mounts.httpx2 import Httpx2SyncTransport, Httpx2Transport
from holdfast.testing.background import in_background
from holdfast.testing.server import Close, Repeat, Reset, ScriptedServer, Send, Stall, Step, chunked, head, respond
from tests.mounts.shop import BODY, CHAT, EVENTS, TEXT, WIRE, Nought, begun, healthy, text_of

BOTH = {httpx: (HttpxSyncTransport, HttpxTransport), httpx2: (Httpx2SyncTransport, Httpx2Transport)}


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    left = [
        one.name for one in threading.enumerate() if one.name.startswith("holdfast-") and one.name != "holdfast-loop"
    ]
    deadline = time.monotonic() + 10
    while left and time.monotonic() < deadline:
        time.sleep(0.01)
        left = [one.name for one in threading.enumerate() if one.name == "holdfast-worker"]
    assert left == []


@pytest.fixture(params=BOTH, ids=lambda module: module.__name__)
def library(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=["none", "blocking", "asynchronous"])
def client(request: pytest.FixtureRequest, library: Any) -> Callable[..., Any]:
    """Makes a client over each kind of inner transport; tries do not wait."""
    inner = {"none": lambda: None, "blocking": library.HTTPTransport, "asynchronous": library.AsyncHTTPTransport}

    def make(**settings: Any) -> Any:
        transport = BOTH[library][0](inner[request.param](), **{"random": Nought(), **settings})
        return library.Client(transport=transport)

    return make


def ask(client: Any, server: ScriptedServer, **settings: Any) -> bytes:
    with client.stream("POST", f"{server.url}{CHAT}", **{"json": BODY, **settings}) as response:
        return b"".join(response.iter_bytes())


def closed(server: ScriptedServer, *, left: int = 0) -> bool:
    deadline = time.monotonic() + 10
    while server.open_connections > left and time.monotonic() < deadline:
        time.sleep(0.005)
    return server.open_connections <= left


def test_a_healthy_stream_passes_to_the_byte(client: Any) -> None:
    events = [*EVENTS[:2], b": a comment\n\n", *EVENTS[2:]]
    with in_background(ScriptedServer([healthy(events)])) as server, client() as c:
        for _ in range(3):
            assert ask(c, server) == b"".join(events)
        assert server.accepted == 1


@pytest.mark.parametrize("fault", [begun(Reset()), begun(Close()), [Reset()], respond(b"", status=503)])
def test_an_evident_fault_leaves_no_trace(client: Any, fault: Any) -> None:
    with in_background(ScriptedServer([fault, healthy()])) as server, client() as c:
        with c.stream("POST", f"{server.url}{CHAT}", json=BODY) as response:
            assert text_of(response.read()) == TEXT
        assert len(server.requests) == 2
        told = mounts.report(response)
    assert told is not None
    assert told.attempts == 2


def test_what_cannot_be_saved_is_the_librarys_own_exception(library: Any, client: Any) -> None:
    with in_background(ScriptedServer([begun(Reset())])) as server, client(max_requests=2) as c:
        with pytest.raises(library.ReadError, match="2 requests") as caught:
            ask(c, server)
        assert isinstance(caught.value.__cause__, StreamBroken)
        assert closed(server)


def test_everything_else_passes(library: Any, client: Any) -> None:
    replies = [respond(b"{}", content_type="application/json"), respond(b"busy", status=503)]
    with in_background(ScriptedServer(replies)) as server, client() as c:
        assert c.post(f"{server.url}/v1/embeddings", json={}).json() == {}
        refused = c.post(f"{server.url}/v1/embeddings", json={})
        assert (refused.status_code, refused.content) == (503, b"busy")
        assert len(server.requests) == 2
        refused = c.get(f"{server.url}/v1/models")
        assert (refused.status_code, refused.content, refused.headers["x-should-retry"]) == (503, b"busy", "false")
        assert len(server.requests) == 6

        def pieces() -> Iterator[bytes]:
            yield b"a"
            yield b"b"

        assert c.post(f"{server.url}/v1/files", content=pieces()).status_code == 503
        assert server.requests[-1].body == b"ab"
    with client() as c, pytest.raises(library.ConnectError):
        c.post(server.url, json={})


def test_closing_early_closes_the_connection(client: Any) -> None:
    with in_background(ScriptedServer([begun(Stall())])) as server, client() as c:
        with c.stream("POST", f"{server.url}{CHAT}", json=BODY) as response:
            for _ in response.iter_raw():
                break
        assert closed(server)


@pytest.mark.parametrize("slow", [[], [Send(b"HTTP/1.1 200 OK\r\n")]])
def test_a_head_that_does_not_come_is_given_up_at_once(library: Any, slow: list[Step]) -> None:
    """Its thread waits for the network, and is woken: no thread is left, and no connection."""
    clocks = Timeouts(open=0.2)
    with in_background(ScriptedServer([[*slow, Stall()]])) as server:
        transport = BOTH[library][0](timeouts=clocks, max_requests=1)
        with library.Client(transport=transport, timeout=60) as c:
            with pytest.raises(library.TimeoutException):
                ask(c, server)
            assert closed(server)


def test_a_clock_ends_a_read_that_blocks(library: Any) -> None:
    clocks = Timeouts(first_token=0.3, progress=0.3)
    with in_background(ScriptedServer([begun(Stall())])) as server:
        transport = BOTH[library][0](timeouts=clocks, max_requests=1)
        with library.Client(transport=transport, timeout=60) as c:
            with pytest.raises(library.ReadTimeout):
                ask(c, server)
            assert closed(server)


def test_closing_the_client_wakes_its_readers(library: Any) -> None:
    with in_background(ScriptedServer([begun(Stall())])) as server, ThreadPoolExecutor(1) as pool:
        c = library.Client(transport=BOTH[library][0](random=Nought()), timeout=60)
        reading = pool.submit(ask, c, server)
        time.sleep(0.3)
        c.close()
        with pytest.raises(library.TransportError):
            reading.result(5)
        assert closed(server)
        assert len(server.requests) == 1


async def test_a_blocking_client_may_be_used_where_a_loop_runs(client: Any) -> None:
    with in_background(ScriptedServer([begun(Reset()), healthy()])) as server, client() as c:
        assert text_of(ask(c, server)) == TEXT


def test_a_download_that_is_left_is_closed(client: Any) -> None:
    endless: list[Step] = [Send(head(content_type="audio/mpeg")), Repeat(bytes(60_000), 0)]
    with in_background(ScriptedServer([endless])) as server, client() as c:
        with c.stream("GET", f"{server.url}/v1/audio") as response:
            assert next(response.iter_raw())
        assert closed(server)
        gc.collect()


def test_a_slow_reader_is_waited_for(client: Any) -> None:
    endless = [*begun(), Repeat(chunked(b": " + bytes([65]) * 60_000 + b"\n\n"), 0)]
    with in_background(ScriptedServer([endless])) as server, client() as c:
        with c.stream("POST", f"{server.url}{CHAT}", json=BODY) as response:
            body = response.iter_raw()
            next(body)
            time.sleep(0.3)
            assert sum(len(next(body)) for _ in range(3)) < 4_000_000
        assert closed(server)


def test_a_response_that_is_forgotten_is_closed(library: Any) -> None:
    with in_background(ScriptedServer([begun(Stall())])) as server, BOTH[library][0]() as transport:
        response = transport.handle_request(library.Request("POST", f"{server.url}{CHAT}", json=BODY))
        assert next(response.stream).startswith(EVENTS[0])
        del response
        gc.collect()
        assert closed(server)


def test_fifty_streams_from_threads(client: Any) -> None:
    with in_background(ScriptedServer(lambda _: healthy())) as server, client() as c, ThreadPoolExecutor(50) as pool:
        assert list(pool.map(lambda _: ask(c, server), range(50))) == [WIRE] * 50


def test_a_mocked_transport_works_under_it(library: Any) -> None:
    def serve(request: Any) -> Any:
        return library.Response(200, headers={"content-type": "text/event-stream"}, content=WIRE)

    with library.Client(transport=BOTH[library][0](library.MockTransport(serve))) as c:
        response = c.post(f"http://localhost{CHAT}", json=BODY)
    assert response.content == WIRE


def test_a_child_of_a_fork_has_a_loop_of_its_own(client: Any) -> None:
    with in_background(ScriptedServer(lambda _: healthy())) as server, client() as c:
        assert ask(c, server) == WIRE
        if "asynchronous" in repr(c._transport.inner) or "Async" in type(c._transport.inner).__name__:
            return  # the caller's own, whose connections are the parent's
        read, write = os.pipe()
        child = os.fork()
        if not child:
            try:
                os.write(write, b"same" if ask(c, server) == WIRE else b"other")
            finally:
                os._exit(0)
        os.close(write)
        assert os.read(read, 10) == b"same"
        os.close(read)
        os.waitpid(child, 0)
        assert ask(c, server) == WIRE


@pytest.mark.parametrize("name", ["httpx2_client", "httpx_client", "httpx2_sync_client", "httpx_sync_client"])
async def test_ready_clients_are_set_as_sdks_set_theirs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://localhost:1")
    client = getattr(mounts, name)(max_requests=3, headers={"x-a": "1"}, random=Nought())
    assert client.timeout.read == 600
    assert client.timeout.connect == 5
    assert client.follow_redirects
    assert client.headers["x-a"] == "1"
    proxied = [one for pattern, one in client._mounts.items() if pattern.pattern == "https://"]
    assert [one.mount.max_requests for one in (client._transport, *proxied)] == [3, 3]
    assert "Proxy" in type(proxied[0].inner._pool).__name__
    async with ScriptedServer([begun(Reset()), healthy()]) as server:
        if "sync" in name:
            assert text_of(await asyncio.to_thread(ask, client, server)) == TEXT
            client.close()
        else:
            async with client, client.stream("POST", f"{server.url}{CHAT}", json=BODY) as response:
                assert text_of(await response.aread()) == TEXT


def test_a_first_event_is_handed_over_at_once(client: Any) -> None:
    steps = begun(Stall(), events=EVENTS[:1])
    assert isinstance(steps[0], Send)
    with in_background(ScriptedServer([steps])) as server, client() as c:
        with c.stream("POST", f"{server.url}{CHAT}", json=BODY) as response:
            assert next(response.iter_raw()) == EVENTS[0]
        assert closed(server)
