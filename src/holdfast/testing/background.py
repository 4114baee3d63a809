"""A server in a thread with an event loop of its own, for tests and clients that are not asynchronous.

The thread must never outlive its block, and what goes wrong in it is raised in the block that started it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, TypeVar

S = TypeVar("S", bound=AbstractAsyncContextManager[Any])

_PATIENCE_SECONDS = 10.0


@contextmanager
def in_background(server: S) -> Iterator[S]:
    """Runs a server (or any asynchronous context manager) in a thread, from entering the block to leaving it."""
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
    ended: Future[None] = Future()

    async def serve() -> None:
        stop = asyncio.Event()
        async with server:
            started.set_result((asyncio.get_running_loop(), stop))
            await stop.wait()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:  # noqa: BLE001 - told to whoever waits
            (ended if started.done() else started).set_exception(error)
        if not ended.done():
            ended.set_result(None)

    thread = threading.Thread(target=run, name="holdfast-server", daemon=True)
    thread.start()
    loop, stop = started.result(_PATIENCE_SECONDS)
    try:
        yield server
    except BaseException as failure:
        _leave(loop, stop, thread)
        if ended.done() and (cause := ended.exception()) is not None:
            failure.add_note(f"while its server raised {cause!r}")  # what the client raises says nothing of the cause
        raise
    _leave(loop, stop, thread)
    ended.result(_PATIENCE_SECONDS)


def _leave(loop: asyncio.AbstractEventLoop, stop: asyncio.Event, thread: threading.Thread) -> None:
    loop.call_soon_threadsafe(stop.set)
    thread.join(_PATIENCE_SECONDS)


__all__ = ["in_background"]
