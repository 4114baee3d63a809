"""Faults in memory: a layer that plays a schedule over any source, without a socket.

Left of `parse_sse()` it works on bytes, right of it on events, and means the same fault. It keeps the contract of a
stream like any layer, takes its time from the call's clock, and must never fail in a way that a network cannot.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar
from urllib.parse import urlsplit

from holdfast._clock import Clock
from holdfast._core import Source, Stream
from holdfast._errors import ConnectError, EndOfStream, StreamBroken, StreamError, Truncated, UsageError
from holdfast._types import Event, Head, Request
from holdfast.machines.sse import SseParser
from holdfast.machines.statuses import status_error
from holdfast.testing.acts import TAKE, Act, Asked, Begin, Bytes, Cut, EventCutter, NoHead, Pings, Play, Refuse, Take
from holdfast.testing.faults import Healthy
from holdfast.testing.idiom import Idiom
from holdfast.testing.schedule import Schedule, stream_key
from holdfast.testing.server import Pause, ReceivedRequest, Stall
from holdfast.testing.visits import idiom_for, read_visit

T = TypeVar("T")


def key_of(request: Request) -> str:
    """Tells streams apart by what is asked for, as the chaos proxy does."""
    asked = _received(request)
    return stream_key(asked.method, urlsplit(asked.path).path, asked.headers, asked.body)


def _received(request: Request) -> ReceivedRequest:
    """Gives a request as a server would receive it."""
    body = request.body if isinstance(request.body, bytes) else json.dumps(dict(request.body or {})).encode()
    headers = {name.lower(): value for name, value in request.headers.items()}
    url = urlsplit(request.url)
    path = f"{url.path}?{url.query}" if url.query else url.path
    return ReceivedRequest(method=request.method, path=path, headers=headers, body=body)


@dataclass(slots=True, frozen=True)
class Faults:
    """Injects a schedule's faults: put it left of `parse_sse()`, or right of it. Each source that it makes counts anew.

    `key` gives the name under which the schedule knows a request's stream, by default a hash of what is asked for; a
    schedule for "*" needs none. `idiom` is how faults say things, by default as the request's dialect does. What only
    TCP can show (a head in pieces) does nothing here.
    """

    schedule: Schedule
    key: Callable[[Request], str] = field(default=key_of, kw_only=True)
    idiom: Idiom | None = field(default=None, kw_only=True)

    def __call__(self, inner: Source[T]) -> Source[T]:
        return _FaultsSource(inner, self)


@dataclass(slots=True)
class _FaultsSource:
    inner: Source[Any]
    settings: Faults
    attempts: Counter[str] = field(default_factory=Counter)

    async def open(self, request: Request) -> Stream[Any]:
        key = self.settings.key(request)
        self.attempts[key] += 1
        fault = self.settings.schedule.fault(key, self.attempts[key])
        if isinstance(fault, Healthy):
            return await self.inner.open(request)
        asked = _received(request)
        last = asked.headers.get("last-event-id", "")
        if fault.forgets:
            kept = {name: value for name, value in request.headers.items() if name.lower() != "last-event-id"}
            request = replace(request, headers=kept)
        visit = read_visit(asked)
        told = Asked(
            attempt=self.attempts[key],
            last_event_id=last,
            cursor=visit.cursor if visit else "",
            idiom=self.settings.idiom or idiom_for(asked),
        )
        # Opened even where no answer will come of it: a pipe counts what it sends.
        stream = _FaultsStream(await self.inner.open(request), request.call.clock)
        try:
            await stream.begin(fault.play(told))
        except BaseException:
            await stream.aclose()
            raise
        return stream


_BREAKS: Mapping[str, str] = {
    "reset": "the connection was reset",
    "fin": "the connection was closed inside the body",
    "inside a chunk": "the connection was closed inside a chunk",
    "bad chunk": "a chunk's size is no number",
}


class _FaultsStream:
    """Performs a play. `_said` is what it wants next, `_until` when a pause that has begun is over."""

    __slots__ = (
        "_clock",
        "_cutter",
        "_end",
        "_inner_end",
        "_items",
        "_limit",
        "_originals",
        "_pinged",
        "_play",
        "_reading",
        "_said",
        "_taken",
        "_until",
        "head",
        "inner",
    )

    def __init__(self, inner: Stream[Any], clock: Clock) -> None:
        self.inner = inner
        self.head = inner.head
        self._clock = clock
        self._play: Play = Healthy().play(Asked())
        self._said: Act | Take | None = TAKE
        self._taken: deque[bytes] = deque()  # events of the healthy reply that the play has not asked for yet
        self._items: type[bytes | Event] | None = None  # what flows here, once that is known
        self._originals: dict[bytes, Event] = {}
        self._cutter = EventCutter()
        self._inner_end: Exception | None = None
        self._end: Exception | None = None
        self._until: float | None = None
        self._pinged = False
        self._limit: int | None = None  # bytes that the head leaves room for
        self._reading = False

    # -- the head ------------------------------------------------------------------------------

    async def begin(self, play: Play) -> None:
        """Performs up to the head. Raises what a source raises when no stream comes of a request."""
        self._play = play
        self._said = next(play)
        while isinstance(self._said, Take | Pause):
            await self._wait()
            if isinstance(self._inner_end, StreamError):
                raise self._inner_end  # who buffers a body before he answers has no answer then
        match self._said:
            case NoHead("stall"):
                await asyncio.Event().wait()
            case NoHead(how):
                raise ConnectError(f"no head arrived: {how}")
            case Refuse(status=status, body=body, headers=headers):
                self.head = Head(status=status, headers=headers, url=self.head.url)
                if not 200 <= status < 300:
                    raise status_error(self.head, body, self._clock.wall())
                await self._learn()
                self._taken.clear()
                self._play = _only(body)
                self._said = next(self._play)
            case Begin() as begin:
                self._begin(begin)
                self._said = next(self._play)

    def _begin(self, begin: Begin) -> None:
        dropped = ("content-length", "content-digest", "content-encoding")
        headers = {name: value for name, value in self.head.headers.items() if name not in dropped}
        headers |= begin.headers
        if begin.framing == "length":
            headers["content-length"] = str(begin.length)
            self._limit = begin.length
        self.head = Head(status=begin.status, headers=headers, url=self.head.url, encoding=begin.coding)

    async def _learn(self) -> None:
        """Reads until it is known whether bytes or events flow here."""
        while self._items is None and self._inner_end is None:
            await self._more()

    # -- the body ------------------------------------------------------------------------------

    async def receive(self) -> Sequence[Any]:
        if self._end is not None:
            raise self._end
        if self._reading:
            raise UsageError("this stream has a reader already")
        self._reading = True
        try:
            while self._end is None:
                if out := self._next():
                    return out
                if self._end is None:
                    await self._wait()
            raise self._end
        finally:
            self._reading = False

    def _next(self) -> list[Any]:
        """Performs what needs no waiting, up to the next items."""
        while True:
            match self._said:
                case Bytes() | Pings() if self._items is None and self._inner_end is None:
                    return []
                case Bytes(data):
                    self._said = next(self._play, None)
                    if out := self._render(data):
                        return out
                case Pings(data) if not self._pinged:
                    self._pinged = True
                    if out := self._render(data):
                        return out
                case Cut(how, data):
                    self._said = None
                    self._end = self._ending(how)
                    return self._render(data)
                case Take() if self._taken or isinstance(self._inner_end, EndOfStream):
                    self._send(self._taken.popleft() if self._taken else None)
                case Take() if self._inner_end is not None:
                    # The line really broke: what had come of an event is handed on, and then the failure.
                    self._end = self._inner_end
                    return self._render(self._cutter.end()) if self._items is bytes else []
                case None:
                    self._end = self._end or EndOfStream()
                    return []
                case _:
                    return []

    async def _wait(self) -> None:
        """Waits for what the play needs next."""
        match self._said:
            case Take():
                if self._taken or self._inner_end is not None:
                    self._send(self._taken.popleft() if self._taken else None)
                else:
                    await self._more()
            case Pause(seconds):
                await self._sleep(seconds)
                self._said = next(self._play, None)
            case Bytes() | Pings() if self._items is None:
                await self._learn()
            case Pings(_, every):
                await self._sleep(every)
                self._pinged = False
            case Stall():
                await asyncio.Event().wait()

    async def _sleep(self, seconds: float) -> None:
        if self._until is None:
            self._until = self._clock.now() + seconds
        await self._clock.sleep(self._until - self._clock.now())
        self._until = None

    def _send(self, event: bytes | None) -> None:
        try:
            self._said = self._play.send(event)
        except StopIteration:
            self._said = None

    async def _more(self) -> None:
        """Reads the inner stream once."""
        try:
            batch = await self.inner.receive()
        except EndOfStream as end:
            self._inner_end = end
            if self._items is bytes and (rest := self._cutter.end()):
                self._taken.append(rest)
            return
        except StreamError as failure:
            self._inner_end = failure
            return
        for item in batch:
            if isinstance(item, Event):
                self._items = Event
                self._originals[item.wire] = item
                self._taken.append(item.wire)
            elif isinstance(item, bytes | bytearray | memoryview):
                self._items = bytes
                self._taken += self._cutter.feed(bytes(item))
            else:
                raise UsageError(f"Faults stands where bytes or events flow, not {type(item).__name__}")

    def _ending(self, how: str) -> Exception:
        if how in _BREAKS:
            return StreamBroken(_BREAKS[how])
        if how == "inside the coding":
            return Truncated("the compressed body ended too early")
        return EndOfStream()

    def _render(self, data: bytes) -> list[Any]:
        """Makes items of bytes that are sent, as far as the head's length has room for them."""
        if self._limit is not None:
            data, self._limit = data[: self._limit], self._limit - len(data)
            if self._limit <= 0:
                self._end = self._end or EndOfStream()
        if not data:
            return []
        if self._items is not Event:
            return [data]
        if not self._cutter.holds and data in self._originals:
            return [self._originals[data]]
        return [event for whole in self._cutter.feed(data) for event in self._parsed(whole)]

    def _parsed(self, whole: bytes) -> list[Event]:
        if whole in self._originals:
            return [self._originals[whole]]
        out: list[Event] = []
        SseParser().feed([whole], out)
        return out

    async def aclose(self) -> None:
        if self._end is None:
            self._end = UsageError("this stream is closed")
        self._play.close()
        await self.inner.aclose()


def _only(body: bytes) -> Play:
    yield Bytes(body)
    yield Cut()


__all__ = ["Faults"]
