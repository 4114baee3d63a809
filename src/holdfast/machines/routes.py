"""Which of several upstreams is asked: who is well, who is busy, and who has to be left alone for a while.

It knows no upstream and no clock: places are numbers in the order that was given, and whoever asks says what time it
is, in seconds. Who failed several times in a row is ejected, for longer each time, and comes back on probation: one
more failure ejects it again. It never ejects all: of several that fail one stays, since a bad one is better than none.
The idea is Envoy's outlier detection (envoyproxy.io/docs, "Outlier detection").
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from holdfast._errors import (
    BudgetExhausted,
    CircuitOpen,
    DeadlineExceeded,
    StatusError,
    StreamError,
    UpstreamError,
)
from holdfast.machines.settings import check_count, check_seconds

Choose = Literal["first", "weighted", "least-loaded"]
CHOICES: tuple[Choose, ...] = get_args(Choose)
OF_THE_REQUEST = frozenset({400, 405, 406, 411, 413, 414, 415, 416, 422, 428, 431})
"""Statuses that say something of the request: another upstream would most likely refuse it as well."""
_OF_THE_REQUEST = ("invalid_request", "invalid_argument", "context_length", "content_filter", "content_policy")
_MORE_OF_THE_REQUEST = ("moderation", "safety", "too_large", "unsupported", "tool_use_failed")
"""Parts of the codes and types with which a provider reports the same inside a stream."""


def leads_on(failure: StreamError, also: Collection[int] = ()) -> bool:
    """Says whether a failure is one of the upstream, so that another may do better.

    `also` are statuses that lead on besides. A limit of this side's own is one, too: it may be that upstream's alone.
    """
    match failure:
        case StatusError():
            return failure.status in also or failure.status not in OF_THE_REQUEST
        case UpstreamError():
            words = f"{failure.code} {failure.type}".lower()
            if failure.code.isdecimal() and int(failure.code) in OF_THE_REQUEST:
                return int(failure.code) in also
            return not any(part in words for part in (*_OF_THE_REQUEST, *_MORE_OF_THE_REQUEST))
        case DeadlineExceeded():
            return failure.clock != "total"
        case _:
            return True


def judgement(failure: StreamError, also: Collection[int] = ()) -> bool | None:
    """Gives what a failure says of the health of who was asked: False, or None where it says nothing."""
    if isinstance(failure, CircuitOpen | BudgetExhausted) or not leads_on(failure, also):
        return None
    return False


@dataclass(slots=True)
class Visit:
    """One stream at an upstream, from its opening to its end; `generation` is that of the health which it may judge."""

    place: int
    generation: int
    over: bool = False


@dataclass(slots=True)
class _Health:
    load: int = 0
    failures: int = 0
    """In a row."""
    ejections: int = 0
    """Since the last stream that ended well."""
    until: float = -math.inf
    generation: int = 0
    last_used: float | None = None


class Routes:
    """Chooses among upstreams of the given weights, and keeps what it is told of their health.

    `first` takes the first in their order that is well, `weighted` draws one by the weights, `least-loaded` takes the
    one with the fewest streams for its weight. `eject_after` failures in a row eject for `eject` seconds, twice as long
    each time, at most for `max_eject`. Raises `ValueError` for other settings.
    """

    __slots__ = ("_all", "choose_by", "eject", "eject_after", "max_eject", "weights")

    def __init__(
        self,
        weights: Sequence[float],
        *,
        choose: Choose = "first",
        eject_after: int = 3,
        eject: float = 10.0,
        max_eject: float = 300.0,
    ) -> None:
        if choose not in CHOICES:
            raise ValueError(f"choose must be one of {', '.join(CHOICES)}, not {choose!r}")
        check_count("eject_after", eject_after)
        check_seconds("eject", eject, optional=False)
        check_seconds("max_eject", max_eject, optional=False)
        self.weights = tuple(weights)
        self.choose_by: Choose = choose
        self.eject_after, self.eject, self.max_eject = eject_after, eject, max_eject
        self._all = [_Health() for _ in self.weights]

    # -- choosing ------------------------------------------------------------------------------

    def choose(self, now: float, u: float, left_out: Collection[int] = (), *, ejected: bool = True) -> int | None:
        """Gives the place to ask, `u` being the chance in [0, 1); None where none is left.

        Who is ejected is asked when nobody else is left, and not without `ejected`.
        """
        left = [place for place in range(len(self._all)) if place not in left_out]
        well = [place for place in left if self.healthy(place, now)]
        if not well:
            return min(left, key=lambda place: self._all[place].until, default=None) if ejected else None
        if self.choose_by == "first":
            return well[0]
        if self.choose_by == "least-loaded":
            least = min(self._all[place].load / self.weights[place] for place in well)
            well = [place for place in well if self._all[place].load / self.weights[place] == least]
        return self._drawn(well, u)

    def _drawn(self, places: Sequence[int], u: float) -> int:
        left = u * sum(self.weights[place] for place in places)
        for place in places:
            left -= self.weights[place]
            if left < 0:
                return place
        return places[-1]

    # -- what is told --------------------------------------------------------------------------

    def begin(self, place: int, now: float) -> Visit:
        """A stream is opened at a place; `end()` must follow, once."""
        health = self._all[place]
        health.load += 1
        health.last_used = now
        return Visit(place, health.generation)

    def end(self, visit: Visit, now: float, *, good: bool | None, wait: float | None = None) -> None:
        """The stream is over: `good` or not, None for one that says nothing. Harmless when it was over before.

        `wait` is how many seconds the upstream asked to be left alone.
        """
        if visit.over:
            return
        visit.over = True
        health = self._all[visit.place]
        health.load -= 1
        health.last_used = now
        if good is None or visit.generation != health.generation:
            return  # it began before the last ejection: that has been judged
        if good:
            health.failures = health.ejections = 0
            health.until = min(health.until, now)
            return
        self._failed(visit.place, now)
        if wait and self.healthy(visit.place, now) and self._is_spared(visit.place, now):
            self._set_aside(health, now + min(wait, self.max_eject))

    def probed(self, place: int, now: float, *, good: bool) -> None:
        """A probe found an upstream well or not. Well, it is asked again, on probation: probes ask for no answers."""
        health = self._all[place]
        if good:
            health.until = min(health.until, now)
            health.failures = 0
        elif self.healthy(place, now):
            self._failed(place, now)
        else:
            health.until = max(health.until, now + self._length(health.ejections))

    def _failed(self, place: int, now: float) -> None:
        health = self._all[place]
        health.failures += 1
        enough = 1 if health.ejections else self.eject_after
        if health.failures >= enough and self.healthy(place, now) and self._is_spared(place, now):
            health.ejections += 1
            self._set_aside(health, now + self._length(health.ejections))

    def _set_aside(self, health: _Health, until: float) -> None:
        health.until = until
        health.failures = 0
        health.generation += 1

    def _length(self, ejections: int) -> float:
        return min(self.max_eject, self.eject * 2.0 ** (min(max(ejections, 1), 64) - 1))

    def _is_spared(self, place: int, now: float) -> bool:
        """Says whether it can be done without: somebody else is well."""
        return any(self.healthy(other, now) for other in range(len(self._all)) if other != place)

    # -- what is known -------------------------------------------------------------------------

    def healthy(self, place: int, now: float) -> bool:
        """Says whether a place is not ejected."""
        return self._all[place].until <= now

    def load(self, place: int) -> int:
        """How many streams are open there."""
        return self._all[place].load

    def back_in(self, place: int, now: float) -> float:
        """Seconds until an ejected one is asked again, 0.0 for one that is well."""
        return max(0.0, self._all[place].until - now)

    def idle(self, place: int, now: float, seconds: float) -> bool:
        """Says whether a place has no stream, and has had none for so many seconds."""
        health = self._all[place]
        return health.load == 0 and (health.last_used is None or now - health.last_used >= seconds)
