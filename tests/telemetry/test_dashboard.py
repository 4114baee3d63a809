"""The Grafana dashboard: its file is what the table says, its names are ours, and a real Prometheus has answers."""

from __future__ import annotations

import asyncio
import json
import math
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
from prometheus_client import CollectorRegistry, start_http_server

from holdfast import Client, ConnectError, Prices, Request, Source, StreamError, moments
from holdfast._pipe import listener_factories
from holdfast.telemetry import prometheus
from holdfast.telemetry.measures import METRICS, Metric
from holdfast.testing import ChaosServer, FakeClock, Schedule
from holdfast.testing import faults as f
from tests.binaries import binary, free_port
from tests.properties.upstream import ChaosSource
from tools.dashboard import FILE, text

FAULTS = (*(f.Refused(status=429), f.Refused(status=401), f.ResetMidStream(), f.ClosedMidStream(), f.StallMidStream()),)
FUNCTIONS = {"sum", "max", "min", "by", "rate", "histogram_quantile", "vector", "or"}


def samples(metric: Metric) -> Iterator[str]:
    """Gives the names that Prometheus has of a metric."""
    name = f"holdfast_{metric.name}"
    yield from {
        "counter": [f"{name}_total"],
        "gauge": [name],
        "histogram": [f"{name}_bucket", f"{name}_sum", f"{name}_count"],
    }[metric.kind]


KNOWN = {name: metric for metric in METRICS for name in samples(metric)}


def queries() -> list[tuple[str, str]]:
    """Gives the dashboard's queries, each with how its lines are named."""
    panels = json.loads(FILE.read_text("utf-8"))["panels"]
    return [(target["expr"], target["legendFormat"]) for panel in panels for target in panel.get("targets", [])]


def test_the_file_is_what_the_table_says() -> None:
    assert FILE.read_text("utf-8") == text(), "run `python -m tools.dashboard`"


@pytest.mark.parametrize(("query", "legend"), queries())
def test_every_name_and_label_is_ours(query: str, legend: str) -> None:
    used = re.findall(r"(holdfast_\w+)(?:\{([^}]*)\})?", query)
    assert used
    metrics = [KNOWN[name] for name, _ in used]
    for metric, (_, matchers) in zip(metrics, used, strict=True):
        asked = re.findall(r'(\w+)(?:=~|!~|!=|=)"', matchers)
        assert set(asked) <= set(metric.labels)
        assert {"dialect", "model"} & set(metric.labels) <= set(asked), "the dashboard's own choice holds everywhere"
    grouped = {label for group in re.findall(r"by \(([^)]*)\)", query) for label in group.split(", ")}
    assert grouped <= {"le"}.union(*(metric.labels for metric in metrics))
    assert set(re.findall(r"\{\{(\w+)\}\}", legend)) == grouped - {"le"}
    bare = re.sub(r"by \([^)]*\)|\{[^}]*\}|\[[^\]]*\]|holdfast_\w+", "", query)
    assert set(re.findall(r"[a-z_]+", bare)) <= FUNCTIONS


def test_every_metric_is_on_it() -> None:
    shown = {KNOWN[name].name for query, _ in queries() for name in re.findall(r"holdfast_\w+", query)}
    assert {metric.name for metric in METRICS} == shown


# -- a real Prometheus -----------------------------------------------------------------------------


@dataclass(slots=True)
class Prometheus:
    """A server that scrapes one port every second."""

    port: int

    def ask(self, path: str, **asked: str) -> Any:
        """Gives what its HTTP API answers."""
        with urlopen(f"http://127.0.0.1:{self.port}/api/v1/{path}?{urlencode(asked)}", timeout=5) as answer:
            return json.load(answer)

    def found(self, query: str) -> bool:
        """Evaluates a query now: True when it gives a number. A query that is none raises `HTTPError`."""
        told = self.ask("query", query=query)
        assert told["status"] == "success"
        return any(not math.isnan(float(series["value"][1])) for series in told["data"]["result"])


@contextmanager
def scraping(target: int, folder: Path) -> Iterator[Prometheus]:
    program, port = binary("prometheus"), free_port()
    config = folder / "prometheus.yml"
    targets = f"[{{job_name: holdfast, static_configs: [{{targets: ['127.0.0.1:{target}']}}]}}]"
    config.write_text(f"global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs: {targets}\n")
    command = [program, f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"]
    process = subprocess.Popen(command, cwd=folder)
    try:
        _wait_for(f"http://127.0.0.1:{port}/-/ready")
        yield Prometheus(port)
    finally:
        process.terminate()
        process.wait(timeout=10)


def _wait_for(url: str) -> None:
    for _ in range(200):
        try:
            urlopen(url, timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError("prometheus did not answer within 20 s")


@contextmanager
def metrics_port() -> Iterator[int]:
    """Counts all streams, and serves the numbers."""
    registry, before = CollectorRegistry(), list(listener_factories)
    prometheus.configure_prometheus(registry, prices=Prices().with_("m0", input="1", output="1"))
    server, thread = start_http_server(0, "127.0.0.1", registry)
    try:
        yield server.server_address[1]
    finally:
        listener_factories[:] = before
        prometheus._told.clear()
        server.shutdown()
        thread.join()
        server.server_close()


class Rare:
    """A layer that tells of what faults alone do not bring about."""

    def __call__(self, inner: Source[Any]) -> Source[Any]:
        return _RareSource(inner)


@dataclass(slots=True)
class _RareSource:
    inner: Source[Any]

    async def open(self, request: Request) -> Any:
        note = request.call.note
        note(moments.Waited(reason="tokens", seconds=0.5))
        note(moments.Hedged(delay=1.0))
        note(moments.FellBack(error=ConnectError("refused"), old="a", new="b"))
        note(moments.BreakerChanged(name="a", old="closed", new="open"))
        note(moments.SharedLost(name="a", reason="no answer in 0.25 s"))
        note(moments.Repaired(what="bom", count=1))
        note(moments.Dropped(count=2))
        return await self.inner.open(request)


async def streams(count: int, seed: int) -> None:
    clock = FakeClock()
    async with ChaosServer(schedule=Schedule.draw(seed, rate=0.6, faults=FAULTS), clock=clock) as server:
        client = Client("openai", source=ChaosSource(server), clock=clock, max_requests=3, traffic=[Rare()])
        for number in range(count):
            with suppress(StreamError):
                asked: Mapping[str, Any] = {
                    "model": f"m{number % 2}",
                    "messages": [{"role": "user", "content": f"q{seed}-{number}"}],
                }
                await client.stream(asked)


@pytest.mark.timeout(300)
def test_a_real_prometheus_has_an_answer_to_every_query(tmp_path: Path) -> None:
    asked = {
        query.replace("$__rate_interval", "4s").replace("$dialect", ".*").replace("$model", ".*")
        for query, _ in queries()
    }
    deadline, seed, empty = time.monotonic() + 30, 0, asked
    with metrics_port() as target, scraping(target, tmp_path) as server:
        while empty and time.monotonic() < deadline:
            seed += 1
            asyncio.run(streams(8, seed))
            time.sleep(0.3)
            empty = {query for query in empty if not server.found(query)}
        assert empty == set()
        assert not server.found("holdfast_no_such_total")
        with pytest.raises(HTTPError):
            server.found("sum by (")
        (told,) = server.ask("targets")["data"]["activeTargets"]
        assert told["health"] == "up"
