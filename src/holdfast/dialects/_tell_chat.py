"""The chat shape told on: chunks of another answer under the first one's id, without its opening."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holdfast._types import Delta, Event
from holdfast.dialects._tell import counted, event_of
from holdfast.dialects._wire import plain

_OURS = ("id", "created", "model", "system_fingerprint", "object")
"""What all chunks of one answer say alike."""
_SAID = ("role", "content", "reasoning_content", "reasoning", "refusal", "tool_calls")
_TOKENS = {"input_tokens": "prompt_tokens", "output_tokens": "completion_tokens", "total_tokens": "total_tokens"}
_LOOKED_AT = 8  # chunks of the first answer: Azure's first has no id yet


class ChatTeller:
    """Tells an answer of the chat shape. See `Teller`."""

    __slots__ = ("_first", "_last", "_reseated", "_shell")

    def __init__(self) -> None:
        self._first: list[Event] = []
        self._last: Event | None = None
        self._reseated = False
        self._shell: dict[str, Any] = {}

    def feed(self, batch: Sequence[Delta], out: list[bytes]) -> None:
        """Appends the bytes of a batch."""
        if self._reseated:
            for delta in batch:
                self._tell(delta, out)
            return
        last = self._last
        for delta in batch:
            if delta.raw is last:
                continue
            last = delta.raw
            if len(self._first) < _LOOKED_AT and last.payload:
                self._first.append(last)
            out.append(last.wire)
        self._last = last

    def reseat(self) -> None:
        """From here on chunks are of another answer."""
        if self._reseated:
            return
        self._reseated = True
        chunks = [chunk for event in self._first if isinstance(chunk := plain(event), dict)]
        self._first.clear()
        best = next((chunk for chunk in chunks if chunk.get("id")), chunks[0] if chunks else {})
        self._shell = {name: best[name] for name in _OURS if name in best}

    def end(self, out: list[bytes]) -> None:
        """The answer is proven whole, and was cut on its way: appends the end mark where it has not come."""
        if self._last is not None and not self._last.payload.startswith(b"[DONE]"):
            out.append(b"data: [DONE]\n\n")

    def _tell(self, delta: Delta, out: list[bytes]) -> None:
        event = self._last = delta.raw
        if delta.empty:
            if not event.payload.startswith(b"{"):  # a comment, a ping, the end mark; an opening has been told
                out.append(event.wire)
            return
        chunk = plain(event)
        if not isinstance(chunk, dict):
            return
        made = {**{name: value for name, value in chunk.items() if name not in ("choices", "usage")}, **self._shell}
        made["choices"] = self._choices(delta, chunk)
        if delta.usage is not None:
            made["usage"] = counted(delta.usage, _TOKENS)
        out.append(event_of(made))

    def _choices(self, delta: Delta, chunk: dict[str, Any]) -> list[dict[str, Any]]:
        """The one choice of which a delta speaks, with what is new in it."""
        known = chunk.get("choices")
        choices = [one for one in known if isinstance(one, dict)] if isinstance(known, list) else []
        found = next((one for one in choices if one.get("index", 0) == delta.choice), None)
        if found is None:
            return []
        if "delta" not in found and "text" in found:  # the older endpoint's words
            return [{**found, "index": delta.choice, "text": delta.text, "finish_reason": delta.finish_reason}]
        was: dict[str, Any] = found["delta"] if isinstance(found.get("delta"), dict) else {}
        said = {name: value for name, value in was.items() if name not in _SAID}
        if delta.text or "content" in was:
            said["content"] = delta.text
        if delta.reasoning:
            key = "reasoning" if was.get("reasoning") and not was.get("reasoning_content") else "reasoning_content"
            said[key] = delta.reasoning
        if delta.refusal:
            said["refusal"] = delta.refusal
        if delta.tool_calls:
            said["tool_calls"] = [_call(call.index, call.id, call.name, call.arguments) for call in delta.tool_calls]
        return [{**found, "index": delta.choice, "delta": said, "finish_reason": delta.finish_reason}]


def _call(index: int, id_: str, name: str, arguments: str) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments} if name else {"arguments": arguments}
    opening = {"id": id_, "type": "function"} if id_ else {}
    return {"index": index, **opening, "function": function}
