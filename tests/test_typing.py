"""What `mypy --strict` must infer of the public API, and what it must refuse: tests/typing/ok.py and refuse.py."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mypy", reason="mypy is no tool of this environment")
ROOT = Path(__file__).resolve().parent.parent
ERROR = re.compile(r"^[^:]+:(\d+): error: .*\[([a-z-]+)\]$")


@pytest.fixture(scope="module")
def found() -> dict[str, list[str]]:
    """What mypy says of each file, in one run: most of its time is reading the library."""
    names = ["ok.py", "refuse.py"]
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--hide-error-context"]
    done = subprocess.run(
        [*command, *(f"tests/typing/{name}" for name in names)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        timeout=240,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if ": note: " not in line]
    return {name: [line for line in lines if line.startswith(f"tests/typing/{name}:")] for name in names}


@pytest.mark.timeout(300)
def test_everything_is_inferred_without_help(found: dict[str, list[str]]) -> None:
    assert found["ok.py"] == []


@pytest.mark.timeout(300)
def test_mistakes_are_refused_at_their_own_line(found: dict[str, list[str]]) -> None:
    text = (ROOT / "tests/typing/refuse.py").read_text("utf-8")
    marked = {
        (number, code)
        for number, line in enumerate(text.splitlines(), 1)
        for code in re.findall(r"# E: ([a-z-]+)$", line)
    }
    errors = {(int(match[1]), match[2]) for line in found["refuse.py"] if (match := ERROR.match(line))}
    assert errors == marked
    assert len(marked) > 20
