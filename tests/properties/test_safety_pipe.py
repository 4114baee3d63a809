"""Safety through the whole pipe: parser, integrity checker, clocks, retry and reconnector over a model of a server.

For any completion, chunking, schedule of evident faults and kind of server: what was handed over is a prefix of one
single true answer, each piece once, and a normal end means equal to it.
"""

from __future__ import annotations

from hypothesis import given

from tests.properties import laws
from tests.properties.model import Scenario, play, scenarios
from tests.properties.profile import examples


@examples(250)
@given(scenarios())
def test_nothing_but_one_true_answer_is_handed_over_and_an_end_means_all_of_it(scenario: Scenario) -> None:
    run = play(scenario)
    laws.safety(run)
    laws.closedness(run)
