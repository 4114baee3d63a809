"""Every event is told in words, with what its line knows."""

from __future__ import annotations

import pytest

from holdfast.telemetry.health import Health
from holdfast.telemetry.logs import EVENTS, GATEWAY_EVENTS
from holdfast.telemetry.timeline import Step
from holdfast.telemetry.words import judge, say


@pytest.mark.parametrize("event", sorted([*GATEWAY_EVENTS, *(event for event, _ in EVENTS.values())]))
def test_no_event_is_left_without_words(event: str) -> None:
    words, _ = say(Step(event, 0.0, 1, {"old": "OLD", "new": "NEW", "error": "Broken", "outcome": "complete"}))
    assert words
    assert words != event
    assert "{" not in words


def test_what_is_told_is_the_lines_own() -> None:
    assert (
        say(Step("attempt.waited", 1.0, 1, {"reason": "tokens", "seconds": 0.25}))[0] == "held back for 250 ms: tokens"
    )
    assert say(Step("stream.hedge_ended", 1.0, 1, {"winner": 2, "loser": 1}))[0].startswith("attempt 2 was first")


def test_of_nothing_no_objective_is_judged() -> None:
    assert {judge(check)[3] for check in Health().checks()} == {"-"}
