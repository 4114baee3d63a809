"""The program of docs/auto-continue.md prints what the page says."""

from __future__ import annotations

from pathlib import Path

from tests.pages import ROOT, printed, run, untrue, write_files

PAGE = ROOT / "docs/auto-continue.md"


async def test_the_program_prints_what_the_page_says(tmp_path: Path) -> None:
    write_files(PAGE, tmp_path)
    assert await untrue(printed(PAGE), lambda block: run(block.file, cwd=tmp_path), at_once=1) == {}
