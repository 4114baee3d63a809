"""What all tests share."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator

import pytest

from holdfast.testing import FakeClock


@pytest.fixture
def clock() -> Iterator[FakeClock]:
    """A clock that jumps to its next timer whenever the event loop is idle."""
    fake = FakeClock()
    yield fake
    fake.close()


if os.environ.get("HOLDFAST_TEST_LOOP") == "uvloop":  # make test-uvloop

    def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
        """Runs every asynchronous test on uvloop."""
        import uvloop  # noqa: PLC0415 - an extra, needed in this run alone

        return {"uvloop": uvloop.new_event_loop}
