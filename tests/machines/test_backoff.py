from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.machines.backoff import Backoff

chances = st.floats(0.0, 1.0, exclude_max=True)


def test_full_jitter_doubles_its_ceiling_up_to_the_cap() -> None:
    backoff = Backoff(base=1.0, cap=10.0)
    assert [backoff.next(0.5) for _ in range(7)] == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0, 5.0]


def test_full_jitter_reaches_down_to_nothing() -> None:
    backoff = Backoff()
    assert [backoff.next(0.0) for _ in range(5)] == [0.0] * 5


def test_decorrelated_jitter_grows_from_the_delay_before() -> None:
    backoff = Backoff(base=1.0, cap=10.0, jitter="decorrelated")
    assert [backoff.next(0.5) for _ in range(6)] == [2.0, 3.5, 5.75, 9.125, 10.0, 10.0]


def test_decorrelated_jitter_may_fall_back_to_the_base() -> None:
    backoff = Backoff(base=1.0, cap=10.0, jitter="decorrelated")
    assert [backoff.next(0.99), backoff.next(0.0), backoff.next(0.5)] == [2.98, 1.0, 2.0]


@pytest.mark.parametrize("jitter", ["full", "decorrelated"])
def test_the_ten_thousandth_delay_is_no_different(jitter: Any) -> None:
    backoff = Backoff(base=1.0, cap=10.0, jitter=jitter)
    delays = [backoff.next(0.999) for _ in range(10_000)]
    assert delays[-1] == pytest.approx(10.0, rel=0.01)


@pytest.mark.parametrize("jitter", ["full", "decorrelated"])
def test_a_reset_begins_again(jitter: Any) -> None:
    backoff = Backoff(jitter=jitter)
    first = [backoff.next(0.7) for _ in range(4)]
    backoff.reset()
    assert [backoff.next(0.7) for _ in range(4)] == first


def test_the_first_full_delay_never_passes_the_cap() -> None:
    assert Backoff(base=5.0, cap=5.0).next(0.9) == 4.5


@given(st.lists(chances, min_size=1, max_size=50), st.floats(0.0, 100.0), st.floats(0.0, 1000.0))
def test_full_delays_stay_between_nothing_and_the_cap(us: list[float], base: float, more: float) -> None:
    backoff = Backoff(base=base, cap=base + more)
    for n, u in enumerate(us):
        assert backoff.next(u) == pytest.approx(u * min(base + more, base * 2**n))


@given(st.lists(chances, min_size=2, max_size=50), st.floats(0.0, 100.0), st.floats(0.0, 1000.0))
def test_decorrelated_delays_stay_between_the_base_and_thrice_the_one_before(
    us: list[float], base: float, more: float
) -> None:
    backoff = Backoff(base=base, cap=base + more, jitter="decorrelated")
    delays = [backoff.next(u) for u in us]
    assert all(base <= delay <= base + more for delay in delays)
    assert all(after <= before * 3 * (1 + 1e-9) for before, after in pairwise(delays))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"base": -1.0}, "base must be .* not -1.0"),
        ({"base": "1"}, "base must be .* not '1'"),
        ({"cap": True}, "cap must be .* not True"),
        ({"base": float("nan")}, "base must be .* not nan"),
        ({"base": 5.0, "cap": 4.0}, "cap must be .* not 4.0"),
        ({"cap": float("inf")}, "cap must be .* not inf"),
        ({"jitter": "none"}, "jitter must be .* not 'none'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Backoff(**settings)
