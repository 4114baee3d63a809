"""The programs of the pages on hedging, slow answers, early openings and buffers print what the pages say."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pages import ROOT, printed, run, untrue, write_files

PAGES = ["budget", "buffer", "cost", "fallback", "health-check", "hedge", "logs", "prefetch", "throughput", "traffic"]


@pytest.mark.parametrize("name", PAGES)
async def test_the_programs_print_what_the_page_says(tmp_path: Path, name: str) -> None:
    page = ROOT / f"docs/{name}.md"
    assert printed(page)
    write_files(page, tmp_path)
    assert await untrue(printed(page), lambda block: run(block.file, cwd=tmp_path), at_once=2) == {}
