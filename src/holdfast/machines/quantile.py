"""What is usual, learned from what was: an exact quantile over the last values, for each kind of request by itself.

A sorted window, and no sketch: a few hundred values take microseconds, and what is learned follows an upstream that
changes, since each value is forgotten after `window` later ones. It knows no clock.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Mapping

from holdfast._types import Request
from holdfast.machines.settings import check_count, is_number

MAX_KINDS = 64
"""Kinds of requests that are learned of at a time: the one asked for longest ago is forgotten for a new one."""


class Quantile:
    """The `q`-quantile of the last `window` values by nearest rank: the least of them that is no less than a share `q`.

    Below `least` values nothing is known. Raises `ValueError` for settings that cannot be.
    """

    __slots__ = ("_recent", "_sorted", "least", "q", "window")

    def __init__(self, q: float, *, window: int = 256, least: int = 20) -> None:
        if not (is_number(q) and 0 < q < 1):
            raise ValueError(f"q must be a number between 0 and 1, not {q!r}")
        check_count("least", least)
        check_count("window", window, least=least)
        self.q, self.window, self.least = q, window, least
        self._recent: deque[float] = deque()
        self._sorted: list[float] = []

    def add(self, value: float) -> None:
        """Takes a value in, and forgets the oldest where there are more than `window`."""
        if len(self._recent) == self.window:
            del self._sorted[bisect_left(self._sorted, self._recent.popleft())]
        self._recent.append(value)
        insort(self._sorted, value)

    @property
    def value(self) -> float | None:
        """The quantile; None below `least` values."""
        count = len(self._sorted)
        return None if count < self.least else self._sorted[math.ceil(self.q * count - 1e-9) - 1]

    def __len__(self) -> int:
        return len(self._sorted)


class Quantiles:
    """A `Quantile` for each kind of request: models and upstreams differ by more than what is to be noticed."""

    __slots__ = ("_kinds", "_settings", "q")

    def __init__(self, q: float, *, window: int, least: int) -> None:
        self.q = q
        self._settings = {"window": window, "least": least}
        self._kinds: dict[tuple[str, str, str], Quantile] = {}
        Quantile(q, window=window, least=least)  # bad settings are told here

    def of(self, request: Request) -> Quantile:
        """Gives what is learned of requests like this one: to the same upstream, address and model."""
        kind = kind_of(request)
        known = self._kinds.pop(kind, None)
        if known is None:
            known = Quantile(self.q, **self._settings)
        self._kinds[kind] = known  # the last one asked for stands last
        if len(self._kinds) > MAX_KINDS:
            del self._kinds[next(iter(self._kinds))]
        return known


def kind_of(request: Request) -> tuple[str, str, str]:
    """Names what a request asks: the upstream, the address without its query, the model where the body has one."""
    body = request.body
    model = body.get("model") if isinstance(body, Mapping) else None
    return request.upstream, request.url.partition("?")[0], model if isinstance(model, str) else ""
