"""Cheaper reading for the transports that a mount makes for itself.

httpcore reads through anyio, which puts a scope and a timer around each read, and stops and starts the reading with two
system calls: half of what an event costs where events come one at a time. Here data is taken as asyncio hands it over,
up to a bound, and one timer serves all reads. Connecting is left to anyio, and a transport that somebody else made is
never touched.

There is no public way in. Where httpx, httpcore or anyio is not as expected inside, all stays as it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections import deque
from collections.abc import Iterator
from ssl import SSLContext
from typing import Any

_HIGH, _LOW = 128 * 1024, 32 * 1024
"""Bytes that nobody has read, at which receiving stops, and goes on again."""


def with_cheap_reads(transport: Any) -> Any:
    """Gives an `AsyncHTTPTransport`, which must not have connected yet, after a change of how it will read."""
    pool = getattr(transport, "_pool", None)
    backend = getattr(pool, "_network_backend", None)
    if pool is not None and backend is not None:
        pool._network_backend = _Backend(backend, sys.modules[type(pool).__module__.partition(".")[0]])  # noqa: SLF001
    return transport


class _Backend:
    """A backend of httpcore's, with other connections. `core` is httpcore, or what stands in its place under httpx2."""

    def __init__(self, inner: Any, core: Any) -> None:
        self._inner = inner
        self._core = core

    async def connect_tcp(self, *args: Any, **settings: Any) -> Any:
        """Connects to a host."""
        return self._taken_over(await self._inner.connect_tcp(*args, **settings))

    async def connect_unix_socket(self, *args: Any, **settings: Any) -> Any:
        """Connects to a socket in the file system."""
        return self._taken_over(await self._inner.connect_unix_socket(*args, **settings))

    def _taken_over(self, stream: Any) -> Any:
        socket_stream = getattr(stream, "_stream", None)
        transport = getattr(socket_stream, "_transport", None)
        protocol = getattr(socket_stream, "_protocol", None)
        if isinstance(transport, asyncio.Transport) and not getattr(protocol, "read_queue", True):
            return _Connection(self._core, transport, stream)
        return stream

    async def sleep(self, seconds: float) -> None:
        """Waits."""
        await asyncio.sleep(seconds)


@contextlib.contextmanager
def _translated(timeout: type[Exception], lost: type[Exception]) -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise timeout(str(error)) from error
    except OSError as error:
        raise lost(str(error)) from error


class _Connection(asyncio.Protocol):
    """One connection: asyncio's protocol below, and above what httpcore calls a network stream."""

    def __init__(self, core: Any, transport: asyncio.Transport, stream: Any) -> None:
        self._core = core
        self._stream = stream
        self._loop = asyncio.get_running_loop()
        self._transport: Any = transport
        self._tls = False
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._held_back = False
        self._over = transport.is_closing()
        """Nothing more will come."""
        self._lost: Exception | None = None
        self._closed = False
        self._waiter: asyncio.Future[None] | None = None
        self._until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._drained: asyncio.Future[None] | None = None
        """Set while what was written waits to go out."""
        transport.set_protocol(self)
        if not self._over:
            transport.resume_reading()  # anyio has stopped it

    # -- what asyncio calls ----------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self._pieces.append(data)
        self._size += len(data)
        if self._size > _HIGH and not self._held_back:
            self._held_back = True
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        self._over = True
        self._wake()
        return not self._tls  # what is still to be sent may go out; TLS knows no half of a connection

    def connection_lost(self, exc: Exception | None) -> None:
        self._over, self._lost = True, exc
        self._wake()
        self.resume_writing()
        if self._timer is not None:
            self._timer.cancel()

    def pause_writing(self) -> None:
        self._drained = self._loop.create_future()

    def resume_writing(self) -> None:
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # -- what httpcore calls ---------------------------------------------------------------------

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Returns what has come, nothing at the end. Cancelled, it loses nothing."""
        while not self._pieces:
            if self._closed:
                raise self._core.ReadError("the connection was closed")
            if self._lost is not None:
                raise self._core.ReadError(str(self._lost)) from self._lost
            if self._over:
                return b""
            await self._news(timeout)
        piece = self._pieces.popleft()
        if len(piece) > max_bytes:
            self._pieces.appendleft(piece[max_bytes:])
            piece = piece[:max_bytes]
        self._size -= len(piece)
        if self._held_back and self._size <= _LOW and not self._over:
            self._held_back = False
            self._transport.resume_reading()
        return piece

    async def _news(self, timeout: float | None) -> None:
        self._waiter = self._loop.create_future()
        if timeout is not None:
            self._until = self._loop.time() + timeout
            if self._timer is None or self._timer.when() > self._until:
                self._start()
        else:
            self._until = float("inf")
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _start(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._until, self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self._waiter is None or self._until == float("inf"):
            return  # the next read that has a timeout starts another
        if self._loop.time() < self._until:
            self._start()
        elif not self._waiter.done():
            self._waiter.set_exception(self._core.ReadTimeout())

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Sends, and waits where too much is on its way."""
        if not buffer:
            return
        if self._closed or self._transport.is_closing():
            raise self._core.WriteError("the connection was closed") from self._lost
        self._transport.write(buffer)
        if self._drained is not None:
            with _translated(self._core.WriteTimeout, self._core.WriteError):
                async with asyncio.timeout(timeout):
                    await asyncio.shield(self._drained)
            if self._lost is not None:
                raise self._core.WriteError(str(self._lost)) from self._lost

    async def start_tls(
        self, ssl_context: SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> _Connection:
        """Goes on in TLS."""
        plain, self._tls = self._transport, True
        try:
            with _translated(self._core.ConnectTimeout, self._core.ConnectError):
                async with asyncio.timeout(timeout):
                    self._transport = await self._loop.start_tls(
                        plain, self, ssl_context, server_hostname=server_hostname
                    )
        except BaseException:
            self._closed = True
            _abort(plain)
            raise
        if self._transport is None:  # Python 3.11 says so where the connection was lost meanwhile
            raise self._core.ConnectError("the connection was lost")
        return self

    async def aclose(self) -> None:
        """Closes at once: no goodbye is waited for."""
        if not self._closed:
            self._closed = True
            self._wake()
            self._transport.close()
            try:
                await asyncio.sleep(0)
            finally:
                _abort(self._transport)

    def get_extra_info(self, info: str) -> Any:
        """Tells what httpcore may ask."""
        if info == "is_readable":  # an idle connection that has something to say is at its end
            # The loop may not have looked yet, so the socket is asked, too.
            return self._closed or self._over or bool(self._pieces) or self._stream.get_extra_info(info)
        return self._transport.get_extra_info({"client_addr": "sockname", "server_addr": "peername"}.get(info, info))


def _abort(transport: asyncio.Transport) -> None:
    with contextlib.suppress(AttributeError):  # CPython 3.11.2: TLS that has been lost already has nobody to tell
        transport.abort()


__all__ = ["with_cheap_reads"]
