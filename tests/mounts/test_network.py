"""The connections that a mount's own transports read from: as httpcore's own, but for what a read costs."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpcore
import httpcore2
import pytest
import trustme

from holdfast import mounts
from holdfast.mounts._network import _HIGH, _Backend, _Connection

CORES = (httpcore, httpcore2)
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(params=CORES, ids=lambda core: core.__name__)
def core(request: pytest.FixtureRequest) -> Any:
    return request.param


@contextlib.asynccontextmanager
async def connected(core: Any, serve: Serve, tls: ssl.SSLContext | None = None) -> AsyncIterator[_Connection]:
    served: list[asyncio.Task[Any] | None] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(asyncio.current_task())
        try:
            with contextlib.suppress(OSError):
                await serve(reader, writer)
        finally:
            with contextlib.suppress(AttributeError):  # CPython 3.11.2: TLS that is lost has nobody to tell
                writer.transport.abort()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    async with server:
        port = server.sockets[0].getsockname()[1]
        made = await _Backend(core.AnyIOBackend(), core).connect_tcp("127.0.0.1", port, timeout=5)
        assert isinstance(made, _Connection)
        try:
            yield made
        finally:
            await made.aclose()
            await asyncio.gather(*filter(None, served))
            await asyncio.sleep(0.01)  # what is aborted ends in the loop's next turns


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1000):
        writer.write(data)
    writer.close()


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def test_what_is_written_comes_back_and_the_end_is_empty(core: Any) -> None:
    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read(1000))
        writer.close()

    async with connected(core, once) as line:
        await line.write(b"kelp", timeout=5)
        assert await line.read(2, timeout=5) == b"ke"
        assert await line.read(100, timeout=5) == b"lp"
        assert await line.read(100, timeout=5) == b""
        assert line.get_extra_info("is_readable")  # what says to a pool that it is of no more use


async def test_an_idle_connection_that_was_ended_is_known_before_the_loop_has_looked(core: Any) -> None:
    ended = asyncio.Event()

    async def end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write_eof()
        ended.set()
        await reader.read()

    async with connected(core, end) as line:
        assert not line.get_extra_info("is_readable")
        line._transport.pause_reading()  # as a loop that is busy elsewhere
        await line.write(b"kelp")
        await ended.wait()
        await asyncio.sleep(0.01)
        assert not line._over
        assert line.get_extra_info("is_readable")


async def test_a_read_that_takes_too_long_is_the_librarys_timeout_and_later_ones_go_on(core: Any) -> None:
    async with connected(core, echo) as line:
        for timeout in (0.02, 0.01, 0.02):
            with pytest.raises(core.ReadTimeout):
                await line.read(100, timeout=timeout)
        await line.write(b"kelp")
        assert await line.read(100, timeout=None) == b"kelp"
        with pytest.raises(core.ReadTimeout):
            await line.read(100, timeout=0.01)


async def test_a_cancelled_read_loses_nothing(core: Any) -> None:
    async with connected(core, echo) as line:
        reading = asyncio.create_task(line.read(100, timeout=5))
        await asyncio.sleep(0)
        await line.write(b"kelp")
        await asyncio.sleep(0)
        reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reading
        assert await line.read(100, timeout=5) == b"kelp"


async def test_what_nobody_reads_is_not_received(core: Any) -> None:
    sent = 4 * 2**20

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(bytes(sent))
        await writer.drain()
        writer.write_eof()
        await reader.read()

    async with connected(core, flood) as line:
        for _ in range(300):
            await asyncio.sleep(0)
        assert line._size < _HIGH + 2**18 + 1  # and what one read of the loop's takes
        size = 0
        while piece := await line.read(2**16, timeout=5):
            size += len(piece)
        assert size == sent


async def test_a_reset_comes_behind_what_had_arrived(core: Any) -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"kelp")
        await reader.read(4)
        writer.transport.abort()

    async with connected(core, reset) as line:
        assert await line.read(100, timeout=5) == b"kelp"
        await line.write(b"more and more")
        with contextlib.suppress(core.ReadError):
            assert await line.read(100, timeout=5) == b""
        assert line.get_extra_info("is_readable")


async def test_a_write_that_nobody_takes_is_the_librarys_timeout(core: Any) -> None:
    heard = asyncio.Event()

    async def deaf(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # it reads, too
        await heard.wait()
        writer.transport.abort()

    async with connected(core, deaf) as line:
        with pytest.raises(core.WriteTimeout):
            await line.write(bytes(16 * 2**20), timeout=0.02)
        heard.set()


async def test_closed_it_neither_reads_nor_writes(core: Any) -> None:
    async with connected(core, silent) as line:
        reading = asyncio.create_task(line.read(100))
        await asyncio.sleep(0)
        await line.aclose()
        await line.aclose()
        with pytest.raises(core.ReadError):
            await reading
        with pytest.raises(core.WriteError):
            await line.write(b"kelp")


async def test_tls_is_spoken_and_a_strangers_certificate_refused(core: Any) -> None:
    authority, here = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(here)
    there = ssl.create_default_context()
    authority.configure_trust(there)
    async with connected(core, echo, here) as line:
        await line.start_tls(there, "localhost", timeout=5)
        assert line.get_extra_info("ssl_object").version().startswith("TLS")
        await line.write(b"kelp")
        assert await line.read(100, timeout=5) == b"kelp"
    async with connected(core, echo, here) as line:
        with pytest.raises(core.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            await line.start_tls(ssl.create_default_context(), "localhost", timeout=5)


@pytest.mark.parametrize("library", ["httpx", "httpx2"])
async def test_a_ready_client_reads_so_and_a_transport_that_is_given_does_not(library: str) -> None:
    module = __import__(library)
    given = module.AsyncHTTPTransport()
    make = getattr(mounts, f"{library}_client")
    async with make() as client, make(transport=given) as other:
        assert isinstance(client._transport.inner._pool._network_backend, _Backend)
        assert other._transport.inner is given
        assert not isinstance(given._pool._network_backend, _Backend)
