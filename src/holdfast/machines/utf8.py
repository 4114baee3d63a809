"""UTF-8, decoded as it comes: https://encoding.spec.whatwg.org/#utf-8-decoder.

A code point cut anywhere arrives whole. What is not UTF-8 becomes U+FFFD, one per maximal subpart as the standard says
(which is what CPython's decoder does), and is counted; in strict mode it is an error. Half a character at the end is a
truncation: somebody cut the body.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from holdfast._errors import DecodeError, Truncated
from holdfast.machines.cursor import Cursor


class Utf8Decoder:
    """Turns chunks of bytes into text. `strict` raises `DecodeError`; else the cursor counts what was replaced."""

    __slots__ = ("_cursor", "_decoder", "_offset")

    def __init__(self, cursor: Cursor | None = None, *, strict: bool = False) -> None:
        self._cursor = cursor if cursor is not None else Cursor()
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="strict" if strict else "replace")
        self._offset = 0

    @property
    def replaced(self) -> int:
        """How many U+FFFD this call has put in place of bytes."""
        return self._cursor.repaired

    def feed(self, batch: Sequence[bytes], out: list[str]) -> None:
        """Appends the text of every whole character. Raises `DecodeError` in strict mode."""
        for chunk in batch:
            self._take(chunk, out)

    def end(self, out: list[str]) -> None:
        """The body is over. Raises `Truncated` when it ended inside a character."""
        pending = self._decoder.getstate()[0]
        if pending[:1] == b"\xed" and pending[1:] >= b"\xa0":
            # CPython waits for the rest of a surrogate, but no character begins so: these are two bytes in error.
            self._take(b"", out, final=True)
        elif pending:
            raise Truncated(
                f"the body ended inside a character: its last {len(pending)} bytes are only the start of one"
            )

    def _take(self, chunk: bytes, out: list[str], *, final: bool = False) -> None:
        held = self._decoder.getstate()[0]
        bad: tuple[int, str] | None = None
        text = ""
        try:
            text = self._decoder.decode(chunk, final)
        except UnicodeDecodeError as error:
            bad = error.start, error.reason
        if bad is not None:  # raised outside the `except`: the original holds the chunk, and chains are printed
            start, reason = bad
            good = (held + chunk)[:start].decode()
            if good:  # a failure comes after all that arrived before it
                out.append(good)
            where = self._offset - len(held) + start
            raise DecodeError(f"byte {where} of the body is not UTF-8: {reason}", offset=where)
        if "\ufffd" in text:
            # A U+FFFD that was sent as such is three bytes of its own; only the others were put there here.
            self._cursor.repaired += text.count("\ufffd") - (held + chunk).count(b"\xef\xbf\xbd")
        self._offset += len(chunk)
        if text:
            out.append(text)
