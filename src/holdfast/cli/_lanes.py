"""Draws one stream's life: a header, a lane per attempt to scale over a common time axis, and the steps in words."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.cli._paper import Row, columns, cut, seconds, wrap
from holdfast.telemetry.timeline import Lane, Life, Step

MAX_LANES = 12
_GUTTER = 7
_LABEL = 20
_STEP = 16


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


def verdict(life: Life) -> tuple[str, str]:
    """Gives the outcome in words, with its style."""
    if life.outcome == "resumed":
        guarantee = life.end.text("guarantee") if life.end is not None else ""
        return f"RESUMED ({', '.join(filter(None, (_count(life.seams, 'seam'), guarantee)))})", "bold green"
    if life.outcome == "complete":
        return "COMPLETE", "bold green"
    if life.failed:
        return life.outcome, "bold red"
    return {"running": "NO END IN THIS LOG", "cancelled": "GIVEN UP"}.get(life.outcome, life.outcome), "bold yellow"


def _count(number: float, noun: str) -> str:
    return f"{number:.0f} {noun}{'' if number == 1 else 's'}"


# -- the header ------------------------------------------------------------------------------------


def _header(life: Life, width: int) -> list[Row]:
    words, style = verdict(life)
    head: Row = [(life.id[:32], "bold"), ("  ", ""), (words, style)]
    rest = [life.dialect, *(f"{name}={value}" for name, value in life.labels.items())]
    left = width - sum(columns(text) for text, _ in head)
    about = cut("  " + "  ".join(filter(None, rest)), left) if left > 6 and any(rest) else ""
    return [[*head, (about, "cyan")], *([("  " + line, "")] for line in wrap(" · ".join(_numbers(life)), width - 2))]


def _numbers(life: Life) -> list[str]:
    numbers = [_count(life.attempts, "attempt")]
    if life.faults:
        numbers.append(_count(len(life.faults), "fault"))
    if life.first_delta_seconds is not None:
        numbers.append(f"first text {seconds(life.first_delta_seconds)}")
    numbers.append(f"{seconds(life.seconds)} in all")
    if life.end is None:
        return numbers
    gap, tokens, billed = (life.end.number(name) for name in ("longest_gap", "total_tokens", "billed_tokens"))
    if gap is not None and gap >= 1:
        numbers.append(f"longest gap {seconds(gap)}")
    if tokens is not None:
        numbers.append(_count(tokens, "token") + (f" ({billed:.0f} billed)" if billed and billed > tokens else ""))
    return numbers


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
        sign, style = _end(lane, life, signs)
        cells[place(end)] = (sign, style)
    name = f"#{lane.attempt}" if lane.attempt else "-"
    return [(f"  {name:<{_GUTTER - 2}}", "dim"), *_joined(cells), (" " + cut(_label(lane, life), _LABEL - 1), "")]


def _end(lane: Lane, life: Life, signs: Signs) -> tuple[str, str]:
    if lane.how in ("complete", "resumed"):
        return signs.proven, "bold green"
    if lane.how in ("cancelled", "ended") and not life.failed:
        return signs.left, "bold yellow"
    return signs.fault, "bold red"


def _label(lane: Lane, life: Life) -> str:
    if lane.how in ("complete", "resumed"):
        return "proven whole"
    if not lane.how:
        return "" if life.end is not None else "no end"
    return {"cancelled": "given up"}.get(lane.how, lane.how)


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
    words, style = _say(step)
    when = f"{step.at:10.3f}  "
    attempt = f"#{step.attempt}" if step.attempt else ""
    first, *more = wrap(words, width - _STEP)
    head: Row = [(when, "dim"), (f"{attempt:<4}", "dim"), (first, style)]
    return [head, *([(" " * _STEP + line, style)] for line in more)]


_SAID = {
    "stream.started": ("started  {url}", ""),
    "attempt.opening": ("request sent", ""),
    "attempt.opened": ("head {status} after {seconds}  {request_id}", ""),
    "stream.first_delta": ("first text", "green"),
    "attempt.retrying": ("FAULT {error}; again in {delay}", "red"),
    "stream.resuming": ("FAULT {error}; {rung} in {delay}", "red"),
    "stream.resumed": ("SEAM {guarantee} by {rung}, gap {gap}, {swallowed} items came again", "magenta"),
    "stream.diverged": ("the replay differed at character {position}", "red"),
    "stream.stalled": ("STALL the {clock} clock ran out after {seconds}", "yellow"),
    "breaker.changed": ("breaker {breaker}: {old} -> {new}", "yellow"),
    "stream.repaired": ("mended {count} x {what}", "yellow"),
    "events.dropped": ("dropped {count} events that came twice", ""),
    "recording.failed": ("the recording {path} was given up: {reason}", "yellow"),
    "stream.delivered": ("{items} items delivered, longest gap {longest_gap}", ""),
}
_DURATIONS = frozenset(("seconds", "delay", "gap", "longest_gap"))


def _say(step: Step) -> tuple[str, str]:
    """Tells a step in a person's words, with its style."""
    if step.event == "stream.ended":
        if "error" in step.facts:
            return f"ENDED {_error(step)}", "bold red"
        words = f"ended  {step.text('outcome')}  {step.text('finish_reason')}"
        return words, "green" if step.text("verdict") else "yellow"
    words, style = _SAID.get(step.event, (step.event, ""))
    return words.format_map(_Told(step)), style


class _Told(dict[str, str]):
    """What a step says, by name, as far as its line told it."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        self._step = step

    def __missing__(self, name: str) -> str:
        if name == "error":
            return _error(self._step)
        value = self._step.number(name)
        if name in _DURATIONS and value is not None:
            return seconds(value)
        return self._step.text(name)


def _error(step: Step) -> str:
    told = " ".join(filter(None, (step.text("error"), step.text("status"), step.text("code"))))
    message = step.text("error_message")
    return f"{told}: {message}" if message else told


__all__ = ["ASCII", "UNICODE", "Signs", "draw", "legend", "verdict"]
