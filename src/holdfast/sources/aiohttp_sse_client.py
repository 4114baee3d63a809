"""The package aiohttp-sse-client as a source of events, tamed.

Its `EventSource` frames lines at LF only, drops the first event after a BOM, strips spaces and newlines off data, fails
over long lines, loses what it holds when it is cancelled, and connects again for ever. So it gets what it can read: a
session that is not aiohttp's, whose response gives the events of our own parser line by line, each value behind a mark
that protects it; it is read in one task that nobody cancels before the end; and its wish to connect again ends it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, ClassVar, Self

from aiohttp_sse_client.client import EventSource  # type: ignore[import-untyped]  # it ships no types

from holdfast._core import Source, Stream
from holdfast._errors import EndOfStream, StreamBroken, StreamError, UsageError
from holdfast._tasks import outlast
from holdfast._types import Event, Head, Request
from holdfast.layers.parse import parse_sse
from holdfast.sources._foreign import ForeignError
from holdfast.sources.aiohttp import AiohttpSource

_MARK = "\x01"
"""Put before every value: `EventSource` strips leading spaces and, of whole events, newlines at the end."""

_SET_BY_IT = ("accept", "cache-control")


class AiohttpSseClientSource:
    """Reads events with `aiohttp_sse_client.client.EventSource`, over any source of bytes. A `Source[Event]`.

    Without `source` it owns an `AiohttpSource`, which `aclose()` or `async with` closes. `strict` makes bytes that are
    not UTF-8 a `DecodeError`. Use it in the place of `AiohttpSource() | parse_sse()`; method, body and headers of the
    request are sent. Re-opening is `Reconnect`'s business: `EventSource` never does it.

    What its API still loses: comments; the bytes of data that was not UTF-8 (`payload` has U+FFFD in their place,
    `wire` has them); the caller's `Accept` and `Cache-Control`, which it sets itself; and time: see the benchmark. At
    level DEBUG its logger `aiohttp_sse_client.client` writes every message with its data, marks included.
    """

    gives: ClassVar[type] = Event

    def __init__(self, source: Source[bytes] | None = None, *, strict: bool = False) -> None:
        self._own = AiohttpSource() if source is None else None
        self._events: Source[Event] = parse_sse(strict=strict)(source or self._own)  # type: ignore[arg-type]  # one is there

    async def open(self, request: Request) -> Stream[Event]:
        """Sends the request and returns once the head is in. Raises what the source of bytes raises."""
        session = _Session(self._events, request)
        try:
            client = EventSource(
                request.url,
                option={"method": request.method},
                session=session,
                on_error=_refuse_to_reconnect,
                headers={n: v for n, v in request.headers.items() if n.lower() not in _SET_BY_IT},
            )
        except ValueError:
            client = None
        if client is None:  # raised here and not above: yarl's errors quote the url, in which keys travel
            raise UsageError("the url is not http or https with a host")
        await client.connect()
        return _SseClientStream(client, session)

    async def aclose(self) -> None:
        """Closes the source that it owns."""
        if self._own is not None:
            await self._own.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class _ReconnectRefused(Exception):
    """`EventSource` knows no other way to be told that a stream is over."""


def _refuse_to_reconnect() -> None:
    raise _ReconnectRefused


@dataclass(slots=True)
class _Session:
    """What `EventSource` takes for an aiohttp session."""

    events: Source[Event]
    template: Request
    response: _Response | None = None

    async def request(self, method: str, _url: object, *, headers: dict[str, str]) -> _Response:
        request = replace(self.template, method=method, headers=headers)
        self.response = _Response(await self.events.open(request))
        return self.response


class _Response:
    """What `EventSource` takes for an aiohttp response: lines that it can read, no more than its reader asks for.

    Status and content type are always right: what is no event stream is found out by the layers, as over any source.
    """

    status = 200
    content_type = "text/event-stream"

    def __init__(self, stream: Stream[Event]) -> None:
        self.stream = stream
        self.content = self
        self.real_url = self
        self.wanted = asyncio.Event()
        self.parsed: deque[Event] = deque()
        """Events whose lines have been given, and which have not come out of `EventSource` yet."""
        self.exhausted = asyncio.Event()
        """All that had arrived has been read: there is something to hand over."""
        self._lines: deque[bytes] = deque()

    def origin(self) -> str:
        return ""

    def close(self) -> None:
        """The stream is closed by its owner, who can wait for it."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if not self._lines:
            self.exhausted.set()
            await self.wanted.wait()
            self.wanted.clear()
            try:
                batch = await self.stream.receive()
            except EndOfStream:
                raise StopAsyncIteration from None
            self.parsed += batch
            self._lines += (line for event in batch for line in _lines(event))
        return self._lines.popleft()


def _lines(event: Event) -> list[bytes]:
    marked = [("event", event.type)] if event.type != "message" else []
    marked += [("id", event.id)] if event.id is not None else []
    marked += [("data", line) for line in event.data.split("\n")]
    return [*(f"{name}:{_MARK}{value}\n".encode() for name, value in marked), b"\n"]


def _unmarked(message: Any, parsed: Event) -> Event:
    """Takes the marks out, and gives back the place in the body that `EventSource` knows nothing of."""
    payload = "\n".join(line[len(_MARK) :] for line in message.data.split("\n")).encode()
    return Event(
        payload=payload,
        type=message.type[len(_MARK) :] if message.type else "message",
        last_event_id=message.last_event_id[len(_MARK) :] or parsed.last_event_id,
        id=parsed.id,
        offset=parsed.offset,
        exact=parsed.exact if payload == parsed.payload else parsed.wire,
    )


class _SseClientStream:
    """Asks for one batch of the inner stream at a time: nothing is read that nobody waits for."""

    __slots__ = ("_client", "_end", "_reading", "_ready", "_response", "_task")

    def __init__(self, client: Any, session: _Session) -> None:
        assert session.response is not None  # noqa: S101 - connect() has returned
        self._client = client
        self._response = session.response
        self._ready: list[Event] = []
        self._end: Exception | None = None
        self._reading = False
        self._task = asyncio.create_task(self._read(), name="holdfast-aiohttp-sse-client")
        self._task.add_done_callback(self._over)

    @property
    def head(self) -> Head:
        return self._response.stream.head

    async def _read(self) -> None:
        response = self._response
        try:
            while True:
                message = await self._client.__anext__()
                self._ready.append(_unmarked(message, response.parsed.popleft()))
        except _ReconnectRefused:
            self._end = EndOfStream()
        except (StreamError, UsageError) as failure:
            self._end = failure
        except Exception as error:  # noqa: BLE001 - a task has nobody to raise to: the reader is told, whatever it is
            self._end = StreamBroken(f"EventSource failed ({type(error).__name__})")
            self._end.__cause__ = ForeignError(error)

    def _over(self, _task: asyncio.Task[None]) -> None:
        if self._end is None:
            self._end = UsageError("this stream is closed")
        self._response.exhausted.set()

    async def receive(self) -> Sequence[Event]:
        if self._reading:
            raise UsageError("this stream has a reader already")
        self._reading = True
        response = self._response
        try:
            while not self._ready or not response.exhausted.is_set():
                if self._end is not None and not self._ready:
                    raise self._end
                if response.exhausted.is_set():
                    response.exhausted.clear()
                    response.wanted.set()
                await response.exhausted.wait()
        finally:
            self._reading = False
        batch, self._ready = self._ready, []
        return batch

    async def aclose(self) -> None:
        self._task.cancel()
        self._ready.clear()
        try:
            await outlast(self._task)
            await self._client.close()
        finally:
            await self._response.stream.aclose()
