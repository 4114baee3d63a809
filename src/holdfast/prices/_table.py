"""Reads price tables out of TOML: docs/cost.md says how one is written. Numbers of money are strings, never floats."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal, InvalidOperation
from typing import Any
from zoneinfo import ZoneInfo

from holdfast.prices._rates import Holidays, Plan, Price, Rates, Window

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_CLASSES = ("input", "output", "cached", "cache_write", "cache_write_1h", "reasoning")
_OFFSET = re.compile(r"([+-])(\d\d):(\d\d)")
_CURRENCY = re.compile(r"[A-Z]{3}")


def money(name: str, value: object) -> Decimal:
    """Gives an amount of money. Raises `ValueError` for a float, which is none, and for what is no number from 0."""
    if isinstance(value, str | int | Decimal) and not isinstance(value, bool):
        try:
            amount = Decimal(value)
        except InvalidOperation:
            amount = Decimal("NaN")
        if amount.is_finite() and amount >= 0:
            return amount
    kind = 'a text such as "0.15", for a float rounds' if isinstance(value, float) else "a number from 0"
    raise ValueError(f"{name} must be {kind}, not {value!r}")


def currency(name: str, value: object) -> str:
    """Gives a currency's code. Raises `ValueError` for what is none."""
    if not isinstance(value, str) or not _CURRENCY.fullmatch(value):
        raise ValueError(f'{name} must be a code such as "USD", not {value!r}')
    return value


def rates(where: str, given: Mapping[str, Any]) -> Rates:
    """Gives the rates of one table. Raises `ValueError` for a class that is missing, or unknown, or no money."""
    unknown = sorted(set(given) - {*_CLASSES})
    if unknown:
        raise ValueError(f"{where} knows {', '.join(_CLASSES)}, and no {unknown[0]!r}")
    for name in ("input", "output"):
        if name not in given:
            raise ValueError(f"{where} must have a price for {name!r}")
    return Rates(**{name: money(f"{where} {name}", given[name]) for name in given})


def prices(where: str, table: Mapping[str, Any], calendars: Mapping[str, Holidays]) -> Iterator[Price]:
    """Gives the entries of one table. Raises `ValueError` that names what is wrong with it."""
    calendars = {**calendars, **holidays(table.get("holidays", {}))}
    windows = {name: _window(f"{where}: {name}", made, calendars) for name, made in table.get("windows", {}).items()}
    for entry in table.get("models", ()):
        names = entry.get("names")
        if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
            raise ValueError(f"{where}: each of its models must have names, not {names!r}")
        place = f"{where}: {names[0]}"
        yield Price(
            names=tuple(names),
            plans={code: _plan(f"{place} {code}", plan, windows) for code, plan in _plans(place, entry)},
            dialects=frozenset(entry.get("dialects", table.get("dialects", ()))),
            since=_day(place, entry.get("since", date.min)),
            source=str(entry.get("source", table.get("source", ""))),
            read=entry.get("read", table.get("read")),
        )


def holidays(given: Mapping[str, Any]) -> dict[str, Holidays]:
    """Gives calendars of days off, by their names."""
    return {
        name: Holidays(
            years=frozenset(int(year) for year in years),
            days=frozenset(day for spans in years.values() for span in spans for day in _days(span)),
        )
        for name, years in given.items()
    }


def _days(span: object) -> Iterator[date]:
    first, last = span if isinstance(span, list) else (span, span)
    if not isinstance(first, date) or not isinstance(last, date):
        why = f"a holiday is a date, or the first and the last of several, not {span!r}"
        raise ValueError(why)  # noqa: TRY004 - a table is data, and what is wrong with it a wrong value
    for number in range((last - first).days + 1):
        yield first + timedelta(number)


def _plans(place: str, entry: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    found = False
    for name, value in entry.items():
        if name not in ("names", "dialects", "since", "source", "read"):
            found = True
            yield currency(place, name), value
    if not found:
        raise ValueError(f"{place} has no prices in any currency")


def _plan(where: str, given: Mapping[str, Any], windows: Mapping[str, Window]) -> Plan:
    base = {name: value for name, value in given.items() if name not in ("during", "above")}
    during = given.get("during", {})
    for name in during:
        if name not in windows:
            raise ValueError(f"{where} has prices during {name!r}, and no window is called so")
    above = [
        (tier["tokens"], rates(f"{where} above", {n: v for n, v in tier.items() if n != "tokens"}))
        for tier in given.get("above", ())
    ]
    return Plan(
        rates=rates(where, base),
        windows=tuple((windows[name], rates(f"{where} {name}", made)) for name, made in during.items()),
        above=tuple(sorted(above, key=lambda tier: -tier[0])),
    )


def _window(where: str, given: Mapping[str, Any], calendars: Mapping[str, Holidays]) -> Window:
    days, off = given.get("days", list(_DAYS)), given.get("except")
    if off is not None and off not in calendars:
        raise ValueError(f"{where} leaves out the holidays of {off!r}, and no calendar is called so")
    if not set(days) <= set(_DAYS):
        raise ValueError(f"{where}: days are {', '.join(_DAYS)}, not {days!r}")
    return Window(
        zone=_zone(where, given.get("zone", "UTC")),
        days=frozenset(_DAYS.index(day) for day in days),
        hours=tuple((_time(where, start), _time(where, end, last=True)) for start, end in given["hours"]),
        holidays=calendars[off] if off is not None else None,
    )


def _time(where: str, given: object, *, last: bool = False) -> time:
    if last and given == "24:00":
        return time(0)  # which ends a day, where it ends hours
    try:
        return time.fromisoformat(str(given))
    except ValueError:
        raise ValueError(f'{where}: hours are from "00:00" to "24:00", and {given!r} is none') from None


def _zone(where: str, name: str) -> tzinfo:
    if name == "UTC":
        return UTC
    offset = _OFFSET.fullmatch(name)
    if offset:
        sign = -1 if offset[1] == "-" else 1
        return timezone(sign * timedelta(hours=int(offset[2]), minutes=int(offset[3])))
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError(f'{where}: its zone is "UTC", an offset such as "+08:00" or a name, not {name!r}') from None


def _day(where: str, given: object) -> date:
    if isinstance(given, datetime) or not isinstance(given, date):
        raise ValueError(f"{where}: since must be a date, not {given!r}")  # noqa: TRY004 - as above
    return given
