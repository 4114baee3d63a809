"""How long to wait before the next try, so that many clients that failed together do not return together.

The two kinds of jitter are those of Marc Brooker's "Exponential Backoff and Jitter" (AWS Architecture Blog, 2015,
https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/), where both load a recovering server less
than any backoff without jitter. Chance comes in as a number `u` in [0, 1): the machine draws none.
"""

from __future__ import annotations

from typing import Literal, get_args

from holdfast.machines.settings import is_number

Jitter = Literal["full", "decorrelated"]


class Backoff:
    """The delays between the tries of one thing, in seconds.

    `base` is the first ceiling and `cap` the last one: no delay is longer. 1 s outlasts a restarted worker's gap, and
    10 s is about what a person who watches a cursor bears. Raises `ValueError` for settings that make no sense.
    """

    __slots__ = ("_base", "_cap", "_jitter", "_reach")

    def __init__(self, *, base: float = 1.0, cap: float = 10.0, jitter: Jitter = "full") -> None:
        if not (is_number(base) and 0 <= base < float("inf")):
            raise ValueError(f"base must be a number of seconds from 0, not {base!r}")
        if not (is_number(cap) and base <= cap < float("inf")):
            raise ValueError(f"cap must be a number of seconds from base ({base!r}), not {cap!r}")
        if jitter not in get_args(Jitter):
            raise ValueError(f"jitter must be one of {', '.join(get_args(Jitter))}, not {jitter!r}")
        self._base = base
        self._cap = cap
        self._jitter = jitter
        self._reach = base
        """Full: the ceiling of the next delay. Decorrelated: the delay before."""

    def next(self, u: float) -> float:
        """Gives the delay before the next try, at the place `u` of its range."""
        if self._jitter == "full":  # random_between(0, min(cap, base * 2 ** attempt))
            delay = u * self._reach
            self._reach = min(self._cap, self._reach * 2)  # doubling under the cap: no power that could overflow
            return delay
        # min(cap, random_between(base, sleep * 3))
        self._reach = min(self._cap, self._base + u * (self._reach * 3 - self._base))
        return self._reach

    def reset(self) -> None:
        """Begins again with the shortest delays: something went well."""
        self._reach = self._base
