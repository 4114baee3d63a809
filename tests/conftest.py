"""What all tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from holdfast.testing import FakeClock


@pytest.fixture
def clock() -> Iterator[FakeClock]:
    """A clock that jumps to its next timer whenever the event loop is idle."""
    fake = FakeClock()
    yield fake
    fake.close()
