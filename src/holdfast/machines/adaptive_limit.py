"""How many requests an upstream takes at a time, found out from what it does with those it gets.

Two rules. `Aimd` (Chiu and Jain, 1989; the way of TCP) goes up by one until something is refused, and down by a share:
the signal is a refusal. `Gradient` compares the latest time to the first token with the long mean: the signal is a
queue that grows. It is Gradient2 of Netflix's concurrency-limits, with a tolerance, and a refusal counts as in `Aimd`.
A limit that is not made use of proves nothing, so neither grows while less than half of it is in use.
"""

from __future__ import annotations

import math
from typing import Protocol

BACK_OFF = 0.75
"""What remains of a limit after a refusal."""
PROBE_SECONDS = 30.0
"""So long a limit that was found by a refusal is believed before one more is tried, and twice as long each time that
fails: a limit that stays what it is must not cost a refusal every half minute."""
MAX_PROBE_SECONDS = 600.0


class AdaptiveLimit(Protocol):
    """A limit that learns. `in_use` is how many were on their way when the request in question was sent."""

    limit: float

    def began(self, seconds: float, in_use: int, now: float) -> None:
        """An answer's first token came after so many seconds."""

    def refused(self, in_use: int, now: float, *, at_once: bool) -> None:
        """A request was refused: there were too many `at_once`, or the upstream was overloaded, whoever did it."""


class _Ceiling:
    """What was refused for being too many at once, and when to try more than that."""

    __slots__ = ("_at", "_pause", "_step", "_trying", "value")

    def __init__(self) -> None:
        self.value = math.inf
        self._at = 0.0
        self._pause = PROBE_SECONDS
        self._step = 1.0
        self._trying = False

    def found(self, in_use: int, now: float) -> None:
        """So many were one too many."""
        if self.value < math.inf:
            self._pause = min(MAX_PROBE_SECONDS, self._pause * 2)
        self.value, self._at, self._step, self._trying = max(1.0, in_use - 1.0), now, 1.0, False

    def rise(self, now: float) -> None:
        """The limit has reached it, and is in use: after a pause one more is tried, then two, up to a tenth."""
        if now - self._at < self._pause:
            return
        if self._trying:  # the last try was none too many
            self._pause = PROBE_SECONDS
        self.value, self._at, self._trying = self.value + self._step, now, True
        self._step = min(self._step * 2, max(1.0, self.value / 10))


class Aimd:
    """Doubles each round until a refusal; from there on it stands just under what was refused, and tries one more."""

    __slots__ = ("_ceiling", "_least", "_most", "limit")

    def __init__(self, *, start: float, least: int, most: int) -> None:
        self.limit = float(start)
        self._least, self._most = least, most
        self._ceiling = _Ceiling()

    def began(self, seconds: float, in_use: int, now: float) -> None:
        if in_use * 2 < self.limit:
            return
        if self.limit >= self._ceiling.value:
            self._ceiling.rise(now)
        grown = 1.0 if self._ceiling.value == math.inf else 1.0 / self.limit
        self._set(self.limit + grown)

    def refused(self, in_use: int, now: float, *, at_once: bool) -> None:
        if at_once:
            self._ceiling.found(in_use, now)
        self._set(self.limit * BACK_OFF)

    def _set(self, limit: float) -> None:
        self.limit = min(float(self._most), max(float(self._least), min(limit, self._ceiling.value)))


class Gradient:
    """Shrinks as the first token comes later than in the long mean, else grows by its own square root each time."""

    __slots__ = ("_ceiling", "_count", "_least", "_long", "_most", "limit")

    TOLERANCE = 1.5
    """A first token may come this many times as late as in the mean: prompts differ in length."""
    SMOOTHING = 0.2
    LONG_WINDOW = 600
    WARM_UP = 10

    def __init__(self, *, start: float, least: int, most: int) -> None:
        self.limit = float(start)
        self._least, self._most = least, most
        self._ceiling = _Ceiling()
        self._long = 0.0
        self._count = 0

    def began(self, seconds: float, in_use: int, now: float) -> None:
        seconds = max(seconds, 1e-3)
        self._count += 1
        weight = 1.0 / self._count if self._count <= self.WARM_UP else 2.0 / (self.LONG_WINDOW + 1)
        self._long += weight * (seconds - self._long)
        if self._long > 2 * seconds:  # the load is over: the mean would take long to see it
            self._long *= 0.9
        if in_use * 2 < self.limit:
            return
        if self.limit >= self._ceiling.value:
            self._ceiling.rise(now)
        gradient = max(0.5, min(1.0, self.TOLERANCE * self._long / seconds))
        wanted = self.limit * gradient + math.sqrt(self.limit)
        self._set(self.limit + self.SMOOTHING * (wanted - self.limit))

    def refused(self, in_use: int, now: float, *, at_once: bool) -> None:
        if at_once:
            self._ceiling.found(in_use, now)
        self._set(self.limit * BACK_OFF)

    def _set(self, limit: float) -> None:
        self.limit = min(float(self._most), max(float(self._least), min(limit, self._ceiling.value)))
