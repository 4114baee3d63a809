"""The pace of an answer against a model that counts everything anew each time."""

from __future__ import annotations

import math

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from holdfast.machines.pace import Pace
from tests.properties.profile import examples


class PaceAgainstModel(RuleBasedStateMachine):
    """Time is counted in whole eighths, which floats hold exactly."""

    @initialize(pieces=st.integers(1, 6), over=st.integers(1, 16), longest=st.integers(1, 16) | st.none())
    def begin(self, pieces: int, over: int, longest: int | None) -> None:
        self.pieces, self.over = pieces, over / 8
        self.longest = math.inf if longest is None else longest / 8
        self.pace = Pace(pieces=pieces, over=self.over, longest=self.longest)
        self.came = [(0.0, pieces)]  # as if all had come at the beginning
        self.now = self.last = 0.0

    @rule(eighths=st.integers(0, 6))
    def wait(self, eighths: int) -> None:
        self.pace.wait(eighths / 8)
        self.now += eighths / 8

    @rule(count=st.integers(1, 8))
    def add(self, count: int) -> None:
        self.pace.add(count)
        self.came.append((self.now, count))
        self.last = self.now

    def too_slow_at(self, when: float) -> bool:
        return sum(count for came, count in self.came if came > when - self.over) < self.pieces

    @invariant()
    def it_says_when_the_rate_falls_under_the_floor_or_the_gap_is_too_long(self) -> None:
        if not hasattr(self, "pace"):
            return
        by_rate = min(came + self.over for came, _ in self.came if self.too_slow_at(came + self.over))
        by_gap = self.last + self.longest
        assert self.pace.left == min(by_rate, by_gap) - self.now
        assert self.pace.broken_by_gap == (by_gap < by_rate)
        assert self.pace.since == self.now - self.last

    @invariant()
    def it_remembers_no_more_than_it_must(self) -> None:
        if hasattr(self, "pace"):
            assert len(self.pace._kept) <= self.pieces


TestPaceAgainstModel = PaceAgainstModel.TestCase
TestPaceAgainstModel.settings = settings(examples(100), stateful_step_count=30)


def test_the_first_seconds_are_granted() -> None:
    pace = Pace(pieces=10, over=5.0)
    assert pace.left == 5.0
    pace.wait(4.0)
    pace.add(9)
    assert pace.left == 1.0
    pace.add(1)
    assert pace.left == 5.0


@pytest.mark.parametrize("pieces", [1, 50])
def test_a_steady_flow_goes_on_for_ever(pieces: int) -> None:
    pace = Pace(pieces=pieces, over=10.0)
    for _ in range(1_000):
        pace.wait(10.0 / pieces)
        assert pace.left >= -1e-9
        pace.add(1)
