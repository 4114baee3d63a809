"""The whole assembly under faults: parser, integrity checker, clocks, retry and reconnector over a server in memory.

Hypothesis draws the world (answer, kind of server, schedule of evident faults, chunk sizes) from the bytes, so a stored
crash means what it did only as long as the strategies draw alike. Time is a fake clock's: what would hang, fails.
"""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings

from fuzz.engine import Target
from tests.properties.judge import begins, said, truth
from tests.properties.model import Scenario, play, scenarios


@settings(database=None, deadline=None, suppress_health_check=list(HealthCheck))
@given(scenarios())
def promise(scenario: Scenario) -> None:
    """Exact, or a typed error: what was handed over begins one true answer, and an end means all of it."""
    run = play(scenario)
    heard, answers = said(run.deltas), [truth(telling) for telling in scenario.tellings]
    assert any(begins(heard, answer) for answer in answers), f"not how any answer begins: {heard}"
    assert run.error is not None or heard in answers, f"an end, and not all: {heard}"
    assert run.error is None or run.error.partial is not None, "an error without its partial"
    assert run.live == 0, f"{run.live} streams were left open"


def check(data: bytes) -> None:
    """Raises what is a finding; bytes that draw no whole world are none."""
    promise.hypothesis.fuzz_one_input(data)  # type: ignore[attr-defined]  # put there by given(), untyped


TARGETS = [
    Target(
        name="faults",
        check=check,
        seeds=("faults",),
        words=tuple(bytes([n]) * size for n in (0, 1, 2, 3, 5, 40, 127, 128, 255) for size in (1, 4)),
        slowest=120,  # empty deltas for as long as the clocks bear them, a byte at a time, are a million reads
    )
]
