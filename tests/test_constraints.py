"""What `make` installs is pinned by name and version alone, and the lowest pins are the floors of pyproject.toml."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools.lowest import lowest

ROOT = Path(__file__).resolve().parent.parent


def pins(name: str) -> dict[str, str]:
    """Gives a file's pins by normalized package name."""
    lines = [line.partition("==") for line in (ROOT / name).read_text("utf-8").splitlines()]
    return {_normal(package): version for package, _, version in lines}


def _normal(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()


def _release(version: str) -> tuple[int, ...]:
    """Gives a version to compare by: 1.0 and 1.0.0 are the same."""
    parts = [int(part) for part in version.split(".")]
    while parts and parts[-1] == 0:
        parts.pop()
    return tuple(parts)


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-lowest.txt"])
def test_constraints_are_names_and_versions_only(name: str) -> None:
    for line in (ROOT / name).read_text("utf-8").splitlines():
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.+!]*", line), line


def test_the_lowest_versions_are_those_that_pyproject_allows() -> None:
    pinned = pins("constraints-lowest.txt")
    wanted = {_normal(package): version for package, _, version in (line.partition("==") for line in lowest())}
    found = {package: _release(pinned[package]) for package in wanted}
    assert found == {package: _release(version) for package, version in wanted.items()}, "run `make constraints`"


def test_what_make_installs_is_nowhere_below_the_lowest() -> None:
    newest = pins("constraints.txt")
    for line in lowest():
        package, _, version = line.partition("==")
        assert _release(newest[_normal(package)]) >= _release(version)
