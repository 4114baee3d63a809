"""Whether a body has the length and the digest that its head announced.

`Content-Length` (RFC 9110 section 8.6), `Content-Digest` and `Repr-Digest` (RFC 9530), and the older `Digest`
(RFC 3230) and `Content-MD5` (RFC 1864). They speak of the bytes as sent, so a body in a content coding is left alone:
the source that inflates it checks that coding's own sum.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from typing import TYPE_CHECKING

from holdfast._errors import IntegrityError
from holdfast._types import Head

if TYPE_CHECKING:
    from hashlib import _Hash

_ALGORITHMS = {"sha-512": "sha512", "sha-256": "sha256", "sha": "sha1", "md5": "md5"}
_MEMBER = re.compile(r"([a-z0-9-]+)\s*=\s*:?([A-Za-z0-9+/]+=*):?", re.IGNORECASE)


class BodyCheck:
    """One body's announced length and digest. `hasher` takes the body's bytes, where a digest was announced."""

    __slots__ = ("_digest", "_length", "_what", "hasher")

    def __init__(self, length: int | None, what: str, digest: bytes, hasher: _Hash | None) -> None:
        self._length = length
        self._what = what
        self._digest = digest
        self.hasher = hasher

    @classmethod
    def of(cls, head: Head, *, length: bool, digest: bool) -> BodyCheck | None:
        """Gives the check that a head asks for, None where it announces nothing that can be checked."""
        if head.encoding != "identity":
            return None
        announced = head.headers.get("content-length", "") if length else ""
        size = int(announced) if announced.isdecimal() and len(announced) < 20 else None
        what, expected, hasher = _announced(head) if digest else ("", b"", None)
        return cls(size, what, expected, hasher) if size is not None or hasher is not None else None

    def end(self, received: int) -> None:
        """The body is over. Raises `IntegrityError` when it is not the one announced."""
        if self._length is not None and received != self._length:
            raise _mismatch("the body's length in bytes differs", str(self._length), str(received))
        if self.hasher is not None and self.hasher.digest() != self._digest:
            raise _mismatch(f"the body's {self._what} digest differs", self._digest.hex(), self.hasher.hexdigest())


def _mismatch(message: str, expected: str, actual: str) -> IntegrityError:
    return IntegrityError(message, expected=expected, actual=actual)


def _announced(head: Head) -> tuple[str, bytes, _Hash | None]:
    """The strongest digest that a head announces and that can be computed here."""
    found: dict[str, str] = {}
    for header in ("content-digest", "repr-digest", "digest"):
        for name, value in _MEMBER.findall(head.headers.get(header, "")):
            found.setdefault(name.lower(), value)
    if "content-md5" in head.headers:
        found.setdefault("md5", head.headers["content-md5"])
    for name, algorithm in _ALGORITHMS.items():
        if name in found:
            try:
                expected = base64.b64decode(found[name], validate=True)
            except (binascii.Error, ValueError):
                continue
            hasher = hashlib.new(algorithm, usedforsecurity=False)
            if len(expected) == hasher.digest_size:
                return name, expected, hasher
    return "", b"", None
