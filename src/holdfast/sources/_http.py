"""What the sources that speak HTTP have in common: what they send, how they undo a coding, how they explain an error.

Nothing here knows a client library. Messages name hosts and causes, never headers or bodies.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol
from urllib.parse import urlsplit

import msgspec

from holdfast._core import Stream
from holdfast._errors import EndOfStream, MissingExtra, StreamError, UsageError
from holdfast._types import Head
from holdfast.machines.inflate import Inflater, inflater
from holdfast.sources._foreign import ForeignError, causes

CONNECT_SECONDS = 30.0
"""For the name, a place in the pool, TCP and TLS."""
MAX_ERROR_BODY = 64 * 1024
"""Bytes kept of a refused request's body: providers' errors take hundreds."""
ERROR_BODY_SECONDS = 2.0
"""An error is not kept waiting longer for its explanation: the status alone says more than a clock that ran out."""


class Packed(Stream[bytes], Protocol):
    """A stream whose body may be in a coding; it is undone once it is known that the body is wanted."""

    def inflate(self) -> None:
        """Makes ready to undo the body's coding. Raises `DecodeError` or `MissingExtra` when it cannot."""


class Unpacking:
    """A body's coding undone between a read and its return, a bounded piece at a time."""

    __slots__ = ("_machine", "_owes_turn")

    def __init__(self, machine: Inflater) -> None:
        self._machine = machine
        self._owes_turn = False
        """The last piece came out of the machine, and no network read let the event loop run before it."""

    async def next(self, read: Callable[[], Awaitable[bytes]]) -> bytes:
        """Gives the next piece, nothing at the clean end, which is when `read()` gives nothing.

        Cancelled, it may be called again: what the machine has taken in stays in it.
        """
        # No await between a piece and its return.
        piece = await self._held()
        while not piece:
            data = await read()
            if not data:
                self._machine.end()
                return b""
            piece = await self.feed(data)
        return piece

    async def feed(self, data: bytes) -> bytes:
        """Gives what the next bytes make, nothing where they are not enough for a piece."""
        return self._machine.feed(data) or await self._held()

    async def _held(self) -> bytes:
        """Gives the next piece of what the machine has taken in, nothing when it needs more.

        One network read may inflate to 100 MiB: read without a pause, it would let nothing else run, clocks included.
        """
        machine = self._machine
        while True:
            if self._owes_turn:
                await asyncio.sleep(0)
            piece = machine.feed(b"")
            self._owes_turn = bool(piece) or machine.busy
            if not machine.busy:
                return piece


class BodyStream:
    """A body that is read with `_take()`, as a stream: its coding undone, its end and failures sticky, one reader."""

    __slots__ = ("_end", "_reading", "_unpacking", "head")

    def __init__(self, head: Head) -> None:
        self.head = head
        self._end: Exception | None = None
        self._reading = False
        self._unpacking: Unpacking | None = None

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
            data = await (self._take() if self._unpacking is None else self._unpacking.next(self._take))
        except (StreamError, UsageError) as failure:
            self._end = failure
            raise
        finally:
            self._reading = False
        if data:
            return (data,)
        self._end = EndOfStream()
        raise self._end

    async def _take(self) -> bytes:
        """Gives what has come, nothing at the clean end. Cancelled, it loses nothing."""
        raise NotImplementedError


async def read_refusal(stream: Packed, limit: int) -> bytes:
    """Reads at most `limit` bytes of a body that explains an error, as far as it comes."""
    body = bytearray()
    with contextlib.suppress(EndOfStream, StreamError, MissingExtra, TimeoutError):
        stream.inflate()
        async with asyncio.timeout(ERROR_BODY_SECONDS):
            while len(body) < limit:
                body += (await stream.receive())[0]
    return bytes(body[:limit])


async def close_with_loop(close: Callable[[], Awaitable[None]]) -> AsyncGenerator[None]:
    """Closes what its owner forgot, while its event loop can still do so.

    A loop that shuts down (at the end of `asyncio.run()`) closes the asynchronous generators that began in it; what
    is left open after that can only be leaked.
    """
    try:
        yield
    finally:
        await close()


def encode(body: Mapping[str, Any]) -> bytes:
    """Writes a request's body as JSON. Raises `UsageError`."""
    try:
        return msgspec.json.encode(body if isinstance(body, dict) else dict(body))
    except (TypeError, ValueError) as error:
        failure = UsageError(f"the request's body cannot be written as JSON: {error}")
        failure.__cause__ = ForeignError(error)
    raise failure


def where(url: str) -> str:
    """Host and port: a url's credentials and query stay out of messages."""
    try:
        return urlsplit(url).netloc.rpartition("@")[2] or "the server"
    except ValueError:
        return "the server"


def cause(error: BaseException, connecting_to: str = "") -> str:
    """Names the cause without its text, which may quote bytes of the body.

    `connecting_to` is the url to which there was no connection yet. A server of plain HTTP behind `https://` refuses
    TLS or, more often, waits for more of what it takes for a request: nothing but the time tells of it.
    """
    first = next(one for one in reversed([error, *causes(error)]) if not isinstance(one, asyncio.CancelledError))
    tls = "; the url says https: does that port speak TLS?" if connecting_to.startswith("https:") else ""
    if isinstance(first, ssl.SSLCertVerificationError):
        return f" ({first.verify_message})"
    if isinstance(first, ssl.SSLError) and first.reason:
        return f" ({first.reason}){tls}"
    if isinstance(first, TimeoutError) and first.errno is None:
        return f" ({type(first).__name__}){tls}"
    if isinstance(first, OSError) and first.errno is not None and first.errno > 0:
        return f" ({os.strerror(first.errno)})"
    return f" ({type(first).__name__})"
