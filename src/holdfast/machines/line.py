"""A line of callers, first come, first served: who is first is asked, and everybody else waits to be first.

It moves nobody and waits for nothing: each caller leaves a function that wakes it. A caller that goes away, served or
not, wakes the one behind it; so a wake-up that met somebody who was just leaving is never lost.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol


class Caller(Protocol):
    """Somebody in a line."""

    def wake(self) -> None:
        """Lets it look again; harmless, however often."""


class Line:
    """Callers in the order they came."""

    __slots__ = ("_callers",)

    def __init__(self) -> None:
        self._callers: OrderedDict[Caller, None] = OrderedDict()  # a dict's first key costs a scan over those removed

    def __len__(self) -> int:
        return len(self._callers)

    @property
    def first(self) -> Caller | None:
        """Whose turn it is."""
        return next(iter(self._callers), None)

    def enter(self, caller: Caller) -> None:
        """Stands behind everybody."""
        self._callers[caller] = None

    def leave(self, caller: Caller) -> None:
        """Goes away. Harmless for one who has gone."""
        was_first = self.first is caller
        self._callers.pop(caller, None)
        if was_first:
            self.nudge()

    def nudge(self) -> None:
        """Something has changed: the first looks again."""
        first = self.first
        if first is not None:
            first.wake()
