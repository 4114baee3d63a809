"""Halves of characters: whatever the pieces, what comes out is text, and the same as of the whole."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.machines.surrogates import SurrogateJoiner, decode_lenient

TEXT = (0, "text")
HIGH, LOW, PAIR = "\ud83d", "\ude00", "\U0001f600"


def joined(pieces: list[str]) -> str:
    joiner = SurrogateJoiner()
    said = [joiner.join(TEXT, piece) for piece in pieces]
    said += [text for _, text in joiner.flush()]
    for text in said:
        text.encode()  # nothing that is no text ever came out
    return "".join(said)


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        (["a" + HIGH, LOW + "b"], "a" + PAIR + "b"),
        ([HIGH, "", LOW], PAIR),
        ([HIGH + LOW], PAIR),
        ([HIGH, "a"], "\ufffda"),
        ([HIGH, HIGH, LOW], "\ufffd" + PAIR),
        (["a" + LOW + "b"], "a\ufffdb"),
        ([HIGH], "\ufffd"),
        ([LOW, HIGH], "\ufffd\ufffd"),
        (["é", PAIR, "好"], "é" + PAIR + "好"),
        ([], ""),
    ],
)
def test_a_half_waits_for_the_other(pieces: list[str], text: str) -> None:
    assert joined(pieces) == text


def test_all_short_texts_in_all_pieces() -> None:
    for letters in product(("a", "好", HIGH, LOW, PAIR), repeat=4):
        whole = "".join(letters)
        expected = whole.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        for cuts in product((False, True), repeat=len(whole) - 1):
            pieces, start = [], 0
            for at, cut in enumerate([*cuts, True], 1):
                if cut:
                    pieces.append(whole[start:at])
                    start = at
            assert joined(pieces) == expected


@given(st.lists(st.tuples(st.sampled_from([(0, "text"), (0, "reasoning"), (1, "text")]), st.text(f"a好{HIGH}{LOW}"))))
def test_channels_wait_each_for_itself(said: list[tuple[tuple[int, str], str]]) -> None:
    joiner = SurrogateJoiner()
    heard: dict[tuple[int, str], str] = {}
    for key, text in said:
        heard[key] = heard.get(key, "") + joiner.join(key, text)
    for key, text in joiner.flush():
        heard[key] += text
    for key, text in heard.items():
        assert text == joined([piece for k, piece in said if k == key])
    assert joiner.flush() == []


def test_one_choice_may_give_up_before_the_others() -> None:
    joiner = SurrogateJoiner()
    for key in ((0, "text"), (1, "text")):
        assert joiner.join(key, HIGH) == ""
    assert joiner.flush(0) == [((0, "text"), "\ufffd")]
    assert joiner.join((1, "text"), LOW) == PAIR
    assert joiner.flush() == []


def test_whole_text_passes_as_the_same_object() -> None:
    joiner = SurrogateJoiner()
    for text in ("plain", "好" + PAIR):
        assert joiner.join(TEXT, text) is text


# -- decoding ------------------------------------------------------------------------------------


class Piece(msgspec.Struct):
    text: str | None = None
    parts: list[str] = []
    number: float = 0
    anything: Any = None


DECODER = msgspec.json.Decoder(Piece)


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (r'{"text": "a\ud83d"}', Piece("a" + HIGH)),
        (r'{"text": "\uDE00b"}', Piece(LOW + "b")),
        (r'{"text": "\ud83d\ude00\uD83D"}', Piece(PAIR + HIGH)),
        (r'{"text": "\ud83d\u0041"}', Piece(HIGH + "A")),
        (r'{"text": "\\ud83d \\\ud83d \" \n"}', Piece("\\ud83d \\" + HIGH + ' " \n')),
        (r'{"text": "好", "parts": ["\ud83d", "\ude00"], "number": 1, "x": null}', Piece("好", [HIGH, LOW], 1)),
        (r'{"anything": {"\ud83d": "\ud83d"}}', Piece(anything={HIGH: HIGH})),
        (r'{"\ud83d": 1, "text": "\ud83d"}', Piece("\ufffd")),  # a key that no field can have
        (r'{"text": "whole"}', Piece("whole")),
    ],
)
def test_keeps_halves_of_characters_for_the_joiner(payload: str, expected: Piece) -> None:
    assert decode_lenient(DECODER, payload) == expected


@pytest.mark.parametrize(
    "payload",
    [
        r'{"text": "\ud83d", "number": NaN}',
        r'{"text": "\ud83d", "number": 1e999}',
        r'{"text": "\ud83d", "number": "1"}',
        r'{"text": "\ud83d", "parts": ["\uZZZZ"]}',
        r'{"text": "\ud83d"',
        r'{"text": "\ud83d"} x',
        r'{"text": "\ud8"}',
        '{"text": "\\ud83d\t"}',
        r'"\ud83d"',
        "",
    ],
)
def test_forgives_nothing_else(payload: str) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_lenient(DECODER, payload)


def test_a_part_that_stays_raw_is_mended() -> None:
    class Mixed(msgspec.Struct):
        text: str = ""
        rest: msgspec.Raw = msgspec.Raw(b"")

    value = decode_lenient(msgspec.json.Decoder(Mixed), r'{"text": "\ud83d", "rest": {"a": 1}}')
    assert (value.text, bytes(value.rest)) == ("\ufffd", b'{"a": 1}')


@given(st.lists(st.text(f'a"\\ud83好\n{HIGH}{LOW}{PAIR}')))
def test_decodes_whatever_json_can_say(parts: list[str]) -> None:
    text = json.dumps({"parts": parts})
    # To every reader of JSON, an escaped high half before an escaped low one is a pair.
    assert decode_lenient(DECODER, text).parts == json.loads(text)["parts"]
