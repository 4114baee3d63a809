"""What telemetry costs: the same answers with nothing on, with logs, Prometheus and OpenTelemetry each, and with all.

16 events a read from memory, the client with its default layers. Nothing is told per event: what a stream pays once is
seen in answers of 16 events, and what is left of it in one of 500 or 4,000. Sinks are real and go nowhere: log lines to
the null device, spans to an exporter that drops them, metrics to the SDK's own reader.
"""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from bench.upstream import CHUNK, DONE, LAST
from holdfast import Client, MemorySource, configure_logs, configure_otel, configure_prometheus
from holdfast._pipe import listener_factories
from holdfast.moments import Listener

BATCH = 16
SIZES = (16, 512, 4_096)
NAMES = ("off", "logs", "prometheus", "otel", "all")
ASKED = {"model": "deepseek-flash", "messages": [{"role": "user", "content": "hello"}]}
Factories = list[Callable[[], Listener | None]]


@contextmanager
def _backends() -> Iterator[dict[str, Factories]]:
    """Configures all, and gives which listeners each contender has."""
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
    from prometheus_client import CollectorRegistry

    class Nowhere(SpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            return SpanExportResult.SUCCESS

    tracers, meters = TracerProvider(), MeterProvider(metric_readers=[InMemoryMetricReader()])
    tracers.add_span_processor(SimpleSpanProcessor(Nowhere()))
    base = list(listener_factories)
    configure_prometheus(CollectorRegistry())
    prometheus = listener_factories[len(base) :]
    configure_otel(tracer_provider=tracers, meter_provider=meters)
    otel = listener_factories[len(base) + len(prometheus) :]
    every = {"off": base, "logs": base, "prometheus": [*base, *prometheus], "otel": [*base, *otel]}
    try:
        yield every | {"all": [*base, *prometheus, *otel]}
    finally:
        listener_factories[:] = base
        configure_logs(level=None)
        tracers.shutdown()
        meters.shutdown()


async def _read(client: Any, events: int) -> None:
    seen = 0
    async with client.stream(ASKED) as deltas:
        async for batch in deltas.batches():
            seen += len(batch)
    if seen < events:
        raise SystemExit(f"{events - seen} events were lost")


async def _round(names: Sequence[str], factories: dict[str, Factories], client: Any, events: int) -> dict[str, float]:
    """Gives seconds of CPU for a stream of each, measured over the same number of events."""
    taken = {}
    turns = max(2, 2_048 // events)
    for name in names:
        listener_factories[:] = factories[name]
        configure_logs(os.devnull, json=True, level="info" if name in ("logs", "all") else None)
        await _read(client, events)
        gc.collect()
        gc.disable()
        before = time.process_time()
        for _ in range(turns):
            await _read(client, events)
        taken[name] = (time.process_time() - before) / turns
        gc.enable()
    return taken


def measure(rounds: int = 20) -> dict[int, dict[str, float]]:
    """Gives, by events of an answer, seconds of CPU for one stream of each: the least of interleaved rounds."""

    async def all_rounds() -> dict[int, dict[str, float]]:
        best = {events: dict.fromkeys(NAMES, float("inf")) for events in SIZES}
        with _backends() as factories:
            for number in range(rounds):
                for events in SIZES:
                    client = Client("deepseek", source=MemorySource(body(events)), api_key="k")
                    turned = NAMES[number % len(NAMES) :] + NAMES[: number % len(NAMES)]
                    for name, seconds in (await _round(turned, factories, client, events)).items():
                        best[events][name] = min(best[events][name], seconds)
        return best

    return asyncio.run(all_rounds())


def body(events: int) -> list[bytes | Exception]:
    return [*([CHUNK * BATCH] * (events // BATCH)), LAST + DONE]
