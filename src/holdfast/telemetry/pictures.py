"""Pictures of streams as SVG: histograms, streams over time, one stream's attempts. Numbers in, text out.

Lengths are percentages, so a picture fits any width without a script; colours are classes of page.css, and attributes
such as `style`, which a strict Content-Security-Policy forbids, stand nowhere. Every text is escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from html import escape

from holdfast.telemetry.timeline import Lane, Life
from holdfast.telemetry.words import count, end_of, label, seconds

Mark = tuple[float, str, str]
"""A value to mark on an axis, its name, and its class."""
_MOST_BARS = 30
_LEAST, _MOST = 1e-3, 1e6
_SIGNS = {"proven": ("●", "good"), "left": ("○", "odd"), "fault": ("✗", "bad")}
_TINT = {"failed": "bad", "faults": "odd", "smooth": "calm"}
PATTERN = (
    '<svg class="defs" width="0" height="0" aria-hidden="true"><defs><pattern id="stalled" width="6" height="6" '
    'patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect class="odd" width="3" height="6"/></pattern>'
    "</defs></svg>"
)


def histogram(values: Sequence[float], marks: Sequence[Mark], unit: Callable[[float], str], about: str) -> str:
    """Draws how often which value was found, on a logarithmic axis that the marks are on, too."""
    places = [_log(value) for value in values]
    if not places:
        return '<p class="dim">nothing was told</p>'
    marked = [_log(value) for value, _, _ in marks]
    low, high = min(*places, *marked), max(*places, *marked)
    fine = next((n for n in (20, 10, 5, 2) if (high - low) * n < _MOST_BARS - 1), 2)
    start, stop = math.floor(low * fine), math.floor(high * fine) + 1
    counts = [0] * (stop - start)
    for place in places:
        counts[math.floor(place * fine) - start] += 1
    width, tallest = 100 / len(counts), max(counts)

    def at(place: float) -> float:
        return (place * fine - start) * width

    drawn = [
        f'<rect class="calm" x="{_pc(n * width + 0.15)}" width="{_pc(width - 0.3)}" y="{110 - height}" '
        f'height="{height}"><title>{escape(_between(start + n, fine, unit))}: {number}</title></rect>'
        for n, number in enumerate(counts)
        if number and (height := max(2, round(number / tallest * 66)))
    ]
    steps = (1, 2, 5) if high - low < 2 else (1,)
    apart = 1 + math.floor((high - low) / 4)  # so that their names do not touch
    ticks = [step * 10.0**power for power in range(math.floor(low), math.floor(high) + 1, apart) for step in steps]
    drawn += [_text(at(math.log10(tick)), 124, unit(tick), "dim") for tick in ticks if low <= math.log10(tick) <= high]
    for row, (place, (_, name, kind)) in enumerate(zip(marked, marks, strict=True)):
        x = at(place)
        drawn.append(f'<line class="{kind}" x1="{_pc(x)}" x2="{_pc(x)}" y1="{12 * row + 4}" y2="110"/>')
        drawn.append(
            _text(
                x,
                12 * row + 12,
                f"\N{NO-BREAK SPACE}{name}\N{NO-BREAK SPACE}",
                kind,
                anchor="start" if x < 60 else "end",
            )
        )
    return _svg(132, about, drawn)


def _log(value: float) -> float:
    return math.log10(min(max(value, _LEAST), _MOST))


def _between(bar: int, fine: int, unit: Callable[[float], str]) -> str:
    return f"{unit(10 ** (bar / fine))} to {unit(10 ** ((bar + 1) / fine))}"


class Times:
    """When streams began: at most 120 columns, which grow wider as a log grows longer."""

    _COLUMNS = 120
    _WIDTHS = (1, 5, 10, 30, 60, 300, 600, 1800, 3600, 7200, 21600, 43200, 86400)  # each divides the next

    def __init__(self) -> None:
        self._width = 1
        self._columns: dict[int, dict[str, int]] = {}

    def add(self, began: datetime | None, kind: str) -> None:
        """Takes one stream in; without a time it is in no column."""
        if began is None:
            return
        column = self._columns.setdefault(int(began.timestamp() // self._width), dict.fromkeys(_TINT, 0))
        column[kind] += 1
        while max(self._columns) - min(self._columns) >= self._COLUMNS:
            self._widen()

    def _widen(self) -> None:
        wider = next((width for width in self._WIDTHS if width > self._width), self._width * 2)
        before, self._columns = self._columns, {}
        for place, counts in before.items():
            column = self._columns.setdefault(place * self._width // wider, dict.fromkeys(_TINT, 0))
            for kind, number in counts.items():
                column[kind] += number
        self._width = wider

    def draw(self) -> str:
        """Draws them as columns, what failed at the bottom."""
        if not self._columns:
            return '<p class="dim">no line told the time</p>'
        first, last = min(self._columns), max(self._columns)
        width, tallest = 100 / (last - first + 1), max(sum(column.values()) for column in self._columns.values())
        drawn = []
        for place, column in self._columns.items():
            y, said = 96.0, f"{self._when(place)}: " + ", ".join(f"{n} {kind}" for kind, n in column.items() if n)
            drawn.append(f"<g><title>{escape(said)}</title>")
            for kind, number in column.items():
                height = number / tallest * 90
                y -= height
                drawn.append(
                    f'<rect class="{_TINT[kind]}" x="{_pc((place - first) * width)}" width="{_pc(width * 0.9)}" '
                    f'y="{y:.1f}" height="{height:.1f}"/>'
                    if number
                    else ""
                )
            drawn.append("</g>")
        wide = f"{count(tallest, 'stream')} in {self._width} s at most"
        ends = [_text(0, 110, self._when(first), "dim", anchor="start"), _text(50, 110, wide, "dim")]
        ends.append(_text(100, 110, self._when(last), "dim", anchor="end"))
        return _svg(116, "streams by the time they began", [*drawn, *ends])

    def _when(self, place: int) -> str:
        return moment(datetime.fromtimestamp(place * self._width, UTC))


def moment(when: datetime) -> str:
    """Writes a time, UTC."""
    return when.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def bar(life: Life, total: float) -> str:
    """Draws all attempts of a stream in one row, on an axis of `total` seconds; what is behind its end is cut off."""
    drawn = [piece for lane in life.lanes() for piece in _lane(lane, life, total, 0)]
    if life.seconds > total:
        drawn.append(_text(100, 12, "▸", "sign dim", more=f"<title>goes on to {seconds(life.seconds)}</title>"))
    return _svg(16, seconds(life.seconds), drawn)


def rows(life: Life, most: int = 16) -> str:
    """Draws each attempt of a stream in a row of its own, to its own scale."""
    total = life.seconds or 1.0
    lanes = life.lanes()[:most]
    drawn: list[str] = []
    for row, lane in enumerate(lanes):
        drawn += _lane(lane, life, total, 26 * row)
        said = f"#{lane.attempt} {label(lane, life)}"
        begin = _first(lane.waited, lane.sent, lane.head, 0.0) / total * 100
        drawn.append(_text(min(begin, 70), 26 * row + 23, said, "dim", anchor="start"))
    y = 26 * len(lanes) + 10
    drawn += [_text(0, y, "0", "dim", anchor="start"), _text(100, y, seconds(total), "dim", anchor="end")]
    return _svg(y + 6, f"{count(len(life.lanes()), 'attempt')}, {seconds(total)}", drawn)


def _lane(lane: Lane, life: Life, total: float, top: int) -> Iterator[str]:
    end = _first(lane.end, life.seconds)
    begin = _first(lane.sent, lane.head, end)

    def stretch(start: float | None, stop: float, kind: str, said: str, height: int) -> str:
        if start is None or start > total:
            return ""
        x, width = start / total * 100, max(0.0, min(stop, total) - start) / total * 100
        return (
            f'<rect class="{kind}" x="{_pc(x)}" width="{_pc(max(width, 0.1))}" y="{top + 8 - height // 2}" '
            f'height="{height}">'
            f"<title>#{lane.attempt} {said}, {seconds(max(0.0, stop - start))} from {seconds(start)}</title></rect>"
        )

    def sign(when: float | None, text: str, kind: str, said: str) -> str:
        if when is None or when > total:
            return ""
        about = f"<title>#{lane.attempt} {escape(said)} at {seconds(when)}</title>"
        return _text(when / total * 100, top + 12, text, f"sign {kind}", more=about)

    yield stretch(lane.waited, begin, "wait", "waiting", 2)
    yield stretch(begin, _first(lane.head, end), "asked", "asked", 4)
    yield stretch(lane.head, _first(lane.first, end), "head", "head in, no text", 6)
    yield stretch(lane.first, end, "flow", "text flows", 8)
    for start, stop in lane.stalls:
        yield stretch(start, stop, "stalled", "stalled", 10)
    if lane.first is not None and lane.seam:
        yield sign(lane.first, "┿", "seam", "seam")
    if lane.end is not None:
        how = end_of(lane, life)
        yield sign(end, *_SIGNS[how], label(lane, life))


def legend() -> str:
    """Explains what bars are made of."""
    boxes = (
        ("wait", "waiting"),
        ("asked", "asked"),
        ("head", "head in"),
        ("flow", "text flows"),
        ("stalled", "stalled"),
    )
    drawn = [
        f'<span><svg width="18" height="12" aria-hidden="true"><rect class="{kind}" width="18" y="2" height="8"/></svg>'
        f" {said}</span>"
        for kind, said in boxes
    ]
    signs = (("┿", "seam", "seam"), ("✗", "bad", "fault"), ("●", "good", "proven whole"), ("○", "odd", "given up"))
    drawn += [f'<span><b class="{kind}">{text}</b> {said}</span>' for text, kind, said in signs]
    return f'<p class="legend">{"".join(drawn)}</p>'


def _first(*values: float | None) -> float:
    return next(value for value in values if value is not None)


def _text(x: float, y: float, text: str, kind: str, *, anchor: str = "middle", more: str = "") -> str:
    return f'<text class="{kind}" x="{_pc(x)}" y="{y:g}" text-anchor="{anchor}">{more}{escape(text)}</text>'


def _svg(height: float, about: str, drawn: Sequence[str]) -> str:
    return f'<svg class="wide" height="{height:g}" role="img" aria-label="{escape(about)}">{"".join(drawn)}</svg>'


def _pc(value: float) -> str:
    return f"{min(max(value, 0.0), 100.0):.2f}%"


__all__ = ["PATTERN", "Mark", "Times", "bar", "histogram", "legend", "moment", "rows"]
