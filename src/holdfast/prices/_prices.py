"""Which price holds for a request, and what a bill costs by it.

A model is found by its name as it was asked for, whatever its case, in the newest table first; else without "models/"
before it; else without a date behind it (`-2026-11-22`, `-20261122`, `@20261122`), for a dated name is the same model
held still. No other part is taken off: `mistral-medium-2508` and `mistral-medium-latest` have different prices.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from functools import cache
from importlib.resources import files
from os import PathLike
from pathlib import Path
from typing import Any

from holdfast._errors import UsageError
from holdfast.moments import Billed, Report
from holdfast.prices import _table
from holdfast.prices._cost import ZERO, Cost, names
from holdfast.prices._rates import Holidays, Plan, Price

_DATED = re.compile(r"[-@](\d{4}-\d{2}-\d{2}|\d{8})\Z")
_REMEMBERED = 1_024
_CURRENCIES = ("USD", "CNY")
"""Those of the library's tables, which are not read for that."""
_TAKES = "cost() takes a Report, as stream.report or mounts.report(...) gives it, or its bills"

Entries = Sequence[Price]


@dataclass(slots=True, frozen=True, kw_only=True, repr=False)
class Prices:
    """Price tables in one currency: those of this library, and yours over them.

    `Prices()` has the library's tables, `Prices.load(path)` a file's over them, `with_()` one model's over all.
    Nothing is converted: a model that is not priced in `currency` has no price. `shipped=False` leaves the library's
    tables out. Raises `ValueError` for a currency in which no table has a price.
    """

    currency: str = "USD"
    shipped: bool = True
    own: tuple[Price, ...] = field(default=(), repr=False)
    """Entries that come before the library's, the first that fits first."""
    _found: dict[tuple[str, str | None], tuple[Price, ...]] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        _table.currency("Prices(currency=...)", self.currency)
        if not self.shipped or self.currency in _CURRENCIES or any(self.currency in one.plans for one in self.own):
            return
        raise ValueError(
            f"Prices(currency={self.currency!r}): the library's tables are in {' and '.join(_CURRENCIES)};"
            " begin with none by shipped=False, and add yours by with_()"
        )

    def __repr__(self) -> str:
        return f"Prices({self.currency!r}, {len(self._entries())} models)"

    @classmethod
    def load(cls, path: str | PathLike[str], *, currency: str = "USD", shipped: bool = True) -> Prices:
        """Reads a table of yours, which is written as the library's are. Raises `ValueError`, `OSError`."""
        with Path(path).open("rb") as file:
            table = tomllib.load(file)
        calendars = _holidays() if shipped else {}
        return cls(currency=currency, shipped=shipped, own=tuple(_table.prices(str(path), table, calendars)))

    def with_(
        self,
        model: str,
        *,
        input: Any,
        output: Any,
        cached: Any = None,
        cache_write: Any = None,
        cache_write_1h: Any = None,
        reasoning: Any = None,
        dialect: str = "",
    ) -> Prices:
        """Gives the same prices with one more model: money for a million tokens, as text, `int` or `Decimal`.

        What has no price of its own is charged as input or output. `dialect` says whose price it is; without one it
        holds for whoever serves the model. Raises `ValueError` for a float.
        """
        given = {
            "input": input,
            "output": output,
            "cached": cached,
            "cache_write": cache_write,
            "cache_write_1h": cache_write_1h,
            "reasoning": reasoning,
        }
        rates = _table.rates(f"with_({model!r})", {name: value for name, value in given.items() if value is not None})
        dialects = frozenset((dialect,)) if dialect else frozenset[str]()
        price = Price(names=(model,), plans={self.currency: Plan(rates=rates)}, dialects=dialects)
        return replace(self, own=(price, *self.own), _found={})

    def cost(self, bills: Report | Iterable[Billed]) -> Cost:
        """Gives what a stream cost, or any number of its bills. Raises `UsageError` for what is neither."""
        total = Cost(currency=self.currency)
        told: Any = bills.bills if isinstance(bills, Report) else bills
        # A client's own stream can be gone through as well: at its end it would seem to have cost nothing.
        if not isinstance(told, Iterable) or hasattr(told, "response") or hasattr(told, "report"):
            raise UsageError(f"{_TAKES}, not {type(told).__name__}")
        for bill in told:
            if not isinstance(bill, Billed):
                raise UsageError(f"{_TAKES}, not {type(told).__name__} of {type(bill).__name__}")
            total += self._of(bill)
        return total

    def _of(self, bill: Billed) -> Cost:
        plan, known = self._plan(bill.model, bill.dialect, bill.sent)
        amount = None
        if plan is not None:
            rates, certain = plan.at(bill.sent, bill.prompt_tokens)
            amount, known = rates.amount(bill), known and certain
        if amount is None:
            return Cost(currency=self.currency, estimated=bill.estimated, unknown=names((bill.model,)))
        return Cost(
            currency=self.currency,
            answer=amount if bill.part == "answer" else ZERO,
            again=amount if bill.part == "again" else ZERO,
            hedge=amount if bill.part == "hedge" else ZERO,
            estimated=bill.estimated or not known,
        )

    def knows(self, model: str, *, dialect: str | None = None) -> bool:
        """Says whether a model has a price: in this dialect, or where None is named, with one maker alone."""
        return bool(self._entries_for(model, dialect))

    def source(self, model: str, *, dialect: str | None = None) -> str:
        """Says where a model's price comes from, and when it was read; empty where it has none or it is yours."""
        for price in self._entries_for(model, dialect):
            if price.source:
                return f"{price.source} ({price.read})" if price.read else price.source
        return ""

    def _plan(self, model: str, dialect: str, sent: datetime | None) -> tuple[Plan | None, bool]:
        """Gives the plan of the day, and whether it is known to have held then."""
        entries = self._entries_for(model, dialect)
        if not entries:
            return None, True
        day = sent.astimezone(UTC).date() if sent is not None else date.max
        past = [price for price in entries if price.since <= day]
        price = max(past, key=lambda one: one.since) if past else min(entries, key=lambda one: one.since)
        return price.plans[self.currency], bool(past)

    def _entries_for(self, model: str, dialect: str | None) -> tuple[Price, ...]:
        found = self._found.get((model, dialect))
        if found is None:
            if len(self._found) >= _REMEMBERED:
                self._found.clear()  # models are named by whoever asks
            found = self._found[model, dialect] = self._find(model, dialect)
        return found

    def _find(self, model: str, dialect: str | None) -> tuple[Price, ...]:
        if dialect is None:
            found = self._find(model, "")
            for maker in sorted({maker for price in self._entries() for maker in price.dialects}):
                theirs = self._find(model, maker)
                if found and theirs not in ((), found):
                    return ()  # several makers have a price for it
                found = found or theirs
            return found
        for name in _names(model):
            for entries in (self.own, _shipped() if self.shipped else ()):
                fits = tuple(
                    price
                    for price in entries
                    if self.currency in price.plans
                    and name in (known.lower() for known in price.names)
                    and (not price.dialects or dialect in price.dialects)
                )
                if fits:
                    # Of two entries of one day the first one holds: it is the newer table's.
                    return tuple({price.since: price for price in reversed(fits)}.values())
        return ()

    def _entries(self) -> Entries:
        return (*self.own, *(_shipped() if self.shipped else ()))


def _names(model: str) -> Iterator[str]:
    name = model.strip().lower().removeprefix("models/")
    if name:
        yield name
        dated = _DATED.search(name)
        if dated is not None and _is_date(dated[1]):
            yield name[: dated.start()]


def _is_date(digits: str) -> bool:
    """Says whether it names a day: eight digits may as well be a number of the maker's own."""
    try:
        date.fromisoformat(digits)
    except ValueError:
        return False
    return True


@cache
def _holidays() -> dict[str, Holidays]:
    return _table.holidays(_read("holidays.toml")["holidays"])


@cache
def _shipped() -> tuple[Price, ...]:
    """The library's own tables, read when the first price is asked for."""
    tables = sorted(one.name for one in files("holdfast.prices").joinpath("tables").iterdir())
    return tuple(
        price
        for name in tables
        if name.endswith(".toml") and name != "holidays.toml"
        for price in _table.prices(name, _read(name), _holidays())
    )


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads(files("holdfast.prices").joinpath("tables", name).read_text(encoding="utf-8"))
