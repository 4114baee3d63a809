"""A store of common decisions in memory, for layers that share: with `slow` turns of the loop to be cancelled in."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from holdfast._clock import Clock
from holdfast.machines.bucket import TokenBucket
from holdfast.moments import Moment


@dataclass(slots=True, kw_only=True)
class Store:
    """Keeps the protocol `SharedState`. `gone`: it answers None to everything."""

    clock: Clock
    gone: bool = False
    slow: int = 1
    buckets: dict[str, TokenBucket] = field(default_factory=dict)
    places: dict[str, dict[str, float]] = field(default_factory=dict)
    notes: dict[str, tuple[float, Mapping[str, float]]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    untold: list[Moment] = field(default_factory=list)

    def news(self) -> list[Moment]:
        told, self.untold = self.untold, []
        return told

    async def _answers(self, what: str) -> bool:
        self.asked.append(what)
        for _ in range(self.slow):
            await asyncio.sleep(0)
        return not self.gone

    async def take(
        self, name: str, amount: float, *, rate: float, burst: float, seconds: float | None = None, force: bool = False
    ) -> float | None:
        if not await self._answers(f"take {name}"):
            return None
        bucket = self.buckets.setdefault(name, TokenBucket(rate=rate, burst=burst))
        bucket.tune(self.clock.now(), rate=rate)
        if amount < 0 or force:
            bucket.settle(-amount, self.clock.now())
            return 0.0
        return bucket.take(amount, self.clock.now())

    async def hold(self, name: str, holder: str, *, places: int, seconds: float) -> bool | None:
        if not await self._answers(f"hold {name}"):
            return None
        now, held = self.clock.now(), self.held(name)
        if holder not in held and len(held) >= places:
            return False
        held[holder] = now + seconds
        return True

    async def release(self, name: str, holder: str) -> None:
        if await self._answers(f"release {name}"):
            self.held(name).pop(holder, None)

    def held(self, name: str) -> dict[str, float]:
        """Gives the places that are held and have not expired."""
        now = self.clock.now()
        self.places[name] = {one: until for one, until in self.places.get(name, {}).items() if until > now}
        return self.places[name]

    @property
    def in_use(self) -> int:
        return sum(len(self.held(name)) for name in list(self.places))

    async def tell(self, name: str, values: Mapping[str, float], *, seconds: float) -> None:
        if await self._answers(f"tell {name}"):
            self.notes[name] = (self.clock.now() + seconds, dict(values))

    async def told(self, name: str) -> Mapping[str, float] | None:
        if not await self._answers(f"told {name}"):
            return None
        until, values = self.notes.get(name, (0.0, {}))
        left = until - self.clock.now()
        return {**values, "seconds": left} if left > 0 else {}
