"""The mount under httpx and httpx2: a transport over the client's own, which mends the streams that come through it.

One implementation serves both libraries, which have the same interface; `mounts/httpx.py` and `mounts/httpx2.py` give
it their base classes. What comes back decides: an event stream is relayed through the pipe, anything else is the inner
transport's own response. A request goes out as the client made it, byte for byte; later ones are made of it.

A response's body must never be a generator here: one that was cancelled would call the torn stream cleanly ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any, ClassVar, Self, Unpack

from holdfast._errors import StreamError, UsageError
from holdfast.mounts._httpx_attempts import HttpxAttempts, Readable
from holdfast.mounts._network import with_cheap_reads
from holdfast.mounts._relay import EXTENSION, Settings, mount_of


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
    attempts: type[HttpxAttempts] = HttpxAttempts

    def __init_subclass__(cls) -> None:
        if "library" in vars(cls):
            cls.body = type("RelayedBytes", (RelayedBytes, cls.library.AsyncByteStream), {"library": cls.library})

    def __init__(self, inner: Any = None, **settings: Unpack[Settings]) -> None:
        if inner is not None:
            check_transport(f"{type(self).__name__}(inner)", inner, "handle_async_request")
        self.mount = mount_of(settings)
        self.inner: Any = inner if inner is not None else with_cheap_reads(self.library.AsyncHTTPTransport())
        self.closings = 0
        """How often it was closed: what was being read then is not asked for again."""

    async def handle_async_request(self, request: Any) -> Any:
        """Sends a request and returns its response once the head is in, the body being still to come.

        Raises `UsageError` in a loop that is not asyncio's, and for another library's request.
        """
        check_request(self, request)
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raise UsageError("mounts run on asyncio alone, and what runs here is another kind of loop") from None
        attempts = self.attempts(self, request)
        if attempts.policy.asks:
            return await attempts.relayed()
        if attempts.may_retry and self.mount.retries:
            response = await attempts.tried()
        else:
            response = await self.inner.handle_async_request(request)
        if not attempts.is_stream(response):
            return response
        attempts.at_hand = response
        return await attempts.relayed()

    async def aclose(self) -> None:
        """Closes the inner transport; what is being read of it ends where it is."""
        self.closings += 1
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
        self.closings += 1
        await self.inner.__aexit__(kind, error, trace)


def check_request(transport: Any, request: object) -> None:
    """Raises `UsageError` for a request of another library's: the two have one interface, and classes of their own."""
    if not isinstance(request, transport.library.Request):
        mine, theirs = transport.library.__name__, type(request).__module__.partition(".")[0]
        raise UsageError(f"{type(transport).__name__} is for {mine}, and the client over it is one of {theirs}'s")


def check_transport(name: str, inner: object, *does: str) -> None:
    """Raises `UsageError` for what has none of the methods `does` of a transport."""
    if any(hasattr(inner, one) for one in does):
        return
    kind = type(inner).__qualname__
    if hasattr(inner, "build_request"):
        raise UsageError(f"{name} takes a transport, and {kind} is a client: pass its transport, not the client")
    which = "an asynchronous transport" if does == ("handle_async_request",) else "a transport"
    raise UsageError(f"{name} takes {which}, which {kind} is not")


class RelayedBytes:
    """The body of a response that is relayed: an asynchronous iterator that says the same when it is asked again."""

    library: ClassVar[Any]

    def __init__(self, relay: Readable, failure_of: Callable[[StreamError], Exception], begun: bytes = b"") -> None:
        self._relay = relay
        self._begun = begun
        self._failure_of = failure_of
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
            self._end = self._failure_of(error)
        except UsageError:
            if not self._closed:
                raise
            raise closed_in_between(self.library) from None
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


def closed_in_between(library: Any) -> Exception:
    """Gives what a reader gets under whom somebody else closed the response."""
    made: Exception = library.ReadError("the response was closed before its end")
    return made


__all__ = ["EXTENSION", "AnyTransport", "RelayedBytes", "check_request", "check_transport", "closed_in_between"]
