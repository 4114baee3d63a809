"""Numbers for Prometheus, of every stream from now on. Extra `prometheus`; docs/metrics.md lists them.

`measures.METRICS` is the table; each name begins with `holdfast_`. Serving them is the application's own affair:
`prometheus_client.start_http_server()`, for one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from holdfast._errors import MissingExtra, UsageError
from holdfast._pipe import listener_factories
from holdfast.prices import Prices
from holdfast.telemetry.measures import BREAKER, METRICS, SHARED, Bounded, Measures, Metric, check_prices

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

_told: list[object] = []
_OVER_PROCESSES = {BREAKER.name: "livemax", SHARED.name: "livemin"}
"""Of states the worst counts; other gauges are added up."""


def configure_prometheus(registry: CollectorRegistry | None = None, *, prices: Prices | None = None) -> None:
    """Counts all streams that start from now on, in `registry` or the default one; with `prices`, their cost, too.

    Raises `UsageError` when called again for the same registry, `MissingExtra` without the package.
    """
    try:
        import prometheus_client  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise MissingExtra("configure_prometheus()", "prometheus") from error
    check_prices(prices)
    registry = registry or prometheus_client.REGISTRY
    if any(one is registry for one in _told):
        raise UsageError("configure_prometheus() was called before: it is for once at the start of a program")
    sink, bounded = PrometheusSink(registry), Bounded()
    _told.append(registry)
    listener_factories.append(lambda: Measures(sink, bounded, prices))


class PrometheusSink:
    """Keeps the numbers of a table in a registry. Raises `ImportError` without the package."""

    def __init__(self, registry: CollectorRegistry, metrics: Iterable[Metric] = METRICS) -> None:
        import prometheus_client as library  # noqa: PLC0415 - an extra

        kinds = {"counter": library.Counter, "gauge": library.Gauge, "histogram": library.Histogram}
        self._metrics: dict[str, Any] = {}
        for metric in metrics:
            more: dict[str, Any] = {"buckets": metric.buckets} if metric.buckets else {}
            if metric.kind == "gauge":  # where processes share a port: what one scrape tells of all of them
                more["multiprocess_mode"] = _OVER_PROCESSES.get(metric.name, "livesum")
            made = kinds[metric.kind](f"holdfast_{metric.name}", metric.about, metric.labels, registry=registry, **more)
            self._metrics[metric.name] = made

    def tell(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        kept = self._metrics[metric.name]
        if labels:
            kept = kept.labels(**labels)
        if metric.kind == "histogram":
            kept.observe(value)
        elif metric.state:
            kept.set(value)
        else:
            kept.inc(value)
