"""Retry: sends a request again while nothing of its answer has been delivered.

It owns `open()`, and `receive()` until the first item of any kind: `open()` returns at the head and holds nothing back,
and a stream that fails before its first item is opened again inside `receive()`. From the first item on it is not there
any more; going on in the middle of an answer is another layer's work. It retries what its error calls retryable, and
obeys `Retry-After` as RFC 9110, section 10.2.3, means it: the earliest time at which to come back. A request that
changes something at the provider (`Dialect.effects()`) is not sent again once its head has come.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from holdfast._core import Source, Stream
from holdfast._errors import BudgetExhausted, StreamError, UsageError
from holdfast._tasks import Opening
from holdfast._types import Head, Request
from holdfast.dialects._ways import effects_of
from holdfast.machines.backoff import Backoff, Jitter
from holdfast.machines.settings import check_count, is_number
from holdfast.moments import Retrying

T = TypeVar("T")


@dataclass(slots=True, frozen=True, kw_only=True)
class Retry:
    """Tries a request up to `attempts` times, the first included, with jittered pauses of seconds between.

    A pause is drawn from `base`, `cap` and `jitter` as `Backoff` says. What the server asked for in `Retry-After` comes
    before it, not instead of it: nobody returns earlier than told, and clients that were told the same do not
    return together. A server that asks for more than `max_retry_after` is not waited for: the error is raised at once.
    When tries or the call's requests run out, the last failure itself is raised.

    Cancelled while it waits or opens again, `receive()` may be called again and goes on.
    """

    attempts: int = 4
    base: float = 1.0
    cap: float = 10.0
    jitter: Jitter = "full"
    max_retry_after: float = 60.0

    def __post_init__(self) -> None:
        check_count("attempts", self.attempts)
        if not (is_number(self.max_retry_after) and self.max_retry_after >= 0):
            raise ValueError(f"max_retry_after must be a number of seconds from 0, not {self.max_retry_after!r}")
        self.backoff()

    def backoff(self) -> Backoff:
        """Gives the machine that draws the pauses of one stream."""
        return Backoff(base=self.base, cap=self.cap, jitter=self.jitter)

    def __call__(self, inner: Source[T]) -> Source[T]:
        return _RetrySource(inner, self)

    def advise(self, left: Sequence[object], right: Sequence[object]) -> list[str]:
        """Warns of neighbours among which it cannot do its work."""
        warnings = []
        if "Reconnect" in map(_name, left):
            warnings.append(
                "Retry belongs left of Reconnect: right of it, it tries the first open() again and no re-opening"
            )
        if "Verify" in map(_name, right):
            warnings.append("Retry belongs right of verify(): left of it, it sees no error that came with status 200")
        if "Retry" in map(_name, right):
            warnings.append("Retry twice multiplies the attempts: leave one out")
        return warnings


def _name(layer: object) -> str:
    return str(getattr(layer, "__qualname__", type(layer).__name__))


@dataclass(slots=True)
class _RetrySource(Generic[T]):
    inner: Source[T]
    settings: Retry

    async def open(self, request: Request) -> Stream[T]:
        stream = _RetryStream(self.inner, request, self.settings)
        await stream.connect()
        return stream


class _RetryStream(Generic[T]):
    __slots__ = (
        "_backoff",
        "_closed",
        "_end",
        "_failure",
        "_flowing",
        "_head",
        "_next_try",
        "_opening",
        "_reading",
        "_request",
        "_settings",
        "_source",
        "_tries_left",
        "inner",
    )

    def __init__(self, source: Source[T], request: Request, settings: Retry) -> None:
        self.inner: Stream[T] | None = None
        self._source = source
        self._request = request
        self._settings = settings
        self._backoff = settings.backoff()
        self._tries_left = settings.attempts
        self._failure: StreamError | None = None
        self._end: StreamError | None = None
        self._next_try: float | None = None  # set: `inner`, if any, is to be closed and opened anew at that time
        self._head = Head()
        self._opening: Opening[T] | None = None
        self._flowing = self._reading = self._closed = False

    @property
    def head(self) -> Head:
        return self.inner.head if self.inner is not None else self._head

    def receive(self) -> Coroutine[Any, Any, Sequence[T]]:
        # Not `async`: from the first item on the reader awaits the inner stream itself, without a coroutine between.
        if self._flowing and self.inner is not None:
            return self.inner.receive()
        return self._receive_first()

    async def _receive_first(self) -> Sequence[T]:
        if self._reading:
            raise UsageError("this stream has a reader already")
        self._reading = True
        try:
            while True:
                inner = await self.connect()
                try:
                    batch = await inner.receive()
                except StreamError as error:
                    failure = error
                else:
                    self._flowing = True
                    self._failure = None
                    return batch
                if effects_of(self._request):  # it may have begun to act
                    self._end = failure
                    raise failure
                self._plan_after(failure)
        finally:
            self._reading = False

    async def connect(self) -> Stream[T]:
        """Gives the stream of the attempt now being read, opening one where there is none. Cancelled, it may go on."""
        while self._end is None:
            if self._closed:
                raise UsageError("this stream is closed")
            if self._next_try is not None:
                await self._pause(self._next_try)
            elif self.inner is not None:
                return self.inner
            else:
                await self._open()
        raise self._end

    async def _open(self) -> None:
        """Opens: in `open()` itself so that a cancellation leaves nothing behind, later so that it outlasts one."""
        try:
            if self._reading:
                self._opening = self._opening or Opening(self._source, self._request)
                stream = await self._opening.stream()
            else:
                stream = await self._source.open(self._request)
        except StreamError as error:
            self._opening = None
            failure = error
        else:
            self.inner, self._head, self._opening = stream, stream.head, None
            if self._closed:  # somebody else closed us while we waited for the head
                await stream.aclose()
            return
        self._plan_after(failure)  # outside the `except`, so that what it raises does not look caused by this

    async def _pause(self, until: float) -> None:
        if self.inner is not None:
            await self.inner.aclose()
            self.inner = None
        clock = self._request.call.clock
        await clock.sleep(until - clock.now())
        self._next_try = None

    def _plan_after(self, failure: StreamError) -> None:
        """Sets the time of the next try, or raises what ends the stream."""
        self._tries_left -= 1
        delay = self._delay_after(failure)
        if delay is None:
            nothing_sent = isinstance(failure, BudgetExhausted)
            self._end = self._failure if nothing_sent and self._failure is not None else failure
            why = str(failure) if self._end is not failure else self._stopped(failure)
            if why:
                self._end.add_note(f"it was not tried again: {why}")
            raise self._end
        self._failure = failure
        call = self._request.call
        self._next_try = call.clock.now() + delay
        call.note(Retrying(error=failure, delay=delay))

    def _stopped(self, failure: StreamError) -> str:
        """Says what kept a failure from being tried again that tries are left for; empty where nothing did."""
        if not failure.retryable or self._tries_left < 1:
            return ""
        return self._request.call.why_no_request

    def _delay_after(self, failure: StreamError) -> float | None:
        """Gives the seconds to wait before another try; None where another try is no use."""
        call, told = self._request.call, failure.retry_after or 0.0
        if not failure.retryable or self._tries_left < 1 or not call.may_request:
            return None
        if told > self._settings.max_retry_after:
            return None
        if call.cursor.asked != "start" and call.route is not None and call.route.elsewhere() is not None:
            return None  # who goes on in the middle of an answer has another upstream to go on at
        return max(0.0, told) + self._backoff.next(call.random.random())

    async def aclose(self) -> None:
        self._closed = True
        opening, self._opening = self._opening, None
        try:
            if opening is not None:
                await opening.aclose()
        finally:
            if self.inner is not None:
                await self.inner.aclose()
