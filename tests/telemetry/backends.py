"""Both backends of numbers, for the length of a test: what is configured is taken back after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry

from holdfast._pipe import listener_factories
from holdfast.prices import Prices
from holdfast.telemetry import otel, prometheus


@dataclass(slots=True)
class Backends:
    registry: CollectorRegistry
    reader: InMemoryMetricReader
    exporter: InMemorySpanExporter

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self.exporter.get_finished_spans()

    def prometheus(self, name: str, **labels: str) -> float:
        """Gives the sum of all samples of a name whose labels are these, among others."""
        return sum(
            sample.value
            for family in self.registry.collect()
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def points(self, name: str) -> list[Any]:
        """Gives the points of one of OpenTelemetry's metrics."""
        told = self.reader.get_metrics_data()
        if told is None:
            return []
        scopes = (scope for resource in told.resource_metrics for scope in resource.scope_metrics)
        return [
            point
            for scope in scopes
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]

    def otel(self, name: str, **attributes: str) -> float:
        """Gives the sum of a counter, or of what a histogram observed, over points with these attributes."""
        wanted = {key.replace("__", "."): value for key, value in attributes.items()}
        chosen = [point for point in self.points(name) if wanted.items() <= dict(point.attributes).items()]
        return float(sum(point.sum if hasattr(point, "sum") else point.value for point in chosen))


@contextmanager
def configured(prices: Prices | None = None) -> Iterator[Backends]:
    """Configures both."""
    reader, exporter = InMemoryMetricReader(), InMemorySpanExporter()
    tracers, meters = TracerProvider(), MeterProvider(metric_readers=[reader])
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    made = Backends(CollectorRegistry(), reader, exporter)
    before = list(listener_factories)
    try:
        prometheus.configure_prometheus(made.registry, prices=prices)
        otel.configure_otel(tracer_provider=tracers, meter_provider=meters, prices=prices)
        yield made
    finally:
        listener_factories[:] = before
        otel._configured.clear()
        prometheus._told.clear()
        meters.shutdown()
        tracers.shutdown()
