"""Holdfast inside an `aiohttp.ClientSession`, as a client middleware.

The caller gets a copy of the first response whose body is ours: it is read from the pipe, which calls the rest of the
session's middlewares again for each further attempt. There is no task between: who reads the body drives the pipe, so
back-pressure, cancelling and the session's timeouts are aiohttp's own. Closing the response reaches whatever attempt
is current. What is no stream of events passes untouched.

aiohttp has no public face for a response that outlives its connection. What is used of its inside is `_connection`,
which `close()`, `release()` and the collector go to, `_writer`, which leaving `async with` waits for, and the one place
where a `StreamReader` waits for data, `_wait()`.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import io
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Unpack
from weakref import ref

import aiohttp
from aiohttp.hdrs import ACCEPT_ENCODING
from aiohttp.helpers import TimerNoop
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from holdfast._core import Call, Source, Stream
from holdfast._errors import (
    BudgetExhausted,
    DeadlineExceeded,
    EndOfStream,
    StatusError,
    StreamBroken,
    StreamError,
    UsageError,
)
from holdfast._types import Head, Request
from holdfast.machines.statuses import status_error
from holdfast.moments import Report
from holdfast.mounts._failures import story
from holdfast.mounts._policy import IDEMPOTENT, Policy, document, is_stream
from holdfast.mounts._relay import EXTENSION, Mount, Relay, Settings
from holdfast.sources._foreign import ForeignError
from holdfast.sources._http import ERROR_BODY_SECONDS, MAX_ERROR_BODY, encode, where
from holdfast.sources.aiohttp import ResponseStream, before_head, drop, head_of

_LARGE_BODY = 512 * 1024  # bytes; see sources/aiohttp.py
_open: set[_Line] = set()
"""The answers that are being read: held here, so that a response which nobody closed is collected before its answer."""


def aiohttp_middleware(**settings: Unpack[Settings]) -> aiohttp.ClientMiddlewareType:
    """Gives a middleware for `aiohttp.ClientSession(middlewares=[...])`, which mends streams of events under it.

    An answer that breaks is retried or resumed, and reads as one whole stream; where nothing helps, reading raises
    `aiohttp.ClientPayloadError` (`SocketTimeoutError` where a clock ran out), ours being its cause. Everything else is
    aiohttp's own response, but for this: a request that may be repeated is, before a head has come, as the layers say.
    The keywords are those of all mounts. Middlewares behind it see every attempt.
    """
    mount = Mount(**settings)

    async def holdfast(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        if "Upgrade" in request.headers or request.method == "CONNECT":
            return await handler(request)
        body = request.body
        replayable = not body or (isinstance(body, aiohttp.BytesPayload) and "Expect" not in request.headers)
        content = await body.as_bytes() if body and replayable else None
        attempts = _Attempts(mount, request, handler, content, replayable=replayable)
        if attempts.policy.repeatable and attempts.policy.asks:
            return await _relayed(mount, attempts)
        if attempts.policy.repeatable and mount.retries:
            response = await _tried(mount, attempts)
        else:
            response = await handler(request)
        if not is_stream(request.method, response.status, response.content_type) or attempts.packed(response):
            return response
        attempts.at_hand = response
        return await _relayed(mount, attempts)

    return holdfast


async def _tried(mount: Mount, attempts: _Attempts) -> aiohttp.ClientResponse:
    """Sends what asks for no stream, with the tries that the policy has for it."""
    source: Source[bytes] = attempts
    for layer in mount.retries:
        source = layer(source)
    call = Call(clock=mount.clock, random=mount.random, max_requests=mount.max_requests)
    try:
        await source.open(replace(attempts.asked, call=call))
    except (StreamError, UsageError) as failure:
        return attempts.instead(failure, call.report)
    except BaseException:
        attempts.drop()
        raise
    return attempts.given_away()


async def _relayed(mount: Mount, attempts: _Attempts) -> aiohttp.ClientResponse:
    """Opens the pipe, and gives what the caller shall read."""
    relay = mount.relay(attempts, attempts.asked)
    try:
        await relay.open()
    except (StreamError, UsageError) as failure:
        return attempts.instead(failure, relay.reader.report)
    except BaseException:
        attempts.drop()
        raise
    first = attempts.first
    if first is not None:
        return _told_on(first, relay, attempts)
    try:
        await relay.aclose()
    except BaseException:
        attempts.drop()
        raise
    return attempts.given_away()


def _told_on(first: aiohttp.ClientResponse, relay: Relay, attempts: _Attempts) -> aiohttp.ClientResponse:
    """Gives a copy of the first response, over a connection and a body that are all attempts'."""
    told = copy.copy(first)
    line = _Line(relay, attempts, told)
    headers = CIMultiDict(first.headers)
    headers.popall("Content-Length", None)  # with a seam in it, the body may have another
    vars(told).update(
        content=_Content(line, first, attempts.timer),
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


class _Attempts:
    """What one request of the caller's becomes: as many as it takes. A `Source[bytes]`."""

    __slots__ = (
        "_handler",
        "_mode",
        "_request",
        "asked",
        "at_hand",
        "current",
        "error",
        "first",
        "passed",
        "policy",
        "refused",
        "timer",
    )
    gives: ClassVar[type] = bytes

    def __init__(
        self,
        mount: Mount,
        request: aiohttp.ClientRequest,
        handler: aiohttp.ClientHandlerType,
        content: bytes | None,
        *,
        replayable: bool,
    ) -> None:
        self._handler = handler
        self._request = request
        self.timer: Any = getattr(request, "_timer", None)
        """The session's total timeout."""
        self.asked = Request(
            url=str(request.url), method=request.method, headers=dict(request.headers), body=document(content)
        )
        self.policy = Policy.of(self.asked, mount, replayable=replayable)
        self.at_hand: aiohttp.ClientResponse | None = None
        """A stream that has come already."""
        self.first: aiohttp.ClientResponse | None = None
        """The first response of which the pipe made a stream."""
        self.current: aiohttp.ClientResponse | None = None
        self.passed: aiohttp.ClientResponse | None = None
        """A response that is none of ours."""
        self.refused: aiohttp.ClientResponse | None = None
        self.error: Exception | None = None
        """What aiohttp raised at the last attempt."""

    # -- as a source -----------------------------------------------------------------------------

    async def open(self, request: Request) -> Stream[bytes]:
        """Sends, or takes what is there already. A response that is none of ours is left in `passed`."""
        response, self.at_hand = self.at_hand, None
        ours = response is not None or self.first is not None
        if response is None:
            self._refuse(request)
            self.drop()
            response = await self._send(request)
        try:
            return await self._judged(response, request, ours=ours)
        except BaseException:
            if response is not self.refused:
                drop(response)
            raise

    def _refuse(self, request: Request) -> None:
        """What must not happen twice is sent once: a later request has to be another, or one that does no harm."""
        if self.first is None or self.policy.repeatable:
            return
        if request.method not in IDEMPOTENT or request.body is not None:
            raise BudgetExhausted(f"this {request.method} was sent, and nothing says that it may be sent again")

    async def _send(self, request: Request) -> aiohttp.ClientResponse:
        self.error = None
        try:
            return await self._handler(await self._made(request))
        except (aiohttp.ClientError, OSError) as error:
            if isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ClientError):
                raise  # the session's total timeout: it is over the whole call
            self.error = error
            failure = before_head(error, request.url)
        raise failure

    async def _judged(self, response: aiohttp.ClientResponse, request: Request, *, ours: bool) -> Stream[bytes]:
        head = head_of(response)
        if not 200 <= head.status < 300:
            error = status_error(head, await _explanation(response), request.call.clock.wall())
            if not ours:
                self.refused = response
            raise error
        if not ours and not (self.policy.takes(head.content_type) and not self.packed(response)):
            self.passed = response
            return _Nothing(head)
        self.first = self.first or response
        self.current = response
        return _Attempt(ResponseStream(response, where(request.url), self), head)

    def packed(self, response: aiohttp.ClientResponse) -> bool:
        """Says whether a body comes in a coding that its reader wants to undo."""
        coding = response.headers.get("Content-Encoding", "identity").lower()
        return coding != "identity" and not self._request.session.auto_decompress

    # -- requests ----------------------------------------------------------------------------------

    async def _made(self, request: Request) -> aiohttp.ClientRequest:
        """Makes the request to send: the caller's own with what the layers have changed."""
        asked = self.asked
        made = copy.copy(self._request)
        made.headers = CIMultiDict(self._request.headers)
        # It goes out from a task of the pipe, too, and aiohttp's timer keeps account of one task alone.
        made._timer = TimerNoop()  # noqa: SLF001
        made.method = request.method
        if request.url != asked.url:
            made.url = made.original_url = URL(request.url, encoded=True)
        for name, value in request.headers.items():
            if asked.headers.get(name) != value:
                made.headers[name] = value
        if self.policy.asks and made.headers.get(ACCEPT_ENCODING) == made.DEFAULT_HEADERS[ACCEPT_ENCODING]:
            made.headers[ACCEPT_ENCODING] = "identity"  # proxies that compress a stream hold tokens back to do so
        if request.body is not asked.body:
            await _rewrite(made, request.body)
        return made

    # -- what is not relayed -----------------------------------------------------------------------

    def given_away(self) -> aiohttp.ClientResponse:
        """Gives the response that is none of ours."""
        response, self.passed = self.passed, None
        if response is None:
            raise AssertionError("what is no stream is passed on")
        return response

    def instead(self, failure: StreamError | UsageError, report: Report) -> aiohttp.ClientResponse:
        """Gives the response that refused, or raises what aiohttp's users catch."""
        refused, self.refused = self.refused, None
        if refused is not None and isinstance(failure, StatusError):
            vars(refused)["extensions"] = {EXTENSION: report}
            return refused
        if refused is not None:
            drop(refused)
        if self.error is not None and not self._would_go_out_again(self.error):
            self.error.add_note(str(failure) if isinstance(failure, UsageError) else story(failure))
            raise self.error from failure
        if isinstance(failure, UsageError):
            raise failure
        kind = aiohttp.ServerTimeoutError if isinstance(failure, DeadlineExceeded) else aiohttp.ClientConnectionError
        raise kind(story(failure)) from failure

    def _would_go_out_again(self, error: Exception) -> bool:
        """A session itself sends an idempotent request once more after these: all our tries would be had twice."""
        if isinstance(error, aiohttp.ClientConnectorError) or self.asked.method not in IDEMPOTENT:
            return False
        return isinstance(error, aiohttp.ClientOSError | aiohttp.ServerDisconnectedError)

    def drop(self) -> None:
        """Closes what nobody was given."""
        for response in (self.refused, self.passed, self.at_hand):
            if response is not None:
                drop(response)
        self.refused = self.passed = self.at_hand = None


async def _rewrite(made: aiohttp.ClientRequest, body: Mapping[str, Any] | bytes | None) -> None:
    data = encode(body) if isinstance(body, Mapping) else body
    if data is None:
        made.headers.popall("Content-Type", None)
    await made.update_body(io.BytesIO(data) if data is not None and len(data) > _LARGE_BODY else data)


async def _explanation(response: aiohttp.ClientResponse) -> bytes:
    """Reads the beginning of a body that tells why, and leaves it to be read again."""
    body, content = bytearray(), response.content
    with contextlib.suppress(aiohttp.ClientError, OSError):  # its reader will meet that, too
        async with asyncio.timeout(ERROR_BODY_SECONDS):
            while len(body) < MAX_ERROR_BODY and (piece := await content.readany()):
                body += piece
    pieces = [bytes(body)]

    async def again() -> bytes:
        return pieces.pop() if pieces and pieces[0] else await content.readany()

    response.content = _Pulled(again, content)
    return bytes(body[:MAX_ERROR_BODY])


@dataclass(slots=True)
class _Nothing:
    """Stands for a response that is none of ours."""

    head: Head

    async def receive(self) -> Sequence[bytes]:
        raise EndOfStream

    async def aclose(self) -> None:
        pass


@dataclass(slots=True)
class _Attempt:
    inner: ResponseStream
    head: Head

    async def receive(self) -> Sequence[bytes]:
        try:
            return await self.inner.receive()
        except StreamBroken as failure:
            cause = failure.__cause__
            if isinstance(cause, ForeignError) and cause.kind == "TimeoutError" and cause.errno is None:
                raise TimeoutError from failure  # the session's total timeout: no other attempt has more of it
            raise

    async def aclose(self) -> None:
        await self.inner.aclose()


# -- what the caller holds -----------------------------------------------------------------------


class _Protocol:
    """Stands for the connection where a `StreamReader` would hold it back: ours is read when it is asked."""

    connected = True
    _reading_paused = False

    def pause_reading(self) -> None:
        pass

    def resume_reading(self, *, resume_parser: bool = True) -> None:
        pass


class _Pulled(aiohttp.StreamReader):
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


class _Content(_Pulled):
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
        "_attempts",
        "_callbacks",
        "_loop",
        "_over",
        "_relay",
        "_response",
        "receive",
    )

    def __init__(self, relay: Relay, attempts: _Attempts, response: aiohttp.ClientResponse) -> None:
        self.receive = relay.receive
        self._relay = relay
        self._attempts = attempts
        self._response = ref(response)
        self._loop = asyncio.get_running_loop()
        self._callbacks: list[Callable[[], None]] = []
        self._over = False
        _open.add(self)

    @property
    def protocol(self) -> Any:
        """That of the attempt now being read."""
        connection = self._attempts.current and self._attempts.current.connection
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


__all__ = ["aiohttp_middleware"]
