"""The programs of the pages on limits of rate, of concurrency and of retries print what the pages say."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pages import ROOT, printed, run, untrue, write_files


@pytest.mark.parametrize("name", ["rate-limit", "concurrency", "retry-budget"])
async def test_the_programs_print_what_the_page_says(tmp_path: Path, name: str) -> None:
    page = ROOT / f"docs/{name}.md"
    assert printed(page)
    write_files(page, tmp_path)
    assert await untrue(printed(page), lambda block: run(block.file, cwd=tmp_path), at_once=2) == {}
