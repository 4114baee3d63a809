"""The strategies that users draw from: what they refuse, and how what they draw shrinks."""

from __future__ import annotations

import builtins
import importlib
import sys
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st

from holdfast._errors import MissingExtra, UsageError
from holdfast.dialects import DEEPSEEK
from holdfast.offline import assemble
from holdfast.testing import faults as f
from holdfast.testing import strategies
from holdfast.testing.schedule import Schedule
from holdfast.testing.strategies import chunkings, completions, event_streams, retellings, schedules

ONCE = settings(
    max_examples=100, derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
DATA = "data: 海🌊\r\n\r\n".encode()


@ONCE
@given(chunkings(DATA))
def test_chunks_are_the_data_and_none_is_empty(chunks: list[bytes]) -> None:
    assert b"".join(chunks) == DATA
    assert all(chunks)


def test_a_chunking_shrinks_to_one_cut() -> None:
    assert len(find(chunkings(DATA), lambda chunks: len(chunks) > 1, settings=ONCE)) == 2


@pytest.mark.parametrize("place", [DATA.index(b"\r") + 1, DATA.index(b"\xe6") + 1, DATA.index(b"\xf0") + 2])
def test_cuts_at_delicate_places_are_drawn(place: int) -> None:
    quickly = settings(ONCE, max_examples=2_000, phases=[Phase.generate])
    assert find(chunkings(DATA), lambda chunks: len(chunks[0]) == place, settings=quickly)


def test_what_cannot_be_cut_is_not() -> None:
    assert find(chunkings(b""), lambda _: True) == []
    assert find(chunkings(b"x"), lambda _: True) == [b"x"]


@pytest.mark.parametrize("wanted", [b"\r\n", b"\xef\xbb\xbf", b"retry:", b"\nid:", b"\n:", b"event:"])
def test_every_spelling_is_drawn(wanted: bytes) -> None:
    quickly = settings(ONCE, max_examples=1_000, phases=[Phase.generate])
    assert wanted in find(event_streams(), lambda stream: wanted in stream.data, settings=quickly).data


@ONCE
@given(completions("deepseek").flatmap(lambda answer: st.tuples(st.just(answer), retellings(answer))))
def test_a_retelling_says_the_same(drawn: tuple[Any, Any]) -> None:
    def said(answer: Any) -> list[Any]:
        choices = assemble(answer.wire(), DEEPSEEK).choices
        return [replace(c, tool_calls=tuple(replace(t, id="") for t in c.tool_calls)) for c in choices]

    assert said(drawn[0]) == said(drawn[1])


def test_an_unknown_dialect_is_told() -> None:
    with pytest.raises(UsageError, match="no dialect"):
        completions("nobody's")


def test_schedules_are_evident_unless_told() -> None:
    found = find(schedules(min_faults=4), lambda _: True, settings=ONCE)
    assert all(fault.evident for fault in found.streams["*"])


def test_a_schedule_shrinks_to_one_early_fault() -> None:
    found = find(schedules([f.CleanCut(), f.HtmlPage()]), lambda s: bool(s.streams["*"]), settings=ONCE)
    assert found.streams["*"] == (f.CleanCut(after=0),)


def test_a_schedule_that_fails_is_printed_as_it_can_be_written_down() -> None:
    met: list[Schedule] = []

    @settings(ONCE, print_blob=False)
    @given(schedules([f.HtmlPage(), f.CleanCut()], min_faults=2, max_faults=2, key="tides"))
    def fails(schedule: Schedule) -> None:
        met.append(schedule)
        assert {fault.name for fault in schedule.streams["tides"]} != {"html-page", "clean-cut"}

    with pytest.raises(AssertionError) as failure:
        fails()
    printed = "\n".join(failure.value.__notes__)
    written = printed[printed.index("Schedule(") : printed.rindex(")")].rstrip().rstrip(",")
    assert eval(written, {**vars(f), "Schedule": Schedule}) == met[-1]


@pytest.mark.parametrize("wrong", [{"faults": []}, {"within": 0}])
def test_impossible_schedules_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="schedules"):
        schedules(**wrong)


def test_without_hypothesis_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **more: Any) -> Any:
        if name.partition(".")[0] == "hypothesis":
            raise ImportError(name)
        return real(name, *args, **more)

    monkeypatch.delitem(sys.modules, strategies.__name__)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtra, match=r"holdfast\[testing\]"):
        importlib.import_module(strategies.__name__)
