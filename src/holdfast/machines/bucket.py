"""The token bucket: what flows in at a steady rate may be taken out in bursts, and never more than that.

Over any t seconds at most rate * t + burst is taken. Only an amount that is larger than the bucket goes beyond: it is
taken once the bucket is full, and leaves a debt, never of more than flows in within `LONGEST_WAIT`. It knows no clock:
whoever asks says what time it is, in seconds.
"""

from __future__ import annotations

from holdfast.machines.settings import is_number

LONGEST_WAIT = 600.0
"""Seconds: no one number of a request, an answer or a header holds others up for longer, since it may be a lie."""
_NEAR = 1e-9
"""Shares that were taken one by one do not quite add up to a whole."""


class TokenBucket:
    """Holds up to `burst`, at first and after a rest, and refills at `rate` a second. Raises `ValueError`."""

    __slots__ = ("_at", "_level", "burst", "rate")

    def __init__(self, *, rate: float, burst: float) -> None:
        for name, value in (("rate", rate), ("burst", burst)):
            if not (is_number(value) and 0 < value < float("inf")):
                raise ValueError(f"{name} must be a finite number above 0, not {value!r}")
        self.rate, self.burst = rate, burst
        self._level = burst
        self._at: float | None = None

    def level(self, now: float) -> float:
        """What is in it; below 0 it is in debt."""
        if self._at is not None and now > self._at:
            self._level = min(self.burst, self._level + (now - self._at) * self.rate)
        self._at = now if self._at is None else max(now, self._at)
        return self._level

    def wait(self, amount: float, now: float) -> float:
        """Seconds until an amount could be taken, 0.0 for at once."""
        missing = min(amount, self.burst) - self.level(now)
        return missing / self.rate if missing > _NEAR * self.burst else 0.0

    def take(self, amount: float, now: float) -> float:
        """Takes an amount out: 0.0 when it was taken, else seconds to wait, and nothing was."""
        wait = self.wait(amount, now)
        if not wait:
            self.settle(-amount, now)
        return wait

    def settle(self, amount: float, now: float) -> None:
        """Gives an amount back, never to more than the burst; a negative one is taken, whatever is there."""
        self._level = max(min(self.burst, self.level(now) + amount), -self.rate * LONGEST_WAIT)

    def tune(self, now: float, *, rate: float) -> None:
        """From now on it refills at another rate."""
        self.level(now)
        self.rate = rate
