"""Bounds on what clients send and hold: connections, headers, bodies, and readers that take nothing.

aiohttp bounds a header line, pipelined requests, what is buffered of a body, and the time between two requests. What it
does not bound is done here, around its protocol: the time and the size of a request's headers (a connection that drips
a byte a second is closed), the number of connections, and a peer that has ceased to read. A connection that has not
said anything yet costs no more than its guard. Nothing of a request is logged, however broken it is.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import traceback
from typing import Any, cast

import msgspec
from aiohttp import web

from holdfast.gateway.refusals import Refusal, Refused, error_document
from holdfast.gateway.settings import Limits
from holdfast.gateway.surfaces import surface_for

_log = logging.getLogger("holdfast.gateway")
SERVER = "holdfast"
"""Says who answers: what it is made of, and of which version, is nobody's business."""
_END = b"\r\n\r\n"
_SEND_BUFFER = 128 * 1024
"""Bytes that the system keeps for one reader; beside as many in this process, that is all that a slow one holds."""


class BoundedRunner(web.AppRunner):
    """An `AppRunner` whose connections are guarded. Takes its keywords, but no access log: that would quote tokens."""

    def __init__(self, app: web.Application, limits: Limits, **more: Any) -> None:
        self._bounds: dict[str, Any] = {
            "access_log": None,
            "auto_decompress": False,  # what some kilobytes unpack to has no bound
            "keepalive_timeout": limits.idle_timeout,
            "logger": _log,
            "max_field_size": limits.max_header,
            "max_line_size": limits.max_header,
        }
        super().__init__(app, **more, **self._bounds)
        self.guards = Guards(self, limits)

    @property
    def server(self) -> Any:
        """What sites listen with."""
        return None if super().server is None else self.guards

    def handler(self) -> asyncio.Protocol:
        """Makes what speaks HTTP on one connection."""
        server = super().server
        if server is None:
            raise RuntimeError("the runner was not set up, or is closed")
        return _Handler(server, loop=asyncio.get_running_loop(), **self._bounds)

    def finish(self) -> None:
        """Closes every connection behind the request that is on its way, and at once where there is none."""
        self.guards.finish()

    async def shutdown(self) -> None:
        """Closes what has not asked for anything; the others end what they do."""
        self.guards.close_idle()
        await super().shutdown()


class _Handler(web.RequestHandler):
    """aiohttp's side of a connection, but for what it says of errors: to its log, and to the client."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answers what is no HTTP, and mistakes of ours."""
        if isinstance(exc, ConnectionError):
            raise exc  # the client has left, and nobody is there to be told
        if isinstance(exc, UnicodeEncodeError) and "Expect" in request.headers:
            status = 417  # aiohttp quotes what it does not know, and this is no text that it could quote
        if status >= 500:
            self.log_exception("a request failed", exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun, and cannot become an error")
        words = "the gateway failed" if status >= 500 else "this is no HTTP request that the gateway can read"
        refusal = Refusal(status, "internal_error" if status >= 500 else "bad_request", words)
        body = error_document(surface_for(request.path), refusal)
        headers = {"Content-Type": "application/json", "Server": SERVER}
        response = web.Response(status=status, body=body, headers=headers)
        response.force_close()
        return response

    def log_exception(self, *args: Any, **more: Any) -> None:
        """Logs where it was and what kind it was: an exception's own words may quote the request."""
        error = more.get("exc_info")
        where = "".join(traceback.format_tb(error.__traceback__)) if isinstance(error, BaseException) else ""
        _log.error("%s: %s\n%s", args[0] if args else "error", type(error).__name__, where)


class Guards:
    """The guards of one server's connections: what sites listen with."""

    def __init__(self, runner: BoundedRunner, limits: Limits) -> None:
        self.runner = runner
        self.finishing = False
        """True where no connection may bring another request."""
        self.limits = limits
        self._guards: set[_Guard] = set()

    def __call__(self) -> asyncio.Protocol:
        """Makes the guard of a new connection."""
        return _Guard(self)

    def __len__(self) -> int:
        """How many connections there are."""
        return len(self._guards)

    @property
    def unsent(self) -> int:
        """Bytes that this process holds for peers that have not taken them yet."""
        return sum(guard.unsent for guard in self._guards)

    def add(self, guard: _Guard) -> bool:
        """Lets a connection in; False where there are as many as may be."""
        if len(self._guards) >= self.limits.max_connections:
            return False
        self._guards.add(guard)
        return True

    def discard(self, guard: _Guard) -> None:
        """It is gone."""
        self._guards.discard(guard)

    def close_idle(self) -> None:
        """Closes the connections that have not said anything."""
        for guard in tuple(self._guards):
            guard.close_idle()

    def finish(self) -> None:
        """Closes the connections that are between requests, and the others behind the one that they are at."""
        self.finishing = True
        for guard in tuple(self._guards):
            guard.finish()


class _Guard(asyncio.Protocol):
    """Stands between one connection and what speaks HTTP on it.

    `_timer` is for a request's headers, from the first byte on and at first from the connection on, until a request is
    begun. `_watch` looks whether a peer still takes what is sent, once that piles up or an answer has ended.
    """

    __slots__ = ("_guards", "_inner", "_size", "_tail", "_timer", "_transport", "_unsent", "_waits", "_watch")

    def __init__(self, guards: Guards) -> None:
        self._guards = guards
        self._inner: Any = None
        self._size = 0
        self._tail = b""
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self._unsent = 0
        self._waits = True
        """Whether what comes is the headers of a request."""
        self._watch: asyncio.TimerHandle | None = None

    @property
    def unsent(self) -> int:
        """Bytes that wait for the peer to take them."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    @property
    def finishing(self) -> bool:
        """True where the connection ends behind the request that it is at."""
        return self._guards.finishing

    # -- the connection ----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)  # what a server of streams makes; uvloop's is of no such class
        if not self._guards.add(self):
            transport.write(_raw(Refusal(503, "overloaded", "the gateway has as many connections as it may", 1.0)))
            transport.close()
            return
        self._transport = transport
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        self._expect_headers()

    def data_received(self, data: bytes) -> None:
        if self._transport is None:
            return
        if self._inner is None:
            self._inner = self._guards.runner.handler()
            self._inner.connection_made(self._transport)
        if self._waits:
            if self._timer is None:
                self._expect_headers()
            if not self._fits(data):
                self._refuse(Refusal(431, "headers_too_large", "the headers of this request are too large"))
                return
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return None if self._inner is None else self._inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._guards.discard(self)
        self._transport = None
        self._stop_timer()
        if self._watch is not None:
            self._watch.cancel()
        if self._inner is not None:
            self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        self._look_later()
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if self._inner is not None:
            self._inner.resume_writing()

    # -- headers -----------------------------------------------------------------------------------

    def begin(self) -> None:
        """A request's headers have come."""
        self._stop_timer()
        self._waits = False
        if self._guards.finishing:
            self._inner.close()

    def done(self, *, whole: bool) -> None:
        """A request was answered; `whole`: all of its body was read, and what comes next is another one."""
        self._waits, self._size, self._tail = whole, 0, b""
        self._look_later()

    def close_idle(self) -> None:
        """Closes a connection that has not said anything."""
        if self._inner is None and self._transport is not None:
            self._transport.close()

    def finish(self) -> None:
        """Closes a connection behind the request that it is at."""
        if not self._waits:
            self._inner.close()
        elif not self._size and self._transport is not None:
            self._transport.close()

    def _expect_headers(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._guards.limits.header_timeout, self._abort)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fits(self, data: bytes) -> bool:
        """Counts bytes of headers; False for more than may be. Line ends before a request do not count as its own."""
        joined = self._tail + data if self._size else data.lstrip(b"\r\n")
        end = joined.find(_END)
        self._size += len(joined) - len(self._tail) if end < 0 else end - len(self._tail)
        self._tail = joined[-len(_END) + 1 :]
        self._waits = end < 0
        return self._size <= self._guards.limits.max_header

    def _refuse(self, refusal: Refusal) -> None:
        transport, self._transport = self._transport, None  # what still comes is not looked at
        if transport is not None:
            transport.write(_raw(refusal))
            transport.close()

    # -- a peer that takes nothing -----------------------------------------------------------------

    def _look_later(self) -> None:
        if self._watch is None and self._transport is not None:
            self._unsent = self.unsent
            loop = asyncio.get_running_loop()
            self._watch = loop.call_later(self._guards.limits.write_timeout, self._look)

    def _look(self) -> None:
        self._watch = None
        unsent = self.unsent
        if unsent and unsent >= self._unsent:
            self._abort()
        elif unsent:
            self._look_later()

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def guard_of(request: web.BaseRequest) -> _Guard | None:
    """Gives the guard of a request's connection, None where it is gone, or was never guarded."""
    transport = request.transport
    guard = None if transport is None else transport.get_protocol()
    return guard if isinstance(guard, _Guard) else None


class Bodies:
    """Reads requests' bodies, each within bounds, and all together for as long as their requests are answered."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.held = 0
        """Bytes of bodies that are here."""
        self._of: dict[int, int] = {}
        """Those of each request, which is known by its identity while it is answered."""

    def let_go(self, request: web.BaseRequest) -> None:
        """A request was answered, and its body is needed no more."""
        self.held -= self._of.pop(id(request), 0)

    async def read(self, request: web.BaseRequest) -> bytes:
        """Gives a request's body. Raises `Refused` for one that is too large, too slow, packed or broken."""
        if request.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
            words = "the gateway reads no compressed bodies: send it without a Content-Encoding"
            raise Refused(Refusal(415, "unsupported_encoding", words, headers={"Accept-Encoding": "identity"}))
        if (request.content_length or 0) > self._limits.max_body:
            raise self._too_large()
        try:
            async with asyncio.timeout(self._limits.body_timeout):
                return await self._read(request)
        except TimeoutError:
            words = f"the body did not come within {self._limits.body_timeout:g} s"
            raise Refused(Refusal(408, "request_timeout", words)) from None
        except web.RequestPayloadError:
            raise Refused(Refusal(400, "bad_request", "the body of this request is broken")) from None

    async def _read(self, request: web.BaseRequest) -> bytes:
        parts: list[bytes] = []
        size = 0
        async for part in request.content.iter_any():
            parts.append(part)
            size += len(part)
            self.held += len(part)
            self._of[id(request)] = size
            if size > self._limits.max_body:
                raise self._too_large()
            if self.held > self._limits.max_bodies:
                raise Refused(Refusal(503, "overloaded", "the gateway has as much to answer as it may", 1.0))
        return b"".join(parts)

    def _too_large(self) -> Refused:
        words = f"the body of this request is larger than {self._limits.max_body} bytes"
        return Refused(Refusal(413, "request_too_large", words))


def _raw(refusal: Refusal) -> bytes:
    """Gives a whole answer for a connection on which no request can be answered."""
    body = msgspec.json.encode({"error": {"message": refusal.message, "type": refusal.code, "code": refusal.code}})
    again = f"Retry-After: {refusal.retry_after:.0f}\r\n" if refusal.retry_after else ""
    head = (
        f"HTTP/1.1 {refusal.status} {refusal.code}\r\nContent-Type: application/json\r\n{again}"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
