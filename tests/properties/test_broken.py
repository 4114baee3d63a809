"""Each deliberately broken layer is caught by each property that is meant to catch it: one that cannot fail is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import find, given
from hypothesis import strategies as st

from holdfast.testing import FakeClock
from holdfast.testing.faults import CleanCut, RepeatedAfterResume, ResetMidStream
from holdfast.testing.strategies import schedules
from tests.properties import broken, laws
from tests.properties.model import House, Run, Scenario, play, scenarios
from tests.properties.profile import first_failure, shrunk
from tests.properties.rungs import WAYS, Way, cut, hold
from tests.properties.rungs import play as play_way
from tests.properties.test_breaker_law import ACTS, law
from tests.properties.test_every_rung import costs
from tests.properties.test_liveness import PATIENT, recoverable

LIVELY = recoverable()
AT_ALL = scenarios()
RESUMED = scenarios(
    modes=("ids",), met=schedules([ResetMidStream(), RepeatedAfterResume()], min_faults=2, max_faults=2)
)
"""A server that continues, and repeats some of what it had sent: rare among all the others."""


def fails(check: Callable[[Any], None], drawn: st.SearchStrategy[Any], *, within: int = 400) -> None:
    """Passes if the property does not hold of what is drawn."""
    prove: Any = first_failure(within)(given(drawn)(check))
    with pytest.raises(AssertionError):
        prove()


def held_to(check: Callable[[Run], None], house: House) -> Callable[[Scenario], None]:
    def judge(scenario: Scenario) -> None:
        check(play(scenario, house))

    return judge


@pytest.mark.parametrize(
    ("check", "house", "drawn"),
    [
        (laws.safety, broken.hears_everything_twice(), RESUMED),
        (laws.liveness, broken.hears_everything_twice(), RESUMED),
        (laws.safety, broken.hands_over_before_it_compares(), AT_ALL),
        (laws.liveness, broken.hands_over_before_it_compares(), LIVELY),
        (laws.safety, broken.takes_an_end_for_success(), AT_ALL),
        (laws.liveness, broken.takes_an_end_for_success(), LIVELY),
        (laws.closedness, broken.forgets_to_close(), AT_ALL),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_broken_layer_is_caught(check: Callable[[Run], None], house: House, drawn: Any) -> None:
    fails(held_to(check, house), drawn)


def test_a_breaker_that_records_a_late_success_is_caught() -> None:
    fails(lambda acts: law(broken.records_late, acts), ACTS, within=1_000)


CURSORS = [way for way in WAYS if way.rung == "cursor"]
# One event too early is no harm: what is known by its number or its bytes is heard once, and paid by nobody.
ELSEWHERE = [(way, by) for way in CURSORS for by in (-2, 1) if way.dialect != "llama.cpp" or by > 0]


@pytest.mark.parametrize(("way", "by"), ELSEWHERE, ids=str)
async def test_a_cursor_that_goes_on_elsewhere_is_caught(way: Way, by: int, clock: FakeClock) -> None:
    whole = await play_way(way, clock, way.server())
    assert whole.completion is not None
    shifted = replace(way, use=broken.resumes_elsewhere(way.of, by))
    caught = 0
    for place in range(1, len(way.healthy())):
        told = await play_way(shifted, clock, shifted.server([cut(place, "reset")]))
        try:
            hold(told, whole.completion)
            costs(told, whole.server.served[0].tokens) if told.report.seams else None
        except AssertionError:
            caught += 1
    assert caught


@pytest.mark.parametrize("way", [way for way in WAYS if way.rung == "prefix" and way.continuing != "rest"], ids=str)
async def test_a_prefix_whose_tail_nobody_hears_is_caught(way: Way, clock: FakeClock) -> None:
    whole = await play_way(way, clock, way.server())
    assert whole.completion is not None
    caught = 0
    for place in range(1, len(way.healthy())):
        with broken.hands_over_before_the_tail():
            told = await play_way(way, clock, way.server([cut(place, "reset")]))
        try:
            hold(told, whole.completion, may_fail=True)
        except AssertionError:
            caught += 1
    assert caught


@pytest.mark.parametrize("check", [laws.safety, laws.liveness])
def test_what_catches_the_broken_layers_lets_the_true_ones_pass(check: Callable[[Run], None]) -> None:
    prove: Any = first_failure(30)(given(RESUMED)(lambda scenario: check(play(scenario, PATIENT))))
    prove()


def test_a_schedule_shrinks_to_the_one_fault_that_matters() -> None:
    def unsafe(scenario: Scenario) -> bool:
        try:
            laws.safety(play(scenario, broken.takes_an_end_for_success()))
        except AssertionError:
            return True
        return False

    cuts = schedules([ResetMidStream(), CleanCut()], min_faults=1, max_faults=4)
    found = find(scenarios(modes=("no ids",), met=cuts, max_choices=1), unsafe, settings=shrunk(200))
    (met,) = found.schedule.streams["*"]
    assert isinstance(met, CleanCut)
    assert len(found.tellings[0].payloads) <= 4  # a role, the finish, the usage, the end mark
