"""The retry budget: second requests never exceed a share of the first ones, however many calls fail at once.

A retry helps one call and harms all when an upstream is down: with four tries each, an outage is answered by four times
the traffic. Every first request pays a share of a token in, every further one takes a whole token out; a small floor a
second lets a lone client retry, too. It knows no clock: whoever asks says what time it is, in seconds.
The idea is Finagle's (twitter.github.io/finagle/guide/Clients.html#retries) and gRPC's (proposal A6, retry throttling).
"""

from __future__ import annotations

from holdfast.machines.settings import is_number


class RetryBudget:
    """What all calls together may still send again. Make one, and hand it to every client of the same upstreams.

    `ratio` of the first requests may be sent again (0.1: ten in a hundred), and `floor` requests a second besides,
    however little is sent. What is not used is saved up to `burst` requests. Raises `ValueError` for other settings.
    """

    __slots__ = ("_at", "_left", "burst", "denied", "first", "floor", "ratio", "retries")

    def __init__(self, *, ratio: float = 0.1, floor: float = 1.0, burst: float = 10.0) -> None:
        if not (is_number(ratio) and 0 <= ratio <= 1):
            raise ValueError(f"ratio must be a number from 0 to 1, not {ratio!r}: 0.1 is ten in a hundred")
        for name, value, least in (("floor", floor, 0.0), ("burst", burst, 1.0)):
            if not (is_number(value) and value >= least):
                raise ValueError(f"{name} must be a number from {least:g}, not {value!r}")
        self.ratio, self.floor, self.burst = ratio, floor, burst
        self.first = 0
        """First requests that were sent."""
        self.retries = 0
        """Further requests that were sent."""
        self._left = burst
        self._at: float | None = None

    def deposit(self, now: float) -> None:
        """A first request is sent."""
        self._refill(now)
        self.first += 1
        self._left = min(self.burst, self._left + self.ratio)

    def allows(self, now: float) -> bool:
        """Says whether a further request could be sent now."""
        self._refill(now)
        return self._left >= 1.0 - 1e-9  # ten tenths are a whole

    def withdraw(self, now: float) -> bool:
        """Takes one further request out; False where there is none left."""
        if not self.allows(now):
            return False
        self._left -= 1.0
        self.retries += 1
        return True

    def _refill(self, now: float) -> None:
        if self._at is not None:
            self._left = min(self.burst, self._left + max(0.0, now - self._at) * self.floor)
        self._at = now if self._at is None else max(now, self._at)

    @property
    def amplification(self) -> float:
        """Requests sent for each one that was asked for: 1.0 without a retry."""
        return (self.first + self.retries) / self.first if self.first else 1.0

    def __repr__(self) -> str:
        return f"RetryBudget(ratio={self.ratio:g}, floor={self.floor:g}, burst={self.burst:g})"
