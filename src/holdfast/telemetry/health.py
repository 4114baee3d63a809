"""The health of a service at a glance: how fast, how sure, against what it should be. From live streams or a log.

One fold for both: `Health.add()` takes what is known of a stream that has ended, whoever tells it. Percentiles are
exact, by nearest rank, over the streams that are kept.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter, deque
from collections.abc import Mapping, MutableSequence, Sequence
from dataclasses import dataclass, field, fields
from types import NoneType
from typing import Any, Literal

from holdfast import moments
from holdfast._errors import UsageError
from holdfast._pipe import listener_factories
from holdfast._types import Request
from holdfast.machines.settings import check_count, check_kind, is_number
from holdfast.moments import Listener, Moment, Report

_MAX_KINDS = 1_000
"""Outcomes, faults and breakers that are told apart: their names may be a stranger's."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Objectives:
    """What a service should keep. Raises `ValueError` for what is no number from 0.

    `chunks_per_second`: the median stream brings more, from its first chunk on. `first_chunk_p99`: seconds within which
    99 in 100 streams begin. `errors`: the share of streams that may fail, those given up by their readers left out.
    """

    chunks_per_second: float = 5.0
    first_chunk_p99: float = 1.5
    errors: float = 0.005

    def __post_init__(self) -> None:
        for name in ("chunks_per_second", "first_chunk_p99", "errors"):
            value = getattr(self, name)
            if not (is_number(value) and 0 <= value < math.inf):
                raise ValueError(f"{name} must be a number from 0, not {value!r}")


@dataclass(slots=True, frozen=True)
class Check:
    """One objective and what was found; `met` is None where nothing was."""

    name: str
    found: float | None
    objective: float
    met: bool | None


@dataclass(slots=True, kw_only=True)
class Ending:
    """What is known of one stream at its end. Seconds are None where it did not come to that."""

    outcome: str = ""
    failed: bool = False
    attempts: int = 0
    seams: int = 0
    faults: Sequence[str] = ()
    first_seconds: float | None = None
    seconds: float | None = None
    chunks: int = 0

    @classmethod
    def of(cls, report: Report) -> Ending:
        """Gives that of a report."""
        return cls(
            outcome=report.outcome,
            failed=report.error is not None,
            attempts=report.attempts,
            seams=len(report.seams),
            faults=[type(fault).__name__ for fault in report.faults],
            first_seconds=report.first_delta_seconds,
            seconds=report.total_seconds,
            chunks=report.items,
        )

    @property
    def chunk_rate(self) -> float | None:
        """Chunks a second from the first on; None for a stream of one, or one that came all at once."""
        if self.first_seconds is None or self.seconds is None or self.chunks < 2:
            return None
        flowed = self.seconds - self.first_seconds
        return (self.chunks - 1) / flowed if flowed > 0 else None


@dataclass(slots=True)
class Health:
    """Adds streams up. `keep` bounds for how many of the last ones percentiles are told; None keeps them all."""

    objectives: Objectives = field(default_factory=Objectives)
    keep: int | None = None
    streams: int = 0
    failed: int = 0
    attempts: int = 0
    seams: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    breakers: dict[str, str] = field(default_factory=dict)
    """The last known state of each circuit breaker that changed."""
    _first: MutableSequence[float] = field(init=False, repr=False)
    _seconds: MutableSequence[float] = field(init=False, repr=False)
    _rates: MutableSequence[float] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_count("keep", self.keep, optional=True)
        made: list[MutableSequence[float]] = [
            array("d") if self.keep is None else deque(maxlen=self.keep) for _ in range(3)
        ]
        self._first, self._seconds, self._rates = made

    def add(self, ending: Ending) -> None:
        """Takes one stream in."""
        self.streams += 1
        self.failed += ending.failed
        self.attempts += ending.attempts
        self.seams += ending.seams
        _count(self.outcomes, ending.outcome)
        for fault in ending.faults:
            _count(self.faults, fault)
        for values, value in (
            (self._first, ending.first_seconds),
            (self._seconds, ending.seconds),
            (self._rates, ending.chunk_rate),
        ):
            if value is not None:
                values.append(value)

    def note_breaker(self, name: str, state: str) -> None:
        """A circuit breaker is in this state now."""
        if name in self.breakers or len(self.breakers) < _MAX_KINDS:
            self.breakers[name] = state

    def first_seconds(self, percent: float) -> float | None:
        """Seconds to the first chunk that `percent` of the streams kept within, of those that had one."""
        return _percentile(self._first, percent)

    def seconds(self, percent: float) -> float | None:
        """Seconds in all that `percent` of the streams kept within, of those that ended."""
        return _percentile(self._seconds, percent)

    def chunk_rate(self, percent: float) -> float | None:
        """Chunks a second that `percent` of the streams did not exceed."""
        return _percentile(self._rates, percent)

    def values(self, of: Literal["first_seconds", "seconds", "chunk_rate"]) -> Sequence[float]:
        """Gives what percentiles are told of, in the order in which streams ended."""
        return {"first_seconds": self._first, "seconds": self._seconds, "chunk_rate": self._rates}[of]

    @property
    def error_rate(self) -> float | None:
        """The share of streams that failed, of those that their readers did not give up."""
        judged = self.streams - self.outcomes["cancelled"] - self.outcomes["running"]
        return self.failed / judged if judged else None

    def checks(self) -> list[Check]:
        """Holds what was found against the objectives."""
        wanted = self.objectives
        rate, first, errors = self.chunk_rate(50), self.first_seconds(99), self.error_rate
        return [
            Check("chunks_per_second", rate, wanted.chunks_per_second, _met(rate, more=wanted.chunks_per_second)),
            Check("first_chunk_p99", first, wanted.first_chunk_p99, _met(first, less=wanted.first_chunk_p99)),
            Check("errors", errors, wanted.errors, _met(errors, less=wanted.errors)),
        ]

    @property
    def well(self) -> bool:
        """True where no objective is missed."""
        return all(check.met is not False for check in self.checks())

    def as_dict(self) -> dict[str, Any]:
        """Gives the whole as JSON values."""
        return {
            "well": self.well,
            "streams": self.streams,
            "outcomes": dict(self.outcomes),
            "faults": dict(self.faults),
            "attempts": self.attempts,
            "seams": self.seams,
            "error_rate": self.error_rate,
            "chunks_per_second": {"p50": self.chunk_rate(50), "p1": self.chunk_rate(1)},
            "first_chunk_seconds": {"p50": self.first_seconds(50), "p99": self.first_seconds(99)},
            "seconds": {"p50": self.seconds(50), "p99": self.seconds(99)},
            "breakers": dict(self.breakers),
            "objectives": [
                {"name": check.name, "found": check.found, "objective": check.objective, "met": check.met}
                for check in self.checks()
            ],
        }

    def listen(self) -> Listener:
        """Gives somebody who listens to one stream, and adds it when it ends."""
        return _Stream(self)


def watch_health(objectives: Objectives | Mapping[str, float] | None = None, *, keep: int = 10_000) -> Health:
    """Gives the health of all streams that start from now on; percentiles are those of the last `keep`."""
    if not isinstance(objectives, Objectives):
        known = [field.name for field in fields(Objectives)]
        check_kind("watch_health(...)", objectives, (Mapping, NoneType), "Objectives(...) or a mapping of them")
        if unknown := [name for name in objectives or {} if name not in known]:
            raise UsageError(f"there is no objective {unknown[0]!r}; there are {', '.join(known)}")
    wanted = objectives if isinstance(objectives, Objectives) else Objectives(**(objectives or {}))
    health = Health(wanted, keep)
    listener_factories.append(health.listen)
    return health


class _Stream:
    __slots__ = ("_health", "_request")

    def __init__(self, health: Health) -> None:
        self._health = health
        self._request = Request()

    def begin(self, request: Request) -> None:
        self._request = request

    def __call__(self, moment: Moment) -> None:
        if isinstance(moment, moments.BreakerChanged):
            self._health.note_breaker(moment.name, moment.new)
        elif isinstance(moment, moments.Ended):
            self._health.add(Ending.of(self._request.call.report))
            self._request = Request()  # the call holds its listeners: a circle would keep the answer in memory


def _met(found: float | None, *, more: float | None = None, less: float | None = None) -> bool | None:
    if found is None:
        return None
    return found > more if more is not None else less is None or found <= less


def _count(counter: Counter[str], kind: str) -> None:
    counter[kind if kind in counter or len(counter) < _MAX_KINDS else "(others)"] += 1


def _percentile(values: Sequence[float], percent: float) -> float | None:
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]
