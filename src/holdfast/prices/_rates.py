"""What a model costs, and when: rates for each class of tokens, for long prompts, in windows of the day, from a date.

A window is judged by when a request was sent. Which of a provider's public holidays fall on a weekday is known for the
years that the table names; in any other it is not, and the price says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, tzinfo
from decimal import Decimal

from holdfast.moments import Billed
from holdfast.prices._cost import EXACT

_PER = Decimal("0.000001")


@dataclass(slots=True, frozen=True, kw_only=True)
class Rates:
    """Prices of a million tokens. What has none of its own is charged as what it is a kind of."""

    input: Decimal
    output: Decimal
    cached: Decimal | None = None
    cache_write: Decimal | None = None
    cache_write_1h: Decimal | None = None
    reasoning: Decimal | None = None

    def amount(self, bill: Billed) -> Decimal | None:
        """Gives the money for one bill, None where it does not tell what was read and what was written."""
        if bill.input_tokens is None or bill.output_tokens is None:
            return None
        cached, written, hour = bill.cached_tokens or 0, bill.cache_write_tokens or 0, bill.cache_write_1h_tokens or 0
        hour, thought = min(hour, written), min(bill.reasoning_tokens or 0, bill.output_tokens)
        write = self.input if self.cache_write is None else self.cache_write
        counts = (
            (max(0, bill.input_tokens - cached - written), self.input),
            (cached, self.input if self.cached is None else self.cached),
            (written - hour, write),
            (hour, write if self.cache_write_1h is None else self.cache_write_1h),
            (bill.output_tokens - thought, self.output),
            (thought, self.output if self.reasoning is None else self.reasoning),
        )
        total = Decimal(0)
        for tokens, price in counts:
            if tokens:
                total = EXACT.add(total, EXACT.multiply(Decimal(tokens), price))
        return EXACT.multiply(total, _PER)


@dataclass(slots=True, frozen=True, kw_only=True)
class Holidays:
    """Days off, and the years of which all are known."""

    years: frozenset[int]
    days: frozenset[date]


@dataclass(slots=True, frozen=True, kw_only=True)
class Window:
    """Hours of some days of the week in one time zone; the first instant belongs to it, the last does not.

    Hours that end no later than they begin end on the next day, and are those of the day on which they began.
    """

    zone: tzinfo
    days: frozenset[int]
    """Monday is 0."""
    hours: tuple[tuple[time, time], ...]
    holidays: Holidays | None = None

    def holds(self, when: datetime) -> tuple[bool, bool]:
        """Says whether an instant is inside, and whether that is certain."""
        certain = True
        for day in self._days(when.astimezone(self.zone)):
            if self.holidays is None:
                return True, True
            certain = certain and day.year in self.holidays.years
            if day not in self.holidays.days:
                return True, certain
        return False, certain

    def _days(self, local: datetime) -> Iterator[date]:
        """Gives the days in whose hours an instant is, if they are days of this window."""
        now, today = local.time(), local.date()
        for start, end in self.hours:
            if start < end:
                began = today if start <= now < end else None
            else:
                began = today if now >= start else today - timedelta(1) if now < end else None
            if began is not None and began.weekday() in self.days:
                yield began


@dataclass(slots=True, frozen=True, kw_only=True)
class Plan:
    """What a model costs: by day, in its windows, and where a prompt has more than so many tokens."""

    rates: Rates
    windows: tuple[tuple[Window, Rates], ...] = ()
    above: tuple[tuple[int, Rates], ...] = ()
    """Most tokens first."""

    def at(self, when: datetime | None, prompt: int) -> tuple[Rates, bool]:
        """Gives the rates of a request that was sent then, and whether they are certain."""
        for tokens, rates in self.above:
            if prompt > tokens:
                return rates, True
        certain = True
        for window, rates in self.windows:
            if when is None:
                return self.rates, False
            inside, known = window.holds(when)
            certain = certain and known
            if inside:
                return rates, certain
        return self.rates, certain


@dataclass(slots=True, frozen=True, kw_only=True)
class Price:
    """One model's entry in a table: its plan in each currency, from the day on that it names."""

    names: tuple[str, ...]
    plans: Mapping[str, Plan]
    dialects: frozenset[str] = frozenset()
    """Whose price it is; empty: of whoever serves the model."""
    since: date = date.min
    source: str = ""
    read: date | None = None
    """When the source was read."""
