"""Mounts under what programs do to them: threads, forks, exits, loops that end, and everything left without a word."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import httpx2
import pytest

from holdfast import UsageError, mounts
from holdfast.testing.background import in_background
from holdfast.testing.server import ReceivedRequest, Repeat, Reset, ScriptedServer, Stall, Step, chunked
from tests.mounts.shop import BODY, CHAT, EVENTS, TEXT, WIRE, Nought, begun, healthy, text_of

SETTINGS: dict[str, Any] = {"trust_env": False, "verify": False, "random": Nought()}
BOTH: dict[Any, Any] = {httpx: mounts.httpx_client, httpx2: mounts.httpx2_client}
BLOCKING: dict[Any, Any] = {httpx: mounts.httpx_sync_client, httpx2: mounts.httpx2_sync_client}


def closed(server: ScriptedServer, left: int = 0) -> bool:
    deadline = time.monotonic() + 10
    while server.open_connections > left and time.monotonic() < deadline:
        time.sleep(0.005)
    return server.open_connections <= left


def workers() -> int:
    return sum(one.name == "holdfast-worker" for one in threading.enumerate())


@pytest.fixture(params=["its own connections", "a transport that blocks"])
def client(request: pytest.FixtureRequest) -> Callable[..., httpx2.Client]:
    """Makes blocking clients of both kinds."""

    def make(**settings: Any) -> httpx2.Client:
        if request.param == "its own connections":
            return mounts.httpx2_sync_client(**SETTINGS, **settings)
        inner = httpx2.HTTPTransport(trust_env=False, verify=False, limits=httpx2.Limits(max_connections=300))
        return httpx2.Client(transport=mounts.Httpx2SyncTransport(inner, random=Nought(), **settings), timeout=30)

    return make


# -- threads ---------------------------------------------------------------------------------------


def test_two_hundred_streams_from_fifty_threads_left_at_random(client: Callable[..., httpx2.Client]) -> None:
    chance = random.Random(7)
    ways = [chance.choice(["read", "read", "leave", "close elsewhere", "forget"]) for _ in range(200)]
    begun_once: set[str] = set()

    def serve(request: ReceivedRequest) -> list[Step]:
        if request.path.endswith("?stall"):
            return begun(Stall())
        first = request.path not in begun_once
        begun_once.add(request.path)
        return begun(Reset()) if first else healthy()

    with in_background(ScriptedServer(serve)) as server, client() as c, ThreadPoolExecutor(50) as pool:

        def one(number: int) -> bool:
            way = ways[number]
            if way == "read":
                return text_of(c.post(f"{server.url}{CHAT}?{number}", json=BODY).content) == TEXT
            request = c.build_request("POST", f"{server.url}{CHAT}?stall", json=BODY)
            response = c.send(request, stream=True)
            assert next(response.iter_raw())
            if way == "leave":
                response.close()
            elif way == "close elsewhere":
                closing = threading.Thread(target=response.close)
                closing.start()
                closing.join(10)
                return not closing.is_alive()
            return True

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # of what was forgotten
            assert all(pool.map(one, range(200), timeout=50))
            gc.collect()
            assert closed(server, left=50), "what is left are idle connections"
    deadline = time.monotonic() + 10
    while workers() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert workers() == 0


def test_a_response_is_read_in_another_thread_than_it_was_asked_for_in(client: Callable[..., httpx2.Client]) -> None:
    with in_background(ScriptedServer([begun(Reset()), healthy()])) as server, client() as c:
        response = c.send(c.build_request("POST", f"{server.url}{CHAT}", json=BODY), stream=True)
        with ThreadPoolExecutor(1) as pool:
            assert text_of(pool.submit(response.read).result(10)) == TEXT


def test_closing_wakes_a_reader_in_another_thread(client: Callable[..., httpx2.Client]) -> None:
    with in_background(ScriptedServer([begun(Stall())])) as server, client() as c, ThreadPoolExecutor(1) as pool:
        response = c.send(c.build_request("POST", f"{server.url}{CHAT}", json=BODY), stream=True)
        first = threading.Event()

        def read() -> bytes:
            data = b""
            for piece in response.iter_raw():
                data += piece
                if data == b"".join(EVENTS[:5]):
                    first.set()
            return data

        reading = pool.submit(read)
        assert first.wait(30)
        time.sleep(0.05)
        response.close()
        with pytest.raises((UsageError, httpx2.TransportError, httpx2.StreamError)):
            reading.result(30)
        assert closed(server)


def test_one_request_is_one_request(client: Callable[..., httpx2.Client]) -> None:
    with in_background(ScriptedServer([begun(Reset()), healthy()])) as server, client(max_requests=1) as c:
        with pytest.raises(httpx2.ReadError, match="1 request"):
            c.post(f"{server.url}{CHAT}", json=BODY)
        assert len(server.requests) == 1


# -- processes -------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_fork_in_the_middle_of_a_stream_takes_nothing_of_it() -> None:
    def serve(request: ReceivedRequest) -> list[Step]:
        return begun(Stall()) if request.path.endswith("?stall") else healthy()

    with in_background(ScriptedServer(serve)) as server, mounts.httpx2_sync_client(**SETTINGS) as c:
        with c.stream("POST", f"{server.url}{CHAT}?stall", json=BODY) as response:
            pieces = response.iter_raw()
            assert next(pieces)
            read, write = os.pipe()
            child = os.fork()
            if not child:
                signal.alarm(10)
                said = b"other"
                try:
                    if c.post(f"{server.url}{CHAT}", json=BODY).content == WIRE:
                        said = b"same"
                    with pytest.raises(UsageError, match="before a fork"):
                        next(pieces)
                    response.close()  # what a `with` does on its way out: it must neither hang nor touch the parent's
                    del pieces, response
                    gc.collect()
                    c.close()
                except BaseException as error:  # noqa: BLE001 - told to the parent
                    said = repr(error).encode()
                finally:
                    os.write(write, said)
                    os._exit(0)
            os.close(write)
            assert os.read(read, 1000) == b"same"
            os.close(read)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            assert server.open_connections >= 1, "the parent's is there still"
        assert c.post(f"{server.url}{CHAT}", json=BODY).content == WIRE


LEFT_OPEN = """
import sys
from holdfast import mounts
client = mounts.httpx2_sync_client(trust_env=False, verify=False)
response = client.send(client.build_request("POST", sys.argv[1], json={"stream": True}), stream=True)
pieces = response.iter_raw()
next(pieces)
print("begun")
"""
LEFT_IN_A_THREAD = """
import threading
import sys
from holdfast import mounts
client = mounts.httpx2_sync_client(trust_env=False, verify=False)
begun = threading.Event()
def read():
    with client.stream("POST", sys.argv[1], json={"stream": True}) as response:
        for _ in response.iter_raw():
            begun.set()
threading.Thread(target=read, daemon=True).start()
begun.wait(10)
print("begun")
"""
LEFT_BY_A_LOOP = """
import asyncio
import sys
from holdfast import mounts
client = mounts.httpx2_client(trust_env=False, verify=False)
async def main():
    response = await client.send(client.build_request("POST", sys.argv[1], json={"stream": True}), stream=True)
    global pieces
    pieces = response.aiter_raw()
    await anext(pieces)
asyncio.run(main())
print("begun")
"""


@pytest.mark.parametrize("program", [LEFT_OPEN, LEFT_IN_A_THREAD, LEFT_BY_A_LOOP], ids=["open", "thread", "loop"])
def test_an_interpreter_leaves_in_the_middle_of_a_stream(program: str) -> None:
    with in_background(ScriptedServer([begun(Stall())])) as server:
        command = [sys.executable, "-W", "ignore::ResourceWarning", "-c", program, f"{server.url}{CHAT}"]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, "begun\n", "")
        assert closed(server)


# -- loops -----------------------------------------------------------------------------------------


@pytest.fixture(params=BOTH, ids=lambda module: module.__name__)
def library(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_two_loops_share_a_client_one_after_another(library: Any) -> None:
    """The idle connection of the first is of a loop that is gone: it may be what it is without a mount, or better."""
    outcomes: list[list[str]] = []
    with in_background(ScriptedServer([healthy()])) as server, warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        for client in (library.AsyncClient(trust_env=False, verify=False), BOTH[library](**SETTINGS)):
            outcomes.append([])
            for _ in range(2):
                try:
                    outcomes[-1].append(asyncio.run(_ask(client, server.url)))
                except Exception as error:  # noqa: BLE001 - it is compared
                    outcomes[-1].append(type(error).__name__)
        del client
        gc.collect()
    bare, over_a_mount = outcomes
    assert over_a_mount[0] == TEXT
    assert over_a_mount[1] in (bare[1], TEXT)


async def _ask(client: Any, url: str) -> str:
    async with asyncio.timeout(30):
        return text_of((await client.post(f"{url}{CHAT}", json=BODY)).content)


def test_a_stream_may_be_left_by_its_loop(library: Any) -> None:
    with in_background(ScriptedServer([begun(Stall())])) as server:
        client = BOTH[library](**SETTINGS)
        kept: list[Any] = []

        async def ask() -> None:
            request = client.build_request("POST", f"{server.url}{CHAT}", json=BODY)
            response = await client.send(request, stream=True)
            kept.append(response.aiter_raw())
            assert await anext(kept[0])

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            asyncio.run(ask())
            assert closed(server), "asyncio.run() ends its generators, and they the response"
            kept.clear()
            gc.collect()


async def test_a_generator_that_is_forgotten_closes_its_stream(library: Any) -> None:
    async with ScriptedServer([begun(Stall())]) as server, BOTH[library](**SETTINGS) as client:

        async def pieces() -> Any:
            async with client.stream("POST", f"{server.url}{CHAT}", json=BODY) as response:
                async for piece in response.aiter_raw():
                    yield piece

        async for _ in pieces():
            break
        gc.collect()
        assert await server.all_closed()


async def test_a_stream_that_is_forgotten_while_much_of_it_waits_ends_in_silence(library: Any) -> None:
    """Its task waits for room then, which nobody else knows of. What complains of it is a failure of this test."""
    flood = begun(Repeat(chunked(b": " + bytes([65]) * 60_000 + b"\n\n"), 0))
    with in_background(ScriptedServer([flood])) as server:
        async with BOTH[library](**SETTINGS) as client:
            request = client.build_request("POST", f"{server.url}{CHAT}", json=BODY)
            response = await client.send(request, stream=True)
            await anext(aiter(response.stream))
            await asyncio.sleep(0.1)
            del response
            for _ in range(50):
                gc.collect()
                await asyncio.sleep(0.01)
            assert await asyncio.to_thread(closed, server)


async def test_timeouts_within_timeouts_are_told_apart(library: Any) -> None:
    async with ScriptedServer([begun(Stall())]) as server, BOTH[library](**SETTINGS) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05) as outer, asyncio.timeout(5) as inner:
                await client.post(f"{server.url}{CHAT}", json=BODY)
        assert (outer.expired(), inner.expired()) == (True, False)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.post(f"{server.url}{CHAT}", json=BODY)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        assert await server.all_closed()


def test_it_runs_on_uvloop(library: Any) -> None:
    uvloop = pytest.importorskip("uvloop")

    async def scenario() -> None:
        script = [begun(Reset()), healthy(), begun(Stall())]
        async with ScriptedServer(script) as server, BOTH[library](**SETTINGS) as client:
            assert await _ask(client, server.url) == TEXT
            async with client.stream("POST", f"{server.url}{CHAT}", json=BODY) as response:
                async for _ in response.aiter_raw():
                    break
            assert await server.all_closed()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())


def test_another_kind_of_loop_is_refused_in_so_many_words(library: Any) -> None:
    client = BOTH[library](**SETTINGS)
    asking = client._transport.handle_async_request(library.Request("POST", f"http://127.0.0.1:9{CHAT}", json=BODY))
    with pytest.raises(UsageError, match="asyncio"):
        asking.send(None)  # as trio would begin it
