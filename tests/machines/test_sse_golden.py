"""The parser says of every golden case what the standard says, however it is cut."""

from __future__ import annotations

from collections import Counter

import pytest

from holdfast._types import Event
from holdfast.machines.cursor import Cursor
from holdfast.machines.sse import SseParser
from tests.cuts import cuttings
from tests.golden import CASES, Case, Said


def by_rule(golden: Case) -> str:
    return f"{golden.theme}: {golden.rule}"


def test_no_case_stands_there_twice() -> None:
    assert Counter(case.body for case in CASES).most_common(1)[0][1] == 1
    assert Counter(map(by_rule, CASES)).most_common(1)[0][1] == 1


@pytest.mark.parametrize("golden", CASES, ids=by_rule)
def test_a_golden_case_says_what_the_standard_says(golden: Case) -> None:
    for chunks in cuttings(golden.body):
        parser, events = SseParser(Cursor()), list[Event]()
        for chunk in chunks:
            parser.feed([chunk], events)
        parser.end(events)
        assert tuple(Said(e.data, e.type, e.last_event_id) for e in events) == golden.events
        assert (parser.last_event_id, parser.retry) == (golden.last_event_id, golden.retry)
