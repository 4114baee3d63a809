"""The programs of docs/resume.md print what the page says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pages import ROOT, Block, blocks, printed, run, untrue, write_files

PAGE = ROOT / "docs/resume.md"


@pytest.mark.timeout(300)
async def test_the_programs_print_what_the_page_says(tmp_path: Path) -> None:
    async def output(block: Block) -> str:
        return await run(block.file, cwd=tmp_path)

    write_files(PAGE, tmp_path)
    assert await untrue(printed(PAGE), output, at_once=2) == {}


def test_every_program_of_the_page_is_run() -> None:
    programs = {block.file for block in blocks(PAGE) if block.language == "python" and block.file}
    assert programs == {block.file for block in printed(PAGE)}
