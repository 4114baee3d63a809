"""The numbers of a service, folded from the moments of its streams: one table of them, and one fold, for every backend.

Prometheus and OpenTelemetry are told the very same numbers under the names that each expects; OpenTelemetry's GenAI
semantic conventions (github.com/open-telemetry/semantic-conventions-genai, "gen-ai-metrics") name the first four.
Nothing here is told per event: a stream's deltas are counted by its edge and told at its end. No label holds a text of
a prompt or an answer, a key or an address, and the number of their values is bounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from holdfast import moments
from holdfast._errors import StatusError, StreamError
from holdfast._types import Request
from holdfast.machines.settings import check_kind
from holdfast.moments import Moment
from holdfast.prices import Prices

_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_FIRST = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 7.5, 10.0)
_CHUNK = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
_TOKENS = tuple(4.0**power for power in range(14))
MAX_VALUES = 200
"""Values that one label may have: what comes after them is told as "other"."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Metric:
    """One number: what it counts, in which unit (UCUM), by which labels. `convention` is its name in OpenTelemetry."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    unit: str
    about: str
    labels: tuple[str, ...] = ("dialect", "model")
    buckets: tuple[float, ...] = ()
    convention: str = ""
    state: bool = False
    """True for a gauge of which each value is the whole state."""


def _counter(name: str, unit: str, about: str, *labels: str) -> Metric:
    return Metric(name=name, kind="counter", unit=unit, about=about, labels=("dialect", "model", *labels))


DURATION = Metric(
    name="stream_duration_seconds",
    kind="histogram",
    unit="s",
    about="How long streams took, from being asked for to their end.",
    labels=("dialect", "model", "outcome"),
    buckets=_SECONDS,
    convention="gen_ai.client.operation.duration",
)
FIRST_CHUNK = Metric(
    name="time_to_first_chunk_seconds",
    kind="histogram",
    unit="s",
    about="Time from asking to the first piece of an answer that was not empty.",
    buckets=_FIRST,
    convention="gen_ai.client.operation.time_to_first_chunk",
)
PER_CHUNK = Metric(
    name="time_per_output_chunk_seconds",
    kind="histogram",
    unit="s",
    about="Time between two pieces of an answer, on average over one stream.",
    buckets=_CHUNK,
    convention="gen_ai.client.operation.time_per_output_chunk",
)
TOKENS = Metric(
    name="billed_tokens",
    kind="histogram",
    unit="{token}",
    about="Tokens that one request was billed, cut attempts and lost hedges included.",
    labels=("dialect", "model", "type", "part"),
    buckets=_TOKENS,
    convention="gen_ai.client.token.usage",
)
RUNNING = Metric(
    name="streams_running", kind="gauge", unit="{stream}", about="Streams that have begun and not ended.", labels=()
)
BREAKER = Metric(
    name="breaker_state",
    kind="gauge",
    unit="1",
    about="State of a circuit breaker: 0 closed, 1 half-open, 2 open.",
    labels=("breaker",),
    state=True,
)
SHARED = Metric(
    name="shared_up",
    kind="gauge",
    unit="1",
    about="Whether shared state decides: 1, or 0 where each process decides for itself.",
    labels=("shared",),
    state=True,
)
STREAMS = _counter(
    "streams", "{stream}", "Streams that ended: complete, resumed, cancelled, or the error's name.", "outcome"
)
ATTEMPTS = _counter("attempts", "{request}", "Requests that were sent upstream.", "upstream")
RETRIES = _counter("retries", "{request}", "Requests that were sent again before anything of an answer came.", "error")
FAULTS = _counter(
    "faults", "{fault}", "Faults, those that were mended too; `status` of a refusal, such as 429.", "error", "status"
)
SEAMS = _counter("seams", "{seam}", "Broken streams that went on, by the rung of the resume ladder.", "rung")
FALLBACKS = _counter("fallbacks", "{request}", "Times that another upstream was asked.", "upstream")
HEDGES = _counter(
    "hedges",
    "{request}",
    "Second requests begun because the first content was late, also those that a limit still held back.",
)
STALLS = _counter("stalls", "{stall}", "Clocks that ran out.", "clock")
WAITED = _counter("waited_seconds", "s", "Time that this side held requests back.", "reason")
DELTAS = _counter("deltas", "{delta}", "Pieces of answers that were handed over.")
BYTES = _counter("received_bytes", "By", "Bytes of the bodies that answers came in.")
DROPPED = _counter("dropped_events", "{event}", "Events that arrived twice and were handed over once.")
REPAIRED = _counter("repaired", "{repair}", "Bytes that were mended.", "what")
COST = _counter("cost", "{money}", "What requests cost, by the prices given: see `unpriced`.", "part", "currency")
UNPRICED = _counter("unpriced", "{request}", "Requests whose cost is unknown, because their model has no price here.")
METRICS = (
    *(DURATION, FIRST_CHUNK, PER_CHUNK, TOKENS, RUNNING, BREAKER, SHARED, STREAMS, ATTEMPTS, FAULTS, RETRIES),
    *(SEAMS, FALLBACKS, HEDGES, STALLS, WAITED, DELTAS, BYTES, DROPPED, REPAIRED, COST, UNPRICED),
)
_STATES = {"closed": 0, "half-open": 1, "open": 2}


class Sink(Protocol):
    """A backend that keeps numbers."""

    def tell(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        """Adds to a counter, observes in a histogram. A gauge is moved by the value, a state set to it."""


def check_prices(prices: object) -> None:
    """Raises `UsageError` for what is neither prices nor None."""
    if prices is not None:
        check_kind("prices", prices, Prices, "Prices(...)")


class Bounded:
    """Keeps the values of labels from growing without end: models and upstreams are whatever callers write."""

    def __init__(self) -> None:
        self._known: dict[str, set[str]] = {}

    def __call__(self, label: str, value: str) -> str:
        """Gives the value to tell."""
        known = self._known.setdefault(label, set())
        if value not in known:
            if len(known) >= MAX_VALUES:
                return "other"
            known.add(value)
        return value[:100]


class Measures:
    """Tells one stream's numbers to a sink. `begin()` is called before the first of its moments."""

    __slots__ = ("_bounded", "_first_at", "_prices", "_request", "_sink")

    def __init__(self, sink: Sink, bounded: Bounded, prices: Prices | None = None) -> None:
        self._sink = sink
        self._bounded = bounded
        self._prices = prices
        self._request = Request()
        self._first_at: float | None = None

    def begin(self, request: Request) -> None:
        self._request = request

    def __call__(self, moment: Moment) -> None:
        match moment:
            case moments.Started():
                self._sink.tell(RUNNING, 1, {})
            case moments.Opening():
                self._tell(ATTEMPTS, 1, upstream=moment.upstream)
            case moments.FirstDelta():
                self._first_at = moment.at
                self._tell(FIRST_CHUNK, moment.seconds)
            case moments.Retrying():
                self._tell(RETRIES, 1, error=type(moment.error).__name__)
                self._fault(moment.error)
            case moments.Resuming() | moments.Outlived():
                self._fault(moment.error)
            case moments.Resumed():
                self._tell(SEAMS, 1, rung=moment.rung)
            case moments.FellBack():
                self._tell(FALLBACKS, 1, upstream=moment.new)
                self._fault(None if moment.midstream else moment.error)  # of a seam `Resuming` tells
            case moments.Hedged():
                self._tell(HEDGES, 1)
            case moments.Stalled():
                self._tell(STALLS, 1, clock=moment.clock)
            case moments.Waited():
                self._tell(WAITED, moment.seconds, reason=moment.reason)
            case moments.BreakerChanged():
                self._sink.tell(BREAKER, _STATES[moment.new], {"breaker": self._bounded("breaker", moment.name)})
            case moments.SharedLost() | moments.SharedBack():
                up = isinstance(moment, moments.SharedBack)
                self._sink.tell(SHARED, up, {"shared": self._bounded("shared", moment.name)})
            case moments.Dropped():
                self._tell(DROPPED, moment.count)
            case moments.Repaired():
                self._tell(REPAIRED, moment.count, what=moment.what)
            case moments.Billed():
                self._bill(moment)
            case moments.Ended():
                self._end(moment)

    def _fault(self, error: StreamError | None) -> None:
        if error is not None:
            status = str(error.status) if isinstance(error, StatusError) else ""
            self._tell(FAULTS, 1, error=type(error).__name__, status=status)

    def _bill(self, moment: moments.Billed) -> None:
        """A bill knows itself whose it is: the last attempt may have gone elsewhere."""
        whose = {"model": moment.model} | ({"dialect": moment.dialect} if moment.dialect else {})
        for kind, count in (("input", moment.input_tokens), ("output", moment.output_tokens)):
            if count:
                self._tell(TOKENS, count, type=kind, part=moment.part, **whose)
        if self._prices is None:
            return
        cost = self._prices.cost((moment,))
        if cost.amount is None:
            self._tell(UNPRICED, 1, **whose)
        else:
            self._tell(COST, float(cost.amount), part=moment.part, currency=cost.currency, **whose)

    def _end(self, moment: moments.Ended) -> None:
        report = self._request.call.report
        self._sink.tell(RUNNING, -1, {})
        self._fault(moment.error)
        self._tell(STREAMS, 1, outcome=report.outcome)
        self._tell(DURATION, report.total_seconds or 0.0, outcome=report.outcome)
        self._tell(DELTAS, report.items)
        self._tell(BYTES, moment.bytes_received)
        if self._first_at is not None and report.items > 1:
            self._tell(PER_CHUNK, (moment.at - self._first_at) / (report.items - 1))
        self._request = Request()  # the call holds its listeners: a circle would keep the answer in memory

    def _tell(self, metric: Metric, value: float, **more: str) -> None:
        call = self._request.call
        attempt = call.attempt or (call.attempts[-1] if call.attempts else None)
        labels = {
            "dialect": call.report.dialect or "auto",
            "model": attempt.model if attempt is not None else "",
            **more,
        }
        self._sink.tell(metric, value, {name: self._bounded(name, value) for name, value in labels.items()})
