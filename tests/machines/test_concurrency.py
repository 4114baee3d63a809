"""Places: never more than the limit, each comes back once; and limits that are found out."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from holdfast.machines.adaptive_limit import MAX_PROBE_SECONDS, PROBE_SECONDS, Aimd, Gradient
from holdfast.machines.concurrency import ConcurrencyLimiter, Permit


class PlacesModel(RuleBasedStateMachine):
    """Against a list: what is held is what was taken and not given back."""

    def __init__(self) -> None:
        super().__init__()
        self.places = ConcurrencyLimiter(limit=3, adaptive="aimd", max_limit=6).places("")
        self.held: list[Permit] = []
        self.gone: list[Permit] = []
        self.now = 0.0

    @rule()
    def take(self) -> None:
        room = len(self.held) < self.places.limit
        permit = self.places.take()
        assert (permit is not None) == room
        if permit is not None:
            self.held.append(permit)

    @rule(at=st.integers(0, 9))
    def release(self, at: int) -> None:
        if self.held:
            permit = self.held.pop(at % len(self.held))
            self.places.release(permit)
            self.gone.append(permit)

    @rule(at=st.integers(0, 9))
    def release_again(self, at: int) -> None:
        if self.gone:
            self.places.release(self.gone[at % len(self.gone)])

    @rule(at=st.integers(0, 9), refused=st.booleans(), at_once=st.booleans())
    def learn(self, at: int, *, refused: bool, at_once: bool) -> None:
        if not self.held:
            return
        self.now += 7.0
        permit, before = self.held[at % len(self.held)], self.places.limit
        if refused:
            self.places.refused(permit, self.now, at_once=at_once)
            assert self.places.limit <= before
        else:
            self.places.began(permit, 1.0, self.now)
            assert before <= self.places.limit <= before + 1

    @invariant()
    def agrees(self) -> None:
        assert self.places.in_use == len(self.held)
        assert 1 <= self.places.limit <= 6
        assert all(map(self.places.holds, self.held))


PlacesModel.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestPlaces = PlacesModel.TestCase


def test_each_upstream_has_places_of_its_own() -> None:
    limiter = ConcurrencyLimiter(limit=1)
    assert limiter.places("a").take() is not None
    assert limiter.places("a").take() is None
    assert limiter.places("b").take() is not None


def test_what_was_on_its_way_at_a_refusal_says_the_same_once() -> None:
    places = ConcurrencyLimiter(limit=100, adaptive="aimd").places("")
    permits = [places.take() for _ in range(100)]
    for permit in permits[50:]:
        assert permit is not None
        places.refused(permit, 0.0, at_once=False)
    assert places.limit == 75


@pytest.mark.parametrize("kind", [Aimd, Gradient])
def test_a_limit_that_is_not_made_use_of_does_not_grow(kind: Any) -> None:
    limit = kind(start=10, least=1, most=100)
    for _ in range(50):
        limit.began(1.0, 4, 0.0)
    assert limit.limit == 10


def test_aimd_doubles_each_round_until_a_refusal_and_stays_under_what_was_refused() -> None:
    limit = Aimd(start=5, least=1, most=100)
    for _ in range(5):
        limit.began(1.0, 5, 0.0)
    assert limit.limit == 10
    limit.refused(9, 0.0, at_once=True)
    assert limit.limit == 7.5
    for _ in range(100):
        limit.began(1.0, 8, 1.0)
    assert limit.limit == 8
    limit.began(1.0, 8, PROBE_SECONDS)
    assert 8 < limit.limit <= 9


def test_a_try_that_fails_is_made_ever_more_seldom() -> None:
    limit, now = Aimd(start=5, least=1, most=100), 0.0
    tries: list[float] = []
    limit.refused(6, now, at_once=True)
    while len(tries) < 7:
        now += 1.0
        limit.began(1.0, 5, now)
        if int(limit.limit) > 5:
            limit.refused(6, now, at_once=True)
            tries.append(now)
    pauses = [round(later - earlier, -1) for earlier, later in pairwise(tries)]
    assert pauses == sorted(pauses)
    assert pauses[0] == 2 * PROBE_SECONDS
    assert pauses[-1] == MAX_PROBE_SECONDS


def test_an_overload_is_no_news_of_the_limit_so_it_comes_back_at_once() -> None:
    limit = Aimd(start=100, least=1, most=100)
    for second in range(20):
        limit.refused(1, second, at_once=False)
    assert limit.limit == 1
    for _ in range(99):
        limit.began(1.0, 100, 60.0)
    assert limit.limit == 100


def test_gradient_grows_while_first_tokens_come_as_ever_and_shrinks_when_they_come_late() -> None:
    limit = Gradient(start=20, least=1, most=200)
    for _ in range(100):
        limit.began(0.5, int(limit.limit), 0.0)
    grown = limit.limit
    assert grown > 40
    for _ in range(20):
        limit.began(5.0, int(limit.limit), 0.0)
    assert limit.limit < grown / 2


@given(st.lists(st.tuples(st.floats(0, 60), st.integers(1, 300), st.booleans()), max_size=100))
def test_no_signal_drives_a_limit_over_its_bounds(signals: list[tuple[float, int, bool]]) -> None:
    for kind in (Aimd, Gradient):
        limit, now = kind(start=20, least=2, most=50), 0.0
        for seconds, in_use, good in signals:
            now += seconds
            if good:
                limit.began(seconds, in_use, now)
            else:
                limit.refused(in_use, now, at_once=in_use % 2 == 0)
            assert 2 <= limit.limit <= 50


@pytest.mark.parametrize(
    "wrong",
    [{"limit": 0}, {"adaptive": "vegas"}, {"max_waiting": -1}, {"max_wait": 0}, {"lease": 0}, {"min_limit": 0}],
    ids=repr,
)
def test_settings_that_cannot_be_are_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ConcurrencyLimiter(**wrong)


def test_a_limit_beyond_the_bounds_names_these() -> None:
    with pytest.raises(ValueError, match=r"limit must be .* max_limit \(200\), not 500"):
        ConcurrencyLimiter(limit=500, adaptive="aimd")


@pytest.mark.parametrize("adaptive", ["aimd", "gradient"])
def test_a_limit_that_adapts_begins_within_its_bounds(adaptive: Literal["aimd", "gradient"]) -> None:
    with pytest.raises(ValueError, match="limit must be from"):
        ConcurrencyLimiter(limit=300, adaptive=adaptive)
