"""Rate limits in headers: all the ways to say them, and nothing made up from those that say nothing."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.machines.rate_limits import Limit, RateLimits, read, seconds_until

WALL = datetime(2025, 3, 15, 9, 38, 0, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("6ms", 0.006),
        ("120ms", 0.12),
        ("0s", 0),
        ("47.444s", 47.444),
        ("1m3.57s", 63.57),
        ("6m0s", 360),
        ("20m52.666s", 1252.666),
        ("83h10m39.057s", 299439.057),
        ("1.5h", 5400),
        ("7us", 7e-6),
        ("7µs", 7e-6),
        ("7ns", 7e-9),
        (" 59 ", 59),
        ("0", 0),
        ("26.5", 26.5),
        ("2025-03-15T09:38:36Z", 36),
        ("2025-03-15T10:38:36+01:00", 36),
        ("2025-03-15T09:38:36.5Z", 36.5),
        ("2025-03-15T09:38:36", 36),
        ("2025-03-15T09:00:00Z", 0),
        (str(int(WALL) + 36), 36),
        (str((int(WALL) + 36) * 1000), 36),
        (str(int(WALL) - 36), 0),
        ("-1", None),
        ("", None),
        ("soon", None),
        ("1x", None),
        ("m", None),
        ("1.2.3s", None),
        ("1e9", None),
        ("inf", None),
        ("nan", None),
        ("٣", None),
        ("9" * 5000, None),
        ("9" * 5000 + "h", None),
        ("2025-13-15T09:38:36Z", None),
        ("2025-03-15", None),
    ],
)
def test_reads_every_form_of_a_reset(text: str, seconds: float | None) -> None:
    found = seconds_until(text, WALL)
    assert found == (None if seconds is None else pytest.approx(seconds, abs=1e-6))


def limit(total: int | None, left: int | None, reset: float | None = None) -> Limit:
    return Limit(limit=total, remaining=left, reset_seconds=reset)


def headers(form: str, *values: str) -> dict[str, str]:
    return {form.format(part): value for part, value in zip(("limit", "remaining", "reset"), values, strict=False)}


def test_openai() -> None:
    said = headers("x-ratelimit-{}-requests", "10000", "9999", "6ms")
    said |= headers("x-ratelimit-{}-tokens", "200000", "199000", "1m3.5s")
    assert read(said, WALL) == RateLimits(requests=limit(10_000, 9_999, 0.006), tokens=limit(200_000, 199_000, 63.5))


def test_anthropic() -> None:
    said: dict[str, str] = {}
    for number, kind in enumerate(("requests", "tokens", "input-tokens", "output-tokens"), 1):
        said |= headers(f"anthropic-ratelimit-{kind}-{{}}", f"{number}00", f"{number}0", "2025-03-15T09:38:36Z")
    assert read(said, WALL) == RateLimits(
        requests=limit(100, 10, 36),
        tokens=limit(200, 20, 36),
        input_tokens=limit(300, 30, 36),
        output_tokens=limit(400, 40, 36),
    )


def test_azure_says_minus_one_and_zero_for_what_it_does_not_know() -> None:
    said = headers("x-ratelimit-{}-requests", "500", "7", "0") | headers("x-ratelimit-{}-tokens", "-1", "-1", "0")
    assert read(said, WALL) == RateLimits(requests=limit(500, 7, 0))
    assert read(headers("x-ratelimit-{}-tokens", "0", "0", "0"), WALL) is None
    said = {"x-ratelimit-remaining-tokens": "-1", "x-ratelimit-reset-tokens": "59"}
    assert read(said, WALL) is None


def test_nothing_left_is_no_unknown() -> None:
    found = read(headers("x-ratelimit-{}-tokens", "100", "0", "59"), WALL)
    assert found == RateLimits(tokens=limit(100, 0, 59))
    assert read({"x-ratelimit-remaining-requests": "0"}, WALL) == RateLimits(requests=limit(None, 0))


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (headers("ratelimitbysize-{}", "500000", "499000", "33"), RateLimits(tokens=limit(500_000, 499_000, 33))),
        (
            headers("x-ratelimit-{}-tokens-minute", "500", "400") | headers("x-ratelimit-{}-req-minute", "60", "59"),
            RateLimits(requests=limit(60, 59), tokens=limit(500, 400)),
        ),
        (
            headers("x-ratelimit-{}-requests-day", "900", "3", "3600")
            | headers("x-ratelimit-{}-requests-minute", "60", "59", "5"),
            RateLimits(requests=limit(900, 3, 3600)),  # the one nearest to its end
        ),
        (headers("x-ratelimit-{}", "20", "0", f"{(int(WALL) + 9) * 1000}"), RateLimits(requests=limit(20, 0, 9))),
        (headers("ratelimit-{}", "100, 100;w=60", "50", "30"), RateLimits(requests=limit(100, 50, 30))),
        ({"ratelimit": "limit=100, remaining=50, reset=5"}, RateLimits(requests=limit(100, 50, 5))),
        ({"ratelimit": '"default";r=50;t=30'}, RateLimits(requests=limit(None, 50, 30))),
        (
            {"ratelimit": '"burst";r=9;t=1, "day";r=7;t=60', "ratelimit-policy": '"burst";q=10;w=1, "day";q=80;w=99'},
            RateLimits(requests=limit(80, 7, 60)),
        ),
        ({}, None),
        ({"content-type": "text/event-stream", "retry-after": "9"}, None),
        ({"x-ratelimit-reset-requests": "1s"}, None),
        (headers("x-ratelimit-{}-requests", "many", "few", "soon"), None),
        ({"ratelimit": "; , =", "ratelimit-policy": ";,"}, None),
    ],
)
def test_reads_the_others(said: dict[str, str], expected: RateLimits | None) -> None:
    assert read(said, WALL) == expected


def test_one_limit_a_minute_and_one_a_day_are_two() -> None:
    said = headers("x-ratelimit-{}-requests-day", "900", "3", "3600")
    said |= headers("x-ratelimit-{}-requests-minute", "60", "59", "5")
    said |= {"ratelimit": '"burst";r=9;t=1, "hour";r=7;t=60'}
    found = read(said, WALL)
    assert found is not None
    assert [(kind, limit.family, limit.remaining) for kind, limit in found.every] == [
        ("requests", "x-ratelimit-remaining-requests-minute", 59),
        ("requests", "x-ratelimit-remaining-requests-day", 3),
        ("requests", 'ratelimit "burst"', 9),
        ("requests", 'ratelimit "hour"', 7),
    ]


def test_a_time_counts_from_that_of_the_server_that_tells_it() -> None:
    said = headers("x-ratelimit-{}-requests", "9", "0", "2025-03-15T09:38:36Z")
    an_hour_slow = read(said | {"date": "Sat, 15 Mar 2025 09:38:06 GMT"}, WALL + 3600)
    assert an_hour_slow == RateLimits(requests=limit(9, 0, 30))


@pytest.mark.parametrize(
    ("limits", "seconds"),
    [
        (RateLimits(), None),
        (RateLimits(requests=limit(9, 1, 5)), None),
        (RateLimits(requests=limit(9, 0, 5), tokens=limit(9, 1, 60)), 5),
        (RateLimits(requests=limit(9, 0, 5), output_tokens=limit(9, 0, 60)), 60),
        (RateLimits(requests=limit(9, 0), tokens=limit(9, 0, 2)), 2),
        (RateLimits(requests=limit(9, 0)), None),
    ],
)
def test_waits_for_what_is_used_up(limits: RateLimits, seconds: float | None) -> None:
    assert limits.wait == seconds


names = st.sampled_from(
    [
        "x-ratelimit-limit-requests",
        "x-ratelimit-remaining-requests",
        "x-ratelimit-reset-requests",
        "anthropic-ratelimit-tokens-reset",
        "anthropic-ratelimit-tokens-remaining",
        "ratelimit",
        "ratelimit-policy",
        "ratelimit-limit",
    ]
)
values = st.text('0123456789.-+:TZhmsnuµ ,;="rtq', max_size=30) | st.text(max_size=10)


@given(st.dictionaries(names, values), st.floats(0, 4e9))
def test_whatever_is_sent_nothing_is_made_up(said: dict[str, str], wall: float) -> None:
    found = read(said, wall)
    for one in (found.requests, found.tokens) if found else ():
        if one is not None:
            assert one.limit is None or one.limit > 0
            assert one.remaining is None or one.remaining >= 0
            assert one.limit is not None or one.remaining is not None
            assert one.reset_seconds is None or 0 <= one.reset_seconds < float("inf")


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59_999))
def test_a_duration_is_the_sum_of_its_parts(hours: int, minutes: int, milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert seconds_until(f"{hours}h{minutes}m{seconds:.3f}s", WALL) == pytest.approx(
        hours * 3600 + minutes * 60 + seconds
    )
