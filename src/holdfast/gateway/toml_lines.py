"""Where a key stands in a TOML file: `tomllib` gives values and forgets their lines, and who made a mistake wants one.

The text has been read by `tomllib` before, so this needs to understand no more than keys, headers, and where a value
ends. A key inside an inline table has the line of the key before it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

Path = tuple[str | int, ...]
"""What leads to a value: names, and numbers in arrays."""

_PART = r"""(?:"(?:[^"\\\n]|\\.)*"|'[^'\n]*'|[A-Za-z0-9_-]+)"""
_PARTS = re.compile(_PART)
_DOTTED = rf"{_PART}(?:[ \t]*\.[ \t]*{_PART})*"
_HEADER = re.compile(rf"\[(\[?)[ \t]*({_DOTTED})[ \t]*\]\]?")
_KEY = re.compile(rf"({_DOTTED})[ \t]*=")
_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)+")
_TOKEN = re.compile(
    r'"""(?:[^\\]|\\.)*?"""+|'
    r"'''.*?'''+|"
    r'"(?:[^"\\\n]|\\.)*"|'
    r"'[^'\n]*'|#[^\n]*|.",
    re.DOTALL,
)


def lines_of(text: str) -> Mapping[Path, int]:
    """Gives the line, from 1, of every table and key of a TOML text."""
    lines: dict[Path, int] = {}
    counts: dict[Path, int] = {}
    table: Path = ()
    place = 0
    while place < len(text):
        blank = _BLANK.match(text, place)
        if blank is not None:
            place = blank.end()
            continue
        line = text.count("\n", 0, place) + 1
        header = _HEADER.match(text, place)
        if header is not None:
            table = _resolved(_parts(header[2]), counts, several=bool(header[1]))
            lines.setdefault(table, line)
            place = header.end()
            continue
        key = _KEY.match(text, place)
        if key is None:
            break
        parts = _parts(key[1])
        for end in range(1, len(parts) + 1):
            lines.setdefault((*table, *parts[:end]), line)
        place = _after_value(text, key.end())
    return lines


def line_at(lines: Mapping[Path, int], path: Path) -> int:
    """Gives the line of a key, or of what it is in."""
    return next((line for end in range(len(path), 0, -1) if (line := lines.get(path[:end])) is not None), 1)


def _resolved(parts: Sequence[str], counts: dict[Path, int], *, several: bool) -> Path:
    """Gives the path of a header: one of an array of tables is the newest of them."""
    path: Path = ()
    for number, part in enumerate(parts, 1):
        path = (*path, part)
        if several and number == len(parts):
            counts[path] = counts.get(path, 0) + 1
        if path in counts:
            path = (*path, counts[path] - 1)
    return path


def _parts(dotted: str) -> list[str]:
    return [_unquoted(part) for part in _PARTS.findall(dotted)]


def _unquoted(part: str) -> str:
    if part.startswith("'"):
        return part[1:-1]
    if not part.startswith('"'):
        return part
    try:
        return str(json.loads(part))
    except ValueError:  # one of TOML's own escapes
        return part[1:-1]


def _after_value(text: str, place: int) -> int:
    """Gives where the line ends that a value ends in."""
    depth = 0
    while (token := _TOKEN.match(text, place)) is not None:
        if token[0] == "\n" and not depth:
            return place
        depth += (token[0] in "[{") - (token[0] in "]}")
        place = token.end()
    return len(text)
