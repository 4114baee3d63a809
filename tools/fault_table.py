"""Writes the table of faults into docs/testing.md: `python -m tools.fault_table`. A test keeps it true."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from holdfast.testing.faults import KINDS, VOCABULARY, Healthy

PAGE = Path(__file__).resolve().parent.parent / "docs/testing.md"
_TABLE = re.compile(r"^\| fault \| what happens \| kind \|\n(?:\|.*\n)+", re.MULTILINE)
_GROUPS = ("evident", "final", "silent")


def table() -> str:
    """Gives the table: a row for every type of fault."""
    rows = ["| fault | what happens | kind |", "|---|---|---|"]
    for kind in KINDS:
        if kind is not Healthy:
            happens = " ".join(inspect.cleandoc(kind.__doc__ or "").split()).replace("|", "\\|")
            rows.append(f"| `{_settings(kind)}` | {happens} | {', '.join(_kinds(kind))} |")
    return "\n".join(rows) + "\n"


def _settings(kind: type) -> str:
    parameters = inspect.signature(kind).parameters.values()
    return f"{kind.__name__}({', '.join(f'{one.name}={one.default!r}' for one in parameters)})"


def _kinds(kind: type) -> list[str]:
    examples = [fault for fault in VOCABULARY if type(fault) is kind] or [kind()]
    found = {"silent" if not fault.evident else "final" if fault.final else "evident" for fault in examples}
    return [name for name in _GROUPS if name in found]


def written(page: str) -> str:
    """Gives the page with its table written anew."""
    return _TABLE.sub(lambda _: table(), page)


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text("utf-8")), "utf-8")
