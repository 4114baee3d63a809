"""What an upstream's headers have told of one limit, carried on from there: how much is left, and how to spread it.

What a reset means is not agreed on: a window ends, or a bucket that refills all the while is full.
In both all is there again at the reset, and before it no more than what was told as left, less what was sent since. So
that is believed, until an answer tells of more than that: then it is a bucket, and what it refills a second is known.

A reset may be a lie, or a day away: nothing is planned for longer than `LONGEST_WAIT`, and after that long a request is
let through in spite of what was told, to ask again.
"""

from __future__ import annotations

from holdfast.machines.bucket import LONGEST_WAIT
from holdfast.machines.rate_limits import Limit

WINDOW = 60.0
"""Seconds of a limit's window where nobody has told of one: nearly all are minutes."""


class LearnedLimit:
    """One limit of one upstream. Amounts are requests or tokens, `sent` is all that was ever sent, in the same."""

    __slots__ = (
        "_ask_at",
        "_at",
        "_heard",
        "_mark",
        "_refills",
        "_remaining",
        "_seen",
        "_turn_at",
        "_windows",
        "limit",
        "reset_at",
        "sent",
    )

    def __init__(self, sent: float = 0.0) -> None:
        self.limit: float | None = None
        """None while nothing is known."""
        self.reset_at = 0.0
        self.sent = sent
        self._ask_at = 0.0  # when the next one may ask in spite of what was told
        self._at = 0.0  # when it was told
        self._heard = 0.0  # what had been sent by then, as far as the server had seen
        self._mark = 0.0
        self._refills = False
        self._remaining = 0.0
        self._seen = 0
        self._turn_at = 0.0
        self._windows = (0.0, 0.0)  # the longest times to a reset that were told: before the turn, and since

    def told(self, limit: Limit, *, number: int, sent: float, now: float) -> None:
        """Takes in what came with the answer to the `number`-th request, up to which `sent` had been sent."""
        if limit.remaining is None or number < self._seen:
            return  # an answer that comes late tells of an earlier time
        if self.limit is not None and now < self.reset_at and self._remaining < self.limit:
            self._refills |= limit.remaining > self._remaining - (sent - self._heard) + 0.5
        self._seen, self._heard, self._at = number, sent, now
        self._remaining = float(limit.remaining)
        self.limit = float(limit.limit or max(self.limit or 0.0, self._remaining)) or None
        seconds = WINDOW if limit.reset_seconds is None else limit.reset_seconds
        self._look_at_window(min(seconds, LONGEST_WAIT), now)
        self.reset_at = now + seconds
        self._ask_at = now + LONGEST_WAIT

    def _look_at_window(self, seconds: float, now: float) -> None:
        before, since = self._windows
        if now >= self._turn_at:
            before, since, self._turn_at = since, 0.0, now + max(seconds, WINDOW)
        self._windows = before, max(since, seconds)

    @property
    def window(self) -> float:
        """The longest time to a reset that was told lately."""
        return max(self._windows)

    def send(self, amount: float, now: float) -> None:
        """So much is sent."""
        self.sent += amount
        if now >= self._ask_at:
            self._ask_at = now + LONGEST_WAIT

    def exceeded(self) -> None:
        """More was sent than was there, although it was told: what looked like a refill was none."""
        self._refills = False

    def left(self, now: float) -> float:
        """What may still be sent before the reset; infinite where nothing is known."""
        if self.limit is None:
            return float("inf")
        if now >= self.reset_at:
            # What was sent and not yet heard of may belong to either side of the reset: once it is held against us,
            # and not twice, or a server that tells no more of its limit would never be asked again.
            self._heard, self._mark = max(self._heard, self._mark), self.sent
            self._remaining, self._at = self.limit, now
            self.reset_at = now + max(self.window, WINDOW)
        return self._remaining + self._refill * (now - self._at) - (self.sent - self._heard)

    @property
    def _refill(self) -> float:
        """What flows in a second, as far as that is known."""
        if not self._refills or self.limit is None:
            return 0.0
        return (self.limit - self._remaining) / max(self.reset_at - self._at, 1e-3)

    def wait(self, amount: float, now: float) -> float:
        """Seconds until an amount could be sent, 0.0 for now. One over the whole limit is judged by the server.

        An amount of nothing is one that is not known yet: something must be left for it.
        """
        missing = 0.0 if self.limit is None else min(max(amount, 1.0), self.limit) - self.left(now)
        if missing <= 0:
            return 0.0
        until, refill = min(self.reset_at, self._ask_at) - now, self._refill
        return max(0.0, min(until, missing / refill) if refill else until)

    def rate(self, amount: float, now: float, *, below: float) -> float | None:
        """How many of an amount may be sent a second, None for as many as will, while more than `below` is left.

        Under that share, what is left is spread over the time to the reset: at first loosely, at the end evenly.
        """
        left = self.left(now)
        if self.limit is None or left >= below * self.limit:
            return None
        one = min(max(amount, 1.0), self.limit)
        if left < one and now >= self._ask_at:
            return None
        loosely = self._evenly(left, now) / max(1.0 - left / (below * self.limit), 0.05)
        return max(loosely + self._refill, one / LONGEST_WAIT) / one

    def _evenly(self, left: float, now: float) -> float:
        return max(left, 0.0) / min(max(self.reset_at - now, 1e-3), LONGEST_WAIT)

    def pace(self, now: float) -> float | None:
        """What the limit is a second, over its window, and no less than what is left until its reset; None: unknown."""
        if not self.limit or not self.window:
            return None
        return max(self.limit / max(self.window, 1.0), self._evenly(self.left(now), now))
