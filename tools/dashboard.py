"""Writes deploy/grafana/holdfast.json: a dashboard over the Prometheus names of `telemetry.measures.METRICS`.

The panels are the table below; the file is what Grafana imports. Thresholds are the objectives of `telemetry.health`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.telemetry.health import Objectives

FILE = Path(__file__).resolve().parent.parent / "deploy" / "grafana" / "holdfast.json"
WANTED = Objectives()
SOURCE = {"type": "prometheus", "uid": "${source}"}
ASKED = 'dialect=~"$dialect",model=~"$model"'
FAILED = 'outcome=~"[A-Z].*"'  # an error's name; how other streams end is written small
KEPT = 'outcome!="cancelled"'


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One picture: queries, and how the lines of each are named. Of a `limit`, less is better, unless `more` is."""

    title: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    kind: str = "timeseries"
    limit: float | None = None
    more: bool = False
    stacked: bool = False
    wide: int = 8
    about: str = ""


def rate(name: str, *by: str, where: str = "") -> str:
    """Gives how much a counter grows in a second, by these labels."""
    labels = ",".join(filter(None, (ASKED, where)))
    grouped = f" by ({', '.join(by)})" if by else ""
    return f"sum{grouped} (rate(holdfast_{name}{{{labels}}}[$__rate_interval]))"


def quantile(share: float, name: str) -> str:
    """Gives a histogram's quantile."""
    return f"histogram_quantile({share:g}, {rate(name + '_bucket', 'le')})"


def per(number: str, of: str) -> str:
    """Gives a quotient that is 0 where nothing was counted above the line."""
    return f"({number} or vector(0)) / {of}"


CHUNK = "time_per_output_chunk_seconds"
FIRST = "time_to_first_chunk_seconds"
WHOLE = "stream_duration_seconds"
SHARE = per(rate("streams_total", where=FAILED), rate("streams_total", where=KEPT))
ROWS: dict[str, tuple[Panel, ...]] = {
    "Objectives": (
        Panel(
            title="Chunks a second, median",
            queries=((f"1 / {quantile(0.5, CHUNK)}", ""),),
            kind="stat",
            limit=WANTED.chunks_per_second,
            more=True,
            wide=6,
        ),
        Panel(
            title="First chunk, p99",
            queries=((quantile(0.99, FIRST), ""),),
            unit="s",
            kind="stat",
            limit=WANTED.first_chunk_p99,
            wide=6,
        ),
        Panel(
            title="Streams that failed",
            queries=((SHARE, ""),),
            unit="percentunit",
            kind="stat",
            limit=WANTED.errors,
            wide=6,
            about="Those that their readers gave up are left out.",
        ),
        Panel(title="Streams running", queries=(("sum(holdfast_streams_running)", ""),), kind="stat", wide=6),
    ),
    "Traffic and outcomes": (
        Panel(
            title="Streams by how they ended",
            queries=((rate("streams_total", "outcome"), "{{outcome}}"),),
            stacked=True,
        ),
        Panel(
            title="Streams that failed",
            queries=((SHARE, "share"),),
            unit="percentunit",
            limit=WANTED.errors,
        ),
        Panel(title="Streams by model", queries=((rate("streams_total", "model"), "{{model}}"),), stacked=True),
        Panel(
            title="Requests by upstream", queries=((rate("attempts_total", "upstream"), "{{upstream}}"),), stacked=True
        ),
        Panel(
            title="Requests for each stream",
            queries=((per(rate("attempts_total"), rate("streams_total")), "requests"),),
            about="What retries, seams, fallbacks and hedges add to the load: 1 is none.",
        ),
        Panel(title="Bytes received", queries=((rate("received_bytes_total", "dialect"), "{{dialect}}"),), unit="Bps"),
    ),
    "Latency and chunk rate": (
        Panel(
            title="Time to the first chunk",
            queries=((quantile(0.5, FIRST), "p50"), (quantile(0.99, FIRST), "p99")),
            unit="s",
            limit=WANTED.first_chunk_p99,
        ),
        Panel(title="Duration", queries=((quantile(0.5, WHOLE), "p50"), (quantile(0.99, WHOLE), "p99")), unit="s"),
        Panel(
            title="Chunks a second, of each stream",
            queries=((f"1 / {quantile(0.5, CHUNK)}", "median"), (f"1 / {quantile(0.99, CHUNK)}", "slowest of 100")),
            limit=WANTED.chunks_per_second,
            more=True,
        ),
        Panel(
            title="Chunks a second, of all",
            queries=((rate("deltas_total", "model"), "{{model}}"),),
            stacked=True,
            wide=24,
        ),
    ),
    "What was mended": (
        Panel(title="Seams by rung", queries=((rate("seams_total", "rung"), "{{rung}}"),), stacked=True),
        Panel(title="Retries by error", queries=((rate("retries_total", "error"), "{{error}}"),), stacked=True),
        Panel(title="Fallbacks by whom they went to", queries=((rate("fallbacks_total", "upstream"), "{{upstream}}"),)),
        Panel(title="Hedges", queries=((rate("hedges_total"), "sent"),)),
        Panel(title="Clocks that ran out", queries=((rate("stalls_total", "clock"), "{{clock}}"),), stacked=True),
        Panel(
            title="Events dropped, bytes mended",
            queries=((rate("dropped_events_total"), "came twice"), (rate("repaired_total", "what"), "{{what}}")),
        ),
    ),
    "Faults and limits": (
        Panel(title="Faults by error", queries=((rate("faults_total", "error"), "{{error}}"),), stacked=True),
        Panel(
            title="Refusals by status",
            queries=((rate("faults_total", "status", where='status!=""'), "{{status}}"),),
            stacked=True,
        ),
        Panel(
            title="Requests refused with 429",
            queries=((per(rate("faults_total", where='status="429"'), rate("attempts_total")), "share"),),
            unit="percentunit",
        ),
        Panel(
            title="Seconds held back, in a second",
            queries=((rate("waited_seconds_total", "reason"), "{{reason}}"),),
            stacked=True,
            wide=12,
            about="Of all requests together: 2 means that two were waiting at any time.",
        ),
        Panel(
            title="Breakers",
            queries=(("max by (breaker) (holdfast_breaker_state)", "{{breaker}}"),),
            kind="state-timeline",
            wide=12,
            about="Told when one changes; a breaker that never did is not here.",
        ),
        Panel(
            title="Shared state",
            queries=(("min by (shared) (holdfast_shared_up)", "{{shared}}"),),
            kind="state-timeline",
            wide=12,
            about="0 where a process decides for itself; shared state that was never lost is not here.",
        ),
    ),
    "Tokens and cost": (
        Panel(title="Tokens billed", queries=((rate("billed_tokens_sum", "type"), "{{type}}"),), stacked=True, wide=12),
        Panel(
            title="Share billed again or for lost hedges",
            queries=((per(rate("billed_tokens_sum", where='part!="answer"'), rate("billed_tokens_sum")), "share"),),
            unit="percentunit",
            wide=12,
        ),
        Panel(
            title="Cost of an hour, at the pace of now",
            queries=((f"3600 * {rate('cost_total', 'model', 'currency')}", "{{model}} {{currency}}"),),
            stacked=True,
            about="Only where prices were given: configure_prometheus(prices=Prices()).",
        ),
        Panel(
            title="Cost of an hour, by what it was paid for",
            queries=((f"3600 * {rate('cost_total', 'part', 'currency')}", "{{part}} {{currency}}"),),
            stacked=True,
        ),
        Panel(
            title="Requests without a price",
            queries=((rate("unpriced_total", "model"), "{{model}}"),),
            about="Their cost is unknown, and in none of the others.",
        ),
    ),
}


def dashboard() -> dict[str, Any]:
    """Gives the whole as Grafana takes it."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS.items():
        panels.append({"type": "row", "title": title, "collapsed": False, "gridPos": _place(0, y, 24, 1), "panels": []})
        x, y = 0, y + 1
        high = 4 if row[0].kind == "stat" else 8
        for panel in row:
            if x + panel.wide > 24:
                x, y = 0, y + high
            panels.append(_panel(panel, _place(x, y, panel.wide, high)))
            x += panel.wide
        y += high
    for number, made in enumerate(panels, 1):
        made["id"] = number
    return {
        "title": "Holdfast",
        "uid": "holdfast",
        "description": "Streams of LLM answers: traffic, latency, faults and what was mended. docs/metrics.md",
        "tags": ["holdfast", "llm"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [_source(), _variable("dialect"), _variable("model")]},
        "panels": panels,
    }


def _place(x: int, y: int, wide: int, high: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": wide, "h": high}


def _panel(panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0, "thresholds": _thresholds(panel)}
    if panel.kind == "timeseries":
        defaults["custom"] = {
            "fillOpacity": 40 if panel.stacked else 8,
            "stacking": {"mode": "normal" if panel.stacked else "none"},
            "thresholdsStyle": {"mode": "off" if panel.limit is None else "dashed"},
        }
    if panel.kind == "state-timeline":
        states = (("0", "closed", "green"), ("1", "half-open", "yellow"), ("2", "open", "red"))
        options = {value: {"text": text, "color": color} for value, text, color in states}
        defaults["mappings"] = [{"type": "value", "options": options}]
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": SOURCE,
        "gridPos": place,
        "targets": [
            {"refId": chr(ord("A") + n), "datasource": SOURCE, "expr": query, "legendFormat": legend or "__auto"}
            for n, (query, legend) in enumerate(panel.queries)
        ],
        "fieldConfig": {"defaults": defaults, "overrides": []},
    }


def _thresholds(panel: Panel) -> dict[str, Any]:
    good, bad = "green", "red"
    steps: list[dict[str, Any]] = [{"color": bad if panel.more else good, "value": None}]
    if panel.limit is not None:
        steps.append({"color": good if panel.more else bad, "value": panel.limit})
    return {"mode": "absolute", "steps": steps}


def _source() -> dict[str, Any]:
    return {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}


def _variable(label: str) -> dict[str, Any]:
    query = f"label_values(holdfast_streams_total, {label})"
    return {
        "name": label,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": label},
        "definition": query,
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }


def text() -> str:
    """Gives the file as it should be."""
    return json.dumps(dashboard(), indent=2) + "\n"


if __name__ == "__main__":
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_text(text(), "utf-8")
