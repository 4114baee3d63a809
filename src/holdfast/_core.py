"""The walls of the house: sources, streams, transforms, layers, and the pipe that joins them.

Machines (`Transform`) are synchronous and decide; layers (`Source -> Source`) open, wait and close, and decide
nothing; `transform()` lifts the one to the other. `Pipe.stream()` is the one context manager, at the user's edge.

The contract of a stream, which `holdfast.testing.check_source()` enforces on every layer, ours or a user's:

1. `receive()` returns a non-empty batch of what is ready and never waits to fill one (`Buffer` alone may).
2. The clean end raises `EndOfStream`, a failure a `StreamError`; both are sticky, and both come after everything
   that arrived before them.
3. A cancelled `receive()` loses nothing: no `await` between taking a batch from the inner stream and returning it.
4. `aclose()` is idempotent, awaits the inner stream, and closes even when cancelled.
5. No cancel scope, timeout or task group stays open when a method returns.
6. One reader at a time; a second gets `UsageError`.
7. A failed or cancelled `open()` leaves nothing open.
"""

from __future__ import annotations

import asyncio
import inspect
import secrets
import warnings
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar

from holdfast._clock import Alarm, Clock, Random, SystemClock, system_random
from holdfast._errors import BudgetExhausted, EndOfStream, StreamError, UsageError
from holdfast._types import Completion, Delta, Head, Partial, Request, Usage, Verdict
from holdfast.machines.cursor import Cursor
from holdfast.machines.redact import clean_url
from holdfast.machines.transcript import Transcript
from holdfast.moments import (
    Delivered,
    Dropped,
    Ended,
    FirstDelta,
    Listener,
    Moment,
    Opened,
    Opening,
    Repaired,
    Report,
    Started,
)

if TYPE_CHECKING:
    from holdfast.dialects import Dialect, Evidence

A = TypeVar("A")
B = TypeVar("B")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
A_contra = TypeVar("A_contra", contravariant=True)


class Stream(Protocol[T_co]):
    """Something that is being read. See the contract at the head of this module."""

    @property
    def head(self) -> Head:
        """Status and headers of the attempt now being read."""

    async def receive(self) -> Sequence[T_co]:
        """Returns what is ready, waiting only when nothing is. Raises `EndOfStream` or a `StreamError`."""

    async def aclose(self) -> None:
        """Gives the connection back or closes it."""


class Source(Protocol[T_co]):
    """Something that can be opened, any number of times."""

    async def open(self, request: Request) -> Stream[T_co]:
        """Sends the request and returns its stream once the head is in. Raises `StreamError`."""


class Transform(Protocol[A_contra, T]):
    """A machine between two formats: synchronous, without I/O, clock, chance or logging."""

    def feed(self, batch: Sequence[A_contra], out: list[T]) -> None:
        """Takes a batch in and appends what it made of it. What it appended before raising is delivered first.

        Raises a `StreamError`, or `EndOfStream` where the format itself says that nothing follows.
        """

    def end(self, out: list[T]) -> None:
        """The input ended cleanly: appends what was held, or raises."""


Layer = Callable[[Source[A]], Source[B]]


def transform(
    factory: Callable[[Request], Transform[A, B]], *, takes: type[A] | None = None, gives: type[B] | None = None
) -> Layer[A, B]:
    """Lifts a machine to a layer: every attempt gets a machine of its own from `factory(request)`.

    `takes` and `gives` name the items' types, where a pipe in the wrong order shall be refused when it is built.
    """

    def layer(inner: Source[A]) -> Source[B]:
        return _TransformSource(inner, factory)

    name = getattr(factory, "__name__", "transform")
    layer.__qualname__ = layer.__name__ = "transform" if name == "<lambda>" else name
    layer.takes, layer.gives = takes, gives  # type: ignore[attr-defined]  # functions carry what is hung on them
    return layer


@dataclass(slots=True)
class _TransformSource(Generic[A, B]):
    inner: Source[A]
    factory: Callable[[Request], Transform[A, B]]

    async def open(self, request: Request) -> Stream[B]:
        machine = self.factory(request)
        return TransformStream(await self.inner.open(request), machine, request.call.clock)


LINGER = 0.25
"""Seconds that closing waits for a body to end whose format has ended: then its connection can be used again."""


class TransformStream(Generic[T]):
    """A stream read through a machine. Two in a row become one with two machines: an `await` less per read."""

    __slots__ = ("_clock", "_end", "_lingers", "_machines", "_reading", "inner")

    def __init__(self, inner: Stream[Any], machine: Transform[Any, T], clock: Clock) -> None:
        self._clock = clock
        self._lingers = False
        self._machines: tuple[Transform[Any, Any], ...] = (machine,)
        if type(inner) is TransformStream:
            self._machines = (*inner._machines, machine)  # noqa: SLF001 - its own class
            inner = inner.inner
        self.inner: Stream[Any] = inner
        self._end: Exception | None = None
        self._reading = False

    @property
    def head(self) -> Head:
        return self.inner.head

    async def receive(self) -> Sequence[T]:
        if self._end is not None:
            raise self._end
        if self._reading:
            raise UsageError("this stream has a reader already")
        self._reading = True
        try:
            while True:
                if self._end is not None:
                    raise self._end
                batch: Sequence[Any] = ()
                try:
                    batch = await self.inner.receive()
                except EndOfStream as end:
                    self._end = end
                except StreamError as failure:
                    self._end = failure
                    raise
                if self._end is not None:  # outside the `except`: what the machines raise is not caused by the end
                    batch = self._finish((), 0)
                else:
                    for place, machine in enumerate(self._machines):
                        out: list[Any] = []
                        try:
                            machine.feed(batch, out)
                        except EndOfStream as end:  # the machine has seen the end before the wire has
                            self._end, self._lingers = end, True
                            batch = self._finish(out, place + 1)
                            break
                        except Exception as failure:  # noqa: BLE001 - a bug must not be read past, either
                            self._end = failure
                        batch = out
                if batch:
                    return batch
        finally:
            self._reading = False

    def _finish(self, batch: Sequence[Any], place: int) -> Sequence[Any]:
        """Ends the machines from `place` on, left to right: what one lets go of still goes through the next."""
        for machine in self._machines[place:]:
            out: list[Any] = []
            try:
                if batch:
                    machine.feed(batch, out)
                if isinstance(self._end, EndOfStream):
                    machine.end(out)
            except EndOfStream:
                pass  # the end we are at
            except Exception as failure:  # noqa: BLE001 - a bug must not be read past, either
                self._end = failure
            batch = out
        return batch

    async def aclose(self) -> None:
        try:
            if self._lingers:
                await self._linger()
        finally:
            await self.inner.aclose()

    async def _linger(self) -> None:
        """Reads on to the end of the body, for a moment only: nothing that follows the format's end counts."""
        self._lingers = False
        alarm = Alarm(self._clock)
        alarm.arm(self._clock.now() + LINGER)
        try:
            for _ in range(64):  # a source that has everything at hand would never let the alarm ring
                await self.inner.receive()
        except (EndOfStream, StreamError, UsageError):
            alarm.disarm()
        except BaseException:
            if not alarm.disarm():
                raise
        else:
            alarm.disarm()
        finally:
            alarm.close()


class Call:
    """What the attempts of one stream share: its identity, its clock, where it is, and what it may still spend."""

    __slots__ = (
        "answer",
        "clock",
        "cursor",
        "dialect",
        "evidence",
        "id",
        "keep",
        "labels",
        "listeners",
        "max_requests",
        "random",
        "recorded",
        "report",
        "requests",
    )

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        random: Random | None = None,
        max_requests: int = 8,
        keep: bool = True,
        labels: Mapping[str, str] | None = None,
        listeners: Iterable[Listener] = (),
    ) -> None:
        self.id = secrets.token_hex(8)
        self.clock: Clock = clock or SystemClock()
        self.random: Random = random or system_random()
        self.max_requests = max_requests
        self.requests = 0
        self.keep = keep
        self.labels = dict(labels or {})
        self.cursor = Cursor()
        self.answer = Transcript(keep=keep)
        self.recorded = False
        """True once a layer writes `answer`; else the edge does."""
        self.dialect: Dialect | None = None
        self.evidence: Evidence | None = None
        self.report = Report(stream_id=self.id)
        self.listeners: list[Listener] = list(listeners)

    def note(self, moment: Moment) -> None:
        """Tells everybody who listens; the report first, so that a listener sees it up to date."""
        moment.at = self.clock.now()
        moment.attempt = self.requests
        self.report.add(moment)
        for listener in self.listeners:
            try:
                listener(moment)
            except Exception as error:  # noqa: BLE001 - who listens must not break what is listened to
                about = {"message": f"a listener failed at {type(moment).__name__}", "exception": error}
                asyncio.get_running_loop().call_exception_handler(about)

    @property
    def may_request(self) -> bool:
        """False once `max_requests` were sent: layers ask before they wait for another try."""
        return self.requests < self.max_requests

    def spend_request(self) -> None:
        """Counts one request, or raises `BudgetExhausted`."""
        if not self.may_request:
            raise BudgetExhausted(
                f"the call has sent its {self.max_requests} requests; raise it with max_requests=, or see what failed"
            )
        self.requests += 1


@dataclass(slots=True)
class _Counted(Generic[T]):
    """The innermost wall of every pipe: what goes through here went to the upstream."""

    inner: Source[T]

    async def open(self, request: Request) -> Stream[T]:
        call = request.call
        call.spend_request()
        call.note(Opening())
        started = call.clock.now()
        stream = await self.inner.open(request)
        head = stream.head
        request_id = head.headers.get("x-request-id") or head.headers.get("x-ds-trace-id") or ""
        call.note(Opened(status=head.status, seconds=call.clock.now() - started, request_id=request_id))
        return stream


class Pipe(Generic[T]):
    """A source and the layers over it, from the wire (left) to the reader (right). Immutable; `|` makes a new one.

    `clock` and `random` replace time and chance, `max_requests` bounds what one stream may send upstream over all
    its layers (8: four tries and four seams), `listeners` hear every moment of every stream.
    """

    __slots__ = (
        "_clock",
        "_dialect",
        "_items",
        "_layers",
        "_listeners",
        "_max_requests",
        "_random",
        "_source",
        "_top",
    )

    def __init__(
        self,
        source: Source[T],
        *,
        clock: Clock | None = None,
        random: Random | None = None,
        max_requests: int = 8,
        listeners: Iterable[Listener] = (),
    ) -> None:
        if max_requests < 1:
            raise ValueError(f"max_requests must be at least 1, not {max_requests}")
        if isinstance(source, type) or not hasattr(source, "open"):
            raise UsageError(f"a pipe begins with a source, something that has open(), and {source!r} is none")
        self._source: Source[Any] = source
        self._items: type | None = getattr(source, "gives", None)
        self._dialect: Dialect | None = None
        self._top: Source[T] = _Counted(source)
        self._layers: tuple[Callable[..., Any], ...] = ()
        self._clock = clock
        self._random = random
        self._max_requests = max_requests
        self._listeners = tuple(listeners)

    def __or__(self, layer: Callable[[Source[T]], Source[B]]) -> Pipe[B]:
        if not callable(layer):
            raise UsageError(f"{layer!r} is no layer: a layer is called with a source and gives a source")
        takes, gives = getattr(layer, "takes", None), getattr(layer, "gives", None)
        if takes is not None and self._items is not None and takes is not self._items:
            raise UsageError(
                f"{_describe(layer)} takes {takes.__name__} and gets {self._items.__name__} here:"
                " bytes become events by parse_sse(), and events deltas by verify()"
            )
        new: Pipe[Any] = object.__new__(Pipe)
        for name in Pipe.__slots__:
            setattr(new, name, getattr(self, name))
        new._top = layer(self._top)
        if not hasattr(new._top, "open"):
            raise UsageError(f"{_describe(layer)} is no layer: it gave {new._top!r}, which has no open()")
        new._layers = (*self._layers, layer)
        new._items = gives if gives is not None else self._items if _keeps_items(layer) else None
        new._dialect = getattr(layer, "dialect", self._dialect)
        return new

    def stream(
        self,
        request: Request | None = None,
        *,
        keep: bool = True,
        labels: Mapping[str, str] | None = None,
        listeners: Iterable[Listener] = (),
    ) -> Reader[T]:
        """Gives the one context manager: entering opens the stream, leaving closes it.

        `keep=False` keeps a digest of the delivered text instead of the text, for very long streams.
        """
        call = Call(
            clock=self._clock,
            random=self._random,
            max_requests=self._max_requests,
            keep=keep,
            labels=labels,
            listeners=(
                *(made for make in listener_factories if (made := make()) is not None),
                *self._listeners,
                *listeners,
            ),
        )
        if request is not None and not isinstance(request, Request):
            raise UsageError(f"a pipe streams a Request(url=..., body=...), not {type(request).__name__}")
        call.dialect = self._dialect
        request = replace(request or Request(), call=call)
        for listener in call.listeners:
            hear = getattr(listener, "begin", None)
            if hear is not None:
                hear(request)
        return Reader(self._top, request)

    def __str__(self) -> str:
        lines = [f"Pipe({type(self._source).__name__})"]
        for place, layer in enumerate(self._layers):
            lines.append(f"  | {_describe(layer)}")
            advise = getattr(layer, "advise", None)
            if advise is not None:
                lines.extend(f"  ! {warning}" for warning in advise(self._layers[:place], self._layers[place + 1 :]))
        return "\n".join(lines)

    __repr__ = __str__


listener_factories: list[Callable[[], Listener | None]] = []
"""Asked once per stream for somebody who listens: how telemetry hears of pipes without their knowing it."""


def _describe(layer: Callable[..., Any]) -> str:
    """Draws a layer with the settings that are set."""
    if inspect.isfunction(layer):
        return layer.__qualname__ + "()"
    if isinstance(layer, type):
        return layer.__name__
    if is_dataclass(layer) and layer.__dataclass_params__.repr:  # type: ignore[attr-defined]  # else it has its own
        settings = ((f.name, getattr(layer, f.name)) for f in fields(layer) if f.repr)
        return (
            f"{type(layer).__name__}({', '.join(f'{name}={value!r}' for name, value in settings if value is not None)})"
        )
    return repr(layer)


def _keeps_items(layer: object) -> bool:
    """The layers of this house let items through as they are; of others nobody knows."""
    return type(layer).__module__.startswith("holdfast.layers.")


class Reader(Generic[T]):
    """The user's edge of one stream: an asynchronous context manager and iterator.

    Iteration ends when the answer is proven whole and raises a `StreamError` otherwise; read again, it says the same.
    """

    __slots__ = (
        "__weakref__",
        "_call",
        "_cancelled",
        "_cancelling",
        "_closed",
        "_end",
        "_first_seen",
        "_interrupted",
        "_items",
        "_longest_gap",
        "_loop",
        "_now",
        "_reader",
        "_ready",
        "_request",
        "_source",
        "_started",
        "_stream",
    )

    def __init__(self, source: Source[T], request: Request) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None  # asked once: on Python 3.11 that costs as much as a layer
        self._now = request.call.clock.now
        self._source = source
        self._request = request
        self._call = request.call
        self._stream: Stream[T] | None = None
        self._ready: Iterator[T] = iter(())
        self._end: Exception | None = None
        self._closed = False
        self._reader: asyncio.Task[Any] | None = None
        self._cancelled = False
        self._cancelling = 0
        self._interrupted = False
        self._items = 0
        self._longest_gap = 0.0
        self._first_seen = False
        self._started = 0.0

    # -- opening and closing -------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._stream is not None or self._closed or self._end is not None:
            raise UsageError("a stream is entered once; ask the pipe or the client for another")
        call = self._call
        self._started = call.clock.now()
        dialect = call.dialect.name if call.dialect is not None else ""
        call.note(Started(url=clean_url(self._request.url), dialect=dialect, labels=call.labels))
        self._loop = asyncio.get_running_loop()
        self._reader = task = asyncio.current_task(self._loop)
        self._cancelling = 0 if task is None else task.cancelling()
        try:
            self._stream = await self._source.open(self._request)
        except StreamError as failure:
            self._settle(failure)
            raise
        except BaseException as stop:
            if self._interrupted and isinstance(stop, asyncio.CancelledError) and self._was_ours(task):
                if self._cancelled:
                    return self  # cancel() came while the head was waited for: there is nothing to iterate over
                raise UsageError("the stream was closed while it was being opened") from None
            self._settle(None, cancelled=True)
            self._closed = True
            raise
        finally:
            self._reader = None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes the stream; one that was not read to its end counts as given up. Idempotent.

        A task that still waits in this stream is let go with a `UsageError`.
        """
        self._closed = True
        if self._end is None:
            self._settle(None, cancelled=True)
            self._ready = iter(())
            self._end = UsageError("the stream was closed before its end; report and partial say what it was")
        self._interrupt()
        if self._stream is not None:
            await self._stream.aclose()

    async def cancel(self) -> None:
        """Gives the stream up from any task: a waiting reader's iteration ends, and the connection is closed."""
        self._cancelled = True
        if self._end is None:
            self._settle(None, cancelled=True)
        self._ready = iter(())
        await self.aclose()

    def _interrupt(self) -> None:
        """Wakes the task that waits in this stream, if it is another one; once."""
        reader = self._reader
        if reader is not None and not self._interrupted and reader is not asyncio.current_task(self._loop):
            self._interrupted = True
            reader.cancel()

    def _let_go(self) -> Exception:
        """What the interrupted reader meets: the end of its iteration after `cancel()`, an error after `aclose()`."""
        return StopAsyncIteration() if self._cancelled or self._end is None else self._end

    def _was_ours(self, task: asyncio.Task[Any] | None) -> bool:
        """Says whether a cancellation was `_interrupt()`'s and nobody else's."""
        return task is not None and task.uncancel() <= self._cancelling

    def __del__(self) -> None:
        # An unopened reader, or one half made, has nothing to close.
        if getattr(self, "_stream", None) is not None and not self._closed:
            warnings.warn(
                f"{self!r} was never closed: use it with `async with`", ResourceWarning, stacklevel=2, source=self
            )

    # -- reading -------------------------------------------------------------------------------

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        for item in self._ready:
            return item
        self._ready = iter(await self._receive())
        return next(self._ready)

    async def batches(self) -> AsyncIterator[Sequence[T]]:
        """Iterates over what arrives in the batches it arrives in: cheaper per item, and no later."""
        while True:
            left = list(self._ready)
            if left:
                yield left
            try:
                batch = await self._receive()
            except StopAsyncIteration:
                return
            yield batch

    async def _receive(self) -> Sequence[T]:
        if self._end is not None:
            if isinstance(self._end, EndOfStream):
                raise StopAsyncIteration
            raise self._end
        if self._stream is None:
            raise UsageError("enter the stream first: async with ... as stream")
        if self._reader is not None:
            raise UsageError("this stream has a reader already")
        self._reader = task = asyncio.current_task(self._loop)
        self._cancelling = 0 if task is None else task.cancelling()
        asked = self._now()
        try:
            batch = await self._stream.receive()
        except EndOfStream:
            self._settle(None)
            raise StopAsyncIteration from None
        except StreamError as failure:
            self._settle(failure)
            raise
        except UsageError:
            raise
        except Exception as bug:
            self._settle(None, cancelled=True)
            self._end = bug  # somebody's layer broke: reading on would skip what it lost
            raise
        except asyncio.CancelledError:
            if self._interrupted and self._was_ours(task):
                raise self._let_go() from None
            raise
        finally:
            self._reader = None
        gap = self._now() - asked
        if gap > self._longest_gap:
            self._longest_gap = gap
        self._items += len(batch)
        if not self._first_seen:
            self._look_for_first(batch)
        if not self._call.recorded:
            self._call.answer.add(batch)
        return batch

    def _look_for_first(self, batch: Sequence[T]) -> None:
        for item in batch:
            if not isinstance(item, Delta) or not item.empty:
                self._first_seen = True
                self._longest_gap = 0.0  # the wait for the first is first_delta_seconds, not a gap
                self._call.note(FirstDelta(seconds=self._call.clock.now() - self._started))
                return

    async def text(self: Reader[Delta]) -> AsyncIterator[str]:
        """Iterates over the text of the first choice, piece by piece."""
        async for delta in self:
            if delta.text and not delta.choice:
                yield delta.text

    # -- the end -------------------------------------------------------------------------------

    def _settle(self, failure: StreamError | None, *, cancelled: bool = False) -> None:
        """Says once how it ended, and hangs on the error what the reader will want to know."""
        if self._end is not None:
            return  # it ended before, from another task
        call, cursor = self._call, self._call.cursor
        self._end = failure or EndOfStream()
        if cursor.repaired:
            call.note(Repaired(what="utf-8", count=cursor.repaired))
        if cursor.dropped:
            call.note(Dropped(count=cursor.dropped))
        if self._items:
            call.note(Delivered(items=self._items, longest_gap=self._longest_gap))
            self._items = 0
        evidence = call.evidence
        usage = evidence.usage if evidence is not None else None
        verdict = None
        if failure is None and not cancelled and evidence is not None:
            verdict = self._verdict()
        billed, estimated = self._billed(usage)
        call.note(
            Ended(
                verdict=verdict,
                error=failure,
                cancelled=cancelled,
                usage=usage,
                finish_reason=evidence.finish_reason if evidence is not None else None,
                bytes_received=cursor.received,
                billed_tokens=billed,
                billed_estimated=estimated,
            )
        )
        if failure is not None:
            failure.attempts = call.requests
            failure.partial = self.partial
            failure.report = call.report
            if call.requests > 1:
                failure.add_note(f"{call.requests} requests were sent; error.report tells their story")

    def _billed(self, usage: Usage | None) -> tuple[int, bool]:
        """Tokens of all attempts: a replay is billed from the start, prompt included; a cursor costs nothing."""
        if usage is None or usage.total_tokens is None:
            return 0, False
        again = [seam for seam in self._call.report.seams if seam.guarantee != "exact"]
        extra = sum(seam.repaid_tokens + (usage.input_tokens or 0) for seam in again)
        return usage.total_tokens + extra, bool(again)

    def _verdict(self) -> Verdict:
        seams = self._call.report.seams
        if not seams:
            return Verdict()
        weakest = max((seam.guarantee for seam in seams), key=("exact", "verified", "seamed").index)
        return Verdict("resumed", len(seams), weakest)

    # -- what it was ---------------------------------------------------------------------------

    @property
    def head(self) -> Head:
        """Status and headers of the attempt now being read."""
        if self._stream is None:
            raise UsageError("enter the stream first: async with ... as stream")
        return self._stream.head

    @property
    def report(self) -> Report:
        """The story so far."""
        return self._call.report

    @property
    def completion(self) -> Completion:
        """The whole answer, once it is proven whole. Raises the stream's error, or `UsageError` before its end."""
        if not self._call.keep:
            raise UsageError(
                "keep=False keeps a digest, not the answer; report has its verdict, usage and finish reason"
            )
        if self.report.verdict is None:
            if isinstance(self._end, StreamError):
                raise self._end
            if self._call.evidence is None and isinstance(self._end, EndOfStream):
                raise UsageError("nothing in this pipe judges answers: put verify() into its layers")
            raise UsageError("the answer has not been read to its proven end; .partial has what arrived")
        return self._answer()

    @property
    def partial(self) -> Partial:
        """What has arrived, and all that going on from there needs."""
        call, body = self._call, self._request.body
        return Partial(
            dialect=call.dialect.name if call.dialect is not None else "",
            url=clean_url(self._request.url),
            request=body if isinstance(body, Mapping) else None,
            last_event_id=call.cursor.last_event_id,
            offset=call.cursor.received,
            answer=self._answer(),
        )

    def _answer(self) -> Completion:
        evidence = self._call.evidence
        return self._call.answer.completion(
            usage=evidence.usage if evidence is not None else None, verdict=self._call.report.verdict
        )


__all__ = [
    "Call",
    "Layer",
    "Pipe",
    "Reader",
    "Source",
    "Stream",
    "Transform",
    "TransformStream",
    "listener_factories",
    "transform",
]
