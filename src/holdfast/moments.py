"""What can happen in the life of one stream, as typed values, and `Report`, the first fold over them.

Layers announce moments and nothing else; reports, log lines, metrics, spans and costs are folds over the same
moments, so they agree by construction. A moment holds names, numbers and errors, never a prompt or an answer.
`at` is seconds on the call's clock; `Call.note()` stamps it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import msgspec

from holdfast._errors import StreamError
from holdfast._types import Guarantee, Usage, Verdict

BillPart = Literal["answer", "again", "hedge"]
"""What a request was paid for: see `Billed`."""


class Moment(msgspec.Struct, kw_only=True):
    """Anything that happens: `attempt` is the number of the request it belongs to, from 1; 0 before the first."""

    at: float = 0.0
    attempt: int = 0


class Started(Moment, kw_only=True):
    """The call began."""

    url: str = ""
    dialect: str = ""
    labels: dict[str, str] = {}


class Recognised(Moment, kw_only=True):
    """Nobody had named the dialect, and now it is known: by the "address" or by the "events"."""

    dialect: str = ""
    by: str = ""


class Opening(Moment, kw_only=True):
    """A request is about to be sent, to `upstream` in the words of `dialect` where there are several."""

    upstream: str = ""
    dialect: str = ""


class Opened(Moment, kw_only=True):
    """A head arrived, `seconds` after its request was sent."""

    status: int = 0
    seconds: float = 0.0
    request_id: str = ""
    upstream: str = ""


class FirstDelta(Moment, kw_only=True):
    """The first piece of the answer that was not empty arrived, `seconds` after the call began."""

    seconds: float = 0.0


class Retrying(Moment, kw_only=True):
    """The request will be sent again in `delay` seconds: nothing of its answer had been delivered."""

    error: StreamError
    delay: float = 0.0


class Resuming(Moment, kw_only=True):
    """A broken stream will be re-opened in `delay` seconds, on the named rung of the resume ladder.

    `error` is what broke it; None where it broke in another process.
    """

    error: StreamError | None = None
    rung: str = ""
    delay: float = 0.0


class Resumed(Moment, kw_only=True):
    """A seam: the stream goes on, and every item before it was delivered once.

    `gap` is seconds from the break to the first new item; `swallowed` counts items that arrived again and
    were not handed over; `repaid_tokens` estimates what the provider bills for them.
    """

    rung: str = ""
    guarantee: Guarantee = "exact"
    gap: float = 0.0
    swallowed: int = 0
    repaid_tokens: int = 0


class Continued(Moment, kw_only=True):
    """The answer had ended for `reason`, a limit of its tokens, and was asked on: its `leg`-th part begins, from 2."""

    leg: int = 2
    reason: str = ""


class Outlived(Moment, kw_only=True):
    """The line ended after the answer had been proven whole: what may be missing is its usage and its end mark."""

    error: StreamError


class Diverged(Moment, kw_only=True):
    """A replay differed from what was delivered, so nothing of it was handed over. `position` counts characters."""

    position: int = 0


class Stalled(Moment, kw_only=True):
    """A clock ran out: `clock` names it, `seconds` is what it allowed."""

    clock: str = ""
    seconds: float = 0.0


class Waited(Moment, kw_only=True):
    """This side held a request back for `seconds`: `reason` is "requests", "tokens", "concurrency" or "slow-down"."""

    reason: str = ""
    seconds: float = 0.0


class Hedged(Moment, kw_only=True):
    """No content had come after `delay` seconds: the request is sent once more, beside the one that runs."""

    delay: float = 0.0


class HedgeEnded(Moment, kw_only=True):
    """The attempt `winner` brought content first, and the attempt `loser` was given up."""

    winner: int = 0
    loser: int = 0
    upstream: str = ""
    """Whose answer it is, where there are several."""
    dialect: str = ""
    """In what it speaks."""


class FellBack(Moment, kw_only=True):
    """The upstream `old` failed, and `new` is asked: before the first item, or `midstream`, behind the last."""

    error: StreamError
    old: str = ""
    new: str = ""
    midstream: bool = False


class BreakerChanged(Moment, kw_only=True):
    """A circuit breaker went from one state to another."""

    name: str = ""
    old: str = ""
    new: str = ""


class SharedLost(Moment, kw_only=True):
    """The shared state `name` does not decide any more, for `reason`: each process decides for itself."""

    name: str = ""
    reason: str = ""


class SharedBack(Moment, kw_only=True):
    """The shared state `name` decides for all processes again, after `seconds`."""

    name: str = ""
    seconds: float = 0.0


class Repaired(Moment, kw_only=True):
    """Bytes that were not as they must be were mended and counted: `what` names the kind."""

    what: str = ""
    count: int = 0


class Dropped(Moment, kw_only=True):
    """`count` events arrived twice and were handed over once."""

    count: int = 0


class RecordingFailed(Moment, kw_only=True):
    """A recording could not be written and was given up; the stream goes on."""

    path: str = ""
    reason: str = ""


class Delivered(Moment, kw_only=True):
    """`items` were handed to the reader since the last such moment, `longest_gap` the longest wait for one, in seconds.

    One per batch would cost a healthy stream more than its parsing: the edge adds up, and notes the sum
    whenever something else happens.
    """

    items: int = 0
    longest_gap: float = 0.0


class Billed(Moment, kw_only=True):
    """What one request adds to the bill, told when the call ends: `Ended.billed_tokens` is the sum of all.

    `part` says what for: the "answer", something paid for "again" (what a replay repeats, a prompt read once more), or
    the "hedge" that lost. Tokens are those of `Usage`; None: not told. `estimated`: the attempt was cut before its
    usage came, or shared between two parts. `prompt_tokens` is what the whole request read, be it shared or not, and
    `sent` when it was sent: prices depend on both.
    """

    upstream: str = ""
    dialect: str = ""
    model: str = ""
    part: BillPart = "answer"
    prompt_tokens: int = 0
    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int = 0
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_write_1h_tokens: int | None = None
    reasoning_tokens: int | None = None
    estimated: bool = False
    sent: datetime | None = None
    labels: dict[str, str] = {}


class Ended(Moment, kw_only=True):
    """The call is over: with a verdict, with an error, or (neither) given up by its reader.

    `billed_tokens` is the sum of the `Billed` moments before it; `billed_estimated`: one of them is an estimate.
    """

    verdict: Verdict | None = None
    error: StreamError | None = None
    cancelled: bool = False
    usage: Usage | None = None
    finish_reason: str | None = None
    bytes_received: int = 0
    billed_tokens: int = 0
    billed_estimated: bool = False


Listener = Callable[[Moment], None]


@dataclass(slots=True)
class Report:
    """The story of one stream, folded from its moments. Durations are seconds."""

    stream_id: str = ""
    dialect: str = ""
    """Who answers in it: of several upstreams the one that is asked."""
    dialect_known_by: str = ""
    """How the dialect was guessed, "address" or "events"; empty where it was given."""
    url: str = ""
    verdict: Verdict | None = None
    error: StreamError | None = None
    cancelled: bool = False
    attempts: int = 0
    upstream: str = ""
    """Who answered, by the name it was given; empty where there is only one."""
    upstreams: list[str] = field(default_factory=list)
    """Who was asked, in order, each once; empty where there is only one."""
    fallbacks: int = 0
    hedges: int = 0
    losers: list[int] = field(default_factory=list)
    """The numbers of the attempts that lost to another one beside them."""
    waited_seconds: float = 0.0
    """How long this side held its requests back, in all."""
    retries: int = 0
    seams: list[Resumed] = field(default_factory=list)
    legs: int = 1
    """How often the answer was asked for to its end: more than once where `AutoContinue` asked on at a limit."""
    faults: list[StreamError] = field(default_factory=list)
    diverged: int = 0
    dropped: int = 0
    repaired: int = 0
    items: int = 0
    status: int = 0
    open_seconds: float | None = None
    first_delta_seconds: float | None = None
    longest_gap: float = 0.0
    total_seconds: float | None = None
    usage: Usage | None = None
    billed_tokens: int = 0
    """Tokens of all attempts together: what this answer cost, seams included. The sum of `bills`."""
    billed_estimated: bool = False
    """True where a cut attempt never told its usage, and its share is an estimate."""
    bills: list[Billed] = field(default_factory=list)
    """What each attempt adds to the bill; `Prices.cost()` makes money of it."""
    finish_reason: str | None = None
    bytes_received: int = 0
    labels: dict[str, str] = field(default_factory=dict)
    _started_at: float = field(default=0.0, repr=False)
    _outlived: bool = field(default=False, repr=False)
    _closed: bool = field(default=False, repr=False)

    def add(self, moment: Moment) -> None:
        """Takes one moment in."""
        match moment:
            case Started():
                self.url, self.dialect, self.labels = moment.url, moment.dialect, moment.labels
                self._started_at = moment.at
            case Recognised():
                self.dialect, self.dialect_known_by = moment.dialect, moment.by
            case Opening():
                self._ask(moment)
            case Opened():
                self.status = moment.status
                self.upstream = moment.upstream
                self.open_seconds = moment.seconds
            case FirstDelta():
                self.first_delta_seconds = moment.seconds
            case Retrying():
                self.retries += 1
                self.faults.append(moment.error)
            case Resuming() | Outlived():
                self._outlived = isinstance(moment, Outlived)
                if moment.error is not None and moment.error not in self.faults[-1:]:  # `FellBack` may have told it
                    self.faults.append(moment.error)
            case Resumed():
                self.seams.append(moment)
            case Continued():
                self.legs = moment.leg
            case Waited():
                self.waited_seconds += moment.seconds
            case Hedged():
                self.hedges += 1
            case HedgeEnded():
                self.upstream = moment.upstream
                self.dialect = moment.dialect or self.dialect
                self.losers.append(moment.loser)
            case FellBack():
                self.fallbacks += 1
                self.faults.append(moment.error)
            case Diverged():
                self.diverged += 1
            case Dropped():
                self.dropped += moment.count
            case Repaired():
                self.repaired += moment.count
            case Delivered():
                self.items += moment.items
                self.longest_gap = max(self.longest_gap, moment.longest_gap)
            case Billed():
                self.bills.append(moment)
            case Ended():
                self._end(moment)

    def _ask(self, moment: Opening) -> None:
        self.attempts = moment.attempt
        self.dialect = moment.dialect or self.dialect
        if moment.upstream and moment.upstream not in self.upstreams:
            self.upstreams.append(moment.upstream)

    def _end(self, moment: Ended) -> None:
        self.verdict, self.error, self.cancelled = moment.verdict, moment.error, moment.cancelled
        if moment.error is not None:
            self.faults.append(moment.error)
        self.usage, self.finish_reason = moment.usage, moment.finish_reason
        self.bytes_received = moment.bytes_received
        self.billed_tokens, self.billed_estimated = moment.billed_tokens, moment.billed_estimated
        self.total_seconds = moment.at - self._started_at

    def close(self) -> None:
        """The story is told: see `Call.note()`."""
        self._closed = True

    @property
    def closed(self) -> bool:
        """True once the stream's end was told."""
        return self._closed

    @property
    def usage_lost(self) -> bool:
        """True where the answer is whole and its line ended before its usage came: no second one is bought for that."""
        return self._outlived and self.verdict is not None and self.usage is None

    @property
    def outcome(self) -> str:
        """The end in one word: complete, resumed, cancelled, running, ended (unjudged), or the error's name."""
        if self.verdict is not None:
            return self.verdict.kind
        if self.error is not None:
            return type(self.error).__name__
        if self.cancelled:
            return "cancelled"
        return "running" if self.total_seconds is None else "ended"

    def __str__(self) -> str:
        parts = [
            str(self.verdict) if self.verdict is not None else self.outcome,
            f"{self.attempts} attempt{'s' if self.attempts != 1 else ''}",
            f"{self.items} {'deltas' if self.dialect else 'items'}",
        ]
        if self.legs > 1:
            parts.insert(1, f"{self.legs} legs")
        if self.first_delta_seconds is not None:
            parts.append(f"first after {self.first_delta_seconds:.3f} s")
        if self.total_seconds is not None:
            parts.append(f"{self.total_seconds:.3f} s in all")
        if self.usage is not None and self.usage.total_tokens is not None:
            parts.append(f"{self.usage.total_tokens} tokens")
            if self.billed_tokens > self.usage.total_tokens:
                parts.append(f"{'about ' if self.billed_estimated else ''}{self.billed_tokens} billed")
        if self.usage_lost:
            parts.append("its usage was lost")
        return " · ".join(parts)


def facts(moment: Moment) -> dict[str, Any]:
    """Gives a moment's own fields by name, in order: what a log line or a metric is made of."""
    return {name: getattr(moment, name) for name in moment.__struct_fields__ if name not in ("at", "attempt")}
