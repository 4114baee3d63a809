"""The default source of bytes: one HTTP request over aiohttp.

It sends, reads what is ready and translates what goes wrong. It never retries, never follows a redirect (a 307 would
take body and key to whatever address the server names) and never lets a session's timeouts cut a stream: clocks are
layers. aiohttp's own inflater ends a truncated gzip body cleanly, so bodies are inflated here. Messages name hosts and
causes, never headers or bodies.

What cannot be had from aiohttp: head and data that came in the very read in which its parser meets broken framing. It
raises without giving either, so such an answer counts as one whose head never came.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import ssl
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from functools import partial
from types import NoneType, TracebackType
from typing import Any, ClassVar, Self
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass
from weakref import WeakSet

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from holdfast._errors import ConnectError, EndOfStream, StreamBroken, StreamError, UsageError
from holdfast._types import Head, Request
from holdfast.machines.inflate import inflater
from holdfast.machines.settings import check_kind, check_seconds
from holdfast.machines.statuses import RETRYABLE, status_error
from holdfast.sources._foreign import ForeignError
from holdfast.sources._http import (
    CONNECT_SECONDS,
    MAX_ERROR_BODY,
    Unpacking,
    cause,
    close_with_loop,
    encode,
    read_refusal,
    where,
)

_LARGE_BODY = 512 * 1024  # bytes
_MAX_HEADER = 64 * 1024  # bytes of one header line; policies that proxies add pass aiohttp's 8,190


class AiohttpSource:
    """Sends requests with aiohttp. A `Source[bytes]`; each batch is one bytes object.

    Without `session` it owns one, made at the first request and closed by `aclose()` or `async with`, or when the event
    loop shuts down (the next one gets a new session): keep-alive, no limit of connections, no cookies, proxies from
    the environment where `trust_env` says so.

    A borrowed session is used as it is, except that its timeouts and its `raise_for_status` do not apply; it is never
    closed. Two things are then its owner's: connections that died in its pool are met one by one, and a GET whose
    connection dies is sent once more by aiohttp itself, uncounted.

    `connect_timeout` is seconds. `accept_encoding` is `identity` because proxies that compress a stream hold tokens
    back to do so. `max_error_body` bounds, in bytes, what is read of a refused request's body.

    A body that is a mapping is sent as JSON. Bytes are sent as they are: their Content-Type is the caller's to give.
    """

    gives: ClassVar[type] = bytes

    def __init__(
        self,
        session: aiohttp.ClientSession | None = None,
        *,
        connect_timeout: float = CONNECT_SECONDS,
        accept_encoding: str = "identity",
        max_error_body: int = MAX_ERROR_BODY,
        trust_env: bool = True,
    ) -> None:
        check_kind("session=", session, (aiohttp.ClientSession, NoneType), "an aiohttp.ClientSession")
        check_seconds("connect_timeout", connect_timeout, optional=False)
        if max_error_body < 0:
            raise ValueError(f"max_error_body must be at least 0 bytes, not {max_error_body}")
        self._borrowed = session
        self._own: aiohttp.ClientSession | None = None
        self._guard: AsyncGenerator[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timeout = aiohttp.ClientTimeout(total=None, connect=connect_timeout)
        self._accept_encoding = accept_encoding
        self._max_error_body = max_error_body
        self._trust_env = trust_env
        self._streams: WeakSet[ResponseStream] = WeakSet()
        self._closed = False

    async def open(self, request: Request) -> ResponseStream:
        """Sends the request and returns once the head is in.

        Raises `ConnectError` when no head came, `StatusError` for any status but 2xx.
        """
        session = await self._session()
        failure = None
        try:
            settings = self._settings(session, request)
            response = await session.request(request.method, request.url, **settings)
        except _FOREIGN as error:
            failure = before_head(error, request.url)
        except _DiedBeforeHead as death:
            failure = before_head(death.error, request.url)
            _forget_idle(session)
        if failure is not None:
            raise failure
        try:
            stream = ResponseStream(response, where(request.url), self)
            if not 200 <= response.status < 300:
                body = await read_refusal(stream, self._max_error_body)
                raise status_error(stream.head, body, request.call.clock.wall())
            stream.inflate()
        except BaseException:
            drop(response)
            raise
        self._streams.add(stream)
        return stream

    def _settings(self, session: aiohttp.ClientSession, request: Request) -> dict[str, Any]:
        headers = dict(request.headers)
        given = {name.lower() for name in (*headers, *session.headers)}
        if "accept" not in given:
            headers["Accept"] = "text/event-stream"
        if "accept-encoding" not in given:
            headers["Accept-Encoding"] = self._accept_encoding
        data: bytes | None
        if isinstance(request.body, Mapping):
            data = encode(request.body)
            if "content-type" not in given:
                headers["Content-Type"] = "application/json"
        else:
            data = request.body
        settings: dict[str, Any] = {
            "headers": headers,
            # aiohttp writes bytes in one go, and warns of it from a mebibyte on; a file it writes as the peer takes it.
            "data": io.BytesIO(data) if data is not None and len(data) > _LARGE_BODY else data,
            "skip_auto_headers": ("Content-Type",),
            "allow_redirects": False,
            "auto_decompress": False,
            "raise_for_status": False,
            "timeout": self._timeout,
        }
        if self._own is not None and self._trust_env and (proxy := _proxy_for(request.url)):
            settings["proxy"] = proxy
        return settings

    # -- the session ---------------------------------------------------------------------------

    async def _session(self) -> aiohttp.ClientSession:
        if self._closed:
            raise UsageError("this source is closed; a client closes its own")
        if self._borrowed is not None:
            if self._borrowed.closed:
                raise UsageError("the session lent to AiohttpSource is closed")
            return self._borrowed
        loop = asyncio.get_running_loop()
        if self._own is not None and self._loop is not loop:
            await self._leave_loop()
        if self._own is None:
            self._loop = loop
            # trust_env is not aiohttp's: that one reads ~/.netrc as well, whose entry for a host cannot go together
            # with an Authorization header, and asks a thread for the proxies at each request.
            self._own = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=self._timeout,
                max_line_size=_MAX_HEADER,
                max_field_size=_MAX_HEADER,
                middlewares=(_send_once,),
            )
            self._guard = close_with_loop(self._own.close)
            await anext(self._guard)
        return self._own

    async def _leave_loop(self) -> None:
        """A session lives in one event loop; when that one is over (a second `asyncio.run`), so is the session."""
        if self._loop is not None and not self._loop.is_closed():
            raise UsageError("this AiohttpSource belongs to another event loop that is still open; make one for each")
        left, self._own = self._own, None
        if left is not None:
            await left.close()

    async def aclose(self) -> None:
        """Closes its streams and its own session, never a borrowed one. Idempotent."""
        self._closed = True
        left, self._own = self._own, None
        if left is None:
            return
        for stream in list(self._streams):
            await stream.aclose()
        await left.close()
        if self._guard is not None:
            await self._guard.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class _DiedBeforeHead(Exception):
    """A connection was made or taken from the pool, and died without a head. aiohttp does not know this exception."""

    def __init__(self, error: aiohttp.ClientConnectionError) -> None:
        super().__init__()
        self.error = error


async def _send_once(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Keeps aiohttp from sending a GET again when its connection died: a request that nobody decided on or counts."""
    try:
        return await send(request)
    except (aiohttp.ClientConnectorError, aiohttp.ServerTimeoutError):
        raise
    except aiohttp.ClientConnectionError as error:
        death = _DiedBeforeHead(error)
    raise death


def _forget_idle(session: aiohttp.ClientSession) -> None:
    """Ends what waits in the pool: where one connection died unnoticed, the others mostly did so too.

    Else each of them would take a try of some request with it. The pool has no public face; it passes over what is
    closed. To make a connection costs little, to lose one that was alive too.
    """
    pool = getattr(session.connector, "_conns", None)
    if isinstance(pool, Mapping):
        for idle in pool.values():
            for protocol, _ in idle:
                if protocol.transport is not None:
                    protocol.transport.abort()


class ResponseStream:
    """One response. Its connection goes back to the pool by itself when the body was read to the end."""

    __slots__ = (
        "__weakref__",
        "_closed",
        "_content",
        "_end",
        "_lost",
        "_reading",
        "_response",
        "_source",
        "_unpacking",
        "_wake",
        "_where",
        "head",
    )

    def __init__(self, response: aiohttp.ClientResponse, where: str, source: object) -> None:
        self.head = head_of(response)
        self._response = response
        self._content = response.content
        self._unpacking: Unpacking | None = None
        self._where = where
        self._source = source  # a source that nobody holds any more closes its session
        # aiohttp never tells a reader that waits of chunks it could not parse, nor of a session closed under it: the
        # reader would wait for ever. The connection's own end does tell.
        self._wake = partial(_wake, response.content)
        connection = response.connection
        self._lost: asyncio.Future[None] | None = getattr(connection and connection.protocol, "closed", None)
        if self._lost is not None:
            self._lost.add_done_callback(self._wake)
            # This one stays when the stream is closed: the connection may die later, in the pool, with nobody there.
            self._lost.remove_done_callback(_look_at)
            self._lost.add_done_callback(_look_at)
        self._end: Exception | None = None
        self._reading = False
        self._closed = False

    def inflate(self) -> None:
        """Makes ready to undo the body's coding. Raises `DecodeError` or `MissingExtra` when it cannot."""
        machine = inflater(self.head.encoding)
        self._unpacking = Unpacking(machine) if machine is not None else None

    async def receive(self) -> Sequence[bytes]:
        if self._end is not None:
            raise self._end
        if self._reading:
            raise UsageError("this stream has a reader already")
        self._reading = True
        try:
            data = await self._next()
        except StreamError as failure:
            self._end = failure
            raise
        finally:
            self._reading = False
        if data:
            return (data,)
        self._end = EndOfStream()
        raise self._end

    async def _next(self) -> bytes:
        """Gives what comes next, nothing at the clean end."""
        try:
            if self._unpacking is None:
                return await self._content.readany()
            return await self._unpacking.next(self._content.readany)
        except _FOREIGN as error:
            failure = _after_head(error, self._where)
        return await self._after(failure)

    async def _after(self, failure: StreamBroken) -> bytes:
        """The connection failed: gives what had arrived before, or raises when there is nothing more."""
        if self._closed:
            self._end = UsageError("this stream was closed")
            raise self._end
        left = _left_in(self._content)
        if left and self._unpacking is not None:
            # The next receive() asks for more of it, and then meets the error again.
            left = await self._unpacking.feed(left)
        if not left:
            raise failure
        return left

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._end is None and not self._reading:
            self._end = UsageError("this stream was closed")
        if self._lost is not None:
            self._lost.remove_done_callback(self._wake)
        drop(self._response)


def head_of(response: aiohttp.ClientResponse) -> Head:
    """Gives status and headers in our words."""
    names = dict.fromkeys(name.lower() for name in response.headers)
    headers = {name: ", ".join(response.headers.getall(name)) for name in names}
    encoding = headers.get("content-encoding", "identity")
    return Head(status=response.status, headers=headers, url=str(response.url), encoding=encoding)


def _look_at(lost: asyncio.Future[None]) -> None:
    if not lost.cancelled():
        lost.exception()  # else asyncio complains that nobody asked for it


def _wake(content: aiohttp.StreamReader, _: asyncio.Future[None]) -> None:
    if not content.is_eof() and content.exception() is None:
        content.set_exception(aiohttp.ClientPayloadError("the connection was closed"))


def drop(response: aiohttp.ClientResponse) -> None:
    """Ends the connection at once, unless it went back to the pool.

    A transport that is merely closed first sends what is left of the request, and says goodbye to TLS.
    """
    connection = response.connection
    if connection is not None and connection.transport is not None:
        connection.transport.abort()
    response.close()


def _left_in(content: aiohttp.StreamReader) -> bytes:
    """Takes out what had arrived before a failure: aiohttp raises at once, and has no public way to get it."""
    buffer = getattr(content, "_buffer", None)
    if not isinstance(buffer, deque):
        return b""
    skip = getattr(content, "_buffer_offset", 0)
    data = b"".join(buffer)[skip if isinstance(skip, int) else 0 :]
    buffer.clear()
    with contextlib.suppress(AttributeError):
        content._buffer_offset = 0  # noqa: SLF001 - it counts from the start of what was just taken out
    return data


def _proxy_for(url: str) -> str | None:
    parts = urlsplit(url)
    proxy = getproxies().get(parts.scheme)
    if not proxy or not parts.hostname or proxy_bypass(parts.hostname):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


# -- the border: what aiohttp raises, in our words -----------------------------------------------

_FOREIGN = (aiohttp.ClientError, HttpProcessingError, OSError, RuntimeError, ValueError)

_PLAIN_WORDS: tuple[tuple[tuple[type[Exception], ...], str, bool | None], ...] = (
    # What it was, in words, and whether trying again helps; None: the program is wrong. The first row that fits counts.
    ((aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError), "the url is not http or https with a host", None),
    ((aiohttp.ClientConnectorCertificateError, ssl.SSLCertVerificationError), "its certificate is not trusted", False),
    ((aiohttp.ServerFingerprintMismatch,), "its certificate is not the pinned one", False),
    ((aiohttp.ClientConnectorDNSError,), "its name does not resolve", True),
    ((aiohttp.ClientProxyConnectionError,), "the proxy cannot be reached", True),
    ((aiohttp.ClientSSLError, ssl.SSLError), "TLS failed", True),
    ((aiohttp.ConnectionTimeoutError,), "connecting took longer than AiohttpSource(connect_timeout=...) allows", True),
    ((aiohttp.ClientConnectorError,), "the connection was refused or failed", True),
    ((aiohttp.ServerDisconnectedError,), "the server hung up", True),
    ((aiohttp.ClientPayloadError,), "the body's framing was cut short or broken", True),
    ((aiohttp.ClientResponseError, HttpProcessingError), "what came is not HTTP", True),
    ((TimeoutError,), "the connection timed out", True),
    ((aiohttp.ClientError, OSError), "the connection was lost", True),
    ((RuntimeError,), "the connection was closed on this side", True),
    ((ValueError,), "aiohttp cannot send such a request", None),
)


def before_head(error: Exception, url: str) -> StreamError | UsageError:
    """No head arrived."""
    place = where(url)
    words, retryable = _words(error)
    failure: StreamError | UsageError
    if isinstance(error, aiohttp.ClientHttpProxyError):
        failure = ConnectError(f"{place}: the proxy answered {error.status}", retryable=error.status in RETRYABLE)
    elif retryable is None:
        failure = UsageError(f"{place}: {words}{cause(error)}")
    else:
        connecting = isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)
        failure = ConnectError(f"{place}: {words}{cause(error, url if connecting else '')}", retryable=retryable)
    failure.__cause__ = ForeignError(error)
    return failure


def _after_head(error: Exception, place: str) -> StreamBroken:
    """The answer was cut: whatever cut it, the same request may succeed."""
    failure = StreamBroken(f"{place}: {_words(error)[0]}{cause(error)}")
    failure.__cause__ = ForeignError(error)
    return failure


def _words(error: Exception) -> tuple[str, bool | None]:
    return next((words, again) for kinds, words, again in _PLAIN_WORDS if isinstance(error, kinds))
