"""The Responses shape told on: the rest of another response inside the first one, item by item.

What names the first response and its items stands to the end: in the deltas, in what says a part or an item whole, and
in the last event, which says all of them once more. Numbers count on without a gap.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from holdfast._types import Delta, Event
from holdfast.dialects._tell import counted, event_of
from holdfast.dialects._wire import lenient, number

_OURS = ("id", "created_at")
"""What all events about one response say alike."""
_TOKENS = {name: name for name in ("input_tokens", "output_tokens", "total_tokens")}
_PLACES = ("content_index", "summary_index", "annotation_index")
_SPEAKERS = {
    "output_text": "message",
    "refusal": "message",
    "reasoning_text": "reasoning",
    "reasoning_summary_text": "reasoning",
    "reasoning_summary_part": "reasoning",
    "function_call_arguments": "function_call",
    "custom_tool_call_input": "custom_tool_call",
}
"""What events about a part begin with, and the kind of item that has such parts."""
_PARTS: dict[str, tuple[str, dict[str, Any]]] = {
    "output_text": ("content", {"type": "output_text", "annotations": [], "logprobs": [], "text": ""}),
    "refusal": ("content", {"type": "refusal", "refusal": ""}),
    "reasoning_text": ("content", {"type": "reasoning_text", "text": ""}),
    "reasoning_summary_text": ("reasoning_summary", {"type": "summary_text", "text": ""}),
}
"""Parts that grow: what their beginning is called, and how they begin."""
_CALLS = ("function_call", "custom_tool_call")
_HEADS: dict[str, dict[str, Any]] = {
    "message": {"type": "message", "status": "in_progress", "role": "assistant", "content": []},
    "reasoning": {"type": "reasoning", "summary": []},
}


@dataclass(slots=True)
class _Item:
    """An item that was told: the last that was said of it whole.

    `words` are those of the parts of one that goes on from another item's: it begins with words that were told there.
    """

    kind: str
    raw: dict[str, Any]
    done: bool = False
    words: dict[tuple[str, int], str] | None = None


class ResponsesTeller:
    """Tells an answer of the Responses shape. See `Teller`."""

    __slots__ = (
        "_again",
        "_due",
        "_grown",
        "_ids",
        "_items",
        "_kept",
        "_last",
        "_number",
        "_places",
        "_reseated",
        "_shell",
        "_spoke",
        "_told",
    )

    def __init__(self) -> None:
        self._last: Event | None = None
        self._grown: Event | None = None  # the last event of the first answer by which a part grew
        self._kept: list[Event] = []  # all others of it
        self._reseated = False
        self._shell: dict[str, Any] = {}
        self._number: int | None = 0  # of the next event, None where the first answer counts none
        self._items: dict[int, _Item] = {}
        self._told: Counter[Any] = Counter()  # events that are no growth, by what they are about
        self._spoke = False  # something of the answer was told
        self._again = True  # this attempt says again what was told: else it is the answer's next turn
        self._due: Counter[Any] = Counter()  # those that this attempt may only say again
        self._places: dict[int, int] = {}  # from this attempt's indexes to ours
        self._ids: dict[str, int] = {}  # from this attempt's ids of items to our indexes

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
            if (delta.text or delta.reasoning or delta.tool_calls or delta.refusal) and (
                event.type[-6:] == ".delta" or (event.type == "message" and b'.delta"' in event.payload[:64])
            ):
                self._grown = event
            else:
                kept.append(event)
            out.append(event.wire)
        self._last = last

    def reseat(self) -> None:
        """From here on events are of another response, which says ours again or is the answer's next turn."""
        if not self._reseated:
            self._reseated = True
            self._look_back()
        self._again, self._places, self._ids = True, {}, {}
        self._due = Counter(self._told)

    def end(self, out: list[bytes]) -> None:
        """What proves an answer is its last event."""

    def _look_back(self) -> None:
        told = [said for event in self._kept if isinstance(said := lenient(event), dict)]
        for said in told:
            self._note(said, _index(said))
        grown = lenient(self._grown) if self._grown is not None else None
        numbers = [n for said in (*told, grown) if (n := number(said, "sequence_number")) is not None]
        self._number = 1 + max(numbers) if numbers else None if told else 0
        self._spoke = self._grown is not None or any(item.kind in _CALLS for item in self._items.values())
        self._kept.clear()
        self._grown = self._last = None

    def _note(self, said: dict[str, Any], at: int) -> None:
        """An event was told, about the item at one of our indexes or about none."""
        self._told[_about(said, at)] += 1
        response, item = said.get("response"), said.get("item")
        if isinstance(response, dict) and not self._shell:
            self._shell = {name: response[name] for name in _OURS if name in response}
        if isinstance(item, dict):
            known = self._items.setdefault(at, _Item(kind=str(item.get("type")), raw=item))
            known.raw, known.done = item, known.done or _kind(said).endswith(".done")

    def _say(self, said: dict[str, Any], event: Event, out: list[bytes]) -> None:
        if self._number is None:
            said.pop("sequence_number", None)
        else:
            said["sequence_number"] = self._number
            self._number += 1
        out.append(event_of(said, name="" if event.type == "message" else _kind(said) or event.type))

    # -- behind a seam -----------------------------------------------------------------------------

    def _tell(self, delta: Delta, out: list[bytes]) -> None:
        event = delta.raw
        said = lenient(event)
        if not isinstance(said, dict):  # a comment, a ping, an end mark
            out.append(event.wire)
            return
        if isinstance(said.get("response"), dict):
            self._live(delta, said, out)
        elif _index(said) >= 0:
            self._grow(delta, said, out)
        elif not self._is_due(_about(said, -1)):
            self._note(said, -1)
            self._say(said, event, out)

    def _is_due(self, about: Any) -> bool:
        """Says whether an event was told before; it is now told again."""
        if not self._due[about]:
            return False
        self._due[about] -= 1
        return True

    def _live(self, delta: Delta, said: dict[str, Any], out: list[bytes]) -> None:
        """An event about the response as a whole."""
        if self._told[_about(said, -1)]:
            if _kind(said) == "response.created" and self._spoke:  # what says ours again is told from where it is news
                self._turn()
            return
        response = {**said["response"], **self._shell}
        if delta.usage is not None:
            response["usage"] = counted(delta.usage, _TOKENS)
        if delta.finish_reason is not None and response.get("output"):
            response["output"] = self._output(response["output"])
        said = {**said, "response": response}
        self._note(said, -1)
        self._say(said, delta.raw, out)

    def _turn(self) -> None:
        """What comes is the answer's next turn: all of it is news, but for words that its layer has left out."""
        self._again = False
        self._due.clear()

    def _output(self, output: list[Any]) -> list[Any]:
        """All items once more: ours where they were told whole, and under the ids that were told."""
        whole = {at: item.raw for at, item in self._items.items()}
        left = {at: item.kind for at, item in sorted(self._items.items()) if at not in self._ids.values()}
        for index, item in enumerate(output):
            if not isinstance(item, dict):
                continue
            at = self._ids.get(str(item.get("id")), -1)
            if at < 0:
                same = [other for other, kind in left.items() if kind == item.get("type") and self._again]
                at = index if index in same else min(same, default=1 + max(whole, default=-1))
                left.pop(at, None)
            if at not in self._items or not self._items[at].done:
                whole[at] = self._renamed(item, at)
        return [whole[at] for at in sorted(whole)]

    def _renamed(self, item: dict[str, Any], at: int) -> dict[str, Any]:
        """An item as it is told: the ids that it began with stand."""
        ours = self._items.get(at)
        if ours is None:
            return item
        item = {**item, **{name: ours.raw[name] for name in ("id", "call_id") if ours.raw.get(name)}}
        for (name, place), words in (ours.words or {}).items():
            parts = item.get("summary" if name == "reasoning_summary_text" else "content")
            if isinstance(parts, list) and place < len(parts) and isinstance(parts[place], dict):
                key = "refusal" if name == "refusal" else "text"
                parts[place] = {**parts[place], key: words}
        return item

    # -- items -------------------------------------------------------------------------------------

    def _grow(self, delta: Delta, said: dict[str, Any], out: list[bytes]) -> None:
        """An event about an item: it begins, it or a part of it grows, it is said whole."""
        kind = _kind(said)
        name, does = _name(said), kind.rpartition(".")[2]
        item = said.get("item")
        is_of = str(item.get("type")) if isinstance(item, dict) else _SPEAKERS.get(name, "")
        news = delta.text or delta.reasoning or delta.refusal or "".join(c.arguments for c in delta.tool_calls)
        grows = does == "delta" and bool(news)
        index = _index(said)
        at = self._at(index, is_of, begins=kind == "response.output_item.added", grows=grows)
        id_ = item.get("id") if isinstance(item, dict) else said.get("item_id")
        if isinstance(id_, str):
            self._ids[id_] = at
        said = {**said, "output_index": at}
        if grows:
            self._begin(said, name, delta.raw, out)
            said["delta"] = news
        elif self._is_due(_about(said, at)):
            return
        ours = self._items.get(at)
        if isinstance(item, dict):
            said["item"] = self._renamed(item, at)
        elif ours is not None and "item_id" in said and ours.raw.get("id"):
            said["item_id"] = ours.raw["id"]
        if ours is not None and ours.words is not None:
            self._resay(ours.words, said, name, does)
        if grows:
            self._spoke = True
        else:
            self._note(said, at)
        self._say(said, delta.raw, out)

    def _at(self, index: int, kind: str, *, begins: bool, grows: bool = False) -> int:
        """Gives our index of an item. Answers that say the same may count their silent items differently."""
        at = self._places.get(index)
        same = self._items.get(index if at is None else at)
        if grows and same is not None and same.done and kind == same.kind and not self._of(kind, open_only=True):
            self._turn()  # it can be no growth of what has ended
            at = None
        if at is None:
            at = self._places[index] = self._placed(index, kind, begins=begins, grows=grows)
        return at

    def _placed(self, index: int, kind: str, *, begins: bool, grows: bool) -> int:
        same = self._items.get(index)
        if self._again and same is not None and kind in ("", same.kind) and not (grows and same.done):
            return index
        if begins and (same is None or not self._again):
            return self._free(index)
        known = self._of(kind, open_only=begins or grows)
        return max(known, default=self._free(index))

    def _of(self, kind: str, *, open_only: bool) -> list[int]:
        """Our items of a kind."""
        items = self._items.items()
        return [at for at, item in items if kind in ("", item.kind) and not (item.done and open_only)]

    def _free(self, index: int) -> int:
        free = 1 + max(self._items, default=-1)
        return index if self._again and index >= free else free

    def _begin(self, said: dict[str, Any], name: str, event: Event, out: list[bytes]) -> None:
        """Begins an item and a part that grow and did not begin: that was left out with what was only said again."""
        at, kind = said["output_index"], _SPEAKERS.get(name, "")
        if at not in self._items and kind in _HEADS and self._items:
            self._turn()
            head = {"id": said.get("item_id"), **_HEADS[kind]}
            added = {"type": "response.output_item.added", "item": head, "output_index": at}
            self._note(added, at)
            self._items[at].words = {}
            self._say(added, event, out)
        ours = self._items.get(at)
        if ours is None or ours.words is None or name not in _PARTS:
            return
        called, part = _PARTS[name]
        where = {key: said[key] for key in ("item_id", "output_index", *_PLACES) if key in said}
        begun = {"type": f"response.{called}_part.added", **where, "part": part}
        if not self._told[_about(begun, at)]:
            self._note(begun, at)
            self._say(begun, event, out)

    @staticmethod
    def _resay(words: dict[tuple[str, int], str], said: dict[str, Any], name: str, does: str) -> None:
        """Puts the words that were told into what says a part whole."""
        place = said.get("summary_index", said.get("content_index", 0))
        if does == "delta":
            words[name, place] = words.get((name, place), "") + str(said.get("delta", ""))
        part = said.get("part")
        spoken = str(part.get("type")) if isinstance(part, dict) else name
        spoken = "reasoning_summary_text" if spoken == "summary_text" else spoken
        key = "refusal" if spoken == "refusal" else "text"
        if does == "done" and (spoken, place) in words:
            if isinstance(part, dict):
                said["part"] = {**part, key: words[spoken, place]}
            elif key in said:
                said[key] = words[spoken, place]


def _name(said: dict[str, Any]) -> str:
    """What an event is about: "response.refusal.delta" is about a refusal."""
    return _kind(said).removeprefix("response.").rpartition(".")[0]


def _index(said: dict[str, Any]) -> int:
    """The index of the item that an event is about: some servers leave out the first one's. -1 where it is of none."""
    index = said.get("output_index", 0 if isinstance(said.get("item"), dict) or _name(said) in _SPEAKERS else -1)
    return index if isinstance(index, int) else -1


def _kind(said: dict[str, Any]) -> str:
    kind = said.get("type")
    return kind if isinstance(kind, str) else ""


def _about(said: dict[str, Any], at: int) -> tuple[Any, ...]:
    """What one event is about, and no other of the same answer but the growth of what nobody knows."""
    return (_kind(said), at, *(str(said.get(place)) for place in _PLACES))
