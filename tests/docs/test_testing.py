"""The code of docs/testing.md does what the page says, and its table has every fault."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import signal
import sys
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from tests.pages import ROOT, Block, blocks, printed, run, untrue, write_files
from tools.fault_table import PAGE, written


def without_luck(text: str) -> str:
    """Leaves out the one fault of which the page says that a client may notice it or not."""
    lines = [line for line in text.splitlines() if "Content-Length too short" not in line]
    return re.sub(r"\d failed, \d+ passed", "some failed", "\n".join(lines))


@pytest.mark.timeout(300)
async def test_the_programs_print_what_the_page_says(tmp_path: Path) -> None:
    async def output(block: Block) -> str:
        return without_luck(await run(block.file, cwd=tmp_path))

    write_files(PAGE, tmp_path)
    shown = [replace(block, text=without_luck(block.text)) for block in printed(PAGE)]
    assert await untrue(shown, output, at_once=3) == {}


def test_every_program_of_the_page_is_run() -> None:
    helpers = {"my_client.py"}
    programs = {block.file for block in blocks(PAGE) if block.language == "python" and block.file}
    assert programs - helpers == {block.file for block in printed(PAGE)}


def test_the_table_has_every_fault_as_it_is() -> None:
    page = (ROOT / "docs/testing.md").read_text("utf-8")
    assert written(page) == page, "run `python -m tools.fault_table`"
    assert "`CleanCut(after=20)`" in page


async def test_the_proxy_reports_what_the_page_shows(tmp_path: Path) -> None:
    write_files(PAGE, tmp_path)
    told = next(block.text.splitlines() for block in blocks(PAGE) if block.language == "jsonl")
    command = re.search(r"^\$ holdfast (chaos .*--schedule.*)$", PAGE.read_text("utf-8"), re.MULTILINE)
    assert command is not None
    server = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "holdfast",
        *(shlex.split(command[1].replace("8001", "0"))),
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert server.stderr is not None
    url = re.search(rb"http://\S+", await server.stderr.readline())
    assert url is not None
    body = {"stream": True, "messages": [{"role": "user", "content": "Why tides?"}]}
    async with aiohttp.ClientSession(url[0].decode()) as session:
        for _ in range(2):
            async with session.post("/chat/completions", json=body) as response:
                assert response.status == 200
                await response.read()
    server.send_signal(signal.SIGINT)
    out, _ = await server.communicate()
    assert server.returncode == 0
    shown, said = ([{**json.loads(line), "time": ""} for line in lines] for lines in (told, out.splitlines()))
    assert said == shown
