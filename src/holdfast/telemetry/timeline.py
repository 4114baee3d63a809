"""Reads the log lines of docs/logs.md back into the lives of streams: lines in, values out.

It must never raise over a line, however broken, and never hold more than it says: streams that have ended are handed
out at once and forgotten, a stream keeps at most `MAX_STEPS` steps and all open ones together `MAX_HELD`, strings are
cut, texts of prompts and answers are not kept at all. So a log of any size is read in the memory of a small one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import msgspec

from holdfast.telemetry.health import Ending
from holdfast.telemetry.logs import EVENTS, GATEWAY_EVENTS

MAX_STEPS = 64
"""Steps kept per stream, the first and the last: a stream of eight requests has about thirty."""
MAX_HELD = 50_000
"""Steps kept of all streams without an end so far; beyond it the oldest stream is given out unfinished."""
MAX_TEXT = 300
"""Characters kept of any string."""
_MAX_FIELDS = 48
_MAX_KINDS = 1_000
_REMEMBERED = 1_000
_EVENTS = frozenset(event for event, _ in EVENTS.values()) | frozenset(GATEWAY_EVENTS)
_FAULTS = frozenset(("attempt.retrying", "stream.resuming", "stream.outlived"))
_ENVELOPE = frozenset(("event", "message", "msg", "stream_id", "attempt", "elapsed", "timestamp", "time", "ts"))
_TEXTS = frozenset(("request", "answer", "reasoning", "tool_calls"))


@dataclass(slots=True)
class Step:
    """One line of one stream. `at` is seconds since the stream began; `facts` are the line's own fields."""

    event: str
    at: float
    attempt: int
    facts: dict[str, Any]

    def number(self, name: str) -> float | None:
        """Gives a field that is a number, else None."""
        return _number(self.facts.get(name))

    def text(self, name: str) -> str:
        """Gives a field in words, empty when it is not there."""
        value = self.facts.get(name)
        return "" if value is None else str(value)


@dataclass(slots=True)
class Lane:
    """One attempt on the time axis, in seconds since the stream began; None: it did not come to that.

    `waited` is when waiting for this attempt began, `head` when its head came, `first` its first piece of the answer.
    """

    attempt: int
    waited: float | None = None
    sent: float | None = None
    head: float | None = None
    first: float | None = None
    end: float | None = None
    seam: bool = False
    how: str = ""
    stalls: list[tuple[float, float]] = field(default_factory=list)


@dataclass(slots=True)
class Life:
    """One stream as its lines tell it. `outcome` is "running" until a line told its end."""

    id: str
    began: datetime | None = None
    dialect: str = ""
    url: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    outcome: str = "running"
    steps: list[Step] = field(default_factory=list)
    left_out: int = 0
    attempts: int = 0
    faults: list[Step] = field(default_factory=list)
    first_delta_seconds: float | None = None
    seconds: float = 0.0
    end: Step | None = None
    handed_over: bool = False
    """True while another node is to go on with it: what its own node says of its end is not the stream's."""
    _seams: int = 0
    _taken_at: float | None = None
    _before: int = 0
    """Attempts of the nodes that had it before."""

    @property
    def seams(self) -> int:
        """How often the answer was put together."""
        told = self.end.number("seams") if self.end is not None and self._taken_at is None else None
        return self._seams if told is None else int(told)

    @property
    def failed(self) -> bool:
        """True when it ended in an error."""
        return self.end is not None and "error" in self.end.facts

    def add(self, step: Step) -> None:
        """Takes the next line in, which counts from this stream's beginning: see `shifted()`."""
        self.attempts = max(self.attempts, step.attempt)
        self.seconds = max(self.seconds, step.at)
        match step.event:
            case "stream.started":
                self.url = step.text("url")
                labels = step.facts.get("labels")
                self.labels = labels if isinstance(labels, dict) else {}
            case "stream.first_delta" if self._taken_at is None:
                self.first_delta_seconds = step.number("seconds") or step.at
            case "stream.resumed":
                self._seams += 1
            case "stream.ended" if not self.handed_over:
                self._finish(step)
            case "gateway.handed_over":
                self.handed_over = True
            case "gateway.taken_over":
                self.handed_over = False
                self._taken_at, self._before = step.at, self.attempts
        if self._is_fault(step) and len(self.faults) < MAX_STEPS:
            self.faults.append(step)
        self.dialect = step.text("dialect") or self.dialect
        self.steps.append(step)
        if len(self.steps) > MAX_STEPS:
            del self.steps[MAX_STEPS // 2]
            self.left_out += 1

    def shifted(self, step: Step) -> Step:
        """Gives a step of a call as one of the stream: whoever took it over counts time and attempts from there."""
        if self._taken_at is None:
            return step
        return replace(
            step, at=self._taken_at + step.at, attempt=self._before + step.attempt if step.attempt else step.attempt
        )

    def _is_fault(self, step: Step) -> bool:
        if step.event == "stream.resuming" and "error" not in step.facts:  # it broke elsewhere, where it was told
            return False
        if step.event == "stream.ended" and self.handed_over:
            return False
        if step.event == "stream.fell_back":  # of a seam `stream.resuming` tells
            return step.facts.get("midstream") is not True
        return step.event in _FAULTS or (step.event == "stream.ended" and self.failed)

    def _finish(self, step: Step) -> None:
        self.end = step
        self.outcome = step.text("outcome") or step.text("verdict") or step.text("error") or "ended"
        self.attempts = max(self.attempts, self._before + int(step.number("attempts") or 0))
        self.seconds = max(self.seconds, step.number("seconds") or 0.0)
        if self._taken_at is None:
            self.first_delta_seconds = self.first_delta_seconds or step.number("first_delta_seconds")

    def lanes(self) -> list[Lane]:
        """Gives the attempts in order, each with its place on the time axis."""
        lanes: dict[int, Lane] = {}

        def lane(number: int) -> Lane:
            return lanes.setdefault(number, Lane(number))

        for step in self.steps:
            match step.event:
                case "attempt.opening":
                    lane(step.attempt).sent = step.at
                case "attempt.opened":
                    here = lane(step.attempt)
                    here.head = step.at
                    if here.sent is None:
                        here.sent = max(0.0, step.at - (step.number("seconds") or 0.0))
                case "stream.first_delta":
                    lane(step.attempt).first = step.at
                case "stream.resumed":
                    here = lane(step.attempt)
                    here.first, here.seam = step.at, True
                case "stream.stalled":
                    allowed = step.number("seconds") or 0.0
                    lane(step.attempt).stalls.append((max(0.0, step.at - allowed), step.at))
                case "stream.hedge_ended":
                    loser = lanes.get(int(step.number("loser") or 0))
                    if loser is not None and loser.end is None:
                        loser.end, loser.how = step.at, "overtaken"
                case "gateway.taken_over":
                    for here in lanes.values():
                        if here.end is None:
                            here.end, here.how = step.at, "lost"
                    following = lane(max(lanes, default=0) + 1)
                    following.waited = step.at
                case "stream.resuming" if "error" not in step.facts:
                    pass
                case "attempt.retrying" | "stream.resuming" | "stream.fell_back":
                    here = lane(step.attempt)
                    if here.end is None:
                        here.end, here.how = step.at, step.text("error") or "fault"
                    following = lane(step.attempt + 1)
                    if following.waited is None:
                        following.waited = step.at
                case "stream.ended":
                    here = lane(max((n for n in lanes if lanes[n].end is None), default=step.attempt))
                    if here.end is None:
                        here.end, here.how = step.at, self.outcome if step is self.end else step.text("outcome")
        return [lanes[number] for number in sorted(lanes)]

    def ending(self) -> Ending:
        """Gives what is known of its end."""
        return Ending(
            outcome=self.outcome,
            failed=self.failed,
            attempts=self.attempts,
            seams=self.seams,
            faults=[fault.text("error") or "fault" for fault in self.faults],
            first_seconds=self.first_delta_seconds,
            seconds=self.seconds if self.end is not None else None,
            chunks=int(self.end.number("items") or 0) if self.end is not None else 0,
        )

    def breakers(self) -> Iterator[tuple[str, str]]:
        """Gives the circuit breakers that changed, each with its new state."""
        for step in self.steps:
            if step.event == "breaker.changed":
                yield step.text("breaker"), step.text("new")

    def as_dict(self) -> dict[str, Any]:
        """Gives the whole as JSON values."""
        end = self.end.facts if self.end is not None else {}
        whole = {
            "stream_id": self.id,
            "began": self.began.isoformat() if self.began is not None else None,
            "dialect": self.dialect,
            "url": self.url,
            "labels": self.labels,
            "outcome": self.outcome,
            "attempts": self.attempts,
            "seams": self.seams,
            "seconds": self.seconds,
            "first_delta_seconds": self.first_delta_seconds,
            "faults": [_step(step) for step in self.faults],
            "steps": [_step(step) for step in self.steps],
            "steps_left_out": self.left_out,
        }
        return whole | {name: value for name, value in end.items() if name not in whole}


def _step(step: Step) -> dict[str, Any]:
    return {"event": step.event, "elapsed": step.at, "attempt": step.attempt, **step.facts}


class LogReader:
    """Sorts lines into lives, and counts what it could not use.

    `malformed` lines are no JSON objects, `foreign` ones another program's, `late` ones came after their stream's end.
    """

    def __init__(self, *, max_held: int = MAX_HELD) -> None:
        self.lines = 0
        self.malformed = 0
        self.foreign = 0
        self.late = 0
        self._max_held = max_held
        self._held = 0
        self._open: dict[str, Life] = {}
        self._ended: deque[str] = deque(maxlen=_REMEMBERED)
        self._decode = msgspec.json.Decoder().decode

    def feed(self, line: bytes) -> list[Life]:
        """Takes one line in, and gives the streams that it ended or pushed out."""
        line = line.strip()
        if not line:
            return []
        self.lines += 1
        told = self._object(line)
        if told is None:
            self.malformed += 1
            return []
        event = next((told[name] for name in ("event", "message", "msg") if name in told), None)
        name = told.get("stream_id")
        if not isinstance(event, str) or event not in _EVENTS or not isinstance(name, str) or not name:
            self.foreign += 1
            return []
        return self._add(_clean(name), event, told)

    def _object(self, line: bytes) -> dict[str, Any] | None:
        """Decodes a line; what a container or a journal wrote before the object does no harm."""
        for text in (line, line[line.find(b"{") :] if b"{" in line[1:] else b""):
            try:
                told = self._decode(text)
            except (ValueError, RecursionError):
                continue
            if isinstance(told, dict):
                return told
        return None

    def _add(self, name: str, event: str, told: dict[str, Any]) -> list[Life]:
        life = self._open.get(name)
        if life is None:
            if event != "stream.started" and name in self._ended:
                self.late += event not in GATEWAY_EVENTS  # readers come back to what has ended, too
                return []
            life = self._open[name] = Life(name)
        when = _time(told)
        if life.began is None:
            life.began = when
        before = len(life.steps)
        step = Step(event, _elapsed(told, when, life), max(0, int(_number(told.get("attempt")) or 0)), _facts(told))
        life.add(life.shifted(step) if event not in GATEWAY_EVENTS and "elapsed" in told else step)
        self._held += len(life.steps) - before
        if event == "stream.ended" and not life.handed_over:
            return [self._let_go(name)]
        pushed = []
        while self._held > self._max_held:
            pushed.append(self._let_go(next(iter(self._open))))
        return pushed

    def _let_go(self, name: str) -> Life:
        life = self._open.pop(name)
        self._held -= len(life.steps)
        self._ended.append(name)
        return life

    def unfinished(self) -> Iterator[Life]:
        """Gives the streams whose end no line told, in the order they began, and forgets them."""
        while self._open:
            yield self._let_go(next(iter(self._open)))


@dataclass(slots=True, frozen=True, kw_only=True)
class Filter:
    """Which streams to show; what is not given does not narrow. `outcome` "error" means every failed stream."""

    stream: str = ""
    outcome: str = ""
    faults: bool = False
    slow: float | None = None
    since: datetime | None = None
    until: datetime | None = None

    def admits(self, life: Life) -> bool:
        """Says whether a stream is to be shown. One without a time passes no limit of time."""
        if not life.id.startswith(self.stream):
            return False
        wanted = self.outcome.lower()
        if wanted and life.outcome.lower() != wanted and not (wanted == "error" and life.failed):
            return False
        if self.faults and not life.faults:
            return False
        if self.slow is not None and life.seconds < self.slow:
            return False
        if self.since is not None and (life.began is None or life.began < self.since):
            return False
        return self.until is None or (life.began is not None and life.began <= self.until)


# -- what a field may be ---------------------------------------------------------------------------


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1e15 < value < 1e15:
        return None
    return float(value)


def _clean(text: str) -> str:
    """Cuts a string, and takes out what would steer a terminal: a log is somebody else's text."""
    text = text[:MAX_TEXT]
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)


def _facts(told: dict[str, Any]) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for name, value in told.items():
        if name in _ENVELOPE or name in _TEXTS or len(facts) >= _MAX_FIELDS:
            continue
        if isinstance(value, str):
            facts[_clean(name)] = _clean(value)
        elif isinstance(value, bool) or _number(value) is not None:
            facts[_clean(name)] = value
        elif name == "labels" and isinstance(value, dict):
            facts[name] = {_clean(str(k)): _clean(str(v)) for k, v in list(value.items())[:_MAX_FIELDS]}
    return facts


def _elapsed(told: dict[str, Any], when: datetime | None, life: Life) -> float:
    elapsed = _number(told.get("elapsed"))
    if elapsed is None and when is not None and life.began is not None:
        elapsed = (when - life.began).total_seconds()
    return life.seconds if elapsed is None else max(0.0, elapsed)


def _time(told: dict[str, Any]) -> datetime | None:
    """Finds out when a line was written: ISO 8601, or a number of seconds or milliseconds."""
    for name in ("timestamp", "time", "ts", "@timestamp"):
        value = told.get(name)
        try:
            if isinstance(value, str):
                return _aware(datetime.fromisoformat(value))
            seconds = _number(value)
            if seconds is not None:
                return datetime.fromtimestamp(seconds / 1000 if seconds > 1e11 else seconds, UTC)
        except (ValueError, OverflowError, OSError):
            continue
    return None


def _aware(when: datetime) -> datetime:
    return when if when.tzinfo is not None else when.replace(tzinfo=UTC)


__all__ = ["MAX_HELD", "MAX_STEPS", "MAX_TEXT", "Filter", "Lane", "Life", "LogReader", "Step"]
