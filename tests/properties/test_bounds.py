"""Bounds: whatever comes, memory stays within the declared limits, and work grows with the bytes and no faster."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast._errors import DecodeError, EndOfStream, StreamError
from holdfast._types import Delta, Event
from holdfast.dialects import OPENAI
from holdfast.machines.cursor import MAX_STRAY, Cursor
from holdfast.machines.inflate import Inflater
from holdfast.machines.replay import DivergenceError
from holdfast.machines.sse import SseParser
from holdfast.machines.transcript import Transcript
from tests.properties.profile import examples

# -- memory ------------------------------------------------------------------------------------


def held(thing: Any) -> int:
    """Bytes of text and data in everything that a machine keeps, whatever its fields are called."""
    if isinstance(thing, bytes | bytearray | str):
        return len(thing)
    if isinstance(thing, dict):
        return sum(held(key) + held(value) for key, value in thing.items())
    if isinstance(thing, list | tuple | set):
        return sum(map(held, thing))
    return sum(held(getattr(thing, name)) for name in getattr(type(thing), "__slots__", ()) if hasattr(thing, name))


LINES = [b"data: ", b"data", b": ", b"id: ", b"event: ", b"retry: 1", b"x", b"{", b"\xf0\x9f"]
ENDS = [b"", b"", b"\n", b"\r", b"\r\n", b"\n\n"]


@st.composite
def floods(draw: st.DrawFn) -> list[bytes]:
    """Reads of a body that grows somewhere: in a line, in an event, in comments, in ids, in nothing at all."""
    motifs = draw(st.lists(st.tuples(st.sampled_from(LINES), st.integers(0, 90), st.sampled_from(ENDS)), min_size=1))
    times = draw(st.integers(1, 60))
    body = b"".join(name + b"y" * size + end for name, size, end in motifs) * times
    size = draw(st.sampled_from((1, 7, 100, 1_000)))
    return [body[start : start + size] for start in range(0, min(len(body), 12_000), size)]


@examples(100)
@given(floods(), st.integers(1, 400), st.integers(1, 800), st.booleans())
def test_a_parser_keeps_no_more_than_its_limits_allow(
    reads: list[bytes],
    max_line: int,
    max_event: int,
    comments: bool,  # noqa: FBT001 - drawn
) -> None:
    cursor = Cursor()
    parser = SseParser(cursor, comments=comments, max_line=max_line, max_event=max_event)
    idle = 64 * 1024  # comments are let go of in pieces of this size
    for read in reads:
        events: list[Event] = []
        try:
            parser.feed([read], events)
        except DecodeError:
            return
        # Twice, because the lines of an event are kept beside its bytes; a type and two ids are lines, too.
        most = 2 * max_event + 4 * max_line + MAX_STRAY + (0 if comments else idle)
        assert held(parser) <= most
        assert all(len(event.wire) <= max_event + idle for event in events)
        assert all(len(event.payload) <= max_event for event in events)


@examples(60)
@given(st.binary(max_size=3), st.integers(0, 40_000), st.sampled_from(("gzip", "deflate")), st.integers(50, 5_000))
def test_an_inflater_gives_bounded_pieces_of_a_bomb(seed: bytes, size: int, coding: str, piece: int) -> None:
    body = (seed * size)[:size]
    packer = zlib.compressobj(wbits=31 if coding == "gzip" else 15)
    data = packer.compress(body) + packer.flush()
    machine, whole = Inflater(coding, max_piece=piece), 0
    given_in = data
    while got := machine.feed(given_in):
        given_in = b""
        assert len(got) <= piece
        assert held(machine) <= len(data)
        whole += len(got)
    machine.end()
    assert whole == len(body)


@examples(60)
@given(st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=8), st.integers(1, 400))
def test_an_answer_that_is_not_kept_costs_no_memory(texts: list[str], times: int) -> None:
    answer = Transcript(keep=False)
    for text in texts * times:
        answer.add([Delta(Event(), text)])
    answer.completion()
    total = sum(map(len, texts)) * times
    assert answer.characters == total
    # A digest of 16 bytes for 4,096 characters, and less than one such block of text.
    assert held_deep(answer) <= total // 100 + 4_096 + 100


def held_deep(thing: Any) -> int:
    """The same for what holds other parts of the library."""
    if type(thing).__module__.startswith("holdfast") and not isinstance(thing, Event | Delta):
        return sum(held_deep(getattr(thing, name)) for name in type(thing).__slots__ if hasattr(thing, name))
    if isinstance(thing, dict):
        return sum(held_deep(value) for value in thing.values())
    if isinstance(thing, list | tuple):
        return sum(map(held_deep, thing))
    return held(thing)


# -- work --------------------------------------------------------------------------------------

SMALL, TIMES = 60_000, 8
"""Bytes of the small input, and how many times as large the other is."""
ALLOWED = 2.5
"""How many times dearer a byte of the large one may be: quadratic work would make it 8 times."""


def seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def grows_with_its_input(work: Callable[[int], object]) -> bool:
    """Compares the best of several runs, and looks again before it complains: other processes share the caches."""
    small = large = float("inf")
    for _ in range(6):
        small, large = min(small, seconds(lambda: work(1))), min(large, seconds(lambda: work(TIMES)))
        if large <= ALLOWED * TIMES * small + 0.001:
            return True
    return False


def chat(delta: dict[str, Any], **more: Any) -> bytes:
    chunk = {"id": "a", "choices": [{"index": 0, "delta": delta, **more}]}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


FRAGMENT = {"tool_calls": [{"index": 0, "function": {"arguments": "abcdef"}}]}
BODIES: dict[str, tuple[bytes, int]] = {
    # motif, bytes a read
    "one long line": (b"data: x" * 10, 100),
    "one long line, byte by byte": (b"x", 1),
    "one event of many lines": (b"data: abcdef\n", 50),
    "comments": (b": ping\n\n", 33),
    "blank lines": (b"\n", 1_000),
    "carriage returns": (b"\r", 64),
    "CR LF": (b"data: {}\r\n\r\n", 7),
    "ids without data": (b"id: 7\n\n", 90),
    "strays": (b"<p>page</p>\n", 90),
    "pieces of text": (chat({"content": "海 and"}), 150),
    "pieces of a tool call": (chat(FRAGMENT), 150),
    "names of a tool call": (chat({"tool_calls": [{"index": 0, "function": {"name": "n"}}]}), 150),
    "a list without an end": (b"[", 500),
    "padding": (b"data: \n\n", 500),
}


def read(body: bytes, size: int) -> list[Delta]:
    cursor, events, deltas = Cursor(), list[Event](), list[Delta]()
    cursor.begin("start")
    parser, reader, answer = SseParser(cursor, admits=cursor.admits), OPENAI.reader(None, cursor), Transcript()
    try:
        for start in range(0, len(body), size):
            parser.feed([body[start : start + size]], events)
            reader.feed(events, deltas)
            events.clear()
        parser.end(events)
        reader.end(deltas)
    except (StreamError, EndOfStream):
        pass
    answer.add(deltas)
    answer.completion()
    return deltas


@pytest.mark.parametrize("name", BODIES)
def test_reading_costs_the_same_for_every_byte(name: str) -> None:
    motif, size = BODIES[name]
    assert grows_with_its_input(lambda scale: read(motif * (SMALL // len(motif) * scale), size))


def test_ids_beyond_what_is_remembered_cost_no_more_than_the_first() -> None:
    def run(scale: int) -> None:
        cursor, events = Cursor(), list[Event]()
        cursor.begin("start")
        parser = SseParser(cursor, admits=cursor.admits)
        for number in range(20_000 * scale):
            parser.feed([b"id: %d\ndata: {}\n\n" % number], events)
            cursor.commit(events)
            events.clear()

    assert grows_with_its_input(run)


@pytest.mark.parametrize("keep", [True, False])
def test_comparing_costs_the_same_for_every_character(keep: bool) -> None:  # noqa: FBT001 - a parameter
    def run(scale: int) -> None:
        said = [Delta(Event(), "海 ab")] * (3_000 * scale)
        answer, fresh = Transcript(keep=keep), list[Delta]()
        answer.add(said)
        replay = answer.replay()
        for delta in said:
            replay.feed([delta], fresh)
        assert not fresh

    assert grows_with_its_input(run)


def test_a_replay_of_another_answer_is_left_at_its_first_difference() -> None:
    answer, fresh = Transcript(), list[Delta]()
    answer.add([Delta(Event(), "a")] * 5_000)
    replay = answer.replay()
    with pytest.raises(DivergenceError) as raised:
        replay.feed([Delta(Event(), "a"), Delta(Event(), "b"), *[Delta(Event(), "a")] * 9_999], fresh)
    assert raised.value.position == 1
    assert not fresh
