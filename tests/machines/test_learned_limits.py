"""What headers told of a limit, carried on: never more than was told, all of it after the reset, spread at the end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.machines.bucket import LONGEST_WAIT
from holdfast.machines.learned_limits import WINDOW, LearnedLimit
from holdfast.machines.rate_limits import Limit


def told(*, limit: int | None, remaining: int | None, reset: float | None, sent: int = 1) -> LearnedLimit:
    learned = LearnedLimit()
    learned.sent = float(sent)
    given_limit = Limit(limit=limit, remaining=remaining, reset_seconds=reset)
    learned.told(given_limit, number=sent, sent=float(sent), now=100.0)
    return learned


def test_nothing_known_is_no_limit() -> None:
    learned = LearnedLimit()
    assert learned.wait(1e9, 0.0) == 0.0
    assert learned.rate(1.0, 0.0, below=0.2) is None


def test_what_was_sent_since_the_answer_s_request_is_gone_as_well() -> None:
    learned = told(limit=100, remaining=10, reset=30, sent=90)
    learned.sent += 4
    assert learned.left(110.0) == 6
    assert learned.wait(6, 110.0) == 0.0
    assert learned.wait(7, 110.0) == 20.0


def test_an_answer_that_comes_late_changes_nothing() -> None:
    learned = told(limit=100, remaining=10, reset=30, sent=90)
    learned.told(Limit(limit=100, remaining=50, reset_seconds=30), number=50, sent=50, now=101.0)
    assert learned.left(101.0) == 10


def test_at_the_reset_all_is_there_again_but_what_is_still_on_its_way() -> None:
    learned = told(limit=100, remaining=0, reset=30, sent=90)
    learned.sent += 5
    assert learned.left(130.0) == 95
    learned.sent += 1
    assert learned.left(130.0) == 94
    assert learned.left(130.0 + WINDOW) == 99  # and at the next one only what was sent since the last


def test_what_is_left_is_spread_loosely_at_first_and_evenly_at_the_end() -> None:
    assert told(limit=100, remaining=20, reset=50).rate(1, 100.0, below=0.2) is None
    half = told(limit=100, remaining=10, reset=50).rate(1, 100.0, below=0.2)
    last = told(limit=100, remaining=1, reset=50).rate(1, 100.0, below=0.2)
    assert half == pytest.approx(10 / 50 * 2)
    assert last == pytest.approx(1 / 50 / 0.95)
    assert told(limit=100, remaining=10, reset=50).rate(5, 100.0, below=0.2) == pytest.approx(10 / 50 * 2 / 5)


def test_a_bucket_that_refills_is_known_by_telling_of_more_than_was_left() -> None:
    learned = told(limit=60, remaining=0, reset=60, sent=60)
    assert learned.wait(1, 100.0) == 60.0
    learned.told(Limit(limit=60, remaining=2, reset_seconds=58), number=60, sent=60, now=102.0)
    assert learned.wait(4, 102.0) == pytest.approx(2.0)
    assert learned.left(104.0) == pytest.approx(4.0)
    learned.exceeded()
    assert learned.wait(4, 102.0) == 58.0


def test_a_request_over_the_whole_limit_is_the_server_s_to_judge() -> None:
    assert told(limit=100, remaining=100, reset=0).wait(5_000, 100.0) == 0.0


@pytest.mark.parametrize("reset", [86_400.0, 31_536_000.0, 1e17])
def test_after_ten_minutes_one_asks_in_spite_of_what_was_told(reset: float) -> None:
    learned = told(limit=100, remaining=0, reset=reset)
    assert learned.wait(1, 100.0) == LONGEST_WAIT
    assert learned.wait(1, 100.0 + LONGEST_WAIT) == 0.0
    assert learned.rate(1, 100.0 + LONGEST_WAIT, below=0.2) is None
    learned.send(1, 100.0 + LONGEST_WAIT)
    assert learned.wait(1, 100.0 + LONGEST_WAIT) == LONGEST_WAIT  # one, and not all


def test_what_is_left_of_a_long_time_is_not_spread_over_all_of_it() -> None:
    rate = told(limit=1000, remaining=20, reset=80_000).rate(1, 100.0, below=0.2)
    assert rate is not None
    assert rate > 20 / LONGEST_WAIT


def test_a_window_that_was_told_once_is_forgotten() -> None:
    learned = told(limit=100, remaining=99, reset=31_536_000)
    for number in range(2, 5):
        now = 100.0 + number * LONGEST_WAIT
        learned.told(Limit(limit=100, remaining=99, reset_seconds=5), number=number, sent=float(number), now=now)
    assert learned.window == 5.0


def test_who_does_not_know_what_it_needs_needs_something() -> None:
    assert told(limit=8000, remaining=0, reset=20).wait(0.0, 100.0) == 20.0


@given(left=st.integers(0, 200), reset=st.floats(0, 1e9), amount=st.floats(0, 1e9))
def test_nobody_is_held_up_for_longer_than_the_reset_or_ten_minutes(left: int, reset: float, amount: float) -> None:
    learned = told(limit=200, remaining=left, reset=reset)
    assert learned.wait(amount, 100.0) <= min(reset, LONGEST_WAIT) + 1e-6
    if not learned.wait(amount, 100.0):
        rate = learned.rate(amount, 100.0, below=1.0)
        assert rate is None or 1 / rate <= min(max(reset, 1e-3), LONGEST_WAIT) + 1e-6


def test_what_is_not_told_changes_nothing() -> None:
    assert told(limit=100, remaining=None, reset=5).limit is None
    assert told(limit=None, remaining=7, reset=None).wait(8, 100.0) == 0.0  # 7 is all that is known of its limit
    assert told(limit=None, remaining=7, reset=None).reset_at == 100 + WINDOW


@given(
    limit=st.integers(1, 200),
    window=st.floats(1, 120),
    steps=st.lists(st.tuples(st.floats(0, 20), st.integers(1, 5)), max_size=80),
)
def test_a_window_is_never_exceeded_while_every_answer_is_heard(
    limit: int, window: float, steps: list[tuple[float, int]]
) -> None:
    learned, now, taken, number = LearnedLimit(), 0.0, dict[int, int](), 0
    for pause, many in steps:
        now += pause
        for _ in range(many):
            if learned.wait(1, now):
                continue
            number += 1
            learned.sent += 1
            which = int(now // window)
            taken[which] = taken.get(which, 0) + 1
            remaining, reset = max(0, limit - taken[which]), (which + 1) * window - now
            learned.told(
                Limit(limit=limit, remaining=remaining, reset_seconds=reset), number=number, sent=learned.sent, now=now
            )
    assert all(count <= limit for count in taken.values())
