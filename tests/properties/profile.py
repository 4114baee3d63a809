"""How many examples a property is tried on: see conftest.py for what the profiles are for."""

from __future__ import annotations

import os
from collections import Counter

from hypothesis import HealthCheck, Phase, settings

PROFILE = os.environ.get("HOLDFAST_PROFILE", "ci")
DEEP = PROFILE == "deep"
TIMES_DEEPER = 50
EXAMPLES: Counter[str] = Counter()
"""How many examples each property was tried on in this process."""

# A busy machine is no finding, so no example has a time; what costs too much is found by counting, in test_bounds.py.
# To explain a failure costs a minute of tracing, and what is shrunk explains itself.
_COMMON = settings(
    deadline=None, suppress_health_check=[HealthCheck.too_slow], phases=[p for p in Phase if p != Phase.explain]
)
settings.register_profile("ci", _COMMON, derandomize=True, database=None)
settings.register_profile("deep", _COMMON, print_blob=True)
settings.load_profile(PROFILE)  # before any property is written down


def examples(count: int) -> settings:
    """Gives the settings of a property that is tried so many times, or many times as often in the deep profile."""
    return settings(max_examples=count * (TIMES_DEEPER if DEEP else 1))


def first_failure(count: int) -> settings:
    """Gives the settings of a property that must fail within so many examples: the first will do, as it is drawn."""
    return settings(max_examples=count, phases=[Phase.generate], derandomize=True, database=None)


def shrunk(count: int) -> settings:
    """Gives the settings of a search whose smallest find is wanted."""
    return settings(max_examples=count, phases=[Phase.generate, Phase.shrink], derandomize=True, database=None)
