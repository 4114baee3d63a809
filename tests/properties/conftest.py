"""Profiles of the properties, and how many examples each is tried on; tests/conftest.py prints it.

`ci` draws the same examples every time and is part of every run of the tests; `deep` (`HOLDFAST_PROFILE=deep`) draws
new ones, many times as many, and remembers what failed.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.properties.profile import DEEP, EXAMPLES, PROFILE

HERE = Path(__file__).parent

settings.load_profile(PROFILE)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts a counter round what Hypothesis calls for each example, which is its documented hook for other plugins."""
    for item in items:
        handle = getattr(getattr(item, "obj", None), "hypothesis", None)
        if handle is None or HERE not in item.path.parents:
            continue
        item.add_marker(pytest.mark.timeout(0 if DEEP else 300))  # to shrink a failure takes its time
        if not hasattr(handle.inner_test, "counted"):
            handle.inner_test = _counted(handle.inner_test, item.nodeid.rpartition("/")[2])


def _counted(test: Any, name: str) -> Any:
    @functools.wraps(test)
    def counted(*args: Any, **kwargs: Any) -> Any:
        EXAMPLES[name] += 1
        return test(*args, **kwargs)

    counted.counted = True  # type: ignore[attr-defined]  # so that a test of several items is counted once
    return counted
