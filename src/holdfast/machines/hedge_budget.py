"""The hedge budget: requests sent beside others never exceed a share of the calls, not even at the beginning.

A hedge is sent while the first request is still well, so unlike a retry it is never needed: the budget begins empty and
has no floor. When an upstream slows down for all at once, every call wants a hedge, and a twentieth of them get one.
It knows no clock: what is saved up is counted in calls.
"""

from __future__ import annotations

from holdfast.machines.settings import is_number


class HedgeBudget:
    """What all calls of one `Hedge` may send beside their first requests: `share` of the calls (0.05: one in twenty).

    What is not used is saved up to `burst` hedges. Raises `ValueError` for other settings.
    """

    __slots__ = ("_left", "burst", "calls", "hedges", "share")

    def __init__(self, *, share: float = 0.05, burst: float = 10.0) -> None:
        if not (is_number(share) and 0 <= share <= 1):
            raise ValueError(f"share must be a number from 0 to 1, not {share!r}")
        if not (is_number(burst) and burst >= 1):
            raise ValueError(f"burst must be a number from 1, not {burst!r}")
        self.share, self.burst = share, burst
        self.calls = 0
        """Calls that could have been hedged."""
        self.hedges = 0
        """Second requests that were sent."""
        self._left = 0.0

    def deposit(self) -> None:
        """A call begins."""
        self.calls += 1
        self._left = min(self.burst, self._left + self.share)

    def withdraw(self) -> bool:
        """Takes one hedge out; False where there is none."""
        if self._left < 1.0 - 1e-9:  # twenty twentieths are a whole
            return False
        self._left -= 1.0
        self.hedges += 1
        return True

    def __repr__(self) -> str:
        return f"HedgeBudget(share={self.share:g}, burst={self.burst:g})"
