"""Fixtures that pytest finds by itself where Holdfast is installed; `-p no:holdfast` leaves them out.

They are plain fixtures, so synchronous tests and asynchronous ones under any plugin can have them. The plugin must cost
nothing to those who never ask: it registers no hook, and its fixtures import what they need when they are asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from holdfast.testing import ChaosServer, FakeClock

PATIENCE = 30.0
"""Seconds for which the server of `chaos_server` lets a client bear a stall."""


@pytest.fixture
def chaos_server() -> Iterator[ChaosServer]:
    """An LLM upstream on real TCP, in a thread of its own: set its `schedule`, ask its `url`, look at `served`.

    A client that bears a stall for its `patience`, 30 real seconds unless told, is cut off, and its test in error: one
    without a timeout that ends a stall would hang for ever. None leaves that out.
    """
    from holdfast.testing import ChaosServer, in_background  # noqa: PLC0415 - see the module's docstring

    with in_background(ChaosServer(patience=PATIENCE)) as server:
        yield server
    if stuck := [str(served.fault) for served in server.served if served.stuck]:
        pytest.fail(
            f"after {server.patience} s the client still bore this: {', '.join(stuck)}. It needs a timeout for the "
            "whole answer, since pings reset one for each read; where it has a longer one, raise chaos_server.patience"
        )


@pytest.fixture
def fake_clock() -> Iterator[FakeClock]:
    """A clock that jumps to its next timer when the event loop is idle: give it to `Client(clock=...)` or `Pipe`.

    Before each jump it gives servers in other threads or processes 50 real milliseconds to be heard.
    """
    from holdfast.testing import FakeClock  # noqa: PLC0415 - as above

    clock = FakeClock(patience=0.05)
    yield clock
    clock.close()
