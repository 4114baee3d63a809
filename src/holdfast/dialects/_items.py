"""The items of a Responses answer: what was said of each, and whether what is said of it again is the same.

Every item comes in deltas, then part by part, then whole, then once more in the last event. What comes again is
compared with a length and a checksum, so that no text is kept a second time; where the deltas lacked its end, that is
news. What an event brings counts as said only once all of the event was found right: see `News.delta()`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeVar
from zlib import crc32

import msgspec

from holdfast._errors import DecodeError, IntegrityError
from holdfast._types import Delta, Event, ToolCallDelta, Usage
from holdfast.dialects._halves import Halves, no_halves_in
from holdfast.machines.cursor import Cursor

T = TypeVar("T")


class _Part(msgspec.Struct, gc=False):
    type: str = ""
    text: Any = None
    refusal: Any = None


class ItemHead(msgspec.Struct, gc=False):
    """What an item of any kind says of itself."""

    type: str = ""
    id: str | None = None


class _Message(msgspec.Struct, gc=False):
    """A message, or reasoning: its own words, a summary of them, or neither (they are encrypted)."""

    content: list[_Part] | None = None
    summary: list[_Part] | None = None


class _Call(msgspec.Struct, gc=False):
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    input: str | None = None


CALLS = {"function_call": "arguments", "custom_tool_call": "input"}
"""Items that the program must act on, and what holds their arguments."""
_PARTS = {
    "output_text": ("text", "text"),
    "refusal": ("refusal", "refusal"),
    "reasoning_text": ("reasoning", "text"),
    "summary_text": ("summary", "text"),
}
"""Parts of items: the channel they speak in, and what holds their words."""
MAX_INDEX = 4_096  # items, and parts of one: far more than any answer has


@dataclass(slots=True)
class Item:
    """An item as far as it was said. `said` holds [characters, checksum] of each part, by channel and number.

    A call has a number: it is the `call`-th of the answer. `call_id` and `name` are those that were handed on.
    """

    type: str = ""
    id: str = ""
    told: bool = False
    call: int = -1
    call_id: str = ""
    name: str = ""
    said: dict[str, list[int]] = field(default_factory=dict)


class News:
    """What one event says that was not said before. It counts as said only once all of the event was found right."""

    __slots__ = ("calls", "texts")

    def __init__(self) -> None:
        self.texts: list[tuple[Item, str, str]] = []
        self.calls: list[tuple[Item, str, str]] = []

    def delta(self, event: Event, finish_reason: str | None = None, usage: Usage | None = None) -> Delta:
        """Takes it down as said, and gives it as a delta."""
        said = {"text": "", "refusal": "", "reasoning": "", "summary": ""}
        calls = [ToolCallDelta(item.call, call_id, name) for item, call_id, name in self.calls]
        for item, call_id, name in self.calls:
            item.call_id, item.name = item.call_id or call_id, item.name or name
        for item, part, text in self.texts:
            channel = part.partition(":")[0]
            if channel == "arguments":
                calls.append(ToolCallDelta(item.call, arguments=text))
            else:
                said[channel] += text
            length, check = item.said.get(part, (0, 0))
            item.said[part] = [length + len(text), checksum(text, check)]
        reasoning = said["reasoning"] + said["summary"]
        return Delta(event, said["text"], reasoning, said["refusal"], tuple(calls), finish_reason, usage)


class Items:
    """The items of one answer, `items` being its evidence's. `halves` is there once a character was cut in half."""

    __slots__ = ("_cursor", "halves", "items")

    def __init__(self, items: dict[int, Item], cursor: Cursor) -> None:
        self.items = items
        self.halves: Halves | None = None
        self._cursor = cursor

    def at(self, event: Event, index: int, kind: str, told: ItemHead | None = None) -> Item:
        """The item at a place. Calls are counted in the order in which they come.

        An item that only its deltas told of is what they are wont to belong to, until it is `told` itself.
        """
        items = self.items
        if not 0 <= index < MAX_INDEX:
            raise DecodeError(f"an item is numbered {index}: no answer has that many", offset=event.offset)
        item = items.get(index)
        if item is None:
            item = items[index] = Item(type=kind)
        elif item.type != kind and (told is not None or kind in CALLS) and item.told:
            raise DecodeError(f"item {index} of the response is two things at once", offset=event.offset)
        if told is not None:
            item.type, item.id, item.told = kind, item.id or told.id or "", True
        if item.type in CALLS and item.call < 0:
            item.call = 1 + max(other.call for other in items.values())
        return item

    def tell(self, news: News, event: Event, index: int, raw: Any, *, whole: bool) -> None:
        """What an item says of itself: whose call it is, and once it is done all that its deltas said."""
        item = self.items[index]
        if item.type in CALLS:
            call = convert(raw, _Call, event)
            id_, name = call.call_id or "", call.name or ""
            if self.halves is not None:
                no_halves_in(event, id_, name)
            if (item.call_id and id_ not in ("", item.call_id)) or (item.name and name not in ("", item.name)):
                raise IntegrityError("a tool call was said again", expected="its name and id", actual="others")
            if (id_ and not item.call_id) or (name and not item.name):
                news.calls.append((item, "" if item.call_id else id_, "" if item.name else name))
            arguments = getattr(call, CALLS[item.type])
            if whole and arguments is not None:
                self.whole(news, index, item, "arguments:0", arguments)
        elif whole and item.type in ("message", "reasoning"):
            message = convert(raw, _Message, event)
            for parts, sums_up in ((message.content, False), (message.summary, True)):
                for place, part in enumerate(parts or ()):
                    channel, key = _PARTS.get(part.type, ("", ""))
                    if channel and (channel == "summary") == sums_up:
                        text = string(getattr(part, key), key, event)
                        self.whole(news, index, item, f"{channel}:{place}", text)

    def whole(self, news: News, index: int, item: Item, part: str, text: str) -> None:
        """A part was said whole: its deltas must have been the beginning of it, and what they lacked is news."""
        text = self._mended(text)
        self.flush(news, index, but=part)  # what the half of this one became is in the whole
        length, check = item.said.get(part, (0, 0))
        if len(text) < length or checksum(text[:length]) != check:
            raise IntegrityError(
                "a part of the response was said again, and differs from its deltas",
                expected=f"{len(text)} characters ({checksum(text):08x})",
                actual=f"{length} characters ({check:08x})",
            )
        if len(text) > length:
            news.texts.append((item, part, text[length:]))

    def _mended(self, text: str) -> str:
        """A text that nothing follows: a half character in it stays alone."""
        if self.halves is None:
            return text
        alone = Halves({}, self._cursor)
        return alone.join(0, "", text) + alone.flush(0).get("", "")

    def flush(self, news: News, index: int, *, but: str = "") -> None:
        """Halves in an item that wait for nothing any more."""
        for part, text in self.halves.flush(index).items() if self.halves is not None else ():
            if part != but:
                news.texts.append((self.items[index], part, text))

    def compare(self, news: News, event: Event, output: list[Any]) -> None:
        """The last event says all items again. Each is one that was streamed, or is news.

        Which one is told by its id; some servers draw other ids here (OpenRouter, for reasoning), so the rest are
        paired in order, kind by kind. An empty list says nothing.
        """
        if len(output) > MAX_INDEX:
            raise DecodeError(f"the response has {len(output)} items: no answer has that many", offset=event.offset)
        told = [convert(raw, ItemHead, event) for raw in output]
        if self.halves is not None:
            no_halves_in(event, told)
        places, left = self._paired(told)
        lost = sum(i.type != "reasoning" and any(length for length, _ in i.said.values()) for i in left.values())
        if told and lost:
            raise IntegrityError(
                "the whole response lacks what was streamed of it",
                expected=f"{len(told)} items",
                actual=f"{len(told) + lost}",
            )
        free = 1 + max(self.items, default=-1)
        for at, new in enumerate(told):
            index = places.get(at, free)
            free += at not in places
            self.at(event, index, new.type, new)
            self.tell(news, event, index, output[at], whole=True)
        for index in self.items:
            self.flush(news, index)

    def _paired(self, told: list[ItemHead]) -> tuple[dict[int, int], dict[int, Item]]:
        """Gives where each item that is said again was streamed, if it was, and the items that are not said again."""
        left = dict(sorted(self.items.items()))
        ids = {item.id: index for index, item in left.items() if item.id}
        places: dict[int, int] = {}
        for at, new in enumerate(told):
            index = ids.get(new.id or "", -1)
            if index in left and left[index].type == new.type:
                places[at] = index
                del left[index]
        kinds: dict[str, list[int]] = {}
        for index in reversed(left):
            kinds.setdefault(left[index].type, []).append(index)
        for at, new in enumerate(told):
            if at not in places and kinds.get(new.type):
                places[at] = kinds[new.type].pop()
                del left[places[at]]
        return places, left


def checksum(text: str, before: int = 0) -> int:
    """A running checksum: a plain number, so that it goes to another process with the evidence."""
    return crc32(text.encode("utf-8", "surrogatepass"), before)


def string(value: Any, key: str, event: Event) -> str:
    """Gives what must be text. Raises `DecodeError`."""
    if not isinstance(value, str):
        raise DecodeError(f"the event is not of its dialect: `{key}` is not text", offset=event.offset)
    return value


def convert(value: Any, kind: type[T], event: Event) -> T:
    """Gives JSON values as what they must be. Raises `DecodeError`."""
    wrong = ""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        wrong = str(error)
    except UnicodeError:
        wrong = "half a character stands in a key"
    raise DecodeError(f"the event is not of its dialect: {wrong}", offset=event.offset)
