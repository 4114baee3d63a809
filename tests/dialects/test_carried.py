"""What an answer has proven is carried to another process, wherever it was cut: nothing is lost or said twice."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest

from holdfast._errors import EndOfStream
from holdfast._types import Delta, Verdict
from holdfast.dialects import Evidence, find, state_of
from holdfast.machines.cursor import Cursor
from holdfast.machines.transcript import Transcript
from holdfast.offline import assemble, parse_events
from tests import shared

FAMILIES = {"responses": "openai-responses", "anthropic": "anthropic"}
RECORDED = [entry for entry in shared.recordings() if entry["api"] in FAMILIES and not entry["assembled"]["errors"]]


def carried(state: Evidence) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(json.dumps(state_of(state)))
    return told


@pytest.mark.parametrize("entry", RECORDED, ids=lambda entry: str(entry["file"]))
def test_a_recording_cut_at_an_event_goes_on_from_what_was_carried(entry: dict[str, Any]) -> None:
    data, dialect = shared.recorded(entry), find(FAMILIES[entry["api"]])
    events, whole = parse_events(data).events, assemble(data, dialect)
    last = len(events)
    cuts = {*range(1, 8), *range(8, last, max(1, last // 60)), *range(last - 8, last)}
    for cut in sorted(cuts & set(range(1, last))):
        cursor, deltas = Cursor(), list[Delta]()
        reader = dialect.reader(None, cursor, end_at_done=False)
        reader.feed(events[:cut], deltas)
        cursor.begin("continue")
        second = dialect.reader(None, cursor, dialect.wire.revive(carried(reader.evidence)), end_at_done=False)
        with suppress(EndOfStream):  # OpenRouter's `[DONE]`
            second.feed(events[cut:], deltas)
        answer = Transcript()
        answer.add(deltas)
        assert second.evidence.complete
        assert cursor.mode == "continue"
        assert answer.completion(usage=second.evidence.usage, verdict=Verdict()) == whole


def test_there_are_recordings_to_cut() -> None:
    shared.recordings_folder()
    assert {entry["api"] for entry in RECORDED} == FAMILIES.keys()
