"""A stream in the form that one client can read: `mounts/_quirks.py` knows who dies on which legal bytes.

Records in a journal are the same for everybody; this stands between them and one reader. Our own ids are among what
some clients cannot read, and so is a comment that keeps the line open.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from holdfast._types import Delta, Event
from holdfast.gateway.reading import HEARTBEAT
from holdfast.gateway.surfaces import Surface
from holdfast.machines.sse import SseParser
from holdfast.mounts._quirks import Trait, traits_told
from holdfast.mounts._rewrite import Rewriter

_JSON = (b"data: {", b"data: [")
_SEPARATORS = (b"\xe2\x80\xa8", b"\xe2\x80\xa9", b"\xc2\x85")


def rewriting_for(headers: Mapping[str, str], surface: Surface) -> Rewriting | None:
    """Gives what a client's stream is put through, None for one that reads whatever is legal."""
    sent = {name.lower(): value for name, value in headers.items()}
    # Of a path the table knows only how it ends.
    traits = traits_told(sent, ":streamGenerateContent" if surface.in_path else surface.path)
    return Rewriting(traits) if traits else None


class Rewriting:
    """Takes whole records, any number at a time, and gives their bytes for one client."""

    __slots__ = ("_named", "_no_ids", "_parser", "_rewriter", "_separators")

    def __init__(self, traits: Collection[Trait]) -> None:
        self._named = "no name" in traits
        self._no_ids = "not data" in traits
        self._separators = "separators" in traits
        self._parser = SseParser(comments=True, max_stream=2**62)
        self._rewriter = Rewriter(traits, numbered=True)

    def __call__(self, data: bytes) -> bytes:
        """Gives the bytes, nothing where this client is to see none of them."""
        if data == HEARTBEAT:
            return b"\n" if self._no_ids else data
        if self._no_ids:
            return _data_alone(data) or self._rewritten(data)
        if b"\r" not in data:
            blocks = data.split(b"\n\n")
            if not blocks.pop() and all(map(self._is_well, blocks)):
                return data
        return self._rewritten(data)

    def _is_well(self, block: bytes) -> bool:
        """What nearly all blocks are, and everybody reads."""
        if self._separators and not block.isascii() and any(one in block for one in _SEPARATORS):
            return False
        if block.startswith(_JSON):
            return not self._named and b"\ndata" not in block
        lines = block.split(b"\n", 2)
        return lines[0][:7] == b"event: " and len(lines) > 1 and lines[1][:7] in _JSON and b"\ndata" not in lines[-1]

    def _rewritten(self, data: bytes) -> bytes:
        events: list[Event] = []
        self._parser.feed((data,), events)
        told = self._rewriter.events([Delta(event) for event in events])
        return self._rewriter.told(b"".join(delta.raw.wire for delta in told))


def _data_alone(data: bytes) -> bytes:
    """Gives lines of data without their ids; nothing where there is anything else."""
    eol = b"\r\n" if b"\r" in data else b"\n"
    *blocks, rest = data.split(eol + eol)
    out = []
    for block in blocks:
        line, _, after = block.partition(eol)
        alone = line.startswith(_JSON) and b"\n" not in line and b"\r" not in line
        if not alone or (after and (after[:4] != b"id: " or eol in after)):
            return b""
        out.append(line)
    return b"" if rest else b"\n\n".join((*out, b""))


__all__ = ["Rewriting", "rewriting_for"]
