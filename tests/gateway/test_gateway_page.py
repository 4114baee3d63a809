"""docs/gateway.md: its programs run against the demo as they stand there, and its configuration can be served."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from holdfast.gateway.config import check, load
from holdfast.gateway.serve import serve
from holdfast.gateway.settings import Settings, UpstreamSettings
from holdfast.gateway.workers import listen
from holdfast.testing import ChaosServer, Schedule
from holdfast.testing.faults import CleanCut, Healthy, ResetMidStream
from tests.binaries import binary
from tests.gateway.test_serve import begun
from tests.pages import ROOT, run, write_files

PAGE = ROOT / "docs/gateway.md"
ANSWER = "Why is the sky blue?"


def tell(folder: Path, place: str) -> None:
    for file in folder.iterdir():
        file.write_text(file.read_text("utf-8").replace("127.0.0.1:8700", place), "utf-8")


@asynccontextmanager
async def demo(folder: Path) -> AsyncIterator[ChaosServer]:
    """Serves what the page's programs ask, at the place that they are told in the folder's copies."""
    faults = (ResetMidStream(after=25), Healthy(), CleanCut(after=60), Healthy()) * 5
    async with ChaosServer(schedule=Schedule(streams={"*": faults}), every=0.001) as upstream:
        answering = UpstreamSettings(dialect="deepseek", base_url=upstream.url, api_key="demo")
        chosen = Settings(port=0, upstreams=(answering,))
        [sock] = listen(chosen)
        tell(folder, f"127.0.0.1:{sock.getsockname()[1]}")
        started = asyncio.Event()
        task = asyncio.create_task(serve(chosen, sock, started=started.set))
        try:
            await begun(task, started)
            yield upstream
        finally:
            task.cancel()
            await asyncio.wait([task])
            sock.close()


async def shell(folder: Path, script: str) -> None:
    program = await asyncio.create_subprocess_exec(binary("sh"), "-e", script, cwd=folder)
    assert await asyncio.wait_for(program.wait(), 40) == 0


async def test_the_programs_of_the_page_get_whole_answers_and_come_back(tmp_path: Path) -> None:
    write_files(PAGE, tmp_path)
    async with demo(tmp_path) as upstream:
        # One behind the other: both ask the same, and would else take each other's turns among the faults.
        said = await run("ask.py", cwd=tmp_path)
        await shell(tmp_path, "resume.sh")
        text = upstream.answer(ANSWER).text
    assert said == f"{len(text)} characters\n"
    first, rest, whole = ((tmp_path / f"{name}.txt").read_text("utf-8") for name in ("first", "rest", "whole"))
    places = [int(line.rpartition("-")[2]) for line in whole.splitlines() if line.startswith("id: ")]
    assert first.count("\nid: ") == 13
    assert rest.rstrip().splitlines()[-2] == "data: [DONE]"
    assert places == list(range(1, len(places) + 1))


def test_the_configuration_of_the_page_can_be_served(tmp_path: Path) -> None:
    write_files(PAGE, tmp_path)
    chosen = load(tmp_path / "gateway.toml", {"DEEPSEEK_API_KEY": "sk-1"})
    check(chosen)
    assert [one.name or one.dialect for one in chosen.upstreams] == ["deepseek", "gpu"]
    assert [key.name for key in chosen.keys] == ["phone"]
