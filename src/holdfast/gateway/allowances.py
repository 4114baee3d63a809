"""What each key of a gateway may use: requests a minute, streams at a time, and money a day.

It is asked before anything is sent upstream, once for a stream and never again for its seams: a stream that runs is not
broken off because its key has asked for others. Only money is looked after to the end, by the bills of all requests
that a stream took, cut ones too. With a journal that nodes share these limits are common to them, else each process
has its own; where the store does not answer, each decides alone. Who joins or reads a stream uses nothing.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from holdfast._clock import Clock, SystemClock
from holdfast._core import Call, Source, Stream
from holdfast._errors import BudgetExhausted, UsageError
from holdfast._shared import Lease, SharedState
from holdfast._types import Head, Request
from holdfast.gateway.asking import Asked
from holdfast.gateway.production import Answer
from holdfast.gateway.refusals import Refusal, Refused, refusal_of
from holdfast.gateway.settings import REDIS, KeySettings, Settings
from holdfast.gateway.upstreams import Upstreams, request_of
from holdfast.layers.budget import Budget
from holdfast.machines.bucket import TokenBucket
from holdfast.machines.concurrency import ConcurrencyLimiter, Permit, Places
from holdfast.prices import Prices
from holdfast.stores import RedisState

AtWire = Callable[[Source[Any]], Source[Any]]
Requests = Callable[[], Sequence[Request]]
"""Gives a request as each upstream would get it: what it costs is known there alone."""
_LEASE = 30.0
"""Seconds after which the place of a process that died is free again."""
_SOON = 1.0
"""When to ask again for a place: nobody knows, and this is not at once."""


class Allowances:
    """The limits of all keys. `shared` makes them common to all nodes; by the settings where it is not given."""

    def __init__(self, settings: Settings, *, shared: SharedState | None = None, clock: Clock | None = None) -> None:
        if shared is None and settings.journal.startswith(REDIS) and any(map(_is_limited, settings.keys)):
            shared = RedisState(settings.journal, prefix="holdfast-gateway")
        self._state = shared
        prices = Prices() if settings.prices is None else Prices.load(settings.prices)
        self._of = {
            key.name: Allowance(key, prices, shared, clock or SystemClock())
            for key in settings.keys
            if _is_limited(key)
        }

    def at_wire(self, owner: str) -> Sequence[AtWire]:
        """Gives the layers that look after a key's money, for whatever is sent for it."""
        allowance = self._of.get(owner)
        return () if allowance is None or allowance.budget is None else (_Purse(allowance.budget),)

    def limits(self, owner: str) -> bool:
        """Says whether a key has limits."""
        return owner in self._of

    def answer(
        self,
        owner: str,
        answer: Answer,
        requests: Requests = tuple,
        *,
        begun: bool = False,
        then: Callable[[], None] = lambda: None,
    ) -> Answer:
        """Gives an answer that is opened where its owner may have one: its `open()` raises `Refused` where not.

        `begun`: another node was let in for it. `then` is called once it is let in.
        """
        allowance = self._of.get(owner)
        return answer if allowance is None else _Allowed(answer, allowance, requests, begun=begun, then=then)

    @asynccontextmanager
    async def held(self, owner: str, requests: Requests = tuple) -> AsyncIterator[None]:
        """Holds a place for what is no stream. Raises `Refused`."""
        allowance = self._of.get(owner)
        place = None if allowance is None else await allowance.admit(requests)
        try:
            yield
        finally:
            if place is not None:
                await place.end()

    async def aclose(self) -> None:
        """Gives the store's connections back."""
        if isinstance(self._state, RedisState):
            await self._state.aclose()


class Allowance:
    """The limits of one key. `budget` is the layer that looks after its money."""

    def __init__(self, key: KeySettings, prices: Prices, shared: SharedState | None, clock: Clock) -> None:
        self._clock = clock
        self._name = f"gateway key {key.name}"
        self._shared = shared
        rate = key.requests_per_minute
        # As many as may be sent in a minute may come at once: it is no upstream's limit, that must never be met.
        self._bucket = None if rate is None else TokenBucket(rate=rate / 60.0, burst=rate)
        most = key.concurrency
        self._places = None if most is None else ConcurrencyLimiter(limit=most).places("")
        self.budget = (
            None
            if key.money is None
            else Budget(limit=str(key.money), per="day", prices=prices, shared=shared, name=self._name)
        )

    async def admit(self, requests: Requests = tuple, *, begun: bool = False) -> Place:
        """Lets one request in, and gives its place. Raises `Refused`, but not where it has begun elsewhere."""
        if not begun:
            await self._check_money(requests)
        place = await self._place()
        if place is None:
            if not begun:
                most = 0 if self._places is None else self._places.limit
                words = f"this key has {most} requests running at the gateway, which is as many as it may"
                raise Refused(Refusal(429, "concurrency_limit_exceeded", words, _SOON))
            return Place(None, None, None)
        wait = math.inf
        try:
            wait = 0.0 if begun else await self._wait()
        finally:  # also where who asked has left meanwhile
            if wait:
                await place.end()
        if wait:
            words = "this key has sent the gateway as many requests as it may in this time"
            raise Refused(Refusal(429, "rate_limit_exceeded", words, wait if wait < math.inf else None))
        return place

    async def _check_money(self, requests: Requests) -> None:
        """Raises `Refused` where no upstream may be asked: there is too little left, or no price of what it serves."""
        if self.budget is None:
            return
        why: BudgetExhausted | None = None
        for request in requests():
            try:
                await self.budget.check(replace(request, call=Call(clock=self._clock)))
            except BudgetExhausted as error:
                why = error if why is None or error.reason == "spent" else why
            else:
                return
        if why is not None:
            raise Refused(refusal_of(why)) from why

    async def _wait(self) -> float:
        """Counts a request; gives the seconds to wait where it is one too many."""
        bucket, wait = self._bucket, None
        if bucket is None:
            return 0.0
        if self._shared is not None:
            wait = await self._shared.take(f"{self._name} requests", 1.0, rate=bucket.rate, burst=bucket.burst)
        return bucket.take(1.0, self._clock.now()) if wait is None else wait

    async def _place(self) -> Place | None:
        places = self._places
        if places is None:
            return Place(None, None, None)
        permit = places.take()
        if permit is None or self._shared is None:
            return None if permit is None else Place(places, permit, None)
        lease = Lease(
            self._shared, f"{self._name} places", places=lambda: places.limit, seconds=_LEASE, clock=self._clock
        )
        place = Place(places, permit, lease)
        try:
            held = await lease.take()
        except BaseException:
            await place.end()
            raise
        if held is False:
            await place.end()
            return None
        return place


@dataclass(slots=True, frozen=True)
class _Purse:
    """A key's budget at the wire: once it is spent, another upstream is not asked either, for it is the key's."""

    budget: Budget

    def __call__(self, inner: Source[Any]) -> Source[Any]:
        return _PurseSource(self.budget(inner))


@dataclass(slots=True)
class _PurseSource:
    inner: Source[Any]

    async def open(self, request: Request) -> Stream[Any]:
        try:
            return await self.inner.open(request)
        except BudgetExhausted as error:
            if error.reason == "spent" and not request.call.attempts:  # several were let in for what was left
                raise Refused(refusal_of(error)) from error
            raise


class Place:
    """One of the requests that a key may have running."""

    __slots__ = ("_lease", "_permit", "_places")

    def __init__(self, places: Places | None, permit: Permit | None, lease: Lease | None) -> None:
        self._lease = lease
        self._permit = permit
        self._places = places

    async def end(self) -> None:
        """Gives it back. Idempotent."""
        if self._places is not None and self._permit is not None:
            self._places.release(self._permit)
        if self._lease is not None:
            await self._lease.end()


class _Allowed:
    """An answer that holds a place of its owner's for as long as it runs."""

    __slots__ = ("_allowance", "_answer", "_begun", "_place", "_requests", "_then", "blocks")

    def __init__(
        self, answer: Answer, allowance: Allowance, requests: Requests, *, begun: bool, then: Callable[[], None]
    ) -> None:
        self._allowance = allowance
        self._answer = answer
        self._begun = begun
        self._place: Place | None = None
        self._requests = requests
        self._then = then
        self.blocks: Callable[[], Coroutine[Any, Any, list[bytes]]] = (
            answer.blocks
        )  # asked for every event, and nothing to add

    async def open(self) -> Head:
        self._place = await self._allowance.admit(self._requests, begun=self._begun)
        self._then()
        return await self._answer.open()

    async def aclose(self) -> None:
        try:
            if self._place is not None:  # else it was never opened, and nobody is to hear of its end
                await self._answer.aclose()
        finally:
            place, self._place = self._place, None
            if place is not None:
                await place.end()


def _is_limited(key: KeySettings) -> bool:
    return any(limit is not None for limit in (key.requests_per_minute, key.concurrency, key.money))


def requests_for(upstreams: Upstreams, asked: Asked, body: bytes) -> list[Request]:
    """Gives a request as each upstream that serves it would get it. Raises `Refused` where none does."""
    serving = upstreams.serving(asked)
    original, requests = request_of(asked, serving.dialect, {}, body), list[Request]()
    for upstream in serving.fallback.upstreams:
        with suppress(UsageError):  # it cannot be put into its words, and it will not be asked
            requests.append(upstream.request(original))
    return requests
