"""The mount under blocking httpx and httpx2 clients: the asynchronous one, driven on the background loop.

Without a transport of the caller's, everything happens in that loop. One of his that blocks is called in threads, a
thread for each response while it lasts: a pool could be used up by streams that wait. Responses that are not relayed
come from his transport as they are, and are read in the caller's own thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from types import TracebackType
from typing import Any, ClassVar, Self, Unpack

from holdfast._background import Background, Pump, Worker, background
from holdfast._errors import UsageError
from holdfast.mounts._httpx import AnyTransport, check_request, check_transport, closed_in_between
from holdfast.mounts._relay import Settings, mount_of

_inherited: list[object] = []
"""What a fork has left here. Its connections are the parent's: not even the collector is to touch them."""
_CLOSING_SECONDS = 1.0
"""How long closing waits for a transport that blocks to let go."""


class AnySyncTransport:
    """Mends event streams over `inner`, a transport of the caller's, or over one of the library's own.

    `inner` may block, as the library's transports for blocking clients do, or be an asynchronous one. What it does to
    streams, failures and everything else is what the asynchronous mount does. Safe from many threads.
    """

    library: ClassVar[Any]
    asynchronous: ClassVar[Any]
    body: ClassVar[Any]
    blocking_body: ClassVar[Any]
    upload: ClassVar[Any]

    def __init_subclass__(cls) -> None:
        if "library" in vars(cls):
            blocking, asynchronous = cls.library.SyncByteStream, cls.library.AsyncByteStream
            cls.body = type("PumpedBytes", (PumpedBytes, blocking), {"library": cls.library})
            cls.blocking_body = type("BlockingBytes", (BlockingBytes, asynchronous), {})
            cls.upload = type("UploadBytes", (UploadBytes, asynchronous, blocking), {})

    def __init__(self, inner: Any = None, **settings: Unpack[Settings]) -> None:
        if inner is not None:
            check_transport(f"{type(self).__name__}(inner)", inner, "handle_request", "handle_async_request")
        self.mount = mount_of(settings)  # tells bad settings here
        self.inner: Any = inner
        self._settings: dict[str, Any] = {**settings, "listeners": self.mount.listeners}
        self._blocks = hasattr(inner, "handle_request")
        self._loop: Background | None = None
        self.fresh: Callable[[], Any] | None = None
        """Makes an asynchronous transport like `inner` anew, where that is known."""
        self._transport: AnyTransport = self._made(inner)

    def _made(self, inner: Any) -> AnyTransport:
        inner = _Threaded(self) if self._blocks else inner
        made: AnyTransport = self.asynchronous(inner, **self._settings)
        return made

    def handle_request(self, request: Any) -> Any:
        """Sends a request and returns its response once the head is in, the body being still to come."""
        check_request(self, request)
        loop = background()
        if self._loop is not loop:
            if self._loop is not None and (self.inner is None or self.fresh):
                _inherited.append(self._transport)
                self._transport = self._made(self.fresh() if self.fresh else None)
            self._loop = loop
        return loop.call(self._handle(loop, self._asked(request)))

    async def _handle(self, loop: Background, request: Any) -> Any:
        response = await self._transport.handle_async_request(request)
        if isinstance(response.stream, BlockingBytes):
            return response.stream.given_back()
        if isinstance(response.stream, self.library.SyncByteStream):  # it is there already
            return response
        return self.library.Response(
            response.status_code,
            headers=response.headers.raw,
            stream=self.body(loop, response.stream),
            extensions=response.extensions,
        )

    def _asked(self, request: Any) -> Any:
        """Gives the request as the asynchronous transports want it: the same one, in nearly all cases."""
        stream, trace = request.stream, request.extensions.get("trace")
        if hasattr(stream, "__aiter__") and trace is None:
            return request
        if not hasattr(stream, "__aiter__"):
            stream = self.upload(stream)
        extensions = dict(request.extensions)
        if trace is not None:
            extensions["trace"] = partial(_traced, trace)
        return self.library.Request(
            request.method, request.url, headers=request.headers.raw, stream=stream, extensions=extensions
        )

    def close(self) -> None:
        """Closes the inner transport; what is being read of it ends where it is."""
        if self._blocks:
            self._transport.closings += 1
            self.inner.close()
        elif self._loop is not None and self._loop is background():
            self._loop.call(self._transport.aclose())

    def __enter__(self) -> Self:
        if self._blocks:
            self.inner.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        if self._blocks:
            self._transport.closings += 1
            self.inner.__exit__(kind, error, trace)
        else:
            self.close()


async def _traced(trace: Any, event: str, info: Any) -> None:
    trace(event, info)


class PumpedBytes:
    """A body that is read in the background loop, for a client that blocks."""

    library: ClassVar[Any]

    def __init__(self, loop: Background, stream: Any) -> None:
        body = aiter(stream)

        async def read() -> bytes | None:
            async for piece in body:
                if piece:
                    return bytes(piece)
            return None

        self._closed = False
        self._pump: Pump[bytes] = Pump(loop, read, stream.aclose)
        self._pump.start()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        try:
            piece = self._pump.next()
        except UsageError:
            if not self._closed:
                raise
            raise closed_in_between(self.library) from None
        if piece is None:
            self.close()
            raise StopIteration
        return piece

    def close(self) -> None:
        """Gives the connection back, or ends it where the body is not over."""
        self._closed = True
        self._pump.close()

    def __del__(self) -> None:
        if hasattr(self, "_pump"):
            self._pump.abandon()


class UploadBytes:
    """A request's body that comes from an iterator which may block."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._stream)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        worker, pieces = Worker(), iter(self._stream)
        try:
            while (piece := await _outcome(worker.submit(partial(next, pieces, None)))) is not None:
                yield piece
        finally:
            worker.end()


class _Threaded:
    """A transport that blocks, as an asynchronous one."""

    def __init__(self, owner: AnySyncTransport) -> None:
        self._owner = owner

    async def handle_async_request(self, request: Any) -> Any:
        owner, worker = self._owner, Worker()
        extensions = {name: value for name, value in request.extensions.items() if name != "trace"}
        sent = owner.library.Request(
            request.method, request.url, headers=request.headers.raw, stream=request.stream, extensions=extensions
        )
        sending = worker.submit(partial(owner.inner.handle_request, sent))
        try:
            response = await _outcome(sending)
        except asyncio.CancelledError:
            sending.add_done_callback(partial(_drop, worker))
            raise
        except BaseException:
            worker.end()
            raise
        if response.is_stream_consumed:
            worker.end()
            return response
        return owner.library.Response(
            response.status_code,
            headers=response.headers.raw,
            stream=owner.blocking_body(response, worker),
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        self._owner.inner.close()


async def _outcome(job: Any) -> Any:
    """Waits for a worker. Cancelled, it leaves him alone, and what comes of it is nobody's business any more."""
    over = asyncio.Event()
    loop = asyncio.get_running_loop()

    def tell(_: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is gone
            loop.call_soon_threadsafe(over.set)

    job.add_done_callback(tell)
    await over.wait()
    return job.result()


def _drop(worker: Worker, sending: Any) -> None:
    """Closes a response that came when nobody waited for it any more."""
    if not sending.cancelled() and sending.exception() is None:
        worker.submit(sending.result().close)
    worker.end()


class BlockingBytes:
    """The body of a response that is read by blocking calls, in a thread of its own."""

    def __init__(self, response: Any, worker: Worker) -> None:
        self._response = response
        self._worker: Worker | None = worker
        self._pieces: Iterator[bytes] | None = None
        self._reading: Any = None

    def given_back(self) -> Any:
        """Gives the response itself, to somebody who may block."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.end()
        return self._response

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._worker is None:
            raise StopAsyncIteration
        if self._pieces is None:
            self._pieces = iter(self._response.stream)
        self._reading = self._worker.submit(partial(next, self._pieces, None))
        piece: bytes | None = await _outcome(self._reading)
        if piece is None:
            raise StopAsyncIteration
        return piece

    async def aclose(self) -> None:
        worker, self._worker = self._worker, None
        if worker is None:
            return
        if self._reading is not None and not self._reading.done():
            self._hang_up()
        closing = worker.submit(self._response.close)
        worker.end()
        with contextlib.suppress(Exception):  # the answer is whole or has failed already
            async with asyncio.timeout(_CLOSING_SECONDS):
                await _outcome(closing)

    def _hang_up(self) -> None:
        """Wakes the thread that waits for the network: closing a socket would not."""
        extensions = self._response.extensions
        if not extensions.get("http_version", b"").startswith(b"HTTP/1"):
            return  # others share the connection
        line = getattr(extensions.get("network_stream"), "get_extra_info", lambda _: None)("socket")
        if line is not None:
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)


__all__ = ["AnySyncTransport", "BlockingBytes", "PumpedBytes", "UploadBytes"]
