"""Writes the tables of numbers in docs/metrics.md from `telemetry.measures.METRICS` and the gateway's own."""

from __future__ import annotations

from pathlib import Path

from holdfast.gateway.numbers import GATEWAY_METRICS
from holdfast.telemetry.measures import METRICS, Metric

PAGE = Path(__file__).resolve().parent.parent / "docs" / "metrics.md"
TABLES = {"metrics": METRICS, "gateway": GATEWAY_METRICS}


def row(metric: Metric) -> str:
    """Gives one line of the table."""
    name = f"`{metric.name}`" + (f"<br>`{metric.convention}`" if metric.convention else "")
    labels = " ".join(f"`{label}`" for label in metric.labels)
    return f"| {name} | {metric.kind} | {labels} | {metric.about} |"


def page() -> str:
    """Gives the page with its tables as they should be."""
    text = PAGE.read_text("utf-8")
    for name, metrics in TABLES.items():
        begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->\n"
        before, rest = text.split(begin)
        table = ["| name | kind | labels | what it counts |", "|---|---|---|---|", *map(row, metrics)]
        text = before + begin + "\n".join(table) + "\n" + end + rest.split(end)[1]
    return text


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
