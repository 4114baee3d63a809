"""What was said, channel by channel, in the order in which it was said: the stuff that transcripts are made of.

A tape holds one choice: a list of segments (reasoning, text, a tool call's arguments...), each as long as the model
stayed in that channel. Text is folded into blocks of 4,096 characters: a list of small strings would cost twelve times
what it holds. Where it is not kept a block is replaced by its digest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Any

from holdfast._types import Delta

BLOCK = 4_096
TOOL = "tool:"
NAME = "name:"


class Segment:
    """One run of one channel. `blocks` holds text, or digests where the text is not kept; `tail` is not yet a block."""

    __slots__ = ("blocks", "channel", "keep", "length", "tail", "tail_length")

    def __init__(self, channel: str, *, keep: bool) -> None:
        self.channel = channel
        self.keep = keep
        self.length = 0
        self.blocks: list[str | bytes] = []
        self.tail: list[str] = []
        self.tail_length = 0

    def append(self, text: str) -> None:
        self.tail.append(text)
        self.length += len(text)
        self.tail_length += len(text)
        if self.tail_length >= BLOCK:
            self._fold()

    def _fold(self) -> None:
        joined = "".join(self.tail)
        whole = len(joined) // BLOCK * BLOCK
        for start in range(0, whole, BLOCK):
            block = joined[start : start + BLOCK]
            self.blocks.append(block if self.keep else digest(block))
        self.tail = [joined[whole:]] if whole < len(joined) else []
        self.tail_length = len(joined) - whole

    def text(self) -> str:
        return "".join([b for b in self.blocks if isinstance(b, str)] + self.tail)

    def state(self, *, told: bool) -> list[Any]:
        """Channel and length; and where the answer does not tell the text, digests and the rest."""
        if told:
            return [self.channel, self.length]
        digests = [block.hex() for block in self.blocks if isinstance(block, bytes)]
        return [self.channel, self.length, digests, "".join(self.tail) if digests or not self.keep else self.text()]

    @classmethod
    def revived(cls, state: Sequence[Any], text: str) -> Segment:
        channel, length, *rest = state
        segment = cls(channel, keep=not rest)
        segment.append(text if not rest else rest[1])
        if rest:
            segment.blocks[:0] = [bytes.fromhex(digest) for digest in rest[0]]
        if length != len(segment.blocks) * BLOCK + segment.tail_length:  # a replay would wait for it for ever
            raise ValueError("a partial's answer has not the length that its state says")
        segment.length = length
        return segment


def digest(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


class Tape:
    """One choice: its segments in order, how it finished, and the ids of its tool calls (opaque, never compared)."""

    __slots__ = ("finish_reason", "ids", "segments")

    def __init__(self) -> None:
        self.segments: list[Segment] = []
        self.finish_reason: str | None = None
        self.ids: dict[int, str] = {}


def pieces(delta: Delta) -> Iterator[tuple[str, str]]:
    """Gives what a delta says as (channel, text), in the order in which a model says it."""
    if delta.reasoning:
        yield "reasoning", delta.reasoning
    if delta.text:
        yield "text", delta.text
    if delta.refusal:
        yield "refusal", delta.refusal
    for call in delta.tool_calls:
        if call.name:
            yield f"{NAME}{call.index}", call.name
        if call.arguments:
            yield f"{TOOL}{call.index}", call.arguments
