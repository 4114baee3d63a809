"""Every program of the migration pages prints what its page says, before a server that fails in the way it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.testing.server import ScriptedServer
from tests.docs.situations import FEED, WORDS, Situation
from tests.pages import ROOT, Block, blocks, printed, run, untrue, write_files

PAGES = sorted((ROOT / "docs/migrate").glob("*.md"))
PRINTED = [block for page in PAGES for block in printed(page)]
WHOLE = "".join(WORDS)
PROGRAMS = sorted({(block.page, block.file) for block in PRINTED})


async def output(block: Block, folder: Path) -> str:
    write_files(block.page, folder)
    async with ScriptedServer(Situation(block.situation)) as server:
        return await run(block.file, cwd=folder, env={"BASE_URL": server.url, "DEEPSEEK_API_KEY": "sk-example"})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
async def test_the_programs_print_what_their_page_says(page: Path, tmp_path: Path) -> None:
    assert await untrue(printed(page), lambda block: output(block, tmp_path / str(block.line)), at_once=6) == {}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_program_is_run(page: Path) -> None:
    assert {block.file for block in blocks(page) if block.language == "python"} == {b.file for b in printed(page)}


@pytest.mark.parametrize(("page", "file"), PROGRAMS, ids=lambda value: getattr(value, "stem", value))
def test_before_goes_wrong_before_a_fault_and_after_does_not(page: Path, file: str) -> None:
    shown = {block.situation: _exact(block) for block in printed(page) if block.file == file}
    assert shown.pop("healthy"), "no program needs a migration that fails before a healthy server"
    assert shown, "seen before no fault"
    assert all(shown.values()) == file.startswith("after")


def _exact(block: Block) -> bool:
    """Whether all came, once; or, where no server could have gone on, a part of it and a typed error."""
    text = block.text
    if "feed" in block.file:
        return [line.split()[-1].strip("'") for line in text.splitlines()] == list(FEED)
    if "another answer" in block.situation:
        return WHOLE.startswith(text.splitlines()[0]) and "StreamBroken" in text
    return text.count(WHOLE) == text.count(WORDS[0]) == 1
