"""What a gateway's clients may send and hold: connections, headers, bodies, and readers that take nothing."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import socket
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from msgspec.structs import replace

from holdfast.gateway.journal import Entry, JournalError, Shelved
from holdfast.gateway.journal.memory import MemoryJournal
from holdfast.gateway.log import Ending
from holdfast.gateway.settings import Limits
from holdfast.testing.server import (
    LAST_CHUNK,
    STREAM_HEAD,
    ReceivedRequest,
    Reply,
    ScriptedServer,
    Send,
    Stall,
    chunked,
    sse,
    stream,
)
from tests.gateway.serving import Served, serving, settings

BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}


def chunk(text: str, finish: str | None = None) -> bytes:
    return sse(json.dumps({"id": "c", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]}))


ANSWER = [chunk("hi", "stop"), sse("[DONE]")]


@asynccontextmanager
async def gateway(*pieces: bytes, limits: Limits | None = None, **more: Any) -> AsyncIterator[Served]:
    async def upstream(request: ReceivedRequest) -> Reply:
        return stream(*(pieces or ANSWER))

    async with (
        ScriptedServer(upstream) as http,
        serving(settings(f"http://127.0.0.1:{http.port}/v1", limits=limits or Limits(), **more)) as served,
    ):
        yield served


class Line:
    """One connection, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def rest(self, within: float = 3.0) -> bytes:
        """Gives all that comes until the other side closes."""
        data = b""
        async with asyncio.timeout(within):
            try:
                while part := await self.reader.read(65536):
                    data += part
            except ConnectionError:
                pass
        return data

    async def until(self, mark: bytes, within: float = 3.0) -> bytes:
        async with asyncio.timeout(within):
            return await self.reader.readuntil(mark)


@asynccontextmanager
async def line(served: Served) -> AsyncIterator[Line]:
    reader, writer = await asyncio.open_connection(*address(served))
    try:
        yield Line(reader, writer)
    finally:
        writer.transport.abort()


def address(served: Served) -> tuple[str, int]:
    host, _, port = served.url.rpartition("//")[2].partition(":")
    return host, int(port)


def post(body: bytes, *headers: str, version: str = "1.1", path: str = "/v1/chat/completions") -> bytes:
    lines = [f"POST {path} HTTP/{version}", "Host: localhost", "Content-Type: application/json", *headers]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


ASKED = json.dumps(BODY).encode()
SHORT = Limits(header_timeout=0.1, body_timeout=0.1, idle_timeout=0.2, write_timeout=0.2)

# -- connections and headers -----------------------------------------------------------------------


async def test_a_connection_that_says_nothing_is_closed() -> None:
    async with gateway(limits=SHORT) as served, line(served) as quiet:
        assert await quiet.rest() == b""


@pytest.mark.parametrize("begin", [b"", b"\r\n\r\n", b"GET / HTTP/1.1\r\nHost: localhost\r\n"])
async def test_a_request_that_drips_is_closed_however_long_it_is_kept_up(begin: bytes) -> None:
    async with gateway(limits=SHORT) as served, line(served) as slow:
        slow.send(begin)

        async def drip() -> None:
            while True:
                slow.send(b"x")
                await asyncio.sleep(0.02)

        dripping = asyncio.create_task(drip())
        loop = asyncio.get_running_loop()
        started = loop.time()
        told = await slow.rest()
        assert told == b"" or told.startswith(b"HTTP/1.0 400 ")  # some is no HTTP before the time is over
        assert loop.time() - started < 1.0
        dripping.cancel()


async def test_the_second_request_of_a_connection_may_not_drip_either() -> None:
    limits = Limits(header_timeout=0.1, idle_timeout=60)
    async with gateway(limits=limits) as served, line(served) as slow:
        slow.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await slow.until(b'"ok"}')
        await asyncio.sleep(0.2)
        slow.send(b"GET /healthz HTTP/1.1\r\n")  # it was only idle so far, and may be
        assert await slow.rest() == b""


async def test_an_idle_connection_is_closed_later() -> None:
    async with gateway(limits=SHORT) as served, line(served) as idle:
        idle.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await idle.rest()).endswith(b'"ok"}')


async def test_no_more_connections_than_may_be_and_again_when_one_is_gone() -> None:
    async with gateway(limits=Limits(max_connections=2)) as served, line(served) as one, line(served):
        await asyncio.sleep(0.01)
        async with line(served) as third:
            told = await third.rest()
        assert told.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nRetry-After: 1\r\n" in told
        one.writer.close()
        await asyncio.sleep(0.01)
        async with line(served) as again:
            again.send(b"GET /healthz HTTP/1.0\r\n\r\n")
            assert (await again.rest()).endswith(b'"ok"}')


@pytest.mark.parametrize(
    "lines",
    [
        [f"X-{n}: {'x' * 1000}" for n in range(40)],  # each is well
        [f"X: {'x' * 40_000}"],
        [f"X-{n}:" for n in range(9_000)],
    ],
)
@pytest.mark.parametrize("cut", [100, 1_000_000])
async def test_headers_are_bounded_together(lines: list[str], cut: int) -> None:
    data = post(ASKED, *lines)
    async with gateway() as served, line(served) as big:
        for place in range(0, len(data), cut):
            big.send(data[place : place + cut])
            if place % 10_000 == 0:
                await asyncio.sleep(0)
        told = await big.rest()  # nothing, where it was still sending
        assert not told or told.split(b" ")[1] in (b"431", b"400"), told[:200]
        assert b"x" * 100 not in told


async def test_headers_that_fit_are_read_however_they_are_cut() -> None:
    data = post(ASKED, f"X: {'x' * 20_000}", "Connection: close")
    async with gateway() as served, line(served) as one:
        for place in range(0, len(data), 997):
            one.send(data[place : place + 997])
            await asyncio.sleep(0)
        assert b"[DONE]" in await one.rest()


# -- bodies ----------------------------------------------------------------------------------------


async def test_ten_megabytes_pass_and_come_upstream_whole() -> None:
    got: list[int] = []

    async def upstream(request: ReceivedRequest) -> Reply:
        got.append(len(request.body))
        return stream(*ANSWER)

    big = {**BODY, "messages": [{"role": "user", "content": "x" * 10_000_000}]}
    async with (
        ScriptedServer(upstream) as http,
        serving(settings(f"http://127.0.0.1:{http.port}/v1")) as served,
        aiohttp.ClientSession(served.url) as session,
    ):
        data = json.dumps(big).encode()
        async with session.post("/v1/chat/completions", data=io.BytesIO(data)) as response:
            assert b"[DONE]" in await response.read()
        assert got == [len(data)]
        assert served.gateway.bodies.held == 0


DIALECTS = {
    "/v1/chat/completions": ("error", "code"),
    "/v1/responses": ("error", "code"),
    "/v1/messages": ("error", "type"),
    "/v1beta/models/m:streamGenerateContent": ("error", "status"),
}


@pytest.mark.parametrize("path", DIALECTS)
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_body_too_large_is_refused_in_the_clients_words(path: str, framing: str) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b"x" * 1000

    data: Any = parts() if framing == "chunked" else b"x" * 40_000
    async with (
        gateway(limits=Limits(max_body=20_000)) as served,
        aiohttp.ClientSession(served.url) as session,
        session.post(path, data=data) as response,
    ):
        assert response.status == 413
        said = await response.json()
        outer, inner = DIALECTS[path]
        assert said[outer][inner]


async def test_a_body_that_is_announced_too_large_is_refused_before_it_comes() -> None:
    async with gateway(limits=Limits(max_body=1000)) as served, line(served) as one:
        one.send(b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n{")
        assert b"request_too_large" in await one.until(b"}}")


async def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    async with gateway(limits=SHORT) as served, line(served) as one:
        one.send(post(b"")[:-5] + b"100\r\n\r\n{")
        assert (await one.until(b"}}")).startswith(b"HTTP/1.1 408 ")


async def test_all_bodies_together_are_bounded() -> None:
    limits = Limits(max_body=100_000, max_bodies=150_000, body_timeout=5)
    async with gateway(limits=limits) as served, line(served) as one, line(served) as two:
        for each in (one, two):
            each.send(
                b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n" + b"x" * 90_000
            )
        told = [asyncio.create_task(each.until(b"}}")) for each in (one, two)]
        done, _ = await asyncio.wait(told, timeout=3, return_when=asyncio.FIRST_COMPLETED)
        assert [task.result()[:13] for task in done] == [b"HTTP/1.1 503 "]
        assert 0 < served.gateway.bodies.held <= 150_000
        for task in told:
            task.cancel()


@pytest.mark.parametrize("asked", [{**BODY, "stream": False}, BODY], ids=["whole", "stream"])
async def test_the_bodies_of_requests_that_wait_for_their_answers_are_bounded_too(asked: dict[str, Any]) -> None:
    asked_for = asyncio.Event()

    async def upstream(request: ReceivedRequest) -> Reply:
        asked_for.set()
        return [Stall()]

    limits, body = Limits(max_bodies=150_000), json.dumps({**asked, "x": "x" * 100_000}).encode()
    async with (
        ScriptedServer(upstream) as http,
        serving(settings(f"http://127.0.0.1:{http.port}/v1", limits=limits, journal="none")) as served,
        line(served) as first,
        line(served) as second,
    ):
        first.send(post(body))
        await asked_for.wait()
        second.send(post(body))
        assert (await second.until(b"}}"))[8:].startswith(b" 503 ")
        assert served.gateway.bodies.held == len(body)
        first.writer.transport.abort()
        for _ in range(500):
            await asyncio.sleep(0.002)
            if not served.gateway.bodies.held:
                break
        assert not served.gateway.bodies.held


async def test_requests_whose_streams_run_are_bounded_together_and_make_room_when_they_end() -> None:
    journal = MemoryJournal(max_bytes=100_000, keep=600)

    def entry(number: int) -> Entry:
        return Entry(
            stream=f"{number:032x}", owner="", surface="chat", url="", headers={}, body=b"x" * 60_000, digest=""
        )

    first = await journal.begin(entry(1))
    with pytest.raises(JournalError):
        await journal.begin(entry(2))
    assert await journal.find(entry(2).stream) is None
    assert not isinstance(first, Shelved)
    await first.end(Ending(kind="complete"))
    assert not isinstance(await journal.begin(entry(3)), Shelved)


async def test_thousands_of_short_streams_are_kept_within_the_bound_too() -> None:
    journal = MemoryJournal(max_bytes=1_000_000, keep=600)
    tracemalloc.start()
    for number in range(2_000):
        asked = Entry(stream=f"{number:032x}", owner="", surface="chat", url="", headers={}, body=b"{}", digest="")
        writer = await journal.begin(replace(asked, idempotency_key=str(number)))
        assert not isinstance(writer, Shelved)
        await writer.write([b": %d\n\n" % n for n in range(20)])
        await writer.end(Ending(kind="complete"))
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken < 1_000_000
    assert isinstance(await journal.begin(replace(asked, idempotency_key="1999")), Shelved), "the newest are kept"


async def test_a_journal_that_does_not_answer_is_no_failure_of_ours() -> None:
    class Silent(MemoryJournal):
        async def find(self, stream: str) -> Shelved | None:
            raise JournalError("the journal is silent")

    async with (
        serving(settings("http://127.0.0.1:9/v1"), Silent()) as served,
        aiohttp.ClientSession(served.url) as session,
    ):
        for method in ("GET", "DELETE"):
            async with session.request(method, f"/v1/streams/{'0' * 32}") as response:
                assert (response.status, response.headers["Retry-After"]) == (503, "1")
                assert (await response.json())["error"]["code"] == "journal_unavailable"


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, identity", "x"])
async def test_no_compressed_body_is_unpacked(encoding: str) -> None:
    bomb = gzip.compress(b" " * 10_000_000 + ASKED)
    async with (
        gateway() as served,
        aiohttp.ClientSession(served.url) as session,
        session.post("/v1/messages", data=bomb, headers={"Content-Encoding": encoding}) as response,
    ):
        assert response.status == 415
        assert (await response.json())["type"] == "error"


@pytest.mark.parametrize("data", [b"5\r\nhello\r\nzz\r\n", b"5\r\nhello world\r\n0\r\n\r\n"])
async def test_a_broken_chunked_body_is_the_clients_fault(data: bytes) -> None:
    async with gateway(limits=Limits(body_timeout=1)) as served, line(served) as one:
        one.send(b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" + data)
        assert (await one.until(b"}}"))[8:].startswith(b" 400 ")


async def test_who_waits_for_a_100_gets_it() -> None:
    async with gateway() as served, line(served) as one:
        head_, _, body = post(ASKED, "Expect: 100-continue", "Connection: close").partition(b"\r\n\r\n")
        one.send(head_ + b"\r\n\r\n")
        assert await one.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        one.send(body)
        assert b"[DONE]" in await one.rest()


async def test_http_1_0_is_answered_without_chunks_until_the_connection_ends() -> None:
    async with gateway() as served, line(served) as one:
        one.send(post(ASKED, version="1.0"))
        told = await one.rest()
        assert told.startswith(b"HTTP/1.0 200 ")
        assert b"chunked" not in told
        assert told.endswith(b"\n\n")


@pytest.mark.parametrize("other", ["", "pass"])
async def test_who_speaks_http_1_0_and_keeps_connections_is_told_the_end_too(other: str) -> None:
    async with gateway(other=other or "refuse") as served:
        for path in ("/v1/chat/completions", *(["/v1/embeddings"] if other else [])):
            async with line(served) as old:
                old.send(post(ASKED, "Connection: keep-alive", version="1.0", path=path))
                assert b"[DONE]" in await old.rest()
        async with line(served) as old:
            old.send(b"GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert b"keep-alive" in await old.until(b'"ok"}')


async def test_behind_a_body_that_was_not_read_there_is_no_other_request() -> None:
    async with gateway(limits=SHORT) as served, line(served) as sly:
        head = b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n"
        sly.send(head)
        told = await sly.until(b"\r\n\r\n")
        assert b"Connection: close" in told
        sly.send(b"12345GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + b"X-A: y\r\n")
        assert b"HTTP/1" not in await sly.rest()


async def test_pipelined_requests_are_answered_in_their_order() -> None:
    other = json.dumps({**BODY, "stream": 7}).encode()
    async with gateway() as served, line(served) as one:
        one.send(post(ASKED) + post(other) + post(ASKED) + post(ASKED, "Connection: close"))
        told = await one.rest()
        assert [part[:3] for part in told.split(b"HTTP/1.1 ")[1:]] == [b"200", b"400", b"200", b"200"]
        assert told.count(b"[DONE]") == 3


# -- readers ---------------------------------------------------------------------------------------

PIECE = chunk("x" * 4000)
LONG = 2048
"""Pieces: 8 MB."""


@asynccontextmanager
async def long_stream(limits: Limits) -> AsyncIterator[Served]:
    pieces = Send(b"".join(chunked(PIECE * 16) for _ in range(LONG // 16)))

    async def upstream(request: ReceivedRequest) -> Reply:
        return [Send(STREAM_HEAD), pieces, Send(chunked(b"".join(ANSWER)) + LAST_CHUNK)]

    async with (
        ScriptedServer(upstream) as http,
        serving(settings(f"http://127.0.0.1:{http.port}/v1", limits=limits, max_stream=64 * 1024 * 1024)) as served,
    ):
        yield served


@asynccontextmanager
async def small_window(served: Served) -> AsyncIterator[socket.socket]:
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(one, address(served))
        await loop.sock_sendall(one, post(ASKED))
        yield one


async def comes_true(what: Callable[[], bool], within: float = 3.0) -> bool:
    for _ in range(int(within / 0.02)):
        if what():
            return True
        await asyncio.sleep(0.02)
    return False


async def taken(session: aiohttp.ClientSession) -> int:
    """Reads a whole stream. Gives its size."""
    async with session.post("/v1/chat/completions", json=BODY) as response:
        return len(await response.read())


async def test_a_reader_that_takes_nothing_is_closed_and_holds_little_until_then() -> None:
    async with (
        long_stream(Limits(write_timeout=0.3)) as served,
        small_window(served),
        aiohttp.ClientSession(served.url) as session,
    ):
        assert await taken(session) > LONG * len(PIECE)  # another one is well
        assert served.runner.guards.unsent < 512 * 1024
        assert await comes_true(lambda: len(served.runner.guards) == 1)


async def test_a_reader_of_a_few_bytes_at_a_time_is_kept_and_delays_nobody() -> None:
    loop = asyncio.get_running_loop()
    async with (
        long_stream(Limits(write_timeout=0.2)) as served,
        small_window(served) as slow,
        aiohttp.ClientSession(served.url) as session,
    ):
        reading = asyncio.create_task(taken(session))
        for _ in range(20):  # for longer than who takes nothing is kept
            assert await loop.sock_recv(slow, 65536)
            await asyncio.sleep(0.02)
            assert served.runner.guards.unsent < 1024 * 1024
        assert await reading > LONG * len(PIECE)


async def test_an_answer_that_nobody_takes_to_its_end_does_not_hold_its_connection_for_ever() -> None:
    async with (
        gateway(*[chunk("x" * 100_000)] * 6, *ANSWER, limits=Limits(write_timeout=0.2)) as served,
        small_window(served),
    ):
        assert await comes_true(lambda: len(served.runner.guards) == 0)


async def test_one_stream_has_no_more_readers_than_may_be() -> None:
    async def upstream(request: ReceivedRequest) -> Reply:
        return [Send(STREAM_HEAD), Send(chunked(ANSWER[0])), Stall()]

    async with (
        ScriptedServer(upstream) as http,
        serving(settings(f"http://127.0.0.1:{http.port}/v1", limits=Limits(max_readers=2))) as served,
        aiohttp.ClientSession(served.url) as session,
        session.post("/v1/chat/completions", json=BODY) as one,
    ):
        path = f"/v1/streams/{one.headers['X-Holdfast-Stream']}"
        async with session.get(path) as two, session.get(path) as three:
            assert [two.status, three.status] == [200, 429]
            assert three.headers["Retry-After"] == "1"
        one.close()
        assert served.gateway.streams is not None
        running = await served.gateway.streams.find(path.rpartition("/")[2])
        assert running is not None
        assert await comes_true(lambda: running.readers == 0)
        async with session.get(path) as again:
            assert again.status == 200
            again.close()
