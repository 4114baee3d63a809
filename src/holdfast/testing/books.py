"""What was served: every request, what it met, and how much of it had been sent before.

Attempts are counted by stream, and events by their place in the answer, so an event that a cut made necessary to send
twice is seen as such, with ids and without. It must never change what is sent.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Literal

from holdfast.testing.acts import (
    HEADERS,
    Act,
    Asked,
    Begin,
    Bytes,
    EventCutter,
    Refuse,
    TcpPerformer,
    event_id,
    perform,
)
from holdfast.testing.faults import Fault
from holdfast.testing.idiom import CHAT, Idiom
from holdfast.testing.schedule import HEALTHY, Schedule
from holdfast.testing.server import Drip, Pause, Repeat, Reset, Send, Stall, Step

Rung = Literal["", "last-event-id", "cursor", "prefix", "replay"]
"""How a request goes on with an answer that was begun; the first request for one does not."""


@dataclass(slots=True, kw_only=True)
class Served:
    """One request: its place among those for its stream, what it met, where it was to begin, and what it got.

    `rung` is how it goes on with an answer, `cursor` the place where, unless that is the `last_event_id`. `tokens` were
    generated for it, and are paid for, read or not; those of an answer that is generated without a reader are all with
    the request that began it. A request that was refused on its merits is attempt 0, and is not counted.

    `stuck`: the client bore a stall for as long as its server has patience, so it has no timeout that ends one.
    `status` is 0 where no head was sent; `events` counts those that were sent whole, `events_again` those of them that
    an earlier attempt had been sent already, `bytes` all that left. `over` turns true with the reply's end or the
    client's leaving.
    """

    key: str
    attempt: int
    fault: Fault
    last_event_id: str = ""
    cursor: str = ""
    rung: Rung = ""
    status: int = 0
    events: int = 0
    events_again: int = 0
    tokens: int = 0
    bytes: int = 0
    over: bool = False
    stuck: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Gives what a line of JSON says of it."""
        return {
            "key": self.key,
            "attempt": self.attempt,
            "fault": None if self.fault.name == "healthy" else str(self.fault),
            "rung": self.rung,
            "last_event_id": self.last_event_id,
            "cursor": self.cursor,
            "status": self.status,
            "events": self.events,
            "events_again": self.events_again,
            "tokens": self.tokens,
            "bytes": self.bytes,
        }


@dataclass(slots=True)
class _Stream:
    """How far one answer has been sent: `furthest` events of it, and the places of those that had ids."""

    attempts: int = 0
    furthest: int = 0
    places: dict[str, int] = field(default_factory=dict)


class Books:
    """Keeps the count for one server. `heard`, where given, is called with each request when it is over.

    A client that bears a stall for `patience` seconds is reset, and noted as stuck; None waits for ever.
    """

    def __init__(self, heard: Callable[[Served], None] | None = None) -> None:
        self.served: list[Served] = []
        self.cancels = 0
        self.patience: float | None = None
        self._heard = heard
        self._streams: dict[str, _Stream] = {}

    @property
    def attempts(self) -> dict[str, int]:
        """How often each stream was asked for."""
        return {key: stream.attempts for key, stream in self._streams.items()}

    def open(
        self, schedule: Schedule, key: str, last_event_id: str = "", *, cursor: str = "", prefix: bool = False
    ) -> Served:
        """Notes a request, and what it is to meet; `prefix`: it brings the beginning of an answer."""
        stream = self._streams.setdefault(key, _Stream())
        stream.attempts += 1
        rung: Rung = "replay" if stream.attempts > 1 else ""
        rung = "last-event-id" if last_event_id else "cursor" if cursor else "prefix" if prefix else rung
        fault = schedule.fault(key, stream.attempts)
        served = Served(
            key=key, attempt=stream.attempts, fault=fault, last_event_id=last_event_id, cursor=cursor, rung=rung
        )
        self.served.append(served)
        return served

    def refused(self, key: str, status: int, *, cursor: str = "", prefix: bool = False) -> None:
        """Notes a request that the provider did not take: it meets no fault, and is no attempt."""
        rung: Rung = "cursor" if cursor else "prefix" if prefix else ""
        served = Served(key=key, attempt=0, fault=HEALTHY, cursor=cursor, rung=rung, status=status)
        self.served.append(served)
        self.close(served)

    def whole(self, key: str, *, tokens: int, size: int) -> None:
        """Notes a request that was answered with a document of `size` bytes: it meets no fault, and is no attempt."""
        served = Served(key=key, attempt=0, fault=HEALTHY, tokens=tokens, bytes=size)
        self.served.append(served)
        self.close(served)

    def aside(self, key: str) -> Served:
        """Gives the record of a request that asks for no stream; it is attempt 0, meets nothing, and is not counted."""
        return Served(key=key, attempt=0, fault=HEALTHY)

    async def steps(
        self,
        served: Served,
        events: AsyncGenerator[bytes, None],
        *,
        headers: Mapping[str, str] = HEADERS,
        place: int | None = None,
        idiom: Idiom = CHAT,
        paid: bool = False,
    ) -> AsyncGenerator[Step, None]:
        """Gives the steps of one reply, and counts what they send.

        `place` is that of the first event in its answer, None where only its id can tell; `paid`: its tokens were
        counted already.
        """
        asked = Asked(attempt=served.attempt, last_event_id=served.last_event_id, cursor=served.cursor, idiom=idiom)
        performer, counter = TcpPerformer(headers), self._counter(served, place, None if paid else idiom)
        try:
            noted = counter.noted(events)
            async with aclosing(noted), aclosing(perform(served.fault.play(asked), noted)) as performed:
                async for act in performed:
                    counter.count(act)
                    for step in self._patient(performer.steps(act), served):
                        if isinstance(step, Send | Drip):
                            served.bytes += len(step.data)
                        yield step
        finally:
            self.close(served)

    def _patient(self, steps: Iterator[Step], served: Served) -> Iterator[Step]:
        """Gives the steps, those without an end only for as long as there is patience."""
        for step in steps:
            if self.patience is None or not isinstance(step, Stall | Repeat):
                yield step
                continue
            if isinstance(step, Stall):
                yield Pause(self.patience)
            else:
                for _ in range(1 + int(self.patience / step.every)):
                    yield Send(step.data)
                    yield Pause(step.every)
            served.stuck = True
            yield Reset()

    def close(self, served: Served) -> None:
        """The request is over."""
        if not served.over:
            served.over = True
            if self._heard is not None:
                self._heard(served)

    def furthest(self, key: str) -> int:
        """Tells how many events of a stream were sent so far."""
        return self._streams[key].furthest

    def _counter(self, served: Served, place: int | None, idiom: Idiom | None) -> _Counter:
        stream = self._streams[served.key]
        if place is None:
            place = stream.places.get(served.last_event_id or served.cursor, -1) + 1
        return _Counter(served, stream, place, idiom)

    @property
    def summary(self) -> dict[str, Any]:
        """All of it in sums: requests, streams, faults met and rungs used by name, events, tokens, cancels."""
        faults = Counter(served.fault.name for served in self.served if served.fault.name != "healthy")
        rungs = Counter(served.rung for served in self.served if served.rung)
        return {
            "requests": len(self.served),
            "streams": len(self._streams),
            "faults": dict(sorted(faults.items())),
            "rungs": dict(sorted(rungs.items())),
            "events": sum(served.events for served in self.served),
            "events_again": sum(served.events_again for served in self.served),
            "tokens": sum(served.tokens for served in self.served),
            "cancels": self.cancels,
            "bytes": sum(served.bytes for served in self.served),
        }


class _Counter:
    """Counts what one reply sends. An event's place is that in the healthy reply; what a fault made up has none."""

    def __init__(self, served: Served, stream: _Stream, place: int, idiom: Idiom | None) -> None:
        self._served = served
        self._idiom = idiom  # None where tokens are not to be counted
        self._stream = stream
        self._next = place
        self._taken: dict[bytes, deque[int]] = {}  # one answer may say the same thing twice
        self._sent: set[int] = set()
        self._edited: int | None = None  # the place of the event taken last, until it is sent
        self._cutter = EventCutter()

    async def noted(self, events: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        """Gives the healthy reply's events, and notes their places: one with a known id stands where that one stood."""
        places = self._stream.places
        async with aclosing(events):
            async for event in events:
                if self._idiom is not None:
                    self._served.tokens += self._idiom.tokens(event)
                name = event_id(event)
                place = places.setdefault(name, self._next) if name else self._next
                if self._idiom is not None and (cursor := self._idiom.place(event)):
                    places.setdefault(cursor, place)
                self._taken.setdefault(event, deque()).append(place)
                self._edited = place
                self._next = place + 1
                yield event

    def count(self, act: Act) -> None:
        if isinstance(act, Begin | Refuse):
            self._served.status = act.status
        elif isinstance(act, Bytes):
            for event in self._cutter.feed(act.data):
                if b"data:" in event:
                    self._count(event)

    def _count(self, event: bytes) -> None:
        place = self._place(event)
        if place == self._edited:
            self._edited = None
        self._served.events += 1
        if place is not None:
            self._sent.add(place)
            self._served.events_again += place < self._stream.furthest
            self._stream.furthest = max(self._stream.furthest, place + 1)

    def _place(self, event: bytes) -> int | None:
        places = self._taken.get(event)
        if places is None:
            return self._edited
        while len(places) > 1 and places[0] in self._sent:
            places.popleft()
        return places[0]


__all__ = ["Books", "Rung", "Served"]
