"""RateLimit: holds requests back so that the upstream need not refuse them.

`RateLimiter` decides; this layer waits, before it opens, and tells the limiter what came of each request. A stream is
handed through as it is: of its items only the first is looked out for, since a refusal may come in its place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from holdfast._core import Attempt, Source, Stream
from holdfast._errors import BudgetExhausted, CircuitOpen, StatusError, StreamError
from holdfast._shared import SharedState
from holdfast._tasks import outlast
from holdfast._types import Head, Request, Usage
from holdfast._waiting import stand_in
from holdfast.dialects import Dialect
from holdfast.machines.bucket import LONGEST_WAIT
from holdfast.machines.rate_limiter import Claim, Lane, RateLimiter, Sent, Size
from holdfast.machines.rate_limits import read
from holdfast.machines.refusal import refusal_of
from holdfast.machines.settings import check_kind
from holdfast.moments import Waited

T = TypeVar("T")


@dataclass(slots=True, frozen=True)
class RateLimit:
    """Lets requests through as fast as the upstream takes them; `limiter` outlives streams and may be shared by pipes.

    Limits are those of one model at one address of one upstream. Raises `BudgetExhausted`, with `retry_after` where
    that is known, when a request would wait longer than the limiter allows, or too many wait already; nothing was sent.

    `shared` makes limits that were set by hand, pauses and the slow-down common to several processes.
    """

    limiter: RateLimiter = field(default_factory=RateLimiter)
    shared: SharedState | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        takes = "a limiter, as in RateLimit(RateLimiter(requests_per_minute=60))"
        check_kind("RateLimit(...)", self.limiter, RateLimiter, takes)

    def __call__(self, inner: Source[T]) -> Source[T]:
        return _RateLimitSource(inner, self.limiter, self.shared)

    def advise(self, left: Sequence[object], right: Sequence[object]) -> list[str]:
        """Warns of neighbours among which it cannot do its work."""
        early = {type(layer).__name__ for layer in left} & {"Retry", "Reconnect"}
        warnings = [f"RateLimit belongs left of {name}: right of it, it sees one attempt of several" for name in early]
        if any(isinstance(layer, RateLimit) and layer.limiter is self.limiter for layer in left):
            warnings.append("the same RateLimiter twice counts each request twice: leave one out")
        return warnings


def _key(request: Request) -> str:
    """Names what the limits are of: an address, an upstream, a model."""
    body, dialect = request.body, request.dialect or request.call.dialect
    model = body.get("model") if isinstance(body, Mapping) else None
    if model is None and isinstance(dialect, Dialect):
        model = dialect.model_in(request.url)
    return f"{request.server} {request.upstream} {model or ''}"


@dataclass(slots=True)
class _RateLimitSource(Generic[T]):
    inner: Source[T]
    limiter: RateLimiter
    shared: SharedState | None

    async def open(self, request: Request) -> Stream[T]:
        lane = self.limiter.lane(_key(request))
        desk = _Desk(lane, request, self.limiter, self.shared)
        asked = None
        if self.shared is None and not lane.line:
            asked = lane.ask(desk.size, request.call.clock.now())
        sent = asked if isinstance(asked, Sent) else await desk.wait()
        try:
            stream = await self.inner.open(request)
        except (BudgetExhausted, CircuitOpen):
            await desk.unsend(sent)
            raise
        except StreamError as failure:
            await desk.refused(sent, failure)
            raise
        desk.told(sent, stream.head)
        return _RateLimitStream(stream, desk, sent)


@dataclass(slots=True)
class _Desk:
    """One request's dealings with its lane."""

    lane: Lane
    request: Request
    limiter: RateLimiter
    shared: SharedState | None
    size: Size = field(init=False)
    reason: str = "requests"
    sent: Sent | None = None
    common: list[Claim] = field(default_factory=list)
    """What was taken for it out of the store."""

    def __post_init__(self) -> None:
        self.size = self.lane.size(self.request.body)

    # -- before the request --------------------------------------------------------------------

    async def wait(self) -> Sent:
        """Stands in line until the request may be sent. Raises `BudgetExhausted`."""
        lane, limiter, call = self.lane, self.limiter, self.request.call
        started = call.clock.now()
        waiting = len(lane.line)
        if waiting >= limiter.max_waiting and (waiting or self.shared is None):  # with others, nobody has asked yet
            raise self._refusal(f"{waiting} requests wait already (max_waiting=)")
        if lane.paused_until - started > limiter.max_wait:
            raise self._refusal(f"the upstream asked for a longer pause than {limiter.max_wait:g} s (max_wait=)")
        ask = self._ask if self.shared is None else self._ask_shared
        try:
            if not await stand_in(lane.line, call.clock, ask, seconds=limiter.max_wait):
                raise self._refusal(f"it would have waited longer than {limiter.max_wait:g} s (max_wait=)")
        finally:
            waited = call.clock.now() - started
            if waited > 0:
                call.note(Waited(reason=self.reason, seconds=waited))
        assert self.sent is not None  # noqa: S101 - what ended the wait
        return self.sent

    def _refusal(self, why: str) -> BudgetExhausted:
        error = BudgetExhausted(
            f"the rate limit of {' '.join(self.lane.key.split())!r} refused: {why}; nothing was sent:"
            " ask for less at a time, or let RateLimiter allow more"
        )
        left = max(self.lane.ready_at, self.lane.paused_until) - self.request.call.clock.now()
        error.retry_after = left if left > 0 else None
        return error

    async def _ask(self) -> float:
        return self._answer(self.lane.ask(self.size, self.request.call.clock.now()))

    def _answer(self, answer: Sent | tuple[float, str]) -> float:
        if isinstance(answer, Sent):
            self.sent = answer
            return 0.0
        self.reason = answer[1]
        return answer[0]

    # -- with other processes ------------------------------------------------------------------

    def _name(self, what: str) -> str:
        return f"rate {self.limiter.name} {self.lane.key} {what}"

    async def _ask_shared(self) -> float:
        """As `_ask()`, but what is taken is taken from all processes; where the store is gone, from ours alone."""
        lane, clock, shared = self.lane, self.request.call.clock, self.shared
        told = await shared.told(self._name("pause")) if shared is not None else None
        for news in shared.news() if shared is not None else ():
            self.request.call.note(news)
        if told:
            lane.pause(told.get("seconds", 0.0), clock.now(), told=told.get("told", 0.0))
        held = lane.held(self.size, clock.now())
        if held is not None:
            return self._answer(held)
        ours: list[Claim] = []
        try:
            for claim in lane.claims(self.size, clock.now()):
                wait = await self._take(claim, claim.amount)
                alone = wait is None
                if wait is None:
                    wait = claim.bucket.take(claim.amount, clock.now())
                if wait:
                    await self._give_back(ours)
                    lane.ready_at = clock.now() + wait
                    return self._answer((wait, claim.name))
                (ours if alone else self.common).append(claim)
        except BaseException:
            await self._give_back(ours)
            raise
        return self._answer(lane.let_through(self.size, clock.now(), ours))

    async def _take(self, claim: Claim, amount: float, *, force: bool = False) -> float | None:
        if self.shared is None:
            return None
        bucket, name = claim.bucket, self._name(claim.name)
        return await self.shared.take(name, amount, rate=bucket.rate, burst=bucket.burst, force=force)

    async def _give_back(self, ours: Sequence[Claim] = ()) -> None:
        """Gives back what was taken, whoever cancels meanwhile."""
        for claim in ours:
            claim.settle(claim.amount, self.request.call.clock.now())
        common, self.common = self.common, []
        if common:
            await outlast(asyncio.ensure_future(self._return(common)))

    async def _return(self, common: list[Claim]) -> None:
        for claim in common:
            await self._take(claim, -claim.amount, force=True)

    async def unsend(self, sent: Sent) -> None:
        """Nothing was sent after all."""
        self.lane.unsend(sent, self.request.call.clock.now())
        await self._give_back()

    # -- after the request ---------------------------------------------------------------------

    def told(self, sent: Sent, head: Head) -> None:
        """Learns from a head."""
        clock = self.request.call.clock
        self.lane.told(sent, read(head.headers, clock.wall().timestamp()), clock.now())

    async def refused(self, sent: Sent, failure: StreamError) -> None:
        """Learns from a failure: how much was too much, and until when."""
        clock, dialect = self.request.call.clock, self.request.dialect or self.request.call.dialect
        now = clock.now()
        limits = read(failure.head.headers, clock.wall().timestamp()) if isinstance(failure, StatusError) else None
        self.lane.told(sent, limits, now)
        # What was refused used no tokens; of what failed in another way nobody knows.
        await self._settle(sent, Usage(total_tokens=0) if isinstance(failure, StatusError) else None)
        if refusal_of(failure, dialect.refuses if dialect is not None else "rate") != "rate":
            return
        wait = failure.retry_after
        if wait is None and limits is not None:
            wait = limits.wait
        numbers = limits is not None and limits.used_up
        self.lane.refused(sent, now, wait=wait, numbers=numbers, draw=self.request.call.random.random())
        if self.shared is not None and wait:
            # How long, and not until when: the others' clocks show other times.
            await self.shared.tell(self._name("pause"), {"told": wait}, seconds=min(wait, LONGEST_WAIT))

    async def settle(self, sent: Sent, attempt: Attempt | None) -> None:
        """Puts what the request really cost in the place of its estimate."""
        evidence = attempt.evidence if attempt is not None else None
        await self._settle(sent, evidence.usage if evidence is not None else None)

    async def _settle(self, sent: Sent, usage: Usage | None) -> None:
        owed = self.lane.settle(sent, usage, self.request.call.clock.now())
        for claim in self.common if owed else ():
            if claim.name == "tokens":
                await outlast(asyncio.ensure_future(self._take(claim, owed, force=True)))


class _RateLimitStream(Generic[T]):
    __slots__ = ("_attempt", "_desk", "_flowing", "_sent", "inner")

    def __init__(self, inner: Stream[T], desk: _Desk, sent: Sent) -> None:
        self.inner = inner
        self._attempt = desk.request.call.attempt
        self._desk = desk
        self._flowing = False
        self._sent = sent

    @property
    def head(self) -> Head:
        return self.inner.head

    def receive(self) -> Coroutine[Any, Any, Sequence[T]]:
        # Not `async`: from the first item on the reader awaits the inner stream itself, without a coroutine between.
        return self.inner.receive() if self._flowing else self._receive_first()

    async def _receive_first(self) -> Sequence[T]:
        try:
            batch = await self.inner.receive()
        except StreamError as failure:
            if not self._flowing:
                self._flowing = True
                await self._desk.refused(self._sent, failure)
            raise
        self._flowing = True
        return batch

    async def aclose(self) -> None:
        try:
            await self.inner.aclose()
        finally:
            await self._desk.settle(self._sent, self._attempt)
