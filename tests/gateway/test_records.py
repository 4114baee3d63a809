"""Records: a block becomes one, and comes back out of it, byte for byte; ours is the id that counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast._types import Event
from holdfast.gateway.records import block, event_id, new_stream, place_of, record, stream_of
from holdfast.machines.sse import SseParser

STREAM = "0123456789abcdef0123456789abcdef"

LINES = (
    b"data: {}",
    b"data:",
    b"data",
    b"data:no space",
    b"data: two\xe2\x80\xa8three",
    b"datax: 1",
    b"event: ping",
    b"id: 7",
    b"id",
    b"id: " + STREAM.encode() + b"-1",
    b"retry: 10",
    b": comment",
    b":",
    b"nonsense",
    b"\xff\xfe",
)
EOLS = (b"\n", b"\r\n", b"\r")


@st.composite
def blocks(draw: st.DrawFn) -> bytes:
    """A block as the parser gives them: lines with one kind of line end, and a blank one."""
    eol = draw(st.sampled_from(EOLS))
    lines = draw(st.lists(st.sampled_from(LINES), min_size=1, max_size=5))
    return eol.join([*lines, b"", b""])


def events(*records: bytes) -> list[Event]:
    parser, out = SseParser(), list[Event]()
    parser.feed([b"".join(records)], out)
    parser.end(out)
    return out


@given(blocks(), st.integers(1, 10**12))
def test_a_record_gives_its_block_back(original: bytes, number: int) -> None:
    assert block(STREAM, number, record(STREAM, number, original)) == original


@given(blocks(), st.integers(1, 10**12))
def test_a_record_is_the_same_event_under_our_id(original: bytes, number: int) -> None:
    before, after = events(original), events(record(STREAM, number, original))
    assert [(one.type, one.payload) for one in after] == [(one.type, one.payload) for one in before]
    assert [one.id for one in after] == [f"{STREAM}-{number}" for _ in before]


@given(blocks())
def test_what_dispatches_nothing_has_no_id_of_ours(original: bytes) -> None:
    made = record(STREAM, 2, original)
    assert (made == original) is not bool(events(original))


@given(st.lists(blocks(), max_size=8))
def test_ids_go_up(originals: list[bytes]) -> None:
    made = [record(STREAM, number, one) for number, one in enumerate(originals, 1)]
    ids = [place_of(one.id or "", STREAM) for one in events(*made)]
    assert None not in ids
    assert ids == sorted(set(ids), key=lambda n: n or 0)


@pytest.mark.parametrize("eol", EOLS)
def test_the_id_has_the_line_end_of_its_block(eol: bytes) -> None:
    made = record(STREAM, 3, b"data: x" + eol + eol)
    assert made == b"data: x" + eol + event_id(STREAM, 3) + eol + eol


@pytest.mark.parametrize("unfinished", [b"data: x", b"data: x\ndata: y"])
def test_an_event_without_its_blank_line_is_left_as_it_is(unfinished: bytes) -> None:
    assert record(STREAM, 1, unfinished) == unfinished


def test_a_data_line_behind_a_byte_order_mark_in_the_middle_is_none() -> None:
    assert record(STREAM, 2, b"\xef\xbb\xbfdata: x\n\n") == b"\xef\xbb\xbfdata: x\n\n"


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ("", 0),
        (f"{STREAM}-0", 0),
        (f"{STREAM}-12", 12),
        (f"{STREAM}-", None),
        (f"{STREAM}--1", None),
        (f"{STREAM}-1.0", None),
        (f"{STREAM}-\u0661", None),
        (f"{STREAM}-{'9' * 13}", None),
        (f"{'f' * 32}-1", None),
        (STREAM, None),
        ("-1", None),
        ("\0", None),
    ],
)
def test_only_an_id_of_the_stream_is_a_place_in_it(given: str, place: int | None) -> None:
    assert place_of(given, STREAM) == place


@given(st.text(max_size=60))
def test_no_text_at_all_breaks_what_reads_ids(given: str) -> None:
    assert place_of(given, STREAM) is None or given == "" or given.startswith(STREAM)
    name = stream_of(given)
    assert name == "" or given.startswith(name + "-")


def test_names_of_streams_are_their_own() -> None:
    names = {new_stream() for _ in range(100)}
    assert len(names) == 100
    assert all(stream_of(f"{name}-1") == name for name in names)
