"""Two clients side by side: what each shows of one answer, drawn in rows, and the stage they are shown on.

Drawing is plain functions from values to rows, so a terminal and a pipe say the same. On a terminal the text moves and
the table grows above it; elsewhere each stream is told once, when it is over, and nothing is moved or coloured.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self

from holdfast.cli._paper import Paper, Row, columns, cut
from holdfast.telemetry.words import seconds
from holdfast.testing.answers import Answer

_WORDS = re.compile(r"\n+| |[!-~]+|.[，。；：？！”]*")  # no row begins with a full stop
LINES = 11
"""Lines of text that are shown of an answer while it comes."""
_TAIL = 3


@dataclass(slots=True, kw_only=True)
class Side:
    """What one client has shown so far. `seams` are places in its text, `said` is its last word about itself."""

    text: str = ""
    said: str = ""
    over: bool = False
    seams: list[int] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Act:
    """One stream, asked for by both clients."""

    number: int
    total: int
    name: str
    truth: Answer
    naive: Side = field(default_factory=Side)
    holdfast: Side = field(default_factory=Side)
    naive_said: str = "done"
    exact: bool = False
    requests: int = 0
    seams: int = 0
    retries: int = 0
    repaid: int = 0
    seconds: float = 0.0

    def lost(self, side: Side) -> int:
        """Counts the characters that a client did not deliver as they are."""
        return len(self.truth.text) - _agreed(side.text, self.truth.text)


def _agreed(text: str, truth: str) -> int:
    """Counts the characters up to the first that differs."""
    pairs = enumerate(zip(text, truth, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(text), len(truth)))


# -- the signs -----------------------------------------------------------------------------------


def legend(*, unicode: bool = True, struck: bool = False) -> list[Row]:
    """Explains the signs in the text; `struck`: what never came is shown, too."""
    seam, fault = _signs(unicode=unicode)
    never = "; struck out: what never came" if struck else ""
    return [
        [(seam, "bold magenta"), (" seam: here Holdfast went on after a fault, nothing lost and nothing twice", "dim")],
        [(fault, "bold red"), (f" fault: here a client's answer ended too early{never}", "dim")],
    ]


def _signs(*, unicode: bool) -> tuple[str, str]:
    return ("┿", "✗") if unicode else ("+", "x")


# -- text in two columns -----------------------------------------------------------------------


def frame(act: Act, width: int, lines: int, *, unicode: bool = True) -> list[Row]:
    """Draws both clients' text, the last `lines` lines of it, and what each says."""
    each = (width - 3) // 2
    left = _pane("naive client", act, act.naive, each, lines, unicode=unicode)
    right = _pane("Holdfast", act, act.holdfast, each, lines, unicode=unicode)
    bar = " │ " if unicode else " | "
    title: Row = [(f"stream {act.number} of {act.total}: ", "dim"), (act.name, "bold")]
    return [title, *([*_padded(a, each), (bar, "dim"), *b] for a, b in zip(left, right, strict=True))]


def _pane(name: str, act: Act, side: Side, width: int, lines: int, *, unicode: bool) -> list[Row]:
    pieces: Row = []
    start = 0
    seam, fault = _signs(unicode=unicode)
    for place in side.seams:
        pieces += [(side.text[start:place], ""), (seam, "bold magenta")]
        start = place
    pieces.append((side.text[start:], ""))
    if side.over and act.lost(side):
        pieces.append((fault, "bold red"))
    rows = _flow(pieces, width)[-lines:]
    if side.over and act.lost(side):
        # What never came is shown as well, struck out, as far as there is room: that is what a reader would miss.
        rows = _flow([*pieces, (act.truth.text[len(side.text) :], "dim strike red")], width)
        rows = rows[-lines:] if len(rows) <= lines else rows[max(0, len(_flow(pieces, width)) - lines + 4) :][:lines]
    rows += [[] for _ in range(lines - len(rows))]
    style = "" if not side.over else "bold red" if act.lost(side) else "bold green"
    return [[(name, "bold underline")], *rows, [(cut(side.said, width), style)]]


def plain_frame(act: Act, width: int, *, unicode: bool) -> list[Row]:
    """Draws the ends of both texts: where a naive client stopped, and where the answer ends."""
    sides = Act(number=act.number, total=act.total, name=act.name, truth=act.truth)
    for mine, theirs in ((sides.naive, act.naive), (sides.holdfast, act.holdfast)):
        mine.text = theirs.text or "(nothing) "
        if act.lost(theirs):
            mine.text += _signs(unicode=unicode)[1]
        mine.said, mine.seams = theirs.said, theirs.seams
    rows = frame(sides, width, _TAIL, unicode=unicode)
    return [*(rows if unicode else map(_in_ascii, rows)), []]


def _in_ascii(row: Row) -> Row:
    """Keeps the columns where the paper has no sign for a character."""
    return [("".join(c if c.isascii() else "?" * columns(c) for c in text), style) for text, style in row]


def _flow(pieces: Iterable[tuple[str, str]], width: int) -> list[Row]:
    """Breaks styled text into rows: at blanks, and anywhere between Chinese characters."""
    rows: list[Row] = [[]]
    used = 0
    for text, style in pieces:
        for word in _WORDS.findall(text):
            if word[0] == "\n" or used + columns(word) > width:
                rows.append([])
                used = 0
                if word.isspace():
                    continue
            rows[-1].append((word, style))
            used += columns(word)
    return rows


def _padded(row: Row, width: int) -> Row:
    return [*row, (" " * max(0, width - sum(columns(text) for text, _ in row)), "")]


# -- the table ---------------------------------------------------------------------------------


def table_head() -> list[Row]:
    """Draws the head of the table of outcomes."""
    names = (
        f"{'fault':<26}{'chars':>6}  {'lost':>4}  {'it said':<10}  {'lost':>4}{'requests':>10}{'seams':>6}{'time':>8}"
    )
    clients: Row = [(f"{'naive client':<16}", "bold underline"), ("  ", ""), (f"{'Holdfast':<28}", "bold underline")]
    return [[(" " * 34, ""), *clients], [(names, "dim")]]


def table_row(act: Act) -> Row:
    """Draws one stream's outcome."""
    lost, kept = act.lost(act.naive), act.lost(act.holdfast)
    bad, good = "bold red" if lost else "green", "bold green" if act.exact else "bold red"
    counts = f"{act.requests:>10}{act.seams or '':>6}{seconds(act.seconds):>8}"
    return [
        (f"{cut(act.name, 26):<26}", ""),
        (f"{len(act.truth.text):>6}  ", "dim"),
        (f"{lost:>4}  {act.naive_said:<10}  ", bad),
        (f"{kept:>4}", good),
        (counts, ""),
    ]


# -- the stage ---------------------------------------------------------------------------------


class Stage(Protocol):
    """Where acts are shown."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def draw(self, act: Act) -> None:
        """Shows how far an act has come."""

    def finish(self, act: Act) -> None:
        """Shows how it ended."""


class PlainStage:
    """Tells each act once, and the table at the end."""

    def __init__(self, paper: Paper) -> None:
        self._paper = paper
        self._rows: list[Row] = []

    def __enter__(self) -> Self:
        self._paper.write([*legend(unicode=self._paper.unicode), []])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._paper.write([*table_head(), *self._rows])

    def draw(self, act: Act) -> None:
        """Nothing moves here."""

    def finish(self, act: Act) -> None:
        self._rows.append(table_row(act))
        self._paper.write(plain_frame(act, self._paper.width, unicode=self._paper.unicode))
        self._paper.out.flush()


class LiveStage:
    """Moves the text at the foot of a terminal, and lets the table grow above it. Needs rich."""

    def __init__(self, paper: Paper) -> None:
        from rich.console import Console
        from rich.live import Live

        self._width, self._unicode = paper.width, paper.unicode
        self._console = Console(file=paper.out, highlight=False)
        self._lines = max(3, min(LINES, self._console.height - 8))
        self._live: Any = Live(console=self._console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        self._print([*legend(unicode=self._unicode, struck=True), [], *table_head()])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def _print(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self._console.print(_text(row), soft_wrap=True)

    def draw(self, act: Act) -> None:
        from rich.console import Group

        rows = frame(act, self._width, self._lines, unicode=self._unicode)
        self._live.update(Group("", *map(_text, rows)), refresh=True)

    def finish(self, act: Act) -> None:
        self.draw(act)
        self._print([table_row(act)])


def _text(row: Row) -> Any:
    from rich.text import Text

    return Text.assemble(*row, no_wrap=True, overflow="crop")


def stage_for(paper: Paper) -> Stage:
    """Gives a stage that moves where a person looks on and rich is there, else a plain one."""
    if paper.terminal:
        try:
            return LiveStage(paper)
        except ImportError:
            pass
    return PlainStage(paper)


__all__ = ["Act", "Side", "Stage", "frame", "legend", "stage_for", "table_head", "table_row"]
