"""Profiles of the properties, and how many examples each was tried on, printed with pytest's own summary.

`ci` draws the same examples every time and is part of every run of the tests; `deep` (`HOLDFAST_PROFILE=deep`) draws
new ones, many times as many, and remembers what failed.
"""

from __future__ import annotations

import functools
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.properties.profile import DEEP, PROFILE

HERE = Path(__file__).parent
EXAMPLES: Counter[str] = Counter()

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


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Says what was tried."""
    if not EXAMPLES:
        return
    terminalreporter.section(f"properties, examples tried ({PROFILE} profile)")
    for name, count in sorted(EXAMPLES.items()):
        terminalreporter.write_line(f"{count:6d}  {name}")
    terminalreporter.write_line(f"{EXAMPLES.total():6d}  in all")
