#!/usr/bin/env python3
"""Prints the lowest version that pyproject.toml allows of each package the library uses: "name==version" lines.

The tools of the extra `dev` are not the library's and stay as they are.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"


def lowest() -> list[str]:
    """Gives the pins, sorted. Raises `ValueError` for a requirement without a lower bound."""
    project = tomllib.loads(PYPROJECT.read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = project["dependencies"] + [line for name in extras if name != "dev" for line in extras[name]]
    pins = []
    for line in wanted:
        bound = re.match(r"([A-Za-z0-9._-]+)>=([0-9.]+)", line)
        if bound is None:
            raise ValueError(f"{line!r} in pyproject.toml names no lowest version: name>=version")
        pins.append(f"{bound[1]}=={bound[2]}")
    return sorted(pins)


if __name__ == "__main__":
    print("\n".join(lowest()))
