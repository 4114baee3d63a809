"""The hedge budget: never more than its share of the calls, against a model."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from holdfast.machines.hedge_budget import HedgeBudget
from tests.properties.profile import examples


class BudgetAgainstModel(RuleBasedStateMachine):
    """The model counts in fractions."""

    @initialize(part=st.integers(0, 20), burst=st.integers(1, 4))
    def begin(self, part: int, burst: int) -> None:
        self.share, self.burst, self.left = Fraction(part, 20), burst, Fraction(0)
        self.budget = HedgeBudget(share=part / 20, burst=burst)

    @rule(times=st.integers(1, 30))
    def deposit(self, times: int) -> None:
        for _ in range(times):
            self.budget.deposit()
            self.left = min(Fraction(self.burst), self.left + self.share)

    @rule()
    def withdraw(self) -> None:
        expected = self.left >= 1
        assert self.budget.withdraw() == expected
        self.left -= expected

    @invariant()
    def hedges_never_exceed_their_share(self) -> None:
        if hasattr(self, "budget"):
            assert self.budget.hedges <= self.share * self.budget.calls


TestBudgetAgainstModel = BudgetAgainstModel.TestCase
TestBudgetAgainstModel.settings = settings(examples(60), stateful_step_count=40)


def test_one_call_in_twenty_gets_one() -> None:
    budget = HedgeBudget()
    got = []
    for _ in range(100):
        budget.deposit()
        got.append(budget.withdraw())
    assert (sum(got), got.index(True), budget.calls, budget.hedges) == (5, 19, 100, 5)


@pytest.mark.parametrize("wrong", [{"share": -0.1}, {"share": 1.1}, {"share": "5%"}, {"burst": 0.5}, {"burst": True}])
def test_bad_settings_are_named(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name} must be a number from"):
        HedgeBudget(**wrong)
