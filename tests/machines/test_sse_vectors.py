"""The parser against a body of conformance vectors that others wrote: every one, however it is cut."""

from __future__ import annotations

from base64 import b64decode
from typing import Any

import pytest

from holdfast._types import Event
from holdfast.machines.cursor import Cursor
from holdfast.machines.sse import SseParser
from holdfast.offline import parse_events
from tests import shared
from tests.cuts import bytewise, cuttings


def by_name(vector: dict[str, Any]) -> str:
    return str(vector["name"])


def said(events: list[Event]) -> list[dict[str, Any]]:
    return [{"type": e.type, "data": e.data, "last_event_id": e.last_event_id} for e in events if e.type]


def parse(chunks: list[bytes], *, comments: bool = False) -> tuple[list[Event], SseParser]:
    parser, events = SseParser(Cursor(), comments=comments), list[Event]()
    for chunk in chunks:
        parser.feed([chunk], events)
    parser.end(events)
    return events, parser


def test_there_are_vectors_to_test_against() -> None:
    shared.vectors_file()
    assert len(shared.vectors()) >= 164


@pytest.mark.parametrize("vector", shared.vectors(), ids=by_name)
def test_a_vector_says_the_same_however_it_is_cut(vector: dict[str, Any]) -> None:
    data, expect = b64decode(vector["input_b64"]), vector["expect"]
    for chunks in cuttings(data):
        events, parser = parse(chunks)
        assert said(events) == expect["events"]
        assert parser.last_event_id == expect["last_event_id"]
        assert parser.retry == expect["retry_ms"]


@pytest.mark.parametrize("vector", shared.vectors(), ids=by_name)
def test_the_wire_of_all_events_is_the_stream_and_each_stands_at_its_offset(vector: dict[str, Any]) -> None:
    data = b64decode(vector["input_b64"])
    for chunks in cuttings(data):
        events, _ = parse(chunks, comments=True)
        assert b"".join(e.wire for e in events) == data
        place = 0
        for event in events:
            assert (event.offset, event.end) == (place, place + len(event.wire))
            place = event.end
        assert said(events) == vector["expect"]["events"]


@pytest.mark.parametrize("vector", shared.vectors(), ids=by_name)
def test_without_comments_each_event_stands_at_its_offset_too(vector: dict[str, Any]) -> None:
    data = b64decode(vector["input_b64"])
    for chunks in ([data], bytewise(data)):
        for event in parse(chunks)[0]:
            assert data[event.offset : event.end] == event.wire


@pytest.mark.parametrize("vector", shared.vectors(), ids=by_name)
def test_parse_events_says_what_the_vector_says(vector: dict[str, Any]) -> None:
    expect = vector["expect"]
    log = parse_events(b64decode(vector["input_b64"]))
    assert said(list(log.events)) == expect["events"]
    assert log.last_event_id == expect["last_event_id"]
    assert log.retry == (None if expect["retry_ms"] is None else expect["retry_ms"] / 1000)
