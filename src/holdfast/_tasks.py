"""Waiting for a task that is about to end, whoever cancels meanwhile.

A stream that owns a task cancels it in `aclose()` and waits for it there. A second cancellation, of the closer, must
not leave the task behind: nobody else would ever wait for it.
"""

from __future__ import annotations

import asyncio
from typing import Any


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
