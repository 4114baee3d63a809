"""The rate limiter: limits by hand, by headers and by refusals; estimates, and what becomes of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast._types import Usage
from holdfast.machines.bucket import LONGEST_WAIT
from holdfast.machines.rate_limiter import MAX_LANES, Lane, RateLimiter, Sent, Size, estimate_tokens
from holdfast.machines.rate_limits import Limit, RateLimits

ONE = Size()


def send(lane: Lane, now: float, size: Size = ONE) -> Sent:
    answer = lane.ask(size, now)
    assert isinstance(answer, Sent), answer
    return answer


def held(lane: Lane, now: float, size: Size = ONE) -> tuple[float, str]:
    """What keeps a request, and for how long."""
    answer = lane.ask(size, now)
    assert not isinstance(answer, Sent)
    return round(answer[0], 2), answer[1]


def left(remaining: int, *, reset: float = 30.0, limit: int = 100) -> RateLimits:
    told = Limit(limit=limit, remaining=remaining, reset_seconds=reset)
    return RateLimits(requests=told, every=(("requests", told),))


@given(
    limit=st.floats(1, 500),
    burst=st.floats(0.1, 59),
    pauses=st.lists(st.floats(0, 5), min_size=2, max_size=120),
)
def test_in_no_minute_more_is_sent_than_was_set_by_hand(limit: float, burst: float, pauses: list[float]) -> None:
    lane, now = RateLimiter(requests_per_minute=limit, burst=burst).lane("m"), 0.0
    times: list[float] = []
    for pause in pauses:
        now += pause
        while not isinstance(answer := lane.ask(ONE, now), Sent):
            now += max(answer[0], 0.001)
        times.append(now)
    for at, first in enumerate(times):
        within = [time for time in times[at:] if time < first + 60]
        assert len(within) <= limit + 1e-6 + (limit < 2)  # of one request a minute the bucket cannot hold a half


def test_tokens_are_estimated_and_settled_with_what_they_really_were() -> None:
    lane = RateLimiter(tokens_per_minute=6000, burst=30, output_share=0.5).lane("m")
    size = lane.size({"model": "m", "prompt": "ab " * 1319 + "", "max_tokens": 4000})
    assert size == Size(input=1000.0, output=2000.0)
    sent = send(lane, 0.0, size)
    assert held(lane, 0.0, size) == (60.0, "tokens")
    assert lane.settle(sent, Usage(input_tokens=900, output_tokens=100, total_tokens=1000), 0.0) == -2000.0
    assert lane.settle(sent, Usage(total_tokens=9), 0.0) == 0.0  # once
    assert lane.ask(Size(input=2000), 0.0).__class__ is Sent


def test_an_answer_without_a_limit_is_estimated_by_those_before_it() -> None:
    lane = RateLimiter(tokens_per_minute=60_000).lane("m")
    assert lane.size({"prompt": "x"}).output == 0.0
    lane.settle(send(lane, 0.0), Usage(output_tokens=400, total_tokens=500), 1.0)
    assert lane.size({"prompt": "x"}).output == 400.0


@pytest.mark.parametrize(
    ("body", "estimate"),
    [
        (None, (0.0, None)),
        (b"x" * 400, (100.0, None)),
        ({"generationConfig": {"maxOutputTokens": 9}}, (42 / 4, 9.0)),
        ({"max_completion_tokens": 7}, (27 / 4, 7.0)),
        ({"max_tokens": "many"}, (21 / 4, None)),
    ],
)
def test_an_estimate(body: Any, estimate: tuple[float, float | None]) -> None:
    assert estimate_tokens(body) == estimate


def test_a_picture_is_not_counted_by_its_characters() -> None:
    tokens, _ = estimate_tokens({"url": "data:image/png;base64," + "iVBORw0KGgo" * 20_000})
    assert 1000 < tokens < 1020


def test_little_left_slows_down_and_none_left_waits_for_the_reset() -> None:
    lane = RateLimiter().lane("m")
    lane.told(send(lane, 0.0), left(10), 0.0)
    send(lane, 0.0)
    assert held(lane, 0.0) == (round(30 / 9 * (1 - 9 / 20), 2), "slow-down")
    lane.told(send(lane, 20.0), left(0, reset=10.0), 20.0)
    assert held(lane, 21.0) == (9.0, "requests")


def test_headers_can_be_left_unheard_and_a_pause_cannot() -> None:
    lane = RateLimiter(learn=False).lane("m")
    sent = send(lane, 0.0)
    lane.told(sent, left(0), 0.0)
    send(lane, 0.0)
    lane.refused(sent, 0.0, wait=5.0, numbers=True)
    assert held(lane, 0.0) == (5.0, "requests")


def test_a_crowd_waits_for_the_first_answer_and_not_for_ever() -> None:
    lane = RateLimiter().lane("m")
    for _ in range(20):
        send(lane, 1.0)
    assert held(lane, 1.5) == (1.5, "slow-down")
    send(lane, 3.0)  # whoever says nothing for two seconds is not waited for
    lane = RateLimiter().lane("m")
    sents = [send(lane, 1.0) for _ in range(20)]
    lane.told(sents[0], left(60), 1.1)
    for _ in range(23):  # of 60 the 19 are gone that were sent after the first, and the last 20 are spread
        send(lane, 1.1)
    assert held(lane, 1.1)[1] == "slow-down"
    by_hand = RateLimiter(requests_per_minute=6000).lane("m")
    assert len([send(by_hand, 0.0) for _ in range(100)]) == 100


def test_a_pause_is_for_all_and_a_bit_longer_than_told_by_chance() -> None:
    lane = RateLimiter().lane("m")
    sent = send(lane, 0.0)
    lane.refused(sent, 0.0, wait=10.0, numbers=True, draw=0.5)
    assert held(lane, 4.0) == (6.25, "requests")


def test_a_pause_that_is_cut_short_lets_one_ask_and_the_others_after_its_answer() -> None:
    lane = RateLimiter().lane("m")
    late = send(lane, 0.0)
    lane.refused(send(lane, 0.0), 0.0, wait=86_400.0, numbers=True)
    assert held(lane, 1.0) == (LONGEST_WAIT - 1, "requests")
    probe = send(lane, LONGEST_WAIT)
    lane.told(late, None, LONGEST_WAIT)
    assert held(lane, LONGEST_WAIT) == (30.0, "slow-down")
    lane.unsend(probe, LONGEST_WAIT)  # it never left: another may
    probe = send(lane, LONGEST_WAIT)
    lane.refused(probe, LONGEST_WAIT, wait=80_000.0, numbers=True)
    assert held(lane, LONGEST_WAIT) == (LONGEST_WAIT, "requests")
    send(lane, 2 * LONGEST_WAIT)
    probe = send(lane, 2 * LONGEST_WAIT + 30)  # nothing was heard of that one
    assert held(lane, 2 * LONGEST_WAIT + 30) == (30.0, "slow-down")
    lane.told(probe, None, 2 * LONGEST_WAIT + 31)
    for _ in range(50):
        send(lane, 2 * LONGEST_WAIT + 31)


def test_a_limit_of_a_day_does_not_slow_that_of_a_minute() -> None:
    lane = RateLimiter().lane("m")
    minute = Limit(limit=30, remaining=25, reset_seconds=30, family="minute")
    for at, day in ((0.0, 20), (90_000.0, 990)):
        told = Limit(limit=1000, remaining=day, reset_seconds=80_000, family="day")
        sent = send(lane, at)
        lane.told(sent, RateLimits(requests=told, every=(("requests", minute), ("requests", told))), at)
    lane.refused(sent, 90_000.0, wait=1.0, numbers=True)
    for number in range(5):
        send(lane, 90_002.0 + number)


def test_names_of_limits_that_a_server_makes_up_are_not_all_remembered() -> None:
    lane = RateLimiter().lane("m")
    for number in range(1000):
        told = Limit(limit=9, remaining=9, reset_seconds=1, family=str(number))
        lane.told(send(lane, 2.0 * number), RateLimits(every=(("tokens", told),)), 2.0 * number)
    assert len(lane._learned) == 16


def test_one_refusal_after_a_quiet_time_cuts_the_pace_of_before() -> None:
    lane = RateLimiter().lane("m")
    for _ in range(20):
        lane.told(send(lane, 0.0), None, 0.0)
    lane.refused(send(lane, 60.0), 60.0, wait=None, numbers=False)
    assert lane.ask(ONE, 61.0).__class__ is Sent
    assert lane.ask(ONE, 62.0).__class__ is Sent


@pytest.mark.parametrize("tokens", [10**12, 10**400, -(10**12), -(10**400)])
def test_a_usage_that_cannot_be_holds_nobody_up_for_long(tokens: int) -> None:
    lane = RateLimiter(tokens_per_minute=6000).lane("m")
    lane.settle(send(lane, 0.0, Size(input=100)), Usage(total_tokens=tokens, output_tokens=tokens), 0.0)
    lane.size({"prompt": "x"})
    send(lane, LONGEST_WAIT + 60, Size(input=100))


@pytest.mark.parametrize("most", [float("inf"), 10**400, 10**12])
def test_a_limit_of_output_that_cannot_be_holds_nobody_up_for_long(most: float) -> None:
    lane = RateLimiter(tokens_per_minute=6000).lane("m")
    send(lane, 0.0, lane.size({"max_tokens": most}))
    send(lane, LONGEST_WAIT + 60, Size(input=100))


def nested(depth: int) -> Any:
    body: Any = 1
    for _ in range(depth):
        body = [body]
    return {"messages": body}


@pytest.mark.parametrize(
    "body", [{"prompt": "kelp \ud83d" * 100}, {"seed": 10**5000}, nested(100_000)], ids=["half", "number", "deep"]
)
def test_what_is_no_json_is_estimated_all_the_same(body: Any) -> None:
    assert estimate_tokens(body)[0] >= 0


def test_a_refusal_without_numbers_sets_a_pace_once_for_all_that_were_on_their_way() -> None:
    lane = RateLimiter().lane("m")
    lane.told(send(lane, 0.0), None, 0.0)
    sents = [send(lane, 0.0) for _ in range(39)]  # four a second, over the ten that are looked back on
    for sent in sents[:5]:
        lane.refused(sent, 0.0, wait=None, numbers=False)
    times: list[float] = []
    now = 0.0
    while len(times) < 4:
        answer = lane.ask(ONE, now)
        if isinstance(answer, Sent):
            times.append(now)
        else:
            now += max(answer[0], 0.001)
    assert times[-1] - times[0] == pytest.approx(3 / (4 * 0.7), rel=0.05)


def test_a_pace_grows_and_is_none_any_more_after_a_while() -> None:
    lane = RateLimiter().lane("m")
    lane.refused(send(lane, 0.0), 0.0, wait=None, numbers=False)
    for _ in range(50):
        send(lane, 1000.0)


def test_what_was_not_sent_is_given_back() -> None:
    lane = RateLimiter(requests_per_minute=60, tokens_per_minute=600, burst=1).lane("m")
    lane.unsend(send(lane, 0.0, Size(input=10)), 0.0)
    send(lane, 0.0, Size(input=10))


def test_models_have_limits_of_their_own_and_those_asked_longest_ago_are_forgotten() -> None:
    limiter = RateLimiter(requests_per_minute=10, burst=6)
    send(limiter.lane("a"), 0.0)
    assert not isinstance(limiter.lane("a").ask(ONE, 0.0), Sent)
    send(limiter.lane("b"), 0.0)
    for number in range(MAX_LANES):
        limiter.lane(str(number))
    send(limiter.lane("a"), 0.0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"requests_per_minute": 0},
        {"tokens_per_minute": "many"},
        {"burst": 60},
        {"slow_down_below": 1.5},
        {"output_share": -1},
        {"learn": "no"},
        {"max_waiting": -1},
        {"max_wait": 0},
    ],
    ids=repr,
)
def test_settings_that_cannot_be_are_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RateLimiter(**wrong)
