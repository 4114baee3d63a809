"""Hedge: sends a request once more when its first content is late, and lets whichever brings content first answer.

The race is over before anything is handed on, and lies in `open()` as a whole: each racer is a task that this layer
owns, with a fork of the call to read at, and the winner's place becomes the call's. The winner never waits for the
loser, which is cancelled in the same turn and closed by a task of its own. Nothing is raced but the beginning of an
answer: what has been handed on can be resumed, and never swapped. After Dean and Barroso, "The Tail at Scale" (2013).
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Generic, TypeVar

from holdfast._core import Call, Source, Stream
from holdfast._errors import EndOfStream, StreamError
from holdfast._tasks import outlast
from holdfast._types import Head, Request
from holdfast._waiting import told_of_waits
from holdfast.dialects._ways import effects_of
from holdfast.machines.hedge_budget import HedgeBudget
from holdfast.machines.progress import moves_on
from holdfast.machines.quantile import Quantile, Quantiles
from holdfast.machines.settings import check_seconds, is_number
from holdfast.moments import Hedged, HedgeEnded

T = TypeVar("T")

MAX_HELD = 256
"""Items without content that are held back while a race runs: an upstream that sends more has begun its answer."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Hedge:
    """Sends a second request where no content has come after `delay` seconds; None: where it is later than is usual.

    What is usual is the `quantile` of the times to first content that the last `window` calls of the same upstream,
    address and model took; below `least` calls nothing is known, and no call is hedged. Second requests never exceed
    `share` of the calls, nor what `max_requests` and the retry budget allow. Content is the first item that is more
    than a role or padding; a clean end is, too. `open()` returns with it: head, place and evidence are the winner's.
    While a limit left of it holds the first request back, its clock stands still, and what it learns leaves that out.
    If one request fails, the other decides; if both do, the failure of the first is raised. A request that changes
    something at the provider (`Dialect.effects()`) has no second one.

    What is learned and what may be spent is this object's: give the same one to all calls that shall learn together.
    """

    delay: float | None = None
    share: float = 0.05
    quantile: float = 0.95
    window: int = 256
    least: int = 20
    budget: HedgeBudget = field(init=False, repr=False, compare=False)
    _usual: Quantiles = field(init=False, repr=False, compare=False)
    not_right_of: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("Reconnect", "AutoContinue", "ExpectJson"), "it writes one answer, and two racers would write two into it"
    )

    def __post_init__(self) -> None:
        check_seconds("Hedge(delay=...)", self.delay)
        if not (is_number(self.quantile) and 0 < self.quantile < 1):
            raise ValueError(f"Hedge(quantile=...) must be a number between 0 and 1, not {self.quantile!r}")
        # The way to set a field of a frozen dataclass: they are made of the settings, and no settings themselves.
        object.__setattr__(self, "budget", HedgeBudget(share=self.share))
        object.__setattr__(self, "_usual", Quantiles(self.quantile, window=self.window, least=self.least))

    def __call__(self, inner: Source[T]) -> Source[T]:
        return _HedgeSource(inner, self)

    def usual(self, request: Request) -> Quantile:
        """Gives what has been learned of requests like this one, in seconds."""
        return self._usual.of(request)

    def advise(self, left: Sequence[object], right: Sequence[object]) -> list[str]:
        """Warns of neighbours among which it cannot do its work."""
        warnings = []
        if any(type(layer).__name__ == "Retry" for layer in left):
            warnings.append("Hedge belongs left of Retry: right of it, both racers try again")
        clocks = [layer for layer in right if type(layer).__name__ == "Deadline"]
        if any(getattr(layer, "open", None) or getattr(layer, "first_token", None) for layer in clocks):
            warnings.append(
                "Hedge belongs right of Deadline(open=..., first_token=...): its open() lasts until content"
            )
        limits = sorted({type(layer).__name__ for layer in right} & {"Concurrency", "RateLimit"})
        warnings += (f"Hedge belongs right of {name}: left of it, second requests are not counted" for name in limits)
        if any(isinstance(layer, Hedge) for layer in right):
            warnings.append("Hedge twice sends up to four requests: leave one out")
        return warnings


@dataclass(slots=True)
class _HedgeSource(Generic[T]):
    inner: Source[T]
    settings: Hedge

    async def open(self, request: Request) -> Stream[T]:
        call, settings = request.call, self.settings
        if call.cursor.asked != "start" or call.legs or call.resuming is not None:
            return await self.inner.open(request)  # what goes on from somewhere has one place to go on from
        settings.budget.deposit()
        race = _Race(self.inner, request, settings)
        try:
            winner = await race.run()
        except BaseException:
            await outlast(asyncio.ensure_future(_close_all(race.racers)))
            raise
        return _HedgedStream(winner, race.let_go(winner))


class _Racer(Generic[T]):
    """One request on its way to its first content, in a task of its own and at a place of its own."""

    __slots__ = ("_cancelled", "_news", "call", "held", "started", "stream", "task", "waits")

    def __init__(
        self, source: Source[T], request: Request, before: Call, rival: Call | None, news: asyncio.Event
    ) -> None:
        self.call = before.fork()
        self.call.rival = rival
        self.started = before.clock.now()
        """When it was sent off, put later by as long as it then stood in a line of ours."""
        self.waits: float | None = None
        """Since when it stands in a line of ours; None while it does not."""
        self._news = news
        self.stream: Stream[T] | None = None
        self.held: list[T] = []
        self._cancelled = False
        self.task = asyncio.create_task(self._run(source, replace(request, call=self.call)), name="holdfast-hedge")
        self.task.add_done_callback(lambda _task: news.set())

    def _hear(self, waits: bool) -> None:  # noqa: FBT001 - a listener is told yes or no
        now = self.call.clock.now()
        if self.waits is not None:
            self.started += now - self.waits
        self.waits = now if waits else None
        self._news.set()

    async def _run(self, source: Source[T], request: Request) -> None:
        told_of_waits.set(self._hear)
        self.stream = await source.open(request)
        while len(self.held) < MAX_HELD:
            try:
                batch = await self.stream.receive()
            except EndOfStream:  # it stays the stream's end, for whoever reads it next
                return
            self.held += batch
            if moves_on(batch):
                return

    @property
    def number(self) -> int:
        """Which of the call's attempts it is; 0 where it got no further than this side."""
        return self.call.attempt.number if self.call.attempt is not None else 0

    @property
    def failure(self) -> StreamError | None:
        """Why it brought nothing; None while it runs, and where it brought something. Raises a bug of somebody's."""
        error = self.task.exception() if self.task.done() else None
        if error is None or isinstance(error, StreamError):
            return error
        raise error

    @property
    def brought(self) -> bool:
        """True once it has content."""
        return self.task.done() and self.failure is None

    def cancel(self) -> None:
        """Stops it, once: what it does to clean up must not be cut short by being told again."""
        if not self._cancelled:
            self._cancelled = True
            self.task.cancel()

    async def aclose(self) -> None:
        self.cancel()
        try:
            await outlast(self.task)
        finally:
            if not self.task.cancelled():
                self.task.exception()  # of a loser's failure nobody else asks
            if self.stream is not None:
                await self.stream.aclose()


class _Race(Generic[T]):
    """The beginning of one answer, for which one request is sent, and perhaps another."""

    __slots__ = ("_call", "_news", "_request", "_settings", "_source", "_usual", "racers")

    def __init__(self, source: Source[T], request: Request, settings: Hedge) -> None:
        self._source = source
        self._request = request
        self._settings = settings
        self._call = request.call
        self._usual = settings.usual(request)
        self._news = asyncio.Event()
        self.racers: list[_Racer[T]] = []

    async def run(self) -> _Racer[T]:
        """Returns the racer that brought content first. Raises what ends the race without one."""
        first = self._send(self._call)
        delay = self._settings.delay if self._settings.delay is not None else self._usual.value
        if delay is not None:
            await asyncio.sleep(0)  # what has not begun is not late, and has not said yet whether it may be sent twice
            await self._wait_until_late(first, delay)
            if not first.task.done() and self._may_hedge(first):
                self._call.note(Hedged(attempt=first.number, delay=delay))
                self._send(first.call, first.call)  # a fork of the first one's: it knows what that one has spent
        while True:
            for racer in self.racers:
                if racer.brought:
                    return self._decide(racer)
            if all(racer.task.done() for racer in self.racers):
                self._call.adopt(first.call)  # the story of the failure is the first one's, too
                raise first.failure or AssertionError("a race is over when one has won, or all have failed")
            self._news.clear()
            await self._news.wait()

    def _may_hedge(self, first: _Racer[T]) -> bool:
        # The call first: a hedge that it does not allow costs the budget nothing.
        return first.call.may_request and not effects_of(self._request) and self._settings.budget.withdraw()

    def _send(self, before: Call, rival: Call | None = None) -> _Racer[T]:
        racer = _Racer(self._source, self._request, before, rival, self._news)
        self.racers.append(racer)
        return racer

    async def _wait_until_late(self, racer: _Racer[T], delay: float) -> None:
        """Waits for the racer, and no longer than `delay` seconds beside those that it stands in a line of ours."""
        clock = self._call.clock
        while not racer.task.done() and (racer.waits is not None or clock.now() < racer.started + delay):
            self._news.clear()
            timer = None if racer.waits is not None else clock.call_at(racer.started + delay, self._news.set)
            try:
                await self._news.wait()
            finally:
                if timer is not None:
                    timer.cancel()

    def _decide(self, winner: _Racer[T]) -> _Racer[T]:
        """Learns and tells how it ended. Nothing is awaited: whoever has won hands on what it brought."""
        call, first, now = self._call, self.racers[0], self._call.clock.now()
        if first is winner or not first.task.done():
            # A first request that lost counts as having taken until now: left out, it would make the usual too short.
            self._usual.add(now - first.started)
        call.adopt(winner.call)
        for loser in self.racers:
            if loser is not winner:
                upstream = call.attempt.upstream if call.attempt is not None else ""
                ended = HedgeEnded(attempt=winner.number, winner=winner.number, loser=loser.number, upstream=upstream)
                ended.dialect = call.dialect.name if upstream and call.dialect is not None else ""
                call.note(ended)
        return winner

    def let_go(self, winner: _Racer[T]) -> asyncio.Task[None] | None:
        """Gives the task that closes the loser, which is cancelled already; None without one."""
        losers = [racer for racer in self.racers if racer is not winner]
        for loser in losers:
            loser.cancel()
        return asyncio.create_task(_close_all(losers), name="holdfast-hedge-loser") if losers else None


async def _close_all(racers: Sequence[_Racer[Any]]) -> None:
    """Closes racers at the same time: each may take as long as its connection does."""
    for racer in racers:
        racer.cancel()
    closed = await asyncio.gather(*(racer.aclose() for racer in racers), return_exceptions=True)
    for error in closed:
        if error is not None:
            raise error


class _HedgedStream(Generic[T]):
    """The winner's stream, behind what it brought."""

    __slots__ = ("_closing", "_held", "inner")

    def __init__(self, winner: _Racer[T], closing: asyncio.Task[None] | None) -> None:
        if winner.stream is None:
            raise AssertionError("who brought content has a stream")
        self.inner: Stream[T] = winner.stream
        self._held = winner.held
        self._closing = closing

    @property
    def head(self) -> Head:
        return self.inner.head

    def receive(self) -> Coroutine[Any, Any, Sequence[T]]:
        # Not `async`: behind what was held the reader awaits the inner stream itself, without a coroutine between.
        return self._receive_held() if self._held else self.inner.receive()

    async def _receive_held(self) -> Sequence[T]:
        held, self._held = self._held, []
        return held

    async def aclose(self) -> None:
        self._held = []
        try:
            if self._closing is not None:
                await outlast(self._closing)
        finally:
            await self.inner.aclose()
