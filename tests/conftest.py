"""What all tests share."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from holdfast.testing import FakeClock
from tests.properties.profile import EXAMPLES, PROFILE


@pytest.fixture
def clock() -> Iterator[FakeClock]:
    """A clock that jumps to its next timer whenever the event loop is idle."""
    fake = FakeClock()
    yield fake
    fake.close()


gc.disable()


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Thousands of tests and what they import stay to the end: who collects garbage need not look at them again."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_sessionfinish(session: Any) -> None:
    """One of several processes tells the first what it tried."""
    told = getattr(session.config, "workeroutput", None)
    if told is not None:
        told["examples"] = dict(EXAMPLES)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Adds up what the processes tried."""
    EXAMPLES.update(getattr(node, "workeroutput", {}).get("examples", {}))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Says on how many examples each property was tried."""
    if not EXAMPLES:
        return
    terminalreporter.section(f"properties, examples tried ({PROFILE} profile)")
    for name, count in sorted(EXAMPLES.items()):
        terminalreporter.write_line(f"{count:6d}  {name}")
    terminalreporter.write_line(f"{EXAMPLES.total():6d}  in all")


if os.environ.get("HOLDFAST_TEST_LOOP") == "uvloop":  # make test-uvloop

    def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
        """Runs every asynchronous test on uvloop."""
        import uvloop  # noqa: PLC0415 - an extra, needed in this run alone

        return {"uvloop": uvloop.new_event_loop}
