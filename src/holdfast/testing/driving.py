"""Runs coroutines to be cancelled: at every turn of the event loop, one after another.

A `Driver` runs each call in a task of its own, cancels it when told to, and knows every task that the call left
behind. It must never wait for ever itself: what hangs is an `AssertionError` after `PATIENCE_SECONDS`.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

PATIENCE_SECONDS = 10.0
SPINS = 32
"""Ticks that are bare turns of the loop. Later ones let it idle, so that clocks jump and sockets are heard."""
IDLE_SECONDS = 0.002
"""What such a tick lasts: uvloop, whose timers know whole milliseconds, must have time to be idle and be seen to be."""
MAX_TICKS = 2_000

_driven: contextvars.ContextVar[bool] = contextvars.ContextVar("holdfast_driven", default=False)


@dataclass(slots=True, frozen=True)
class Outcome:
    """How a call ended: with a value, with an error, or cancelled."""

    value: Any = None
    error: BaseException | None = None
    cancelled: bool = False


async def ticks_or_done(task: asyncio.Task[Any], ticks: int) -> None:
    """Lets the loop turn so many times, or until the task is done."""
    for number in range(ticks):
        if task.done():
            return
        await asyncio.sleep(0 if number < SPINS else IDLE_SECONDS)


def _new_task(loop: asyncio.AbstractEventLoop, coro: Any, **kwargs: Any) -> asyncio.Task[Any]:
    return asyncio.Task(coro, loop=loop, **kwargs)


class Driver:
    """A context manager; while it is entered, tasks that driven calls create are known."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[Any]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._factory: Any = None

    def __enter__(self) -> Self:
        self._loop = loop = asyncio.get_running_loop()
        self._factory = previous = loop.get_task_factory()

        def factory(loop: asyncio.AbstractEventLoop, coro: Any, **kwargs: Any) -> Any:
            make: Any = previous if previous is not None else _new_task
            task: asyncio.Task[Any] = make(loop, coro, **kwargs)
            if _driven.get():
                self._tasks.append(task)
            return task

        loop.set_task_factory(factory)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loop is not None:
            self._loop.set_task_factory(self._factory)

    def start(self, coro: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Starts a call in a task of its own."""
        context = contextvars.copy_context()
        context.run(_driven.set, True)
        return asyncio.get_running_loop().create_task(coro, context=context)

    async def finish(self, task: asyncio.Task[Any]) -> Outcome:
        """Waits for a started call."""
        done, _ = await asyncio.wait([task], timeout=PATIENCE_SECONDS)
        if not done:
            task.cancel()
            raise AssertionError(f"a call hangs: {task.get_coro()}")
        if task.cancelled():
            return Outcome(cancelled=True)
        error = task.exception()
        return Outcome(error=error) if error is not None else Outcome(value=task.result())

    async def run(self, coro: Coroutine[Any, Any, Any], *, cancel_at: int | None = None) -> Outcome:
        """Runs a call, cancelling it at the given tick if it is still running by then."""
        task = self.start(coro)
        if cancel_at is not None:
            await ticks_or_done(task, cancel_at)
            task.cancel()  # harmless where it is done
        return await self.finish(task)

    def running(self) -> list[asyncio.Task[Any]]:
        """Gives the tasks that driven calls have left running."""
        return [task for task in self._tasks if not task.done()]

    async def end_running(self) -> list[asyncio.Task[Any]]:
        """Gives `running()`, and ends them: the next check must not see them."""
        left = self.running()
        self._tasks.clear()
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        return left


async def cancel_everywhere(
    scenario: Callable[[], Awaitable[Any]], *, check: Callable[[], Awaitable[None] | None]
) -> int:
    """Runs `scenario()` again and again, cancelled at loop tick 1, 2, 3... until it ends by itself; returns the ticks.

    After every run `check()` is called, and awaited where it is asynchronous: it raises if something is still open
    or running. Raises `AssertionError` when a cancelled run ends in another way than cancelled or finished.
    """
    driver = Driver()
    for ticks in range(1, MAX_TICKS):

        async def call() -> None:
            await scenario()

        outcome = await driver.run(call(), cancel_at=ticks)
        if outcome.error is not None:
            raise AssertionError(f"cancelled at tick {ticks}, the scenario raised {outcome.error!r}") from outcome.error
        checked = check()
        if inspect.isawaitable(checked):
            await checked
        if not outcome.cancelled:
            return ticks
    raise AssertionError(f"the scenario did not end within {MAX_TICKS} ticks")
