"""Material that is no part of the repository: conformance vectors and recorded streams, beside the checkout.

`HOLDFAST_VECTORS` names the file of vectors, `HOLDFAST_RECORDINGS` the folder of recordings; the Makefile sets both
where `../shared` exists. Without them the tests that need them skip, and say so; on CI they fail, because a check that
quietly checks less is none.
"""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest


def _find(variable: str) -> Path | None:
    given = os.environ.get(variable, "")
    return Path(given) if given and Path(given).exists() else None


def _need(variable: str, what: str) -> Path:
    found = _find(variable)
    if found is not None:
        return found
    message = f"{what} not found: set {variable} to where they are, or put them into ../shared and use `make test`"
    if os.environ.get("CI"):
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


def vectors_file() -> Path:
    """Gives the file of conformance vectors; skips the test that asks, or fails it on CI, when there is none."""
    return _need("HOLDFAST_VECTORS", "the event-stream conformance vectors")


def recordings_folder() -> Path:
    """Gives the folder of recorded streams; skips the test that asks, or fails it on CI, when there is none."""
    return _need("HOLDFAST_RECORDINGS", "the recorded streams")


@cache
def vectors() -> list[dict[str, Any]]:
    """Gives the conformance vectors to parametrize over; empty without them, which tests/test_shared.py reports."""
    path = _find("HOLDFAST_VECTORS")
    return json.loads(path.read_text("utf-8")) if path else []


@cache
def recordings() -> list[dict[str, Any]]:
    """Gives the index of the recorded streams to parametrize over, empty without them."""
    folder = _find("HOLDFAST_RECORDINGS")
    return json.loads((folder / "index.json").read_text("utf-8")) if folder else []


def recorded(entry: dict[str, Any]) -> bytes:
    """Gives the bytes of one entry of `recordings()`."""
    return (recordings_folder() / str(entry["file"])).read_bytes()
