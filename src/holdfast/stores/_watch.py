"""Whether a store answers, as told once at each change, to whichever call asks next.

Every event loop and every worker thread that asks the store tells it here, and it is one store to all of them. It never
raises, and never waits: there is no lock, so two who find out in the same instant may tell twice.
"""

from __future__ import annotations

from collections import deque

from holdfast._clock import SystemClock
from holdfast.moments import Moment, SharedBack, SharedLost

_LONGEST = 200
"""Characters of a server's own words."""
_KEPT = 16
"""Changes that wait for somebody to ask: of more, the oldest are forgotten."""


class Watch:
    """What is known of one store; `name` is its prefix."""

    __slots__ = ("_lost_at", "_name", "_news", "_now", "_refused")

    def __init__(self, name: str) -> None:
        self._lost_at: float | None = None
        self._name = name
        self._news: deque[Moment] = deque(maxlen=_KEPT)
        self._now = SystemClock().now
        self._refused: set[str] = set()

    def lost(self, reason: str) -> None:
        """It gave no answer."""
        if self._lost_at is None:
            self._lost_at = self._now()
            self._news.append(SharedLost(name=self._name, reason=reason))

    def refused(self, error: Exception) -> None:
        """It answers, and refuses one question: told once for each kind, since other questions may fare better."""
        kind = type(error).__name__
        if kind not in self._refused:
            self._refused.add(kind)
            self.lost(why(error, 0.0))

    def answered(self) -> None:
        """It decided."""
        lost_at, self._lost_at = self._lost_at, None
        if lost_at is not None:
            self._news.append(SharedBack(name=self._name, seconds=self._now() - lost_at))

    def news(self) -> list[Moment]:
        """Gives what is new, once."""
        told = []
        while self._news:
            told.append(self._news.popleft())
        return told


def why(error: Exception, seconds: float) -> str:
    """Says what is wrong, in a few words."""
    if isinstance(error, TimeoutError) or type(error).__name__ == "TimeoutError":  # the package has one of its own
        return f"no answer in {seconds:g} s"
    if isinstance(error.__cause__ or error.__context__, ConnectionRefusedError):
        return "connection refused: nobody listens there"
    return f"{type(error).__name__}: {error}"[:_LONGEST]
