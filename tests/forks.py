"""Programs that run as forks of one interpreter: each would spend more time on importing than on all that it does.

A fork is alone: it has its own folder, arguments, environment and output, and it ends as any interpreter does, with all
that is warned of then. What it does not prove is that an import works in a new interpreter: the deep profile, which
starts one for each program, does, and tests/test_public_names.py.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

IMPORTED = ("holdfast", "holdfast.testing", "holdfast.mounts", "httpx", "openai", "requests")
"""What programs import most; what is not installed is left out."""


async def run(program: Path, *, cwd: Path, env: Mapping[str, str]) -> tuple[int, str, str]:
    """Runs a program as `python -W error` would; gives its exit code, and what it wrote on 1 and on 2."""
    return await asyncio.to_thread(_ask, program, cwd, env)


def _ask(program: Path, cwd: Path, env: Mapping[str, str]) -> tuple[int, str, str]:
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as line:
        out, err = Path(folder, "out"), Path(folder, "err")
        line.connect(_door())
        asked = {"program": program, "cwd": cwd, "out": out, "err": err}
        line.sendall(json.dumps({**{k: str(v) for k, v in asked.items()}, "env": dict(env)}).encode() + b"\n")
        with line.makefile() as answer:
            code = int(answer.readline())
        return code, out.read_text("utf-8"), err.read_text("utf-8")


@cache
def _door() -> str:
    """Starts the interpreter that is forked, once a process; gives the address at which it listens."""
    folder = tempfile.TemporaryDirectory()  # removed below
    address = f"{folder.name}/door"
    forked = subprocess.Popen(
        [sys.executable, "-W", "error", __file__, address], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert forked.stdin is not None
    assert forked.stdout is not None
    assert forked.stdout.readline() == b"ready\n"

    def end() -> None:
        forked.communicate()  # it ends when it sees that nobody will ask any more
        folder.cleanup()

    atexit.register(end)
    return address


def _serve(address: str) -> dict[str, Any] | None:
    """Forks itself for each program that is asked for; gives that to the fork, and None to the one that goes home."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who wait
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(address)
        door.listen(32)
        os.write(1, b"ready\n")
        while door.fileno() in select.select([door.fileno(), 0], [], [])[0]:
            line, _ = door.accept()
            with line:
                if os.fork() == 0:
                    door.close()
                    return _wait(line)
    return None


def _wait(line: socket.socket) -> dict[str, Any]:
    """Forks once more: the one that stays waits for the program's end and tells of it."""
    with line.makefile() as lines:
        asked: dict[str, Any] = json.loads(lines.readline())
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if program := os.fork():
        _, status = os.waitpid(program, 0)
        line.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
        os._exit(0)
    line.close()
    return asked


def _become(program: str, cwd: str, out: str, err: str, env: dict[str, str]) -> None:
    """Is the program from now on."""
    for place, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, out, os.O_WRONLY | os.O_CREAT),
        (2, err, os.O_WRONLY | os.O_CREAT),
    ):
        opened = os.open(path, flags, 0o600)
        os.dup2(opened, place)
        os.close(opened)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = [program]
    sys.path.insert(0, str(Path(program).resolve().parent))
    runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    sys.path.pop(0)  # our folder is no program's
    for name in IMPORTED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()
    if (become := _serve(sys.argv[1])) is not None:
        _become(**become)
