"""What the library is tested with, for its users to test with: time held still, faults on demand, the contract."""

from __future__ import annotations

from holdfast.testing.clock import FakeClock
from holdfast.testing.contract import check_layer, check_source
from holdfast.testing.driving import cancel_everywhere

__all__ = ["FakeClock", "cancel_everywhere", "check_layer", "check_source"]
