"""The walls of the house: sources, streams, transforms, layers, and the call that attempts share.

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
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from holdfast._clock import Alarm, Clock, Random, SystemClock, system_random
from holdfast._errors import BudgetExhausted, EndOfStream, StreamError, UsageError
from holdfast._types import BatchMode, Head, Partial, Request, Usage
from holdfast.dialects._wire import model_of
from holdfast.machines.cursor import Cursor
from holdfast.machines.retry_budget import RetryBudget
from holdfast.machines.seam import add_usage
from holdfast.machines.transcript import Transcript
from holdfast.moments import (
    BreakerChanged,
    Listener,
    Moment,
    RecordingFailed,
    Report,
    SharedBack,
    SharedLost,
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


class Route(Protocol):
    """Where a call is among several upstreams: the layer that chooses leaves it on the call, who re-opens asks it.

    Each request that it gives bears the `upstream` and `dialect` it is for, and goes nowhere else.
    """

    @property
    def request(self) -> Request:
        """The whole request as it was sent to the upstream whose answer is delivered."""

    def knows(self, failure: StreamError) -> bool:
        """Says whether a failure came from an upstream, or from a limit or breaker that is over one alone."""

    def elsewhere(self) -> Request | None:
        """Gives the whole request for another upstream that is well and was not left in vain; None where none is."""

    def move(self, failure: StreamError) -> Request:
        """Leaves the upstream because of a failure, and gives what `elsewhere()` gave."""

    def arrived(self) -> None:
        """The answer goes on at the upstream that was asked last: its place is delivered from here on."""

    def told(self) -> dict[str, Any]:
        """Gives, as JSON values, what another process needs to ask the same upstream, and others."""


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


@dataclass(slots=True, frozen=True, kw_only=True)
class Leg:
    """Where a call stood at the end of one request's answer, when it was asked on in another. See `Call.next_leg()`."""

    answer: Transcript
    cursor: Cursor
    evidence: Evidence | None
    seamed: bool
    join: Callable[[Usage], Usage] | None
    where: Callable[[], dict[str, Any]] | None
    usage: Usage
    """The answer's usage so far, over all legs up to this one."""
    own_usage: Usage
    """That of this leg alone, its prompt included."""


@dataclass(slots=True, kw_only=True)
class Attempt:
    """One request that was sent, the `number`-th of its call: what it cost is reckoned from here (`_bill`).

    `upstream` names who was asked, empty where there is only one; `leg` the part of the answer it was for; `asked`
    what its items were to be. `before` and `after` estimate the tokens of its leg that had been delivered when it was
    sent, and when it was left (None while it runs), `repeated` those it said once more, to be compared.
    """

    number: int = 1
    upstream: str = ""
    dialect: str = ""
    model: str = ""
    leg: int = 1
    asked: BatchMode = "start"
    before: int = 0
    after: int | None = None
    repeated: int = 0
    sent: datetime | None = None
    """When, in UTC."""
    body: Mapping[str, Any] | bytes | None = field(default=None, repr=False)
    evidence: Evidence | None = None
    """What its answer has told; None while no answer began."""


_APART = (BreakerChanged, SharedLost, SharedBack, RecordingFailed)
"""Moments that may come behind a stream's end: they tell of something else, or of what is done with the whole."""


def _complain(message: str, error: Exception) -> None:
    asyncio.get_running_loop().call_exception_handler({"message": message, "exception": error})


class Call:
    """What the attempts of one stream share: its identity, its clock, where it is, and what it may still spend."""

    __slots__ = (
        "answer",
        "attempt",
        "attempts",
        "carried",
        "clock",
        "cursor",
        "dialect",
        "evidence",
        "guards",
        "id",
        "join",
        "keep",
        "labels",
        "legs",
        "listeners",
        "max_requests",
        "proven",
        "random",
        "recorded",
        "report",
        "resumed",
        "resuming",
        "retry_budget",
        "rival",
        "route",
        "seamed",
        "where",
    )

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        random: Random | None = None,
        max_requests: int = 8,
        retry_budget: RetryBudget | None = None,
        keep: bool = True,
        labels: Mapping[str, str] | None = None,
        listeners: Iterable[Listener] = (),
    ) -> None:
        self.id = secrets.token_hex(8)
        self.clock: Clock = clock or SystemClock()
        self.random: Random = random or system_random()
        self.max_requests = max_requests
        self.retry_budget = retry_budget
        self.attempts: list[Attempt] = []
        self.attempt: Attempt | None = None
        """The one that was sent last."""
        self.keep = keep
        self.labels = dict(labels or {})
        self.cursor = Cursor()
        self.answer = Transcript(keep=keep)
        self.carried: Mapping[str, str] = {}
        """Headers that go out with each request besides its own, such as those of a mount's client: full of secrets."""
        self.recorded = False
        """True once a layer writes `answer`; else the edge does."""
        self.dialect: Dialect | None = None
        self.rival: Call | None = None
        """The fork that this one races: who chooses among upstreams chooses another than it did."""
        self.route: Route | None = None
        """Where it is among several upstreams; None where there is one."""
        self.evidence: Evidence | None = None
        self.proven: Evidence | None = None
        """What had been proven where the next attempt is to continue: each one that does begins with a copy of it."""
        self.seamed = False
        """True once a model continued a prefix: the answer is no longer that of the first request."""
        self.join: Callable[[Usage], Usage] | None = None
        """Makes the answer's usage of what the last request's evidence tells, where it took several requests."""
        self.where: Callable[[], dict[str, Any]] | None = None
        """Gives, as JSON values, what a cursor of the provider's own goes on from behind what was delivered."""
        self.resuming: Partial | None = None
        """What had arrived of this answer before the call began, until a layer takes it up."""
        self.resumed = False
        """True where another call asked for this answer first: each request of this one asks for it again."""
        self.legs: list[Leg] = []
        """The requests of which the answer's earlier parts came, where it was asked on after an end."""
        self.report = Report(stream_id=self.id)
        self.listeners: list[Listener] = list(listeners)
        self.guards: list[Callable[[Request], None]] = []
        """Asked before each request is sent, as it is sent: who has something against it raises `BudgetExhausted`."""

    def begin(self, request: Request) -> Request:
        """Asks everybody who listens and has a `begin()`; each may give another request, which is the one to send."""
        for listener in self.listeners:
            hear = getattr(listener, "begin", None)
            if hear is not None:
                try:
                    request = hear(request) or request
                except Exception as error:  # noqa: BLE001 - who listens must not break what is listened to
                    _complain("a listener failed at the beginning of a stream", error)
        return request

    def note(self, moment: Moment) -> None:
        """Tells everybody who listens; the report first, so that a listener sees it up to date.

        After the end they hear only what is no part of the stream's story. Whoever another one's closing woke may still
        have something to say: the report alone has that.
        """
        moment.at = self.clock.now()
        moment.attempt = moment.attempt or self.requests
        self.report.add(moment)
        if self.report.closed and not isinstance(moment, _APART):
            return
        for listener in self.listeners:
            try:
                listener(moment)
            except Exception as error:  # noqa: BLE001 - who listens must not break what is listened to
                _complain(f"a listener failed at {type(moment).__name__}", error)

    @property
    def key(self) -> str:
        """Names the answer that is asked for: every attempt at one leg bears the same, and no other."""
        return f"holdfast-{self.id}" + (f"-{len(self.legs) + 1}" if self.legs else "")

    @property
    def usage(self) -> Usage | None:
        """The answer's own usage, over all requests that it took; None while none was told."""
        return self.over_legs(self._told)

    @property
    def _told(self) -> Usage | None:
        told = self.evidence.usage if self.evidence is not None else None
        return self.join(told) if told is not None and self.join is not None else told

    @property
    def own_usage(self) -> Usage:
        """The usage of this leg alone, an estimate where none was told."""
        return self._told or Usage(output_tokens=self.answer.tokens, estimated=True)

    def over_legs(self, told: Usage | None) -> Usage | None:
        """Gives the usage of the whole answer from that of its last leg."""
        if not self.legs:
            return told
        told = told or self.own_usage
        return add_usage(self.legs[-1].usage, told, said_again=self.answer.said_again(told.output_tokens))

    def next_leg(self) -> None:
        """The answer goes on in another request: what is resumed and compared from here on is that one's part."""
        self._leave_attempt()
        self.legs.append(
            Leg(
                answer=self.answer,
                cursor=self.cursor,
                evidence=self.evidence,
                seamed=self.seamed,
                join=self.join,
                where=self.where,
                usage=self.usage or self.own_usage,
                own_usage=self.own_usage,
            )
        )
        self.answer = Transcript(keep=self.keep, before=self.answer)
        self.cursor = Cursor()
        self.evidence, self.proven, self.join, self.where, self.seamed = None, None, None, None, False

    def drop_leg(self) -> None:
        """Nothing of this leg is the answer's: the call stands again where the one before had ended."""
        self._leave_attempt()
        leg = self.legs.pop()
        self.answer, self.cursor, self.evidence = leg.answer, leg.cursor, leg.evidence
        self.join, self.where, self.seamed = leg.join, leg.where, leg.seamed

    def _leave_attempt(self) -> None:
        """What is delivered from here on is no longer of the request that was sent last."""
        if self.attempt is not None and self.attempt.after is None:
            self.attempt.after = self.answer.tokens

    def take_up(self, partial: Partial, dialect: Dialect) -> None:
        """Stands where another call broke off. Raises `UsageError` for a partial that nothing can be made of."""
        state = partial.state
        try:
            self.id = str(state["call"])
            self.seamed = bool(state["seamed"])
            self.cursor.revive(state["cursor"])
            self.answer = Transcript.revived(state["answer"], partial.answer, keep=self.keep)
            where = [state.get("place", ""), state.get("offset", 0), state.get("proof", "")]
            if [type(one) for one in where] != [str, int, str]:
                raise ValueError("its place is none")
            if state["evidence"] is not None:
                self.evidence = dialect.wire.revive(state["evidence"])
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise UsageError(f"this partial cannot be resumed: it is none of this version's ({error!r})") from None
        self.report.stream_id = self.id
        self.resuming, self.resumed = partial, True

    @property
    def requests(self) -> int:
        """How many were sent."""
        return len(self.attempts)

    @property
    def may_request(self) -> bool:
        """False once `max_requests` were sent, or the retry budget is spent: layers ask before they wait."""
        return not self.why_no_request

    @property
    def why_no_request(self) -> str:
        """Says what keeps the call from sending another request; empty where nothing does."""
        if self.requests >= self.max_requests:
            return f"the call has sent its {self.max_requests} requests (max_requests=)"
        if self._repeats and self.retry_budget is not None and not self.retry_budget.allows(self.clock.now()):
            return f"the retry budget that calls share is spent: {self.retry_budget!r}"
        return ""

    @property
    def _repeats(self) -> bool:
        """True where the next request asks again for what was asked for before: here, in a fork or elsewhere."""
        leg = len(self.legs) + 1
        return (self.resumed and leg == 1) or any(attempt.leg == leg for attempt in self.attempts)

    def spend_request(self, request: Request) -> Attempt:
        """Counts a request that is about to be sent, or raises `BudgetExhausted`."""
        why, budget, now = self.why_no_request, self.retry_budget, self.clock.now()
        if why:
            raise BudgetExhausted(f"{why}; see what failed before, or allow more")
        for guard in self.guards:
            guard(request)
        if budget is not None:
            if self._repeats:
                budget.withdraw(now)
            else:
                budget.deposit(now)
        self._leave_attempt()
        self.attempt = Attempt(
            number=self.requests + 1,
            upstream=request.upstream,
            model=model_of(request, request.dialect or self.dialect),
            leg=len(self.legs) + 1,
            asked=self.cursor.asked,
            before=self.answer.tokens,
            sent=self.clock.wall(),
            body=request.body,
        )
        self.attempts.append(self.attempt)
        return self.attempt

    def fork(self) -> Call:
        """Gives the same call for a request that runs beside another: with a place and an answer of its own.

        What was sent, what is told and what may be spent stay common. `adopt()` makes the fork's place the call's.
        """
        twin = copy(self)
        twin.cursor = Cursor()
        twin.cursor.asked = self.cursor.asked
        twin.evidence, twin.attempt, twin.legs = None, None, list(self.legs)
        if self.answer.empty:  # else it goes on with what both of them have delivered
            twin.answer = Transcript(keep=self.keep, before=self.answer.before)
        return twin

    def adopt(self, twin: Call) -> None:
        """What a fork has read is what the call's answer is made of, from here on."""
        self.cursor, self.evidence, self.attempt, self.dialect = twin.cursor, twin.evidence, twin.attempt, twin.dialect
        self.answer, self.recorded, self.join, self.where = twin.answer, twin.recorded, twin.join, twin.where
        self.proven, self.seamed, self.legs = twin.proven, twin.seamed, twin.legs
        self.max_requests = twin.max_requests
        self.route = twin.route
