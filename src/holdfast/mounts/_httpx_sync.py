"""The mount under blocking httpx and httpx2 clients: the asynchronous one, driven in the thread of whoever reads.

Its transport blocks, as the library's for such clients do. It sends in a thread of its own, since a thread that waits
for a head cannot be woken, and is read in the reader's (see `_foreground.py`). Layers of the caller's may want several
things at once, and belong together over all calls: with those, and over an asynchronous transport, it is driven on the
background loop, and a response that blocks is read by a thread of its own while it lasts: a pool could be used up by
streams that wait. Responses that are not relayed come as they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from types import TracebackType
from typing import Any, ClassVar, Self, Unpack
from weakref import WeakSet

from holdfast._background import Background, Pump, Worker, background
from holdfast._errors import StreamError, UsageError
from holdfast._foreground import Foreground, Pull, foreground
from holdfast._types import Request
from holdfast.mounts._attempts import Came
from holdfast.mounts._blocking import BlockingStream, bursts, close_in, done
from holdfast.mounts._httpx import AnyTransport, check_request, check_transport, closed_in_between
from holdfast.mounts._httpx_attempts import HttpxAttempts, Readable
from holdfast.mounts._lines import Sender, hang_up, with_known_lines
from holdfast.mounts._network import with_cheap_reads
from holdfast.mounts._relay import Settings, mount_of
from holdfast.sources.httpx import head_of

_inherited: list[object] = []
"""What a fork has left here. Its connections are the parent's: not even the collector is to touch them."""


class AnySyncTransport:
    """Mends event streams over `inner`, a transport of the caller's, or over one of the library's own.

    `inner` may block, as the library's transports for blocking clients do, or be an asynchronous one. What it does to
    streams, failures and everything else is what the asynchronous mount does. Safe from many threads.
    """

    library: ClassVar[Any]
    asynchronous: ClassVar[Any]
    body: ClassVar[Any]
    attempts: ClassVar[Any]
    upload: ClassVar[Any]

    def __init_subclass__(cls) -> None:
        if "library" in vars(cls):
            blocking, asynchronous = cls.library.SyncByteStream, cls.library.AsyncByteStream
            cls.body = type("PumpedBytes", (PumpedBytes, blocking), {"library": cls.library})
            here = type("BytesHere", (BytesHere, blocking), {"library": cls.library})
            cls.attempts = type("BlockingAttempts", (_BlockingAttempts,), {"here": here})
            cls.upload = type("UploadBytes", (UploadBytes, asynchronous, blocking), {})

    def __init__(self, inner: Any = None, **settings: Unpack[Settings]) -> None:
        if inner is not None:
            check_transport(f"{type(self).__name__}(inner)", inner, "handle_request", "handle_async_request")
        self.mount = mount_of(settings)  # tells bad settings here
        self.fresh: Callable[[], Any] | None = None
        """Makes a transport like `inner` anew, where that is known."""
        if inner is None:
            make = self.library.HTTPTransport if self.mount.runs_anywhere else self.library.AsyncHTTPTransport
            self.fresh = partial(_with_our_reads, make)
            inner = self.fresh()
        self.inner: Any = inner
        self._settings: dict[str, Any] = {**settings, "listeners": self.mount.listeners}
        self._blocks = hasattr(inner, "handle_request")
        self._here = self._blocks and self.mount.runs_anywhere
        self._loop: Background | None = None
        self._bodies: WeakSet[BytesHere] = WeakSet()
        self._transport: AnyTransport = self._made()

    def _made(self) -> AnyTransport:
        made: AnyTransport = self.asynchronous(_Threaded(self) if self._blocks else self.inner, **self._settings)
        if self._blocks:
            made.attempts = self.attempts
        return made

    def handle_request(self, request: Any) -> Any:
        """Sends a request and returns its response once the head is in, the body being still to come."""
        check_request(self, request)
        loop = background()
        if self._loop is not loop:
            if self._loop is not None and self.fresh:
                _inherited.append((self._transport, self.inner))
                self.inner = self.fresh()
                self._transport = self._made()
            self._loop = loop
        if not self._here:
            return loop.call(self._handle(loop, self._asked(request)))
        response = foreground().run(self._transport.handle_async_request(request))
        if isinstance(response.stream, BytesHere):
            self._bodies.add(response.stream)
        return response

    async def _handle(self, loop: Background, request: Any) -> Any:
        response = await self._transport.handle_async_request(request)
        if isinstance(response.stream, self.library.SyncByteStream):  # it is there already, or read by who wants it
            return response
        return self.library.Response(
            response.status_code,
            headers=response.headers.raw,
            stream=self.body(loop, response.stream),
            extensions=response.extensions,
        )

    def _asked(self, request: Any) -> Any:
        """Gives the request as the asynchronous transports want it: the same one, in nearly all cases."""
        if self._blocks:
            return request
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
            self._leave()
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
            self._leave()
            self.inner.__exit__(kind, error, trace)
        else:
            self.close()

    def _leave(self) -> None:
        self._transport.closings += 1
        for body in list(self._bodies):
            body.hang_up()


def _with_our_reads(make: Callable[[], Any]) -> Any:
    made = make()
    return with_known_lines(made) if hasattr(made, "handle_request") else with_cheap_reads(made)


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


class BytesHere:
    """A body that is read in the thread of whoever asks for it."""

    library: ClassVar[Any]

    def __init__(
        self, loop: Foreground, relay: Readable, failure_of: Callable[[StreamError], Exception], begun: bytes = b""
    ) -> None:
        self._pull: Pull[bytes] = Pull(loop, relay.receive, relay.aclose)
        self._failure_of = failure_of
        self._begun = begun
        self._end: Exception | None = None
        self._closed = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        if self._begun:
            begun, self._begun = self._begun, b""
            return begun
        if self._end is not None:
            raise self._end
        try:
            data = self._pull.next()
        except StreamError as error:
            self._end = self._failure_of(error)
        except UsageError:
            if not self._closed:
                raise
            raise closed_in_between(self.library) from None
        else:
            if data is not None:
                return data
            self._end = StopIteration()
        self.close()
        raise self._end

    def close(self) -> None:
        """Gives the connection back, or ends it where the body is not over."""
        self._closed = True
        self._pull.close()

    def hang_up(self) -> None:
        """Wakes the thread that reads."""
        self._pull.interrupt()

    def __del__(self) -> None:
        if hasattr(self, "_pull"):
            self._pull.abandon()


class UploadBytes:
    """A request's body that comes from an iterator which may block."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._stream)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        worker, pieces = Worker(), iter(self._stream)
        try:
            while True:
                taking = worker.submit(partial(next, pieces, None))
                await done(taking)
                if (piece := taking.result()) is None:
                    break
                yield piece
        finally:
            worker.end()


class _Threaded:
    """A transport that blocks, as an asynchronous one: it sends in a thread, and gives its responses as they are."""

    def __init__(self, owner: AnySyncTransport) -> None:
        self._owner = owner

    async def handle_async_request(self, request: Any) -> Any:
        worker, sender = Worker(), Sender()
        sending = worker.submit(partial(self._send, sender, request))
        try:
            await done(sending)
            return sending.result()
        except asyncio.CancelledError:
            sending.add_done_callback(partial(_drop, worker))
            sender.give_up()
            raise
        finally:
            if sending.done():
                worker.end()

    def _send(self, sender: Sender, request: Any) -> Any:
        with sender:
            return self._owner.inner.handle_request(request)

    async def aclose(self) -> None:
        self._owner.inner.close()


def _drop(worker: Worker, sending: Any) -> None:
    """Closes a response that came when nobody waited for it any more."""
    if not sending.cancelled() and sending.exception() is None:
        worker.submit(sending.result().close)
    worker.end()


class _BlockingAttempts(HttpxAttempts):
    """The attempts at one request over a transport that blocks."""

    here: ClassVar[Any]
    """The body that is read in the reader's thread."""

    async def _opened(self, request: Request, at_hand: Any, came: Came[Any]) -> BlockingStream:
        sent, border = self._sent(request, at_hand)
        failure: Exception | None = None
        try:
            response = await self._send(sent, at_hand, came)
        except Exception as error:  # noqa: BLE001 - whatever the library raises is translated
            failure = border.translated(error, headed=False)
        if failure is not None:
            raise failure
        return BlockingStream(
            head_of(response, border.url),
            response,
            read=_reading(response),
            close=response.close,
            hang_up=_hang_up_of(response),
            # A refusal's reader does not wait for all of it, and leaves the rest to be read.
            here=response.status_code < 300,
            translated=partial(border.translated, headed=True),
        )

    def _body(self, readable: Readable, begun: bytes) -> Any:
        loop = asyncio.get_running_loop()
        if not isinstance(loop, Foreground):
            return super()._body(readable, begun)
        return self.here(loop, readable, self._lost, begun)

    async def _drop(self, response: Any) -> None:
        if isinstance(asyncio.get_running_loop(), Foreground):
            response.close()
        else:
            await close_in(Worker(), response.close)


def _reading(response: Any) -> Callable[[], bytes | None]:
    pieces = iter([response.content] if response.is_stream_consumed else response.stream)
    read: Callable[[], bytes | None] = partial(next, pieces, None)
    has_more = getattr(response.extensions.get("network_stream"), "has_more", None)
    return read if has_more is None else bursts(read, has_more)


def _hang_up_of(response: Any) -> Callable[[], object] | None:
    """Gives what ends the reading of a response that has its connection for itself."""
    extensions = response.extensions
    if not extensions.get("http_version", b"").startswith(b"HTTP/1"):
        return None  # others share the connection
    line = getattr(extensions.get("network_stream"), "get_extra_info", lambda _: None)("socket")
    return None if line is None else partial(hang_up, line)


__all__ = ["AnySyncTransport", "BytesHere", "PumpedBytes", "UploadBytes"]
