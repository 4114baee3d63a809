"""Bytes over httpx or httpx2: through a client, or through the bare transport that stands under one.

httpx2 is httpx's maintained successor and has its interface, so one implementation serves both. It sends, reads what
is ready and translates what goes wrong; it never retries, never follows a redirect and never lets a client's timeouts
cut a stream: clocks are layers. httpx's own inflaters pass a truncated body as a clean end, so bodies are inflated
here.

Both libraries read through generators, and a cancelled generator is finished: asked again, it would call the torn
stream cleanly ended. So no reader's task ever waits in one. Each response lives in one task of its own, from the
request to the closing, which reads ahead of the reader by a bounded number of bytes.

What cannot be had from httpx: over HTTP/2, what came in the very read that breaks the connection's framing; any stream
of a connection whose server says GOAWAY, though it would finish those that have begun; and an early end. A stream that
is given up is not reset: its server sends on to the last byte, out of the 16 MiB of window that all streams share.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar
from weakref import WeakSet

from holdfast._errors import (
    ConnectError,
    DeadlineExceeded,
    EndOfStream,
    MissingExtra,
    StreamBroken,
    StreamError,
    UsageError,
)
from holdfast._tasks import outlast
from holdfast._types import Head, Request
from holdfast.machines.settings import check_seconds
from holdfast.machines.statuses import RETRYABLE, status_error
from holdfast.sources._foreign import ForeignError, causes
from holdfast.sources._http import (
    CONNECT_SECONDS,
    MAX_ERROR_BODY,
    BodyStream,
    cause,
    close_with_loop,
    encode,
    read_refusal,
    where,
)

if TYPE_CHECKING:
    import httpx  # noqa: F401 - named in strings, which the linter does not read
    import httpx2  # noqa: F401

C = TypeVar("C")
T = TypeVar("T")

_MAX_AHEAD = 64 * 1024  # bytes read that nobody has asked for yet; aiohttp reads twice that ahead
_MAX_PIECES = 256  # read ahead; httpx takes some 10 microseconds for each, and lets nobody else run between them
_MAX_UNWOUND = 20_000  # pieces; what a read of 64 KiB can hold of the smallest chunks


class _AnyHttpxSource(Generic[C, T]):
    """Sends requests with httpx or its successor. A `Source[bytes]`; each batch is one bytes object.

    `client` is used as it is (its headers, cookies, auth, hooks, proxies and limits), except that its timeouts, its
    redirects, its `Accept-Encoding` and an `Accept: */*` do not apply. `transport` is used in the place of a client:
    nothing but what the request says is sent. Neither is ever closed here. Without both, the source owns a client, made
    at the first request and closed by `aclose()` or `async with`, or when the event loop shuts down: keep-alive, no
    limit of connections, no cookies, proxies from the environment where `trust_env` says so.

    `connect_timeout` is seconds, for a place in the pool, for TCP and for TLS each. `accept_encoding` is `identity`
    because proxies that compress a stream hold tokens back to do so. `max_error_body` bounds, in bytes, what is read of
    a refused request's body. `extensions` go with every request; a `timeout` among them holds in the place of
    `connect_timeout`, and one that runs out while it reads or writes is a `DeadlineExceeded`.

    A body that is a mapping is sent as JSON. Bytes are sent as they are: their Content-Type is the caller's to give.
    """

    gives: ClassVar[type] = bytes
    _library: ClassVar[str]

    def __init__(
        self,
        client: C | None = None,
        *,
        transport: T | None = None,
        connect_timeout: float = CONNECT_SECONDS,
        accept_encoding: str = "identity",
        max_error_body: int = MAX_ERROR_BODY,
        trust_env: bool = True,
        extensions: Mapping[str, Any] | None = None,
    ) -> None:
        check_seconds("connect_timeout", connect_timeout, optional=False)
        if max_error_body < 0:
            raise ValueError(f"max_error_body must be at least 0 bytes, not {max_error_body}")
        if client is not None and transport is not None:
            raise ValueError("client and transport exclude each other: a client has its own transport")
        self._module: Any = self._imported()
        if client is not None and not isinstance(client, self._module.AsyncClient):
            raise ValueError(f"client must be an {self._library}.AsyncClient, not {type(client).__qualname__}")
        if transport is not None and not hasattr(transport, "handle_async_request"):
            raise ValueError(f"transport must be asynchronous, which {type(transport).__qualname__} is not")
        self._borrowed: Any = client
        self._transport: Any = transport
        self._own: Any = None
        self._guard: AsyncGenerator[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        timeout = {"connect": connect_timeout, "pool": connect_timeout, "read": None, "write": None}
        self._extensions = {"timeout": timeout, **(extensions or {})}
        self._accept_encoding = accept_encoding
        self._max_error_body = max_error_body
        self._trust_env = trust_env
        self._streams: WeakSet[HttpxStream] = WeakSet()
        self._closed = False

    @classmethod
    def _imported(cls) -> ModuleType:
        try:
            return importlib.import_module(cls._library)
        except ImportError as error:
            raise MissingExtra(cls.__name__, cls._library) from error

    async def open(self, request: Request) -> HttpxStream:
        """Sends the request and returns once the head is in.

        Raises `ConnectError` when no head came, `StatusError` for any status but 2xx, and `DeadlineExceeded` when a
        timeout among the `extensions` ran out before.
        """
        if self._closed:
            raise UsageError("this source is closed; a client closes its own")
        client = None if self._transport is not None else await self._client()
        sent = self._built(client, request)
        if client is None:
            send = partial(self._transport.handle_async_request, sent)
        else:
            send = partial(client.send, sent, stream=True, follow_redirects=False)
        border = Border(request, str(sent.url), sent.extensions.get("timeout") or {})
        connecting = Connecting(sent.extensions.get("trace"))
        sent.extensions = {**sent.extensions, "trace": connecting}
        stream = HttpxStream(send, border, connecting, self)
        self._streams.add(stream)
        try:
            await stream.opened()
            if not 200 <= stream.head.status < 300:
                body = await read_refusal(stream, self._max_error_body)
                raise status_error(stream.head, body, request.call.clock.wall())
            stream.inflate()
        except BaseException:
            await stream.aclose()
            raise
        return stream

    def _built(self, client: Any, request: Request) -> Any:
        """Makes the library's own request. Raises `UsageError` where it cannot be one."""
        headers = _pairs(request.headers)
        given = {name.lower() for name, _ in headers}
        known = client.headers if client is not None else {}
        if "accept" not in given and known.get("accept", "*/*") == "*/*":
            headers.append(("Accept", "text/event-stream"))
        if "accept-encoding" not in given:
            headers.append(("Accept-Encoding", self._accept_encoding))
        content = request.body
        if isinstance(content, Mapping):
            content = encode(content)
            if "content-type" not in given and "content-type" not in known:
                headers.append(("Content-Type", "application/json"))
        build = client.build_request if client is not None else self._module.Request
        settings = {"headers": headers, "content": content, "extensions": dict(self._extensions)}
        try:
            return build(request.method, request.url, **settings)
        except (self._module.InvalidURL, ValueError, TypeError) as error:
            failure = UsageError(f"{where(request.url)}: {self._library} cannot send such a request{cause(error)}")
            failure.__cause__ = ForeignError(error)
        raise failure

    # -- the client ----------------------------------------------------------------------------

    async def _client(self) -> Any:
        if self._borrowed is not None:
            if self._borrowed.is_closed:
                raise UsageError(f"the client lent to {type(self).__name__} is closed")
            return self._borrowed
        loop = asyncio.get_running_loop()
        if self._own is not None and self._loop is not loop:
            if self._loop is not None and not self._loop.is_closed():
                raise UsageError(f"this {type(self).__name__} belongs to another event loop; make one for each")
            self._own = None  # closed with its loop
        if self._own is None:
            self._loop = loop
            self._own = self._module.AsyncClient(
                limits=self._module.Limits(max_connections=None, max_keepalive_connections=None),
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
                trust_env=self._trust_env,
            )
            self._guard = close_with_loop(self._own.aclose)
            await anext(self._guard)
        return self._own

    async def aclose(self) -> None:
        """Closes its streams and its own client, never a borrowed one. Idempotent."""
        self._closed = True
        left, self._own = self._own, None
        for stream in list(self._streams):
            await stream.aclose()
        if left is not None:
            await left.aclose()
        if self._guard is not None:
            await self._guard.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class HttpxSource(_AnyHttpxSource["httpx.AsyncClient", "httpx.AsyncBaseTransport"]):
    __doc__ = _AnyHttpxSource.__doc__
    _library = "httpx"


class Httpx2Source(_AnyHttpxSource["httpx2.AsyncClient", "httpx2.AsyncBaseTransport"]):
    __doc__ = _AnyHttpxSource.__doc__
    _library = "httpx2"


def _pairs(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    """Gives the headers to send, a repeated one as often as it was given. How long a body is, the library tells."""
    pairs = headers.multi_items() if hasattr(headers, "multi_items") else headers.items()
    return [(name, value) for name, value in pairs if name.lower() not in ("content-length", "transfer-encoding")]


_living: set[asyncio.Task[Exception]] = set()
"""Tasks of responses. A loop holds its tasks weakly, and one that waits for room nobody else holds."""


class HttpxStream(BodyStream):
    """One response and the task that it lives in."""

    __slots__ = (
        "__weakref__",
        "_border",
        "_closed",
        "_connecting",
        "_finishing",
        "_over",
        "_ready",
        "_room",
        "_size",
        "_source",
        "_task",
        "_waiter",
        "response",
    )

    def __init__(
        self, send: Callable[[], Awaitable[Any]], border: Border, connecting: Connecting, source: object
    ) -> None:
        super().__init__(Head())
        self.response: Any = None
        """The library's own response, once its head is in; its body is not for anybody else to read."""
        self._border = border
        self._connecting = connecting
        self._source = source  # a source that nobody holds any more closes its client
        self._ready: list[bytes] = []
        self._size = 0
        self._over: Exception | None = None
        """What follows what is ready: the task has ended."""
        self._finishing = False
        self._waiter: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._closed = False
        self._task = asyncio.create_task(self._live(send), name="holdfast-httpx")
        self._task.add_done_callback(self._gone)
        _living.add(self._task)

    # -- what the task does ----------------------------------------------------------------------

    async def _live(self, send: Callable[[], Awaitable[Any]]) -> Exception:
        """Sends, reads and closes; gives what follows the body."""
        try:
            response = await send()
            try:
                self.head = head_of(response, self._border.url)
                self.response = response
                self._wake()
                await self._read(response)
            finally:
                self._finishing = True
                with contextlib.suppress(Exception):  # the answer is whole or has failed already
                    await response.aclose()
        except Exception as error:  # noqa: BLE001 - a task has nobody to raise to: the reader is told, whatever it is
            return self._border.translated(error, headed=self.response is not None)
        return EndOfStream()

    async def _read(self, response: Any) -> None:
        if response.is_stream_consumed:
            self._ready = [response.content] if response.content else []
            return
        # Not aiter_raw(): it stands over this, and costs another generator.
        body = aiter(response.stream)
        async for piece in body:
            if piece:
                self._ready.append(piece)
                self._size += len(piece)
                self._wake()
            if self._full() or not piece:
                await self._rest(body)

    def _full(self) -> bool:
        return self._size > _MAX_AHEAD or len(self._ready) >= _MAX_PIECES

    async def _rest(self, body: AsyncIterator[bytes]) -> None:
        """Waits until the reader has come; after an empty piece, only lets others run."""
        try:
            if self._full():
                self._room = asyncio.get_running_loop().create_future()
                await self._room
            else:
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            await _unwind(body)
            raise
        finally:
            self._room = None

    def _gone(self, task: asyncio.Task[Exception]) -> None:
        _living.discard(task)
        self._over = UsageError("this stream was closed") if task.cancelled() else task.result()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # -- what the reader does --------------------------------------------------------------------

    async def _news(self) -> None:
        """Waits for the task to tell something."""
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    async def opened(self) -> None:
        """Returns when the head is in, and raises when there will be none."""
        while self.response is None:
            if self._over is not None:
                raise self._over
            await self._news()

    async def _take(self) -> bytes:
        """Gives what has come, nothing at the clean end."""
        while not self._ready:
            if self._over is not None:
                if isinstance(self._over, EndOfStream):
                    return b""
                raise self._over
            await self._news()
        data = self._ready[0] if len(self._ready) == 1 else b"".join(self._ready)
        self._ready.clear()
        self._size = 0
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        return data

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            if self._end is None and not self._reading:
                self._end = UsageError("this stream was closed")
            if not self._finishing and not self._connecting.waits_to_cancel():
                self._task.cancel()
        await outlast(self._task)
        self._ready.clear()


class Connecting:
    """Listens to what httpcore does, in a request's extension `trace`, and keeps it from leaving a connection behind.

    Cancelled between a connection's making and its first use (a lock or two, no wait for the network), httpcore 1 keeps
    it in the pool for ever; cancelled in the TLS handshake, both versions drop it without closing it.
    """

    __slots__ = ("_before_use", "_line", "_theirs", "_wanted")

    def __init__(self, theirs: Callable[[str, Any], Awaitable[None]] | None) -> None:
        self._theirs = theirs
        self._line: Any = None
        self._before_use = False
        self._wanted = False

    def waits_to_cancel(self) -> bool:
        """Says that it will cancel the request itself, at its next step."""
        self._wanted = self._before_use
        return self._wanted

    async def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        if self._theirs is not None:
            await self._theirs(event, info)
        step = event.partition(".")[2]
        if step in ("connect_tcp.complete", "connect_unix_socket.complete"):
            self._line = info["return_value"]
        self._before_use = step in ("connect_tcp.complete", "connect_unix_socket.complete", "start_tls.complete")
        if step == "start_tls.failed" and self._line is not None:
            await self._line.aclose()
        if self._wanted and not self._before_use:
            self._wanted = False
            raise asyncio.CancelledError


async def _unwind(body: AsyncIterator[bytes]) -> None:
    """Ends the generators that httpx reads through, the innermost first, by cancelling what it waits for.

    Closing the outermost would leave the others to the garbage collector, and their ends to tasks of the event loop.
    """
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - a coroutine that runs
    task.cancel()
    with contextlib.suppress(Exception, asyncio.CancelledError):
        for _ in range(_MAX_UNWOUND):
            await anext(body)
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(0)  # where nothing had to be waited for, the cancellation is met here


def head_of(response: Any, url: str) -> Head:
    headers: dict[str, str] = {}
    for name, value in response.headers.multi_items():
        key = name.lower()
        headers[key] = f"{headers[key]}, {value}" if key in headers else value
    coding = headers.get("content-encoding", "identity")
    if response.is_stream_consumed:  # a hook has read it, or it never came over a wire; it is inflated already
        coding = "identity"
    return Head(status=response.status_code, headers=headers, url=url, encoding=coding)


# -- the border: what httpx raises, in our words -------------------------------------------------

_PLAIN_WORDS: tuple[tuple[tuple[str, ...], str, bool | None], ...] = (
    # The names of its class, what it was, and whether trying again helps; None: the program is wrong. Names, because
    # there are several libraries of them. The first row counts that fits the exception or one it was raised from.
    (("InvalidURL", "UnsupportedProtocol"), "the url is not http or https with a host", None),
    (("SSLCertVerificationError",), "its certificate is not trusted", False),
    (("ProxyError",), "the proxy refused", True),
    (("gaierror",), "its name does not resolve", True),
    (("SSLError",), "TLS failed", True),
    (("ConnectTimeout", "PoolTimeout"), "connecting took longer than connect_timeout allows", True),
    (("ConnectError",), "the connection was refused or failed", True),
    (("LocalProtocolError",), "httpx cannot send such a request", None),
    (("RemoteProtocolError",), "the server hung up, or what came is not HTTP", True),
    (("TransportError", "ProtocolError", "ClosedResourceError", "OSError"), "the connection was lost", True),
    (("ConnectionNotAvailable",), "the server ends the connection", True),
    (("RuntimeError",), "the connection was closed on this side", True),
    (("Exception",), "the client failed", False),
)
_TIMED_OUT = {"ReadTimeout": "read", "WriteTimeout": "write"}


class Border:
    """Translates what one request meets."""

    __slots__ = ("_request", "_timeouts", "url")

    def __init__(self, request: Request, url: str, timeouts: Mapping[str, float | None]) -> None:
        self._request = request
        self._timeouts = timeouts
        self.url = url

    def translated(self, error: Exception, *, headed: bool) -> Exception:
        """Gives the error to raise in the place of httpx's, with or without a head before it."""
        if isinstance(error, StreamError | UsageError):
            return error  # a transport that is ours
        names = [cls.__name__ for one in causes(error) for cls in type(one).__mro__]
        if "HTTPStatusError" in names and not headed:
            return self._refused(error)
        failure = self._failure(error, names, headed=headed)
        failure.__cause__ = ForeignError(error)
        return failure

    def _failure(self, error: Exception, names: list[str], *, headed: bool) -> StreamError | UsageError:
        place = where(self.url)
        for name, kind in _TIMED_OUT.items():
            if name in names:
                seconds = self._timeouts.get(kind) or 0.0
                told = f"{place}: nothing moved for {seconds:g} s, the {kind} timeout that came with the request"
                return DeadlineExceeded("progress" if headed else "open", seconds, told)
        words, again = next((words, again) for kinds, words, again in _PLAIN_WORDS if not {*kinds}.isdisjoint(names))
        if headed:
            return StreamBroken(f"{place}: {_AFTER_HEAD.get(words, words)}{cause(error)}")
        if again is None:
            return UsageError(f"{place}: {words}{cause(error)}")
        if "ProxyError" in names and (status := str(error)[:3]).isdigit():  # it begins with the proxy's answer
            return ConnectError(f"{place}: the proxy answered {status}", retryable=int(status) in RETRYABLE)
        return ConnectError(f"{place}: {words}{cause(error, self.url)}", retryable=again)

    def _refused(self, error: Any) -> Exception:
        """A hook of the client's owner raises for a status, as this source does."""
        body = b""
        with contextlib.suppress(Exception):  # it was not read, and cannot be any more
            body = error.response.content
        return status_error(head_of(error.response, self.url), body[:MAX_ERROR_BODY], self._request.call.clock.wall())


_AFTER_HEAD = {"the server hung up, or what came is not HTTP": "the body's framing was cut short or broken"}
