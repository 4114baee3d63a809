"""Tasks that a stream owns: it cancels them in `aclose()` and waits for them there, whoever cancels meanwhile.

A second cancellation, of the closer, must not leave a task behind: nobody else would ever wait for it.
"""

from __future__ import annotations

import asyncio
from typing import Any, Generic, TypeVar

from holdfast._core import Source, Stream
from holdfast._errors import UsageError
from holdfast._types import Request

T = TypeVar("T")


async def outlast(task: asyncio.Task[Any]) -> None:
    """Returns when the task is done, however it ended. A cancellation that comes meanwhile is passed on after that."""
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


def _look_at(task: asyncio.Task[Any]) -> None:
    """A failure that nobody comes to ask for is not worth a complaint of the event loop's."""
    if not task.cancelled():
        task.exception()


class Opening(Generic[T]):
    """One request on its way, which outlives a cancelled wait for it.

    A reader that polls (`asyncio.timeout(0.1)` around each read) would else send a new request at every poll, and pay
    for each. The next `stream()` takes the same request up again; `aclose()` gives it up.
    """

    __slots__ = ("_task",)

    def __init__(self, source: Source[T], request: Request) -> None:
        self._task = asyncio.ensure_future(source.open(request))
        self._task.add_done_callback(_look_at)

    async def stream(self) -> Stream[T]:
        """Returns the opened stream. Raises what opening raised. Cancelled, it may be called again."""
        try:
            return await asyncio.shield(self._task)
        except asyncio.CancelledError:
            waiter = asyncio.current_task()
            if self._task.cancelled() and waiter is not None and not waiter.cancelling():
                raise UsageError("the stream was closed while it was being opened") from None
            raise

    async def aclose(self) -> None:
        """Gives it up: cancels, waits, and closes what was opened in spite of that."""
        self._task.cancel()
        try:
            await outlast(self._task)
        finally:
            if not self._task.cancelled() and self._task.exception() is None:
                await self._task.result().aclose()
