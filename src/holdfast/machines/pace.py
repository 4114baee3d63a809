"""When an answer has become too slow: too few pieces in a time, or one gap far over what is usual.

It counts pieces and the seconds that were waited for them, and is told both. What the reader does between two reads is
not waiting, so a slow reader makes no slow upstream. It knows no clock: `left` says how long may still be waited.
"""

from __future__ import annotations

import math
from collections import deque


class Pace:
    """Watches one answer: within any `over` seconds of waiting `pieces` must come, and no gap may exceed `longest`.

    The first `over` seconds are granted, because nobody knows a rate before that. The rate is under its floor once the
    oldest of the last `pieces` is `over` seconds of waiting old: so no more of them are kept.
    """

    __slots__ = ("_ends", "_kept", "_over", "_pieces", "_sum", "_waited", "longest", "since")

    def __init__(self, *, pieces: int = 1, over: float = math.inf, longest: float = math.inf) -> None:
        self._pieces = pieces
        self._over = over
        self.longest = longest
        self._waited = 0.0
        self.since = 0.0
        """Seconds waited since the last piece."""
        self._kept: deque[tuple[float, int]] = deque([(0.0, pieces)])  # after so much waiting came so many
        self._sum = pieces
        self._ends = over

    def wait(self, seconds: float) -> None:
        """So long was waited, whatever came of it."""
        self._waited += seconds
        self.since += seconds

    def add(self, pieces: int) -> None:
        """So many pieces came, after what was waited."""
        kept = self._kept
        kept.append((self._waited, pieces))
        self._sum += pieces
        while self._sum - kept[0][1] >= self._pieces:
            self._sum -= kept.popleft()[1]
        self._ends = kept[0][0] + self._over
        self.since = 0.0

    @property
    def left(self) -> float:
        """Seconds that may still be waited for the next piece; none are left at 0 and below."""
        return min(self._ends - self._waited, self.longest - self.since)

    @property
    def broken_by_gap(self) -> bool:
        """True where a gap is what is too long, and not the rate what is too low."""
        return self.longest - self.since < self._ends - self._waited
