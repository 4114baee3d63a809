"""A chaos server without sockets: what it would send over TCP is read off its script, byte for byte, in no time.

`ChaosSource` is a source like any other; the server behind it is the library's own, so what a cut, a cursor or a prefix
means here is what it means over TCP. It must never be kinder than a socket: what does not end by the book breaks.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from holdfast._clock import Clock
from holdfast._core import Stream
from holdfast._errors import ConnectError, EndOfStream, StreamBroken, StreamError, UsageError
from holdfast._types import Head, Request
from holdfast.machines.statuses import status_error
from holdfast.testing.chaos import ChaosServer
from holdfast.testing.server import Close, Drip, Pause, ReceivedRequest, Reply, Reset, Send, Step


@dataclass(slots=True)
class ChaosSource:
    """Asks a server. `at_once` events come in a read; `asked` has the requests, `live` counts open streams."""

    server: ChaosServer
    at_once: int = 3
    asked: list[Request] = field(default_factory=list)
    live: int = 0

    async def open(self, request: Request) -> Stream[bytes]:
        self.asked.append(request)
        reply = await self.server.server.reply(_received(request))
        stream = _ChaosStream(self, reply, request.call.clock)
        try:
            await stream.begin()
            if not 200 <= stream.head.status < 300:
                raise status_error(stream.head, await stream.rest(), request.call.clock.wall())
        except BaseException:
            await stream.aclose()
            raise
        return stream


def _received(request: Request) -> ReceivedRequest:
    body = request.body if isinstance(request.body, bytes) else json.dumps(request.body).encode()
    url = urlsplit(request.url)
    return ReceivedRequest(
        method=request.method,
        path=f"{url.path}?{url.query}" if url.query else url.path,
        headers={name.lower(): value for name, value in request.headers.items()},
        body=b"" if request.body is None else body,
    )


class _ChaosStream:
    """One connection: the bytes that were sent over it, taken apart as HTTP/1.1 says."""

    def __init__(self, source: ChaosSource, reply: Reply, clock: Clock) -> None:
        self.head = Head()
        self._source = source
        self._steps: AsyncIterator[Step] = _each(reply) if isinstance(reply, Iterable) else reply
        self._clock = clock
        self._sent = b""
        self._left: int | None = None  # bytes of a body that said how long it is
        self._chunked = False
        self._wait: Step | None = None  # taken, and to be waited for when nothing else is left to hand over
        self._over: Exception | None = None
        self._open = True
        source.live += 1

    async def begin(self) -> None:
        """Reads the head."""
        while b"\r\n\r\n" not in self._sent:
            if not await self._step():
                raise ConnectError("the connection ended before a head")
        head, _, self._sent = self._sent.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        self.head = Head(status=int(status.split()[1]), headers=headers)
        self._chunked = headers.get("transfer-encoding") == "chunked"
        if "content-length" in headers:
            self._left = int(headers["content-length"])

    async def _step(self) -> bool:
        """Takes the next step, unless the last one has to be waited for; False where there is none."""
        if self._wait is not None:
            wait, self._wait = self._wait, None
            await (self._clock.sleep(wait.seconds) if isinstance(wait, Pause) else asyncio.Event().wait())
        step = await anext(self._steps, None)
        match step:
            case Send(data) | Drip(data):
                self._sent += data
            case Reset():
                self._over = StreamBroken("the connection was reset")
            case Close() | None:
                self._over = StreamBroken("the connection was closed inside the body")
            case _:
                self._wait = step
        return self._over is None

    async def receive(self) -> Sequence[bytes]:
        if not self._open:
            raise UsageError("this stream is closed")
        batch: list[bytes] = []
        while len(batch) < self._source.at_once:
            piece = self._piece()
            if piece:
                batch.append(piece)
            elif piece is not None:
                self._over = EndOfStream()
                break
            elif self._over is not None or (batch and self._wait is not None):
                break
            else:
                await self._step()
        if batch:
            return batch
        assert self._over is not None
        raise self._over

    def _piece(self) -> bytes | None:
        """Gives the next piece of the body, None where it has not come, nothing at its end."""
        if not self._chunked:
            piece, self._sent = self._sent[: self._left], b""
            if self._left is not None:
                self._left -= len(piece)
            return piece if piece or self._left == 0 else None
        size, line_end, rest = self._sent.partition(b"\r\n")
        if not line_end:
            return None
        try:
            length = int(size, 16)
        except ValueError:
            self._over = StreamBroken("a chunk's size is no number")
            return None
        if len(rest) < length + 2:
            if self._over is None or not rest:
                return None
            self._sent = b""  # what came of a chunk had come
            return rest
        self._sent = rest[length + 2 :]
        return rest[:length]

    async def rest(self) -> bytes:
        """Gives all that is still to come."""
        body = b""
        try:
            while True:
                body += b"".join(await self.receive())
        except (EndOfStream, StreamError):
            return body

    async def aclose(self) -> None:
        if self._open:
            self._open = False
            self._source.live -= 1
            if (close := getattr(self._steps, "aclose", None)) is not None:
                await close()
        await asyncio.sleep(0)


async def _each(steps: Iterable[Step]) -> AsyncIterator[Step]:
    for step in steps:
        yield step
