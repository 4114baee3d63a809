"""What the readers of all dialects share: an event's data, decoded the slow way."""

from __future__ import annotations

import msgspec
import pytest

from holdfast._errors import DecodeError
from holdfast._types import Event
from holdfast.dialects._wire import decode, number
from holdfast.machines.cursor import Cursor


class Piece(msgspec.Struct):
    text: str | None = None


DECODER = msgspec.json.Decoder(Piece)


def test_a_half_of_a_character_stays_for_the_reader_to_join() -> None:
    cursor = Cursor()
    assert decode(DECODER, Event(rb'{"text": "a\ud83d"}'), cursor, halves=True) == Piece("a\ud83d")
    assert decode(DECODER, Event(rb'{"text": "\uDE00b"}'), cursor, halves=True) == Piece("\ude00b")
    assert cursor.repaired == 0


def test_bytes_that_are_not_utf8_are_replaced_beside_a_half() -> None:
    assert decode(DECODER, Event(b'{"text": "\xff\\ud83d"}'), Cursor(), halves=True) == Piece("\ufffd\ud83d")


def test_a_reader_that_does_not_join_them_gets_no_halves() -> None:
    with pytest.raises(DecodeError, match="not JSON"):
        decode(DECODER, Event(rb'{"text": "a\ud83d"}'), Cursor())


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (rb'{"text": "\ud83d', "not JSON"),
        (rb'{"text": "\ud83d"} and more', "not JSON"),
        (rb'{"text": "\uXYZW"}', "not JSON"),
        (rb'{"text": ["\ud83d"]}', "is"),
        (rb'["\ud83d"]', "is"),
        (rb'{"text": "\u0041" "\ud83d"}', "not JSON"),
    ],
)
def test_another_fault_is_still_one(payload: bytes, words: str) -> None:
    with pytest.raises(DecodeError, match=words) as caught:
        decode(DECODER, Event(payload, 7), Cursor(), halves=True)
    assert caught.value.offset == 7
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("told", "count"),
    [(0, 0), (10**9, 10**9), (10**9 + 1, None), (10**400, None), (-1, None), (True, None), (1.0, None), ("1", None)],
)
def test_a_count_that_cannot_be_is_not_told(told: object, count: int | None) -> None:
    assert number({"total_tokens": told}, "total_tokens") == count
