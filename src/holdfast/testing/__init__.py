"""What the library is tested with, for its users to test with: time held still, faults on demand, the contract."""

from __future__ import annotations

from holdfast.testing.clock import FakeClock

__all__ = ["FakeClock"]
