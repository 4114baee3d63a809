"""The mount under httpx and httpx2: a transport over the client's own, which mends the streams that come through it.

One implementation serves both libraries, which have the same interface; `mounts/httpx.py` and `mounts/httpx2.py` give
it their base classes. What comes back decides: an event stream is relayed through the pipe, anything else is the inner
transport's own response. A request goes out as the client made it, byte for byte; later ones are made of it.

A response's body must never be a generator here: one that was cancelled would call the torn stream cleanly ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import TracebackType
from typing import Any, ClassVar, Self, Unpack

from holdfast._core import Call, Source, Stream
from holdfast._errors import (
    BudgetExhausted,
    DeadlineExceeded,
    DecodeError,
    EndOfStream,
    MissingExtra,
    StatusError,
    StreamBroken,
    StreamError,
    UsageError,
)
from holdfast._types import Head, Request
from holdfast.machines.inflate import inflater
from holdfast.machines.statuses import status_error
from holdfast.moments import Report
from holdfast.mounts._failures import failure
from holdfast.mounts._policy import IDEMPOTENT, Policy, document, is_stream
from holdfast.mounts._relay import EXTENSION, Mount, Relay, Settings
from holdfast.sources._http import ERROR_BODY_SECONDS, MAX_ERROR_BODY, encode, read_refusal
from holdfast.sources.httpx import Border, Connecting, HttpxStream, head_of

_CHANGES_WITH_BODY = (b"content-length", b"transfer-encoding", b"idempotency-key")


class AnyTransport:
    """Mends event streams over `inner`, a transport of the caller's, or over the library's own where none is given.

    An answer that breaks is retried or resumed, and reads as one whole stream; its response's `extensions["holdfast"]`
    is the report. Where nothing helps, reading raises what the client's users catch, ours being its cause. Everything
    else is `inner`'s own response, but for this: a request that may be repeated is, before a head has come, as the
    layers say; what still refuses it then comes back with `x-should-retry: false`. The keywords are those of all
    mounts. Closing it closes `inner`.
    """

    library: ClassVar[Any]
    body: ClassVar[Any]

    def __init__(self, inner: Any = None, **settings: Unpack[Settings]) -> None:
        if inner is not None and not hasattr(inner, "handle_async_request"):
            raise ValueError(f"inner must be an asynchronous transport, which {type(inner).__qualname__} is not")
        self.mount = Mount(**settings)
        self.inner: Any = inner if inner is not None else self.library.AsyncHTTPTransport()

    async def handle_async_request(self, request: Any) -> Any:
        """Sends a request and returns its response once the head is in, the body being still to come."""
        exchange = _Exchange(self, request)
        if exchange.policy.asks:
            return await self._relayed(exchange)
        if exchange.may_retry and self.mount.retries:
            response = await self._tried(exchange)
        else:
            response = await self.inner.handle_async_request(request)
        if not _is_stream(request, response):
            return response
        exchange.take_up(response)
        return await self._relayed(exchange)

    async def _tried(self, exchange: _Exchange) -> Any:
        """Sends what is no stream, with the tries that the policy has for it."""
        source: Source[bytes] = exchange
        for layer in self.mount.retries:
            source = layer(source)
        call = Call(clock=self.mount.clock, random=self.mount.random, max_requests=self.mount.max_requests)
        try:
            await source.open(replace(exchange.request, call=call))
        except (StreamError, UsageError) as error:
            failed = error
        except BaseException:
            await exchange.drop()
            raise
        else:
            return exchange.given_away()
        return await exchange.instead(failed, call.report)

    async def _relayed(self, exchange: _Exchange) -> Any:
        relay, begun = self.mount.relay(exchange, exchange.request), b""
        try:
            await relay.open()
            if exchange.passed is None and not _is_stream(
                exchange.original, exchange.latest
            ):  # a page, for one: what comes of it decides
                begun = await relay.receive()
        except (StreamError, UsageError) as error:
            failed = error
        except BaseException:
            await relay.aclose()
            await exchange.drop()
            raise
        else:
            if exchange.passed is None:
                return self._response(exchange, relay, begun)
            try:
                await relay.aclose()
            except BaseException:
                await exchange.drop()
                raise
            return exchange.given_away()
        await relay.aclose()
        return await exchange.instead(failed, relay.reader.report)

    def _response(self, exchange: _Exchange, relay: Relay, begun: bytes) -> Any:
        first = exchange.latest
        packed = relay.reader.head.encoding != "identity"
        gone = (b"content-length", b"content-encoding") if packed else (b"content-length",)
        return self.library.Response(
            first.status_code,
            headers=[(name, value) for name, value in first.headers.raw if name.lower() not in gone],
            stream=self.body(relay, exchange, begun),
            extensions={**first.extensions, EXTENSION: relay.reader.report},
        )

    async def aclose(self) -> None:
        """Closes the inner transport."""
        await self.inner.aclose()

    async def __aenter__(self) -> Self:
        await self.inner.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        await self.inner.__aexit__(kind, error, trace)


class RelayedBytes:
    """The body of a response that is relayed: an asynchronous iterator that says the same when it is asked again."""

    def __init__(self, relay: Relay | _Rest, exchange: _Exchange, begun: bytes = b"") -> None:
        self._relay = relay
        self._begun = begun
        self._exchange = exchange
        self._end: Exception | None = None
        self._closed = False
        self._loop = asyncio.get_running_loop()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._begun:
            begun, self._begun = self._begun, b""
            return begun
        if self._end is not None:
            raise self._end
        try:
            data = await self._relay.receive()
        except StreamError as error:
            self._end = self._exchange.failure_of(error)
            self._end.__cause__ = error
        else:
            if data:
                return data
            self._end = StopAsyncIteration()
        await self.aclose()
        raise self._end

    async def aclose(self) -> None:
        """Gives the connection back, or ends it where the answer is not over."""
        self._closed = True
        await self._relay.aclose()

    def __del__(self) -> None:
        # A client that was left in the middle of a loop closes its responses only when they are collected, if at all.
        if not self._closed and not self._loop.is_closed():
            relay, loop = self._relay, self._loop
            loop.call_soon_threadsafe(lambda: loop.create_task(relay.aclose()))


@dataclass(slots=True)
class _Refused:
    """A response with another status than 2xx, and what was read of its body to know what it means."""

    response: Any
    body: bytes
    rest: HttpxStream | None
    """Where more of it is to come."""


@dataclass(slots=True)
class _Exchange:
    """What one request of the client's becomes: as many as it takes. A `Source[bytes]`."""

    transport: AnyTransport
    original: Any
    request: Request = field(init=False)
    policy: Policy = field(init=False)
    may_retry: bool = field(init=False)
    """It may be sent again while no head has come."""
    latest: Any = None
    """The response of the last stream that came, None before the first."""
    passed: Any = None
    """A response that is none of ours."""
    refused: _Refused | None = None
    failed: Exception | None = None
    """What the inner transport raised at the last attempt."""
    _content: bytes | None = None
    _at_hand: Any = None

    def __post_init__(self) -> None:
        original = self.original
        replayable = isinstance(original.stream, self.library.ByteStream)
        content = b"".join(original.stream) if replayable else b""
        self.request = Request(url=str(original.url), method=original.method, body=document(content or None))
        judged = replace(self.request, headers=original.headers)
        self.policy = Policy.of(judged, self.transport.mount, replayable=replayable)
        # An SDK that tries again by itself is not helped with that: its tries and ours would multiply.
        self.may_retry = self.policy.repeatable and original.headers.get("x-stainless-retry-count", "0") == "0"

    @property
    def library(self) -> Any:
        return self.transport.library

    # -- as a source -----------------------------------------------------------------------------

    async def open(self, request: Request) -> Stream[bytes]:
        """Sends, or takes what is there already. A response that is none of ours is left in `passed`."""
        if self._at_hand is not None:
            sent = self.original
        else:
            self._refuse(request)
            await self.drop()
            self.failed = None
            sent = self._built(request)
        stream = self._stream(sent, request)
        try:
            await stream.opened()
            head = stream.head
            if not 200 <= head.status < 300:
                raise await self._status_error(stream, request)
            stream.inflate()
        except _PassingError:
            return _Nothing(head_of(self.passed, request.url))
        except StreamError as error:
            if self.refused is None or self.refused.rest is not stream:
                await stream.aclose()
            if self.latest is None and not self.may_retry:
                error.retryable = False
            raise
        except BaseException:
            await stream.aclose()
            await self.drop()
            raise
        self.latest = stream.response
        call = request.call
        if not self.policy.repeatable and (call.dialect is None or call.dialect.event_ids != "get"):
            call.max_requests = call.requests  # no layer is to wait for another try
        return stream

    def _refuse(self, request: Request) -> None:
        """What must not happen twice is sent once: a later request has to be another, or one that does no harm."""
        if self.latest is None or self.policy.repeatable:
            return
        if request.method not in IDEMPOTENT or request.body is not None:
            raise BudgetExhausted(f"this {request.method} was sent, and nothing says that it may be sent again")

    def _stream(self, sent: Any, request: Request) -> HttpxStream:
        border = Border(request, str(sent.url), sent.extensions.get("timeout") or {})
        connecting = Connecting(sent.extensions.get("trace"))
        if self._at_hand is None:
            sent.extensions = {**sent.extensions, "trace": connecting}
        return HttpxStream(partial(self._send, sent), border, connecting, self.transport)

    async def _send(self, sent: Any) -> Any:
        if self._at_hand is not None:
            response, self._at_hand = self._at_hand, None
            return response
        try:
            response = await self.transport.inner.handle_async_request(sent)
        except Exception as error:
            self.failed = error
            raise
        if self._is_ours(response):
            return response
        self.passed = response
        raise _PassingError("this response is passed on as it came")

    def _is_ours(self, response: Any) -> bool:
        """Says whether the pipe is to have a response; from the first on that it had, it judges all."""
        if self.latest is not None:
            return True
        if not 200 <= response.status_code < 300:
            return bool(response.status_code >= 300)
        return self.policy.takes(response.headers.get("content-type", "")) and _can_inflate(response)

    async def _status_error(self, stream: HttpxStream, request: Request) -> StatusError:
        head, wall = stream.head, request.call.clock.wall
        if self.latest is not None:
            return status_error(head, await read_refusal(stream, MAX_ERROR_BODY), wall())
        body, whole = await _begin(stream)
        self.refused = _Refused(stream.response, body, None if whole else stream)
        return status_error(head, _inflated(body, head.encoding), wall())

    # -- requests ----------------------------------------------------------------------------------

    def _built(self, request: Request) -> Any:
        """Makes the request to send: the client's own with what the layers have changed."""
        original = self.original
        extra = {name.lower().encode(): (name.encode(), value.encode()) for name, value in request.headers.items()}
        gone, body = set(extra), original.stream
        if request.body is not self.request.body:
            gone.update(_CHANGES_WITH_BODY)
            if request.body is None:
                gone.add(b"content-type")
            content = encode(request.body) if isinstance(request.body, Mapping) else request.body
            body = self.library.ByteStream(content or b"")
            if content or request.method not in IDEMPOTENT:
                extra[b"content-length"] = (b"Content-Length", b"%d" % len(content or b""))
        headers = [pair for pair in original.headers.raw if pair[0].lower() not in gone]
        return self.library.Request(
            request.method,
            original.url if request.url == self.request.url else request.url,
            headers=[*headers, *extra.values()],
            stream=body,
            extensions=original.extensions,
        )

    # -- what is not relayed -----------------------------------------------------------------------

    def take_up(self, response: Any) -> None:
        """Makes a response that is there already the first attempt."""
        self._at_hand = response

    def given_away(self) -> Any:
        """Gives the response that is none of ours to the client, which closes it."""
        response, self.passed = self.passed, None
        return response

    async def instead(self, error: StreamError | UsageError, report: Report) -> Any:
        """Gives the response that refused, or raises what the client understands."""
        if isinstance(error, StatusError) and self.latest is None and self.refused is not None:
            return self._refusal(self.refused, report)
        await self.drop()
        if self.failed is not None:
            raise self.failed
        if isinstance(error, UsageError):
            raise error
        raise self.failure_of(error, responded=False) from error

    def _refusal(self, refused: _Refused, report: Report) -> Any:
        response = refused.response
        if self.may_retry and response.status_code >= 400:
            response.headers["x-should-retry"] = "false"
        if response.is_stream_consumed:
            return response
        stream = self.library.ByteStream(refused.body)
        if refused.rest is not None:
            stream = self.transport.body(_Rest(refused.rest), self, refused.body)
        extensions = {**response.extensions, EXTENSION: report}
        return self.library.Response(
            response.status_code, headers=response.headers.raw, stream=stream, extensions=extensions
        )

    def failure_of(self, error: StreamError, *, responded: bool = True) -> Exception:
        """Gives what the client's users catch."""
        return failure(error, self.original.headers, self.original, self._of_the_library, responded=responded)

    def _of_the_library(self, error: StreamError, text: str) -> Exception:
        kind = "RemoteProtocolError"
        if isinstance(error, DeadlineExceeded):
            kind = "ReadTimeout"
        elif type(error) is StreamBroken:
            kind = "ReadError"
        made: Exception = getattr(self.library, kind)(text, request=self.original)
        return made

    async def drop(self) -> None:
        """Closes what nobody was given."""
        refused, passed, at_hand = self.refused, self.passed, self._at_hand
        self.refused = self.passed = self._at_hand = None
        if refused is not None and refused.rest is not None:
            await refused.rest.aclose()
        for response in (passed, at_hand):
            if response is not None:
                await response.aclose()


class _PassingError(StreamError):
    """A response came that is none of ours."""

    retryable = False


@dataclass(slots=True)
class _Nothing:
    """Stands for a response that is none of ours."""

    head: Head

    async def receive(self) -> Sequence[bytes]:
        raise EndOfStream

    async def aclose(self) -> None:
        pass


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


def _is_stream(request: Any, response: Any) -> bool:
    """Says whether a response is an event stream that can be read here."""
    kind = response.headers.get("content-type", "")
    return is_stream(request.method, response.status_code, kind) and _can_inflate(response)


def _can_inflate(response: Any) -> bool:
    try:
        inflater(response.headers.get("content-encoding", ""))
    except (DecodeError, MissingExtra):
        return False
    return True


__all__ = ["EXTENSION", "AnyTransport", "RelayedBytes"]
