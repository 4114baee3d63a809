"""A source that needs no network: bytes or items from memory, from any iterable, or from a recording.

It keeps the contract like any other source: an iterable's own exceptions are translated, a cancelled `receive()` does
not break a generator that was about to yield, and what can be read only once says so when it is asked for again.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar, cast, overload

import msgspec

from holdfast._core import Stream
from holdfast._errors import ConnectError, EndOfStream, StreamBroken, StreamError, UsageError
from holdfast._tasks import outlast
from holdfast._types import Head, Request
from holdfast.machines.recording import Story, beside, numbered
from holdfast.machines.statuses import status_error

T = TypeVar("T")

MAX_ERROR_BODY = 64 * 1024
_EVENT_STREAM = Head(headers={"content-type": "text/event-stream"})


class MemorySource(Generic[T]):
    """Serves `bodies`, one an `open()`; the last one again and again.

    A body is bytes (or a str), an iterable or asynchronous iterable of items, or an exception that `open()` raises.
    Each item is a batch of its own; one that is an exception is raised when it is reached. An iterator can be read
    once: a second `open()` raises a `ConnectError` that is not retryable. `head` answers every `open()`; a status that
    is not 2xx makes the body a refusal, as it does on the wire.
    """

    @overload
    def __init__(
        self: MemorySource[bytes],
        *bodies: bytes | Iterable[bytes | Exception] | AsyncIterable[bytes | Exception] | Exception,
        head: Head = ...,
    ) -> None: ...

    @overload
    def __init__(
        self,
        *bodies: Iterable[T | Exception] | AsyncIterable[T | Exception] | Exception,
        head: Head = ...,
    ) -> None: ...

    def __init__(self, *bodies: Any, head: Head = _EVENT_STREAM) -> None:
        if not bodies:
            raise ValueError("MemorySource needs at least one body; an empty one is b''")
        self._attempts: list[tuple[Any, Head]] = [(body, head) for body in bodies]
        self._opened = 0
        self._spent: set[int] = set()

    @classmethod
    def replay(cls, path: str | os.PathLike[str]) -> MemorySource[bytes]:
        """Plays what the `Record` layer wrote to `path`: every attempt of the stream, with heads and failures.

        A plain file of wire bytes will do as well. An attempt that the reader gave up ends where the recording ends.
        """
        attempts = [_attempt(*one) for one in recorded(path)]
        source: MemorySource[bytes] = MemorySource(b"")
        source._attempts = attempts
        return source

    async def open(self, request: Request) -> Stream[T]:
        place = min(self._opened, len(self._attempts) - 1)
        self._opened += 1
        body, head = self._attempts[place]
        if isinstance(body, Exception):
            raise _translated(body, ConnectError) from _cause(body)
        if isinstance(body, bytes | str):
            body = (body,) if body else ()
        items: Any = body.__aiter__() if isinstance(body, AsyncIterable) else iter(body)
        if items is body:
            if place in self._spent:
                raise ConnectError("an iterator can be read only once; give MemorySource a list", retryable=False)
            self._spent.add(place)
        stream: Stream[T] = _Pulled(items, head) if isinstance(items, AsyncIterator) else _Listed(items, head)
        if not 200 <= head.status < 300:
            raise status_error(head, await _read_refusal(stream), request.call.clock.wall())
        return stream


class _Listed(Generic[T]):
    """A stream of items that are there: it never waits, so it can neither be cancelled nor have a second reader."""

    __slots__ = ("_end", "_items", "head")

    def __init__(self, items: Iterator[T], head: Head) -> None:
        self.head = head
        self._items = items
        self._end: Exception | None = None

    async def receive(self) -> Sequence[T]:
        if self._end is not None:
            raise self._end
        item = _take(self._items)
        if isinstance(item, Exception):
            self._end = _translated(item, StreamBroken)
            raise self._end from _cause(item)
        return (item,)

    async def aclose(self) -> None:
        if self._end is None:
            self._end = UsageError("this stream is closed")
            self._items = iter(())


class _Pulled(Generic[T]):
    """A stream of items that have to be waited for.

    Cancelling an asynchronous generator ends it, so each item is fetched in a task that a cancelled `receive()` leaves
    running.
    """

    __slots__ = ("_closed", "_closing", "_end", "_items", "_next", "_reading", "head")

    def __init__(self, items: AsyncIterator[T], head: Head) -> None:
        self.head = head
        self._items = items
        self._next: asyncio.Task[T | Exception] | None = None
        self._end: Exception | None = None
        self._reading = False
        self._closed: UsageError | None = None
        self._closing: asyncio.Task[None] | None = None

    async def receive(self) -> Sequence[T]:
        if self._end is not None:
            raise self._end
        if self._reading:
            raise UsageError("this stream has a reader already")
        self._reading = True
        try:
            if self._next is None:
                self._next = asyncio.create_task(_fetch(self._items))
            await asyncio.wait([self._next])
        finally:
            self._reading = False
        fetched, self._next = self._next, None
        if fetched.cancelled():  # by aclose(), which has said so, or by the iterable itself
            item: T | Exception = self._closed or StreamBroken("the iterable that is read was cancelled")
        else:
            item = fetched.result()
        if isinstance(item, Exception):
            self._end = _translated(item, StreamBroken)
            raise self._end from _cause(item)
        return (item,)

    async def aclose(self) -> None:
        if self._closing is None:
            self._closing = asyncio.create_task(self._finish())
        await outlast(self._closing)

    async def _finish(self) -> None:
        self._closed = UsageError("this stream is closed")
        self._end = self._end or self._closed
        if self._next is not None:
            self._next.cancel()
            await asyncio.wait([self._next])
        close = getattr(self._items, "aclose", None)
        if close is not None:
            await close()


def _take(items: Iterator[T]) -> T | Exception:
    try:
        return next(items)
    except Exception as error:  # noqa: BLE001 - whatever somebody's iterator raises is how its stream ends
        return error


async def _fetch(items: AsyncIterator[T]) -> T | Exception:
    try:
        return await items.__anext__()
    except Exception as error:  # noqa: BLE001 - as above
        return error


def _translated(error: Exception, kind: type[StreamError]) -> Exception:
    """Gives the exception to raise for what an iterable raised or held."""
    if isinstance(error, StopIteration | StopAsyncIteration | EndOfStream):
        return EndOfStream()
    if isinstance(error, StreamError | UsageError):
        return error
    return kind(f"the iterable that is read failed ({type(error).__name__})")


def _cause(error: Exception) -> Exception | None:
    ours = (StopIteration, StopAsyncIteration, EndOfStream, StreamError, UsageError)
    return None if isinstance(error, ours) else error


async def _read_refusal(stream: Stream[Any]) -> bytes:
    body = bytearray()
    try:
        while len(body) < MAX_ERROR_BODY:
            body += cast("bytes", (await stream.receive())[0])
    except (EndOfStream, StreamError):
        pass  # as far as it came
    finally:
        await stream.aclose()
    return bytes(body[:MAX_ERROR_BODY])


# -- recordings ----------------------------------------------------------------------------------


def recorded(path: str | os.PathLike[str]) -> list[tuple[Path, Story | None]]:
    """Gives the files of a recording in order, each with what stands beside it; a plain file has nothing there.

    Raises `UsageError` where something stands there that tells of no recording, `IsADirectoryError` for a folder.
    """
    first = Path(path)
    if first.is_dir():  # what stands beside a folder is nothing, and some, like ".", have no name to put it behind
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    story = _story(first)
    found: list[tuple[Path, Story | None]] = [(first, story)]
    while story is not None:
        later = numbered(first, len(found) + 1)
        following = _story(later)
        if following is None or following.stream_id != story.stream_id:
            break  # nothing, or what is left of another stream
        found.append((later, following))
    return found


def _story(path: Path) -> Story | None:
    """Reads what stands beside a recording; nothing for a plain file."""
    try:
        return msgspec.json.decode(beside(path).read_bytes(), type=Story)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UsageError(f"{beside(path)} does not tell of a recording ({error})") from None


def _attempt(path: Path, story: Story | None) -> tuple[Any, Head]:
    data = path.read_bytes()
    if story is None:
        return [data] if data else [], _EVENT_STREAM
    failure = story.failure()
    if story.response is None:
        return failure or ConnectError("the recorded attempt got no head"), _EVENT_STREAM
    return [item for item in (data, failure) if item], story.response
