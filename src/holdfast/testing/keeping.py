"""Answers that a server generates to their end whether or not somebody reads them, and how they are gone on with.

OpenAI's background responses, Gemini's interactions, and llama.cpp's conversations. How far an answer has come is a
function of the time that has passed since it was begun: no task runs for it, and none can be left behind.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

from holdfast._clock import Clock
from holdfast.testing import server
from holdfast.testing.books import Books, Served
from holdfast.testing.idiom import Idiom
from holdfast.testing.schedule import Schedule
from holdfast.testing.server import Reply
from holdfast.testing.visits import Visit

MAX_KEPT = 1000
"""How many answers are kept: a server that runs for days must not grow."""


def _now() -> float:
    return asyncio.get_running_loop().time()


@dataclass(slots=True, kw_only=True)
class Kept:
    """One answer: its events, one every so many seconds since `began`, up to the one at which it was stopped.

    `at` is the time of its beginning on the server's clock, `served` the request that began it.
    """

    served: Served
    events: list[bytes]
    idiom: Idiom
    every: float
    at: float
    began: float = field(default_factory=_now)
    stopped: int | None = None

    @property
    def made(self) -> int:
        """How many events there are by now."""
        if self.stopped is not None:
            return self.stopped
        return (
            len(self.events) if not self.every else min(len(self.events), 1 + int((_now() - self.began) / self.every))
        )

    async def read(self, place: int = 0) -> AsyncGenerator[bytes, None]:
        """Gives the events from a place on, waiting for those that are still to come."""
        while place < len(self.events) and (self.stopped is None or place < self.stopped):
            if place < self.made:
                yield self.events[place]
                place += 1
            else:
                await asyncio.sleep(max(0.0, self.began + place * self.every - _now()))

    async def read_bytes(self, offset: int) -> AsyncGenerator[bytes, None]:
        """Gives the bytes from an offset on, the first event cut to them."""
        begin = 0
        async for event in self.read():
            begin += len(event)
            if begin > offset:
                yield event[offset - begin :] if begin - offset < len(event) else event

    def place_at(self, offset: int) -> int:
        """Gives the place of the event in which a byte stands."""
        for place, event in enumerate(self.events):
            offset -= len(event)
            if offset < 0:
                return place
        return len(self.events)

    def stop(self) -> bool:
        """Generates no more; False where there was no more to generate, or it was stopped before."""
        if self.stopped is not None or self.made == len(self.events):
            return False
        self.stopped = self.made
        self.count()
        return True

    def count(self) -> None:
        """Charges the tokens that were generated, or will be, to the request that began it."""
        self.served.tokens = sum(map(self.idiom.tokens, self.events[: self.stopped]))


@dataclass(slots=True, kw_only=True)
class Keeper:
    """What one server keeps. `window` seconds after its beginning an answer cannot be gone on with by a cursor.

    `ring` is how many bytes at the end of a conversation can be asked for again.
    """

    books: Books
    clock: Clock
    window: float
    ring: int
    kept: dict[str, Kept] = field(default_factory=dict)

    def keep(self, id: str, kept: Kept) -> None:
        """Keeps an answer, and forgets the oldest where there are too many."""
        kept.count()
        self.kept.pop(id, None)
        self.kept[id] = kept
        if len(self.kept) > MAX_KEPT:
            del self.kept[next(iter(self.kept))]

    def reply(self, visit: Visit, schedule: Schedule) -> Reply:
        """Gives the reply to a request that asks for a kept answer, or stops it."""
        kept = self.kept.get(visit.id)
        if kept is None:
            return self._refuse(visit, 404, visit.unknown)
        if visit.action == "cancel":
            if kept.stop():
                self.books.cancels += 1
            return server.respond(_shown(kept, visit), 200, content_type="application/json")
        if visit.action == "show":
            return server.respond(_shown(kept, visit), 200, content_type="application/json")
        if visit.of == "responses" and self._age(kept) > self.window:
            minutes = f"{self.window / 60:g} minutes"
            return self._refuse(
                visit, 400, f"This response can no longer be streamed because it is more than {minutes} old"
            )
        if visit.of == "conversations":
            return self._bytes(kept, visit, schedule)
        place = _place(kept, visit)
        if place is None:
            return self._refuse(visit, 400, f"There is no event {visit.cursor!r} to go on behind.")
        return self._stream(kept, visit, schedule, place)

    def _age(self, kept: Kept) -> float:
        return self.clock.now() - kept.at

    def _bytes(self, kept: Kept, visit: Visit, schedule: Schedule) -> Reply:
        """Goes on at a byte; what has left the ring is gone."""
        if self._age(kept) > self.window + len(kept.events) * kept.every:  # counted from its end
            return self._refuse(visit, 404, visit.unknown)
        offset = int(visit.cursor or 0)
        if offset < sum(map(len, kept.events[: kept.made])) - self.ring:
            return self._refuse(visit, 400, "offset below the start of the ring")
        served = self.books.open(schedule, kept.served.key, cursor=visit.cursor)
        if served.fault.forgets:
            offset = 0
        events, place = kept.read_bytes(offset), kept.place_at(offset)
        return self.books.steps(served, events, place=place, idiom=kept.idiom, paid=True)

    def _stream(self, kept: Kept, visit: Visit, schedule: Schedule, place: int) -> Reply:
        served = self.books.open(schedule, kept.served.key, cursor=visit.cursor)
        if served.fault.forgets:
            place = 0
        return self.books.steps(served, kept.read(place), place=place, idiom=kept.idiom, paid=True)

    def _refuse(self, visit: Visit, status: int, message: str) -> Reply:
        kept = self.kept.get(visit.id)
        self.books.refused(kept.served.key if kept else visit.id, status, cursor=visit.cursor or "0")
        body = visit.idiom.document(status, "invalid_request_error", message)
        return server.respond(body, status, content_type="application/json")


def _place(kept: Kept, visit: Visit) -> int | None:
    """Gives the place behind the event that a cursor names; the beginning without one."""
    if not visit.cursor:
        return 0
    places = (place for place, event in enumerate(kept.events, 1) if kept.idiom.place(event) == visit.cursor)
    return next(places, None)


def _shown(kept: Kept, visit: Visit) -> bytes:
    """Gives a kept answer as one document: what its newest event with the whole of it says, and where it stands."""
    over = kept.made == len(kept.events)
    whole: dict[str, Any] = {}
    for event in kept.events if over else kept.events[:1]:
        payload = _payload(event)
        whole = payload.get(visit.member, whole) if visit.member else {}
    if kept.stopped is not None:
        whole["status"] = "cancelled"
    return json.dumps(whole, ensure_ascii=False, indent=2).encode()


def _payload(event: bytes) -> dict[str, Any]:
    data = b"\n".join(line[6:] for line in event.splitlines() if line.startswith(b"data: "))
    try:
        payload = json.loads(data)
    except ValueError:
        return {}
    return payload if isinstance(payload, dict) else {}


__all__ = ["Keeper", "Kept"]
