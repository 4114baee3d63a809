"""Spans and metrics as the GenAI conventions name them, and what must not stand in them."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import baggage, context, propagate, trace
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.trace import SpanKind, StatusCode

from holdfast import Client, Prices, StatusError, UsageError, configure_otel, configure_prometheus
from holdfast._pipe import listener_factories
from holdfast.telemetry import otel
from holdfast.telemetry.measures import MAX_VALUES, METRICS, Bounded
from holdfast.testing import ChaosServer, FakeClock, Fault, Schedule
from holdfast.testing import faults as f
from tests.properties.upstream import ChaosSource
from tests.telemetry.backends import Backends, configured

PROMPT = "a secret prompt"
ASKED = {"model": "m-1", "max_tokens": 99, "temperature": 0.5, "messages": [{"role": "user", "content": PROMPT}]}


@pytest.fixture
def told() -> Iterator[Backends]:
    with configured() as backends:
        yield backends


class Begun(SpanProcessor):
    """Notes what has begun; without a place for that it fails."""

    def __init__(self, begun: list[Any] | None) -> None:
        self.begun = begun

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        if self.begun is None:
            raise RuntimeError("the exporter's queue is gone")
        self.begun.append(span)


async def ask(clock: FakeClock, *met: Fault, tries: int = 8) -> ChaosSource:
    server = ChaosServer(schedule=Schedule(streams={PROMPT: met}), clock=clock)
    source = ChaosSource(server)
    client = Client("mistral", source=source, clock=clock, api_key="sk-secret", max_requests=tries)
    await client.stream(ASKED, labels={"team": "a"})
    return source


async def test_a_stream_is_one_span_named_after_what_was_asked_of_whom(clock: FakeClock, told: Backends) -> None:
    await ask(clock)
    (span,) = told.spans
    assert span.name == "chat m-1"
    assert span.kind is SpanKind.CLIENT
    assert span.status.status_code is StatusCode.UNSET
    attributes = dict(span.attributes or {})
    assert attributes["gen_ai.operation.name"] == "chat"
    assert attributes["gen_ai.provider.name"] == "mistral_ai"
    assert attributes["gen_ai.request.model"] == "m-1"
    assert attributes["gen_ai.request.max_tokens"] == 99
    assert attributes["gen_ai.request.stream"] is True
    assert attributes["gen_ai.response.finish_reasons"] == ("length",)
    assert attributes["server.address"] == "api.mistral.ai"
    assert attributes["server.port"] == 443
    assert attributes["holdfast.label.team"] == "a"
    assert attributes["holdfast.outcome"] == "complete"
    assert float(str(attributes["gen_ai.response.time_to_first_chunk"])) >= 0
    assert int(str(attributes["gen_ai.usage.output_tokens"])) > 0


async def test_each_attempt_seam_and_fault_is_an_event(clock: FakeClock, told: Backends) -> None:
    await ask(clock, f.Refused(status=503), f.ResetMidStream(after=20))
    (span,) = told.spans
    names = [event.name for event in span.events]
    assert names == [
        *("attempt.opening", "attempt.retrying", "attempt.opening", "attempt.opened", "stream.first_delta"),
        *("stream.resuming", "attempt.opening", "attempt.opened", "stream.resumed"),
    ]
    resuming = next(event for event in span.events if event.name == "stream.resuming")
    assert resuming.attributes is not None
    assert resuming.attributes["error.type"] == "StreamBroken"
    assert resuming.attributes["holdfast.attempt"] == 2


async def test_a_stream_that_failed_is_a_span_with_an_error(clock: FakeClock, told: Backends) -> None:
    with pytest.raises(StatusError):
        await ask(clock, f.Refused(status=401))
    (span,) = told.spans
    assert span.status.status_code is StatusCode.ERROR
    assert dict(span.attributes or {})["error.type"] == "StatusError"
    assert told.otel("holdfast.streams", error__type="StatusError", gen_ai__request__model="m-1") == 1


async def test_no_prompt_answer_or_key_stands_in_a_span_or_a_number(clock: FakeClock, told: Backends) -> None:
    source = await ask(clock, f.JsonError(), f.CutInsideEvent())
    (span,) = told.spans
    everything = span.to_json() + "".join(str(point) for m in METRICS for point in told.points(m.convention or m.name))
    assert "sk-secret" not in everything
    assert PROMPT not in everything
    assert source.server.answer(PROMPT).pieces[0] not in everything


async def test_the_trace_goes_on_upstream(clock: FakeClock, told: Backends) -> None:
    tracer = TracerProvider().get_tracer("application")
    with tracer.start_as_current_span("outer") as outer:
        source = await ask(clock, f.ResetMidStream(after=20))
    (span,) = told.spans
    assert span.context is not None
    assert span.parent is not None
    assert span.parent.span_id == outer.get_span_context().span_id
    for request in source.asked:
        sent = {name.lower(): value for name, value in request.headers.items()}["traceparent"]
        trace_id, span_id = re.fullmatch(r"00-(\w{32})-(\w{16})-0[13]", sent).groups()  # type: ignore[union-attr]  # it matches
        assert trace_id == trace.format_trace_id(outer.get_span_context().trace_id)
        assert span_id == trace.format_span_id(span.context.span_id)


async def test_a_stream_that_is_never_entered_is_no_span(clock: FakeClock, told: Backends) -> None:
    begun: list[Any] = []
    tracers = TracerProvider()
    tracers.add_span_processor(Begun(begun))
    otel._configured.clear()
    configure_otel(tracer_provider=tracers)
    client = Client("mistral", source=ChaosSource(ChaosServer(clock=clock)), clock=clock, api_key="sk-secret")
    tracer = TracerProvider().get_tracer("application")
    with tracer.start_as_current_span("outer") as outer:
        stream, _ = client.stream(ASKED), client.stream(ASKED)
    assert begun == []
    await stream
    assert [span.parent.span_id for span in begun] == [outer.get_span_context().span_id], "where it was asked for"


async def test_a_processor_that_fails_breaks_no_stream(clock: FakeClock, told: Backends) -> None:
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, about: complaints.append(about))
    tracers = TracerProvider()
    tracers.add_span_processor(Begun(None))
    otel._configured.clear()
    configure_otel(tracer_provider=tracers)
    await ask(clock)
    assert len(complaints) == 1


async def test_the_applications_baggage_is_none_of_a_providers_business(clock: FakeClock, told: Backends) -> None:
    token = context.attach(baggage.set_baggage("user.email", "jane@example.com"))
    try:
        source = await ask(clock)
        otel._configured.clear()
        listener_factories.clear()
        configure_otel(tracer_provider=TracerProvider(), propagator=propagate.get_global_textmap())
        wanted = await ask(clock)
    finally:
        context.detach(token)
    assert "traceparent" in source.asked[0].headers
    assert "baggage" not in source.asked[0].headers
    assert wanted.asked[0].headers["baggage"] == "user.email=jane%40example.com"


async def test_the_histograms_have_the_buckets_that_the_conventions_want(clock: FakeClock, told: Backends) -> None:
    await ask(clock)
    (point,) = told.points("gen_ai.client.operation.duration")
    assert (point.explicit_bounds[0], point.explicit_bounds[-1], len(point.explicit_bounds)) == (0.01, 81.92, 14)
    kinds = {dict(point.attributes)["gen_ai.token.type"] for point in told.points("gen_ai.client.token.usage")}
    assert kinds == {"input", "output"}


def test_a_label_has_so_many_values_and_no_more() -> None:
    bounded = Bounded()
    values = {bounded("model", f"model-{number}") for number in range(MAX_VALUES + 50)}
    assert len(values) == MAX_VALUES + 1
    assert bounded("model", "model-0") == "model-0"
    assert bounded("model", "x" * 500) == "other"
    assert len(bounded("breaker", "x" * 500)) == 100


def test_configuring_twice_is_told(told: Backends) -> None:
    with pytest.raises(UsageError, match="once"):
        configure_otel()
    with pytest.raises(UsageError, match="once"):
        configure_prometheus(told.registry)


@pytest.mark.parametrize(("name", "package"), [("otel", "opentelemetry"), ("prometheus", "prometheus_client")])
def test_a_missing_package_says_which_extra_brings_it(name: str, package: str) -> None:
    code = f"import sys; sys.modules['{package}'] = None\nimport holdfast\nholdfast.configure_{name}()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"pip install 'holdfast[{name}]'" in done.stderr


@pytest.mark.parametrize("wrong", ["USD", 3])
def test_prices_that_are_none_are_refused_and_nothing_is_configured(wrong: Any) -> None:
    for configure in (configure_otel, configure_prometheus):
        with pytest.raises(UsageError, match="prices"):
            configure(prices=wrong)
    with configured(Prices()):
        pass


async def test_what_has_no_price_is_counted_and_costs_nothing_known(clock: FakeClock) -> None:
    with configured(Prices()) as told:
        await ask(clock)
        assert told.prometheus("holdfast_unpriced_total", model="m-1") == told.otel("holdfast.unpriced") == 1
        assert told.points("holdfast.cost") == []
        assert told.prometheus("holdfast_cost_total") == 0
    with configured(Prices().with_("m-1", input="1000000", output="0")) as told:
        await ask(clock)
        read = told.prometheus("holdfast_billed_tokens_sum", type="input")
        assert told.prometheus("holdfast_cost_total", model="m-1", currency="USD") == read > 0
        assert told.prometheus("holdfast_unpriced_total") == 0
    with configured() as told:
        await ask(clock)
        assert told.prometheus("holdfast_unpriced_total") == 0
