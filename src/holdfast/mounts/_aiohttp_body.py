"""What an aiohttp caller holds of a relayed response: a body that is pulled, and what stands for its connection.

aiohttp has no public face for a response that outlives its connection. What is used of its inside is `_connection`,
which `close()`, `release()` and the collector go to, `_writer`, which leaving `async with` waits for, and the one place
where a `StreamReader` waits for data, `_wait()`.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any
from weakref import ref

import aiohttp
from multidict import CIMultiDict, CIMultiDictProxy

from holdfast._errors import DeadlineExceeded, StreamError, UsageError
from holdfast.mounts._failures import story
from holdfast.mounts._relay import EXTENSION, Relay

Current = Callable[[], aiohttp.ClientResponse | None]
"""Gives the response of the attempt now being read."""
_open: set[_Line] = set()
"""The answers that are being read: held here, so that a response which nobody closed is collected before its answer."""


def relayed_response(
    first: aiohttp.ClientResponse, relay: Relay, current: Current, timer: Any
) -> aiohttp.ClientResponse:
    """Gives a copy of the first response, over a connection and a body that are all attempts'.

    `timer` is that of the session's total timeout.
    """
    told = copy.copy(first)
    line = _Line(relay, current, told)
    headers = CIMultiDict(first.headers)
    headers.popall("Content-Length", None)  # with a seam in it, the body may have another
    vars(told).update(
        content=_Content(line, first, timer),
        extensions={EXTENSION: relay.reader.report},
        _connection=line,
        _closed=False,
        _released=False,
        _headers=CIMultiDictProxy(headers),
        _cache={},
    )
    told._writer = None  # noqa: SLF001 - the first response's own: to give back a connection is to wait for it
    # Not the method itself: an exception that the pipe keeps holds the frames that read, and those hold the body.
    told.content.on_eof(partial(_ended, ref(told)))
    return told


def _ended(response: ref[aiohttp.ClientResponse]) -> None:
    if (told := response()) is not None:
        told._response_eof()  # noqa: SLF001 - what aiohttp calls at the end of its own bodies


class _Protocol:
    """Stands for the connection where a `StreamReader` would hold it back: ours is read when it is asked."""

    connected = True
    _reading_paused = False

    def pause_reading(self) -> None:
        pass

    def resume_reading(self, *, resume_parser: bool = True) -> None:
        pass


class PulledBody(aiohttp.StreamReader):
    """A body that is fetched when its reader has nothing left, and never before."""

    def __init__(self, pull: Callable[[], Awaitable[bytes]], like: aiohttp.StreamReader, timer: Any = None) -> None:
        protocol: Any = _Protocol()
        limit, _ = like.get_read_buffer_limits() if hasattr(like, "_low_water") else (2**16, 0)
        super().__init__(protocol, limit, timer=timer, loop=asyncio.get_running_loop())
        self._pull = pull
        self._pulling = False
        self._in_chunks = False

    async def _wait(self, func_name: str) -> None:
        if self._pulling:
            raise RuntimeError(f"{func_name}() called while another coroutine is already waiting for incoming data")
        self._pulling = True
        try:
            with self._timer:
                data = await self._pull()
        finally:
            self._pulling = False
        if not data:
            self.feed_eof()
            return
        self.feed_data(data)
        if self._in_chunks:
            self.end_http_chunk_receiving()

    async def wait_eof(self) -> None:
        """Waits for the end, reading no more ahead than a connection would."""
        limit = self.get_read_buffer_limits()[1]
        while not self._eof and self._size <= limit:
            await self._wait("wait_eof")
        await super().wait_eof()


class _Content(PulledBody):
    """The body of a response that is relayed."""

    def __init__(self, line: _Line, first: aiohttp.ClientResponse, timer: Any) -> None:
        super().__init__(self._next, first.content, timer)
        self._line = line
        if "chunked" in first.headers.get("Transfer-Encoding", "").lower():
            self._in_chunks = True  # who reads iter_chunks() waits for the ends of chunks
            self.begin_http_chunk_receiving()

    async def _next(self) -> bytes:
        try:
            data = await self._line.receive()
        except UsageError:
            if self._exception is not None:  # somebody else closed the response, as it says
                raise self._exception from None
            raise
        except StreamError as failure:
            kind = aiohttp.SocketTimeoutError if isinstance(failure, DeadlineExceeded) else aiohttp.ClientPayloadError
            lost = kind(story(failure))
            lost.__cause__ = failure
            self.set_exception(lost)
        else:
            if data:
                return data
        await self._line.finish()
        if self._exception is not None:
            raise self._exception
        return b""


class _Line:
    """Stands as the connection of the response that the caller holds, over all attempts."""

    __slots__ = (
        "__weakref__",
        "_callbacks",
        "_current",
        "_loop",
        "_over",
        "_relay",
        "_response",
        "receive",
    )

    def __init__(self, relay: Relay, current: Current, response: aiohttp.ClientResponse) -> None:
        self.receive = relay.receive
        self._relay = relay
        self._current = current
        self._response = ref(response)
        self._loop = asyncio.get_running_loop()
        self._callbacks: list[Callable[[], None]] = []
        self._over = False
        _open.add(self)

    @property
    def protocol(self) -> Any:
        """That of the attempt now being read."""
        response = self._current()
        connection = response and response.connection
        return connection and connection.protocol

    @property
    def transport(self) -> Any:
        """That of the attempt now being read."""
        return self.protocol and self.protocol.transport

    @property
    def closed(self) -> bool:
        """True once there is nothing left to read."""
        return self._over

    def add_callback(self, callback: Callable[[], None]) -> None:
        """Calls back when the last attempt is over: the session's total timeout ends there."""
        self._callbacks.append(callback)

    async def finish(self) -> None:
        """Ends the answer where it is over: its connection goes back to the pool."""
        try:
            await self._relay.aclose()
        finally:
            self._over = True
            _open.discard(self)

    def release(self) -> None:
        """Gives the answer up where it is not over: a connection with half a body on it cannot be used again."""
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()
        if self._over:
            return
        self._over = True
        if self._loop.is_closed():
            _open.discard(self)
        elif _runs_here(self._loop):
            self._close()
        else:  # the collector comes when and where it likes
            self._loop.call_soon_threadsafe(self._close)

    close = release

    def _close(self) -> None:
        closed = _Closed(loop=self._loop)
        response = self._response()
        if response is not None:
            response._writer = closed  # type: ignore[assignment]  # noqa: SLF001 - leaving `async with` waits for it
        task = self._loop.create_task(self._relay.aclose(), name="holdfast-close")
        task.add_done_callback(partial(self._closed, closed))

    def _closed(self, closed: _Closed, task: asyncio.Task[None]) -> None:
        _open.discard(self)
        if not task.cancelled():
            task.exception()  # else asyncio complains that nobody asked for it
        closed.set_result(None)


class _Closed(asyncio.Future[None]):
    """That the last attempt is closed. Responses cancel whatever they wait for; closing goes on."""

    def cancel(self, msg: Any = None) -> bool:
        """Does nothing."""
        return False


def _runs_here(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


__all__ = ["PulledBody", "relayed_response"]
