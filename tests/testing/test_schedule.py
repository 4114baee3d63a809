"""A schedule is a value: what it says of an attempt depends on nothing else, and it survives being stored."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from holdfast.testing import faults as f
from holdfast.testing.acts import Asked, Play
from holdfast.testing.schedule import Schedule, stream_key

BODY = {"model": "m", "messages": [{"role": "user", "content": "tides?"}]}


def test_a_written_schedule_gives_each_attempt_its_fault_and_then_none() -> None:
    schedule = Schedule(streams={"tides": (f.CleanCut(after=3), f.HtmlPage())})
    assert [schedule.fault("tides", k) for k in (1, 2, 3)] == [f.CleanCut(after=3), f.HtmlPage(), f.Healthy()]
    assert schedule.fault("winds", 1) == f.Healthy()


def test_the_star_is_every_stream_without_a_name() -> None:
    schedule = Schedule(streams={"*": [f.EmptyBody()], "tides": []})
    assert (schedule.fault("winds", 1), schedule.fault("tides", 1)) == (f.EmptyBody(), f.Healthy())


def test_a_draw_depends_on_seed_stream_and_attempt_alone() -> None:
    schedule = Schedule.draw(7)
    keys = [(f"s{n}", k) for n in range(200) for k in (1, 2, 3)]
    forwards = [schedule.fault(*key) for key in keys]
    backwards = [Schedule.draw(7).fault(*key) for key in reversed(keys)]
    assert forwards == backwards[::-1]
    assert forwards != [Schedule.draw(8).fault(*key) for key in keys]


def test_a_draw_is_the_same_in_another_process() -> None:
    program = (
        "from holdfast.testing.schedule import Schedule; print([Schedule.draw(3).fault('a', k) for k in range(99)])"
    )
    again = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert again.stdout.strip() == str([Schedule.draw(3).fault("a", k) for k in range(99)])


def test_the_rate_is_kept_and_every_fault_comes() -> None:
    met = [Schedule.draw(1).fault("s", k) for k in range(20_000)]
    struck = [fault for fault in met if fault != f.Healthy()]
    assert 0.11 < len(struck) / len(met) < 0.13
    assert {type(fault) for fault in struck} == {type(fault) for fault in f.EVIDENT}
    places = {fault.after for fault in struck if isinstance(fault, f.CleanCut)}
    assert min(places) < 10
    assert 50 < max(places) < 60


def test_drawn_faults_stay_where_they_are_on_request() -> None:
    schedule = Schedule.draw(1, rate=1, faults=[f.CleanCut(after=5)], within=None)
    assert schedule.fault("s", 1) == f.CleanCut(after=5)


def test_stored_and_read_it_is_the_same_schedule() -> None:
    schedule = Schedule(streams={"every": f.VOCABULARY}, seed=4, rate=0.5, faults=f.SILENT, within=None)
    assert Schedule.from_json(schedule.to_json()) == schedule
    assert Schedule.from_json(b'{"streams": {"*": [{"fault": "clean-cut", "after": 3}]}}').fault("x", 1) == f.CleanCut(
        after=3
    )


@pytest.mark.parametrize("text", ["", "[]", '{"streams": {"a": [{"fault": "unheard-of"}]}}', '{"strems": {}}'])
def test_what_is_no_schedule_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Schedule.from_json(text)


@pytest.mark.parametrize("fault", f.VOCABULARY, ids=str)
def test_a_misspelt_setting_of_a_fault_is_named(fault: f.Fault) -> None:
    written = json.dumps({"streams": {"*": [{"fault": fault.name, "aftr": 3}]}})
    with pytest.raises(ValueError, match=r"unknown field `aftr`"):
        Schedule.from_json(written)


class MyFault:
    """A fault that somebody wrote."""

    name, evident, final, forgets = "mine", True, False, False

    def play(self, asked: Asked) -> Play:
        return f.CleanCut(after=1).play(asked)


def test_a_fault_of_ones_own_can_be_scheduled_and_not_stored() -> None:
    schedule = Schedule.draw(1, rate=1, faults=[mine := MyFault()])
    assert schedule.fault("s", 1) is mine
    with pytest.raises(TypeError):
        schedule.to_json()


def test_a_schedule_says_what_it_holds() -> None:
    assert str(Schedule()) == "no faults"
    assert str(Schedule(streams={"tides": (f.Refused(status=503), f.CleanCut(after=3)), "winds": ()})) == (
        "tides: 503, then clean truncation after 3 events\nwinds: no fault"
    )
    assert "probability 0.12" in str(Schedule.draw(9))
    assert "seed 9" in str(Schedule.draw(9))


@pytest.mark.parametrize(
    ("settings", "named"), [({"rate": 1.5}, "1.5"), ({"rate": 0.1, "faults": ()}, "faults="), ({"within": 0}, "within")]
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, float], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Schedule.draw(1, **settings)  # type: ignore[arg-type]  # that is the point


def key(body: object, path: str = "/chat/completions", **headers: str) -> str:
    return stream_key("POST", path, headers, json.dumps(body).encode())


def test_attempts_of_one_stream_have_one_key() -> None:
    prefixed = {
        "messages": [*BODY["messages"], {"role": "assistant", "content": "so far", "prefix": True}],
        "model": "m",
    }
    assert key(BODY) == key(prefixed) == key(prefixed, path="/beta/chat/completions")
    assert key(BODY) != key({**BODY, "model": "n"})
    assert key(BODY, **{"idempotency-key": "k"}) == key({}, **{"idempotency-key": "k"}) == "k"
    assert stream_key("POST", "/", {}, b"\xff") != stream_key("GET", "/", {}, b"\xff")
