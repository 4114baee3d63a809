"""The Messages shape told on: the rest of another message inside the first one, block behind block.

A block that is open at the seam stays open, and what comes next has the next index of ours, whatever it has of its own.
No block is begun, signed or ended twice, and none is left open.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from holdfast._types import Delta, Event, Usage
from holdfast.dialects._tell import event_of
from holdfast.dialects._wire import lenient

_START, _GROWTH, _STOP = "content_block_start", "content_block_delta", "content_block_stop"
_SPEAKERS = {
    "text_delta": "text",
    "citations_delta": "text",
    "thinking_delta": "thinking",
    "signature_delta": "thinking",
    "input_json_delta": "tool_use",
}
"""Deltas of a block, and the kind of block that has them; other kinds of tools have input, too."""
_INPUT = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
_EMPTY = {"text": {"type": "text", "text": ""}, "thinking": {"type": "thinking", "thinking": "", "signature": ""}}


class MessagesTeller:
    """Tells an answer of the Messages shape. See `Teller`."""

    __slots__ = (
        "_again",
        "_asked",
        "_due",
        "_kept",
        "_kinds",
        "_last",
        "_open",
        "_reseated",
        "_shift",
        "_spoke",
        "_told",
    )

    def __init__(self) -> None:
        self._last: Event | None = None
        self._kept: list[Event] = []  # of the first answer, all but what a block grew by
        self._reseated = False
        self._asked: dict[str, Any] = {}  # what the first message said that the request took
        self._kinds: list[str] = []  # of the blocks that were told
        self._open = -1  # the block that is being told
        self._told: Counter[Any] = Counter()  # events that are no growth, by what they are about
        self._spoke = False  # something of the answer was told
        self._again = True  # this attempt says again what was told: else it is the answer's next turn
        self._due: Counter[Any] = Counter()  # those that this attempt may only say again
        self._shift: int | None = None  # from this attempt's indexes to ours

    def feed(self, batch: Sequence[Delta], out: list[bytes]) -> None:
        """Appends the bytes of a batch."""
        if self._reseated:
            for delta in batch:
                self._tell(delta, out)
            return
        last, kept = self._last, self._kept
        for delta in batch:
            event = delta.raw
            if event is last:
                continue
            last = event
            if not (
                (delta.text or delta.reasoning or delta.tool_calls)
                and (event.type == _GROWTH or b'"content_block_delta"' in event.payload[:40])
            ):
                kept.append(event)
            else:
                self._spoke = True
            out.append(event.wire)
        self._last = last

    def reseat(self) -> None:
        """From here on events are of another message, which says ours again or goes on from it."""
        self._reseated = True
        for event in self._kept:
            values = lenient(event)
            if isinstance(values, dict):
                self._note(values)
        self._kept.clear()
        self._again, self._shift = True, None
        self._due = Counter(self._told)

    def end(self, out: list[bytes]) -> None:
        """The answer is proven whole: appends `message_stop` where just that was cut off."""
        if not self._reseated:
            if self._last is not None and b'"message_stop"' in self._last.payload:
                return
            self.reseat()
        if self._told["message_delta"] and not self._told["message_stop"]:
            self._say({"type": "message_stop"}, out)

    def _note(self, said: dict[str, Any]) -> None:
        """An event was told."""
        kind, index = said.get("type"), said.get("index", -1)
        if kind == _START:
            self._open = len(self._kinds)
            self._kinds.append(str(_part(said, "content_block").get("type")))
            self._spoke = self._spoke or self._kinds[-1] == "tool_use"
        elif kind == _STOP:
            self._open = -1
        elif kind == _GROWTH:
            self._told[index, _part(said, "delta").get("type")] += 1
        else:
            self._told[kind] += 1
            if kind == "message_start":
                usage = _part(_part(said, "message"), "usage")
                self._asked = {key: value for key in _INPUT if (value := usage.get(key)) is not None}

    def _say(self, said: dict[str, Any], out: list[bytes]) -> None:
        self._note(said)
        out.append(event_of(said, name=said["type"]))

    # -- behind a seam -----------------------------------------------------------------------------

    def _tell(self, delta: Delta, out: list[bytes]) -> None:
        event = delta.raw
        said = lenient(event)
        kind = said.get("type") if isinstance(said, dict) else None
        if kind in (_START, _GROWTH, _STOP):
            self._block(delta, said, out)
        elif kind == "message_delta":
            self._change(delta, said, out)
        elif kind in ("message_start", "message_stop"):
            if not self._told[kind]:
                self._say(said, out)
            elif kind == "message_start" and self._spoke:  # what only says ours again is told from where it is news
                self._again = False
                self._due.clear()
        else:  # a comment, a ping, or what nobody knows yet
            out.append(event.wire)

    def _change(self, delta: Delta, said: dict[str, Any], out: list[bytes]) -> None:
        """How the message ends."""
        if delta.empty and self._due["message_delta"]:
            self._due["message_delta"] -= 1
            return
        if _part(said, "delta").get("stop_reason"):
            self._close(out)
        if delta.usage is not None:
            ours = self._asked if delta.usage.estimated else {}  # which is better known than reckoned
            said = {**said, "usage": {**_counted(delta.usage, _part(said, "usage")), **ours}}
        self._say(said, out)

    def _block(self, delta: Delta, said: dict[str, Any], out: list[bytes]) -> None:
        kind, index = said["type"], said["index"]
        begins, ends = kind == _START, kind == _STOP
        own = _part(said, "content_block" if begins else "delta")
        is_of = str(own.get("type")) if begins else _SPEAKERS.get(str(own.get("type")), "")
        if self._shift is None:
            self._shift = self._shifted(delta, index, is_of, begins=begins, ends=ends)
        at = index + self._shift
        if begins and (at >= len(self._kinds) or _is_new_call(delta)):
            self._begin(said, index, out)
            return
        if not begins and not ends and delta.empty:
            self._aside(said, at, str(own.get("type")), out)
            return
        if not delta.empty:
            if self._open != at and is_of in _EMPTY:
                self._begin({"type": _START, "content_block": _EMPTY[is_of]}, index, out)
            self._grow(delta, {} if begins or ends else said, out)
        if ends and self._open == index + self._shift:
            self._close(out)

    def _shifted(self, delta: Delta, index: int, kind: str, *, begins: bool, ends: bool) -> int:
        """Says how far our indexes are ahead of this attempt's, by the first block that it speaks of."""
        told, is_open = len(self._kinds), self._open >= 0
        same = index < told and (not kind or _fits(self._kinds[index], kind))
        if self._again and same and not _is_new_call(delta) and (delta.empty or begins or self._open == index):
            return 0  # it is that very block, once more or further on
        if is_open and not begins and (ends or _fits(self._kinds[self._open], kind)):
            return self._open - index
        return told - index - ends  # a block that ends here has been told

    def _begin(self, said: dict[str, Any], index: int, out: list[bytes]) -> None:
        """The next block of ours."""
        self._close(out)
        at = len(self._kinds)
        self._shift = at - index
        self._say({**said, "index": at}, out)

    def _close(self, out: list[bytes]) -> None:
        if self._open >= 0:
            self._say({"type": _STOP, "index": self._open}, out)

    def _aside(self, said: dict[str, Any], at: int, kind: str, out: list[bytes]) -> None:
        """What says nothing of the answer: a signature, a citation, the input of a tool that the server runs."""
        if self._due[at, kind]:
            self._due[at, kind] -= 1
        elif at == self._open:
            self._say({**said, "index": at}, out)

    def _grow(self, delta: Delta, said: dict[str, Any], out: list[bytes]) -> None:
        """What is new in the open block: growth, or what came with its beginning or its end."""
        if self._open < 0:
            return
        pieces = {
            ("text_delta", "text"): delta.text,
            ("thinking_delta", "thinking"): delta.reasoning,
            ("input_json_delta", "partial_json"): "".join(call.arguments for call in delta.tool_calls),
        }
        for (kind, key), piece in pieces.items():
            if piece:
                self._spoke = True
                grown = {**_part(said, "delta"), "type": kind, key: piece}
                out.append(event_of({**said, "type": _GROWTH, "index": self._open, "delta": grown}, name=_GROWTH))


def _part(said: dict[str, Any], name: str) -> dict[str, Any]:
    value = said.get(name)
    return value if isinstance(value, dict) else {}


def _is_new_call(delta: Delta) -> bool:
    return any(call.id for call in delta.tool_calls)


def _fits(block: str, kind: str) -> bool:
    return block == kind or (kind == "tool_use" and block.endswith("_tool_use"))


def _counted(usage: Usage, raw: dict[str, Any]) -> dict[str, Any]:
    """A usage in the shape's own keys: input tokens leave out what was read from a cache, or written to one."""
    cached, written = usage.cached_tokens, usage.cache_write_tokens
    fresh = None if usage.input_tokens is None else usage.input_tokens - (cached or 0) - (written or 0)
    sums = {**dict(zip(_INPUT, (fresh, written, cached), strict=True)), "output_tokens": usage.output_tokens}
    told = {key: value for key, value in sums.items() if value is not None and (key in raw or usage.estimated)}
    return {**raw, **told}
