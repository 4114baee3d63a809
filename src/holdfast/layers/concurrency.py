"""Concurrency: a place for each stream that runs, from before its request is sent until its end, failure or close.

`ConcurrencyLimiter` decides; this layer waits, and gives each place back however the stream ends: a cancelled wait or
open, a reader who gives up, and one who forgets to close, whose place comes back with the garbage collector.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from holdfast._core import Source, Stream
from holdfast._errors import BudgetExhausted, EndOfStream, StreamError, UsageError
from holdfast._shared import Lease, SharedState
from holdfast._types import Head, Request
from holdfast._waiting import stand_in
from holdfast.machines.concurrency import ConcurrencyLimiter, Permit, Places
from holdfast.machines.progress import moves_on
from holdfast.machines.refusal import refusal_of
from holdfast.machines.settings import check_kind
from holdfast.moments import Waited

T = TypeVar("T")

_ASK_AGAIN, _ASK_AGAIN_MAX = 0.02, 0.25
"""Seconds after which the store is first asked again for a place, and where the pauses have ceased to double."""


@dataclass(slots=True, frozen=True)
class Concurrency:
    """Lets as many streams run at a time as `limiter` allows, which outlives streams and may be shared by pipes.

    The places are those of one upstream. Raises `BudgetExhausted` when a request would wait longer than the limiter
    allows, or too many wait already; nothing was sent. While a layer right of it waits to try again, no place is held.

    `shared` makes the places common to several processes: each stream holds one there for as long as it runs. They are
    those of one address and upstream, and of the limiter's `name`, which tells apart what must not share them.
    """

    limiter: ConcurrencyLimiter = field(default_factory=ConcurrencyLimiter)
    shared: SharedState | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        takes = "a limiter, as in Concurrency(ConcurrencyLimiter(limit=5))"
        check_kind("Concurrency(...)", self.limiter, ConcurrencyLimiter, takes)

    def __call__(self, inner: Source[T]) -> Source[T]:
        return _ConcurrencySource(inner, self.limiter, self.shared)

    def advise(self, left: Sequence[object], right: Sequence[object]) -> list[str]:
        """Warns of neighbours among which it cannot do its work."""
        early = {type(layer).__name__ for layer in left} & {"Retry", "Reconnect"}
        warnings = [f"Concurrency belongs left of {name}: right of it, a place is held in its pauses" for name in early]
        if any(type(layer).__name__ == "RateLimit" for layer in left):
            warnings.append("Concurrency belongs left of RateLimit: right of it, who waits for its turn holds a place")
        return warnings

    def check_left(self, left: Sequence[object]) -> None:
        """Raises `UsageError` where a stream would need two places of the same limiter: it would wait for itself."""
        if any(isinstance(layer, Concurrency) and layer.limiter is self.limiter for layer in left):
            raise UsageError("the same ConcurrencyLimiter stands twice in this pipe: a stream would wait for itself")


@dataclass(slots=True)
class _ConcurrencySource(Generic[T]):
    inner: Source[T]
    limiter: ConcurrencyLimiter
    shared: SharedState | None

    async def open(self, request: Request) -> Stream[T]:
        places, clock = self.limiter.places(request.upstream), request.call.clock
        permit = places.take() if self.shared is None and not places.line else None
        if permit is not None:
            hold = _Hold(places, permit, None)
        else:
            hold = await _Applicant(places, self.limiter, self.shared, request).wait()
        started = clock.now()
        try:
            stream = await self.inner.open(request)
        except BaseException as error:
            hold.learn(error, request)
            await hold.end()
            raise
        return _ConcurrencyStream(stream, hold, request, started)


class _Applicant:
    """One request that must wait for its place."""

    __slots__ = ("_hold", "_limiter", "_pause", "_places", "_request", "_shared")

    def __init__(
        self, places: Places, limiter: ConcurrencyLimiter, shared: SharedState | None, request: Request
    ) -> None:
        self._hold: _Hold | None = None
        self._limiter = limiter
        self._pause = _ASK_AGAIN
        self._places = places
        self._request = request
        self._shared = shared

    async def wait(self) -> _Hold:
        """Stands in line until there is a place. Raises `BudgetExhausted`."""
        places, limiter, clock = self._places, self._limiter, self._request.call.clock
        started, waiting = clock.now(), len(places.line)
        if waiting >= limiter.max_waiting and (waiting or not places.free):
            raise self._refusal(f"{waiting} requests wait already (max_waiting=)")
        try:
            if not await stand_in(places.line, clock, self._ask, seconds=limiter.max_wait):
                raise self._refusal(f"none came free in {limiter.max_wait:g} s (max_wait=)")
        finally:
            waited = clock.now() - started
            if waited > 0:
                self._request.call.note(Waited(reason="concurrency", seconds=waited))
        assert self._hold is not None  # noqa: S101 - what ended the wait
        return self._hold

    def _refusal(self, why: str) -> BudgetExhausted:
        upstream = f" of {self._request.upstream!r}" if self._request.upstream else ""
        return BudgetExhausted(
            f"all {self._places.limit} places{upstream} for streams at a time are taken, and {why}; nothing was sent:"
            " start fewer at a time, close what nobody reads, or let ConcurrencyLimiter allow more"
        )

    async def _ask(self) -> float:
        if self._shared is None:
            permit = self._places.take()
            if permit is None:
                return math.inf  # whoever gives a place back wakes us
            self._hold = _Hold(self._places, permit, None)
            return 0.0
        return await self._ask_shared(self._shared) if self._places.free else math.inf

    async def _ask_shared(self, shared: SharedState) -> float:
        """Takes a place that all processes share, and one of ours; where the store is gone, ours is enough."""
        call = self._request.call
        name = f"places {self._limiter.name} {self._request.server} {self._request.upstream}"
        places = self._places
        lease = Lease(shared, name, places=lambda: places.limit, seconds=self._limiter.lease, clock=call.clock)
        try:
            held = await lease.take()
        except BaseException:
            await lease.end()
            raise
        for news in shared.news():
            call.note(news)
        if held is None:  # it may have been taken, and only the answer not have come in time
            await lease.end()
        permit = self._places.take() if held is not False else None
        if permit is not None:
            self._hold = _Hold(self._places, permit, lease if held else None)
            return 0.0
        if held:  # our own limit has just shrunk
            await lease.end()
        self._pause, pause = min(_ASK_AGAIN_MAX, self._pause * 2), self._pause
        return pause * (0.5 + call.random.random())


@dataclass(slots=True)
class _Hold:
    """A place, and its twin in the store where processes share them."""

    places: Places
    permit: Permit
    lease: Lease | None

    def learn(self, error: BaseException, request: Request) -> None:
        """Tells the limiter of a refusal."""
        if not isinstance(error, StreamError):
            return
        dialect = request.dialect or request.call.dialect
        refusal = refusal_of(error, dialect.refuses if dialect is not None else "rate")
        if refusal in ("concurrency", "overload"):
            self.places.refused(self.permit, request.call.clock.now(), at_once=refusal == "concurrency")

    def release(self) -> None:
        """Gives the place back; what a store must be told is under way until `end()`."""
        self.places.release(self.permit)
        if self.lease is not None:
            self.lease.free()

    async def end(self) -> None:
        """Gives the place back, in the store as well."""
        self.release()
        if self.lease is not None:
            await self.lease.end()


class _ConcurrencyStream(Generic[T]):
    __slots__ = ("_begun", "_hold", "_request", "_started", "inner")

    def __init__(self, inner: Stream[T], hold: _Hold, request: Request, started: float) -> None:
        self.inner = inner
        self._begun = False
        self._hold = hold
        self._request = request
        self._started = started

    @property
    def head(self) -> Head:
        return self.inner.head

    async def receive(self) -> Sequence[T]:
        try:
            batch = await self.inner.receive()
        except EndOfStream:
            self._hold.release()
            raise
        except StreamError as failure:
            self._hold.learn(failure, self._request)
            self._hold.release()
            raise
        if not self._begun and moves_on(batch):
            self._begun = True
            now = self._request.call.clock.now()
            self._hold.places.began(self._hold.permit, now - self._started, now)
        return batch

    async def aclose(self) -> None:
        try:
            await self.inner.aclose()
        finally:
            await self._hold.end()

    def __del__(self) -> None:
        hold: _Hold | None = getattr(self, "_hold", None)
        if hold is not None and hold.places.holds(hold.permit):
            hold.places.release(hold.permit)  # what the store holds of it expires: nobody renews it any more
            warnings.warn(
                "a stream was never closed and held its place until now: use `async with`",
                ResourceWarning,
                stacklevel=2,
            )
