"""The gateway's own numbers for Prometheus, beside those that every stream tells: docs/metrics.md lists both.

They are counted when a stream opens, ends or is come back to, or when somebody asks for them; never per event. Where
workers share a port they keep them in files beside each other, and whichever answers a scrape tells of all of them.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from holdfast.gateway.journal import Pulse
from holdfast.moments import Listener
from holdfast.telemetry.measures import METRICS, Bounded, Measures, Metric
from holdfast.telemetry.prometheus import PrometheusSink

SHARED_BY_WORKERS = "PROMETHEUS_MULTIPROC_DIR"


def _metric(kind: Literal["counter", "gauge"], name: str, unit: str, about: str, *labels: str) -> Metric:
    return Metric(kind=kind, name=f"gateway_{name}", unit=unit, about=about, labels=labels, state=kind == "gauge")


RUNNING = _metric("gauge", "streams", "{stream}", "Streams that this node writes.")
READERS = _metric("gauge", "readers", "{reader}", "Readers that are connected.")
SLOW = _metric("gauge", "slow_readers", "{reader}", "Readers that are far behind what is written.")
DRAINING = _metric("gauge", "draining", "1", "Whether the node lets its streams end before it ends itself.")
OPENED = _metric("counter", "opened", "{stream}", "Streams that were opened.", "surface")
ENDED = _metric(
    "counter",
    "ended",
    "{stream}",
    "Streams that this node writes no more: complete, failed, cancelled, abandoned, handed_over, lease_lost.",
    "surface",
    "how",
)
JOINED = _metric("counter", "joined", "{request}", "Requests that joined a stream by its idempotency key.", "surface")
READ_AGAIN = _metric("counter", "read_again", "{reader}", "Readers that came back mid-stream.", "surface")
REPLAYED = _metric(
    "counter", "replayed_records", "{record}", "Records that were there already when a reader came back.", "surface"
)
TAKEN_OVER = _metric("counter", "taken_over", "{stream}", "Streams that were taken over from another node.", "surface")
RECORDS = _metric("counter", "records", "{record}", "Records that were written to the journal.", "surface")
BYTES = _metric("counter", "written_bytes", "By", "Bytes of the records that were written.", "surface")
EXCHANGES = _metric("counter", "journal_exchanges", "{exchange}", "Exchanges with a journal elsewhere.")
EXCHANGED = _metric("counter", "journal_seconds", "s", "Seconds that these took, all together.")
SILENCES = _metric("counter", "journal_silences", "{silence}", "Times that the journal did not answer any more.")
SILENT = _metric("gauge", "journal_silent", "1", "Whether it does not answer at this moment.")
REFUSED = _metric("counter", "refused", "{request}", "Requests that were answered with an error.", "status", "reason")

GATEWAY_METRICS = (
    *(RUNNING, READERS, SLOW, DRAINING, OPENED, ENDED, JOINED, READ_AGAIN, REPLAYED, TAKEN_OVER),
    *(RECORDS, BYTES, EXCHANGES, EXCHANGED, SILENCES, SILENT, REFUSED),
)
_TOLD = {"opened": OPENED, "joined": JOINED, "read_again": READ_AGAIN, "taken_over": TAKEN_OVER}


class Numbers:
    """Keeps the numbers of one gateway."""

    def __init__(self) -> None:
        import prometheus_client  # noqa: PLC0415 - an extra

        self._library: Any = prometheus_client
        self._registry = prometheus_client.CollectorRegistry()
        self._sink = PrometheusSink(self._registry, (*METRICS, *GATEWAY_METRICS))
        self._bounded = Bounded()
        self._pulse: tuple[float, float, float] = (0, 0.0, 0)

    @classmethod
    def made(cls) -> Self | None:
        """Gives the numbers, None where the package is not installed."""
        try:
            return cls()
        except ImportError:
            return None

    def listener(self) -> Listener:
        """Gives somebody who counts one stream."""
        return Measures(self._sink, self._bounded)

    def told(self, what: str, surface: str, facts: Mapping[str, Any]) -> None:
        """Counts what became of a stream."""
        metric = _TOLD.get(what)
        if metric is not None:
            self._tell(metric, 1, surface=surface)
        if what == "read_again":
            self._tell(REPLAYED, max(0, facts["last"] - facts["place"]), surface=surface)

    def ended(self, surface: str, how: str) -> None:
        """Counts a stream that is no longer written here."""
        self._tell(ENDED, 1, surface=surface, how=how)

    def refused(self, status: int, reason: str) -> None:
        """Counts a request that was not served."""
        self._tell(REFUSED, 1, status=str(status), reason=reason)

    def wrote(self, surface: str, records: int, size: int) -> None:
        """Counts what was written."""
        if records:
            self._tell(RECORDS, records, surface=surface)
            self._tell(BYTES, size, surface=surface)

    def state(self, *, running: int, readers: int, slow: int, draining: bool) -> None:
        """Says how things are at this moment."""
        for metric, value in ((RUNNING, running), (READERS, readers), (SLOW, slow), (DRAINING, int(draining))):
            self._sink.tell(metric, value, {})

    def journal(self, pulse: Pulse) -> None:
        """Says how the journal answered since this was called last."""
        now = pulse.exchanges, pulse.seconds, pulse.silences
        for metric, new, old in zip((EXCHANGES, EXCHANGED, SILENCES), now, self._pulse, strict=True):
            self._sink.tell(metric, max(0.0, new - old), {})
        self._pulse = now
        self._sink.tell(SILENT, int(pulse.silent), {})

    def text(self) -> tuple[bytes, str]:
        """Gives all numbers as Prometheus reads them, and their content type."""
        library, registry = self._library, self._registry
        if os.environ.get(SHARED_BY_WORKERS):
            _forget_the_dead(Path(os.environ[SHARED_BY_WORKERS]))
            registry = library.CollectorRegistry()
            importlib.import_module("prometheus_client.multiprocess").MultiProcessCollector(registry)
        return library.generate_latest(registry), library.CONTENT_TYPE_LATEST

    def _tell(self, metric: Metric, value: float, **labels: str) -> None:
        self._sink.tell(metric, value, {name: self._bounded(name, text) for name, text in labels.items()})


@contextlib.contextmanager
def shared_by_workers() -> Iterator[None]:
    """Has the processes that are forked meanwhile share their numbers, where whoever started us has not seen to it."""
    if os.environ.get(SHARED_BY_WORKERS):
        yield
        return
    with tempfile.TemporaryDirectory(prefix="holdfast-", ignore_cleanup_errors=True) as folder:
        os.environ[SHARED_BY_WORKERS] = folder
        try:
            yield
        finally:
            del os.environ[SHARED_BY_WORKERS]


def _forget_the_dead(folder: Path) -> None:
    """What runs in a worker that died runs no more; what it counted stays counted."""
    for file in folder.glob("gauge_live*_*.db"):
        pid = file.stem.rpartition("_")[2]
        try:
            os.kill(int(pid), 0)
        except (ProcessLookupError, ValueError):
            file.unlink(missing_ok=True)
        except OSError:
            pass  # somebody else's process has the number now


__all__ = ["GATEWAY_METRICS", "SHARED_BY_WORKERS", "Numbers", "shared_by_workers"]
