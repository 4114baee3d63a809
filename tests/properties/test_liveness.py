"""Liveness: if the faults stop within the allowed attempts, the stream ends exact; and always within its clocks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from holdfast.layers.reconnect import Reconnect
from holdfast.machines.ladder import Seams
from holdfast.testing.faults import EVIDENT, AnotherAnswer, IdWithNul
from holdfast.testing.strategies import schedules
from tests.properties import laws
from tests.properties.model import House, Scenario, play, scenarios
from tests.properties.profile import examples

RESUMABLE = [fault for fault in EVIDENT if not isinstance(fault, AnotherAnswer | IdWithNul)]
"""A server that has forgotten the answer cannot resume it, and one that ceases to number is not believed to."""
PATIENT = House(reconnect=Reconnect(seams=Seams(max_repaid_tokens=1_000_000)))
"""What it may cost to say an answer again is a matter of money and not of liveness."""


def recoverable() -> st.SearchStrategy[Scenario]:
    """Worlds whose faults stop after three attempts, before servers that know the answer still."""
    return scenarios(modes=("ids", "no ids"), met=schedules(RESUMABLE, min_faults=1, max_faults=3))


@examples(150)
@given(recoverable())
def test_when_the_faults_stop_the_stream_ends_exact(scenario: Scenario) -> None:
    run = play(scenario, PATIENT)
    laws.liveness(run)
    laws.safety(run)


@examples(100)
@given(scenarios(met=schedules(min_faults=1, max_faults=8)), st.sampled_from((0.5, 3.0, 12.0, 40.0)))
def test_a_call_ends_within_its_clock(scenario: Scenario, total: float) -> None:
    run = play(scenario, House(total=total))
    laws.timeliness(run, total)
    laws.safety(run)
    laws.closedness(run)
