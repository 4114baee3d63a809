"""What there is to see of a gateway: its streams as they run, what became of those that ended, and who came for them.

Nothing is done per event: a stream is listened to for its few moments, and how far it has come is read off its log by
whoever looks. It holds names, numbers and the reports of what runs; never a prompt, an answer, a key or a token.
"""

from __future__ import annotations

import statistics
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from holdfast import moments
from holdfast._clock import Clock, SystemClock
from holdfast._core import Attempt, Call
from holdfast._errors import BudgetExhausted, CircuitOpen, StreamError
from holdfast._types import Request
from holdfast.gateway.journal import Entry, Shelved
from holdfast.gateway.log import Log
from holdfast.gateway.numbers import Numbers
from holdfast.machines.redact import only_name
from holdfast.moments import Listener, Moment, Report
from holdfast.telemetry import logs
from holdfast.telemetry.health import Ending, Health

KEPT = 24
"""Streams that ended which are still shown."""
KEPT_NEWS = 60
_KEPT_FOR_PERCENTILES = 1_000
_MAX_UPSTREAMS = 200

_PHASES: dict[type[Moment], str] = {
    moments.Opening: "asking",
    moments.FirstDelta: "flowing",
    moments.Retrying: "mending",
    moments.Resuming: "mending",
    moments.FellBack: "mending",
    moments.Resumed: "flowing",
}
"""What a stream does from a moment on."""


@dataclass(slots=True)
class Asked:
    """What is known of one upstream."""

    streams: int = 0
    faults: int = 0
    first: deque[float] = field(default_factory=lambda: deque(maxlen=100))
    """Seconds to the first piece of its last answers."""

    @property
    def typical(self) -> float | None:
        """The median of them."""
        return statistics.median(self.first) if self.first else None


class Watched:
    """One stream that this node writes: it listens to the call, and keeps its report."""

    __slots__ = (
        "_bytes",
        "_call",
        "_records",
        "_tokens",
        "_watch",
        "began",
        "changes",
        "entry",
        "log",
        "model",
        "phase",
        "report",
        "seams",
        "started",
        "took",
    )

    def __init__(self, watch: Watch, entry: Entry, log: Log | None) -> None:
        self._watch = watch
        self._call: Call | None = None
        self._tokens = 0
        self.entry = entry
        self.log = log
        self._records, self._bytes = (0, 0) if log is None else (log.last, log.written)
        self.model = ""
        self.phase = "asking"
        self.report = Report()
        self.began = watch.clock.now()
        self.started = 0.0
        """On the clock of the call, as moments are stamped."""
        self.took = 0.0
        """Seconds that it ran, once it is over."""
        self.seams: list[tuple[float, str, str, float]] = []
        """Seconds from its start, rung, guarantee and gap."""
        self.changes = 0
        """Counts what may be seen to have changed."""

    def begin(self, request: Request) -> None:
        """The call begins."""
        self._call, self.report = request.call, request.call.report
        self._watch.live[self.entry.stream] = self

    def __call__(self, moment: Moment) -> None:
        """Something happened."""
        self.changes += 1
        self._hear_of_phase(moment)
        match moment:
            case moments.Started():
                self.started = moment.at
            case moments.Opening():
                self._watch.upstream(moment.upstream).streams += 1
            case moments.FirstDelta():
                self._watch.upstream(self.report.upstream).first.append(moment.seconds)
            case moments.Retrying() | moments.Resuming() if moment.error is not None:  # else it broke on another node
                self._watch.upstream(self._asked).faults += 1
            case moments.FellBack():
                # Of a seam `Resuming` tells, and who was not asked has not failed.
                self._watch.upstream(moment.old).faults += not (moment.midstream or _is_ours(moment.error))
                self._watch.add_news("fell_back", self.entry.stream, old=moment.old, new=moment.new)
            case moments.Resumed():
                told = (moment.at - self.started, moment.rung, moment.guarantee, moment.gap)
                self.seams.append(told)
                self._watch.add_news("resumed", self.entry.stream, rung=moment.rung, gap=moment.gap)
            case moments.BreakerChanged():
                self._watch.health.note_breaker(moment.name, moment.new)
                self._watch.add_news("breaker", "", name=moment.name, state=moment.new)
            case moments.Ended():
                self._tokens = self._call_tokens
                self._call = None  # it holds its listeners: a circle would keep the answer in memory
                self._watch.judged(self)

    @property
    def _call_tokens(self) -> int:
        return self._call.answer.tokens if self._call is not None else 0

    @property
    def _asked(self) -> str:
        return self._attempt.upstream if self._attempt is not None else ""

    @property
    def _attempt(self) -> Attempt | None:
        return self._call.attempt if self._call is not None else None

    def _hear_of_phase(self, moment: Moment) -> None:
        self.phase = _PHASES.get(type(moment), self.phase)
        if isinstance(moment, moments.Opening):
            self.model = self._attempt.model[:100] if self._attempt is not None else ""
            self.phase = "mending" if moment.attempt > 1 else "asking"

    def grown(self) -> tuple[int, int]:
        """Gives how many records and bytes were written since this was asked last."""
        if self.log is None:
            return 0, 0
        records, self._records = self.log.last - self._records, self.log.last
        size, self._bytes = self.log.written - self._bytes, self.log.written
        return max(0, records), max(0, size)  # what was shown and never written is withdrawn

    @property
    def records(self) -> int:
        """How many records there are; of an answer that is kept nowhere, about how many tokens came."""
        return (self._records if self.log is None else self.log.last) or self._tokens or self._call_tokens

    @property
    def bytes(self) -> int:
        """How many bytes they are."""
        return self._bytes if self.log is None else self.log.written


class Watch:
    """Keeps what is seen of one gateway. `numbers` are for Prometheus, None without the package."""

    def __init__(self, *, clock: Clock | None = None) -> None:
        self.clock = clock or SystemClock()
        self.numbers = Numbers.made()
        self.health = Health(keep=_KEPT_FOR_PERCENTILES)
        self.live: dict[str, Watched] = {}
        self.ended: deque[tuple[int, Watched, str]] = deque(maxlen=KEPT)
        """Those that ended last, numbered, each with how."""
        self.upstreams: dict[str, Asked] = {}
        self.counts: Counter[str] = Counter()
        """How often something was told of."""
        self.news: deque[dict[str, Any]] = deque(maxlen=KEPT_NEWS)
        """What happened last, each with its `number`, the time `at` in seconds since the epoch, and of which stream."""
        self.records = 0
        self.bytes = 0
        self.number = 0
        """Of what happened last."""
        self._at_door: dict[str, Shelved | None] = {}
        """Streams that are not let in yet, by name; those of whose opening to tell then."""
        self._left: set[str] = set()
        """Streams that are left to another node, until their end is told."""

    def listen(self, entry: Entry, log: Log | None = None) -> tuple[Listener, ...]:
        """Gives who listens to a stream that this node is about to write."""
        watched = Watched(self, entry, log)
        return (watched,) if self.numbers is None else (watched, self.numbers.listener())

    def tell(self, what: str, shelved: Shelved, /, **facts: Any) -> None:
        """A stream was `opened`, `joined`, `read_again`, `cancelled`, `abandoned`, `taken_over` or `handed_over`.

        `ended` is told when this node writes nothing more of it.
        """
        stream = shelved.entry.stream
        if what == "opened" and stream in self._at_door:
            self._at_door[stream] = shelved
            return
        if what == "ended":
            if self._at_door.pop(stream, None) is None:  # else there was none
                self._end(shelved)
            return
        if what == "handed_over":
            self._left.add(shelved.entry.stream)
        entry = shelved.entry
        self.counts[what] += 1
        if what != "opened":
            self.add_news(what, entry.stream, **facts)
        if self.numbers is not None:
            self.numbers.told(what, entry.surface, facts)
        elapsed = max(0.0, self.clock.wall().timestamp() - entry.opened)
        surface = entry.surface if what == "opened" else ""
        logs.tell(f"gateway.{what}", entry.stream, elapsed, {"owner": entry.owner, "surface": surface, **facts})

    def hold(self, stream: str) -> None:
        """A stream stands at the door: until `let_in()` it is none, and not told of."""
        self._at_door[stream] = None

    def let_in(self, stream: str) -> None:
        """It may begin."""
        shelved = self._at_door.pop(stream, None)
        if shelved is not None:
            self.tell("opened", shelved)

    def refused(self, status: int, reason: str) -> None:
        """Somebody was answered with an error before there was a stream."""
        self.counts["refused"] += 1
        if self.numbers is not None:
            self.numbers.refused(status, only_name(reason) or "")

    def judged(self, watched: Watched) -> None:
        """The call is over; its last records may still have to be written."""
        self.health.add(Ending.of(watched.report))
        if watched.report.error is not None and not _is_ours(watched.report.error):
            self.upstream(watched.report.upstream).faults += 1
        if watched.log is None:
            self._forget(watched, watched.report.outcome)

    def upstream(self, name: str) -> Asked:
        """Gives what is known of an upstream."""
        if name not in self.upstreams and len(self.upstreams) >= _MAX_UPSTREAMS:
            name = ""
        return self.upstreams.setdefault(name, Asked())

    def add_news(self, what: str, stream: str, **facts: Any) -> None:
        """Something happened that somebody who looks may want to see."""
        self.number += 1
        at = round(self.clock.wall().timestamp(), 2)
        self.news.append({"number": self.number, "at": at, "what": what, "stream": shown(stream), **facts})

    def count_written(self) -> None:
        """Adds up what was written since this was called last."""
        self._add(self.live.values())

    def running(self) -> Iterator[Watched]:
        """Gives the streams that this node writes, the newest first."""
        return reversed(self.live.values())

    def _end(self, shelved: Shelved) -> None:
        stream, ending = shelved.entry.stream, shelved.log.ending
        how = ending.kind if ending is not None else "handed_over" if stream in self._left else "lease_lost"
        self._left.discard(stream)
        if how == "lease_lost":
            self.tell(how, shelved, last=shelved.log.last)
        if how == "failed" and ending is not None:
            self.add_news(how, stream, error=only_name(ending.error) or "")
        if self.numbers is not None:
            self.numbers.ended(shelved.entry.surface, how)
        watched = self.live.get(stream)
        if watched is not None:
            self._forget(watched, how)

    def _forget(self, watched: Watched, how: str) -> None:
        self._add((watched,))
        self.live.pop(watched.entry.stream, None)
        # What it holds is many times what is shown of it, and of errors hangs what had arrived.
        watched.log = None
        watched.report = replace(watched.report, error=None, faults=[], bills=[], seams=[])
        watched.entry = msgspec.structs.replace(watched.entry, body=b"", headers={})
        watched.took = self.clock.now() - watched.began
        self.number += 1
        self.ended.append((self.number, watched, how))

    def _add(self, several: Iterable[Watched]) -> None:
        sums: dict[str, tuple[int, int]] = {}
        for watched in several:
            records, size = watched.grown()
            before = sums.get(watched.entry.surface, (0, 0))
            sums[watched.entry.surface] = before[0] + records, before[1] + size
        for surface, (records, size) in sums.items():
            self.records += records
            self.bytes += size
            if self.numbers is not None:
                self.numbers.wrote(surface, records, size)


def _is_ours(error: StreamError) -> bool:
    return isinstance(error, CircuitOpen | BudgetExhausted)


def shown(stream: str) -> str:
    """Gives what of a stream's name is shown: enough to know it by, and too little to ask for it."""
    return stream[:10]


__all__ = ["KEPT", "KEPT_NEWS", "Watch", "Watched", "shown"]
