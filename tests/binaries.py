"""Programs that are no Python packages: without one, tests skip loudly, or fail on CI, where `.ci/run` installs it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest


def binary(name: str) -> str:
    """Gives the program's path."""
    found = shutil.which(name)
    if found is None:
        why = f"{name} is not installed: apt-get install {name}"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    return found


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
    ran = subprocess.run(command, capture_output=True, text=True, timeout=50, check=True)
    return ran.stdout, [line for line in ran.stderr.splitlines() if "CONSOLE" in line]
