"""The short form of `make fleet`: a tenth of its clients, against a tenth of its upstream's limits."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from xml.etree import ElementTree as ET

import pytest

from bench.fleet.figures import Figures, figures, jain
from bench.fleet.page import page
from bench.fleet.picture import picture
from bench.fleet.run import Run, play
from bench.fleet.scenarios import ALL, DAY, OFF, RESET, SCENARIOS, Scenario
from bench.fleet.upstream import ANSWER_SECONDS, Limits, duration

CLIENTS = 100
HEDGE = frozenset({"Hedge"})


def short(name: str) -> Scenario:
    """Gives a scenario for fewer clients."""
    scenario = next(one for one in SCENARIOS if one.name == name)
    share, limits = CLIENTS / scenario.clients, scenario.limits
    fewer = Limits(
        requests=limits.requests * share,
        tokens=limits.tokens * share,
        places=round(limits.places * share),
        workers=round(limits.workers * share),
    )
    return replace(scenario, clients=CLIENTS, limits=fewer, seconds=180.0 if scenario.brown_outs else 120.0)


@cache
def run_of(name: str, on: frozenset[str]) -> Run:
    return play(short(name), on)


def of(name: str, on: frozenset[str]) -> Figures:
    return figures(run_of(name, on))


def test_a_run_is_the_same_every_time() -> None:
    again = play(short("half-dead region"), ALL)
    assert again.calls == run_of("half-dead region", ALL).calls
    assert again.requests == run_of("half-dead region", ALL).requests


@pytest.mark.parametrize("name", ["crowd", "tokens"])
def test_a_crowd_is_no_storm_once_limits_are_learned(name: str) -> None:
    quiet = of(name, ALL)
    assert quiet.too_many < 0.01
    assert quiet.lost < 0.01
    assert quiet.goodput > 0.95 * short(name).capacity
    assert quiet.fairness > 0.99


def test_without_the_layers_it_is_one() -> None:
    assert of("crowd", OFF).too_many > 0.5


def test_in_a_full_outage_hardly_a_call_is_answered_by_two_requests() -> None:
    storm, spared = of("outage", OFF).in_outage, of("outage", ALL).in_outage
    assert storm is not None
    assert spared is not None
    assert storm > 3
    assert spared < 1.2


def test_after_an_outage_all_is_well_again_within_a_reset_time_and_an_answer() -> None:
    recovery = of("outage", ALL).recovery
    assert recovery is not None
    assert recovery <= RESET + ANSWER_SECONDS


def test_hedging_halves_the_late_first_tokens_for_five_percent_more_requests() -> None:
    late, hedged = (
        figures(play(replace(short("late tokens"), think=12.0, limits=Limits()), on)) for on in (OFF, HEDGE)
    )
    assert hedged.p99 <= late.p99 / 2
    assert hedged.amplification <= 1.05 * late.amplification


@pytest.mark.parametrize("name", ["outage", "half-dead region"])
def test_nothing_is_open_when_all_have_gone(name: str) -> None:
    assert run_of(name, OFF).open_after == run_of(name, ALL).open_after == 0


def test_page_and_picture_show_every_scenario() -> None:
    run = run_of("half-dead region", ALL)
    played = {
        (scenario.name, on): replace(figures(run), in_outage=1.0)
        for scenario in (*SCENARIOS, DAY)
        for on in (OFF, ALL, *(frozenset({name}) for name in scenario.layers))
    }
    text = page(played, {60.0: RESET + 1})
    assert all(f"\n## {scenario.name.capitalize()}\n" in text for scenario in SCENARIOS)
    assert text.count("| all |") == len(SCENARIOS) + 1
    assert "31 s at most" in text
    assert "**missed**" in text
    assert "{" not in text
    lines = [one for one in ET.fromstring(picture(run, run)).iter() if one.tag.endswith("polyline")]
    assert len(lines) == 8


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.0, "0ms"), (0.12, "120ms"), (7.66, "7.66s"), (63.57, "1m3.57s"), (60, "1m0s")]
)
def test_durations_are_written_as_openai_writes_them(seconds: float, told: str) -> None:
    assert duration(seconds) == told


def test_fairness_is_one_where_all_have_the_same() -> None:
    assert jain([0.5, 0.5, 0.5]) == pytest.approx(1)
    assert jain([1, 0, 0, 0]) == pytest.approx(0.25)
