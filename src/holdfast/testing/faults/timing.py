"""Faults of time: a reply comes late, or slowly, or at some place no further, and the connection stays."""

from __future__ import annotations

from holdfast.testing.acts import TAKE, Asked, Begin, Bytes, Cut, Pings, Play
from holdfast.testing.faults._fault import BaseFault
from holdfast.testing.faults._parts import begun, edit_said, has_said, whole
from holdfast.testing.server import Pause, Stall


class StallMidStream(BaseFault, frozen=True, kw_only=True):
    """After so many events nothing more comes, and the connection stays."""

    words = "stall"
    after: int = 20

    def play(self, asked: Asked) -> Play:
        yield from begun(self.after)
        yield Stall()


class StallBehindPings(BaseFault, frozen=True, kw_only=True):
    """After so many events only comments come, `ping` seconds one, until the client leaves."""

    words = "stall behind pings"
    after: int = 20
    ping: float = 0.1

    def play(self, asked: Asked) -> Play:
        yield from begun(self.after)
        yield Pings(asked.idiom.ping, self.ping)


class StallBehindEmptyDeltas(BaseFault, frozen=True, kw_only=True):
    """After so many events only pieces without text come, `ping` seconds one."""

    words = "stall behind empty deltas"
    after: int = 20
    ping: float = 0.1

    def play(self, asked: Asked) -> Play:
        yield from begun(self.after)
        while (event := (yield TAKE)) is not None and not has_said(event):
            yield Bytes(event)
        if event is None:
            yield Cut()
            return
        # An empty piece with the id of the event that it stands for would be a lie about what was delivered.
        yield Pings(edit_said(asked.idiom.unplaced(event), lambda _: b"", count=0), self.ping)


class StallAtEnd(BaseFault, frozen=True, kw_only=True):
    """All has been said, without or with `[DONE]`, and the body does not end."""

    done: bool = True

    def play(self, asked: Asked) -> Play:
        yield Begin()
        while (event := (yield TAKE)) is not None and (self.done or not asked.idiom.is_end(event)):
            yield Bytes(event)
        yield Stall()

    def __str__(self) -> str:
        return "stall after [DONE]" if self.done else "stall after the finish reason"


class Latency(BaseFault, frozen=True, kw_only=True):
    """The head comes late by so many seconds."""

    words = "latency"
    seconds: float = 0.05

    def play(self, asked: Asked) -> Play:
        yield Pause(self.seconds)
        yield from whole()


class Drip(BaseFault, frozen=True, kw_only=True):
    """The body comes in pieces of `size` bytes, each a chunk and a write of its own, `every` seconds one."""

    words = "drip"
    size: int = 7
    every: float = 0.0

    def play(self, asked: Asked) -> Play:
        yield Begin()
        while (event := (yield TAKE)) is not None:
            for start in range(0, len(event), self.size):
                yield Bytes(event[start : start + self.size])
                if self.every:
                    yield Pause(self.every)
        yield Cut()


class Throttle(BaseFault, frozen=True, kw_only=True):
    """The line carries so many bytes a second and no more."""

    words = "throttle"
    bytes_per_second: int = 100_000

    def play(self, asked: Asked) -> Play:
        yield Begin()
        while (event := (yield TAKE)) is not None:
            yield Bytes(event)
            yield Pause(len(event) / self.bytes_per_second)
        yield Cut()


class SlowThenDead(BaseFault, frozen=True, kw_only=True):
    """After so many events each of eight more takes twice as long as the one before, then nothing comes."""

    words = "slow, then dead"
    after: int = 20
    seconds: float = 0.001

    def play(self, asked: Asked) -> Play:
        yield from begun(self.after)
        for doubling in range(8):
            if (event := (yield TAKE)) is None:
                break
            yield Pause(self.seconds * 2**doubling)
            yield Bytes(event)
        yield Stall()


class ThroughputCollapse(BaseFault, frozen=True, kw_only=True):
    """The first token comes at once, and from then on `seconds` pass before each event."""

    words = "throughput collapse after the first token"
    seconds: float = 0.02

    def play(self, asked: Asked) -> Play:
        yield Begin()
        slow = False
        while (event := (yield TAKE)) is not None:
            if slow:
                yield Pause(self.seconds)
            yield Bytes(event)
            slow = slow or has_said(event)
        yield Cut()


__all__ = [
    "Drip",
    "Latency",
    "SlowThenDead",
    "StallAtEnd",
    "StallBehindEmptyDeltas",
    "StallBehindPings",
    "StallMidStream",
    "Throttle",
    "ThroughputCollapse",
]
