"""Choosing among upstreams: by order, weight and load; ejection, its growth, and that never all are ejected."""

from __future__ import annotations

from collections import Counter

import pytest

from holdfast._errors import (
    BudgetExhausted,
    CircuitOpen,
    ConnectError,
    DeadlineExceeded,
    NotAStream,
    StatusError,
    StreamError,
    Truncated,
    UpstreamError,
)
from holdfast._types import Head
from holdfast.machines.routes import Routes, judgement, leads_on


def fail(routes: Routes, place: int, now: float, times: int = 1) -> None:
    for _ in range(times):
        routes.end(routes.begin(place, now), now, good=False)


def status(code: int) -> StatusError:
    return StatusError("refused", head=Head(status=code))


def test_the_first_that_is_well_is_asked() -> None:
    routes = Routes([1, 1, 1])
    assert routes.choose(0.0, 0.9) == 0
    assert routes.choose(0.0, 0.9, {0}) == 1
    fail(routes, 0, 0.0, times=3)
    assert routes.choose(0.0, 0.9) == 1


def test_weights_are_the_shares() -> None:
    routes = Routes([1, 3], choose="weighted")
    drawn = Counter(routes.choose(0.0, step / 100) for step in range(100))
    assert drawn == {0: 25, 1: 75}


def test_the_least_loaded_has_the_fewest_streams_for_its_weight() -> None:
    routes = Routes([1, 2], choose="least-loaded")
    seen = []
    for _ in range(6):
        place = routes.choose(0.0, 0.0)
        assert place is not None
        routes.begin(place, 0.0)
        seen.append(place)
    assert Counter(seen) == {0: 2, 1: 4}


def test_an_ejection_ends_and_the_next_is_twice_as_long_at_once() -> None:
    routes = Routes([1, 1], eject_after=3, eject=10.0, max_eject=25.0)
    fail(routes, 0, 0.0, times=2)
    assert routes.healthy(0, 0.0)
    fail(routes, 0, 0.0)
    assert routes.back_in(0, 0.0) == 10.0
    assert routes.healthy(0, 10.0)
    fail(routes, 0, 10.0)  # on probation one is enough
    assert routes.back_in(0, 10.0) == 20.0
    fail(routes, 0, 30.0)
    assert routes.back_in(0, 30.0) == 25.0


def test_a_stream_that_ends_well_forgives_all() -> None:
    routes = Routes([1, 1])
    fail(routes, 0, 0.0, times=3)
    routes.end(routes.begin(0, 11.0), 11.0, good=True)
    fail(routes, 0, 12.0, times=2)
    assert routes.healthy(0, 12.0)


def test_what_began_before_an_ejection_neither_ends_nor_lengthens_it() -> None:
    routes = Routes([1, 1])
    good, bad = routes.begin(0, 0.0), routes.begin(0, 0.0)
    fail(routes, 0, 0.0, times=3)
    routes.end(good, 1.0, good=True)
    routes.end(bad, 1.0, good=False)
    assert routes.back_in(0, 1.0) == 9.0


def test_the_last_one_that_is_well_is_not_ejected_however_it_fails() -> None:
    routes = Routes([1, 1])
    fail(routes, 0, 0.0, times=3)
    fail(routes, 1, 0.0, times=30)
    assert routes.healthy(1, 0.0)
    assert routes.choose(0.0, 0.0) == 1


def test_who_is_ejected_is_asked_when_nobody_else_is_left() -> None:
    routes = Routes([1, 1, 1])
    fail(routes, 1, 0.0, times=3)
    fail(routes, 0, 1.0, times=3)
    assert routes.choose(1.0, 0.0, {2}) == 1, "it is back first"
    assert routes.choose(1.0, 0.0, {2}, ejected=False) is None
    assert routes.choose(1.0, 0.0, {0, 1, 2}) is None


def test_who_asks_to_be_left_alone_is_left_alone_for_as_long() -> None:
    routes = Routes([1, 1], max_eject=60.0)
    routes.end(routes.begin(0, 0.0), 0.0, good=False, wait=30.0)
    assert routes.back_in(0, 0.0) == 30.0
    fail(routes, 0, 31.0)
    assert routes.healthy(0, 31.0), "to ask for a pause is no ejection"


def test_an_end_counts_once() -> None:
    routes = Routes([1, 1])
    visit = routes.begin(0, 0.0)
    for _ in range(5):
        routes.end(visit, 0.0, good=False)
    assert routes.load(0) == 0
    assert routes.healthy(0, 0.0)


def test_a_probe_brings_back_on_probation_and_keeps_out_who_fails_it() -> None:
    routes = Routes([1, 1])
    fail(routes, 0, 0.0, times=3)
    routes.probed(0, 9.0, good=False)
    assert routes.back_in(0, 9.0) == 10.0
    routes.probed(0, 12.0, good=True)
    assert routes.healthy(0, 12.0)
    fail(routes, 0, 13.0)
    assert routes.back_in(0, 13.0) == 20.0


def test_idle_is_who_had_no_stream_for_a_while() -> None:
    routes = Routes([1])
    assert routes.idle(0, 0.0, 30.0)
    visit = routes.begin(0, 0.0)
    assert not routes.idle(0, 100.0, 30.0)
    routes.end(visit, 100.0, good=None)
    assert not routes.idle(0, 110.0, 30.0)
    assert routes.idle(0, 130.0, 30.0)


@pytest.mark.parametrize(
    ("failure", "led_on", "good"),
    [
        (ConnectError(""), True, False),
        (NotAStream(""), True, False),
        (Truncated(""), True, False),
        (DeadlineExceeded("first_token", 1.0), True, False),
        (DeadlineExceeded("total", 1.0), False, None),
        *[(status(code), True, False) for code in (401, 402, 403, 404, 408, 409, 429, 500, 503, 529)],
        *[(status(code), False, None) for code in (400, 413, 422)],
        (UpstreamError("", code="overloaded_error"), True, False),
        (UpstreamError("", type="invalid_request_error"), False, None),
        (UpstreamError("", code="400"), False, None),
        (UpstreamError("", code="content_filter"), False, None),
        (CircuitOpen(""), True, None),
        (BudgetExhausted(""), True, None),
    ],
)
def test_what_leads_on_and_what_it_says_of_health(*, failure: StreamError, led_on: bool, good: bool | None) -> None:
    assert leads_on(failure) is led_on
    assert judgement(failure) is good


def test_a_status_that_is_named_leads_on() -> None:
    assert leads_on(status(413), (413,))
    assert not leads_on(status(400), (413,))


@pytest.mark.parametrize(
    "settings", [{"choose": "best"}, {"eject_after": 0}, {"eject": 0.0}, {"max_eject": float("inf")}]
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=str(next(iter(settings)))):
        Routes([1], **settings)  # type: ignore[arg-type]  # that is what is tested
