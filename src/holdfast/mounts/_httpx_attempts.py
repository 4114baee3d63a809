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
from holdfast._types import Request
from holdfast.machines.inflate import inflater
from holdfast.machines.statuses import status_error
from holdfast.moments import Report
from holdfast.mounts._attempts import Attempts, Nothing, can_inflate, caused
from holdfast.mounts._failures import failure as told
from holdfast.mounts._policy import IDEMPOTENT, Policy, as_utf8, document
from holdfast.mounts._relay import EXTENSION, Mount, Relay
from holdfast.sources._http import ERROR_BODY_SECONDS, MAX_ERROR_BODY, encode, read_refusal
from holdfast.sources.httpx import Border, Connecting, HttpxStream, head_of

_CHANGES_WITH_BODY = (b"content-length", b"transfer-encoding", b"idempotency-key")


class Transport(Protocol):
    """What the attempts need of the mount's transport."""

    library: ClassVar[Any]
    body: ClassVar[Any]
    mount: Mount
    inner: Any


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
        self._latest: Any = None
        """The response of the last stream that came."""
        self._explanation = b""
        """What was read of the body of a refusal."""
        self._rest: HttpxStream | None = None
        """Where more of it is to come."""

    # -- as a source -----------------------------------------------------------------------------

    async def _attempt(self, request: Request, at_hand: Any) -> Stream[bytes]:
        sent = self._original if at_hand is not None else self._built(request)
        border = Border(request, str(sent.url), sent.extensions.get("timeout") or {})
        connecting = Connecting(sent.extensions.get("trace"))
        if at_hand is None:
            sent.extensions = {**sent.extensions, "trace": connecting}
        stream = HttpxStream(partial(self._send, sent, at_hand), border, connecting, self._transport)
        try:
            await stream.opened()
            if not 200 <= stream.head.status < 300:
                raise await self._status_error(stream, request)
            stream.inflate()
        except _PassingError:
            return Nothing(head_of(self.passed, request.url))
        except StreamError as error:
            if self._rest is not stream:
                await stream.aclose()
            if not self.begun and not self.may_retry:
                error.retryable = False
            raise
        except BaseException:
            await stream.aclose()
            await self.drop()
            raise
        self._latest = stream.response
        return stream

    async def _send(self, sent: Any, at_hand: Any) -> Any:
        if at_hand is not None:
            return at_hand
        try:
            response = await self._transport.inner.handle_async_request(sent)
        except Exception as error:
            self.error = error
            raise
        status = response.status_code
        if self.begun or status >= 300 or (status >= 200 and self._is_ours(response)):
            return response
        self.passed = response
        raise _PassingError("this response is passed on as it came")

    async def _status_error(self, stream: HttpxStream, request: Request) -> StatusError:
        head, wall = stream.head, request.call.clock.wall
        if self.begun:
            return status_error(head, await read_refusal(stream, MAX_ERROR_BODY), wall())
        self._explanation, whole = await _begin(stream)
        self.refused, self._rest = stream.response, None if whole else stream
        return status_error(head, _inflated(self._explanation, head.encoding), wall())

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

    def _told_by_head(self) -> bool:
        return self.is_stream(self._latest)  # a page, for one: what comes of it decides

    def _response(self, relay: Relay, begun: bytes) -> Any:
        first = self._latest
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
            stream=self._transport.body(relay, self._lost, begun),
            extensions={**first.extensions, EXTENSION: relay.reader.report},
        )

    def _refusal(self, refused: Any, report: Report) -> Any:
        if self.may_retry and refused.status_code >= 400:
            refused.headers["x-should-retry"] = "false"
        if refused.is_stream_consumed:
            return refused
        stream = self._library.ByteStream(self._explanation)
        if self._rest is not None:
            stream = self._transport.body(_Rest(self._rest), self._lost, self._explanation)
        return self._library.Response(
            refused.status_code,
            headers=refused.headers.raw,
            stream=stream,
            extensions={**refused.extensions, EXTENSION: report},
        )

    def _failure(self, failure: StreamError | UsageError) -> Exception:
        if self.error is not None:
            if isinstance(failure, StreamError):  # its cause is the transport's own, as without a mount
                vars(self.error)["extensions"] = {EXTENSION: failure.report}
            return self.error
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
        rest, self._rest = self._rest, None
        if rest is not None:
            await rest.aclose()
        await response.aclose()


class _PassingError(StreamError):
    """A response came that is none of ours."""

    retryable = False


@dataclass(slots=True)
class _Rest:
    """The rest of a refusal's body that is too long to wait for."""

    _stream: HttpxStream

    async def receive(self) -> bytes:
        try:
            return (await self._stream.receive())[0]
        except EndOfStream:
            return b""

    async def aclose(self) -> None:
        await self._stream.aclose()


async def _begin(stream: HttpxStream) -> tuple[bytes, bool]:
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


__all__ = ["HttpxAttempts"]
