"""The event stream format, rule by rule: https://html.spec.whatwg.org/multipage/server-sent-events.html."""

from __future__ import annotations

import time
import tracemalloc
from typing import Any, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from holdfast._errors import DecodeError
from holdfast._types import Event
from holdfast.machines.cursor import Cursor
from holdfast.machines.encode import encode
from holdfast.machines.sse import SseParser
from tests.cuts import at, bytewise, cuttings

Said = tuple[str, str, str]


def parse(chunks: list[bytes], **settings: Any) -> tuple[list[Event], SseParser, Cursor]:
    cursor = Cursor()
    parser, events = SseParser(cursor, **settings), list[Event]()
    for chunk in chunks:
        parser.feed([chunk], events)
    parser.end(events)
    return events, parser, cursor


def said(data: bytes, **settings: Any) -> list[Said]:
    """What a stream says, the same at any chunking."""
    ways = [[(e.type, e.data, e.last_event_id) for e in parse(chunks, **settings)[0]] for chunks in cuttings(data)]
    assert all(way == ways[0] for way in ways)
    return ways[0]


def message(data: str, id_: str = "") -> Said:
    return ("message", data, id_)


# -- the rules -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"data: a\n\n", [message("a")]),
        (b"data: a\r\n\r\n", [message("a")]),
        (b"data: a\r\r", [message("a")]),
        (b"data: a\r\n\rdata: b\n\r\n", [message("a"), message("b")]),
        (b"data:a\n\n", [message("a")]),
        (b"data:  a \n\n", [message(" a ")]),
        (b"data:\ta\n\n", [message("\ta")]),
        (b"data\n\n", [message("")]),
        (b"data:\n\n", [message("")]),
        (b"data\ndata\n\n", [message("\n")]),
        (b"data: a\ndata: b\ndata:\n\n", [message("a\nb\n")]),
        (b"data: a: b\n\n", [message("a: b")]),
        (b"\n\n\ndata: a\n\n\n\n", [message("a")]),
        (b": comment\n\n:\n\ndata: a\n:inside\ndata: b\n\n", [message("a\nb")]),
        (b"Data: a\n\n", []),
        (b" data: a\n\n", []),
        (b"data : a\n\n", []),
        (b"datas: a\n\n", []),
        (b"event: ping\ndata: a\n\ndata: b\n\n", [("ping", "a", ""), message("b")]),
        (b"event: ping\n\ndata: b\n\n", [message("b")]),
        (b"event: a\nevent: b\ndata:\n\n", [("b", "", "")]),
        (b"event:\ndata: a\n\n", [message("a")]),
        (b"event: message\ndata: a\n\n", [message("a")]),
        ("data: \u2028\u2029\x0b\x0c\x85\n\n".encode(), [message("\u2028\u2029\x0b\x0c\x85")]),
        (b"data: a\0b\n\n", [message("a\0b")]),
        ("data: 你😀\n\n".encode(), [message("你😀")]),
        (b"data: a\xffb\xe4\xbd\n\n", [message("a\ufffdb\ufffd")]),
        (b"data: a\n", []),
        (b"data: a\n\ndata: b", [message("a")]),
        (b"data: a\n\ndata: b\n", [message("a")]),
        (b"", []),
        (b"\n", []),
    ],
    ids=range(32),
)
def test_data_and_type(data: bytes, expected: list[Said]) -> None:
    assert said(data) == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"id: 1\ndata: a\n\ndata: b\n\n", [message("a", "1"), message("b", "1")]),
        (b"id: 1\n\ndata: b\n\n", [message("b", "1")]),
        (b"id: 1\ndata: a\n\nid\ndata: b\n\n", [message("a", "1"), message("b")]),
        (b"id: 1\nid: 2\ndata: a\n\n", [message("a", "2")]),
        (b"id: 1\0\ndata: a\n\n", [message("a")]),
        (b"id: 1\ndata: a\n\nid: \0\ndata: b\n\n", [message("a", "1"), message("b", "1")]),
        ("id: 你 7 \ndata: a\n\n".encode(), [message("a", "你 7 ")]),
        (b"data: a\nid: 1\n\n", [message("a", "1")]),
    ],
)
def test_the_last_event_id(data: bytes, expected: list[Said]) -> None:
    assert said(data) == expected


def test_an_id_counts_from_its_blank_line_on() -> None:
    for chunks in cuttings(b"id: 1\ndata: a\n\nid: 2\ndata: b\n"):
        assert parse(chunks)[1].last_event_id == "1"


def test_each_event_knows_the_id_of_its_own_block() -> None:
    events, _, cursor = parse([b"id: 1\ndata: a\n\ndata: b\n\nid\ndata: c\n\n"])
    assert [e.id for e in events] == ["1", None, ""]
    assert cursor.numbered


@pytest.mark.parametrize(
    ("line", "milliseconds"),
    [
        (b"retry: 3000", 3000),
        (b"retry:0", 0),
        (b"retry: 007", 7),
        (b"retry", None),
        (b"retry: ", None),
        (b"retry: 3s", None),
        (b"retry: -1", None),
        (b"retry: 1.5", None),
        (b"retry:  5", None),
        ("retry: ٣".encode(), None),
        (b"retry: " + b"9" * 5_000, None),
    ],
)
def test_the_reconnection_time(line: bytes, milliseconds: int | None) -> None:
    for chunks in cuttings(line + b"\n\n"):
        assert parse(chunks)[1].retry == milliseconds


def test_one_byte_order_mark_is_ignored_and_only_at_the_start() -> None:
    mark = b"\xef\xbb\xbf"
    assert said(mark + b"data: a\n\n") == [message("a")]
    assert said(mark + mark + b"data: a\n\n") == []
    assert said(b"data: a\n\n" + mark + b"data: b\n\n") == [message("a")]
    assert said(b"\xef\xbb") == []
    assert said(b"\xef\xbbdata: a\n\n") == []


# -- promptness, offsets, exact bytes --------------------------------------------------------------


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_an_event_is_handed_over_with_the_byte_that_ends_its_blank_line(end: bytes) -> None:
    """The first byte of the blank line's end is enough: a CR that may become CRLF is an end already."""
    data = b"data: a" + end + b"data: b" + end + end
    parser, events = SseParser(), list[Event]()
    arrived = 0
    for count, byte in enumerate(bytewise(data), 1):
        parser.feed([byte], events)
        if events:
            arrived = count
            break
    assert arrived == len(data) - len(end) + 1
    assert events[0].data == "a\nb"


def test_an_lf_after_the_cr_that_ended_an_event_belongs_to_the_same_line_end() -> None:
    for chunks in cuttings(b"data: a\r\n\r\ndata: b\r\n\r\n\r\n"):
        assert [e.data for e in parse(chunks)[0]] == ["a", "b"]


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_events_know_their_exact_bytes_and_where_they_stood(end: bytes) -> None:
    lines = [
        b"\xef\xbb\xbf: hello",
        b"",
        b"data: a",
        b"",
        b":",
        b"id: 7",
        b"data:b",
        b"",
        b"event: x",
        b"data",
        b"",
        b"",
    ]
    data = end.join(lines)
    for chunks in ([data], bytewise(data)):
        events, _, _ = parse(chunks)
        for event in events:
            assert data[event.offset : event.end] == event.wire
        assert [e.data for e in events] == ["a", "b", ""]
    whole, _, _ = parse([data])
    assert b"".join(e.wire for e in whole) == data


def test_comments_are_handed_over_on_request_as_soon_as_their_line_is_in() -> None:
    parser, events = SseParser(comments=True), list[Event]()
    parser.feed([b": keep-alive\n"], events)
    assert [(e.type, e.wire) for e in events] == [("", b": keep-alive\n")]
    parser.feed([b": half"], events)
    assert len(events) == 1


def test_hours_of_comments_pile_up_nowhere() -> None:
    parser, events = SseParser(), list[Event]()
    tracemalloc.start()
    for _ in range(20_000):
        parser.feed([b": keep-alive\n\n"], events)
    grew = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert grew < 200_000
    parser.feed([b"data: a\n\n"], events)
    assert [e.data for e in events] == ["a"]
    assert events[0].end == 20_000 * 14 + 9


def test_lines_that_are_no_fields_are_kept_for_an_error_message() -> None:
    for chunks in cuttings(b"<html>\n<p>no\ndata: x\nid: 3\n: c\n</html>"):
        assert bytes(parse(chunks)[2].stray) == b"<html>\n<p>no\n</html>\n"


@pytest.mark.parametrize("tail", [b"data: b", b"data: b\n", b"id: 3\nda"])
def test_the_bytes_of_an_unfinished_event_are_counted(tail: bytes) -> None:
    for chunks in cuttings(b"data: a\n\n" + tail):
        assert parse(chunks)[2].unfinished == len(tail)


# -- limits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"data: " + b"x" * 100 + b"\n\n", "^a line is longer than 50 bytes.*max_line"),
        (b"x" * 100, "max_line"),
        (b": " + b"x" * 100 + b"\n\n", "max_line"),
        (b"data: 1234567\n" * 9 + b"\n", "^an event is longer than 100 bytes.*max_event"),
        (b"data: 12\n\n" * 30, "^a body is longer than 250 bytes.*max_stream"),
    ],
)
def test_nothing_grows_past_its_limit(data: bytes, told: str) -> None:
    for chunks in cuttings(data):
        with pytest.raises(DecodeError, match=told) as raised:
            parse(chunks, max_line=50, max_event=100, max_stream=250)
        assert not raised.value.retryable


def test_an_event_over_its_limit_is_not_handed_over() -> None:
    for chunks in cuttings(b"data: a\n\n" + b"data: 1234567\n" * 9 + b"\n"):
        parser, events = SseParser(max_event=100), list[Event]()
        with pytest.raises(DecodeError):
            feed_all(parser, chunks, events)
        assert [e.data for e in events] == ["a"]


def test_what_is_just_within_its_limits_passes() -> None:
    data = b"data: " + b"x" * 44 + b"\n\n"
    assert said(data * 2, max_line=50, max_event=len(data), max_stream=2 * len(data)) == [message("x" * 44)] * 2


def test_what_came_before_the_limit_is_handed_over() -> None:
    data = b"data: a\n\n" + b"data: " + b"x" * 100 + b"\n\n"
    for chunks in cuttings(data):
        parser, events = SseParser(max_line=50), list[Event]()
        with pytest.raises(DecodeError):
            feed_all(parser, chunks, events)
        assert [e.data for e in events] == ["a"]


def feed_all(parser: SseParser, chunks: list[bytes], events: list[Event]) -> None:
    for chunk in chunks:
        parser.feed([chunk], events)


@pytest.mark.parametrize("name", ["max_line", "max_event", "max_stream"])
def test_a_limit_below_one_byte_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} .* not 0"):
        SseParser(**cast("dict[str, Any]", {name: 0}))


def test_a_line_without_an_end_ends_in_an_error_with_bounded_memory() -> None:
    parser, limit = SseParser(max_line=1_000_000), 1_000_000
    chunk = b"x" * 65_536
    tracemalloc.start()
    with pytest.raises(DecodeError):
        feed_all(parser, [chunk] * 160, [])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * limit


def test_the_default_limits_stop_ten_megabytes_of_one_line() -> None:
    with pytest.raises(DecodeError, match="max_line"):
        feed_all(SseParser(), [b"x" * 100_000] * 100, [])


def test_time_is_linear_whatever_the_chunking() -> None:
    """A long line and many short ones byte by byte, and one chunk of many events."""
    data = b"data: " + b"x" * 300_000 + b"\n\n"
    for chunks in (
        bytewise(data),
        bytewise(b"data: x\n" * 20_000 + b"\n"),
        [b"data: x\n\n" * 100_000],
        [b"\n" * 300_000],
    ):
        started = time.process_time()
        feed_all(SseParser(), chunks, [])
        assert time.process_time() - started < 10  # quadratic, each is a matter of minutes


# -- strict UTF-8 ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "offset"),
    [
        (b"data: a\n\ndata: b\xff\n\n", 16),
        (b"data: a\n\nid: 1\ndata: b\xff\n\n", 22),
        (b"data: a\n\n: \xff\ndata: b\n\n", 11),
        (b"\xef\xbb\xbfdata: \xc0\xaf\n\n", 9),
        (b"data: a\r\n\r\ndata: \xe4\xbd\r\n\r\n", 17),
    ],
)
def test_strict_names_the_first_byte_that_is_not_utf8(data: bytes, offset: int) -> None:
    for chunks in cuttings(data):
        parser, events = SseParser(strict=True), list[Event]()
        with pytest.raises(DecodeError, match=f"byte {offset} ") as raised:
            feed_all(parser, chunks, events)
        assert raised.value.offset == offset
        assert [e.data for e in events] == (["a"] if b"data: a" in data else [])


def test_strict_passes_what_is_utf8() -> None:
    assert said("data: 你😀\r\n\r\n".encode(), strict=True) == [message("你😀")]


# -- any stream, any chunking ----------------------------------------------------------------------

ends = st.sampled_from([b"\n", b"\r", b"\r\n"])
lines = st.one_of(
    st.sampled_from(
        [b"", b"", b"data: x", b"data", b"data:", b"id: 7", b"id", b"event: e", b"retry: 5", b": c", b"junk"]
    ),
    st.text("a: 你😀\u2028\0", max_size=6).map(lambda text: b"data: " + text.encode()),
    st.binary(max_size=5).map(lambda noise: noise.replace(b"\r", b"").replace(b"\n", b"")),
)
streams = st.tuples(
    st.sampled_from([b"", b"\xef\xbb\xbf"]),
    st.lists(st.tuples(lines, ends).map(b"".join), max_size=14).map(b"".join),
    st.sampled_from([b"", b"data: x"]),
).map(b"".join)


def heard(chunks: list[bytes]) -> Any:
    events, parser, cursor = parse(chunks)
    told = [(e.type, e.payload, e.last_event_id, e.id) for e in events]
    return told, parser.last_event_id, parser.retry, bytes(cursor.stray), cursor.unfinished > 0


@settings(deadline=None)
@given(data=streams, places=st.lists(st.integers(0, 200), max_size=8))
@example(data=b"data: \xe4\xbd\xa0\r\n\r\ndata: b\r\n\r\n", places=[7, 8, 10, 11, 12])
def test_where_a_stream_is_cut_says_nothing(data: bytes, places: list[int]) -> None:
    whole = heard([data])
    assert heard(at(data, places)) == whole
    assert heard(bytewise(data)) == whole
    with_comments, _, _ = parse(at(data, places), comments=True)
    assert b"".join(e.wire for e in with_comments) == data


texts = st.text(st.characters(codec="utf-8"), max_size=20)
single_lines = texts.map(lambda text: text.replace("\r", "").replace("\n", ""))
told_events = st.builds(
    lambda data, type_, id_: Event(data.encode(), type=type_ or "message", id=id_),
    texts.map(lambda text: text.replace("\r", "\n")),
    single_lines,
    st.none() | single_lines.map(lambda text: text.replace("\0", "")),
)


@settings(deadline=None)
@given(events=st.lists(told_events, max_size=6), places=st.lists(st.integers(0, 200), max_size=5))
def test_what_is_encoded_parses_to_the_same(events: list[Event], places: list[int]) -> None:
    parsed, _, _ = parse(at(b"".join(map(encode, events)), places))
    assert [(e.type, e.payload, e.id) for e in parsed] == [(e.type, e.payload, e.id) for e in events]


def test_the_canonical_bytes_of_an_event() -> None:
    assert encode(Event(b"a\nb", type="ping", id="7")) == b"event: ping\nid: 7\ndata: a\ndata: b\n\n"
    assert encode(Event(b"", id="")) == b"id: \ndata: \n\n"
    assert encode(Event(b"a\r\nb\rc")) == b"data: a\ndata: b\ndata: c\n\n"


def test_a_block_that_dispatched_nothing_goes_out_as_it_came() -> None:
    (block,) = parse([b": keep-alive\n\n"], comments=True)[0]
    assert encode(block) == b": keep-alive\n\n"


@pytest.mark.parametrize("event", [Event(id="a\0"), Event(id="a\nb"), Event(type="a\rb")], ids=repr)
def test_what_the_format_cannot_say_is_refused(event: Event) -> None:
    with pytest.raises(ValueError, match="cannot hold"):
        encode(event)
