"""An HTTP/1.1 server that plays a script over real TCP, exact to the byte.

A reply is a list of steps: bytes to send, pauses, stalls, resets. The server adds nothing to them, no header and no
framing, so every fault of a network can be written down. It must never outlive its `async with`: no task and no socket
is left, and `open_connections` tells exactly which clients have not hung up.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import socket
import ssl
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self, cast

# -- steps -------------------------------------------------------------------------------------


@dataclass(slots=True, frozen=True)
class Send:
    """Sends `data` in one write."""

    data: bytes


@dataclass(slots=True, frozen=True)
class Drip:
    """Sends `data` in writes of `size` bytes, `every` seconds one; each is with the kernel before the next is made."""

    data: bytes
    size: int = 1
    every: float = 0.0


@dataclass(slots=True, frozen=True)
class Pause:
    """Waits."""

    seconds: float


@dataclass(slots=True, frozen=True)
class Stall:
    """Sends nothing more until the client leaves."""


@dataclass(slots=True, frozen=True)
class Repeat:
    """Sends `data` every `every` seconds until the client leaves: the pings that mask a stall."""

    data: bytes
    every: float


@dataclass(slots=True, frozen=True)
class Reset:
    """Ends the connection with a RST; what was sent before it has left."""


@dataclass(slots=True, frozen=True)
class Close:
    """Ends the connection with a FIN. A reply without it leaves the connection open for the next request."""


Step = Send | Drip | Pause | Stall | Repeat | Reset | Close
Reply = Iterable[Step] | AsyncGenerator[Step, None]
"""The steps of one reply, in their order; a generator may wait between them, and is closed when the client leaves."""


@dataclass(slots=True, frozen=True, kw_only=True)
class ReceivedRequest:
    """One request as it arrived. Header names are lower case; a repeated header is joined by ", ".

    `port` is the client's (two requests with the same one shared a connection), `at` the loop's time in seconds.
    """

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    port: int = 0
    at: float = 0.0

    def json(self) -> Any:
        """The body as JSON values."""
        return json.loads(self.body)


Handler = Callable[[ReceivedRequest], Awaitable[Reply] | Reply]

# -- exact bytes -------------------------------------------------------------------------------

LAST_CHUNK = b"0\r\n\r\n"


def head(status: int = 200, **headers: str | int) -> bytes:
    """Makes a status line and exactly these headers; `content_type=` is written `Content-Type:`."""
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase if status in list(HTTPStatus) else 'Unknown'}"]
    lines += [f"{name.replace('_', '-').title()}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


STREAM_HEAD = head(content_type="text/event-stream", transfer_encoding="chunked")
"""The head of a healthy event stream: `chunked()` pieces and `LAST_CHUNK` follow it."""


def chunked(data: bytes) -> bytes:
    """Makes one chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def sse(payload: str | bytes, id: str | None = None, event: str | None = None, eol: str = "\n") -> bytes:
    """Makes one server-sent event; a payload of several lines gets several `data:` lines."""
    text = payload.decode() if isinstance(payload, bytes) else payload
    fields = [f"id: {id}"] if id is not None else []
    fields += [f"event: {event}"] if event is not None else []
    fields += [f"data: {line}" for line in text.split("\n")]
    return eol.join([*fields, "", ""]).encode()


def respond(body: bytes = b"", status: int = 200, **headers: str | int) -> list[Step]:
    """Makes a whole plain reply with a Content-Length, after which the connection may be used again."""
    return [Send(head(status, **headers, content_length=len(body)) + body)]


def stream(*pieces: bytes) -> list[Step]:
    """Makes a whole healthy event stream, one chunk and one write a piece."""
    return [Send(STREAM_HEAD), *(Send(chunked(piece)) for piece in pieces), Send(LAST_CHUNK)]


# -- the server --------------------------------------------------------------------------------


class ScriptedServer:
    """Serves `handler(request)`, or the replies of a list in order (the last one again and again).

    An asynchronous context manager on 127.0.0.1, where `port` is a free one unless it is told; `tls` makes it an https
    server. An exception in a handler closes its connection and is raised when the block is left: a broken script must
    not look like a fault.
    """

    def __init__(
        self,
        handler: Handler | Sequence[Reply],
        *,
        tls: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        if not callable(handler) and not handler:
            raise ValueError("ScriptedServer needs at least one reply")
        self._host = host
        self._handler = handler
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._errors: list[Exception] = []
        self._idle = asyncio.Event()
        self._idle.set()
        self.port = port
        self.accepted = 0
        self.requests: list[ReceivedRequest] = []

    @property
    def url(self) -> str:
        """Scheme, host and port, without a slash at the end."""
        return f"{'https' if self._tls else 'http'}://{self._host}:{self.port}"

    @property
    def open_connections(self) -> int:
        """How many connections neither side has ended."""
        return len(self._connections)

    async def all_closed(self, within: float = 10.0) -> bool:
        """Waits at most `within` seconds for the last connection to end; tells whether it has."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), within)
        return not self._connections

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), self._host, self.port, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # transports that were aborted close their sockets in the loop's next turn
        if self._errors and error is None:
            raise self._errors[0]
        for failure in self._errors:
            # What the client raises of it says nothing of the cause.
            error.add_note(f"while its server raised {failure!r}")  # type: ignore[union-attr]

    async def reply(self, request: ReceivedRequest) -> Reply:
        """Notes a request and gives the reply the script has for it."""
        self.requests.append(request)
        if not callable(self._handler):
            return self._handler[min(len(self.requests), len(self._handler)) - 1]
        answer = self._handler(request)
        return await answer if inspect.isawaitable(answer) else answer

    # What a connection tells its server.

    def connected(self, connection: _Connection) -> None:
        self.accepted += 1
        self._connections.add(connection)
        self._idle.clear()
        connection.task = task = asyncio.get_running_loop().create_task(self._serve(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def disconnected(self, connection: _Connection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._idle.set()

    async def _serve(self, connection: _Connection) -> None:
        try:
            while True:
                request = await _read_request(connection)
                await _play(connection, await self.reply(request))
                if connection.transport.is_closing() or request.headers.get("connection", "").lower() == "close":
                    return
        except Exception as error:  # noqa: BLE001 - whatever a script does wrong is told when the server is left
            self._errors.append(error)
        finally:
            connection.transport.close()


_TURNS = 3  # of the loop from a write to the client's reader: socket ready, future done, task awake


class _Connection(asyncio.Protocol):
    """One client: its unread bytes, and whether it is still there."""

    transport: asyncio.Transport
    task: asyncio.Task[None]

    def __init__(self, server: ScriptedServer) -> None:
        self._server = server
        self._buffer = bytearray()
        self._arrived = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        # A write is over when the kernel has it all. TLS transports pause at "at least", not at "more than".
        self.transport.set_write_buffer_limits(1 if transport.get_extra_info("sslcontext") else 0, 0)
        self.socket = cast("socket.socket", transport.get_extra_info("socket"))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port: int = transport.get_extra_info("peername")[1]
        self._server.connected(self)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._arrived.set()

    def eof_received(self) -> None:
        self.transport.abort()  # a client that says FIN has left; nothing is sent to its back

    def connection_lost(self, _exc: Exception | None) -> None:
        self._server.disconnected(self)
        self.task.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    async def take(self, size: int) -> bytes:
        """Reads exactly `size` bytes."""
        while len(self._buffer) < size:
            await self._more()
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    async def take_until(self, mark: bytes) -> bytes:
        """Reads up to `mark`, which is dropped."""
        while (at := self._buffer.find(mark)) < 0:
            await self._more()
        return (await self.take(at + len(mark)))[:at]

    async def _more(self) -> None:
        self._arrived.clear()
        await self._arrived.wait()

    async def write(self, data: bytes) -> None:
        """Sends, and returns when the kernel has it and the loop has turned: a client in this loop has read it."""
        self.transport.write(data)
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        await self._writable.wait()

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def abort(self) -> None:
        self.transport.abort()


async def _read_request(connection: _Connection) -> ReceivedRequest:
    start, *lines = (await connection.take_until(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    at = asyncio.get_running_loop().time()
    method, path, _ = start.split(" ", 2)
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        key = name.strip().lower()
        headers[key] = f"{headers[key]}, {value.strip()}" if key in headers else value.strip()
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = await _read_chunks(connection)
    else:
        body = await connection.take(int(headers.get("content-length", "0")))
    return ReceivedRequest(method=method, path=path, headers=headers, body=body, port=connection.port, at=at)


async def _read_chunks(connection: _Connection) -> bytes:
    body = bytearray()
    while size := int((await connection.take_until(b"\r\n")).partition(b";")[0], 16):
        body += await connection.take(size)
        await connection.take(2)
    while await connection.take_until(b"\r\n"):
        pass  # trailers
    return bytes(body)


async def _play(connection: _Connection, reply: Reply) -> None:
    if isinstance(reply, AsyncGenerator):
        async with contextlib.aclosing(reply):
            async for step in reply:
                if await _over(connection, step):
                    return
    else:
        for step in reply:
            if await _over(connection, step):
                return


async def _over(connection: _Connection, step: Step) -> bool:
    """Does one step; True once the connection has ended."""
    match step:
        case Send(data):
            await connection.write(data)
        case Drip(data, size, every):
            for start in range(0, len(data), size):
                await connection.write(data[start : start + size])
                if every:
                    await asyncio.sleep(every)
        case Pause(seconds):
            await asyncio.sleep(seconds)
        case Repeat(data, every):
            while True:
                await connection.write(data)
                await asyncio.sleep(every)
        case Stall():
            await asyncio.Event().wait()
        case Reset():
            connection.reset()
            return True
        case Close():
            connection.transport.close()
            return True
    return False
