"""The scoreboard's judge, plan and page; the contenders live in other environments and play in `make scoreboard`."""

from __future__ import annotations

import time
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from bench.scoreboard.judge import OUTCOMES, Outcome, judge
from bench.scoreboard.page import page
from bench.scoreboard.picture import picture
from bench.scoreboard.plan import ABOUT_IDS, BREAKING, CORRUPTION, FAULTS, GROUPS, Plan
from bench.scoreboard.pulse import LATE, TRIES, Pulse, steady
from bench.scoreboard.run import Card

TRUTHS = ["the kelp holds", "the rock stays"]


@pytest.mark.parametrize(
    ("heard", "outcome"),
    [
        ({"text": "the kelp holds"}, "exact"),
        ({"text": "the rock stays"}, "exact"),
        ({"text": "the kelp"}, "wrong"),
        ({"text": ""}, "wrong"),
        ({"text": "the kelp the kelp holds"}, "wrong"),
        ({"text": "the kelp", "error": "some.Error", "typed": True}, "typed"),
        ({"text": "", "error": "some.Error", "typed": True}, "typed"),
        ({"text": "the kelp", "error": "builtins.KeyError"}, "foreign"),
        ({"text": "the kelp stays", "error": "some.Error", "typed": True}, "wrong"),
        ({"text": "the kelp holds", "hung": True}, "hang"),
    ],
)
def test_text_and_end_decide_the_outcome(heard: dict[str, Any], outcome: str) -> None:
    assert judge({"error": "", "typed": False, "hung": False, **heard}, TRUTHS) == outcome


def test_a_stream_that_was_refused_has_no_text_to_be_wrong_about() -> None:
    assert judge({"text": "", "error": "some.Error", "typed": True, "hung": False}, []) == "typed"


def test_everybody_meets_the_same_faults() -> None:
    one, two = Plan(streams=50), Plan(streams=50)
    assert list(one.keys) == list(two.keys)
    assert [one.schedule.fault(key, 1) for key in one.keys] == [two.schedule.fault(key, 1) for key in two.keys]
    assert 3 < sum(one.struck(key) for key in one.keys if key.startswith("mix")) < 40


def test_what_breaks_an_answer_breaks_it_evidently_and_not_for_good() -> None:
    assert len(BREAKING) > 20
    assert all(fault.evident and not fault.final for fault in BREAKING)


def test_page_and_picture_show_every_contender_and_every_fault() -> None:
    plan = Plan(streams=4)
    cards = [
        Card(
            title=title,
            versions={"openai": "3.0", title.lower(): "1.0"},
            outcomes={key: OUTCOMES[(place + shift) % len(OUTCOMES)] for place, key in enumerate(plan.keys)},
        )
        for shift, title in enumerate(("Naive", "Holdfast"))
    ]
    text, drawn = page(cards, plan), picture(cards, plan)
    assert text.count("\n| reset after [DONE] |") == 3
    assert "naive 1.0" in text
    assert "{" not in text
    marks = [e for e in ET.fromstring(drawn).iter() if e.text in tuple("✓E?✗∞")]
    assert len(marks) == 2 * (len(FAULTS) - len(GROUPS[CORRUPTION]) - len(GROUPS[ABOUT_IDS]))


def card(*, late: float, outcome: Outcome = "exact", plan: Plan | None = None) -> Card:
    outcomes = dict.fromkeys((plan or Plan(streams=1)).keys, outcome)
    return Card(title="Holdfast", versions={"holdfast": "1.0"}, outcomes=outcomes, late=late)


async def test_a_loop_that_stood_still_is_felt_though_no_beat_came_since() -> None:
    async with Pulse() as pulse:
        time.sleep(0.08)  # noqa: ASYNC251 - a loop that stands still is what is to be felt
    assert pulse.late > 0.02


@pytest.mark.parametrize(
    ("lates", "tries", "kept"),
    [
        ([0.2], 1, 0.2),
        ([12.0, 0.3], 2, 0.3),
        ([12.0, 2.0, 5.0], TRIES, 2.0),
    ],
)
async def test_who_read_while_the_machine_stood_still_plays_again(lates: list[float], tries: int, kept: float) -> None:
    coming = iter(card(late=late) for late in lates)
    done: list[Card] = []

    async def once() -> Card:
        done.append(next(coming))
        return done[-1]

    assert (await steady(once)).late == kept
    assert len(done) == tries


async def test_a_bad_outcome_is_no_reason_to_play_again() -> None:
    coming = iter([card(late=LATE, outcome="hang"), card(late=0.0)])

    async def once() -> Card:
        return next(coming)

    assert set((await steady(once)).outcomes.values()) == {"hang"}


def test_the_page_says_whose_figures_a_machine_that_stood_still_has_spoiled() -> None:
    plan = Plan(streams=1)
    assert "Holdfast (12.0 s)" in page([card(late=12.0, plan=plan)], plan)
    assert "at every try" not in page([card(late=0.4, plan=plan)], plan)
