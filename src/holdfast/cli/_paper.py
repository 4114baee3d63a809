"""What commands write on: rows of (text, style) pieces, coloured where a person looks and plain elsewhere.

Styles are rich's own words ("bold red"). Without rich, with NO_COLOR, and in a pipe the same rows come out plain, so
nothing may be said by colour alone.
"""

from __future__ import annotations

import os
import shutil
import sys
import unicodedata
from collections.abc import Iterable
from typing import Any, TextIO

Row = list[tuple[str, str]]


class Paper:
    """Writes rows to a text stream. `width` is the terminal's, or 80 where there is none."""

    def __init__(self, out: TextIO | None = None) -> None:
        self.out: TextIO = out or sys.stdout
        self.terminal = _is_terminal(self.out)
        self.width = max(60, min(shutil.get_terminal_size((80, 24)).columns, 140)) if self.terminal else 80
        self.unicode = _speaks_unicode(self.out)
        self._console = _console(self.out) if self.terminal and "NO_COLOR" not in os.environ else None

    def write(self, rows: Iterable[Row]) -> None:
        """Writes rows, one a line."""
        for row in rows:
            plain = "".join(text for text, _ in row).rstrip()
            if self._console is not None:
                self._console(row)
            elif self.unicode:
                self.out.write(plain + "\n")
            else:
                encoding = self.out.encoding or "ascii"
                self.out.write(plain.replace("·", "-").encode(encoding, "replace").decode(encoding) + "\n")


def _console(out: TextIO) -> Any:
    """Gives a function that prints a row in colour, or None where rich is missing."""
    try:
        from rich.console import Console
        from rich.text import Text
    except ImportError:
        return None
    console = Console(file=out, highlight=False, soft_wrap=True)

    def show(row: Row) -> None:
        console.print(Text.assemble(*row), soft_wrap=True)

    return show


def _is_terminal(out: TextIO) -> bool:
    try:
        return out.isatty() and os.environ.get("TERM") != "dumb"
    except (AttributeError, ValueError):
        return False


def _speaks_unicode(out: TextIO) -> bool:
    try:
        "━✗●".encode(out.encoding or "ascii")
    except (LookupError, UnicodeEncodeError):
        return False
    return True


def columns(text: str) -> int:
    """How many columns of a terminal a text takes: a Chinese character takes two."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else not unicodedata.combining(c) for c in text)


def cut(text: str, width: int) -> str:
    """Shortens a text to at most `width` columns."""
    if columns(text) <= width:
        return text
    kept = ""
    for c in text:
        if columns(kept + c) > width - 2:
            break
        kept += c
    return kept + ".."


def wrap(text: str, width: int) -> list[str]:
    """Breaks a text into lines of at most `width` columns, between words where there are any."""
    lines = [""]
    for word in text.split(" "):
        rest = word
        if lines[-1] and columns(lines[-1]) + 1 + columns(rest) <= width:
            lines[-1] += " " + rest
            continue
        if lines[-1]:
            lines.append("")
        while columns(rest) > width:
            head = next(rest[:size] for size in range(min(width, len(rest)), 0, -1) if columns(rest[:size]) <= width)
            lines[-1:] = [head, ""]
            rest = rest[len(head) :]
        lines[-1] = rest
    return lines


__all__ = ["Paper", "Row", "columns", "cut", "wrap"]
