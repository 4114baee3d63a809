"""The token bucket: what may be taken in any time, and what a debt does."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.machines.bucket import LONGEST_WAIT, TokenBucket


def test_a_full_bucket_is_taken_at_once_and_the_rest_at_its_rate() -> None:
    bucket = TokenBucket(rate=2.0, burst=3.0)
    assert [bucket.take(1, 0.0) for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    assert bucket.take(1, 0.5) == 0.0
    assert bucket.take(1, 0.5) == 0.5


def test_what_is_larger_than_the_bucket_is_taken_when_it_is_full_and_leaves_a_debt() -> None:
    bucket = TokenBucket(rate=1.0, burst=10.0)
    assert bucket.take(30, 0.0) == 0.0
    assert bucket.take(1, 0.0) == 21.0
    assert bucket.take(30, 25.0) == 5.0


def test_an_estimate_is_settled_either_way_and_never_to_more_than_the_burst() -> None:
    bucket = TokenBucket(rate=1.0, burst=10.0)
    bucket.take(8, 0.0)
    bucket.settle(5, 0.0)
    assert bucket.level(0.0) == 7.0
    bucket.settle(-17, 0.0)
    assert bucket.level(0.0) == -10.0
    bucket.settle(100, 0.0)
    assert bucket.level(0.0) == 10.0


def test_no_debt_is_of_more_than_so_many_seconds() -> None:
    taken, settled = (TokenBucket(rate=2.0, burst=10.0) for _ in range(2))
    taken.take(1e12, 0.0)
    settled.settle(-1e12, 0.0)
    assert (taken.wait(10, 0.0), settled.wait(10, 0.0)) == (LONGEST_WAIT + 5, LONGEST_WAIT + 5)


def test_a_clock_that_goes_back_fills_nothing() -> None:
    bucket = TokenBucket(rate=1.0, burst=1.0)
    bucket.take(1, 10.0)
    assert bucket.take(1, 5.0) == 1.0
    assert bucket.take(1, 10.5) == 0.5


def test_another_rate_counts_from_now_on() -> None:
    bucket = TokenBucket(rate=1.0, burst=10.0)
    bucket.take(10, 0.0)
    bucket.tune(2.0, rate=4.0)
    assert bucket.level(3.0) == 6.0


@given(
    rate=st.floats(0.1, 50),
    burst=st.floats(1, 50),
    steps=st.lists(st.tuples(st.floats(0, 3), st.floats(0.01, 1)), min_size=1, max_size=60),
)
def test_in_no_window_more_is_taken_than_the_rate_and_the_burst_allow(
    rate: float, burst: float, steps: list[tuple[float, float]]
) -> None:
    bucket, now = TokenBucket(rate=rate, burst=burst), 0.0
    taken: list[tuple[float, float]] = []
    for pause, share in steps:
        now += pause
        amount = share * burst
        wait = bucket.take(amount, now)
        if wait:  # to come back when told is enough
            now += wait
            assert bucket.take(amount, now) <= 1e-6
        taken.append((now, amount))
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            total = sum(amount for _, amount in taken[first : last + 1])
            assert total <= rate * (taken[last][0] - taken[first][0]) + burst + 1e-5


@pytest.mark.parametrize("wrong", [0, -1, float("inf"), float("nan"), "1", True])
def test_settings_that_cannot_be_are_refused_by_name(wrong: Any) -> None:
    with pytest.raises(ValueError, match="rate must be"):
        TokenBucket(rate=wrong, burst=1)
    with pytest.raises(ValueError, match="burst must be"):
        TokenBucket(rate=1, burst=wrong)
