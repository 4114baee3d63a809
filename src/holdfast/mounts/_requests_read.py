"""Reading what urllib3 has: a stream's body for its reader or ahead of him, and the beginning of a refusal's."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections import deque
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Any

import requests
from urllib3.exceptions import HTTPError
from urllib3.response import HTTPResponse

from holdfast._background import Worker
from holdfast._core import Stream
from holdfast._errors import EndOfStream, MissingExtra, StreamBroken, StreamError, UsageError
from holdfast._foreground import Foreground
from holdfast._types import Head
from holdfast.machines.inflate import inflater
from holdfast.mounts._blocking import BlockingStream, bursts
from holdfast.mounts._lines import NEXT_CHUNK
from holdfast.sources._foreign import ForeignError
from holdfast.sources._http import ERROR_BODY_SECONDS, MAX_ERROR_BODY, BodyStream, cause

_PIECE = 64 * 1024  # bytes of one read
_AHEAD = 16  # pieces read that nobody has asked for yet
_CLOSING_SECONDS = 1.0
"""How long closing waits for a thread to let go."""


def stream_of(response: Any, head: Head, where: str, worker: Worker) -> Stream[bytes]:
    """Gives what reads a response: in its reader's thread, where that can be ended from another; else the worker."""
    raw, loop = response.raw, asyncio.get_running_loop()
    if not isinstance(loop, Foreground) or getattr(raw, "_sock_shutdown", None) is None:
        return ThreadedStream(raw, head, where, worker)
    worker.end()
    stream = BlockingStream(
        head,
        raw,  # not the response: it will hold the body that is read from this
        read=_reading(raw),
        close=partial(close, raw),
        hang_up=partial(_hang_up, raw),
        here=True,
        translated=partial(_lost, where),
    )
    stream.inflate()
    return stream


def _reading(raw: Any) -> Callable[[], bytes | None]:
    """Gives what reads all that is there. urllib3 gives one chunk at a time, and waits where there is no other."""
    read, body = _reader_of(raw), getattr(raw, "_fp", None)
    buffer: Any = getattr(body, "fp", None)
    line = getattr(getattr(buffer, "raw", None), "_sock", None)

    def has_more(_: bytes) -> bool:
        if line is None or getattr(body, "chunk_left", None) != 0:
            return False
        try:
            before = line.gettimeout()
            line.settimeout(0)  # where nothing is buffered, peek() reads
            try:
                return NEXT_CHUNK.match(buffer.peek(64)) is not None
            finally:
                line.settimeout(before)
        except (OSError, ValueError):
            return False  # what it is, the next read will say

    return bursts(lambda: read(_PIECE, decode_content=False) or None, has_more)


def _reader_of(raw: Any) -> Any:
    return getattr(raw, "read1", None) or raw.read


def _lost(where: str, error: Exception) -> StreamBroken:
    root = root_of(error)
    lost = StreamBroken(f"{where}: the connection was lost, or the body's framing broken{cause(root)}")
    lost.__cause__ = ForeignError(root)
    return lost


class ThreadedStream(BodyStream):
    """One response, read ahead in a thread by a bounded number of pieces."""

    __slots__ = (
        "_closed",
        "_loop",
        "_over",
        "_pieces",
        "_raw",
        "_room",
        "_told",
        "_waiter",
        "_where",
        "_worker",
    )

    def __init__(self, raw: Any, head: Head, where: str, worker: Worker) -> None:
        super().__init__(head)
        self.inflate()
        self._raw = raw
        self._where = where
        self._worker = worker
        self._loop = asyncio.get_running_loop()
        self._pieces: deque[bytes] = deque()
        self._over: Exception | None = None
        """What follows the pieces."""
        self._room: SimpleQueue[None] = SimpleQueue()
        """One for each piece that may be read ahead."""
        for _ in range(_AHEAD):
            self._room.put(None)
        self._told = False
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False
        worker.submit(self._read_on)

    # -- what the thread does --------------------------------------------------------------------

    def _read_on(self) -> None:
        over: Exception = EndOfStream()
        try:
            read = _reader_of(self._raw)
            while True:
                self._room.get()
                if self._closed or not (piece := read(_PIECE, decode_content=False)):
                    break
                self._pieces.append(piece)
                self._tell()
        except Exception as error:  # noqa: BLE001 - a thread has nobody to raise to: the reader is told
            over = _lost(self._where, error)
        self._over = over
        self._tell()

    def _tell(self) -> None:
        if not self._told:
            self._told = True
            with contextlib.suppress(RuntimeError):  # the loop has ended, with the interpreter
                self._loop.call_soon_threadsafe(self._hear)

    def _hear(self) -> None:
        self._told = False
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # -- what the reader does --------------------------------------------------------------------

    async def _take(self) -> bytes:
        """Gives what has come, nothing at the clean end."""
        while not self._pieces:
            if self._closed:
                raise UsageError("this stream was closed")
            over = self._over
            if over is not None and not self._pieces:  # it may have been appended in between
                if isinstance(over, EndOfStream):
                    return b""
                raise over
            if not self._pieces:
                self._waiter = self._loop.create_future()
                try:
                    if not self._pieces and self._over is None:
                        await self._waiter
                finally:
                    self._waiter = None
        taken = [self._pieces.popleft() for _ in range(len(self._pieces))]
        for _ in taken:
            self._room.put(None)
        return taken[0] if len(taken) == 1 else b"".join(taken)

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._end is None and not self._reading:
            self._end = UsageError("this stream was closed")
        if self._over is None:
            _hang_up(self._raw)
            self._room.put(None)
        closing = asyncio.wrap_future(self._worker.submit(partial(close, self._raw)))
        self._worker.end()
        await asyncio.wait([closing], timeout=_CLOSING_SECONDS)


async def explanation(response: requests.Response, worker: Worker) -> bytes:
    """Reads the beginning of a body that tells why, and leaves it to be read again."""
    raw, begun = response.raw, bytearray()

    def read() -> None:
        with contextlib.suppress(HTTPError, OSError):  # its reader will meet that, too
            while len(begun) < MAX_ERROR_BODY and (piece := raw.read(_PIECE, decode_content=False)):
                begun.extend(piece)

    reading = asyncio.wrap_future(worker.submit(read))
    try:
        done, _ = await asyncio.wait([reading], timeout=ERROR_BODY_SECONDS)
    except BaseException:
        _hang_up(raw)
        raise
    if not done:
        _hang_up(raw)
        await reading
    worker.end()
    response.raw = HTTPResponse(
        body=_Again(bytes(begun), raw),
        headers=raw.headers,
        status=raw.status,
        reason=raw.reason,
        version=raw.version,
        preload_content=False,
        retries=getattr(raw, "retries", None),
        original_response=getattr(raw, "_original_response", None),
    )
    with contextlib.suppress(StreamError, MissingExtra):
        machine = inflater(response.headers.get("content-encoding", "identity"))
        return bytes(begun if machine is None else machine.feed(bytes(begun)))[:MAX_ERROR_BODY]
    return b""


class _Again(io.RawIOBase):
    """A body whose beginning was read, from its beginning."""

    def __init__(self, begun: bytes, raw: Any) -> None:
        self._begun = begun
        self._raw = raw
        self._over = False

    def isclosed(self) -> bool:
        """Says what http.client's bodies say at their end: urllib3 reads until then."""
        return self._over

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:
        size = -1 if size is None else size
        if self._begun:
            cut = len(self._begun) if size < 0 else size
            data, self._begun = self._begun[:cut], self._begun[cut:]
            return data if size >= 0 else data + self.read()
        data = self._raw.read(None if size < 0 else size, decode_content=False)
        self._over = size < 0 or not data
        return bytes(data or b"")

    def close(self) -> None:
        close(self._raw)
        super().close()


def root_of(error: BaseException) -> BaseException:
    """Gives what an error was made of: requests and urllib3 hand the one before on as an argument."""
    for _ in range(8):
        inner = getattr(error, "reason", None) or next(
            (arg for arg in error.args if isinstance(arg, BaseException)), None
        )
        if not isinstance(inner, BaseException):
            break
        error = inner
    return error


def close(raw: Any) -> None:
    with contextlib.suppress(Exception):
        raw.close()
        raw.release_conn()


def _hang_up(raw: Any) -> None:
    """Wakes the thread that waits for the network: closing a socket would not."""
    with contextlib.suppress(ValueError, RuntimeError, OSError, AttributeError):
        raw.shutdown()


__all__ = ["ThreadedStream", "close", "explanation", "root_of", "stream_of"]
