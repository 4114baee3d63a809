"""What several processes decide on together: limits that hold for all of them, places of which there are few.

Each method is one decision, and atomic: two processes that ask at once are answered as if one had asked first. None
raises, and none waits longer than a store may take: where the store is slow or gone the answer is None, and whoever
asked decides alone, as if there were no others. Times are seconds.
"""

from __future__ import annotations

import asyncio
import secrets
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from holdfast._clock import Clock, Timer
from holdfast._tasks import outlast
from holdfast.moments import Moment


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

    def news(self) -> Sequence[Moment]:
        """Gives what became of the store since this was last asked: `SharedLost`, `SharedBack`. The call notes them."""


class Lease:
    """One of a few places, of a stream that may run for longer than a place is held: it is held anew at half of that.

    Whoever forgets it, or dies, lets it run out.
    """

    __slots__ = (
        "__weakref__",
        "_clock",
        "_ending",
        "_holder",
        "_name",
        "_places",
        "_renewal",
        "_seconds",
        "_shared",
        "_timer",
    )

    def __init__(
        self, shared: SharedState, name: str, *, places: Callable[[], int], seconds: float, clock: Clock
    ) -> None:
        self._clock = clock
        self._ending: asyncio.Task[None] | None = None
        self._holder = secrets.token_hex(8)
        self._name = name
        self._places = places
        self._renewal: asyncio.Task[None] | None = None
        self._seconds = seconds
        self._shared = shared
        self._timer: Timer | None = None

    async def take(self) -> bool | None:
        """Takes the place, or holds it longer; None where the store is gone."""
        held = await self._shared.hold(self._name, self._holder, places=self._places(), seconds=self._seconds)
        if held is not False:
            # Weakly: a stream that nobody closes must not be kept by the timer that keeps its place.
            lease = weakref.ref(self)
            self._timer = self._clock.call_at(self._clock.now() + self._seconds / 2, lambda: _renew(lease))
        return held

    def renew(self) -> None:
        """Holds it longer, in a task of its own: the stream may be waiting for an upstream that says nothing."""
        self._renewal = asyncio.ensure_future(self._take_again())

    async def _take_again(self) -> None:
        await self.take()

    def free(self) -> asyncio.Task[None]:
        """Begins to give it back. Idempotent."""
        if self._ending is None:
            self._ending = asyncio.ensure_future(self._stop(release=True))
        return self._ending

    async def end(self) -> None:
        """Gives it back, whoever cancels meanwhile."""
        await outlast(self.free())

    async def keep(self) -> None:
        """Holds it no longer than it is held now: nobody else shall have it before."""
        if self._ending is None:
            self._ending = asyncio.ensure_future(self._stop(release=False))
        await outlast(self._ending)

    async def _stop(self, *, release: bool) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._renewal is not None:
            self._renewal.cancel()
            await outlast(self._renewal)
        if self._timer is not None:
            self._timer.cancel()
        if release:
            await self._shared.release(self._name, self._holder)


def _renew(lease: weakref.ref[Lease]) -> None:
    alive = lease()
    if alive is not None:
        alive.renew()
