"""Gemini's chunks told on: those of another answer under the first one's id, without what was told before."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from holdfast._types import Delta, Event, ToolCallDelta, Usage
from holdfast.dialects._tell import by_event, eol_of, event_of
from holdfast.dialects._wire import plain

_OURS = ("responseId", "modelVersion")
"""What all chunks of one answer say alike."""
_QUIET = 64  # chunks without words that are known when they come again
_LOOKED_AT = 8  # chunks of the first answer: what a gateway puts before it has no id


class GeminiTeller:
    """Tells an answer of Gemini's. `count` writes a usage in Google's names. See `Teller`."""

    __slots__ = ("_count", "_eol", "_finished", "_first", "_last", "_names", "_quiet", "_reseated", "_usage")

    def __init__(self, count: Callable[[Usage], dict[str, Any]]) -> None:
        self._count = count
        self._first: list[Event] = []
        self._last: Event | None = None
        self._names: dict[str, Any] = {}
        self._eol = b"\r\n"
        self._reseated = False
        self._finished: set[int] = set()
        self._quiet: deque[Any] = deque(maxlen=_QUIET)  # chunks without words, behind the last that had some
        self._usage: Any = None  # as it was told last: every chunk tells it

    def feed(self, batch: Sequence[Delta], out: list[bytes]) -> None:
        """Appends the bytes of a batch."""
        if self._reseated:
            for event, deltas in by_event(batch):
                self._tell(event, deltas, out)
            return
        last = self._last
        for place, delta in enumerate(batch):
            if delta.raw is last:
                continue
            last = delta.raw
            if b'"finishReason"' in last.payload and self._kept_back(last, batch[place:]):
                self.reseat()
                self.feed(batch[place:], out)
                return
            out.append(last.wire)
            if delta.text or delta.reasoning or delta.tool_calls:
                self._quiet.clear()
            elif last.payload:
                self._quiet.append(last)
            if len(self._first) < _LOOKED_AT and last.payload:
                self._first.append(last)
        if batch and last is not None and last.payload:
            self._last = last

    def _kept_back(self, event: Event, batch: Sequence[Delta]) -> bool:
        """Says whether an event says an end that its deltas do not: the answer goes on, or was thrown away."""
        chunk = plain(event)
        for one in (chunk.get("candidates") if isinstance(chunk, dict) else None) or ():
            number, reason = one.get("index", 0), one.get("finishReason")
            if any(delta.raw is event and delta.choice == number and delta.finish_reason for delta in batch):
                self._finished.add(number)
            elif number not in self._finished and reason not in (None, "", "FINISH_REASON_UNSPECIFIED"):
                return True
        return False

    def reseat(self) -> None:
        """From here on chunks are of another answer."""
        if self._reseated:
            return
        self._reseated = True
        chunks = [chunk for event in self._first if isinstance(chunk := plain(event), dict)]
        for name in _OURS:
            self._names.update(next(({name: chunk[name]} for chunk in chunks if chunk.get(name)), {}))
        self._eol = eol_of(self._first) if self._first else self._eol
        newest = plain(self._last) if self._last is not None else None
        self._usage = newest.get("usageMetadata") if isinstance(newest, dict) else None
        told = [chunk.get("candidates") for event in self._quiet if isinstance(chunk := plain(event), dict)]
        self._quiet.clear()
        self._quiet.extend(candidates for candidates in told if candidates)
        self._first.clear()

    def end(self, out: list[bytes]) -> None:
        """There is no end mark."""

    def _tell(self, event: Event, deltas: list[Delta], out: list[bytes]) -> None:
        if not event.payload.startswith(b"{"):  # a comment, somebody's ping, a gateway's end mark
            out.append(event.wire)
            return
        chunk = plain(event)
        chunk = chunk if isinstance(chunk, dict) else {}  # half a character is no JSON: what it says is in the deltas
        made = {name: value for name, value in chunk.items() if name not in ("candidates", "usageMetadata")}
        for name in _OURS:
            self._names.setdefault(name, made.get(name))
        made.update((name, value) for name, value in self._names.items() if value is not None)
        candidates = _candidates(chunk, deltas)
        usage = next((delta.usage for delta in reversed(deltas) if delta.usage is not None), None)
        if any(delta.text or delta.reasoning or delta.tool_calls or delta.finish_reason for delta in deltas):
            self._quiet.clear()
        elif chunk.get("candidates") in self._quiet:
            return  # an image, say: behind all that was compared it came before the cut, too
        if not candidates and usage is None and (chunk.get("candidates") or not chunk):
            return  # all of it was told before
        if candidates:
            made["candidates"] = candidates
        if usage is not None:
            self._usage = self._count(usage)
        if self._usage is not None:
            made["usageMetadata"] = self._usage
        out.append(event_of(made, name="" if event.type == "message" else event.type, eol=self._eol))


def _candidates(chunk: dict[str, Any], deltas: list[Delta]) -> list[dict[str, Any]]:
    """The candidates of which deltas speak, each with what is new in it."""
    known = chunk.get("candidates")
    came = {one.get("index", 0): one for one in known if isinstance(one, dict)} if isinstance(known, list) else {}
    made = []
    for number in dict.fromkeys(delta.choice for delta in deltas):
        mine, was = [delta for delta in deltas if delta.choice == number], came.get(number, {})
        finish = next((delta.finish_reason for delta in mine if delta.finish_reason is not None), None)
        content: dict[str, Any] = was.get("content") or {}
        parts = _new_parts(content.get("parts") or [], mine)
        if not parts and finish is None:
            continue
        one = {name: value for name, value in was.items() if name not in ("content", "finishReason")}
        if parts:
            one["content"] = {**(content or {"role": "model"}), "parts": parts}
        if finish is not None:
            one["finishReason"] = finish
        made.append({**one, "index": number} if number or not was else one)
    return made


def _new_parts(parts: list[dict[str, Any]], deltas: list[Delta]) -> list[dict[str, Any]]:
    """The parts of a candidate without what was told of them before: deltas say the end of what they say."""
    said = {False: "".join(delta.text for delta in deltas), True: "".join(delta.reasoning for delta in deltas)}
    calls = [call for delta in deltas for call in delta.tool_calls]
    whole = {kind: "".join(_text(part) for part in parts if bool(part.get("thought")) is kind) for kind in said}
    old = {kind: len(whole[kind]) - len(said[kind]) for kind in said}
    called = [part for part in parts if part.get("functionCall") is not None]
    if len(calls) > len(called) or not all(whole[kind].endswith(said[kind]) for kind in said):
        return _made_parts(said[True], said[False], deltas)  # a character was put together from halves
    new, old_calls = list[dict[str, Any]](), len(called) - len(calls)
    for part in parts:
        text, kind = _text(part), bool(part.get("thought"))
        if part.get("functionCall") is not None:
            if old_calls:
                old_calls -= 1
            else:
                new.append({**part, "functionCall": {**part["functionCall"], "args": _args(calls.pop(0))}})
        elif text and old[kind]:
            cut = min(old[kind], len(text))
            old[kind] -= cut
            if cut < len(text):
                new.append({**part, "text": text[cut:]})
        elif text or not (old_calls or any(old.values())):
            new.append(part)
    return new


def _text(part: dict[str, Any]) -> str:
    text = part.get("text")
    return text if isinstance(text, str) else ""


def _args(call: ToolCallDelta) -> msgspec.Raw:
    """As they came: a number of any size stays what it is."""
    return msgspec.Raw(call.arguments.encode() or b"{}")


def _made_parts(thought: str, text: str, deltas: list[Delta]) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = [{"text": thought, "thought": True}] if thought else []
    parts += [{"text": text}] if text else []
    for delta in deltas:
        for call in delta.tool_calls:
            named = {"id": call.id, "name": call.name} if call.id else {"name": call.name}
            parts.append({"functionCall": {**named, "args": _args(call)}})
    return parts
