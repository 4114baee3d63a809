"""The vocabulary: every fault is a value, has a name, and plays what its name says from the events it is handed."""

from __future__ import annotations

import dataclasses
import gzip
from collections.abc import AsyncIterator

import msgspec
import pytest

from holdfast.testing import acts as a
from holdfast.testing import faults as f
from holdfast.testing.answers import write_answer
from holdfast.testing.server import Close, Pause, Reset, Send, Stall, Step
from holdfast.testing.shapes import ChatShape

ANSWER = write_answer("tides", sentences=2)
EVENTS = ChatShape().events(ANSWER, "a1", ids=True)
EVERY = [f.Healthy(), *f.VOCABULARY, f.CutAtByte()]
RESUMING = a.Asked(attempt=2, last_event_id="10")
HARMLESS = [
    *(f.Healthy(), f.EarlyHints(), f.SplitHead(), f.WrongCharset(), f.ResetAtEnd(), f.StallAtEnd(), f.WrongDigest()),
    *(f.Latency(), f.Drip(), f.Throttle(), f.ThroughputCollapse(), f.SplitCharacters(), f.Gzipped()),
    *(f.Framed(), f.Framed(by="length"), f.LengthTooLong(after=None), f.IgnoresLastEventId(), f.AnotherAnswer()),
]


def played(fault: f.Fault, events: list[bytes] = EVENTS, asked: a.Asked | None = None) -> list[a.Act]:
    return list(a.acts(fault.play(asked or a.Asked()), events))


def body(fault: f.Fault, events: list[bytes] = EVENTS, asked: a.Asked | None = None) -> bytes:
    return b"".join(act.data for act in played(fault, events, asked) if isinstance(act, a.Bytes))


def sent(fault: f.Fault) -> list[Step]:
    performer = a.TcpPerformer()
    return [step for act in played(fault) for step in performer.steps(act)]


@pytest.mark.parametrize("fault", EVERY, ids=repr)
@pytest.mark.parametrize("events", [[], EVENTS[:3], EVENTS], ids=["no events", "three events", "all events"])
@pytest.mark.parametrize("asked", [a.Asked(), RESUMING], ids=["first", "resuming"])
def test_a_play_is_one_reply(fault: f.Fault, events: list[bytes], asked: a.Asked) -> None:
    first, *rest = [act for act in played(fault, events, asked) if not isinstance(act, Pause)]
    if isinstance(first, a.NoHead | a.Refuse):
        assert rest == []
        return
    assert isinstance(first, a.Begin)
    *inside, last = rest
    assert isinstance(last, a.Cut | a.Pings | Stall)
    assert all(isinstance(act, a.Bytes) for act in inside)


@pytest.mark.parametrize("fault", EVERY, ids=repr)
async def test_events_that_have_to_be_waited_for_make_the_same_play(fault: f.Fault) -> None:
    async def events() -> AsyncIterator[bytes]:
        for event in EVENTS:
            yield event

    assert [act async for act in a.perform(fault.play(RESUMING), events())] == played(fault, asked=RESUMING)


@pytest.mark.parametrize("fault", HARMLESS, ids=repr)
def test_what_does_no_harm_leaves_every_byte_where_it_was(fault: f.Fault) -> None:
    assert fault.evident
    assert body(fault) == b"".join(EVENTS)


@pytest.mark.parametrize("fault", [fault for fault in EVERY if getattr(fault, "after", None) is not None], ids=repr)
def test_a_fault_with_a_place_spares_what_stands_before_it(fault: f.Fault) -> None:
    after = fault.after  # type: ignore[attr-defined]  # it was chosen by having one
    if not isinstance(fault, f.IdWithNul | f.GzipCut):
        assert body(fault).startswith(b"".join(EVENTS[:after]))
    if not isinstance(fault, f.LengthTooShort):
        assert body(fault) != b"".join(EVENTS)


@pytest.mark.parametrize(
    ("fault", "held"),
    [
        (f.WrongType(), b'"content":7'),
        (f.HalfSurrogate(), rb'\ud83c"'),
        (f.GaveUp(), b'"insufficient_system_resource"'),
        (f.ErrorEvent(done=False), b'{"error": '),
        (f.FlippedBit(), b"data: z"),
        (f.InvalidUtf8(), b'\xff"'),
        (f.DoneInText(), b'[DONE]"'),
        (f.LineEnds(ends="CR"), b"\r\r"),
        (f.Comments(), f.COMMENT),
        (f.IdWithNul(), b"id: 1\0\n"),
        (f.ByteOrderMark(), b"\xef\xbb\xbfid: 1\n"),
    ],
    ids=str,
)
def test_a_fault_sends_what_it_is_named_for(fault: f.Fault, held: bytes) -> None:
    assert held not in b"".join(EVENTS)
    assert held in body(fault)


def test_done_comes_early() -> None:
    assert body(f.EarlyDone(after=3)) == b"".join(EVENTS[:3]) + f.DONE


def test_silent_corruption_can_be_parsed_and_differs() -> None:
    for fault in (f.FlippedBit(where="word"), f.DroppedEvent(), f.ReorderedEvents(), f.RepeatedEvents()):
        assert not fault.evident
        changed = body(fault)
        assert changed != b"".join(EVENTS)
        for event in a.EventCutter().feed(changed):
            payload = event.decode().partition("data: ")[2]
            assert payload.startswith("[DONE]") or msgspec.json.decode(payload)


OF_CHAT = ("content", "reasoning_content", "reasoning", "refusal", "arguments")
OF_OTHERS = ("text", "thinking", "delta", "partial_json")


@pytest.mark.parametrize("member", OF_CHAT + OF_OTHERS)
def test_what_a_model_says_is_found_in_whichever_member_it_stands(member: str) -> None:
    event = b'data: {"%b": "tide"}\n\n' % member.encode()
    (ping,) = [act for act in played(f.StallBehindEmptyDeltas(after=0), [event]) if isinstance(act, a.Pings)]
    assert ping.data == event.replace(b"tide", b"")
    assert body(f.WrongType(after=0), [event]) == event.replace(b'"tide"', b"7")


def test_a_piece_of_several_choices_says_nothing_when_it_stalls() -> None:
    both = b'{"choices":[{"index":0,"delta":{"content":"tide"}},{"index":1,"delta":{"refusal":"no \\"moon\\""}}]}'
    (ping,) = [act for act in played(f.StallBehindEmptyDeltas(after=0), [both]) if isinstance(act, a.Pings)]
    assert ping.data == both.replace(b"tide", b"").replace(rb"no \"moon\"", b"")


def test_a_bit_is_one_bit() -> None:
    before, after = b"".join(EVENTS), body(f.FlippedBit(where="word"))
    assert sum((x ^ y).bit_count() for x, y in zip(before, after, strict=True)) == 1
    before, after = b"".join(EVENTS), body(f.FlippedBit())
    assert sum((x ^ y).bit_count() for x, y in zip(before, after, strict=True)) == 1


def test_who_goes_on_gets_what_the_server_thinks_fit() -> None:
    assert body(f.RepeatedAfterResume(), asked=RESUMING) == b"".join(EVENTS[7:])
    assert body(f.AnotherAnswer(), asked=RESUMING).count(b'content":" no') == len(ANSWER.pieces) + len(
        ANSWER.reasoning_pieces
    )
    (refused,) = played(f.ResumeRefused(status=204), asked=RESUMING)
    assert refused == a.Refuse(status=204)
    assert body(f.ResumeRefused(status=204)) == b"".join(EVENTS)
    rewound = a.EventCutter().feed(body(f.IdRewound(after=20, back=3)))
    assert rewound[20].startswith(b"id: 18\n")


def test_endings_are_rendered_as_connections_end() -> None:
    assert sent(f.ResetMidStream())[-1] == Reset()
    assert sent(f.ClosedMidStream())[-1] == Close()
    assert sent(f.StallMidStream())[-1] == Stall()
    assert sent(f.CleanCut())[-1] == Send(b"0\r\n\r\n")
    assert sent(f.BadChunk())[-2:] == [Send(b"zz\r\n"), Close()]
    half = EVENTS[20][: len(EVENTS[20]) // 2]
    assert sent(f.FinInsideChunk())[-2:] == [Send(b"%x\r\n%b" % (2 * len(half) + 1, half)), Close()]


def test_heads_are_rendered_as_asked() -> None:
    assert sent(f.EarlyHints())[0] == Send(b"HTTP/1.1 103 Early Hints\r\n\r\n")
    assert b"iso-8859-1" in sent(f.WrongCharset())[0].data  # type: ignore[union-attr]  # it is a Send
    size = len(b"".join(EVENTS))
    assert b"Content-Length: %d\r\n" % size in sent(f.Framed(by="length"))[0].data  # type: ignore[union-attr]
    assert b"Content-Length" not in sent(f.Framed())[0].data  # type: ignore[union-attr]


def unchunked(steps: list[Step]) -> bytes:
    chunks = [step.data.split(b"\r\n", 1)[1] for step in steps[1:] if isinstance(step, Send)]
    return b"".join(chunk.removesuffix(b"\r\n") for chunk in chunks)


@pytest.mark.parametrize("byte", [0, 1, 333, 10_000_000])
def test_a_body_can_be_cut_at_any_byte(byte: int) -> None:
    assert unchunked(sent(f.CutAtByte(byte=byte))) == b"".join(EVENTS)[:byte]
    assert sent(f.CutAtByte(byte=byte, how="reset"))[-1] == Reset()


def test_a_compressed_body_is_whole_or_cut() -> None:
    assert gzip.decompress(unchunked(sent(f.Gzipped()))) == b"".join(EVENTS)
    with pytest.raises(EOFError):
        gzip.decompress(unchunked(sent(f.GzipCut())))


def test_every_fault_has_one_name_and_its_own_words() -> None:
    assert len({kind.__struct_config__.tag for kind in f.KINDS}) == len(f.KINDS)
    assert len({str(fault) for fault in EVERY}) == len(EVERY)
    assert f.ResetMidStream().name == "reset-mid-stream"
    assert str(f.ResetMidStream(after=1)) == "reset mid-stream after 1 event"
    assert set(f.EVIDENT) | set(f.FINAL) | set(f.SILENT) == set(f.VOCABULARY)


def test_every_kind_is_documented_frozen_and_exported() -> None:
    for kind in f.KINDS:
        assert kind.__doc__
        assert kind.__name__ in f.__all__
    with pytest.raises(AttributeError):
        f.CleanCut().after = 3  # type: ignore[misc]  # that is the point


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100, 10_000])
@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r"])
def test_events_are_cut_apart_wherever_reads_cut_them(size: int, ending: bytes) -> None:
    whole = b"".join(EVENTS).replace(b"\n", ending) + b"data: half"
    cutter = a.EventCutter()
    got = [event for start in range(0, len(whole), size) for event in cutter.feed(whole[start : start + size])]
    assert [*got, cutter.end()] == [*(event.replace(b"\n", ending) for event in EVENTS), b"data: half"]


def test_acts_are_values() -> None:
    for act in (a.Begin(), a.Bytes(b"x"), a.Cut(), a.NoHead(), a.Refuse(status=503), a.Pings(b"x", 1.0)):
        assert dataclasses.replace(act) == act
