"""What the properties have found: each scenario as it was shrunk, tried in every run, whatever else is drawn."""

from __future__ import annotations

import json
from typing import Any

import pytest

from holdfast._core import LINGER
from holdfast._types import Completion
from holdfast.testing.faults import (
    ErrorEvent,
    Fault,
    GaveUp,
    IdWithNul,
    ResetMidStream,
    StallAtEnd,
    StallBehindEmptyDeltas,
)
from holdfast.testing.schedule import Schedule
from holdfast.testing.strategies import DONE, TrueAnswer
from tests.properties import laws
from tests.properties.judge import said
from tests.properties.model import House, Mode, Run, Scenario, play

ROLE: dict[str, Any] = {"role": "assistant", "content": ""}


def piece(finish: str | None = None, index: int = 0, **delta: Any) -> bytes:
    chunk = {"id": "a1", "choices": [{"index": index, "delta": delta, **({"finish_reason": finish} if finish else {})}]}
    return json.dumps(chunk).encode()


def called(id_: str = "", name: str = "", arguments: str = "") -> dict[str, Any]:
    return {"index": 0, **({"id": id_} if id_ else {}), "function": {"name": name, "arguments": arguments}}


def run_of(*payloads: bytes, met: list[Fault], mode: Mode = "ids", total: float = 1_000.0) -> Run:
    telling = TrueAnswer(completion=Completion(), payloads=(piece(**ROLE), *payloads, piece("stop"), DONE))
    return play(Scenario(mode=mode, tellings=(telling,), schedule=Schedule(streams={"*": met})), House(total=total))


def text(run: Run) -> str:
    assert run.error is None
    return "".join(character for channel, character in said(run.deltas)[0] if channel == "text")


def test_an_event_whose_id_a_nul_spoilt_is_known_when_it_comes_again_with_one() -> None:
    run = run_of(piece(content="a"), met=[ResetMidStream(after=1), IdWithNul(after=1)])
    assert text(run) == "a"


@pytest.mark.parametrize("after", [2, 3])
def test_a_cursor_that_is_sent_again_by_retry_is_a_continuation_again(after: int) -> None:
    pieces = [piece(content=c) for c in "00a"]
    run = run_of(*pieces, met=[StallBehindEmptyDeltas(after=after), ErrorEvent(after=0)])
    assert text(run) == "00a"
    assert [seam.rung for seam in run.report.seams] == ["last-event-id"]


def test_a_role_that_is_said_with_the_finish_reason_opens_no_other_answer() -> None:
    telling = TrueAnswer(
        completion=Completion(),
        payloads=(piece(**ROLE), piece(**{**ROLE, "content": "a"}), piece("stop", **ROLE), DONE),
    )
    schedule = Schedule(streams={"*": [ResetMidStream(after=2)]})
    run = play(Scenario(mode="ids", tellings=(telling,), schedule=schedule))
    assert text(run) == "a"
    assert [seam.rung for seam in run.report.seams] == ["last-event-id"]


def test_a_role_that_is_said_with_arguments_opens_no_other_answer() -> None:
    pieces = [piece(tool_calls=[called("c", "look")]), piece(role="assistant", tool_calls=[called(arguments="{}")])]
    run = run_of(*pieces, met=[ResetMidStream(after=2)])
    assert run.error is None
    assert [seam.rung for seam in run.report.seams] == ["last-event-id"]


def test_a_call_that_is_only_named_again_is_no_progress() -> None:
    run = run_of(piece(tool_calls=[called("c", "look", "{}")]), met=[StallBehindEmptyDeltas(after=1)])
    assert run.error is None
    assert run.seconds < 100
    laws.closedness(run)


def test_a_choice_that_begins_late_opens_no_other_answer() -> None:
    late = [piece(index=1, **ROLE), piece(index=1, content="b"), piece("stop", index=1)]
    run = run_of(piece(content="aa"), *late, piece(content="aa"), met=[ResetMidStream(after=2)])
    assert text(run) == "aaaa"
    assert [seam.rung for seam in run.report.seams] == ["last-event-id"]


def test_a_piece_of_which_one_choice_gave_up_is_handed_over_whole() -> None:
    both = json.loads(piece(content="a"))
    both["choices"].insert(0, {"index": 1, "delta": {"content": "b"}, "finish_reason": None})
    last = piece("stop", index=1)
    run = run_of(
        piece(index=1, **ROLE), json.dumps(both).encode(), last, met=[ResetMidStream(after=1), GaveUp(after=1)]
    )
    assert text(run) == "a"


def test_usage_that_is_only_said_again_is_no_progress() -> None:
    counted = {**json.loads(piece(content="a")), "usage": {"total_tokens": 3}}
    run = run_of(json.dumps(counted).encode(), met=[StallBehindEmptyDeltas(after=1)])
    assert text(run) == "a"
    assert run.seconds < 100


def test_an_answer_that_is_whole_within_its_clock_is_no_failure_while_it_closes() -> None:
    run = run_of(piece(content="a"), met=[StallAtEnd()], total=LINGER / 2)
    assert text(run) == "a"
    assert run.seconds == LINGER
    laws.timeliness(run, LINGER / 2)
    laws.closedness(run)
