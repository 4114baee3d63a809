"""The UTF-8 decoder: CPython's own decoder, given everything at once, says what it must say."""

from __future__ import annotations

from functools import partial
from typing import Any

from fuzz.engine import Target
from fuzz.oracle import same_however_cut, told
from holdfast._errors import StreamError
from holdfast.machines.cursor import Cursor
from holdfast.machines.utf8 import Utf8Decoder


def decode(chunks: list[bytes], *, strict: bool) -> tuple[str, int, Any]:
    """Gives the text, how many characters were put there, and the error."""
    cursor = Cursor()
    decoder, out = Utf8Decoder(cursor, strict=strict), list[str]()
    refused = None
    try:
        for chunk in chunks:
            decoder.feed([chunk], out)
        decoder.end(out)
    except StreamError as error:
        refused = told(error, chunks)
    return "".join(out), cursor.repaired, refused


def check(data: bytes) -> None:
    """Raises what is a finding."""
    text, repaired, refused = same_however_cut(data, partial(decode, strict=False))
    expected = data.decode("utf-8", "replace")
    assert text == (expected if refused is None else expected[:-1]), "not what CPython makes of it"
    assert repaired == text.count("\ufffd") - data.count(b"\xef\xbf\xbd"), "miscounted"
    exact, _, error = same_however_cut(data, partial(decode, strict=True))
    assert text.startswith(exact), "strict decoding says something else"
    assert (error is None) == (refused is None and repaired == 0), "strict decoding let something pass"


TARGETS = [
    Target(
        name="utf8",
        check=check,
        seeds=("utf8",),
        words=(
            *(b"\xc2\xa0", b"\xe2\x80\xa8", b"\xe4\xbd\xa0", b"\xf0\x9f\x92\xa9", b"\xef\xbf\xbd", b"\xef\xbb\xbf"),
            *(b"\xff", b"\xc0\xaf", b"\xe4\xbd", b"\xf0\x9f\x92", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\x80", b"a"),
        ),
        longest=512,
    )
]
