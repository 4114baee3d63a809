"""Whether the machine stood still: a machine that does runs out every clock at once, and no contender is to blame.

It is felt in the server's own loop, never in a contender's process: one that keeps itself busy comes late by its own
fault, and must not be excused.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from time import monotonic
from types import TracebackType
from typing import Protocol, Self, TypeVar

EVERY = 0.05
LATE = 1.0
"""Seconds by which the loop may wake late; the tightest clock of the contenders is three times that."""
TRIES = 3


class Timed(Protocol):
    """What was done, and by how many seconds the loop woke late meanwhile, at worst."""

    title: str
    late: float


T = TypeVar("T", bound=Timed)


class Pulse:
    """Measures by how many seconds the loop wakes late, at worst, inside its `async with`: `late`."""

    def __init__(self) -> None:
        self.late = 0.0
        self._due = 0.0
        self._beating: asyncio.Task[None] | None = None

    async def _beat(self) -> None:
        while True:
            self._due = monotonic() + EVERY
            await asyncio.sleep(EVERY)
            self._note()

    def _note(self) -> None:
        self.late = max(self.late, monotonic() - self._due)

    async def __aenter__(self) -> Self:
        self._due = monotonic() + EVERY
        self._beating = asyncio.create_task(self._beat())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._note()  # the last beat may be late and not yet awake
        if self._beating is not None:
            self._beating.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._beating


async def steady(once: Callable[[], Awaitable[T]]) -> T:
    """Does it again, up to three times in all, while the machine stands still; gives the try that it disturbed least.

    What came of a try has no say in that.
    """
    done: list[T] = []
    for left in reversed(range(TRIES)):
        done.append(await once())
        if done[-1].late <= LATE or not left:
            break
        print(f"{done[-1].title:<28} plays again: the machine stood still for {done[-1].late:.1f} s", flush=True)
    return min(done, key=lambda one: one.late)


def disturbed(done: Iterable[T]) -> list[T]:
    """Gives those that even the last try could not keep steady."""
    return [one for one in done if one.late > LATE]
