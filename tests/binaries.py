"""What this environment does not bring: without it, tests skip loudly, or fail on CI, where `.ci/run` installs it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest


def binary(name: str) -> str:
    """Gives the program's path."""
    found = shutil.which(name)
    if found is None:
        _miss(f"{name} is not installed: apt-get install {name}")
    return found


def sdk_python(environment: str) -> str:
    """Gives the interpreter of one of the SDK matrix's environments: "newest", "older", "litellm"."""
    found = Path(__file__).parent.parent / f".venv-sdks-{environment}"
    if not (found / ".installed").exists():
        _miss(f"{found.name} is not there: `make environments` makes it")
    return str(found / "bin/python")


def node_modules() -> Path:
    """Gives the folder in which Node finds what tests/gateway/node needs."""
    found = Path(__file__).parent.parent / ".venv-node"
    if not (found / ".installed").exists():
        _miss(f"{found.name} is not there: `make environments` makes it")
    return found


def _miss(why: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)


def free_port() -> int:
    """Gives a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def in_chromium(page: Path, profile: Path) -> tuple[str, list[str]]:
    """Opens a page, and gives its document as it is then, and what it wrote to the console."""
    command = [binary("chromium"), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    command += ["--disable-background-networking"]
    command += ["--disable-component-update", "--disable-sync", "--no-first-run", f"--user-data-dir={profile}"]
    command += ["--enable-logging=stderr", "--dump-dom", page.as_uri()]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True)
    return ran.stdout, [line for line in ran.stderr.splitlines() if "CONSOLE" in line]
