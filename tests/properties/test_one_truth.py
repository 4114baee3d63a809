"""One truth: the report, the log lines, the moments and what the server counted agree on every drawn run."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from holdfast.testing.faults import VOCABULARY
from holdfast.testing.strategies import schedules
from tests.properties import laws
from tests.properties.model import House, Scenario, play, scenarios
from tests.properties.profile import examples


@examples(150)
@given(scenarios(met=schedules(VOCABULARY, min_faults=1)), st.sampled_from((2.0, 1_000.0)), st.sampled_from((2, 8)))
def test_everybody_tells_the_same_story(scenario: Scenario, total: float, max_requests: int) -> None:
    run = play(scenario, House(total=total, max_requests=max_requests), logs=True)
    assert run.lines
    laws.one_truth(run)
    laws.closedness(run)
