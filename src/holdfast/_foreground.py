"""An event loop without a thread: it runs in that of whoever waits for something of it, for as long as he waits.

One stands under each call of a blocking client. A hop to another thread and back costs as much as all that the pipe
does to an event, and an event loop that watches sockets costs more than a read that blocks. So here a read blocks, in
the thread of its reader, where the loop would else wait for sockets: `block()`.

Threads that use one loop at once take turns. Who blocks lets the others in: closing from another thread runs while the
reader still waits for the network, and makes him return. A timer that is due meanwhile is rung from the background
loop. So a call that blocks must come with a way to end it; one without belongs into a `Worker`.

It must never run what it was not given by its own call: what an interruption breaks is that call alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import heapq
import math
import os
import threading
import time
from asyncio.log import logger as asyncio_log
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from holdfast._background import Worker, background, running
from holdfast._errors import UsageError

T = TypeVar("T")

_PATIENCE_SECONDS = 10.0
"""How long an interrupted caller waits for what he began to come to its end."""
_BUSY_SECONDS = 0.05
"""After which a loop that was at work is looked at again."""


class _Handle:
    """A callback and when it is due; 0.0 for the next turn."""

    __slots__ = ("_args", "_call", "_context", "when")

    def __init__(
        self, when: float, call: Callable[..., object], args: tuple[Any, ...], context: contextvars.Context | None
    ) -> None:
        self.when = when
        self._call: Callable[..., object] | None = call
        self._args = args
        self._context = context if context is not None else contextvars.copy_context()

    def __lt__(self, other: _Handle) -> bool:
        return self.when < other.when

    def cancel(self) -> None:
        self._call, self._args = None, ()

    def cancelled(self) -> bool:
        return self._call is None

    def run(self) -> None:
        if self._call is not None:
            self._context.run(self._call, *self._args)


class Blocked(Generic[T]):
    """A call that blocks: at first nobody's, then made by one thread, then over."""

    __slots__ = ("_call", "_over", "begun", "ended", "hang_up", "result")

    def __init__(self, loop: Foreground, call: Callable[[], T], hang_up: Callable[[], object]) -> None:
        self._call = call
        self.hang_up = hang_up
        self._over: list[asyncio.Future[None]] = []
        self.begun = False
        self.ended = False
        self.result: asyncio.Future[T] = loop.create_future()

    def make(self, release: Callable[[], None], retake: Callable[[], None]) -> None:
        """Makes the call, having let others in, and tells what came of it."""
        self.begun = True
        error: BaseException | None = None
        made: Any = None
        release()
        try:
            made = self._call()
        except BaseException as failure:  # noqa: BLE001 - it is raised where it was asked for
            error = failure
        finally:
            retake()
        self.ended = True
        if self.result.done():  # it was given up
            pass
        elif error is None:
            self.result.set_result(made)
        elif isinstance(error, Exception) and not isinstance(error, StopIteration):
            self.result.set_exception(error)
        else:
            self.result.set_exception(InterruptedError("the reading was interrupted"))
        for waiter in self._over:
            if not waiter.done():
                waiter.set_result(None)
        if error is not None and not isinstance(error, Exception):
            raise error

    async def end(self) -> None:
        """Makes the call return, and waits until it has, whoever cancels meanwhile."""
        cancelled: asyncio.CancelledError | None = None
        while self.begun and not self.ended:
            self.hang_up()
            waiter = asyncio.get_running_loop().create_future()
            self._over.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled


class Foreground(asyncio.AbstractEventLoop):
    """The event loop of one call. `run()` is its only way in; any thread may use it."""

    def __init__(self) -> None:
        self._born = _generation
        self._ready: deque[_Handle] = deque()
        self._timers: list[_Handle] = []
        self._turn = threading.Lock()
        """Held by the thread that runs the loop, while it neither blocks nor waits."""
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._waiting = 0
        """Threads that wait for the bell."""
        self._blocked: Blocked[Any] | None = None
        self.looked_at = math.inf
        """When the watch will look at it; another thread may say so too early, and never too late."""

    @property
    def left_behind(self) -> bool:
        """This process is a fork's child, and what was begun here its parent's."""
        return self._born is not _generation

    # -- running ---------------------------------------------------------------------------------

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine in the thread that calls, and gives what it gives. Raises what it raises.

        Interrupted (Ctrl-C), it cancels the coroutine, lets it clean up, and raises the interruption. A thread in which
        another loop runs has it run in one of its own, and waits for that.
        """
        running = asyncio._get_running_loop()  # noqa: SLF001 - the public one raises where none runs
        if self.left_behind or running is self:
            coroutine.close()
            if running is self:
                raise UsageError("this would wait for itself: what is called from a stream's layers cannot read it")
            raise UsageError("this stream was begun before a fork, and is the parent's")
        if running is not None:
            return _elsewhere(partial(self.run, coroutine))
        try:
            self._turn.acquire()
        except BaseException:  # interrupted while others ran it
            coroutine.close()
            raise
        try:
            task = asyncio.Task(coroutine, loop=self)
            try:
                self._run_until(task, math.inf)
            except BaseException:
                task.cancel()
                self._run_until(task, time.monotonic() + _PATIENCE_SECONDS)
                if task.done() and not task.cancelled():
                    task.exception()  # the interruption is what is raised
                raise
        finally:
            self._pass_on()
            self._turn.release()
        return task.result()

    def leave(self, make: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Has a coroutine run in another thread, and does not wait for it: the collector must not, for one."""
        there = None if self.left_behind else running()
        if there is not None and not there.gone:
            with contextlib.suppress(RuntimeError):  # it ends at this moment
                there.loop.call_soon_threadsafe(_in_passing, self, make)

    def interrupt(self) -> None:
        """Makes the call that blocks return, from any thread, without waiting for it."""
        blocked = self._blocked
        if blocked is not None and not self.left_behind:
            blocked.hang_up()

    def _run_until(self, task: asyncio.Task[Any], until: float) -> None:
        while True:
            self._run_ready()
            if task.done():
                return
            blocked = self._blocked
            if blocked is not None and not blocked.begun:
                self._make(blocked)
            elif not self._wait(until):
                return

    def _make(self, blocked: Blocked[Any]) -> None:
        if self._timers and self._timers[0].when < self.looked_at:
            _watch.add(self, self._timers[0].when)
        self._pass_on()
        try:
            blocked.make(self._turn.release, self._retake)
        finally:
            if self._blocked is blocked:
                self._blocked = None

    def _pass_on(self) -> None:
        """Wakes somebody else to wait for the timers: a bell rings for one thread only, and that one will not now."""
        if self._waiting:
            self._bell.put(None)

    def _wait(self, until: float) -> bool:
        """Waits for somebody to ring, or a timer to be due; False once it is later than `until`."""
        now = time.monotonic()
        if now >= until:
            return False
        if self._timers:
            until = min(until, self._timers[0].when)
        self._waiting += 1
        self._turn.release()
        try:
            with contextlib.suppress(Empty):
                self._bell.get(timeout=None if until == math.inf else max(0.0, until - now))
        finally:
            self._retake()
            self._waiting -= 1
        return True

    def _retake(self) -> None:
        try:
            self._turn.acquire()
        except BaseException:
            self._turn.acquire()  # interrupted: it is raised where the turn is ours again
            raise

    def _run_ready(self) -> None:
        """Runs what is due until nothing is."""
        before, ran = asyncio._get_running_loop(), False  # noqa: SLF001
        asyncio._set_running_loop(self)  # noqa: SLF001 - for who writes a loop
        try:
            ready, timers = self._ready, self._timers
            while True:
                if timers:
                    now = time.monotonic()
                    while timers and timers[0].when <= now:
                        ready.append(heapq.heappop(timers))
                if not ready:
                    return
                ran = True
                for _ in range(len(ready)):
                    try:
                        ready.popleft().run()
                    except Exception as error:  # noqa: BLE001 - a callback's: it must not keep others from theirs
                        self.call_exception_handler({"message": "a callback failed", "exception": error})
        finally:
            asyncio._set_running_loop(before)  # noqa: SLF001
            if ran:
                self._pass_on()

    def close(self) -> None:
        """Lets go of what is of no more use; it may still be used."""
        _watch.forget(self)
        self.looked_at = math.inf

    def look(self) -> float:
        """Rings what is due while everybody blocks or waits; says when to look again, infinity for never.

        It is called in the background loop, which must not wait for whoever runs this one.
        """
        if self.left_behind:
            return math.inf
        if not self._turn.acquire(blocking=False):
            return time.monotonic() + _BUSY_SECONDS
        try:
            self._run_ready()
            blocked = self._blocked is not None
            self.looked_at = self._timers[0].when if blocked and self._timers else math.inf
            return self.looked_at
        finally:
            self._turn.release()

    # -- for what runs in it ---------------------------------------------------------------------

    async def block(self, call: Callable[[], T], hang_up: Callable[[], object]) -> T:
        """Makes a call that blocks in the thread of whoever waits for it; `hang_up` makes it return, from any thread.

        Cancelled, it does not come back before the call has. Raises `InterruptedError` where a signal broke it.
        """
        if self._blocked is not None:
            raise UsageError("one call blocks already")
        self._blocked = blocked = Blocked(self, call, hang_up)
        try:
            return await blocked.result
        except asyncio.CancelledError:
            await blocked.end()
            raise
        finally:
            if self._blocked is blocked:
                self._blocked = None

    async def unblock(self) -> None:
        """Makes the call that blocks return, and waits until it has."""
        if self._blocked is not None:
            await self._blocked.end()

    def call_soon(  # type: ignore[override]  # a handle of its own: asyncio's costs twice as much
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> _Handle:
        handle = _Handle(0.0, callback, args, context)
        self._ready.append(handle)
        return handle

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> _Handle:
        handle = self.call_soon(callback, *args, context=context)
        self._bell.put(None)
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> _Handle:
        handle = _Handle(when, callback, args, context)
        heapq.heappush(self._timers, handle)
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> _Handle:
        return self.call_at(time.monotonic() + delay, callback, *args, context=context)

    def time(self) -> float:
        return time.monotonic()

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Any = None, **_: Any) -> asyncio.Task[Any]:
        return asyncio.Task(coro, loop=self, name=name, context=context)

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return not self.left_behind

    def is_closed(self) -> bool:
        return self.left_behind

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Logs it as asyncio does."""
        asyncio_log.error(context.get("message", "an error"), exc_info=context.get("exception"))


def foreground() -> Foreground:
    """Gives a loop for one call."""
    return Foreground()  # type: ignore[abstract]  # what nobody asks a loop without sockets for


_reading: set[Pull[Any]] = set()
"""What is being read: held here, so that who reads and does not close is collected before what he read."""


class Pull(Generic[T]):
    """Reads in the thread of whoever asks for the next batch: what a `Pump` is, without reading ahead.

    `read()` gives the next batch, and an empty one at the end, from then on. Neither `read` nor `close` may hold who
    reads: his `__del__` calls `abandon()`.
    """

    __slots__ = ("_close", "_closed", "_loop", "_read", "_run")

    def __init__(
        self,
        loop: Foreground,
        read: Callable[[], Coroutine[Any, Any, T]],
        close: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        self._loop = loop
        self._run = loop.run
        self._read = read
        self._close = close
        self._closed = False
        _reading.add(self)

    def next(self) -> T | None:
        """Waits for the next batch, and gives it: None at the end. Raises what `read()` raises."""
        return self._run(self._read()) or None

    def close(self) -> None:
        """Closes what was read; who still waits for it is let go. Idempotent."""
        if not self._closed:
            self._closed = True
            _reading.discard(self)
            if not self._loop.left_behind:  # else it is not ours to close
                self._loop.run(self._close())
                self._loop.close()

    def abandon(self) -> None:
        """Does what `close()` does without waiting for it."""
        if not self._closed:
            self._closed = True
            self._loop.leave(self._close)
            _reading.discard(self)

    def interrupt(self) -> None:
        """Wakes who waits for a batch."""
        self._loop.interrupt()


def _in_passing(loop: Foreground, make: Callable[[], Coroutine[Any, Any, object]]) -> None:
    worker = Worker()
    worker.submit(lambda: loop.run(make()))
    worker.end()


def _elsewhere(call: Callable[[], T]) -> T:
    worker = Worker()
    try:
        return worker.submit(call).result()
    finally:
        worker.end()


class _Watch:
    """Rings the timers of loops whose threads block, from the background loop."""

    def __init__(self) -> None:
        self._loops: set[Foreground] = set()
        self._at = math.inf

    def add(self, loop: Foreground, when: float) -> None:
        """Has a loop looked at by then."""
        loop.looked_at = when
        self._loops.add(loop)
        if when < self._at:  # read after it was added: who looks meanwhile finds it
            background().soon(partial(self._look_by, when))

    def forget(self, loop: Foreground) -> None:
        """It is not used any more."""
        self._loops.discard(loop)

    def _look_by(self, when: float) -> None:
        if when < self._at:
            self._at = when
            loop = asyncio.get_running_loop()
            loop.call_later(max(0.0, when - time.monotonic()), self._look, when)

    def _look(self, due: float) -> None:
        if due != self._at:
            return  # another, earlier one has come and looked
        self._at = math.inf
        soonest = math.inf
        for loop in list(self._loops):
            self._loops.discard(loop)  # before it is looked at: it may be added again at this moment
            when = loop.look() if loop.looked_at <= due else loop.looked_at
            if when < math.inf:
                self._loops.add(loop)
            soonest = min(soonest, when)
        if soonest < math.inf:
            self._look_by(soonest)


_generation = object()
"""Another one in each process."""
_watch = _Watch()


def _begin_anew() -> None:
    global _generation, _watch
    _generation, _watch = object(), _Watch()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)


__all__ = ["Blocked", "Foreground", "Pull", "foreground"]
