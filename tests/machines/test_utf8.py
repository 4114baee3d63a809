"""The UTF-8 decoder: a character cut anywhere arrives whole, and what is none is mended, counted, or an error."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from holdfast._errors import DecodeError, Truncated
from holdfast.machines.cursor import Cursor
from holdfast.machines.utf8 import Utf8Decoder
from tests.cuts import at, bytewise, cuttings


def decode(chunks: list[bytes], *, strict: bool = False) -> tuple[list[str], int]:
    decoder, out = Utf8Decoder(Cursor(), strict=strict), list[str]()
    for chunk in chunks:
        decoder.feed([chunk], out)
    decoder.end(out)
    return out, decoder.replaced


@given(text=st.text(st.characters(codec="utf-8")), places=st.lists(st.integers(0, 100), max_size=6))
@example(text="你😀\ufffd", places=[1, 4, 8])
def test_any_text_cut_anywhere_arrives_whole(text: str, places: list[int]) -> None:
    for chunks in (at(text.encode(), places), bytewise(text.encode())):
        for strict in (True, False):
            out, replaced = decode(chunks, strict=strict)
            assert ("".join(out), replaced) == (text, 0)
            assert all(out)


@pytest.mark.parametrize(
    ("data", "text", "replaced"),
    [
        (b"a\xffb", "a\ufffdb", 1),
        (b"\xc0\xaf", "\ufffd\ufffd", 2),
        (b"\xe4\xbdx", "\ufffdx", 1),
        (b"\xf0\x9f\x92x", "\ufffdx", 1),
        (b"\xed\xa0\x80", "\ufffd\ufffd\ufffd", 3),
        (b"\xf4\x90\x80\x80", "\ufffd" * 4, 4),
        ("\ufffd".encode() + b"\xff" + "\ufffd".encode(), "\ufffd" * 3, 1),
        (b"\xef\xbf" + "\ufffd".encode(), "\ufffd\ufffd", 1),
    ],
)
def test_what_is_not_utf8_is_replaced_by_maximal_subparts_and_counted(data: bytes, text: str, replaced: int) -> None:
    for chunks in cuttings(data):
        out, count = decode(chunks)
        assert ("".join(out), count) == (text, replaced)


@pytest.mark.parametrize(("data", "offset"), [(b"ab\xff", 2), (b"\xe4\xbd\xa0\xe4\xbdx", 3), (b"a\xed\xa0\x80", 1)])
def test_strict_names_the_place(data: bytes, offset: int) -> None:
    for chunks in cuttings(data):
        with pytest.raises(DecodeError) as raised:
            decode(chunks, strict=True)
        assert raised.value.offset == offset


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("tail", [b"\xe4", b"\xe4\xbd", b"\xf0\x9f\x92"])
def test_half_a_character_at_the_end_is_a_truncation(tail: bytes, strict: bool) -> None:  # noqa: FBT001
    for chunks in cuttings(b"a" + tail):
        with pytest.raises(Truncated, match=f"last {len(tail)} bytes"):
            decode(chunks, strict=strict)


def test_a_strict_error_holds_no_text_of_the_body() -> None:
    with pytest.raises(DecodeError) as caught:
        Utf8Decoder(strict=True).feed([b"secret \xff secret"], [])
    assert caught.value.offset == 7
    assert caught.value.__cause__ is caught.value.__context__ is None
