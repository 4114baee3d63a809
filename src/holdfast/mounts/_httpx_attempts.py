"""The attempts at one request of an httpx or httpx2 client, over the transport that it had.

Each response lives in a task of its own (see `sources/httpx.py`), but for one that is passed on: it belongs to whoever
reads it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Protocol

from holdfast._core import Stream
from holdfast._errors import (
    DeadlineExceeded,
    EndOfStream,
    MissingExtra,
    StatusError,
    StreamBroken,
    StreamError,
    UsageError,
)
from holdfast._tasks import outlast
from holdfast._types import Request
from holdfast.machines.inflate import inflater
from holdfast.machines.statuses import status_error
from holdfast.moments import Report
from holdfast.mounts._attempts import Attempts, Came, Nothing, can_inflate, caused
from holdfast.mounts._failures import failure as told
from holdfast.mounts._policy import IDEMPOTENT, Policy, as_utf8, document
from holdfast.mounts._relay import EXTENSION, Mount, Relay
from holdfast.sources._http import ERROR_BODY_SECONDS, MAX_ERROR_BODY, Packed, encode, read_refusal
from holdfast.sources.httpx import Border, Connecting, HttpxStream, head_of

_CHANGES_WITH_BODY = (b"content-length", b"transfer-encoding", b"idempotency-key")


class Transport(Protocol):
    """What the attempts need of the mount's transport."""

    library: ClassVar[Any]
    body: ClassVar[Any]
    mount: Mount
    inner: Any
    closings: int


class Opened(Packed, Protocol):
    """A response of the library's as a stream."""

    response: Any


class Readable(Protocol):
    """A relay, or what is left of a refusal."""

    async def receive(self) -> bytes:
        """Returns what is ready, empty at the end. Raises a `StreamError`."""

    async def aclose(self) -> None:
        """Gives the connection back."""


class HttpxAttempts(Attempts[Any]):
    """The attempts at one request, over the client's own transport."""

    def __init__(self, transport: Transport, original: Any) -> None:
        self._original = original
        self._library = transport.library
        self._transport = transport
        replayable = isinstance(original.stream, self._library.ByteStream)
        content = b"".join(original.stream) if replayable else b""
        asked = Request(url=str(original.url), method=original.method, body=document(content or None))
        judged = replace(asked, headers=original.headers)
        super().__init__(transport.mount, asked, Policy.of(judged, transport.mount, replayable=replayable))
        self.sent = original.headers
        # An SDK that tries again by itself is not helped with that: its tries and ours would multiply.
        self.may_retry = self.policy.repeatable and original.headers.get("x-stainless-retry-count", "0") == "0"
        self._closings = transport.closings

    # -- as a source -----------------------------------------------------------------------------

    async def _attempt(self, request: Request, at_hand: Any, came: Came[Any]) -> Stream[bytes]:
        stream: Opened | None = None
        try:
            stream = await self._opened(request, at_hand, came)
            if 200 <= stream.head.status < 300:
                stream.inflate()
                came.response = stream.response
                return stream
            failure: StreamError = await self._status_error(stream, request, came)
        except _PassingError:
            return Nothing(head_of(came.passed, request.url), came)
        except StreamError as error:
            if stream is not None:
                await stream.aclose()
            failure = error
        except BaseException:
            if stream is not None:
                await stream.aclose()
            raise
        if not self.begun and not self.may_retry:
            failure.retryable = False
        raise failure

    async def _opened(self, request: Request, at_hand: Any, came: Came[Any]) -> Opened:
        """Sends, and gives the stream of a response that is ours, or refuses."""
        sent, border = self._sent(request, at_hand)
        connecting = Connecting(sent.extensions.get("trace"))
        if at_hand is None:
            sent.extensions = {**sent.extensions, "trace": connecting}
        stream = HttpxStream(partial(self._send, sent, at_hand, came), border, connecting, self._transport)
        try:
            await stream.opened()
        except BaseException:
            await stream.aclose()
            raise
        return stream

    def _sent(self, request: Request, at_hand: Any) -> tuple[Any, Border]:
        """Gives the library's own request, and who translates what it meets."""
        sent = self._original if at_hand is not None else self._built(request)
        return sent, Border(request, str(sent.url), sent.extensions.get("timeout") or {})

    async def _send(self, sent: Any, at_hand: Any, came: Came[Any]) -> Any:
        if at_hand is not None:
            return at_hand
        try:
            response = await self._transport.inner.handle_async_request(sent)
        except Exception as error:
            came.error = error
            raise
        status = response.status_code
        if self.begun or status >= 300 or (status >= 200 and self._is_ours(response)):
            return response
        came.passed = response
        raise _PassingError("this response is passed on as it came")

    async def _status_error(self, stream: Opened, request: Request, came: Came[Any]) -> StatusError:
        """Gives what a refusal is to the pipe; the client is given it with the body that explains it, read or not."""
        head, wall, refused = stream.head, request.call.clock.wall, stream.response
        if self.begun:
            explanation = await read_refusal(stream, MAX_ERROR_BODY)
            await stream.aclose()
            return status_error(head, explanation, wall())
        explanation, whole = await _begin(stream)
        if whole:
            await stream.aclose()
        if not refused.is_stream_consumed:
            body: Any = self._library.ByteStream(explanation)
            if not whole:
                body = self._body(_Rest(stream), explanation)
            refused = self._library.Response(
                refused.status_code, headers=refused.headers.raw, stream=body, extensions={**refused.extensions}
            )
        came.refused = refused
        return status_error(head, _inflated(explanation, head.encoding), wall())

    def _over(self) -> str:
        return "the client was closed" if self._transport.closings != self._closings else ""

    def _kind(self, response: Any) -> tuple[int, str]:
        return response.status_code, response.headers.get("content-type", "")

    def _can_read(self, response: Any) -> bool:
        return can_inflate(response.headers.get("content-encoding", ""))

    # -- requests ----------------------------------------------------------------------------------

    def _built(self, request: Request) -> Any:
        """Makes the request to send: the client's own with what the layers have changed."""
        original = self._original
        extra = {name.lower().encode(): (name.encode(), value.encode()) for name, value in request.headers.items()}
        not_for_it, host = self.moved(request)
        if host:
            extra[b"host"] = (b"Host", host.encode())
        gone, body = {*extra, *(name.encode() for name in not_for_it)}, original.stream
        if request.body is not self.asked.body:
            gone.update(_CHANGES_WITH_BODY)
            if request.body is None:
                gone.add(b"content-type")
            content = encode(request.body) if isinstance(request.body, Mapping) else request.body
            body = self._library.ByteStream(content or b"")
            if content or request.method not in IDEMPOTENT:
                extra[b"content-length"] = (b"Content-Length", b"%d" % len(content or b""))
        headers = [pair for pair in original.headers.raw if pair[0].lower() not in gone]
        return self._library.Request(
            request.method,
            original.url if request.url == self.asked.url else request.url,
            headers=[*headers, *extra.values()],
            stream=body,
            extensions=original.extensions,
        )

    # -- for the client --------------------------------------------------------------------------

    def _told_by_head(self, came: Came[Any]) -> bool:
        return self.is_stream(came.response)  # a page, for one: what comes of it decides

    def _response(self, relay: Relay, begun: bytes, came: Came[Any]) -> Any:
        first: Any = came.response
        packed = relay.reader.head.encoding != "identity"
        gone = (b"content-length", b"content-encoding") if packed else (b"content-length",)
        headers = self._library.Headers(
            [(name, value) for name, value in first.headers.raw if name.lower() not in gone]
        )
        if (kind := headers.get("content-type", "")) != as_utf8(kind):
            headers["content-type"] = as_utf8(kind)
        return self._library.Response(
            first.status_code,
            headers=headers.raw,
            stream=self._body(relay, begun),
            extensions={**first.extensions, EXTENSION: relay.reader.report},
        )

    def _body(self, readable: Readable, begun: bytes) -> Any:
        """Gives the body that the client reads."""
        return self._transport.body(readable, self._lost, begun)

    def _refusal(self, refused: Any, report: Report) -> Any:
        if self.may_retry and refused.status_code >= 400:
            refused.headers["x-should-retry"] = "false"
        refused.extensions[EXTENSION] = report
        return refused

    def _failure(self, failure: StreamError | UsageError, came: Came[Any]) -> Exception:
        if came.error is not None:
            if isinstance(failure, StreamError):  # its cause is the transport's own, as without a mount
                vars(came.error)["extensions"] = {EXTENSION: failure.report}
            return came.error
        return failure if isinstance(failure, UsageError) else self._lost(failure, responded=False)

    def _lost(self, error: StreamError, *, responded: bool = True) -> Exception:
        """Gives what the client's users catch."""
        headers, request = self._original.headers, self._original
        return caused(told(error, headers, request, self._of_the_library, responded=responded), error)

    def _of_the_library(self, error: StreamError, text: str) -> Exception:
        kind = "RemoteProtocolError"
        if isinstance(error, DeadlineExceeded):
            kind = "ReadTimeout"
        elif type(error) is StreamBroken:
            kind = "ReadError"
        made: Exception = getattr(self._library, kind)(text, request=self._original)
        return made

    async def _drop(self, response: Any) -> None:
        # In a task of its own: httpx, cancelled while it closes, keeps the connection for ever.
        await outlast(asyncio.ensure_future(response.aclose()))


class _PassingError(StreamError):
    """A response came that is none of ours."""

    retryable = False


@dataclass(slots=True)
class _Rest:
    """The rest of a refusal's body that is too long to wait for."""

    _stream: Opened

    async def receive(self) -> bytes:
        try:
            return (await self._stream.receive())[0]
        except EndOfStream:
            return b""

    async def aclose(self) -> None:
        await self._stream.aclose()


async def _begin(stream: Opened) -> tuple[bytes, bool]:
    """Reads the beginning of a body as it comes over the wire; says whether it was all. A failure is the reader's."""
    body = bytearray()
    try:
        async with asyncio.timeout(ERROR_BODY_SECONDS):
            while len(body) < MAX_ERROR_BODY:
                body += (await stream.receive())[0]
    except EndOfStream:
        return bytes(body), True
    except (StreamError, TimeoutError):
        pass
    return bytes(body), False


def _inflated(body: bytes, coding: str) -> bytes:
    """Undoes a refusal's coding as far as its beginning goes: it only explains."""
    try:
        machine = inflater(coding)
        return body if machine is None else machine.feed(body)
    except (StreamError, MissingExtra):
        return b""


__all__ = ["HttpxAttempts", "Readable"]
