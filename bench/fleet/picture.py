"""docs/fleet.svg: one bad day, without the layers and with all of them, drawn by hand in SVG.

Colours never stand alone: what is off is dashed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from bench.fleet.figures import Course, course
from bench.fleet.run import Run
from bench.fleet.scenarios import Scenario

LEFT, TOP, WIDTH, HEIGHT, GAP = 60, 96, 840, 110, 44
STYLES = (("without", "#d64545", 'stroke-dasharray="6 4"'), ("with all layers", "#1f6fb4", ""))
SHADES = {"outage": "#f6d5d5", "slow": "#fbeacb", "half-dead": "#e6dcf0"}
PANELS: tuple[tuple[str, Callable[[Course], list[float]], float], ...] = (
    ("whole answers a second", lambda one: one.goodput, 1.0),
    ("seconds to the first token, p99", lambda one: one.p99, 1.0),
    ("429s, % of requests", lambda one: one.too_many, 100.0),
    ("requests for each call", lambda one: one.amplification, 1.0),
)


def _text(x: float, y: float, words: str, extra: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" {extra}>{escape(words)}</text>'


def _line(values: Sequence[float], top: float, highest: float, look: str) -> str:
    across = WIDTH / len(values)
    points = " ".join(
        f"{LEFT + across * (place + 0.5):.1f},{top + HEIGHT * (1 - value / highest):.1f}"
        for place, value in enumerate(values)
    )
    return f'<polyline points="{points}" fill="none" stroke-width="1.8" {look}/>'


def _panel(title: str, lines: Sequence[Sequence[float]], scenario: Scenario, top: float) -> list[str]:
    highest = max(1e-9, *(max(values) for values in lines)) * 1.08
    drawn = []
    for one in scenario.brown_outs:
        x, width = LEFT + WIDTH * one.begin / scenario.seconds, WIDTH * (one.end - one.begin) / scenario.seconds
        drawn.append(f'<rect x="{x:g}" y="{top:g}" width="{width:g}" height="{HEIGHT}" fill="{SHADES[one.kind]}"/>')
    drawn.append(_text(LEFT, top - 6, title, 'font-weight="bold"'))
    drawn.append(f'<rect x="{LEFT}" y="{top:g}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#bbb"/>')
    drawn.append(_text(LEFT - 6, top + 10, f"{highest:.3g}", 'text-anchor="end"'))
    drawn.append(_text(LEFT - 6, top + HEIGHT, "0", 'text-anchor="end"'))
    drawn += [
        _line(values, top, highest, f'stroke="{colour}" {dash}')
        for values, (_, colour, dash) in zip(lines, STYLES, strict=True)
    ]
    return drawn


def _legend(scenario: Scenario) -> list[str]:
    drawn = []
    for place, (name, colour, dash) in enumerate(STYLES):
        x = LEFT + place * 130
        drawn.append(f'<line x1="{x}" y1="50" x2="{x + 26}" y2="50" stroke="{colour}" stroke-width="2" {dash}/>')
        drawn.append(_text(x + 32, 54, name))
    for place, one in enumerate(scenario.brown_outs):
        x = LEFT + 300 + place * 170
        where = f"{one.kind}: {one.region or 'everywhere'}"
        drawn.append(f'<rect x="{x}" y="43" width="14" height="14" fill="{SHADES[one.kind]}"/>')
        drawn.append(_text(x + 20, 54, where))
    return drawn


def picture(without: Run, with_all: Run) -> str:
    """Draws the two runs of one scenario."""
    scenario, courses = without.scenario, (course(without), course(with_all))
    drawn: list[str] = []
    for place, (title, take, times) in enumerate(PANELS):
        top = TOP + place * (HEIGHT + GAP)
        drawn += _panel(title, [[times * value for value in take(one)] for one in courses], scenario, top)
    bottom = TOP + len(PANELS) * (HEIGHT + GAP)
    seconds = range(0, int(scenario.seconds) + 1, 60)
    marks = [
        _text(LEFT + WIDTH * at / scenario.seconds, bottom - GAP + 16, f"{at} s", 'text-anchor="middle"')
        for at in seconds
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 30} {bottom}"',
            f'width="{LEFT + WIDTH + 30}" height="{bottom}" font-family="system-ui, sans-serif" font-size="11"',
            'fill="#222">',
            f'<rect width="{LEFT + WIDTH + 30}" height="{bottom}" fill="#fff"/>',
            _text(LEFT, 26, f"{scenario.clients:,} clients and {scenario.name}", 'font-size="15" font-weight="bold"'),
            *_legend(scenario),
            *drawn,
            *marks,
            "</svg>",
            "",
        ]
    )
