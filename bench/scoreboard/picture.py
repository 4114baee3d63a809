"""docs/scoreboard.svg: the matrix of one fault from a server without ids, and the mix, drawn by hand in SVG.

Colours never stand alone: each field of the matrix has its mark too.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from bench.scoreboard.judge import MARKS, OUTCOMES, Outcome
from bench.scoreboard.page import mixed, named
from bench.scoreboard.plan import CORRUPTION, FAULTS, MODES, Plan, groups
from bench.scoreboard.run import Card

COLOURS: dict[Outcome, str] = {
    "exact": "#2f9e66",
    "typed": "#5b8fd6",
    "foreign": "#e0a526",
    "wrong": "#d64545",
    "hang": "#5d3a8c",
}
LEFT, TOP, CELL, ROW = 290, 190, 46, 16
BAR, BAR_ROW = 460, 18
TITLES = {"ids": "server with ids", "no-ids": "no ids, same answer", "divergent": "no ids, answers diverge"}


def _text(x: float, y: float, words: str, extra: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" {extra}>{escape(words)}</text>'


def _box(x: float, y: float, width: float, height: float, outcome: Outcome) -> str:
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" fill="{COLOURS[outcome]}"/>'


def _legend(y: float) -> list[str]:
    drawn = []
    for place, outcome in enumerate(OUTCOMES):
        x = 20 + place * 130
        drawn += [_box(x, y - 11, 14, 14, outcome), _text(x + 20, y, f"{MARKS[outcome]} {outcome}")]
    return drawn


def _matrix(cards: Sequence[Card]) -> tuple[list[str], float]:
    drawn = [
        _text(0, 0, card.title, f'transform="translate({LEFT + column * CELL + 26:g},{TOP - 10}) rotate(-50)"')
        for column, card in enumerate(cards)
    ]
    y: float = TOP
    for group, faults in groups("no-ids").items():
        if group == CORRUPTION:
            continue
        y += 22
        drawn.append(_text(20, y - 6, group, 'font-weight="bold"'))
        for fault in faults:
            drawn.append(_text(LEFT - 10, y + 12, named(fault), 'text-anchor="end"'))
            for column, card in enumerate(cards):
                outcome = card.outcomes[f"once no-ids {FAULTS.index(fault)}"]
                x = LEFT + column * CELL
                drawn.append(_box(x, y, CELL - 2, ROW - 2, outcome))
                drawn.append(_text(x + CELL / 2 - 1, y + 11, MARKS[outcome], 'fill="#fff" text-anchor="middle"'))
            y += ROW
    return drawn, y


def _bars(cards: Sequence[Card], plan: Plan, y: float) -> tuple[list[str], float]:
    drawn = []
    for mode in MODES:
        y += 34
        drawn.append(_text(20, y - 8, f"The mix, {TITLES[mode]}", 'font-weight="bold"'))
        for card in cards:
            counted, x = mixed(card, mode), float(LEFT)
            drawn.append(_text(LEFT - 10, y + 12, card.title, 'text-anchor="end"'))
            for outcome in OUTCOMES:
                width = BAR * counted[outcome] / plan.streams
                if width:
                    drawn.append(_box(x, y, width, BAR_ROW - 3, outcome))
                x += width
            drawn.append(_text(LEFT + BAR + 8, y + 12, f"{100 * counted['exact'] / plan.streams:.1f} % exact"))
            y += BAR_ROW
    return drawn, y


def picture(cards: Sequence[Card], plan: Plan) -> str:
    """Draws it."""
    matrix, below = _matrix(cards)
    bars, bottom = _bars(cards, plan, below + 10)
    width, height = max(LEFT + len(cards) * CELL + 130, LEFT + BAR + 120), bottom + 20
    title = "One fault at the first attempt, a server without ids; then the mix at 0.12 per attempt"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}"',
            f'width="{width:g}" height="{height:g}" font-family="system-ui, sans-serif" font-size="11" fill="#222">',
            f'<rect width="{width:g}" height="{height:g}" fill="#fff"/>',
            _text(20, 26, title, 'font-size="15" font-weight="bold"'),
            *_legend(50),
            *matrix,
            *bars,
            "</svg>",
            "",
        ]
    )
