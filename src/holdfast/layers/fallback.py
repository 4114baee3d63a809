"""Fallback: several upstreams behind one source; who fails is left for the next.

Until the first item it goes on at once, to the next upstream that is well, and holds nothing back; behind the first
item who re-opens decides (`Call.route` is what it asks), and a request that names its upstream goes there and nowhere
else. Who is chosen, and who is ejected until when, is decided by `machines/routes.py`; here is only opening and
closing. It must never send one upstream's key to another: requests are rewritten by the upstream, whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Protocol, TypeVar

from holdfast._core import Source, Stream
from holdfast._errors import BudgetExhausted, CircuitOpen, EndOfStream, StreamError, UsageError
from holdfast._tasks import Opening
from holdfast._types import Head, Partial, Request
from holdfast.dialects import Dialect
from holdfast.dialects._ways import effects_of
from holdfast.machines.routes import Choose, Routes, Visit, judgement, leads_on
from holdfast.machines.settings import check_kind
from holdfast.moments import FellBack

T = TypeVar("T")
Layers = Sequence[Callable[[Source[Any]], Source[Any]]]


class Asked(Protocol):
    """An upstream as this layer asks it: `holdfast.Upstream` is one."""

    @property
    def name(self) -> str:
        """What reports call it; empty where nobody named it."""

    @property
    def dialect(self) -> Dialect:
        """What it speaks."""

    @property
    def weight(self) -> float:
        """Its share among equals."""

    def named(self, taken: Sequence[str]) -> Asked:
        """Gives it with a name that is none of those."""

    def own_layers(self) -> Layers:
        """Gives the layers that are over this one alone, new ones where they were not given."""

    def request(self, original: Request) -> Request:
        """Gives a request in its words: address, headers, body, `upstream` and `dialect`. Raises `UsageError`."""

    def suits(self, original: Request) -> None:
        """Raises `UsageError` for a request that cannot be put into its words."""

    def probe(self, path: str) -> Request:
        """Gives a request that costs nothing and that a server which is well answers, for a path or what it has."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Fallback:
    """Asks the first of `upstreams` that is well, and the next where it fails before its first item.

    `choose` says who is first: the "first" in their order, one drawn by "weighted" chance, or the "least-loaded" for
    its weight. What leads on is a failure of the upstream: no connection, 401 to 404, 408, 409, 429, 5xx, a clock, what
    is no stream, an open breaker, a limit of that one alone. A request that was refused as such (400, 413, 422) is not
    sent to others, unless its status is in `also`. There is no pause and each is asked once: `Retry`, right of it,
    makes another round. Of a round's failures the last that may pass is raised.

    `eject_after` failures in a row, in the middle of answers too, eject an upstream for `eject` seconds, twice as long
    each time, at most `max_eject`; never all of them. Health and load are this object's: give it to all that share it.

    In the middle of an answer `Reconnect` goes on at another upstream where it may: see `Seams(leave_after=...)`.
    """

    upstreams: Sequence[Asked]
    choose: Choose = "first"
    also: tuple[int, ...] = ()
    eject_after: int = 3
    eject: float = 10.0
    max_eject: float = 300.0
    routes: Routes = field(init=False, repr=False, compare=False)
    """Who is well and how busy: places are in the order of `upstreams`."""
    _layers: tuple[Layers, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        given = self.upstreams
        check_kind("upstreams=", given, Sequence, "a sequence of Upstream(...)")
        if not given or not all(hasattr(one, "own_layers") for one in given):
            raise ValueError(f"upstreams must be a sequence of Upstream(...), one at least, not {given!r}")
        check_kind("also=", self.also, tuple, "a tuple of statuses")
        names = [one.name for one in given if one.name]
        if len(set(names)) < len(names):
            raise ValueError(f"upstreams must have names of their own, not {', '.join(names)}")
        named: list[Asked] = []
        for one in given:
            named.append(one if one.name else one.named([*names, *(other.name for other in named)]))
        routes = Routes(
            [one.weight for one in named],
            choose=self.choose,
            eject_after=self.eject_after,
            eject=self.eject,
            max_eject=self.max_eject,
        )
        # The way to set a field of a frozen dataclass: they are made of the settings, and no settings themselves.
        object.__setattr__(self, "upstreams", tuple(named))
        object.__setattr__(self, "routes", routes)
        object.__setattr__(self, "_layers", tuple(one.own_layers() for one in named))

    def __call__(self, inner: Source[T]) -> Source[T]:
        chains = (_under(inner, layers, one.name) for one, layers in zip(self.upstreams, self._layers, strict=True))
        return _FallbackSource(tuple(chains), self)

    def within(self) -> list[tuple[str, Layers]]:
        """Gives the layers that are over one upstream alone, by its name: for who draws the pipe."""
        names = (one.name for one in self.upstreams)
        return [(name, tuple(layers)) for name, layers in zip(names, self._layers, strict=True)]

    def advise(self, left: Sequence[object], right: Sequence[object]) -> list[str]:
        """Warns of orders that cannot work."""
        early = [name for layer in left if (name := type(layer).__name__) in ("Retry", "Reconnect")]
        late = [type(layer).__name__ for layer in right if type(layer).__name__ == "Verify"]
        return [
            *(f"{name} belongs right of Fallback: left of it, each upstream is tried again first" for name in early),
            *(f"{name} belongs left of Fallback: what it finds wrong leads on" for name in late),
            *("Fallback twice multiplies the attempts: leave one out" for one in right if isinstance(one, Fallback)),
        ]

    def place(self, name: str) -> int:
        """Gives the place of an upstream by its name. Raises `UsageError` for one that is not here."""
        for place, upstream in enumerate(self.upstreams):
            if upstream.name == name:
                return place
        raise UsageError(f"no upstream is called {name!r}; there are {', '.join(one.name for one in self.upstreams)}")

    def take_up(self, request: Request, partial: Partial) -> Request:
        """Gives the request that goes on from a partial at the upstream of which it is."""
        place = self._place_of(partial)
        if place is None:
            return request
        if partial.request is not None:
            request = replace(request, body=_original(partial.request, partial.state))
        route = request.call.route = _Route(self, request)
        return route.at_first(place)

    def _place_of(self, partial: Partial) -> int | None:
        known = [place for place, one in enumerate(self.upstreams) if one.dialect.name == partial.dialect]
        for place in known:
            if self.upstreams[place].name == partial.state.get("upstream"):
                return place
        return known[0] if known else None


def _under(inner: Source[T], layers: Layers, upstream: str) -> Source[T]:
    """Nests the layers of one upstream: one that has an `over()` is told over which."""
    for layer in layers:
        over = getattr(layer, "over", None)
        inner = layer(inner) if over is None else over(inner, upstream)
    return inner


class _Route:
    """Where one call is among the upstreams: see `Route`."""

    __slots__ = ("_ahead", "_asked", "_at", "_layer", "_left", "_original", "_requests", "failure")

    def __init__(self, layer: Fallback, original: Request) -> None:
        self._layer = layer
        self._original = original
        self._at = 0  # whose answer is delivered
        self._asked = 0  # who is asked for the rest of it
        self._left: set[int] = set()  # in vain, since something new was delivered
        self._ahead: int | None = None
        self.failure: StreamError | None = None
        """The last that came through this layer."""
        self._requests: dict[int, Request] = {}

    def at_first(self, place: int) -> Request:
        """The call begins at a place; gives the request for it."""
        self._at = self._asked = place
        return self.request

    def _request(self, place: int) -> Request:
        if place not in self._requests:
            self._requests[place] = self._layer.upstreams[place].request(self._original)
        return self._requests[place]

    @property
    def asked(self) -> int:
        """The place that was asked last."""
        return self._asked

    @property
    def words(self) -> Dialect | None:
        """What the request was written in."""
        return self._original.dialect

    @property
    def request(self) -> Request:
        return self._request(self._at)

    def knows(self, failure: StreamError) -> bool:
        return failure is self.failure

    def elsewhere(self) -> Request | None:
        call, routes = self._original.call, self._layer.routes
        now = call.clock.now()
        if self._ahead is None or not routes.healthy(self._ahead, now):
            self._ahead = routes.choose(
                now, _chance(self._layer, call.random), {*self._left, self._asked}, ejected=False
            )
        if self._ahead is None:
            return None
        with suppress(UsageError):  # it cannot be put into its words: as if it was not there
            return self._request(self._ahead)
        self._left.add(self._ahead)
        self._ahead = None
        return None

    def move(self, failure: StreamError) -> Request:
        request, there = self.elsewhere(), self._ahead
        if request is None or there is None:
            raise UsageError("there is no other upstream to move to")
        upstreams = self._layer.upstreams
        old, new = upstreams[self._asked].name, upstreams[there].name
        self._left.add(self._asked)
        self._asked, self._ahead = there, None
        self._original.call.note(FellBack(error=failure, old=old, new=new, midstream=True))
        return request

    def arrived(self) -> None:
        self._at = self._asked
        self._left.clear()

    def told(self) -> dict[str, Any]:
        sent, asked = self.request, self._original.body
        told: dict[str, Any] = {"upstream": sent.upstream}
        if isinstance(asked, Mapping) and isinstance(sent.body, Mapping):  # the prompt, which they share, not twice
            told["others"] = {name: value for name, value in asked.items() if sent.body.get(name) != value}
            told["alone"] = [name for name in sent.body if name not in asked]
        return told


def _original(sent: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, Any]:
    """Gives the body as it was before it was put into an upstream's words, of what `told()` kept."""
    others, alone = state.get("others"), state.get("alone")
    kept = {name: value for name, value in sent.items() if not isinstance(alone, list) or name not in alone}
    return {**kept, **others} if isinstance(others, Mapping) else kept


def _chance(layer: Fallback, random: Any) -> float:
    return 0.0 if layer.choose == "first" else float(random.random())


@dataclass(slots=True)
class _FallbackSource(Generic[T]):
    chains: tuple[Source[T], ...]
    layer: Fallback

    async def open(self, request: Request) -> Stream[T]:
        stream = _FallbackStream(self, request)
        try:
            await stream.connect()
        except BaseException:
            await stream.aclose()
            raise
        return stream


class _FallbackStream(Generic[T]):
    __slots__ = (
        "_asking",
        "_closed",
        "_end",
        "_failure",
        "_flowing",
        "_head",
        "_layer",
        "_leaving",
        "_opening",
        "_pinned",
        "_place",
        "_reading",
        "_request",
        "_route",
        "_source",
        "_tried",
        "_visit",
        "inner",
    )

    def __init__(self, source: _FallbackSource[T], request: Request) -> None:
        self.inner: Stream[T] | None = None
        self._source = source
        self._layer = source.layer
        self._request = request
        self._head = Head()
        self._tried: set[int] = set()
        self._failure: StreamError | None = None  # of this round: the one to raise where none leads on
        self._end: Exception | None = None
        self._leaving: Stream[T] | None = None
        self._opening: Opening[T] | None = None
        self._visit: Visit | None = None
        self._flowing = self._reading = self._closed = False
        self._pinned = bool(request.upstream)
        if self._pinned:
            self._place, self._asking, self._route = self._layer.place(request.upstream), request, None
            return
        self._route = self._begin_route()
        place = self._choose_beside()
        self._ask((self._choose() or 0) if place is None else place)

    def _choose_beside(self) -> int | None:
        """A request that races another is to bring what that one does not: it goes elsewhere, where anybody is well."""
        call = self._request.call
        route = call.rival.route if call.rival is not None else None
        if not isinstance(route, _Route):
            return None
        chance = _chance(self._layer, call.random)
        return self._layer.routes.choose(call.clock.now(), chance, {route.asked}, ejected=False)

    def _begin_route(self) -> _Route:
        """The call begins at one of them; a round before this one may have begun it elsewhere."""
        call = self._request.call
        before = call.route
        words = self._request.dialect
        if words is None:  # what the attempts before have met is not what was asked in
            words = before.words if isinstance(before, _Route) else call.dialect
        original = replace(self._request, dialect=words)
        for upstream in self._layer.upstreams:
            upstream.suits(original)
        route = call.route = _Route(self._layer, original)
        return route

    def _choose(self) -> int | None:
        call = self._request.call
        return self._layer.routes.choose(call.clock.now(), _chance(self._layer, call.random), self._tried)

    def _ask(self, place: int) -> None:
        if self._route is None:
            raise AssertionError("a request that names its upstream goes nowhere else")
        self._place = place
        self._asking = self._route.at_first(place)
        self._tried.add(place)

    @property
    def head(self) -> Head:
        return self.inner.head if self.inner is not None else self._head

    async def receive(self) -> Sequence[T]:
        if not self._flowing or self.inner is None:
            return await self._receive_first()
        try:
            return await self.inner.receive()
        except EndOfStream:
            self._leave(good=True)
            raise
        except StreamError as failure:
            self._failed(failure)
            raise

    async def _receive_first(self) -> Sequence[T]:
        if self._reading:
            raise UsageError("this stream has a reader already")
        self._reading = True
        try:
            while True:
                inner = await self.connect()
                try:
                    batch = await inner.receive()
                except EndOfStream:
                    self._flowing = True
                    self._leave(good=True)
                    raise
                except StreamError as error:
                    failure = error
                else:
                    self._flowing = True
                    self._failure = None
                    return batch
                if effects_of(self._asking):  # it may have begun to act
                    self._failed(failure)
                    self._end = failure
                    raise failure
                self._leaving, self._head, self.inner = inner, inner.head, None
                self._go_on_after(failure)
        finally:
            self._reading = False

    async def connect(self) -> Stream[T]:
        """Gives the stream of the upstream now being asked, opening one where there is none. Cancelled, it goes on."""
        while self._end is None:
            if self._closed:
                raise UsageError("this stream is closed")
            if self._leaving is not None:
                await self._leaving.aclose()
                self._leaving = None
            elif self.inner is not None:
                return self.inner
            else:
                await self._open()
        raise self._end

    async def _open(self) -> None:
        """Opens: in `open()` itself so that a cancellation leaves nothing behind, later so that it outlasts one."""
        chain, clock = self._source.chains[self._place], self._request.call.clock
        if self._visit is None or self._visit.over:
            self._visit = self._layer.routes.begin(self._place, clock.now())
        try:
            if self._reading:
                self._opening = self._opening or Opening(chain, self._asking)
                stream = await self._opening.stream()
            else:
                stream = await chain.open(self._asking)
        except StreamError as error:
            self._opening = None
            failure = error
        else:
            self.inner, self._head, self._opening = stream, stream.head, None
            if self._closed:  # somebody else closed us while we waited for the head
                await stream.aclose()
            return
        self._go_on_after(failure)  # outside the `except`, so that what it raises does not look caused by this

    def _go_on_after(self, failure: StreamError) -> None:
        """Turns to the next upstream, or sets what ends the stream."""
        layer, call = self._layer, self._request.call
        self._failed(failure)
        self._failure = _worse(self._failure, failure)
        if self._pinned or not leads_on(failure, layer.also):
            self._end = failure
            return
        there = self._choose() if call.may_request else None
        if there is None:
            self._end = self._failure
            return
        old = self._asking.upstream
        self._ask(there)
        call.note(FellBack(error=failure, old=old, new=self._asking.upstream))

    def _failed(self, failure: StreamError) -> None:
        self._leave(good=judgement(failure, self._layer.also), wait=failure.retry_after)
        if isinstance(route := self._request.call.route, _Route):
            route.failure = failure

    def _leave(self, *, good: bool | None, wait: float | None = None) -> None:
        """Tells how it went at the upstream, once."""
        if self._visit is not None:
            self._layer.routes.end(self._visit, self._request.call.clock.now(), good=good, wait=wait)

    async def aclose(self) -> None:
        self._closed = True
        self._leave(good=None)
        opening, self._opening = self._opening, None
        try:
            if opening is not None:
                await opening.aclose()
        finally:
            try:
                if self._leaving is not None:
                    await self._leaving.aclose()
            finally:
                if self.inner is not None:
                    await self.inner.aclose()


def _worse(before: StreamError | None, failure: StreamError) -> StreamError:
    """Of two failures the one to raise: the later, but one that may pass over one that may not, and one sent over none.

    So a `Retry` makes another round where any of them may do better, and nobody is told of an open breaker alone.
    """
    if before is None:
        return failure
    return max((failure, before), key=lambda one: (one.retryable, not isinstance(one, CircuitOpen | BudgetExhausted)))


__all__ = ["Fallback"]
