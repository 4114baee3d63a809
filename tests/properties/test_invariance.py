"""Invariance: how bytes are cut into chunks changes nothing, and nothing is lost between bytes and events."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from holdfast._errors import DecodeError, StreamError, UpstreamError
from holdfast._types import Event
from holdfast.machines.cursor import Cursor
from holdfast.machines.encode import encode
from holdfast.machines.sse import SseParser
from holdfast.machines.utf8 import Utf8Decoder
from holdfast.offline import assemble
from holdfast.testing.strategies import EventStream, TrueAnswer, chunkings, completions, event_streams
from tests.properties.profile import examples


def parse(chunks: Iterable[bytes], *, comments: bool = False) -> tuple[list[Event], Cursor]:
    cursor, events = Cursor(), list[Event]()
    parser = SseParser(cursor, comments=comments)
    for chunk in chunks:
        parser.feed([chunk], events)
    parser.end(events)
    return events, cursor


def told(events: Iterable[Event]) -> list[tuple[Any, ...]]:
    """What of an event does not follow the cuts."""
    return [(e.type, e.payload, e.id, e.last_event_id) for e in events]


def cut(data: bytes) -> st.SearchStrategy[tuple[bytes, list[bytes]]]:
    return chunkings(data).map(lambda chunks: (data, chunks))


# -- event streams -----------------------------------------------------------------------------


@examples(150)
@given(event_streams().flatmap(lambda stream: st.tuples(st.just(stream), chunkings(stream.data))))
def test_a_legal_stream_is_read_as_the_standard_says_however_cut(drawn: tuple[EventStream, list[bytes]]) -> None:
    stream, chunks = drawn
    events, cursor = parse(chunks)
    assert told(events) == told(stream.events)
    assert cursor.retry == stream.retry
    assert cursor.received == len(stream.data)
    whole, _ = parse([stream.data])
    assert [(e.offset, e.wire) for e in whole] == [(e.offset, e.wire) for e in stream.events]


@examples(100)
@given(event_streams().flatmap(lambda stream: cut(stream.data)))
def test_the_wire_of_all_events_is_the_stream(drawn: tuple[bytes, list[bytes]]) -> None:
    data, chunks = drawn
    events, _ = parse(chunks, comments=True)
    assert b"".join(e.wire for e in events) == data
    places = [e.offset for e in events] + [len(data)]
    assert places[0] == 0
    assert [e.end for e in events] == places[1:] or not events


@examples(100)
@given(event_streams().flatmap(lambda stream: st.tuples(st.just(stream), st.data())))
def test_events_that_are_encoded_are_read_again(drawn: tuple[EventStream, st.DataObject]) -> None:
    stream, data = drawn
    encoded = b"".join(map(encode, stream.events))
    events, _ = parse(data.draw(chunkings(encoded)))
    assert [(e.type, e.payload, e.id) for e in events] == [(e.type, e.payload, e.id) for e in stream.events]


@examples(100)
@given(event_streams().flatmap(lambda stream: cut(stream.data)), st.integers(8, 80), st.integers(40, 200))
def test_where_a_limit_trips_what_was_handed_over_is_right(
    drawn: tuple[bytes, list[bytes]], max_event: int, max_stream: int
) -> None:
    data, chunks = drawn
    whole, _ = parse([data])
    parser, events = SseParser(max_event=max_event, max_stream=max_stream), list[Event]()
    try:
        for chunk in chunks:
            parser.feed([chunk], events)
    except DecodeError:
        assert told(events) == told(whole)[: len(events)]
    else:
        assert told(events) == told(whole)


# -- any bytes ---------------------------------------------------------------------------------

FIELDS = [b"data: x", b"data:{}", b"id: 1", b":", b"\n", b"\n\n", b"\r", b"\r\n"]
CHARACTERS = [b"\xf0\x9f", b"\x8c\x8a", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\0"]
PIECES = st.sampled_from([*FIELDS, *CHARACTERS])
ANY = st.lists(PIECES | st.binary(max_size=4), max_size=24).map(b"".join)


@examples(150)
@given(ANY.flatmap(cut))
def test_any_bytes_are_read_alike_however_cut(drawn: tuple[bytes, list[bytes]]) -> None:
    data, chunks = drawn
    (events, cursor), (whole, expected) = parse(chunks), parse([data])
    assert told(events) == told(whole)
    assert (cursor.retry, cursor.stray, cursor.received) == (expected.retry, expected.stray, expected.received)


def decoded(chunks: Sequence[bytes], *, strict: bool) -> tuple[str, int, Any]:
    decoder, out = Utf8Decoder(strict=strict), list[str]()
    try:
        for chunk in chunks:
            decoder.feed([chunk], out)
        decoder.end(out)
    except StreamError as error:
        return "".join(out), decoder.replaced, (type(error), getattr(error, "offset", None))
    return "".join(out), decoder.replaced, None


@examples(150)
@given(ANY.flatmap(cut), st.booleans())
def test_text_is_decoded_alike_however_cut(drawn: tuple[bytes, list[bytes]], strict: bool) -> None:  # noqa: FBT001
    data, chunks = drawn
    text, replaced, error = decoded(chunks, strict=strict)
    assert (text, replaced, error) == decoded([data], strict=strict)
    if error is None:
        assert text == data.decode("utf-8", "replace")


# -- answers -----------------------------------------------------------------------------------


def outcome(chunks: Sequence[bytes]) -> tuple[Any, ...]:
    """What `assemble()` makes of a body: the answer, or the error with what was whole."""
    try:
        return (assemble(chunks, "openai"),)
    except StreamError as error:
        words = str(error) if isinstance(error, UpstreamError) else ""
        offset = error.offset if isinstance(error, DecodeError) else None
        return getattr(error.partial, "answer", None), type(error), error.retryable, offset, words


@examples(100)
@given(completions().flatmap(lambda answer: st.tuples(st.just(answer), chunkings(answer.wire()))))
def test_a_true_answer_is_read_as_it_is_however_cut(drawn: tuple[TrueAnswer, list[bytes]]) -> None:
    answer, chunks = drawn
    read = assemble(chunks, "openai")
    assert (read.choices, read.usage) == (answer.completion.choices, answer.completion.usage)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """The body of an answer with something of it dropped, doubled, exchanged or cut off: JSON in every state."""
    data = draw(completions()).wire(ids=draw(st.booleans()))
    begin = draw(st.integers(0, len(data)))
    end = draw(st.integers(begin, min(len(data), begin + 40)) | st.just(len(data)))
    put = draw(st.sampled_from([b"", data[begin:end] * 2, b"\xff", b'{"error": {"message": "no"}}\n', b'"', b"\r"]))
    return data[:begin] + put + data[end:]


@examples(100)
@given(damaged().flatmap(cut))
def test_a_damaged_answer_ends_alike_however_cut(drawn: tuple[bytes, list[bytes]]) -> None:
    data, chunks = drawn
    assert outcome(chunks) == outcome([data])
