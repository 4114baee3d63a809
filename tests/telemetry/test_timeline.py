"""Lines of a log become the lives of streams, whatever the lines are."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.telemetry.health import Health
from holdfast.telemetry.logs import EVENTS, GATEWAY_EVENTS
from holdfast.telemetry.timeline import MAX_STEPS, MAX_TEXT, Filter, Life, LogReader
from holdfast.telemetry.words import say


def line(event: str, stream: str = "s1", at: float = 0.0, attempt: int = 1, **fields: Any) -> bytes:
    told = {"event": event, "stream_id": stream, "elapsed": at, "attempt": attempt, **fields}
    return json.dumps(told).encode() + b"\n"


def read(*lines: bytes) -> tuple[list[Life], LogReader]:
    reader = LogReader()
    lives = [life for one in lines for life in reader.feed(one)]
    return [*lives, *reader.unfinished()], reader


RESUMED = [
    line("stream.started", attempt=0, timestamp="2026-01-31T12:00:00Z", url="https://x.example", labels={"user": "7"}),
    line("attempt.opened", at=0.25, status=200, seconds=0.2),
    line("stream.first_delta", at=0.5, seconds=0.5),
    line("stream.stalled", at=2.0, clock="progress", seconds=1.0),
    line("stream.resuming", at=2.0, error="DeadlineExceeded", delay=0.5),
    line("attempt.opened", at=2.75, attempt=2, seconds=0.25),
    line("stream.resumed", at=3.0, attempt=2, guarantee="verified"),
    line("stream.ended", at=4.0, attempt=2, outcome="resumed", verdict="resumed", seams=1, attempts=2, seconds=4.0),
]


def test_a_stream_is_given_out_when_its_end_is_read() -> None:
    reader = LogReader()
    given_out = [reader.feed(one) for one in RESUMED]
    assert given_out[:-1] == [[]] * 7
    (life,) = given_out[-1]
    assert (life.id, life.outcome, life.attempts, life.seams, life.seconds) == ("s1", "resumed", 2, 1, 4.0)
    assert life.first_delta_seconds == 0.5
    assert [fault.text("error") for fault in life.faults] == ["DeadlineExceeded"]
    assert life.labels == {"user": "7"}
    assert life.began == datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert list(reader.unfinished()) == []


def test_attempts_become_lanes_on_one_time_axis() -> None:
    first, second = read(*RESUMED)[0][0].lanes()
    assert (first.sent, first.head, first.first, first.end, first.how) == (
        0.04999999999999999,
        0.25,
        0.5,
        2.0,
        "DeadlineExceeded",
    )
    assert first.stalls == [(1.0, 2.0)]
    assert (second.waited, second.sent, second.head, second.first, second.end) == (2.0, 2.5, 2.75, 3.0, 4.0)
    assert (second.seam, second.how) == (True, "resumed")


FIRST_NODE = [
    line("gateway.opened", attempt=0, at=0.0, surface="chat"),
    line("stream.started", attempt=0, url="https://x.example"),
    line("attempt.opened", at=0.25, status=200, seconds=0.2),
    line("stream.first_delta", at=0.5, seconds=0.5),
    line("stream.resuming", at=1.0, error="StreamBroken", rung="replay", delay=0.5),
    line("attempt.opened", at=1.75, attempt=2, seconds=0.25),
    line("stream.resumed", at=2.0, attempt=2, guarantee="verified"),
]
SECOND_NODE = [
    line("gateway.taken_over", attempt=0, at=7.79, last=12),
    line("stream.started", attempt=0, url="https://x.example"),
    line("stream.resuming", attempt=0, rung="replay", delay=0.0),
    line("attempt.opened", at=0.25, status=200, seconds=0.25),
    line("stream.resumed", at=0.5, guarantee="verified"),
    line("stream.first_delta", at=0.5, seconds=0.5),
    line("stream.ended", at=1.0, outcome="resumed", verdict="resumed", seams=1, attempts=1, seconds=1.0),
]
HANDED_OVER = [
    line("gateway.handed_over", attempt=0, at=3.0, last=12),
    line("stream.ended", at=3.0, attempt=2, outcome="cancelled", attempts=2, seams=1, seconds=3.0),
]


@pytest.mark.parametrize("left", [[], HANDED_OVER], ids=["killed", "handed over"])
def test_a_stream_that_was_taken_over_is_one_story_on_one_clock(left: list[bytes]) -> None:
    lives, reader = read(*FIRST_NODE, *left, *SECOND_NODE)
    (life,) = lives
    assert (life.outcome, life.attempts, life.seams, life.failed) == ("resumed", 3, 2, False)
    assert (life.seconds, life.first_delta_seconds) == (8.79, 0.5)
    times = [step.at for step in life.steps]
    assert times == sorted(times)
    assert [fault.text("error") for fault in life.faults] == ["StreamBroken"]
    _, second, third = life.lanes()
    assert (second.end, second.how) == ((3.0, "cancelled") if left else (7.79, "lost"))
    assert (third.waited, third.head, third.first, third.seam, third.end) == (7.79, 8.04, 8.29, True, 8.79)
    assert not reader.late
    assert "FAULT" not in " ".join(say(step)[0] for step in life.steps[len(FIRST_NODE) :])


def test_of_a_stream_that_was_handed_over_the_end_is_not_in_this_log() -> None:
    (life,), _ = read(*FIRST_NODE, *HANDED_OVER)
    assert (life.outcome, life.attempts) == ("running", 2)


def test_of_two_requests_that_race_the_loser_ends_when_it_is_given_up() -> None:
    ((life,), _) = read(
        line("attempt.opening", at=0.0),
        line("stream.hedged", at=1.0, delay=1.0),
        line("attempt.opening", at=1.0, attempt=2),
        line("stream.hedge_ended", at=2.0, attempt=2, winner=1, loser=2),
        line("stream.first_delta", at=2.0, attempt=1, seconds=2.0),
        line("stream.ended", at=5.0, attempt=1, outcome="complete", attempts=2),
    )
    assert [(lane.end, lane.how) for lane in life.lanes()] == [(5.0, "complete"), (2.0, "overtaken")]
    assert life.faults == []


def test_a_fallback_is_a_fault_unless_a_seam_told_of_it() -> None:
    ((life,), _) = read(
        line("attempt.opening", at=0.0),
        line("stream.fell_back", at=1.0, error="StatusError", old="a", new="b", midstream=False),
        line("attempt.opening", at=1.5, attempt=2),
        line("stream.resuming", at=3.0, attempt=2, error="StreamBroken", delay=0.0),
        line("stream.fell_back", at=3.5, attempt=2, error="StreamBroken", old="b", new="c", midstream=True),
        line("attempt.opening", at=4.0, attempt=3),
        line("stream.ended", at=5.0, attempt=3, outcome="resumed", attempts=3),
    )
    assert [fault.text("error") for fault in life.faults] == ["StatusError", "StreamBroken"]
    told = [(lane.waited, lane.sent, lane.end, lane.how) for lane in life.lanes()]
    assert told == [(None, 0.0, 1.0, "StatusError"), (1.0, 1.5, 3.0, "StreamBroken"), (3.0, 4.0, 5.0, "resumed")]


def test_the_moment_of_sending_is_told_where_debug_lines_are_there() -> None:
    lanes = read(line("attempt.opening", at=0.1), line("attempt.opened", at=0.5, seconds=0.1))[0][0].lanes()
    assert lanes[0].sent == 0.1


def test_a_stream_without_an_end_is_running() -> None:
    ((life,), _) = read(*RESUMED[:3])
    assert (life.outcome, life.seconds, life.end) == ("running", 0.5, None)


def test_streams_are_told_apart_where_their_lines_are_mixed() -> None:
    lives, _ = read(
        line("stream.started", "a"),
        line("stream.started", "b"),
        line("stream.ended", "b", outcome="complete"),
        line("stream.ended", "a", outcome="cancelled"),
    )
    assert [(life.id, life.outcome) for life in lives] == [("b", "complete"), ("a", "cancelled")]


def test_lines_of_others_and_broken_lines_are_counted_apart() -> None:
    _, reader = read(
        b'{"event": "user.login", "stream_id": "s1"}\n',
        b'{"level": "info"}\n',
        b'{"event": "stream.ended"}\n',
        b"Traceback (most recent call last):\n",
        b'{"event": "stream.sta\n',
        b"[1, 2]\n",
        b"\xff\xfe\n",
        b"\n",
        line("stream.started"),
    )
    assert (reader.lines, reader.foreign, reader.malformed) == (8, 3, 4)


def test_what_a_container_wrote_before_the_object_does_no_harm() -> None:
    lives, reader = read(b"app-1  | " + line("stream.started"))
    assert [life.id for life in lives] == ["s1"]
    assert reader.malformed == 0


def test_a_line_after_the_end_is_late_and_opens_nothing() -> None:
    lives, reader = read(*RESUMED, line("breaker.changed", at=4.1))
    assert (len(lives), reader.late) == (1, 1)


def test_the_end_alone_tells_the_whole() -> None:
    ended = line("stream.ended", at=3.0, attempt=2, error="StreamBroken", outcome="StreamBroken", attempts=2, seams=1,
                 seconds=3.0, first_delta_seconds=0.7)  # fmt: skip
    ((life,), _) = read(ended)
    assert (life.outcome, life.failed, life.attempts, life.seams) == ("StreamBroken", True, 2, 1)
    assert (life.seconds, life.first_delta_seconds) == (3.0, 0.7)


def test_without_elapsed_the_timestamps_place_a_step() -> None:
    told = [
        {"message": "stream.started", "stream_id": "s", "ts": 1_769_860_800},
        {"message": "stream.ended", "stream_id": "s", "ts": 1_769_860_802_500, "outcome": "complete"},
    ]
    ((life,), _) = read(*(json.dumps(one).encode() for one in told))
    assert life.seconds == 2.5
    assert life.began == datetime.fromtimestamp(1_769_860_800, UTC)


def test_texts_are_not_kept_and_strings_are_cut_and_cleaned() -> None:
    ((life,), _) = read(
        line("stream.started", request={"messages": []}, url="\x1b[2J" + "x" * 999),
        line("stream.ended", answer="secret", reasoning="secret", outcome="complete"),
    )
    assert len(life.url) == MAX_TEXT
    assert "\x1b" not in life.url
    assert "secret" not in json.dumps(life.as_dict())


def test_a_stream_of_many_steps_keeps_its_first_and_its_last() -> None:
    lines = [line("stream.repaired", at=float(n)) for n in range(MAX_STEPS + 10)]
    ((life,), _) = read(line("stream.started"), *lines)
    assert (len(life.steps), life.left_out) == (MAX_STEPS, 11)
    assert life.steps[0].event == "stream.started"
    assert life.steps[-1].at == MAX_STEPS + 9


def test_more_than_it_may_hold_pushes_the_oldest_out() -> None:
    reader = LogReader(max_held=3)
    pushed = [life.id for n in range(6) for life in reader.feed(line("stream.started", f"s{n}"))]
    assert pushed == ["s0", "s1", "s2"]
    assert [life.id for life in reader.unfinished()] == ["s3", "s4", "s5"]
    assert reader._held == 0


def test_filters() -> None:
    ((life,), _) = read(*RESUMED)
    noon = datetime(2026, 1, 31, 12, tzinfo=UTC)
    admitted: list[Filter] = [
        Filter(),
        Filter(stream="s"),
        Filter(outcome="RESUMED"),
        Filter(faults=True),
        Filter(slow=4),
        Filter(since=noon, until=noon),
    ]
    refused: list[Filter] = [
        Filter(stream="x"),
        Filter(outcome="error"),
        Filter(slow=4.1),
        Filter(since=datetime(2026, 2, 1, tzinfo=UTC)),
        Filter(until=datetime(2026, 1, 1, tzinfo=UTC)),
    ]
    assert [one.admits(life) for one in admitted] == [True] * 6
    assert [one.admits(life) for one in refused] == [False] * 5
    ((failed,), _) = read(line("stream.ended", error="Truncated", outcome="Truncated"))
    assert Filter(outcome="error").admits(failed)
    assert Filter(outcome="truncated").admits(failed)
    assert not Filter(since=noon).admits(failed)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
NAMES = ("elapsed", "attempt", "timestamp", "ts", "seconds", "labels", "outcome", "error", "attempts", "seams", "delay")
OURS = st.fixed_dictionaries(
    {
        "event": st.sampled_from([*GATEWAY_EVENTS, *(event for event, _ in EVENTS.values())]),
        "stream_id": st.sampled_from(["a", "b"]),
    },
    optional=dict.fromkeys(NAMES, JSON),
)


@given(
    st.lists(
        OURS.map(lambda told: json.dumps(told).encode()) | JSON.map(lambda v: json.dumps(v).encode()) | st.binary()
    )
)
def test_no_line_whatever_breaks_the_reader(lines: list[bytes]) -> None:
    from holdfast.cli._lanes import draw  # noqa: PLC0415 - drawing must bear what reading let through

    lives, reader = read(*lines)
    for life in lives:
        json.dumps(life.as_dict())
        life.lanes()
        draw(life)
        Health().add(life.ending())
        Filter(outcome="error", slow=1.0).admits(life)
    assert reader.malformed + reader.foreign + reader.late <= reader.lines
