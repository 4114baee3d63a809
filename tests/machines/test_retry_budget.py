"""The retry budget: a share of the first requests, a floor, a bound on what is saved up."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.machines.retry_budget import RetryBudget


def test_a_share_of_what_is_sent_may_be_sent_again() -> None:
    budget = RetryBudget(ratio=0.1, floor=0, burst=10)
    while budget.withdraw(0.0):
        pass
    for _ in range(50):
        budget.deposit(1.0)
    assert [budget.withdraw(1.0) for _ in range(6)] == [True] * 5 + [False]


def test_a_lone_client_may_try_again_every_now_and_then() -> None:
    budget = RetryBudget(ratio=0, floor=0.5, burst=1)
    assert [budget.withdraw(second) for second in (0.0, 1.0, 2.0, 3.0, 4.0)] == [True, False, True, False, True]


@given(
    st.lists(st.tuples(st.booleans(), st.floats(0, 5)), max_size=200),
    st.floats(0, 1),
    st.floats(0, 3),
    st.floats(1, 20),
)
def test_retries_never_exceed_the_share_the_floor_and_the_burst(
    steps: list[tuple[bool, float]], ratio: float, floor: float, burst: float
) -> None:
    budget, now = RetryBudget(ratio=ratio, floor=floor, burst=burst), 0.0
    for first, pause in steps:
        now += pause
        if first:
            budget.deposit(now)
        elif budget.allows(now):
            assert budget.withdraw(now)
        else:
            assert not budget.withdraw(now)
        assert budget.retries <= burst + ratio * budget.first + floor * now + 1e-6
    if budget.first:
        assert budget.amplification == (budget.first + budget.retries) / budget.first


def test_a_clock_that_goes_back_gives_nothing() -> None:
    budget = RetryBudget(ratio=0, floor=1, burst=1)
    assert budget.withdraw(10.0)
    assert not budget.withdraw(5.0)
    assert not budget.allows(10.5)
    assert budget.allows(11.0)


@pytest.mark.parametrize("wrong", [{"ratio": -0.1}, {"floor": "1"}, {"burst": 0.5}, {"ratio": True}, {"ratio": 10}])
def test_bad_settings_are_named(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name} must be a number from"):
        RetryBudget(**wrong)
