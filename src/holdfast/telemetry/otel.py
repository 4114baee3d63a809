"""Spans and metrics for OpenTelemetry, of every stream from now on. Extra `otel`; docs/metrics.md lists them.

One span a stream, named and described as the GenAI semantic conventions say; each attempt, seam and fault is an event
on it, under the name that its log line has. The trace goes on upstream: requests bear its context (`traceparent`), and
not the application's baggage, which is none of a provider's business. No attribute holds a prompt, an answer, a key, or
what a provider said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from holdfast import moments
from holdfast._errors import MissingExtra, StreamError, UsageError
from holdfast._pipe import listener_factories
from holdfast._types import Request
from holdfast.machines.redact import only_name
from holdfast.moments import Ended, Listener, Moment, Started
from holdfast.prices import Prices
from holdfast.telemetry.logs import EVENTS
from holdfast.telemetry.measures import METRICS, Bounded, Measures, Metric, check_prices

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter, MeterProvider
    from opentelemetry.propagators.textmap import TextMapPropagator
    from opentelemetry.trace import Span, Tracer, TracerProvider

_PROVIDERS = {
    "azure": "azure.ai.openai",
    "gemini": "gcp.gemini",
    "gemini-interactions": "gcp.gemini",
    "mistral": "mistral_ai",
    "openai-responses": "openai",
    "deepseek-anthropic": "deepseek",
    "deepseek-responses": "deepseek",
}
"""The conventions' names of providers, where they are not the dialect's."""
_LABELS = {
    "dialect": "gen_ai.provider.name",
    "model": "gen_ai.request.model",
    "type": "gen_ai.token.type",
    "outcome": "holdfast.outcome",
    "upstream": "holdfast.upstream",
    "error": "error.type",
}
_QUIET = (moments.Started, moments.Ended, moments.Delivered, moments.Billed)
"""Moments that are no event on the span: its beginning, its end, and what its attributes say."""
_configured: list[object] = []


def configure_otel(
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    prices: Prices | None = None,
    propagator: TextMapPropagator | None = None,
) -> None:
    """Traces and counts all streams that start from now on, with these providers or the global ones.

    With `prices`, what they cost is counted, too. `propagator` writes what requests bear of the trace; by default
    that is the W3C trace context alone, whatever the application's own propagator writes.

    Raises `UsageError` when called again, `MissingExtra` without the package.
    """
    try:
        from opentelemetry import metrics, trace  # noqa: PLC0415 - an extra
        from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415 - as above
            TraceContextTextMapPropagator,
        )
    except ImportError as error:
        raise MissingExtra("configure_otel()", "otel") from error
    if _configured:
        raise UsageError("configure_otel() was called before: it is for once at the start of a program")
    check_prices(prices)
    meter = metrics.get_meter("holdfast", meter_provider=meter_provider)
    tracer = trace.get_tracer("holdfast", tracer_provider=tracer_provider)
    sink, bounded = _Otel(meter), Bounded()
    writes = propagator if propagator is not None else TraceContextTextMapPropagator()
    made: list[Callable[[], Listener]] = [lambda: Measures(sink, bounded, prices), lambda: _Trace(tracer, writes)]
    _configured.extend(made)
    listener_factories.extend(made)


class _Otel:
    def __init__(self, meter: Meter) -> None:
        self._metrics: dict[str, Any] = {}
        for metric in METRICS:
            name = metric.convention or f"holdfast.{metric.name}"
            about: dict[str, Any] = {"unit": metric.unit, "description": metric.about}
            if metric.state:
                made: Any = meter.create_gauge(name, **about).set
            elif metric.kind == "histogram":
                made = meter.create_histogram(name, explicit_bucket_boundaries_advisory=metric.buckets, **about).record
            elif metric.kind == "gauge":
                made = meter.create_up_down_counter(name, **about).add
            else:
                made = meter.create_counter(name, **about).add
            self._metrics[metric.name] = made

    def tell(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        attributes = {_LABELS.get(name, f"holdfast.{name}"): text for name, text in labels.items() if text}
        if "dialect" in labels:
            attributes["gen_ai.provider.name"] = _PROVIDERS.get(labels["dialect"], labels["dialect"])
            attributes["gen_ai.operation.name"] = _operation(labels["dialect"])
        if labels.get("outcome", "")[:1].isupper():  # an error's name
            attributes["error.type"] = labels["outcome"]
        self._metrics[metric.name](value, attributes)


def _operation(dialect: str) -> str:
    return "generate_content" if dialect == "gemini" else "chat"


class _Trace:
    """The span of one stream."""

    __slots__ = ("_parent", "_propagator", "_request", "_span", "_tracer")

    def __init__(self, tracer: Tracer, propagator: TextMapPropagator) -> None:
        from opentelemetry import context  # noqa: PLC0415 - it was there when we were configured

        self._tracer = tracer
        self._propagator = propagator
        self._parent = context.get_current()
        self._request = Request()
        self._span: Span | None = None

    def begin(self, request: Request) -> Request:
        """Begins the span, in the context of whoever asked for the stream, and hands the trace on to the upstream."""
        from opentelemetry import trace  # noqa: PLC0415 - it was there when we were configured

        self._request = request
        span = self._tracer.start_span("chat", context=self._parent, kind=trace.SpanKind.CLIENT)
        self._span = span
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, trace.set_span_in_context(span, self._parent))
        self._request = request.with_headers(carrier)
        return self._request

    def __call__(self, moment: Moment) -> None:
        span = self._span
        if span is None or not span.is_recording():
            return
        if isinstance(moment, Started):
            self._start(span)
        elif isinstance(moment, Ended):
            self._end(span, moment)
            self._request, self._span = Request(), None  # the call holds its listeners: no circle
        elif not isinstance(moment, _QUIET) and type(moment) in EVENTS:
            span.add_event(EVENTS[type(moment)][0], {"holdfast.attempt": moment.attempt, **dict(_facts(moment))})

    def _start(self, span: Span) -> None:
        body, at = self._request.body, urlsplit(self._request.url)
        span.set_attribute("gen_ai.request.stream", value=True)
        span.set_attribute("holdfast.stream_id", self._request.call.id)
        for name, value in self._request.call.labels.items():
            span.set_attribute(f"holdfast.label.{name}", value)
        if at.hostname:
            span.set_attribute("server.address", at.hostname)
            span.set_attribute("server.port", at.port or (443 if at.scheme == "https" else 80))
        for name in ("max_tokens", "temperature", "top_p", "frequency_penalty", "presence_penalty", "seed"):
            asked = body.get(name) if isinstance(body, Mapping) else None
            if isinstance(asked, int | float):
                span.set_attribute(f"gen_ai.request.{name}", asked)

    def _end(self, span: Span, moment: Ended) -> None:
        from opentelemetry.trace import Status, StatusCode  # noqa: PLC0415 - it was there when we were configured

        call = self._request.call
        report, model = call.report, call.attempts[-1].model if call.attempts else ""
        span.update_name(f"{_operation(report.dialect)} {model}".strip())
        told: dict[str, Any] = {
            "gen_ai.operation.name": _operation(report.dialect),
            "gen_ai.provider.name": _PROVIDERS.get(report.dialect, report.dialect),
            "gen_ai.request.model": model,
            "gen_ai.response.finish_reasons": [only_name(moment.finish_reason)] if moment.finish_reason else None,
            "gen_ai.response.time_to_first_chunk": report.first_delta_seconds,
            "holdfast.outcome": report.outcome,
            "holdfast.attempts": report.attempts,
            "holdfast.seams": len(report.seams),
            "holdfast.upstream": report.upstream,
            "holdfast.billed_tokens": moment.billed_tokens or None,
            **_tokens(moment),
        }
        for name, value in told.items():
            if value not in (None, "", [None]):
                span.set_attribute(name, value)
        if moment.error is not None:
            span.set_attribute("error.type", type(moment.error).__name__)
            span.set_status(Status(StatusCode.ERROR, type(moment.error).__name__))
        span.end()


def _tokens(moment: Ended) -> dict[str, int | None]:
    usage = moment.usage
    if usage is None:
        return {}
    return {
        "gen_ai.usage.input_tokens": usage.input_tokens,
        "gen_ai.usage.output_tokens": usage.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
        "gen_ai.usage.cache_creation.input_tokens": usage.cache_write_tokens,
        "gen_ai.usage.reasoning.output_tokens": usage.reasoning_tokens,
    }


def _facts(moment: Moment) -> Iterator[tuple[str, str | int | float | bool]]:
    """Gives a moment's fields as attributes; of an error its name alone: a provider's words may quote a prompt."""
    for name, value in moments.facts(moment).items():
        if isinstance(value, StreamError):
            yield "error.type", type(value).__name__
        elif isinstance(value, bool | int | float) or (isinstance(value, str) and value):
            yield f"holdfast.{name}", value
