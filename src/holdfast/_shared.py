"""What several processes decide on together: limits that hold for all of them, places of which there are few.

Each method is one decision, and atomic: two processes that ask at once are answered as if one had asked first. None
raises, and none waits longer than a store may take: where the store is slow or gone the answer is None, and whoever
asked decides alone, as if there were no others. Times are seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class SharedState(Protocol):
    """A store of common decisions. `name` says what is decided on, such as "deepseek requests"."""

    async def take(
        self, name: str, amount: float, *, rate: float, burst: float, seconds: float | None = None, force: bool = False
    ) -> float | None:
        """Takes from a bucket that holds `burst` and refills at `rate` a second: 0.0 when taken, else seconds to wait.

        An `amount` over the burst is taken once the bucket is full, and leaves a debt. A negative one gives back. With
        `force` it is taken whatever is there: what was used has been used. Where a bucket refills, no debt is of more
        than ten minutes. One that never refills (`rate` 0) may be forgotten when nobody has asked for it for `seconds`;
        None: never.
        """

    async def hold(self, name: str, holder: str, *, places: int, seconds: float) -> bool | None:
        """Takes one of a few places for at most `seconds`, or holds it longer: True where `holder` has it now."""

    async def release(self, name: str, holder: str) -> None:
        """Gives a place back. Harmless where it was not held."""

    async def tell(self, name: str, values: Mapping[str, float], *, seconds: float) -> None:
        """Tells the others what was learned, for `seconds`."""

    async def told(self, name: str) -> Mapping[str, float] | None:
        """Gives what any process learned last, and as `seconds` for how long that still holds; empty: nothing."""
