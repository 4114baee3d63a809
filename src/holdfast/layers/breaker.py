"""The circuit breaker: pybreaker's state machine, made aware that a call lasts as long as its stream.

pybreaker decides when a circuit opens and closes; its listeners, storages and settings stay in force. This layer
decides nothing but which stream may be judged: admission gives a ticket, and the outcome is recorded when the stream
ends, if the state that gave the ticket is still the present one. It must never hold the breaker's lock over an
`await`, never wait for a storage on the event loop, and never let anything of the breaker's replace a stream's error.

What is touched of pybreaker besides its public names, each held by a test that fails when pybreaker changes:
`_lock` (taken round every visit), `_state_storage` (counters; `opened_at`, which must follow the call's clock),
`_listeners` (set aside during a step and told after it), and `_state`: every change makes a new state object, which
is therefore the generation of a ticket.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any, Generic, TypeVar

import pybreaker

from holdfast._clock import Clock
from holdfast._core import Call, Source, Stream
from holdfast._errors import (
    BudgetExhausted,
    CircuitOpen,
    EndOfStream,
    StatusError,
    StreamError,
    UpstreamError,
    UsageError,
)
from holdfast._shared import Lease, SharedState
from holdfast._types import Head, Request
from holdfast.machines.settings import is_number
from holdfast.machines.tickets import Ticket, Tickets
from holdfast.moments import BreakerChanged

T = TypeVar("T")

_State = pybreaker.CircuitClosedState | pybreaker.CircuitHalfOpenState | pybreaker.CircuitOpenState


@dataclass(slots=True, frozen=True, repr=False)
class CircuitBreaker:
    """Stops asking an upstream that keeps failing; `breaker` outlives streams and may be shared by pipes and threads.

    A stream that reaches its clean end is a success. Failures are what the upstream is to blame for: no connection,
    a status of 500 and above or one worth retrying (429: an overloaded upstream needs the pause too), a broken,
    truncated, late, undecodable or foreign body, a retryable error inside the stream. Neutral, so recorded nowhere:
    a stream that was cancelled or closed before its end, other statuses of 4xx (they show a server alive and say
    nothing of its streams), what this side refused (`CircuitOpen`, `BudgetExhausted`), and errors of the program.
    What the breaker's `exclude` names is a success, as in pybreaker.

    While the circuit is open, `open()` raises `CircuitOpen` and sends nothing; `.retry_after` is seconds until the
    next probe, 0.0 while one is under way. Half-open, one stream at a time probes; a neutral one gives its place back.
    Of several processes each would probe: with `shared`, and a storage that they share (`RedisState.storage()`), one
    stream among all of them does, and its place is free again after `probe_seconds` if its process died.

    Placement is meaning. Left of `Retry` the breaker is asked at every attempt: with `fail_max=5` and 4 attempts a
    dead upstream sees 5 requests, and the second call fails at its second. Right of `Retry` it judges whole calls: a
    call saved by its fourth attempt is a success, and a dead upstream sees 5 x 4 = 20 requests. It only counts what
    it sees: a truncation that `verify()` or a stall that `Deadline` finds must be found left of it.

    A storage other than `CircuitMemoryStorage` is used in a worker thread. Listeners run where the storage does and
    hear `before_call(breaker, open, request)`; one that raises is reported to the event loop's exception handler, as
    is a storage that raises, and the stream goes on as if admitted unjudged.
    """

    breaker: pybreaker.CircuitBreaker
    shared: SharedState | None = None
    probe_seconds: float = 60.0

    def __post_init__(self) -> None:
        if not isinstance(self.breaker, pybreaker.CircuitBreaker):
            raise TypeError(f"breaker must be a pybreaker.CircuitBreaker, not {self.breaker!r}")
        if not (is_number(self.probe_seconds) and self.probe_seconds > 0):
            raise ValueError(f"probe_seconds must be a number of seconds above 0, not {self.probe_seconds!r}")

    def __repr__(self) -> str:
        own = self.breaker
        name = f"{own.name!r}, " if own.name else ""
        shared = f", shared={self.shared!r}" if self.shared is not None else ""
        return f"CircuitBreaker({name}fail_max={own.fail_max}, reset_timeout={own.reset_timeout:g}{shared})"

    def __call__(self, inner: Source[T]) -> Source[T]:
        return _BreakerSource(inner, _Desk(self.breaker), self)


def _is_fault(error: StreamError) -> bool:
    """Says whether the upstream is to blame."""
    match error:
        case CircuitOpen() | BudgetExhausted():
            return False
        case StatusError():
            return error.status >= 500 or error.retryable
        case UpstreamError():
            return error.retryable
        case _:
            return True


@dataclass(slots=True)
class _BreakerSource(Generic[T]):
    inner: Source[T]
    desk: _Desk
    layer: CircuitBreaker

    async def open(self, request: Request) -> Stream[T]:
        call, desk, ticket = request.call, self.desk, Ticket()
        place: Lease | None = None  # where processes share: the one to probe, of this opening of the circuit
        try:
            errand = partial(desk.admit, ticket, call.clock, self.inner.open, request)
            minutes = await asyncio.shield(desk.run(call, errand))
            for news in self.layer.shared.news() if self.layer.shared is not None else ():
                call.note(news)
            if minutes.refusal is not None:
                raise minutes.refusal
            if minutes.probing and self.layer.shared is not None:
                name, seconds = f"{desk.name} probe {minutes.opening}", self.layer.probe_seconds
                place = Lease(self.layer.shared, name, places=lambda: 1, seconds=seconds, clock=call.clock)
                if await place.take() is False:  # a store that does not answer leaves it to this process alone
                    raise desk.refuse("is half-open and its probe under way in another process", 0.0)
            stream = await self.inner.open(request)
        except StreamError as failure:
            recorded = desk.settle(call, ticket, failure)
            try:
                if recorded is not None:
                    await asyncio.shield(recorded)
            finally:
                if place is not None:
                    await (place.end() if recorded is None else place.keep())
            raise
        except BaseException:
            desk.give_up(ticket)
            if place is not None:
                await place.end()
            raise
        return _BreakerStream(stream, desk, ticket, call, place)


@dataclass(slots=True)
class _BreakerStream(Generic[T]):
    inner: Stream[T]
    desk: _Desk
    ticket: Ticket
    call: Call
    place: Lease | None = None
    recorded: asyncio.Future[_Minutes] | None = None
    recording: bool = False

    @property
    def head(self) -> Head:
        return self.inner.head

    async def receive(self) -> Sequence[T]:
        if self.recording:  # the inner stream has let its reader go, but we have not
            raise UsageError("this stream has a reader already")
        try:
            return await self.inner.receive()
        except EndOfStream:
            await self._settle(None)
            raise
        except StreamError as failure:
            await self._settle(failure)
            raise

    async def _settle(self, failure: StreamError | None) -> None:
        recorded = self.desk.settle(self.call, self.ticket, failure)
        if recorded is not None:
            self.recorded = recorded
        self.recording = True
        try:
            await self._leave()
        finally:
            self.recording = False

    async def _leave(self) -> None:
        """Waits for what is recorded, and gives a place to probe back if the probe showed nothing.

        One that did has closed the circuit, or opened it anew: whoever has not seen that yet must not probe as well.
        """
        decided = self.recorded is not None and not (await asyncio.shield(self.recorded)).probing
        if self.place is not None:
            await (self.place.keep() if decided else self.place.end())

    async def aclose(self) -> None:
        self.desk.give_up(self.ticket)
        try:
            await self.inner.aclose()
        finally:
            await self._leave()  # a cancelled reader left it to its thread


class _Ledger:
    """The tickets of one breaker, whoever shares it. Its lock guards memory only and is never held while waiting.

    So a stream gives its place back at once and on the event loop, even while its admission waits in a thread.
    """

    __slots__ = ("lock", "tickets")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.tickets = Tickets()


_ledgers: weakref.WeakKeyDictionary[pybreaker.CircuitBreaker, _Ledger] = weakref.WeakKeyDictionary()
_ledgers_lock = threading.Lock()


def _ledger_of(breaker: pybreaker.CircuitBreaker) -> _Ledger:
    with _ledgers_lock:
        return _ledgers.setdefault(breaker, _Ledger())


@dataclass(slots=True)
class _Minutes:
    """What one visit to the breaker brought about; told to the call afterwards, on its own loop."""

    refusal: CircuitOpen | None = None
    probing: bool = False
    """Half-open: the stream that was admitted probes, and the one that was judged did not decide."""
    opening: str = ""
    """Names the opening of the circuit that is probed."""
    changes: list[tuple[str, str]] = field(default_factory=list)
    complaints: list[Exception] = field(default_factory=list)

    @contextmanager
    def overhear(self) -> Iterator[None]:
        """Writes down what other people's code raises, instead of letting it break a stream."""
        try:
            yield
        except Exception as raised:  # noqa: BLE001 - listeners, predicates and storages may raise anything
            self.complaints.append(raised)


class _Desk:
    """Where one breaker is visited: synchronous, on the event loop or in a worker thread."""

    __slots__ = ("_breaker", "_ledger", "_lock", "_storage")

    def __init__(self, breaker: pybreaker.CircuitBreaker) -> None:
        self._breaker = breaker
        self._ledger = _ledger_of(breaker)
        self._lock = breaker._lock  # noqa: SLF001 - see the head of this module
        self._storage = breaker._state_storage  # noqa: SLF001 - see the head of this module

    # -- on the event loop ---------------------------------------------------------------------

    def run(self, call: Call, errand: Callable[[], _Minutes]) -> asyncio.Future[_Minutes]:
        """Runs an errand here if it cannot block, else in a worker thread, where it is done whoever leaves."""
        loop = asyncio.get_running_loop()
        # `breaker.call(f)` in another thread holds the lock as long as f takes: that wait is a thread's, too.
        if type(self._storage) is pybreaker.CircuitMemoryStorage and self._lock.acquire(blocking=False):
            done: asyncio.Future[_Minutes] = loop.create_future()
            try:
                done.set_result(errand())
            finally:
                self._lock.release()
            self._tell(call, done)
            return done
        # Not to_thread(): its task, cancelled before a thread is free, would drop the errand.
        working = loop.run_in_executor(None, contextvars.copy_context().run, errand)
        working.add_done_callback(partial(self._tell, call))
        return working

    def _tell(self, call: Call, done: asyncio.Future[_Minutes]) -> None:
        minutes, name = done.result(), self._breaker.name or ""
        for old, new in minutes.changes:
            call.note(BreakerChanged(name=name, old=old, new=new))
        for complaint in minutes.complaints:
            message = f"a listener or the storage of circuit breaker {name!r} raised"
            asyncio.get_running_loop().call_exception_handler({"message": message, "exception": complaint})

    def settle(self, call: Call, ticket: Ticket, failure: StreamError | None) -> asyncio.Future[_Minutes] | None:
        """Has an outcome recorded, once per ticket; None where there is nothing to record."""
        if failure is not None and not _is_fault(failure):
            self.give_up(ticket)
            return None
        with self._ledger.lock:
            if not self._ledger.tickets.decide(ticket):
                return None
        return self.run(call, partial(self._record, ticket, failure, call.clock))

    def give_up(self, ticket: Ticket) -> bool:
        """Ends a ticket without an outcome. Harmless, and False, when it has one."""
        with self._ledger.lock:
            first = self._ledger.tickets.decide(ticket)
            if first:
                self._ledger.tickets.release(ticket)
            return first

    # -- at the breaker, under its lock --------------------------------------------------------

    def admit(self, ticket: Ticket, clock: Clock, function: Callable[..., Any], request: Request) -> _Minutes:
        """Asks for admission; the answer is in `.refusal`."""
        minutes = _Minutes()
        with self._lock:
            with minutes.overhear():
                minutes.refusal = self._refusal(ticket, clock, minutes)
            if minutes.refusal is None:
                self._announce(minutes, "before_call", function, request)
        return minutes

    def _refusal(self, ticket: Ticket, clock: Clock, minutes: _Minutes) -> CircuitOpen | None:
        state = self._step(_look, minutes)
        if state.name == pybreaker.STATE_OPEN:
            wait = self._wait(clock)
            if wait > 0:
                return self.refuse(f"is open, its next probe is due in {wait:g} s", wait)
            state = self._change(state, self._breaker.half_open, minutes)
            if state.name == pybreaker.STATE_OPEN:  # a shared storage knows of a probe that failed meanwhile
                return self.refuse("is open anew", self._wait(clock))
        minutes.probing = probing = state.name == pybreaker.STATE_HALF_OPEN
        if probing:
            minutes.opening = getattr(self._storage, "generation", "") or str(self._storage.opened_at)
        with self._ledger.lock:
            if self._ledger.tickets.admit(ticket, state, probing=probing):
                return None
        return self.refuse("is half-open and its probe under way", 0.0)

    @property
    def name(self) -> str:
        """The breaker's, empty where it has none."""
        return self._breaker.name or ""

    def refuse(self, why: str, retry_after: float) -> CircuitOpen:
        """Makes the error of a stream that is not admitted."""
        name = f" {self._breaker.name!r}" if self._breaker.name else ""
        refusal = CircuitOpen(f"the circuit breaker{name} {why}; nothing was sent")
        refusal.retry_after = retry_after
        return refusal

    def _wait(self, clock: Clock) -> float:
        """Seconds until a probe is due. An opening in our future was dated by another clock: it begins now."""
        opened_at, now = self._storage.opened_at, clock.wall()
        if opened_at is None:
            return 0.0
        if opened_at > now:
            self._storage.opened_at = opened_at = now
        return (opened_at + timedelta(seconds=self._breaker.reset_timeout) - now).total_seconds()

    def _record(self, ticket: Ticket, failure: StreamError | None, clock: Clock) -> _Minutes:
        minutes = _Minutes()
        with self._lock:
            with minutes.overhear():
                state = self._step(_look, minutes)
                if self._ledger.tickets.counts(ticket, state):
                    self._judge(state, failure, clock, minutes)
                    minutes.probing = self._breaker.current_state == pybreaker.STATE_HALF_OPEN
            with self._ledger.lock:
                self._ledger.tickets.release(ticket)
        return minutes

    def _judge(self, state: _State, failure: StreamError | None, clock: Clock, minutes: _Minutes) -> None:
        """Takes the steps of pybreaker's own `call()`, in its order."""
        if failure is None or not self._breaker.is_system_error(failure):
            self._storage.reset_counter()
            self._change(state, state.on_success, minutes)
            self._announce(minutes, "success")
        else:
            self._storage.increment_counter()
            self._announce(minutes, "failure", failure)
            self._change(state, partial(self._fail, state, failure, clock), minutes)

    def _fail(self, state: _State, failure: StreamError, clock: Clock) -> None:
        trip: Callable[[BaseException], None] = state.on_failure
        trace = failure.__traceback__
        try:
            trip(failure)
        except pybreaker.CircuitBreakerError:
            pass  # the stream's own error says more, and is what its reader gets
        except StreamError as raised:  # throw_new_error_on_trip=False raises the failure itself
            if raised is not failure:
                raise
            failure.__traceback__ = trace
        if self._breaker.current_state == pybreaker.STATE_OPEN:
            self._storage.opened_at = clock.wall()  # pybreaker wrote the system's time

    def _change(self, state: _State, action: Callable[[], None], minutes: _Minutes) -> _State:
        after = self._step(action, minutes)
        if after is not state:
            minutes.changes.append((state.name, after.name))
        return after

    def _step(self, action: Callable[[], None], minutes: _Minutes) -> _State:
        """Takes one step of pybreaker, then tells its listeners of the change; gives the present state.

        pybreaker tells them before it has written the new state, so one that raises would keep a circuit from opening.
        """
        breaker = self._breaker
        before = breaker._state  # noqa: SLF001 - see the head of this module
        listeners, breaker._listeners = breaker._listeners, []  # noqa: SLF001 - see the head of this module
        try:
            action()
            after: _State = breaker.state
        finally:
            breaker._listeners = listeners  # noqa: SLF001 - see the head of this module
        if after is not before:
            self._announce(minutes, "state_change", before, after)
        return after

    def _announce(self, minutes: _Minutes, event: str, *facts: object) -> None:
        for listener in self._breaker.listeners:
            with minutes.overhear():
                getattr(listener, event)(self._breaker, *facts)


def _look() -> None:
    """The step that only looks. It may still find a change: a hand, or another process, moved the storage."""
