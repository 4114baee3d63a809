"""Writes the table of numbers in docs/metrics.md from `telemetry.measures.METRICS`."""

from __future__ import annotations

from pathlib import Path

from holdfast.telemetry.measures import METRICS, Metric

PAGE = Path(__file__).resolve().parent.parent / "docs" / "metrics.md"
BEGIN, END = "<!-- metrics: begin -->\n", "<!-- metrics: end -->\n"


def row(metric: Metric) -> str:
    """Gives one line of the table."""
    name = f"`{metric.name}`" + (f"<br>`{metric.convention}`" if metric.convention else "")
    labels = " ".join(f"`{label}`" for label in metric.labels)
    return f"| {name} | {metric.kind} | {labels} | {metric.about} |"


def page() -> str:
    """Gives the page with its table as it should be."""
    text = PAGE.read_text("utf-8")
    before, rest = text.split(BEGIN)
    table = ["| name | kind | labels | what it counts |", "|---|---|---|---|", *map(row, METRICS)]
    return before + BEGIN + "\n".join(table) + "\n" + END + rest.split(END)[1]


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
