"""What is thrown at a gateway: none of it is a 500, stops anybody else, or comes out in a header of somebody's."""

from __future__ import annotations

import asyncio
import io
import json
import resource
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import pytest

from fuzz import engine, targets
from holdfast.gateway.records import place_of
from holdfast.gateway.settings import Limits
from holdfast.testing.server import (
    LAST_CHUNK,
    STREAM_HEAD,
    Pause,
    ReceivedRequest,
    Reply,
    ScriptedServer,
    Send,
    chunked,
    sse,
    stream,
)
from tests.gateway.serving import Served, serving, settings

BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
PATHS = ("/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1beta/models/m:streamGenerateContent?alt=sse")


def chunk(text: str, finish: str | None = None) -> bytes:
    return sse(json.dumps({"id": "c", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]}))


ANSWER = [chunk("one "), chunk("two", "stop"), sse("[DONE]")]


@asynccontextmanager
async def gateway(**more: Any) -> AsyncIterator[tuple[Served, aiohttp.ClientSession, list[ReceivedRequest]]]:
    seen: list[ReceivedRequest] = []

    async def upstream(request: ReceivedRequest) -> Reply:
        seen.append(request)
        return stream(*ANSWER)

    async with (
        ScriptedServer(upstream) as http,
        serving(settings(f"http://127.0.0.1:{http.port}/v1", **more)) as served,
        aiohttp.ClientSession(served.url) as session,
    ):
        yield served, session, seen


async def raw(served: Served, data: bytes) -> bytes:
    """Sends bytes as they are, and gives all that comes until the connection is closed."""
    host, _, port = served.url.rpartition("//")[2].partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(data)
    told = b""
    try:
        async with asyncio.timeout(20):
            while part := await reader.read(65536):
                told += part
    except ConnectionError:
        pass
    finally:
        writer.transport.abort()
    return told


def statuses(told: bytes) -> list[int]:
    return [int(part[:3]) for part in told.replace(b"HTTP/1.0 ", b"HTTP/1.1 ").split(b"HTTP/1.1 ")[1:]]


async def whole(response: aiohttp.ClientResponse) -> bytes:
    """Reads an answer, also one that is cut: the upstream here speaks one wire alone."""
    said = b""
    try:
        async for part in response.content.iter_any():
            said += part
    except aiohttp.ClientPayloadError:
        assert response.status == 200
    return said


# -- bodies ----------------------------------------------------------------------------------------

DEEP = 200_000
BOMBS: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"{",
    "not an object": b"[1]",
    "a string": b'"model"',
    "null": b"null",
    "deep arrays": b'{"model":"m","stream":true,"messages":' + b"[" * DEEP + b"]" * DEEP + b"}",
    "deep objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "deep and open": b"[" * DEEP,
    "deep, and a name twice": b'{"model":"m","model":"n","a":' + b"[" * DEEP + b"]" * DEEP + b"}",
    "a number without end": b'{"model":"m","stream":true,"n":' + b"9" * 100_000 + b"}",
    "a number of another sort": b'{"model":"m","stream":true,"n":1e999999}',
    "NaN": b'{"model":"m","stream":true,"n":NaN}',
    "a name twice": b'{"model":"allowed","model":"m","stream":true}',
    "a name twice, once escaped": b'{"model":"allowed","mod\\u0065l":"m","stream":true}',
    "no UTF-8": b'{"model":"m\xff\xfe","stream":true}',
    "half a character": b'{"model":"m","stream":true,"messages":[{"role":"user","content":"\\ud800"}]}',
    "UTF-16": '{"model":"m","stream":true}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"model":"m","stream":true}',
    "a zero byte": b'{"model":"m","stream":true}\0',
    "a model that is none": b'{"model":{"a":1},"stream":true}',
    "a model of lines": b'{"model":"m\\r\\nX-Evil: 1","stream":true}',
    "a model that is a path": b'{"model":"../../admin?x=","stream":true}',
    "a stream that is none": b'{"model":"m","stream":"yes"}',
}


@pytest.mark.parametrize("what", BOMBS)
async def test_what_a_body_may_be_is_never_our_failure(what: str, capfd: pytest.CaptureFixture[str]) -> None:
    async with gateway() as (_, session, _seen):
        for path in PATHS:
            started = time.thread_time()
            data, headers = io.BytesIO(BOMBS[what]), {"Content-Type": "application/json"}
            async with session.post(path, data=data, headers=headers) as response:
                said = await whole(response)
                assert response.status in (200, 400, 404), (path, response.status, said[:300])
                if response.status != 200:
                    assert "error" in json.loads(said)
                    assert len(said) < 1_000
                assert not any("evil" in name.lower() for name in response.headers)
            assert time.thread_time() - started < 1.0
    assert "Traceback" not in capfd.readouterr().err


# -- headers ---------------------------------------------------------------------------------------

PLACES = [
    *("-1", "--1", "-", "", " ", "0", "x", "9" * 5_000, "1" * 64, "\u0661", "é", "1e3", "+1", "0x1", "1.5", "-0"),
    *("999999999999", "9999999999999", "١٢", "\x7f", "None", "*", "%00", "';DROP TABLE", "0" * 32 + "-1"),
]


@pytest.mark.parametrize("place", PLACES)
async def test_a_place_that_is_none_is_refused_and_one_behind_the_end_is_the_end(place: str) -> None:
    async with gateway() as (served, session, seen):
        async with session.post("/v1/chat/completions", json=BODY) as response:
            await response.read()
            name = response.headers["X-Holdfast-Stream"]
        body = json.dumps(BODY).encode()
        for given in (place, f"{name}{place}", f"{name}-{place}", f"{place}-{name}-1", f"{'f' * 32}-{place}"):
            line = b"Last-Event-ID: " + given.encode()
            for request in (
                b"GET /v1/streams/%b HTTP/1.1\r\n" % name.encode(),
                b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: %d\r\n" % len(body),
            ):
                told = await raw(
                    served,
                    request
                    + b"Host: localhost\r\nConnection: close\r\n"
                    + line
                    + b"\r\n\r\n"
                    + (body if request.startswith(b"POST") else b""),
                )
                (status,) = statuses(told)
                known = place_of(given.strip(), name) is not None
                assert status in ((200, 204) if known else (400, 404, 431)), (given[:60], told[:200])
        assert len(seen) <= 2, "only where no place was given it was asked anew"
        async with session.get(f"/v1/streams/{name}", headers={"Last-Event-ID": f"{name}-99"}) as response:
            assert response.status == 204


async def test_a_place_of_another_stream_of_ones_own_is_none_of_this_one() -> None:
    async with gateway() as (_, session, _seen):
        names = []
        for _ in range(2):
            async with session.post("/v1/chat/completions", json=BODY) as response:
                await response.read()
                names.append(response.headers["X-Holdfast-Stream"])
        headers = {"Last-Event-ID": f"{names[1]}-1"}
        async with session.get(f"/v1/streams/{names[0]}", headers=headers) as response:
            assert response.status == 400
        async with session.post("/v1/chat/completions", json={**BODY, "n": 1}, headers=headers) as response:
            assert response.status == 409


EVIL = b"x\r\nX-Evil: 1\r\n\r\n<script>"
INJECTIONS = {
    "a header of two lines": b"Idempotency-Key: a\r\n\tb\r\n",
    "a bare CR": b"Idempotency-Key: a\rX-Evil: 1\r\n",
    "a bare LF": b"Idempotency-Key: a\nX-Evil: 1\r\n",
    "a zero byte": b"Idempotency-Key: a\0b\r\n",
    "no ASCII": b"Idempotency-Key: \xff\xfe\r\n",
    "a long one": b"Idempotency-Key: " + b"k" * 256 + b"\r\n",
    "twice": b"Idempotency-Key: a\r\nIdempotency-Key: b\r\n",
    "two lengths": b"Content-Length: 5\r\n",
    "a length and chunks": b"Transfer-Encoding: chunked\r\n",
    "an agent that is no text": b"User-Agent: \xff\xfe\x80\r\n",
    "an agent of two lines": b"User-Agent: a\r\n b\r\n",
    "a header without a name": b": x\r\n",
    "a space before the colon": b"X-A : x\r\n",
    "an upgrade": b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: eA==\r\n",
    "h2c": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n",
    "an expectation": b"Expect: the impossible\r\n",
    "an expectation that is no text": b"Expect: \xb0\r\n",
}


@pytest.mark.parametrize("what", INJECTIONS)
async def test_no_header_becomes_another_one_or_a_failure_of_ours(what: str, capfd: pytest.CaptureFixture[str]) -> None:
    body = json.dumps(BODY).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n" % len(body)
    async with gateway() as (served, _session, seen):
        told = await raw(served, head + INJECTIONS[what] + b"Connection: close\r\n\r\n" + body)
        assert told or what == "an upgrade", what  # older versions of aiohttp close that without a word
        assert all(status in (200, 400, 417) for status in statuses(told)), told[:300]
        assert b"\r\nX-Evil" not in told
        for request in seen:
            assert not any("evil" in name.lower() for name in request.headers)
    assert "Traceback" not in capfd.readouterr().err


TARGETS = {
    b"GET /v1/streams/%b HTTP/1.1" % name: 404
    for name in (b"..%2f..", b"%0d%0aX-Evil:%201", b"x" * 3_000, b"%00", b"%ff", b"*", b"F" * 32, b"0" * 31)
} | {
    b"GET /v1/streams/ HTTP/1.1": 404,
    b"GET //evil.example/v1/models HTTP/1.1": 404,
    b"GET http://evil.example/healthz HTTP/1.1": 200,
    b"OPTIONS * HTTP/1.1": 404,
    b"CONNECT evil.example:443 HTTP/1.1": 404,
    b"TRACE / HTTP/1.1": 404,
    b"PUT /v1/chat/completions HTTP/1.1": 404,
    b"GET /v1/chat/completions HTTP/1.1": 404,
    b"GET /nothing HTTP/1.1": 404,
    b"G\xffT / HTTP/1.1": 400,
    b"GET / HTTP/9.9": 400,
    b"PRI * HTTP/2.0": 400,
    b"\x16\x03\x01\x02\x00\x01\x00": 400,
    b"hello": 400,
}


@pytest.mark.parametrize("line", TARGETS)
async def test_whatever_is_asked_for_is_answered_in_json(line: bytes) -> None:
    async with gateway() as (served, _session, seen):
        told = await raw(served, line + b"\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        status = statuses(told)[0]
        assert status == TARGETS[line] or (400 <= status < 500 and TARGETS[line] >= 400), told[:200]
        assert b"content-type: application/json" in told.lower() or b"text/html" in told.lower()
        assert b"\r\nX-Evil" not in told
        assert b"aiohttp" not in told, "who asks is told of versions"
        assert not seen


# -- pages -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "evil.example"}, 403),
        ({"Host": "evil.example:8700", "Origin": "http://evil.example:8700"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": "localhost:8700", "Origin": "http://localhost:8700"}, 200),
        ({"Host": "[::1]:8700"}, 200),
        ({"Host": "app.localhost"}, 200),
        ({"Origin": "https://named.example"}, 200),
    ],
)
async def test_a_gateway_without_keys_listens_to_no_foreign_page(headers: dict[str, str], status: int) -> None:
    async with gateway(cors=("https://named.example",)) as (_, session, seen):
        # What a page may send without asking: no header of its own, and a body of plain text.
        more = {"Content-Type": "text/plain", **headers}
        async with session.post("/v1/chat/completions", data=json.dumps(BODY), headers=more) as response:
            assert response.status == status
            assert len(seen) == (status == 200)


async def test_named_origins_may_read_and_others_are_told_nothing() -> None:
    origin = {"Origin": "https://named.example"}
    async with gateway(cors=("https://named.example",)) as (_, session, _seen):
        asked = {
            **origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,x-a",
        }
        async with session.options("/v1/messages", headers=asked) as response:
            assert response.status == 204
            assert response.headers["Access-Control-Allow-Origin"] == "https://named.example"
            assert response.headers["Access-Control-Allow-Headers"] == "authorization,x-a"
            assert "Access-Control-Allow-Credentials" not in response.headers
        async with session.post("/v1/chat/completions", json=BODY, headers=origin) as response:
            assert "X-Holdfast-Read-Token" in response.headers["Access-Control-Expose-Headers"]
            assert response.headers["Vary"] == "Origin"
        async with session.options("/v1/messages", headers={**asked, "Origin": "https://evil.example"}) as response:
            assert "Access-Control-Allow-Origin" not in response.headers
    async with gateway() as (_, session, _seen), session.options("/v1/messages", headers=asked) as response:
        assert response.status in (403, 404)
        assert not any(name.startswith("Access-Control") for name in response.headers)


# -- many ------------------------------------------------------------------------------------------


async def test_a_thousand_connections_that_say_nothing_harm_nobody() -> None:
    events, every = 60, 0.01
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard[0] < 4_096:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(4_096, hard[1]), hard[1]))

    async def upstream(request: ReceivedRequest) -> Reply:
        steps: list[Any] = [Send(STREAM_HEAD)]
        for _ in range(events):
            steps += [Send(chunked(chunk(f"{'x' * 20} "))), Pause(every)]
        return [*steps, Send(chunked(b"".join(ANSWER[1:])) + LAST_CHUNK)]

    async def longest_gap(session: aiohttp.ClientSession) -> float:
        async with session.post("/v1/chat/completions", json=BODY) as response:
            last, longest = time.perf_counter(), 0.0
            async for _ in response.content.iter_any():
                now = time.perf_counter()
                last, longest = now, max(longest, now - last)
            return longest

    async def streams(session: aiohttp.ClientSession) -> list[float]:
        return sorted(await asyncio.gather(*(longest_gap(session) for _ in range(20))))

    async with (
        ScriptedServer(upstream) as http,
        serving(settings(f"http://127.0.0.1:{http.port}/v1", limits=Limits(header_timeout=1.0))) as served,
        aiohttp.ClientSession(served.url, connector=aiohttp.TCPConnector(limit=0)) as session,
    ):
        alone = await streams(session)
        host, _, port = served.url.rpartition("//")[2].partition(":")
        before = memory()
        quiet = await asyncio.gather(*(asyncio.open_connection(host, int(port)) for _ in range(1_000)))
        for _, writer in quiet[:200]:
            writer.write(b"G")
        grown = memory() - before
        crowded = await streams(session)
        assert grown < 64 * 1024 * 1024  # both ends of them are in this process
        # The clock is that of a busy machine: what is told apart is a stop, not a millisecond.
        assert crowded[10] < max(0.25, 10 * alone[10])
        async with asyncio.timeout(10):
            await asyncio.gather(*(reader.read() for reader, _ in quiet))  # all of them are closed
        for _, writer in quiet:
            writer.transport.abort()
        async with session.get("/healthz") as response:
            assert response.status == 200


def memory() -> int:
    """Bytes that this process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


# -- by chance -------------------------------------------------------------------------------------


def test_whatever_comes_over_a_line_is_answered_or_refused() -> None:
    target = targets.find("gateway")
    random, seeds = Random(7), engine.seeds(target)
    for data in seeds + [engine.mutate(random, seeds, target) for _ in range(150)]:
        target.check(data)
