"""Draws one stream's life: a header, a lane per attempt to scale over a common time axis, and the steps in words."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.cli._paper import Row, columns, cut, wrap
from holdfast.telemetry.timeline import Lane, Life, Step
from holdfast.telemetry.words import end_of, label, numbers, say, seconds, verdict

MAX_LANES = 12
_GUTTER = 7
_LABEL = 20
_STEP = 16
_ENDS = {"proven": "bold green", "left": "bold yellow", "fault": "bold red"}


@dataclass(slots=True, frozen=True)
class Signs:
    """The characters of a lane."""

    waiting: str = "·"
    asked: str = "╌"
    head: str = "─"
    text: str = "━"
    stall: str = "░"
    first: str = "▸"
    seam: str = "┿"
    fault: str = "✗"
    proven: str = "●"
    left: str = "○"


UNICODE = Signs()
ASCII = Signs(
    waiting=".", asked="-", head="_", text="=", stall="~", first=">", seam="+", fault="x", proven="*", left="o"
)


def legend(signs: Signs) -> list[Row]:
    """Explains the signs, in two rows."""
    times = (
        f"{signs.asked} asked  {signs.head} head in  {signs.first} first text  {signs.text} text flows  "
        f"{signs.stall} stalled  {signs.waiting} waiting"
    )
    marks = f"{signs.fault} fault  {signs.seam} seam  {signs.proven} proven whole  {signs.left} given up"
    return [[(times, "dim")], [(marks, "dim")]]


def draw(life: Life, *, width: int = 80, signs: Signs = UNICODE, steps: bool = True) -> list[Row]:
    """Draws a life in rows of at most `width` columns."""
    rows = [*_header(life, width), *_chart(life, width, signs)]
    if steps:
        rows += [row for step in life.steps for row in _words(step, width)]
        if life.left_out:
            rows.append([(f"  ({life.left_out} more steps in the middle, not kept)", "dim")])
    return rows


# -- the header ------------------------------------------------------------------------------------


def _header(life: Life, width: int) -> list[Row]:
    words, style = verdict(life)
    head: Row = [(life.id[:32], "bold"), ("  ", ""), (words, style)]
    rest = [life.dialect, *(f"{name}={value}" for name, value in life.labels.items())]
    left = width - sum(columns(text) for text, _ in head)
    about = cut("  " + "  ".join(filter(None, rest)), left) if left > 6 and any(rest) else ""
    return [[*head, (about, "cyan")], *([("  " + line, "")] for line in wrap(" · ".join(numbers(life)), width - 2))]


# -- the lanes -------------------------------------------------------------------------------------


def _chart(life: Life, width: int, signs: Signs) -> list[Row]:
    lanes = life.lanes()
    if not lanes:
        return []
    span = width - _GUTTER - _LABEL
    shown: list[Lane | None] = list(lanes)
    if len(lanes) > MAX_LANES:
        half = MAX_LANES // 2
        shown = [*lanes[:half], None, *lanes[-half:]]
    rows = [
        _lane(lane, life, span, signs) if lane is not None else [(f"       ({len(lanes) - MAX_LANES} more)", "dim")]
        for lane in shown
    ]
    total = seconds(life.seconds)
    axis = f"{'':{_GUTTER}}0" + total.rjust(span - 1)
    return [*rows, [(axis, "dim")]]


def _lane(lane: Lane, life: Life, span: int, signs: Signs) -> Row:
    """One attempt: every stretch of time in its own sign, then the marks over them."""
    total = life.seconds or 1.0
    cells = [(" ", "")] * span

    def place(when: float) -> int:
        return min(span - 1, max(0, round(when / total * (span - 1))))

    def fill(start: float | None, end: float, sign: str, style: str) -> None:
        if start is not None:
            for column in range(place(start), place(end) + 1):
                cells[column] = (sign, style)

    end = lane.end if lane.end is not None else life.seconds
    begin = lane.sent if lane.sent is not None else lane.head
    fill(lane.waited, begin if begin is not None else end, signs.waiting, "dim")
    fill(begin, end, signs.asked, "dim")
    fill(lane.head, end, signs.head, "cyan")
    fill(lane.first, end, signs.text, "green")
    for start, stop in lane.stalls:
        fill(start, stop, signs.stall, "yellow")
    if lane.first is not None:
        cells[place(lane.first)] = (signs.seam, "bold magenta") if lane.seam else (signs.first, "bold green")
    if lane.end is not None:
        how = end_of(lane, life)
        cells[place(end)] = (getattr(signs, how), _ENDS[how])
    name = f"#{lane.attempt}" if lane.attempt else "-"
    return [(f"  {name:<{_GUTTER - 2}}", "dim"), *_joined(cells), (" " + cut(label(lane, life), _LABEL - 1), "")]


def _joined(cells: Row) -> Row:
    """Puts neighbours of one style into one piece."""
    row: Row = []
    for sign, style in cells:
        if row and row[-1][1] == style:
            row[-1] = (row[-1][0] + sign, style)
        else:
            row.append((sign, style))
    return row


# -- the steps -------------------------------------------------------------------------------------


def _words(step: Step, width: int) -> list[Row]:
    words, style = say(step)
    when = f"{step.at:10.3f}  "
    attempt = f"#{step.attempt}" if step.attempt else ""
    first, *more = wrap(words, width - _STEP)
    head: Row = [(when, "dim"), (f"{attempt:<4}", "dim"), (first, style)]
    return [head, *([(" " * _STEP + line, style)] for line in more)]


__all__ = ["ASCII", "UNICODE", "Signs", "draw", "legend"]
