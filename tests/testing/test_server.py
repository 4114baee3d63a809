"""The scripted server: what it sends is what the script says, and nothing of it outlives its block."""

import asyncio
import ssl
from collections.abc import Iterable

import pytest
import trustme

from holdfast.testing.server import (
    LAST_CHUNK,
    STREAM_HEAD,
    Close,
    Drip,
    Pause,
    ReceivedRequest,
    Repeat,
    Reset,
    ScriptedServer,
    Send,
    Stall,
    Step,
    chunked,
    head,
    respond,
    sse,
    stream,
)

GET = b"GET /a?b HTTP/1.1\r\nHost: x\r\n\r\n"


async def read_all(server: ScriptedServer, request: bytes = GET, tls: ssl.SSLContext | None = None) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=tls)
    writer.write(request)
    try:
        return await reader.read()
    finally:
        writer.close()


async def test_sends_exactly_the_script() -> None:
    script: list[Step] = [Send(head(200, content_type="text/plain")), Drip(b"abc"), Pause(0), Drip(b"defgh", size=2)]
    async with ScriptedServer([[*script, Close()]]) as server:
        received = await read_all(server)
    assert received == b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nabcdefgh"


async def test_a_drip_arrives_piece_by_piece() -> None:
    async with ScriptedServer([[Drip(b"abc"), Close()]]) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(GET)
        pieces = [await reader.read(100) for _ in range(4)]
        writer.close()
    assert pieces == [b"a", b"b", b"c", b""]


async def test_notes_requests() -> None:
    async with ScriptedServer([[Send(b"x"), Close()]]) as server:
        before = asyncio.get_running_loop().time()
        await read_all(server, b"POST /p HTTP/1.1\r\nX-A: 1\r\nx-a: 2\r\nContent-Length: 7\r\n\r\n" + b'{"a":1}')
        await read_all(server, b"POST /q HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n")
    first, second = server.requests
    assert (first.method, first.path, first.headers["x-a"], first.json()) == ("POST", "/p", "1, 2", {"a": 1})
    assert first.at >= before
    assert second.body == b"abcd"
    assert first.port != second.port
    assert server.accepted == 2


async def test_a_reply_without_close_keeps_the_connection() -> None:
    async with ScriptedServer([respond(b"one"), [*respond(b"two"), Close()], respond(b"never")]) as server:
        received = await read_all(server, GET + GET)
    assert received.count(b"HTTP/1.1 200 OK") == 2
    assert received.endswith(b"two")
    assert server.requests[0].port == server.requests[1].port


async def test_the_last_reply_repeats_and_connection_close_is_obeyed() -> None:
    async with ScriptedServer([respond(b"one"), respond(b"two")]) as server:
        bodies = [await read_all(server, b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n") for _ in range(3)]
    assert [body[-3:] for body in bodies] == [b"one", b"two", b"two"]


async def test_handlers_may_be_plain_or_asynchronous() -> None:
    def plain(request: ReceivedRequest) -> Iterable[Step]:
        yield Send(request.path.encode())
        yield Close()

    async def asynchronous(request: ReceivedRequest) -> list[Step]:
        await asyncio.sleep(0)
        return list(plain(request))

    for handler in (plain, asynchronous):
        async with ScriptedServer(handler) as server:
            assert await read_all(server) == b"/a?b"


async def test_reset_comes_after_what_was_sent() -> None:
    big = bytes(3_000_000)  # more than a socket's buffers hold
    async with ScriptedServer([[Send(big), Reset()]]) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(GET)
        await reader.readexactly(1)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
        assert await server.all_closed()


@pytest.mark.parametrize("step", [Stall(), Repeat(b": ping\n\n", every=0.001), Pause(1000)])
async def test_waits_until_the_client_leaves(step: Step) -> None:
    async with ScriptedServer([[Send(b"x"), step, Send(b"never")]]) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(GET)
        assert await reader.readexactly(1) == b"x"
        assert not await server.all_closed(within=0.01)
        assert server.open_connections == 1
        writer.close()
        assert await server.all_closed()


async def test_nothing_outlives_the_block() -> None:
    async with ScriptedServer([[Send(b"x"), Stall()]]) as server:
        readers = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(3)]
        for reader, writer in readers[:2]:
            writer.write(GET)
            await reader.readexactly(1)
    assert server.open_connections == 0
    assert len(asyncio.all_tasks()) == 1
    with pytest.raises(OSError, match="Connect"):
        await asyncio.open_connection("127.0.0.1", server.port)
    for _, writer in readers:
        writer.close()


async def test_a_broken_script_is_told() -> None:
    def broken(request: ReceivedRequest) -> list[Step]:
        raise LookupError(request.path)

    with pytest.raises(LookupError, match="/a"):
        async with ScriptedServer(broken) as server:
            assert await read_all(server) == b""


async def test_speaks_tls() -> None:
    authority = trustme.CA()
    theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(theirs)
    ours = ssl.create_default_context()
    authority.configure_trust(ours)
    async with ScriptedServer([[Send(b"safe"), Close()]], tls=theirs) as server:
        assert server.url.startswith("https://127.0.0.1:")
        assert await read_all(server, tls=ours) == b"safe"
        with pytest.raises(ssl.SSLCertVerificationError):
            await read_all(server, tls=ssl.create_default_context())
        assert await server.all_closed()


def test_an_empty_script_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one reply"):
        ScriptedServer([])


def test_makes_exact_bytes() -> None:
    assert head(520) == b"HTTP/1.1 520 Unknown\r\n\r\n"
    assert head(429, retry_after=1) == b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\n\r\n"
    assert chunked(b"x" * 17) == b"11\r\n" + b"x" * 17 + b"\r\n"
    assert sse("a\nb", id="7", event="e", eol="\r\n") == b"id: 7\r\nevent: e\r\ndata: a\r\ndata: b\r\n\r\n"
    assert sse("é".encode()) == b"data: \xc3\xa9\n\n"
    assert stream(b"ab") == [Send(STREAM_HEAD), Send(b"2\r\nab\r\n"), Send(LAST_CHUNK)]
