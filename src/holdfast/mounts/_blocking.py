"""One response that is read by calls that block: in the thread of its reader where they can be ended, else in another.

A call that waits for the network ends when its socket is shut down; closing it would not wake it. Where there is no
socket to be had, or others share it, a `Worker` reads, and is left alone where it does not come back.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from holdfast._background import Worker
from holdfast._errors import StreamBroken, UsageError
from holdfast._foreground import Foreground
from holdfast._types import Head
from holdfast.sources._http import BodyStream

CLOSING_SECONDS = 1.0
"""How long closing waits for a thread to let go."""


class BlockingStream(BodyStream):
    """One response.

    `read` gives the next piece, which may be empty, and None at the end; `close` ends it; `hang_up` makes `read`
    return, where the connection is its own; `here` allows to read in the reader's own thread; `translated` gives the
    error to raise in place of the library's.
    """

    __slots__ = (
        "_close",
        "_closed",
        "_end_it",
        "_loop",
        "_read",
        "_torn",
        "_translated",
        "_under_way",
        "_worker",
        "response",
    )

    def __init__(
        self,
        head: Head,
        response: Any,
        *,
        read: Callable[[], bytes | None],
        close: Callable[[], object],
        hang_up: Callable[[], object] | None,
        here: bool,
        translated: Callable[[Exception], Exception],
    ) -> None:
        super().__init__(head)
        self.response = response
        self._read = read
        self._close = close
        self._end_it = hang_up
        self._translated = translated
        loop = asyncio.get_running_loop()
        self._loop = loop if here and hang_up is not None and isinstance(loop, Foreground) else None
        self._worker: Worker | None = None
        self._under_way: Any = None
        self._torn = False
        """What came behind an interruption is not the body's end."""
        self._closed = False

    async def _take(self) -> bytes:
        """Gives what has come, nothing at the clean end."""
        while True:
            if self._closed:
                raise UsageError("this stream was closed")
            try:
                if self._loop is not None:
                    piece = await self._loop.block(self._next, self._hang_up)
                else:
                    piece = await self._elsewhere()
            except (UsageError, StreamBroken):
                raise
            except Exception as error:  # noqa: BLE001 - whatever the library raises is translated
                failure = self._translated(error)
            else:
                if piece is None:
                    return b""
                if piece:
                    return piece
                continue
            raise failure

    async def _elsewhere(self) -> bytes | None:
        """Has the worker read. Of a wait that was cancelled, the next one takes what comes: nothing is lost."""
        if self._under_way is None:
            self._worker = self._worker or Worker()
            self._under_way = self._worker.submit(self._next)
        await done(self._under_way)
        piece: bytes | None = self._under_way.result()
        self._under_way = None
        return piece

    def _next(self) -> bytes | None:
        """Makes the call that blocks."""
        if self._torn:
            raise StreamBroken("the reading was interrupted")
        try:
            piece = self._read()
        except BaseException:
            self._torn = True
            raise
        if not piece and self._torn:
            raise StreamBroken("the reading was interrupted")
        return piece

    def _hang_up(self) -> None:
        """Wakes the thread that waits for the network."""
        self._torn = True
        if self._end_it is not None:
            self._end_it()

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._end is None and not self._reading:
            self._end = UsageError("this stream was closed")
        if self._loop is not None:
            await self._loop.unblock()
            self._shut()
            return
        worker, self._worker = self._worker or Worker(), None
        if self._under_way is not None and not self._under_way.done():
            self._hang_up()
        await close_in(worker, self._shut)

    def _shut(self) -> None:
        with contextlib.suppress(Exception):  # the answer is whole or has failed already
            self._close()


def bursts(read: Callable[[], bytes | None], has_more: Callable[[bytes], bool]) -> Callable[[], bytes | None]:
    """Gives what reads all that is there, of what reads a piece at a time and waits where there is none.

    `has_more` says whether another piece is there behind one. A failure comes after what had arrived before it.
    """
    failed: list[Exception] = []

    def read_all() -> bytes | None:
        if failed:
            raise failed.pop()
        piece = read()
        if not piece or not has_more(piece):
            return piece
        pieces = [piece]
        try:
            while True:
                pieces.append(piece := read() or b"")
                if not piece or not has_more(piece):
                    break
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the next one's
            failed.append(error)
        return b"".join(pieces)

    return read_all


async def close_in(worker: Worker, close: Callable[[], object]) -> None:
    """Has a worker close something as his last work, and waits for that, but not for long."""
    closing = worker.submit(close)
    worker.end()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CLOSING_SECONDS):
            await done(closing)


async def done(job: Any) -> None:
    """Waits for a worker. Cancelled, it leaves him alone."""
    over = asyncio.Event()
    loop = asyncio.get_running_loop()

    def tell(_: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is gone
            loop.call_soon_threadsafe(over.set)

    job.add_done_callback(tell)
    await over.wait()


__all__ = ["BlockingStream", "bursts", "close_in", "done"]
