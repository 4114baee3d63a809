"""Budget: refuses streams when a sum of money is spent, and stops one that is about to spend more.

What a stream costs is what its bill says (`_bill`), by a price table; here is only asking, booking and stopping. It
must never stop what it cannot price, never book twice what two attempts share, and never cost a healthy stream a
reckoning per event: the bill is looked at again when so many bytes have come.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from types import NoneType
from typing import Any, Generic, Literal, TypeVar

from holdfast._bill import bills, prompt_tokens
from holdfast._clock import Clock, SystemClock
from holdfast._core import Call, Source, Stream
from holdfast._errors import BudgetExhausted
from holdfast._shared import SharedState
from holdfast._tasks import outlast
from holdfast._types import Head, Request
from holdfast.dialects import AUTO, Dialect, by_endpoint
from holdfast.dialects._wire import model_of
from holdfast.machines.ledger import Ledger
from holdfast.machines.settings import check_kind
from holdfast.moments import Billed, Ended, Moment
from holdfast.prices import Cost, Prices, money

T = TypeVar("T")
STEP = 65_536
"""Bytes of a body between two looks at its bill: some hundreds of events, and of tokens."""
_UNIT = Decimal("0.000000001")
"""What shared state counts in: numbers there are floats, and whole ones exact up to some millions of dollars."""
_ZERO = Decimal(0)
_PERIODS = {"hour": "%Y-%m-%dT%H", "day": "%Y-%m-%d", "month": "%Y-%m"}
_LENGTHS = {"hour": timedelta(hours=1), "day": timedelta(days=1), "month": timedelta(days=31)}
_LATE = timedelta(hours=1)
"""How long after a period shared state still knows it: calls that began in it are paid for out of it."""


@dataclass(slots=True, frozen=True, kw_only=True, repr=False)
class Budget:
    """Lets streams spend `limit` in the currency of `prices`, in all or `per` hour, day or month (UTC).

    Once it is spent, or a request's prompt alone would pass it, `open()` raises `BudgetExhausted` and nothing is sent.
    A stream that passes it in the middle ends with `BudgetExhausted`, its partial on it. Money counts for the period in
    which its call began. With `label` each value of that label has the limit for itself.

    What has no price cannot be held to a budget: no request for it is sent, unless `unpriced="allow"`. What is booked
    outlives streams in this object; `shared` makes it common to all budgets that have the same `name` there, with the
    same limit, period, currency and label, in whatever process: give each budget a name of its own.
    """

    limit: str | int | Decimal
    per: Literal["hour", "day", "month"] | None = None
    prices: Prices = field(default_factory=Prices)
    label: str | None = None
    unpriced: Literal["refuse", "allow"] = "refuse"
    shared: SharedState | None = None
    name: str = "budget"
    _ledger: Ledger = field(init=False, repr=False, compare=False)
    _clock: Clock = field(init=False, repr=False, compare=False)
    """That of the last call: what it is now is what it is for calls."""

    def __post_init__(self) -> None:
        amount = money("Budget(limit=...)", self.limit)
        if self.per is not None and self.per not in _PERIODS:
            raise ValueError(f"Budget(per=...) must be {', '.join(map(repr, _PERIODS))} or None, not {self.per!r}")
        if self.unpriced not in ("refuse", "allow"):
            raise ValueError(f"Budget(unpriced=...) must be 'refuse' or 'allow', not {self.unpriced!r}")
        check_kind("Budget(prices=...)", self.prices, Prices, "Prices(...)")
        check_kind("Budget(label=...)", self.label, (str, NoneType), "a label's name")
        object.__setattr__(self, "limit", amount)
        object.__setattr__(self, "_ledger", Ledger(amount))
        object.__setattr__(self, "_clock", SystemClock())

    def _see(self, clock: Clock) -> None:
        object.__setattr__(self, "_clock", clock)

    def __repr__(self) -> str:
        per = f", per={self.per!r}" if self.per else ""
        label = f", label={self.label!r}" if self.label is not None else ""
        return f"Budget({self.limit} {self.prices.currency}{per}{label})"

    def spent(self, value: str = "", *, now: datetime | None = None) -> Decimal:
        """What this process has booked: for a value of the label, in the period of `now`, in UTC; None: the present."""
        return self._ledger.spent(value, self._period(now or self._clock.wall()))

    def total(self, *, now: datetime | None = None) -> Decimal:
        """What this process has booked for all values of the label together."""
        return self._ledger.total(self._period(now or self._clock.wall()))

    def _period(self, now: datetime) -> str:
        return "" if self.per is None else now.strftime(_PERIODS[self.per])

    def _exhausted(self, tab: _Tab, so: str) -> BudgetExhausted:
        """Says whose money is spent, and when there will be more."""
        whose = f" for {tab.value[:64]!r}" if self.label is not None else ""
        error = BudgetExhausted(f"{self!r} is spent{whose}{so}")
        error.reason = "spent"
        if self.per is not None:
            left = (_end(self.per, tab.began) - tab.clock.wall()).total_seconds()
            error.retry_after = max(0.0, left)
        return error

    def __call__(self, inner: Source[T]) -> Source[T]:
        return _BudgetSource(inner, self)

    async def check(self, request: Request) -> None:
        """Raises the `BudgetExhausted` that would meet a request now, before anything begins, and spends nothing."""
        price = self._price_of(request)
        if price is None and self.unpriced == "refuse":
            dialect = _dialect_of(request)
            raise _unpriced(self, model_of(request, dialect), _name_of(dialect), "nothing was sent")
        owed, tab = price or _ZERO, _Tab(self, request.call)
        try:
            taken = await tab.take(owed) if self.shared is not None else None
            if taken is False or (taken is None and not tab.allows(owed)):
                raise self._exhausted(tab, ", and nothing was sent")
        finally:
            await tab.settle(request.call)  # what is asked is not taken

    def over(self, inner: Source[T], upstream: str) -> Source[T]:
        """Gives what it is in the layers of one upstream: that one's alone."""
        return _BudgetSource(inner, self, upstream)

    def _tab(self, request: Request, upstream: str) -> _Tab:
        """Gives the call's tab: one, over all its attempts and forks, which share their listeners."""
        call = request.call
        tabs = (one for one in call.listeners if isinstance(one, _Tab) and one.layer is self)
        tab = next(tabs, None)
        if tab is None:
            tab = _Tab(self, call)
            call.listeners.append(tab)
            call.guards.append(tab.guard)
        tab.upstreams.add(upstream)
        return tab

    def _shared_name(self, account: str, period: str) -> str:
        limit = f"{Decimal(self.limit).normalize():f}"
        return " ".join(
            part
            for part in (self.name, limit, self.prices.currency, self.per or "", self.label or "", period, account)
            if part
        )

    def _price_of(self, request: Request) -> Decimal | None:
        """Gives what the prompt costs at least, about; None for what has no price."""
        dialect = _dialect_of(request)
        model, name = model_of(request, dialect), _name_of(dialect)
        if not self.prices.knows(model, dialect=name):
            return None
        prompt = prompt_tokens(request.body)
        asking = Billed(
            model=model,
            dialect=name,
            prompt_tokens=prompt,
            input_tokens=prompt,
            output_tokens=0,
            sent=request.call.clock.wall(),
        )
        return self.prices.cost((asking,)).known


def _end(per: str, when: datetime) -> datetime:
    """Gives the end of the hour, day or month."""
    begin = when.replace(minute=0, second=0, microsecond=0)
    if per == "hour":
        return begin + timedelta(hours=1)
    begin = begin.replace(hour=0)
    if per == "day":
        return begin + timedelta(days=1)
    return (begin.replace(day=1) + timedelta(days=32)).replace(day=1)


def _dialect_of(request: Request) -> Dialect | None:
    dialect = request.dialect or request.call.dialect
    if dialect is AUTO:
        return by_endpoint(request.url) or AUTO  # as `verify` will, which has not seen the request yet
    return dialect


def _name_of(dialect: Dialect | None) -> str:
    return dialect.name if dialect is not None else ""


class _Tab:
    """What one call has taken of the budget. Its last word is the call's bill, which it hears when the call ends."""

    __slots__ = (
        "_account",
        "_here",
        "_lock",
        "_period",
        "_there",
        "began",
        "clock",
        "ended",
        "layer",
        "upstreams",
        "value",
    )

    def __init__(self, layer: Budget, call: Call) -> None:
        self.layer = layer
        self.upstreams = set[str]()
        """Which it is for; "" is for all."""
        self.ended: Decimal | None = None
        self.began = call.clock.wall()
        self.clock = call.clock
        layer._see(call.clock)  # noqa: SLF001 - its own layer
        self._period = layer._period(self.began)  # noqa: SLF001 - its own layer
        self.value = account = call.labels.get(layer.label, "") if layer.label is not None else ""
        # The name that it has here it has among all: who can name accounts must not get one there for each name.
        self._account = layer._ledger.open(account, self._period)  # noqa: SLF001 - its own layer
        self._here = _ZERO  # booked in this process
        self._there = _ZERO  # and among all
        self._lock = asyncio.Lock()  # racers, and who closes while another reads, must not take the same money twice

    def __call__(self, moment: Moment) -> None:
        if isinstance(moment, Billed) and self._is_ours(moment.upstream):
            self.ended = (self.ended or _ZERO) + self.layer.prices.cost((moment,)).known
        elif isinstance(moment, Ended):
            self.ended = self.ended or _ZERO
            self.book(self.ended)

    def guard(self, request: Request) -> None:
        """Refuses what cannot be priced where it is sent: which model it is for may be known there alone."""
        layer = self.layer
        if layer.unpriced == "allow" or not self._is_ours(request.upstream):
            return
        if layer._price_of(request) is None:  # noqa: SLF001 - its own layer
            dialect = _dialect_of(request)
            raise _unpriced(layer, model_of(request, dialect), _name_of(dialect), "nothing was sent")

    def _is_ours(self, upstream: str) -> bool:
        return "" in self.upstreams or upstream in self.upstreams

    def cost(self, call: Call) -> Cost:
        """What the call has cost so far, by the bills of a stream that runs."""
        return self.layer.prices.cost(bill for bill in bills(call) if self._is_ours(bill.upstream))

    def owed(self, call: Call) -> Decimal:
        """What the call has cost so far."""
        return self.ended if self.ended is not None else self.cost(call).known

    def book(self, owed: Decimal) -> None:
        """Makes the ledger say that so much was spent by this call."""
        self.layer._ledger.spend(self._account, self._period, owed - self._here)  # noqa: SLF001 - its own layer
        self._here = owed

    def allows(self, owed: Decimal) -> bool:
        """Says whether this call may begin to owe so much, as far as this process knows."""
        return self.left > 0 and self.left >= owed - self._here

    @property
    def left(self) -> Decimal:
        """What this process may still spend, as far as it knows."""
        return self.layer._ledger.left(self._account, self._period)  # noqa: SLF001 - its own layer

    async def take(self, owed: Decimal) -> bool | None:
        """Makes all processes know that so much was spent; False where that is more than they may.

        None: nobody else decides. Cancelled, it has taken all the same, and knows it.
        """
        if self.layer.shared is None or (owed == self._there and not self._lock.locked()):
            return None
        task = asyncio.ensure_future(self._take(self.layer.shared, owed))
        await outlast(task)
        return task.result()

    async def _take(self, shared: SharedState, owed: Decimal) -> bool | None:
        async with self._lock:
            return await self._move(shared, owed if self.ended is None else self.ended)

    async def _move(self, shared: SharedState, owed: Decimal) -> bool | None:
        if owed == self._there:
            return True
        wait = await self._ask(shared, owed - self._there)
        if wait == 0.0:
            self._there = owed
        return None if wait is None else wait == 0.0

    async def settle(self, call: Call) -> None:
        """Books what the call has cost so far, no more and no less, here and among all. Cancelled, it does so first."""
        owed = self.owed(call)
        self.book(owed)
        if self.layer.shared is not None and (owed != self._there or self._lock.locked()):
            await outlast(asyncio.ensure_future(self._settle(self.layer.shared, owed)))

    async def _settle(self, shared: SharedState, owed: Decimal) -> None:
        async with self._lock:
            owed = owed if self.ended is None else self.ended
            if await self._move(shared, owed) is False:
                await self._drain(shared, owed)

    async def _drain(self, shared: SharedState, owed: Decimal) -> None:
        """Takes what is left, where that is less than was spent: else others would be let in for it, one by one."""
        part = owed - self._there
        while part >= _UNIT:
            wait = await self._ask(shared, part)
            if wait is None:
                return
            if wait == 0.0:
                self._there += part
            part = min(part / 2, owed - self._there)

    async def _ask(self, shared: SharedState, amount: Decimal) -> float | None:
        limit = self.layer.limit
        units = [float((one / _UNIT).to_integral_value()) for one in (amount, Decimal(limit))]
        if units[0] > units[1]:
            return 1.0  # a bucket that is full lets even this through, and leaves a debt
        name = self.layer._shared_name(self._account, self._period)  # noqa: SLF001 - its own layer
        if self.layer.per is None:
            return await shared.take(name, units[0], rate=0.0, burst=units[1])
        keep = (_LENGTHS[self.layer.per] + _LATE).total_seconds()
        return await shared.take(name, units[0], rate=0.0, burst=units[1], seconds=keep)


@dataclass(slots=True)
class _BudgetSource(Generic[T]):
    inner: Source[T]
    layer: Budget
    upstream: str = ""

    async def open(self, request: Request) -> Stream[T]:
        call, layer = request.call, self.layer
        asked = layer._price_of(request) or _ZERO  # noqa: SLF001 - its own layer
        tab = layer._tab(request, self.upstream)  # noqa: SLF001 - its own layer
        owed = tab.owed(call) + asked
        try:
            taken = await tab.take(owed) if layer.shared is not None else None
            for news in layer.shared.news() if layer.shared is not None else ():
                call.note(news)
            if taken is False or (taken is None and not tab.allows(owed)):
                raise layer._exhausted(tab, ", and nothing was sent")  # noqa: SLF001 - its own layer
            tab.book(owed)
            stream = await self.inner.open(request)
        except BaseException:
            await tab.settle(call)
            raise
        return _BudgetStream(stream, call, tab)


def _unpriced(layer: Budget, model: str, dialect: str, so: str) -> BudgetExhausted:
    error = BudgetExhausted(
        f"{model[:64]!r} has no price in {layer.prices!r} under the dialect {dialect!r}, so no budget can hold it, and"
        f" {so}: name the maker by dialect=, give it a price by Prices().with_(...), or allow it by"
        " Budget(unpriced='allow')"
    )
    error.reason = "unpriced"
    return error


class _BudgetStream(Generic[T]):
    __slots__ = ("_call", "_cursor", "_end", "_from", "_tab", "inner")

    def __init__(self, inner: Stream[T], call: Call, tab: _Tab) -> None:
        self.inner = inner
        self._call = call
        self._tab = tab
        self._cursor = call.cursor
        self._from = 0  # bytes of the body at the last look
        self._end: BudgetExhausted | None = None

    @property
    def head(self) -> Head:
        return self.inner.head

    def receive(self) -> Coroutine[Any, Any, Sequence[T]]:
        # Not `async`: between two looks the reader awaits the inner stream itself, without a coroutine between.
        cursor = self._call.cursor
        # An attempt that begins anew counts from 0, and another leg has a cursor of its own.
        if cursor is self._cursor and self._from <= cursor.received < self._from + STEP and self._end is None:
            return self.inner.receive()
        return self._look()

    async def _look(self) -> Sequence[T]:
        """Looks at the bill before the next read: what had come was handed over, and is nothing to lose."""
        if self._end is not None:
            raise self._end
        self._cursor = self._call.cursor
        self._from = self._cursor.received
        tab, cost = self._tab, self._tab.cost(self._call)
        owed = cost.known
        tab.book(owed)
        if cost.unknown and tab.layer.unpriced == "refuse":  # whose answer it is may show with its events alone
            name = _name_of(self._call.dialect)
            self._end = _unpriced(tab.layer, cost.unknown[0], name, "the answer was stopped")
            raise self._end
        taken = await tab.take(owed) if tab.layer.shared is not None else None
        if taken is False or (taken is None and tab.left < 0):
            self._end = tab.layer._exhausted(tab, ": the answer was stopped in its middle")  # noqa: SLF001 - its own layer
            raise self._end
        return await self.inner.receive()

    async def aclose(self) -> None:
        try:
            await self.inner.aclose()
        finally:
            await self._tab.settle(self._call)
