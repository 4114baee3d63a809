"""One event loop in the background, for those who are not asynchronous: the same pipe, driven from any thread.

There is one for the process: a daemon thread that is started when somebody first needs it, left behind by a fork, whose
child gets its own, and ended with the interpreter. Who waits for it can be interrupted, and what he waited for is
cancelled and seen to its end. A call and its streams run in the caller's context, so that spans find their parents.

Batches are pumped through a bounded queue and not fetched one by one: a hop to the other thread and back costs several
times what an event costs.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import contextvars
import os
import queue
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from functools import partial
from typing import Any, Generic, TypeVar

from holdfast._errors import UsageError

T = TypeVar("T")

QUEUED = 16
"""Batches that wait for a reader before the pump does."""
_PATIENCE_SECONDS = 10.0
"""How long an interrupted caller waits for what he began to come to its end."""


class Background:
    """An event loop in a daemon thread. `background()` gives the one of this process."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.left_behind = False
        """This process is a fork's child, and the thread is its parent's."""
        self.leaving = False
        """The interpreter ends. Who still waits is a daemon thread: told of it, that would print a traceback."""
        self._thread = threading.Thread(target=self._run, name="holdfast-loop", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self._finish()

    def _finish(self) -> None:
        """Ends what is left as `asyncio.run()` does."""
        loop = self.loop
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()

    @property
    def gone(self) -> bool:
        """True where nothing runs in it any more, and nothing can be waited for."""
        return self.left_behind or self.loop.is_closed()

    def stop(self) -> None:
        """Ends the loop and its thread; streams that are still being read fail."""
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(_PATIENCE_SECONDS)

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine in the loop and waits for it. Raises what it raises.

        Interrupted (Ctrl-C), it cancels the coroutine, lets it clean up, and raises the interruption.
        """
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise UsageError("this would wait for itself: in the background loop, use the asynchronous client")
        done: Future[T] = Future()
        tasks: list[asyncio.Task[T]] = []

        def start() -> None:
            tasks.append(self.loop.create_task(coroutine))
            tasks[0].add_done_callback(partial(self._settle, done))

        try:
            self.soon(start)
        except UsageError:
            coroutine.close()
            raise
        try:
            return done.result()
        finally:
            # A call that is over needs none of this; one that was interrupted must not be left running.
            if not done.done():
                self.soon(partial(_cancel, tasks))
                _outwait(done)

    def _settle(self, done: Future[T], task: asyncio.Task[T]) -> None:
        if task.cancelled():
            if not self.leaving:
                done.set_exception(UsageError("the background loop has ended"))
        elif (error := task.exception()) is not None:
            done.set_exception(error)
        else:
            done.set_result(task.result())

    def soon(self, callback: Callable[[], object]) -> None:
        """Calls something in the loop, in the caller's context. Raises `UsageError` where the loop is gone."""
        if self.left_behind:
            raise UsageError("the background loop is the parent's: what was begun before a fork is not for its child")
        try:
            self.loop.call_soon_threadsafe(callback, context=contextvars.copy_context())
        except RuntimeError:
            raise UsageError("the background loop has ended with the interpreter") from None


def _cancel(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()


def _outwait(done: Future[Any]) -> None:
    with contextlib.suppress(TimeoutError):  # what does not let itself be cancelled is not waited for any longer
        done.exception(_PATIENCE_SECONDS)


class _Held:
    """The one of this process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.background: Background | None = None

    def forget(self) -> None:
        """Begins anew: in the child of a fork is a loop without a thread, and a lock that nobody may ever open."""
        if self.background is not None:
            self.background.left_behind = True
        self.lock = threading.Lock()
        self.background = None

    def stop(self) -> None:
        held, self.background = self.background, None
        if held is not None:
            held.leaving = True
            held.stop()


_held = _Held()
atexit.register(_held.stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_held.forget)


def background() -> Background:
    """Gives the loop of this process, which is started where there is none."""
    held = _held.background
    if held is None:
        with _held.lock:
            held = _held.background = _held.background or Background()
    return held


def running() -> Background | None:
    """Gives the loop of this process where there is one already: for who must not start one, the collector for one."""
    return _held.background


_reading: set[Pump[Any]] = set()
"""The pumps at work: held here, so that who reads and does not close is collected before what he read, and gives it up.

A loop holds its tasks weakly, and one that waits for room nobody else holds.
"""


class Pump(Generic[T]):
    """Reads in the loop, and hands over in another thread, in order and at most `QUEUED` batches ahead.

    `read()` gives the next batch, and None at the end; what it raises is raised behind what came before. It lives in
    one task, from its first call to `close()`'s. Neither `read` nor `close` may hold who reads: his `__del__` calls
    `abandon()`.
    """

    def __init__(
        self,
        loop: Background,
        read: Callable[[], Coroutine[Any, Any, T | None]],
        close: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        self._loop = loop
        self._read = read
        self._close = close
        self._queue: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()
        self._room = asyncio.Event()
        self._end: tuple[None, BaseException | None] | None = None
        self._closed = False
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begins to read; to be called in the loop."""
        task = asyncio.get_running_loop().create_task(self._pump(), name="holdfast-pump")
        self._tasks.append(task)
        _reading.add(self)
        task.add_done_callback(lambda _: _reading.discard(self))

    async def _pump(self) -> None:
        put, room = self._queue.put, self._room
        try:
            while (batch := await self._read()) is not None:
                put((batch, None))
                if self._queue.qsize() >= QUEUED:
                    room.clear()
                    if self._queue.qsize() >= QUEUED:  # the reader may have been here in between
                        await room.wait()
            put((None, None))
        except asyncio.CancelledError:
            if not self._loop.leaving:
                put((None, UsageError("this stream was closed")))
            raise
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is raised where somebody reads
            put((None, error))

    def next(self) -> T | None:
        """Waits for the next batch, and gives it: None at the end, and from then on. Raises what `read()` raised."""
        if self._end is None:
            if self._loop.left_behind:
                raise UsageError("this stream was begun before a fork, and is the parent's")
            if self._loop.leaving and not threading.current_thread().daemon:
                raise UsageError("the background loop has ended with the interpreter")
            batch, error = self._queue.get()
            if not self._room.is_set() and self._queue.qsize() <= QUEUED // 2:
                self._loop.soon(self._room.set)
            if batch is not None:
                return batch
            self._end = (None, error)
            self._queue.put(self._end)  # another thread may wait for it, too
        if self._end[1] is not None:
            raise self._end[1]
        return None

    @property
    def closed(self) -> bool:
        """True once it was closed or abandoned, or where there is nothing left to close."""
        return self._closed or self._loop.gone

    def close(self) -> None:
        """Ends the reading and closes what was read. Idempotent."""
        if not self._closed:
            self._closed = True
            if not self._loop.gone:  # else there is nothing left to close
                self._loop.call(self._finish())

    async def _finish(self) -> None:
        for task in self._tasks:
            task.cancel()
            await asyncio.wait([task])
        await self._close()

    def abandon(self) -> None:
        """Does what `close()` does without waiting for it: for who must not wait, the collector for one."""
        if not self.closed:
            self._closed = True
            loop = self._loop.loop
            with contextlib.suppress(RuntimeError):  # it ends at this moment
                loop.call_soon_threadsafe(lambda: loop.create_task(self._finish()))


class Worker:
    """A thread for calls that block, one after another; it waits between them, and ends with its last one.

    A pool would be shared, and streams that wait would keep others from being read.
    """

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = queue.SimpleQueue()
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._run,), name="holdfast-worker", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            call, done = job
            if done.set_running_or_notify_cancel():
                try:
                    done.set_result(call())
                except BaseException as error:  # noqa: BLE001 - it is raised where it was asked for
                    done.set_exception(error)
            del job, call, done

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Puts a call in the line."""
        done: Future[T] = Future()
        self._jobs.put((call, done))
        return done

    def end(self) -> None:
        """Lets the thread end after what is in the line."""
        self._jobs.put(None)


__all__ = ["Background", "Pump", "Worker", "background", "running"]
