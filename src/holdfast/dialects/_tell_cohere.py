"""An answer of Cohere's told on: the blocks and calls of another one as the first one's, with its numbers.

Which blocks had begun is read off the events that were told, once it must be known. From then on they are told by what
deltas say: the events with which they begin and end may be missing where an answer is compared, or come once more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from holdfast._types import Delta, Event, ToolCallDelta, Usage
from holdfast.dialects._tell import by_event, eol_of, event_of
from holdfast.dialects._wire import plain

_ORDINARY = ("content-delta", "tool-call-delta", "tool-plan-delta", "")
_DELTAS = tuple(f'"{name}"'.encode() for name in _ORDINARY[:3])
_FRAMES = ("message-start", "message-end", "content-start", "content-end", "tool-call-start", "tool-call-end")


class CohereTeller:
    """Tells an answer of Cohere's. `count` writes a usage in its names. See `Teller`."""

    __slots__ = (
        "_begun",
        "_call",
        "_calls",
        "_cited",
        "_content",
        "_count",
        "_ended",
        "_eol",
        "_heard",
        "_last",
        "_named",
        "_next",
        "_reseated",
        "_spoke",
        "_theirs",
        "_told",
    )

    def __init__(self, count: Callable[[Usage], dict[str, Any]]) -> None:
        self._count = count
        self._heard: list[Event] = []  # with what blocks and calls began and ended
        self._last: Event | None = None
        self._reseated = False
        self._eol, self._named = b"\n", True
        self._begun, self._ended = False, False
        self._next = 0
        self._content: tuple[int, str] | None = None  # number and kind of the block that has not ended
        self._theirs: int | None = None  # its number in the answer that is told now
        self._calls: set[int] = set()
        self._call: int | None = None  # the call that has not ended
        self._spoke = False  # something of it was told
        self._told = 0  # until then blocks below this number were told
        self._cited: set[tuple[str, int]] = set()

    def feed(self, batch: Sequence[Delta], out: list[bytes]) -> None:
        """Appends the bytes of a batch."""
        if self._reseated:
            for event, deltas in by_event(batch):
                self._tell(event, deltas[0], out)
            return
        last = self._last
        for delta in batch:
            if delta.raw is last:
                continue
            last = delta.raw
            out.append(last.wire)
            if last.type not in _ORDINARY and (last.type != "message" or not _is_delta(last.payload)):
                self._heard.append(last)
        self._last = last

    def reseat(self) -> None:
        """From here on blocks are of another answer."""
        if not self._reseated:
            self._reseated = True
            self._eol, self._named = eol_of(self._heard), any(event.type != "message" for event in self._heard)
            for event in self._heard:
                value = plain(event)
                if isinstance(value, dict):
                    self._recall(value.get("type") or event.type, value)
            self._heard.clear()
        self._theirs = None
        self._spoke, self._told = False, self._next

    def end(self, out: list[bytes]) -> None:
        """What proves an answer is its last event."""

    def _recall(self, name: str, value: dict[str, Any]) -> None:
        index = value.get("index", 0)
        if name == "message-start":
            self._begun = True
        elif name == "message-end":
            self._ended = True
        elif name == "content-start":
            content = _message(value).get("content") or {}
            self._content, self._next = (index, _kind(content)), index + 1
        elif name == "content-end":
            self._content = None
        elif name == "tool-call-start":
            self._calls.add(index)
            self._call = index
        elif name == "tool-call-end":
            self._call = None
        elif name.startswith("citation-"):
            self._cited.add((name, index))

    # -- another answer's events ---------------------------------------------------------------

    def _tell(self, event: Event, delta: Delta, out: list[bytes]) -> None:
        if not event.payload.startswith(b"{"):  # a comment, a ping, the end mark
            out.append(event.wire)
            return
        value = plain(event)
        value = value if isinstance(value, dict) else {}  # half a character is no JSON: the delta has what it says
        name, index = value.get("type") or event.type, value.get("index", 0)
        if delta.empty:
            self._pass(name, index, value, out)
            return
        self._begin(out)
        if name == "tool-plan-delta":
            self._close(out)
            self._emit({"type": name, "delta": {"message": {"tool_plan": delta.reasoning}}}, out)
        else:
            if name == "content-start" and self._spoke:
                self._close(out)
            for kind, text in (("thinking", delta.reasoning), ("text", delta.text)):
                if text:
                    self._say(kind, text, index, value, out)
        for call in delta.tool_calls:
            self._tell_call(call, value, out)
        self._spoke = True
        if delta.finish_reason is not None and not self._ended:
            self._end(delta, value.get("delta") or {}, out)

    def _pass(self, name: str, index: int, value: dict[str, Any], out: list[bytes]) -> None:
        """What says nothing of the answer, and may be one of the events with which a block begins or ends."""
        told = not self._spoke and index < self._told  # where it was compared
        if name not in _FRAMES:
            if self._spoke or (name, index) not in self._cited:
                self._emit(value, out, name=name)
        elif name == "message-start":
            self._begin(out, value)
        elif name == "content-start" and not told:
            content = _message(value).get("content") or {}
            self._open(_kind(content), index, out)
        elif name == "content-end" and self._content is not None:
            if index == (self._content[0] if told else self._theirs):
                self._close(out)
        elif name == "tool-call-end" and self._call == index:
            self._close(out)

    def _say(self, kind: str, text: str, index: int, value: dict[str, Any], out: list[bytes]) -> None:
        if self._content is None or self._content[1] != kind or self._theirs not in (None, index):
            self._open(kind, index, out)
        self._theirs = index
        said = {"type": "content-delta", "index": self._next - 1, "delta": {"message": {"content": {kind: text}}}}
        more = value.get("delta") if value.get("type") == "content-delta" else None
        if isinstance(more, dict):  # what stands beside the words
            said = {**value, **said, "delta": {**more, "message": {"content": {kind: text}}}}
        self._emit(said, out)

    def _open(self, kind: str, index: int, out: list[bytes]) -> None:
        self._begin(out)
        self._close(out)
        self._content, self._theirs = (self._next, kind), index
        start = {"message": {"content": {"type": kind, kind: ""}}}
        self._emit({"type": "content-start", "index": self._next, "delta": start}, out)
        self._next += 1

    def _tell_call(self, call: ToolCallDelta, value: dict[str, Any], out: list[bytes]) -> None:
        if call.index not in self._calls:
            self._close(out)
            self._calls.add(call.index)
            self._call = call.index
            came = _message(value).get("tool_calls")
            began = {**came} if isinstance(came, dict) else {}
            began |= {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": ""}}
            self._piece("tool-call-start", call.index, began, out)
        if call.arguments:
            self._piece("tool-call-delta", call.index, {"function": {"arguments": call.arguments}}, out)

    def _piece(self, name: str, index: int, call: dict[str, Any], out: list[bytes]) -> None:
        self._emit({"type": name, "index": index, "delta": {"message": {"tool_calls": call}}}, out)

    def _close(self, out: list[bytes]) -> None:
        """Ends the block and the call that are open."""
        if self._content is not None:
            self._emit({"type": "content-end", "index": self._content[0]}, out)
        if self._call is not None:
            self._emit({"type": "tool-call-end", "index": self._call}, out)
        self._content = self._theirs = self._call = None

    def _begin(self, out: list[bytes], value: dict[str, Any] | None = None) -> None:
        """Tells how it begins, unless it has begun: only a comment may have come before the cut."""
        if not self._begun:
            self._begun = True
            begun = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}
            self._emit(value or {"type": "message-start", "delta": {"message": begun}}, out)

    def _end(self, delta: Delta, came: dict[str, Any], out: list[bytes]) -> None:
        self._close(out)
        self._ended = True
        over = {name: value for name, value in came.items() if name != "usage"} | {"finish_reason": delta.finish_reason}
        if delta.usage is not None:
            over["usage"] = self._count(delta.usage)
        self._emit({"type": "message-end", "delta": over}, out)

    def _emit(self, value: dict[str, Any], out: list[bytes], *, name: str = "") -> None:
        name = value.get("type") or name
        out.append(event_of(value, name=name if self._named else "", eol=self._eol))


def _is_delta(payload: bytes) -> bool:
    return any(name in payload for name in _DELTAS)


def _message(value: dict[str, Any]) -> dict[str, Any]:
    message = (value.get("delta") or {}).get("message")
    return message if isinstance(message, dict) else {}


def _kind(content: dict[str, Any]) -> str:
    kind = content.get("type") or ("thinking" if "thinking" in content else "text")
    return kind if isinstance(kind, str) else "text"
