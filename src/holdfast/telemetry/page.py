"""The health of a service and its streams on one page of HTML that stands alone: no network, no script.

Sums are over all streams (they are `Health`'s, so `--summary` says the same); of the streams themselves the worst are
drawn, and no more are kept. A log is a stranger's text: all of it is escaped, and a Content-Security-Policy in the page
forbids whatever an error of ours might let through.
"""

from __future__ import annotations

import heapq
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator
from hashlib import sha256
from html import escape
from importlib.resources import files
from itertools import count as numbered
from itertools import islice

from holdfast.telemetry import pictures
from holdfast.telemetry.health import Health
from holdfast.telemetry.pictures import Mark, Times, moment
from holdfast.telemetry.timeline import Life
from holdfast.telemetry.words import count, judge, numbers, say, seconds, verdict

MAX_DRAWN = 500
"""Streams drawn: a page of so many is about a megabyte."""
_MAX_LABELS = 12
_MAX_ROWS = 20


class Page:
    """Takes streams in, and writes the page. `health` is whoever adds the same streams up."""

    def __init__(self, health: Health, *, most: int = MAX_DRAWN) -> None:
        self._health = health
        self._most = most
        self._times = Times()
        self._worst: list[tuple[tuple[int, int, float], int, Life]] = []
        self._number = numbered()

    def add(self, life: Life) -> None:
        """Takes one stream in, and keeps it while there are not enough worse ones."""
        self._times.add(life.began, _kind(life))
        rank = {"failed": 2, "faults": 1, "smooth": 0}[_kind(life)], len(life.faults), life.seconds
        kept = (rank, next(self._number), life)
        if len(self._worst) < self._most:
            heapq.heappush(self._worst, kept)
        else:
            heapq.heappushpop(self._worst, kept)

    def write(self, title: str, *notes: str) -> Iterator[str]:
        """Gives the page in pieces."""
        style = files("holdfast.telemetry").joinpath("page.css").read_text("utf-8")
        digest = b64encode(sha256(style.encode()).digest()).decode()
        yield (
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            f"<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'sha256-{digest}'\">"
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{escape(title)}</title><style>{style}</style></head>\n<body>{pictures.PATTERN}"
        )
        yield f"<header><h1>{escape(title)}</h1>"
        yield from (f'<p class="dim">{escape(note)}</p>' for note in notes)
        yield "</header>\n"
        yield from self._objectives()
        yield from self._histograms()
        yield f'<h2>Streams by the time they began, UTC</h2><p class="legend">{_KINDS}</p>{self._times.draw()}\n'
        yield from self._counts()
        yield from self._streams()
        yield "</body></html>\n"

    def _objectives(self) -> Iterator[str]:
        health = self._health
        met = [check.met for check in health.checks()]
        word = "not every objective is met" if False in met else "every objective is met" if True in met else "no data"
        style = "red" if False in met else "green" if True in met else "dim"
        yield f'<h2>Health: <span class="{style}">{word}</span></h2><div class="cards">'
        for check in health.checks():
            what, found, wanted, judged, how = judge(check)
            yield (
                f'<div class="card{" missed" if check.met is False else ""}"><h3>{escape(what)}</h3>'
                f'<p class="found">{escape(found)}</p><p>{escape(wanted)}: <b class="{how}">{judged}</b></p></div>'
            )
        told = [count(health.attempts, "request"), count(health.seams, "seam")]
        told.append(count(sum(health.faults.values()), "fault"))
        yield (
            f'<div class="card"><h3>streams</h3><p class="found">{health.streams}</p><p>{", ".join(told)}</p></div>'
            "</div>\n"
        )
        for name, state in islice(health.breakers.items(), _MAX_ROWS):
            style = "green" if state == "closed" else "bold red"
            yield f'<p>breaker {escape(name or "(unnamed)")}: <b class="{style}">{escape(state)}</b></p>'

    def _histograms(self) -> Iterator[str]:
        health, wanted = self._health, self._health.objectives
        first = _marks((health.first_seconds(50), "p50"), (health.first_seconds(99), "p99"))
        whole = _marks((health.seconds(50), "p50"), (health.seconds(99), "p99"))
        rate = _marks((health.chunk_rate(1), "p1"), (health.chunk_rate(50), "p50"))
        yield '<h2>How long, how fast</h2><div class="cards">'
        for title, values, marks, unit in (
            ("time to the first chunk", health.values("first_seconds"), first, seconds),
            ("duration", health.values("seconds"), whole, seconds),
            ("chunks a second", health.values("chunk_rate"), rate, "{:.3g}".format),
        ):
            limits: dict[str, list[Mark]] = {
                "time to the first chunk": [(wanted.first_chunk_p99, "objective for p99", "bad")],
                "chunks a second": [(wanted.chunks_per_second, "objective for p50", "bad")],
            }
            drawn = pictures.histogram(values, [*marks, *limits.get(title, [])], unit, title)
            told = " · ".join(f"{name} {unit(value)}" for value, name, _ in marks)
            yield (
                f'<div class="card"><h3>{title}</h3><p class="dim">{told or "of no stream"}'
                f" · {count(len(values), 'stream')}</p>{drawn}</div>"
            )
        yield "</div>\n"

    def _counts(self) -> Iterator[str]:
        yield '<h2>Ends and faults</h2><div class="cards">'
        yield _table("how streams ended", self._health.outcomes)
        yield _table("faults met on the way", self._health.faults)
        yield "</div>\n"

    def _streams(self) -> Iterator[str]:
        drawn = sorted(self._worst, key=lambda kept: (moment(kept[2].began) if kept[2].began else "", kept[1]))
        if not drawn:
            return
        left = self._health.streams - len(drawn)
        which = f"the {len(drawn)} worst of {self._health.streams}" if left > 0 else f"all {len(drawn)}"
        yield f'<h2>Streams: {which}</h2><p class="legend choice">{_CHOICE}</p>{pictures.legend()}\n'
        lengths = sorted(life.seconds for _, _, life in drawn)
        # One stream of ten minutes must not make dots of all the others: it is cut off.
        total = min(lengths[-1], 3 * lengths[len(lengths) * 3 // 4]) or 1.0
        yield f'<p class="dim">Bars are to scale, {seconds(total)} wide. A click on one shows its steps.</p>\n'
        for _, _, life in drawn:
            yield from _stream(life, total)


_KINDS = "".join(
    '<span><svg width="12" height="12" aria-hidden="true">'
    f'<rect class="{kind}" width="12" height="12"/></svg> {said}</span>'
    for kind, said in (("calm", "without a fault"), ("odd", "met faults and went on"), ("bad", "failed"))
)
_CHOICE = "".join(
    f'<label><input type="radio" name="shown" id="{name}"{checked}> {said}</label>'
    for name, checked, said in (
        ("all", " checked", "all"),
        ("only-faults", "", "that met faults"),
        ("only-failed", "", "that failed"),
    )
)


def _kind(life: Life) -> str:
    return "failed" if life.failed else "faults" if life.faults or life.seams else "smooth"


def _marks(*told: tuple[float | None, str]) -> list[Mark]:
    return [(value, name, "dim") for value, name in told if value is not None]


def _table(title: str, counts: Counter[str]) -> str:
    most = max(counts.values(), default=1)
    rows = [
        f'<tr><td>{escape(name)}</td><td class="number">{number}</td><td class="share"><svg class="wide" height="10" '
        f'aria-hidden="true"><rect class="calm" width="{number / most * 100:.1f}%" height="10"/></svg></td></tr>'
        for name, number in counts.most_common(_MAX_ROWS)
    ]
    if len(counts) > _MAX_ROWS:
        rest = counts.total() - sum(number for _, number in counts.most_common(_MAX_ROWS))
        rows.append(f'<tr><td class="dim">{len(counts) - _MAX_ROWS} others</td><td class="number">{rest}</td></tr>')
    return f'<div class="card"><h3>{title}</h3><table>{"".join(rows) or "<tr><td>none</td></tr>"}</table></div>'


def _stream(life: Life, total: float) -> Iterator[str]:
    words, style = verdict(life)
    began = moment(life.began) if life.began is not None else ""
    yield (
        f'<details class="{_kind(life)}"><summary><span class="dim">{began}</span>'
        f'<span class="{style}" title="{escape(words)}">{escape(words)}</span>'
        f"{pictures.bar(life, total)}<span>{seconds(life.seconds)}</span></summary>"
        f'<div class="inside"><p><b>{escape(life.id)}</b> {escape(life.dialect)} {escape(life.url)}</p>'
        f"<p>{escape(' · '.join(numbers(life)))}</p>"
    )
    labels = list(life.labels.items())
    if labels:
        more = f" and {len(labels) - _MAX_LABELS} more" if len(labels) > _MAX_LABELS else ""
        yield f"<p>{escape(', '.join(f'{name}={value}' for name, value in labels[:_MAX_LABELS]))}{more}</p>"
    yield pictures.rows(life)
    yield "<table>"
    for step in life.steps:
        said, tone = say(step)
        number = f"#{step.attempt}" if step.attempt else ""
        yield (
            f'<tr><td class="number dim">{step.at:.3f}</td><td class="number dim">{number}</td>'
            f'<td class="{tone}">{escape(said)}</td></tr>'
        )
    left = f'<p class="dim">{life.left_out} more steps in the middle, not kept</p>' if life.left_out else ""
    yield f"</table>{left}</div></details>\n"


__all__ = ["MAX_DRAWN", "Page"]
