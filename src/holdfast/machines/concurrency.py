"""Places for requests that run at a time: never more than the limit are held, and each comes back exactly once.

It decides and never waits: callers stand in a `Line`, and whoever is first takes a place when one is free. A garbage
collector may give one back in the middle of anything, so what is held is a set, which changes in one step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from holdfast.machines.adaptive_limit import AdaptiveLimit, Aimd, Gradient
from holdfast.machines.line import Line
from holdfast.machines.settings import check_count, check_seconds

_RULES: dict[str, Callable[..., AdaptiveLimit]] = {"aimd": Aimd, "gradient": Gradient}


@dataclass(slots=True, eq=False)
class Permit:
    """A place that is held. `in_use` counts those that were held when it was taken, itself included."""

    number: int
    in_use: int


class Places:
    """The places of one upstream."""

    __slots__ = ("_fixed", "_held", "_number", "_refused_at", "_rule", "line")

    def __init__(self, fixed: int, rule: AdaptiveLimit | None) -> None:
        self.line = Line()
        self._fixed = fixed
        self._rule = rule
        self._held: set[Permit] = set()
        self._number = 0
        self._refused_at = 0

    @property
    def limit(self) -> int:
        """How many there are now."""
        return self._fixed if self._rule is None else int(self._rule.limit)

    @property
    def in_use(self) -> int:
        """How many are held: more than the limit only where that has just shrunk."""
        return len(self._held)

    @property
    def free(self) -> bool:
        """True where one could be taken."""
        return len(self._held) < self.limit

    def take(self) -> Permit | None:
        """Takes a place; None where there is none."""
        if not self.free:
            return None
        self._number += 1
        permit = Permit(self._number, len(self._held) + 1)
        self._held.add(permit)
        return permit

    def holds(self, permit: Permit) -> bool:
        """Says whether a place has not been given back."""
        return permit in self._held

    def release(self, permit: Permit) -> None:
        """Gives a place back. Harmless the second time."""
        if permit in self._held:
            self._held.discard(permit)
            self.line.nudge()

    def began(self, permit: Permit, seconds: float, now: float) -> None:
        """The first token of an answer came after so many seconds."""
        if self._rule is not None:
            self._rule.began(seconds, permit.in_use, now)
            if self.free:
                self.line.nudge()

    def refused(self, permit: Permit, now: float, *, at_once: bool) -> None:
        """The upstream had too much to do. What was on its way at one refusal says the same thing once."""
        if self._rule is not None and permit.number > self._refused_at:
            self._refused_at = self._number
            self._rule.refused(permit.in_use, now, at_once=at_once)


@dataclass(slots=True, kw_only=True, eq=False)
class ConcurrencyLimiter:
    """How many streams of an upstream may run at a time. Make one, and hand it to every client that shares it.

    `limit` is fixed, or with `adaptive` where it begins: "aimd" goes up until the upstream refuses (a 429 for
    concurrency, 503, 529) and down by a quarter then; "gradient" goes down already when first tokens come later. It
    stays within `min_limit` and `max_limit`.

    Whoever must wait stands in line, first come, first served: `max_waiting` calls at most, `max_wait` seconds at most.
    Serves one event loop. Where processes share places, those of one address are common: `name` tells apart what has
    places of its own, such as several accounts. A place whose process died is free again after `lease` seconds. Raises
    `ValueError`.
    """

    limit: int = 5
    adaptive: Literal["aimd", "gradient"] | None = None
    min_limit: int = 1
    max_limit: int = 200
    max_waiting: int = 1000
    max_wait: float = 60.0
    lease: float = 30.0
    name: str = ""
    _places: dict[str, Places] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("limit", "min_limit", "max_limit"):
            check_count(name, getattr(self, name))
        check_count("max_waiting", self.max_waiting, least=0)
        check_seconds("max_wait", self.max_wait, optional=False)
        check_seconds("lease", self.lease, optional=False)
        if self.adaptive is None:
            return
        if self.adaptive not in _RULES:
            raise ValueError(f"adaptive must be 'aimd', 'gradient' or None, not {self.adaptive!r}")
        if not self.min_limit <= self.limit <= self.max_limit:
            between = f"min_limit ({self.min_limit}) to max_limit ({self.max_limit})"
            raise ValueError(f"limit must be from {between}, not {self.limit!r}: give these, too")

    def places(self, upstream: str) -> Places:
        """Gives the places of one upstream, "" where there is only one."""
        places = self._places.get(upstream)
        if places is None:
            rule = None
            if self.adaptive is not None:
                rule = _RULES[self.adaptive](start=self.limit, least=self.min_limit, most=self.max_limit)
            places = self._places[upstream] = Places(self.limit, rule)
        return places
