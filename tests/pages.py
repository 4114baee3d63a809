"""The documentation's code as files that run.

A fenced block is told by its info string: ```` ```python before.py ```` is the program `before.py`, and
```` ```text before.py cut ```` is what it prints in the situation `cut`. Blocks without a file name are for reading.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests import forks
from tests.properties.profile import DEEP

ROOT = Path(__file__).resolve().parent.parent
_FENCE = re.compile(r"^```(?P<info>[^`\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One fenced block of a page; `line` is where its text begins, counted from 1."""

    page: Path
    language: str
    file: str
    situation: str
    text: str
    line: int

    def __str__(self) -> str:
        where = f"{self.page.relative_to(ROOT)}:{self.line}"
        return " ".join(part for part in (where, self.file, self.situation) if part)


def pages() -> list[Path]:
    """Gives every page of documentation."""
    return sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def blocks(page: Path) -> Iterator[Block]:
    """Gives the fenced blocks of a page in their order."""
    text = page.read_text("utf-8")
    for fence in _FENCE.finditer(text):
        language, file, situation = (*fence["info"].split(maxsplit=2), "", "", "")[:3]
        line = text.count("\n", 0, fence.start("text")) + 1
        yield Block(page, language, file, situation, fence["text"], line)


def printed(page: Path) -> list[Block]:
    """Gives the blocks that say what a program prints."""
    return [block for block in blocks(page) if block.language == "text" and block.file]


def write_files(page: Path, folder: Path) -> None:
    """Writes the files of a page; blocks with the same name, in their order, are one file."""
    folder.mkdir(parents=True, exist_ok=True)
    for block in blocks(page):
        if block.file and block.language != "text":
            with (folder / block.file).open("a", encoding="utf-8") as file:
                file.write(block.text)


def says(block: Block, output: str) -> bool:
    """Tells whether a program printed what its page shows, where `...` stands for the rest of a line."""
    shown = re.escape(_trimmed(block.text)).replace(re.escape("..."), "[^\n]*")
    return re.fullmatch(shown, _trimmed(output)) is not None


async def untrue(shown: Sequence[Block], output: Callable[[Block], Awaitable[str]], *, at_once: int) -> dict[str, str]:
    """Gives what programs print where it is not what their page says. Several run `at_once`: they mostly wait."""
    room = asyncio.Semaphore(at_once)

    async def one(block: Block) -> str:
        async with room:
            return await output(block)

    outputs = await asyncio.gather(*map(one, shown))
    return {str(block): text for block, text in zip(shown, outputs, strict=True) if not says(block, text)}


def _trimmed(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.splitlines())


def _as_a_reader() -> dict[str, str]:
    """The environment without what a reader's terminal has not: with CI set, pytest prints its summary unshortened."""
    return {name: value for name, value in os.environ.items() if name not in ("CI", "BUILD_NUMBER")}


async def run(file: str, *, cwd: Path, env: Mapping[str, str] | None = None) -> str:
    """Runs a program of a page, a test with pytest; gives its output and, where it raised, the error in the last line.

    Of what pytest says, traces and dots are left out.
    """
    environ = {**_as_a_reader(), "HYPOTHESIS_STORAGE_DIRECTORY": str(ROOT / ".hypothesis"), **(env or {})}
    tests = file.startswith("test_")
    code, out, err = await _tested(file, cwd, environ) if tests else await interpreted(cwd / file, cwd=cwd, env=environ)
    if tests:
        return re.sub(r"^[.FEsx]+ +\[ *\d+%\]$", "", out, flags=re.MULTILINE).strip()
    if code:
        return f"{out.rstrip()}\n{err.strip().rpartition(chr(10))[2]}\n".lstrip()
    return out if file.startswith("before") else out + err  # other clients leave noise behind


async def _tested(file: str, cwd: Path, env: Mapping[str, str]) -> tuple[int, str, str]:
    # Hypothesis brings a plugin whose oldest allowed version fails under a new pytest; no page needs it.
    quiet = ("-q", "--tb=no", "-p", "no:cacheprovider", "-p", "no:hypothesispytest")
    busy = {"GITLAB_CI": "true"}  # Hypothesis heeds it, which pytest does not: a slow machine is no finding
    return await started(sys.executable, "-m", "pytest", *quiet, file, cwd=cwd, env={**env, **busy})


async def interpreted(program: Path, *, cwd: Path, env: Mapping[str, str]) -> tuple[int, str, str]:
    """Runs a program, warnings being errors; gives its exit code, and what it wrote to standard output and error."""
    if DEEP or not hasattr(os, "fork"):
        return await started(sys.executable, "-W", "error", str(program), cwd=cwd, env=env)
    return await forks.run(program, cwd=cwd, env=env)


async def started(*command: str, cwd: Path, env: Mapping[str, str]) -> tuple[int, str, str]:
    """Runs a command; gives its exit code, and what it wrote to standard output and error."""
    pipe = asyncio.subprocess.PIPE
    program = await asyncio.create_subprocess_exec(*command, cwd=cwd, env=env, stdout=pipe, stderr=pipe)
    out, err = (text.decode() for text in await program.communicate())
    return program.returncode or 0, out, err
