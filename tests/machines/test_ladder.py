"""The resume ladder, decision by decision."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast._errors import (
    BudgetExhausted,
    CircuitOpen,
    ConnectError,
    DeadlineExceeded,
    DecodeError,
    IntegrityError,
    NotAStream,
    StatusError,
    StreamBroken,
    StreamError,
    Truncated,
    UpstreamError,
)
from holdfast._types import Head
from holdfast.machines.backoff import Backoff
from holdfast.machines.ladder import Ladder, Seams, Situation, Step

ID: dict[str, Any] = {"last_event_id": "7", "delivered_tokens": 100}
REPLAYABLE: dict[str, Any] = {"replayable": True, "delivered_tokens": 100}
BOTH: dict[str, Any] = {**ID, **REPLAYABLE}


def broken() -> StreamError:
    return StreamBroken("reset")


def status(code: int, *, retryable: bool = False, retry_after: float | None = None) -> StatusError:
    return StatusError("refused", head=Head(status=code), retryable=retryable, retry_after=retry_after)


def ladder(**settings: Any) -> Ladder:
    return Ladder(Seams(**settings), backoff=Backoff(base=0, cap=0))


@pytest.mark.parametrize(
    ("at", "rung", "mode", "guarantee"),
    [
        (ID, "last-event-id", "continue", "exact"),
        (BOTH, "last-event-id", "continue", "exact"),
        (REPLAYABLE, "replay", "replay", "verified"),
    ],
)
def test_the_strongest_rung_that_exists_comes_first(at: dict[str, Any], rung: str, mode: str, guarantee: str) -> None:
    step = ladder().next(broken(), Situation(**at))
    assert step is not None
    assert (step.rung, step.mode, step.guarantee, step.finish) == (rung, mode, guarantee, False)


def test_where_no_rung_exists_the_failure_is_raised() -> None:
    assert ladder().next(broken(), Situation(delivered_tokens=100)) is None
    assert ladder(rungs=()).next(broken(), Situation(**BOTH)) is None
    assert ladder(rungs=("replay",)).next(broken(), Situation(**ID)) is None


def test_a_rung_that_is_not_allowed_is_left_out() -> None:
    step = ladder(rungs=("replay",)).next(broken(), Situation(**BOTH))
    assert step is not None
    assert step.rung == "replay"


@pytest.mark.parametrize(
    ("failure", "goes_on"),
    [
        (StreamBroken("reset"), True),
        (Truncated("cut"), True),
        (DecodeError("not JSON"), True),
        (IntegrityError("length", expected="1", actual="2"), True),
        (DeadlineExceeded("progress", 1), True),
        (DeadlineExceeded("total", 1), False),
        (UpstreamError("overloaded", retryable=True), True),
        (UpstreamError("invalid", retryable=False), False),
        (DecodeError("too long", retryable=False), False),
        (CircuitOpen("open"), False),
        (BudgetExhausted("spent"), False),
    ],
    ids=repr,
)
def test_only_a_failure_that_may_pass_is_climbed_over(failure: StreamError, goes_on: bool) -> None:  # noqa: FBT001
    assert (ladder().next(failure, Situation(**BOTH)) is not None) == goes_on


@pytest.mark.parametrize("code", [302, 308, 400, 404, 405, 409, 410, 412, 416, 422, 501])
def test_a_refused_cursor_leads_to_the_next_rung(code: int) -> None:
    climbing = ladder()
    climbing.next(broken(), Situation(**BOTH))
    step = climbing.next(status(code), Situation(**BOTH))
    assert step is not None
    assert step.rung == "replay"


@pytest.mark.parametrize("failure", [NotAStream("204: nothing"), NotAStream("a document", retryable=False)])
def test_no_stream_at_our_cursor_leads_to_the_next_rung(failure: StreamError) -> None:
    climbing = ladder()
    climbing.next(broken(), Situation(**BOTH))
    step = climbing.next(failure, Situation(**BOTH))
    assert step is not None
    assert step.rung == "replay"


@pytest.mark.parametrize("code", [401, 402, 403])
def test_a_refused_caller_is_no_refused_cursor(code: int) -> None:
    climbing = ladder()
    climbing.next(broken(), Situation(**BOTH))
    assert climbing.next(status(code), Situation(**BOTH)) is None


def test_a_server_that_is_only_busy_is_asked_again_at_the_same_rung() -> None:
    climbing = ladder()
    climbing.next(broken(), Situation(**BOTH))
    step = climbing.next(status(503, retryable=True, retry_after=9), Situation(**BOTH))
    assert step == Step(rung="last-event-id", delay=9)


def test_a_body_that_is_not_the_one_announced_is_compared_and_not_gone_on_with() -> None:
    failure = IntegrityError("the digest differs", expected="a", actual="b")
    step = ladder().next(failure, Situation(**BOTH, complete=True, usage_known=True))
    assert step is not None
    assert step.rung == "replay"
    assert ladder().next(failure, Situation(**ID, complete=True, usage_known=True)) is None


def test_a_refused_cursor_is_tried_again_once_there_was_new_content() -> None:
    climbing = ladder()
    climbing.next(broken(), Situation(**BOTH))
    climbing.next(status(404), Situation(**BOTH))
    climbing.made_progress()
    step = climbing.next(broken(), Situation(**BOTH))
    assert step is not None
    assert step.rung == "last-event-id"


def test_after_another_answer_came_its_rung_is_not_tried_again() -> None:
    climbing = ladder()
    climbing.next(broken(), Situation(**BOTH))
    climbing.diverged()
    step = climbing.next(broken(), Situation(**BOTH))
    assert step is not None
    assert step.rung == "replay"  # what followed our cursor need not have been an answer from its beginning
    climbing.diverged()
    assert climbing.next(broken(), Situation(**BOTH)) is None


@pytest.mark.parametrize(
    ("retry", "retry_after", "delay"),
    [(3.0, None, 3.0), (None, 4.0, 4.0), (3.0, 4.0, 4.0), (60.0, None, 60.0), (60.5, None, None), (None, 61.0, None)],
)
def test_the_server_says_when_to_come_back_up_to_a_minute(
    retry: float | None, retry_after: float | None, delay: float | None
) -> None:
    failure = broken()
    failure.retry_after = retry_after
    step = ladder().next(failure, Situation(**BOTH, server_retry=retry))
    assert (None if step is None else step.delay) == delay


def test_delays_are_drawn_and_begin_again_after_progress() -> None:
    climbing = Ladder(backoff=Backoff(base=1, cap=10))

    def delay() -> float:
        step = climbing.next(broken(), Situation(**ID, u=0.5))
        assert step is not None
        return step.delay

    assert [delay() for _ in range(3)] == [0.5, 1.0, 2.0]
    climbing.made_progress()
    assert delay() == 0.5


def test_tries_without_new_content_are_bounded_and_content_resets_the_count() -> None:
    climbing = ladder(max_barren=2)
    at = Situation(**ID)
    assert [climbing.next(broken(), at) is not None for _ in range(3)] == [True, True, False]
    climbing.made_progress()
    assert [climbing.next(broken(), at) is not None for _ in range(3)] == [True, True, False]


def test_seams_are_bounded() -> None:
    climbing = ladder(max_seams=3)
    for _ in range(3):
        assert climbing.next(broken(), Situation(**ID)) is not None
        climbing.made_progress()
    assert climbing.next(broken(), Situation(**ID)) is None


def test_what_replays_cost_is_bounded() -> None:
    at = Situation(**REPLAYABLE)
    climbing = ladder()
    assert [climbing.next(broken(), at) is not None for _ in range(3)] == [True, True, False]
    assert ladder(max_repaid_tokens=99).next(broken(), at) is None
    climbing = ladder(max_repaid_tokens=350, max_barren=9)
    assert [climbing.next(broken(), at) is not None for _ in range(4)] == [True, True, True, False]


@pytest.mark.parametrize("failure", [ConnectError("refused"), status(503, retryable=True)], ids=repr)
def test_a_replay_that_never_began_cost_nothing(failure: StreamError) -> None:
    climbing, at = ladder(), Situation(**REPLAYABLE)
    assert climbing.next(broken(), at) is not None
    assert all(climbing.next(failure, at) is not None for _ in range(4))


@pytest.mark.parametrize("failure", [broken(), Truncated("cut"), DeadlineExceeded("progress", 1)], ids=repr)
def test_a_proven_answer_is_finished_and_not_asked_for_again(failure: StreamError) -> None:
    without_ids = ladder().next(failure, Situation(**REPLAYABLE, complete=True))
    assert without_ids is not None
    assert without_ids.finish
    with_usage = ladder().next(failure, Situation(**BOTH, complete=True, usage_known=True))
    assert with_usage is not None
    assert with_usage.finish


def test_usage_that_a_cursor_can_fetch_is_asked_for_once() -> None:
    climbing, at = ladder(), Situation(**BOTH, complete=True)
    first = climbing.next(broken(), at)
    assert first is not None
    assert first.rung == "last-event-id"
    for failure in (broken(), status(404), ConnectError("refused"), CircuitOpen("open"), UpstreamError("no")):
        step = climbing.next(failure, Situation(**REPLAYABLE))  # the cursor may be gone by now
        assert step is not None
        assert step.finish


@pytest.mark.parametrize(
    ("settings", "at"),
    [
        ({"max_barren": 0}, {}),
        ({"max_seams": 0}, {}),
        ({"rungs": ("replay",)}, {}),
        ({}, {"no_request": "none is left"}),
    ],
)
def test_a_proven_answer_is_finished_where_nothing_more_may_be_asked(
    settings: dict[str, Any], at: dict[str, Any]
) -> None:
    step = ladder(**settings).next(broken(), Situation(**BOTH, complete=True, **at))
    assert step is not None
    assert step.finish


def test_an_error_that_the_provider_reports_after_the_proof_is_no_end() -> None:
    failed = UpstreamError("no", retryable=False)
    assert ladder().next(failed, Situation(**BOTH, complete=True, usage_known=True)) is None


# -- another upstream ------------------------------------------------------------------------------

THERE: dict[str, Any] = {**BOTH, "elsewhere": ("replay", "prefix")}


def test_the_same_upstream_comes_first_and_after_some_tries_another_at_once() -> None:
    machine = Ladder(Seams(leave_after=2), backoff=Backoff(base=1, cap=1))
    steps = [machine.next(broken(), Situation(**THERE)) for _ in range(4)]
    assert steps[:2] == [Step(rung="last-event-id", delay=0.5)] * 2
    assert steps[2] == Step(rung="replay", elsewhere=True)
    assert steps[3] == Step(rung="last-event-id", delay=0.5), "tries there are counted anew"


@pytest.mark.parametrize(
    "failure", [CircuitOpen("open"), BudgetExhausted("limit"), status(401), status(503, retry_after=61, retryable=True)]
)
def test_an_upstream_that_leads_nowhere_is_left_at_once(failure: StreamError) -> None:
    machine = ladder()
    machine.next(broken(), Situation(**THERE))
    assert machine.next(failure, Situation(**THERE)) == Step(rung="replay", elsewhere=True)
    assert machine.why == ""


@pytest.mark.parametrize("failure", [status(400), UpstreamError("no", code="content_filter")])
def test_what_says_nothing_of_the_upstream_leads_to_no_other(failure: StreamError) -> None:
    machine = ladder()
    machine.next(broken(), Situation(**{**THERE, "last_event_id": ""}))
    assert machine.next(failure, Situation(**{**THERE, "last_event_id": ""})) is None


def test_rungs_that_were_refused_here_are_tried_there() -> None:
    machine = ladder()
    at = Situation(**{**THERE, "last_event_id": ""})
    assert machine.next(broken(), at) == Step(rung="replay")
    machine.diverged()
    assert machine.next(broken(), at) == Step(rung="replay", elsewhere=True)
    machine.diverged()
    assert machine.next(broken(), at) == Step(rung="replay", elsewhere=True)


def test_a_divergence_that_is_to_be_raised_leads_nowhere() -> None:
    machine = ladder(on_divergence="raise")
    machine.next(broken(), Situation(**THERE))
    machine.diverged()
    assert machine.next(broken(), Situation(**THERE)) is None


def test_a_prefix_elsewhere_has_to_be_allowed() -> None:
    at = Situation(elsewhere=("prefix",), delivered_tokens=100)
    assert ladder().next(broken(), at) is None
    assert ladder(rungs=("replay", "prefix")).next(broken(), at) == Step(rung="prefix", elsewhere=True)


def test_tries_and_costs_are_bounded_over_all_upstreams() -> None:
    at = Situation(elsewhere=("replay",), delivered_tokens=10, replayable=True)
    machine = ladder(leave_after=1, max_barren=3, max_repaid_tokens=20)
    assert [machine.next(broken(), at) is not None for _ in range(4)] == [True, True, False, False]
    assert "too much" in machine.why
    machine = ladder(leave_after=1, max_barren=3, max_repaid_tokens=1_000)
    assert [machine.next(broken(), at) is not None for _ in range(4)] == [True, True, True, False]
    assert "max_barren" in machine.why


def test_what_replays_have_cost_here_keeps_no_other_upstream_from_being_asked() -> None:
    machine = ladder()
    at = Situation(elsewhere=("replay",), delivered_tokens=10, replayable=True)
    steps = [machine.next(broken(), at) for _ in range(5)]
    assert [step and step.elsewhere for step in steps] == [False, False, True, True, True]
    assert machine.next(broken(), at) is None
    assert "max_barren" in machine.why
    there = Situation(delivered_tokens=10, replayable=True)
    machine = ladder()
    assert [machine.next(broken(), one) is not None for one in (at, at, at, there)] == [True, True, True, False]


def test_a_proven_answer_is_finished_and_not_asked_for_elsewhere() -> None:
    at = Situation(**THERE, complete=True, usage_known=True)
    assert ladder().next(broken(), at) == Step()
