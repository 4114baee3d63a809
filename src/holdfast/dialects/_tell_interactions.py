"""An interaction told on: the steps of another answer as the first one's steps, under its id and with its numbers.

Which steps had begun is read off the events that were told, once it must be known. From then on steps are told by what
deltas say: the events with which steps begin and end may be missing where an answer is compared, or come once more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from holdfast._types import Delta, Event, ToolCallDelta, Usage
from holdfast.dialects._tell import by_event, eol_of, event_of
from holdfast.dialects._wire import plain

_ORDINARY = ("step.delta", "")
_THOUGHT, _OUTPUT, _CALL = "thought", "model_output", "function_call"
_WORDS = ("text", "thought_summary", "arguments_delta")
_STEPS = {"thought_signature": _THOUGHT} | dict.fromkeys(
    ("image", "audio", "video", "document", "text_annotation"), _OUTPUT
)
"""In which step a kind of delta stands; the others stand in steps of their own name."""


class InteractionTeller:
    """Tells an interaction. `count` writes a usage in Google's names. See `Teller`."""

    __slots__ = (
        "_begun",
        "_calls",
        "_count",
        "_ended",
        "_eol",
        "_heard",
        "_id",
        "_last",
        "_named",
        "_newest",
        "_next",
        "_open",
        "_ours",
        "_reseated",
        "_spoke",
        "_status",
        "_told",
    )

    def __init__(self, count: Callable[[Usage], dict[str, Any]]) -> None:
        self._count = count
        self._heard: list[Event] = []  # with what steps began and ended
        self._last: Event | None = None
        self._reseated = False
        self._eol, self._named = b"\n", True
        self._id, self._begun, self._ended = "", False, False
        self._next = 0
        self._open: dict[int, str] = {}  # the type of each step that has not ended
        self._calls: dict[int, int] = {}  # the step of each call
        self._ours: dict[int, int] = {}  # our number for a step of the answer that is told now
        self._spoke = False  # something of it was told
        self._told = 0  # until then steps below this number were told
        self._status = ""
        self._newest = ""  # the kind of delta that was told last

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
            if last.type not in _ORDINARY and (last.type != "message" or b'"step.delta"' not in last.payload):
                self._heard.append(last)
        self._last = last

    def reseat(self) -> None:
        """From here on steps are of another answer."""
        if not self._reseated:
            self._reseated = True
            self._eol, self._named = eol_of(self._heard), any(event.type != "message" for event in self._heard)
            for event in self._heard:
                value = plain(event)
                if isinstance(value, dict):
                    self._recall(value.get("event_type") or event.type, value)
            newest = plain(self._last) if self._last is not None else None
            self._newest = _kind_of(newest) if isinstance(newest, dict) else ""
            self._heard.clear()
        self._ours.clear()
        self._spoke, self._told = False, self._next

    def end(self, out: list[bytes]) -> None:
        """What proves an answer is its last event."""

    def _recall(self, name: str, value: dict[str, Any]) -> None:
        index, step = value.get("index", 0), value.get("step")
        if name in ("interaction.created", "interaction.completed"):
            self._begun, self._ended = True, self._ended or name == "interaction.completed"
            self._id = self._id or (value.get("interaction") or {}).get("id") or ""
        elif name == "step.start" and isinstance(step, dict):
            self._open[index] = kind = step.get("type", "")
            self._next = max(self._next, index + 1)
            if kind == _CALL and index not in self._calls.values():
                self._calls[len(self._calls)] = index
        elif name == "step.stop":
            self._open.pop(index, None)
        elif name == "interaction.status_update":
            self._status = value.get("status") or ""

    # -- another answer's events ---------------------------------------------------------------

    def _tell(self, event: Event, delta: Delta, out: list[bytes]) -> None:
        if not event.payload.startswith(b"{"):  # a comment, a ping, the end mark
            out.append(event.wire)
            return
        value = plain(event)
        value = value if isinstance(value, dict) else {}  # half a character is no JSON: the delta has what it says
        value.pop("event_id", None)  # a place in another answer
        name, index = value.get("event_type") or event.type, value.get("index")
        if delta.empty:
            self._pass(name, index, value, out)
            return
        self._begin(out)
        if name == "step.start" and self._spoke:
            self._stop(*self._open, out=out)
        for kind, text in ((_THOUGHT, delta.reasoning), (_OUTPUT, delta.text)):
            if text:
                self._delta(self._step(kind, index, out), _with_text(value.get("delta"), kind, text), out)
        for call in delta.tool_calls:
            self._call(call, index, value.get("step"), out)
        self._spoke = True
        if delta.finish_reason is not None and not self._ended:
            self._complete(delta, value.get("interaction") or {}, out)

    def _pass(self, name: str, index: int | None, value: dict[str, Any], out: list[bytes]) -> None:
        """What says nothing of the answer, and may be one of the events with which a step begins or ends."""
        step, said = value.get("step"), value.get("delta")
        told = not self._spoke and index is not None and index < self._told  # where it was compared
        if name == "interaction.created":
            self._begin(out, value)
        elif name == "interaction.status_update" and value.get("status") == self._status:
            pass
        elif name == "step.start" and isinstance(step, dict):
            if not told:
                self._start(step, index, out)
        elif name == "step.stop":
            self._stop(index if told and index is not None else self._ours.get(index or 0, -1), out=out)
        elif told and (index not in self._open or _kind_of(value) == self._newest):
            pass  # behind it something was told already
        elif name == "step.delta" and isinstance(said, dict):
            kind = str(said.get("type"))
            if kind not in _WORDS:  # there are none in it
                self._delta(self._step(_STEPS.get(kind, kind), index, out), said, out)
        elif name != "interaction.completed":
            self._status = value.get("status") or self._status
            if "interaction_id" in value:
                value["interaction_id"] = self._id
            self._emit(value, out, name=name)

    def _step(self, kind: str, index: int | None, out: list[bytes]) -> int:
        """Gives our number of a step that is open, and opens it where it is not."""
        ours = self._ours.get(index) if index is not None else None
        if ours is not None and self._open.get(ours) == kind:
            return ours
        taken = self._ours.values() if index is not None else ()
        for number in reversed(self._open):
            if self._open[number] == kind and number not in taken:  # it goes on where it was cut
                return self._knows(index, number)
        return self._start({"type": kind}, index, out)

    def _knows(self, index: int | None, number: int) -> int:
        if index is not None:
            self._ours[index] = number
        return number

    def _start(self, step: dict[str, Any], index: int | None, out: list[bytes]) -> int:
        self._begin(out)
        self._stop(*self._open, out=out)
        number = self._next
        self._next += 1
        self._open[number] = step.get("type", "")
        self._emit({"index": number, "step": step, "event_type": "step.start"}, out)
        return self._knows(index, number)

    def _stop(self, *numbers: int, out: list[bytes]) -> None:
        for number in numbers:
            if self._open.pop(number, None) is not None:
                self._emit({"index": number, "event_type": "step.stop"}, out)

    def _delta(self, number: int, said: dict[str, Any], out: list[bytes]) -> None:
        self._emit({"index": number, "delta": said, "event_type": "step.delta"}, out)

    def _call(self, call: ToolCallDelta, index: int | None, step: Any, out: list[bytes]) -> None:
        """A call begins without its arguments: they follow as they came."""
        number = self._calls.get(call.index)
        if number is None:
            began = {**step} if isinstance(step, dict) else {}
            began |= {"id": call.id, "type": _CALL, "name": call.name, "arguments": {}}
            number = self._calls[call.index] = self._start(began, index, out)
        elif index is not None:
            self._ours[index] = number
        if call.arguments:
            self._delta(number, {"arguments": call.arguments, "type": "arguments_delta"}, out)

    def _begin(self, out: list[bytes], value: dict[str, Any] | None = None) -> None:
        """Tells how it begins, unless it has begun: only a comment may have come before the cut."""
        if not self._begun:
            begun = {"interaction": {"id": "", "status": "in_progress"}, "event_type": "interaction.created"}
            self._recall("interaction.created", value or begun)
            self._emit(value or begun, out)

    def _complete(self, delta: Delta, interaction: dict[str, Any], out: list[bytes]) -> None:
        self._stop(*self._open, out=out)
        self._ended = True
        over = {**interaction, "id": self._id, "status": delta.finish_reason}
        over.pop("usage", None)
        if delta.usage is not None:
            over["usage"] = self._count(delta.usage)
        self._emit({"interaction": over, "event_type": "interaction.completed"}, out)

    def _emit(self, value: dict[str, Any], out: list[bytes], *, name: str = "") -> None:
        name = value.get("event_type") or name
        self._newest = _kind_of(value)
        out.append(event_of(value, name=name if self._named else "", eol=self._eol))


def _kind_of(value: dict[str, Any]) -> str:
    """What kind of delta an event holds."""
    said = value.get("delta")
    return str(said.get("type")) if isinstance(said, dict) else ""


def _with_text(said: Any, kind: str, text: str) -> dict[str, Any]:
    """A delta that says a text: the one that came, with what is new of it."""
    if isinstance(said, dict) and said.get("type") == "text":
        return {**said, "text": text}
    if kind == _OUTPUT:
        return {"text": text, "type": "text"}
    came = said.get("content") if isinstance(said, dict) else None
    return {
        "content": {**(came if isinstance(came, dict) else {}), "text": text, "type": "text"},
        "type": "thought_summary",
    }
