"""The OpenAI Responses shape, https://platform.openai.com/docs/api-reference/responses-streaming, and who speaks it.

Each event is an `event:` line and a `data:` line of JSON whose `type` says the same; some servers leave the first one
out, so the type alone counts. `sequence_number` goes up by one from 0: a gap is a lost event, and the stream is broken
there. What a response consists of is items (messages, reasoning, calls): each is added, grows by deltas and is said
whole once it is done; the last event says all of them once more. What is said again is compared with the deltas by
length and checksum, and not kept a second time. Where deltas are missing at its end it is their rest, delivered once.

What proves an answer whole is `response.completed`, or `response.incomplete` with its reason. `response.failed`,
`response.cancelled` and `error` are failures; the last comes flat or nested, and `response.failed` may follow it. The
specification knows no `[DONE]`; some servers send one.

Server tools (web search, code, MCP), annotations and events of unknown types pass as empty deltas and stay reachable
in `delta.raw`; a known key of another type is a `DecodeError`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from zlib import crc32

import msgspec

from holdfast._errors import DecodeError, EndOfStream, IntegrityError, StreamBroken, UpstreamError
from holdfast._types import Delta, Event, Head, ToolCallDelta, Usage
from holdfast.dialects._dialect import Evidence
from holdfast.dialects._end import is_done, wrong_with
from holdfast.dialects._halves import Halves, no_halves_in
from holdfast.dialects._wire import decode, error_in, number, plain, upstream_error
from holdfast.machines.cursor import Cursor

T = TypeVar("T")


class _Event(msgspec.Struct, gc=False):
    """Any event; what is `Any` here is something else in an event of another type."""

    type: str = ""
    sequence_number: int | None = None
    output_index: int = 0
    content_index: int = 0
    summary_index: int = 0
    delta: Any = None
    text: Any = None
    refusal: Any = None
    arguments: Any = None
    input: Any = None
    item: Any = None
    response: Any = None
    error: Any = None


class _Part(msgspec.Struct, gc=False):
    type: str = ""
    text: Any = None
    refusal: Any = None


class _Item(msgspec.Struct, gc=False):
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


class _Details(msgspec.Struct, gc=False):
    reason: str | None = None


class _Response(msgspec.Struct, gc=False):
    id: str | None = None
    output: list[Any] | None = None
    usage: dict[str, Any] | None = None
    incomplete_details: _Details | None = None
    error: Any = None


_DECODER = msgspec.json.Decoder(_Event)
_CALLS = {"function_call": "arguments", "custom_tool_call": "input"}
"""Items that the program must act on, and what holds their arguments."""
_PARTS = {
    "output_text": ("text", "text"),
    "refusal": ("refusal", "refusal"),
    "reasoning_text": ("reasoning", "text"),
    "summary_text": ("summary", "text"),
}
"""Parts of items: the channel they speak in, and what holds their words."""
_DELTAS = {
    "response.output_text.delta": ("text", "message"),
    "response.refusal.delta": ("refusal", "message"),
    "response.reasoning_text.delta": ("reasoning", "reasoning"),
    "response.reasoning_summary_text.delta": ("summary", "reasoning"),
    "response.function_call_arguments.delta": ("arguments", "function_call"),
    "response.custom_tool_call_input.delta": ("arguments", "custom_tool_call"),
}
"""Events that bring `delta`: its channel, and the item that speaks in it."""
_WHOLES = {
    "response.output_text.done": ("text", "message", "text"),
    "response.refusal.done": ("refusal", "message", "refusal"),
    "response.reasoning_text.done": ("reasoning", "reasoning", "text"),
    "response.reasoning_summary_text.done": ("summary", "reasoning", "text"),
    "response.function_call_arguments.done": ("arguments", "function_call", "arguments"),
    "response.custom_tool_call_input.done": ("arguments", "custom_tool_call", "input"),
}
"""Events that say a part whole: channel, item, and what holds the words."""
_ENDINGS = ("response.completed", "response.incomplete", "response.failed", "response.cancelled")
_REASONS = {"max_output_tokens": "length"}
"""`incomplete_details.reason` in the word that the chat shape has for it; `content_filter` is the same in both."""
_HOPELESS = ("image", "policy", "residency")
"""Parts of this shape's error codes (`ResponseErrorCode`) that another try does not mend."""
_MAX_INDEX = 4_096  # items, and parts of one: far more than any answer has
_MAX_PARTS = 16_384  # of all items: each is remembered


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


@dataclass(slots=True)
class ResponsesEvidence:
    """What one response has proven: see `Evidence`.

    `sequence` is the number of the last event that was read, `parts` counts what the items have said something in.
    """

    usage: Usage | None = None
    answer_id: str = ""
    finish_reason: str | None = None
    sequence: int = -1
    parts: int = 0
    items: dict[int, Item] = field(default_factory=dict)
    halves: dict[str, int] = field(default_factory=dict)
    """Halves of characters that wait for the other, by item and part: see `Halves`."""

    def restart(self) -> None:
        """Forgets all: what follows is another answer from its beginning."""
        self.usage, self.answer_id, self.finish_reason, self.sequence, self.parts = None, "", None, -1, 0
        self.items.clear()
        self.halves.clear()

    @property
    def complete(self) -> bool:
        """The response was completed, or said why it is not."""
        return self.finish_reason is not None

    @property
    def missing(self) -> str:
        """What is still to come, in words."""
        return "" if self.complete else "response.completed"


class _News:
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
            item.said[part] = [length + len(text), _check(text, check)]
        reasoning = said["reasoning"] + said["summary"]
        return Delta(event, said["text"], reasoning, said["refusal"], tuple(calls), finish_reason, usage)


class ResponsesReader:
    """Turns events of the Responses shape into deltas, and keeps the evidence. See `DeltaReader`.

    With `end_at_done` the answer ends at its last event and not at the end of the body.
    """

    __slots__ = (
        "_begun",
        "_continues",
        "_cursor",
        "_end_at_done",
        "_foreign",
        "_halves",
        "_head",
        "_numbered",
        "_pieces",
        "evidence",
    )

    def __init__(
        self, evidence: ResponsesEvidence, cursor: Cursor, head: Head, *, numbered: bool, end_at_done: bool
    ) -> None:
        self.evidence = evidence
        self._cursor = cursor
        self._head = head
        self._numbered = numbered
        self._end_at_done = end_at_done
        self._continues = cursor.mode == "continue"  # what comes may still have been delivered
        self._begun = False
        self._halves = Halves(evidence.halves, cursor) if evidence.halves else None  # once a character was cut in half
        self._foreign = 0  # events that have nothing of this shape
        self._pieces = 0  # events of this attempt that have

    def feed(self, batch: Sequence[Event], out: list[Delta]) -> None:
        """Appends the deltas of a batch. Raises a `StreamError` for what is wrong, `EndOfStream` at a proven end."""
        fast, evidence = _DECODER.decode, self.evidence
        for event in batch:
            payload = event.payload
            try:
                said = fast(payload)
            except (ValueError, RecursionError):
                if not payload or is_done(payload, evidence, ends=self._end_at_done):
                    continue  # "data:" alone is somebody's ping
                said = decode(_DECODER, event, self._cursor, halves=True)
                self._halves = self._halves or Halves(evidence.halves, self._cursor)
            if said.sequence_number == evidence.sequence + 1 and self._grows(event, said, out):
                continue
            if _is_error(event, said):
                raise _failure(said.error or plain(event), "error")
            if evidence.complete:
                out.append(Delta(event))  # nothing that comes now is of the answer
            elif not self._is_repeated(said, event):
                self._take(event, said, out)

    def _grows(self, event: Event, said: _Event, out: list[Delta]) -> bool:
        """Takes the common event, in its place: more of a part that has begun. It is told apart by what it lacks."""
        spoken, evidence, text = _DELTAS.get(said.type), self.evidence, said.delta
        item = evidence.items.get(said.output_index)
        if spoken is None or item is None or type(text) is not str:
            return False
        channel = spoken[0]
        place = 0 if channel == "arguments" else said.summary_index if channel == "summary" else said.content_index
        known = item.said.get(f"{channel}:{place}")
        if known is None or not self._begun or self._halves is not None or evidence.finish_reason is not None:
            return False
        known[0] += len(text)
        known[1] = crc32(text.encode(), known[1])
        evidence.sequence += 1
        self._continues = False
        self._pieces += 1
        if channel == "text":
            out.append(Delta(event, text))
        elif channel == "arguments":
            out.append(Delta(event, tool_calls=(ToolCallDelta(item.call, arguments=text),)))
        else:
            out.append(Delta(event, refusal=text) if channel == "refusal" else Delta(event, "", text))
        return True

    # -- which event it is -------------------------------------------------------------------------

    def _is_repeated(self, said: _Event, event: Event) -> bool:
        """Says whether an event was delivered before the cut. Raises `StreamBroken` where one is missing before it.

        A response that is read anew begins with an event about it. Where its id is not ours it is another answer.
        """
        evidence, place = self.evidence, said.sequence_number if self._numbered else None
        if not self._begun:
            self._begun = True
            about = said.response
            renamed = isinstance(about, dict) and evidence.answer_id not in ("", about.get("id") or evidence.answer_id)
            if self._continues and (renamed or (place is None and said.type == "response.created")):
                self._cursor.restart()
            if self._cursor.mode == "replay":
                self._continues = False
                evidence.restart()
        if place is None:
            return False
        due = evidence.sequence + 1
        if place < due and self._continues:
            self._cursor.dropped += 1
            return True
        begins = due == 0 and said.response is not None  # a response may be read from its middle on
        if place < 0 or (place != due and not begins):
            raise StreamBroken(f"event {due} of the response is missing: {place} came in its place")
        self._continues = False
        return False

    def _take(self, event: Event, said: _Event, out: list[Delta]) -> None:
        """Any event that is new."""
        kind, news = said.type, _News()
        self._pieces += kind.startswith("response.")
        self._foreign += not kind.startswith("response.")
        if kind in _DELTAS:
            channel, speaker = _DELTAS[kind]
            text, part = _string(said.delta, "delta", event), _part(event, channel, said)
            item = self._item(event, said.output_index, speaker)
            if self._halves is not None:
                text = self._halves.join(said.output_index, part, text)
            news.texts.append((item, part, text))
        elif kind in _WHOLES:
            channel, speaker, key = _WHOLES[kind]
            text, part = _string(getattr(said, key), key, event), _part(event, channel, said)
            self._whole(news, said.output_index, self._item(event, said.output_index, speaker), part, text)
        elif kind in ("response.output_item.added", "response.output_item.done"):
            told = _convert(said.item, _Item, event)
            if self._halves is not None:
                no_halves_in(event, told.type, told.id)
            self._item(event, said.output_index, told.type, told)
            self._said_of(news, event, said.output_index, said.item, whole=kind.endswith("done"))
        elif kind in _ENDINGS or (said.response is not None and kind.startswith("response.")):
            self._take_response(event, said, news, out)
            return
        out.append(self._deliver(event, said, news))

    def _deliver(
        self, event: Event, said: _Event, news: _News, finish_reason: str | None = None, usage: Usage | None = None
    ) -> Delta:
        """All of the event was found right: from here on it is known."""
        self.evidence.parts += sum(part not in item.said for item, part, _ in news.texts)
        if self.evidence.parts > _MAX_PARTS:
            raise DecodeError("the response has more parts than any answer has", offset=event.offset)
        if said.sequence_number is not None:
            self.evidence.sequence = said.sequence_number
        return news.delta(event, finish_reason, usage)

    # -- items -------------------------------------------------------------------------------------

    def _item(self, event: Event, index: int, kind: str, told: _Item | None = None) -> Item:
        """The item at a place. Calls are counted in the order in which they come.

        An item that only its deltas told of is what they are wont to belong to, until it is `told` itself.
        """
        items = self.evidence.items
        if not 0 <= index < _MAX_INDEX:
            raise DecodeError(f"an item is numbered {index}: no answer has that many", offset=event.offset)
        item = items.get(index)
        if item is None:
            item = items[index] = Item(type=kind)
        elif item.type != kind and (told is not None or kind in _CALLS) and item.told:
            raise DecodeError(f"item {index} of the response is two things at once", offset=event.offset)
        if told is not None:
            item.type, item.id, item.told = kind, item.id or told.id or "", True
        if item.type in _CALLS and item.call < 0:
            item.call = 1 + max(other.call for other in items.values())
        return item

    def _said_of(self, news: _News, event: Event, index: int, raw: Any, *, whole: bool) -> None:
        """What an item says of itself: whose call it is, and once it is done all that its deltas said."""
        item = self.evidence.items[index]
        if item.type in _CALLS:
            call = _convert(raw, _Call, event)
            id_, name = call.call_id or "", call.name or ""
            if self._halves is not None:
                no_halves_in(event, id_, name)
            if (item.call_id and id_ not in ("", item.call_id)) or (item.name and name not in ("", item.name)):
                raise IntegrityError("a tool call was said again", expected="its name and id", actual="others")
            if (id_ and not item.call_id) or (name and not item.name):
                news.calls.append((item, "" if item.call_id else id_, "" if item.name else name))
            arguments = getattr(call, _CALLS[item.type])
            if whole and arguments is not None:
                self._whole(news, index, item, "arguments:0", arguments)
        elif whole and item.type in ("message", "reasoning"):
            message = _convert(raw, _Message, event)
            for parts in (message.content, message.summary):
                for place, part in enumerate(parts or ()):
                    channel, key = _PARTS.get(part.type, ("", ""))
                    if channel:
                        text = _string(getattr(part, key), key, event)
                        self._whole(news, index, item, f"{channel}:{place}", text)

    def _whole(self, news: _News, index: int, item: Item, part: str, text: str) -> None:
        """A part was said whole: its deltas must have been the beginning of it, and what they lacked is news."""
        text = self._mended(text)
        self._flush(news, index, but=part)  # what the half of this one became is in the whole
        length, check = item.said.get(part, (0, 0))
        if len(text) < length or _check(text[:length]) != check:
            raise IntegrityError(
                "a part of the response was said again, and differs from its deltas",
                expected=f"{len(text)} characters ({_check(text):08x})",
                actual=f"{length} characters ({check:08x})",
            )
        if len(text) > length:
            news.texts.append((item, part, text[length:]))

    def _mended(self, text: str) -> str:
        """A text that nothing follows: a half character in it stays alone."""
        if self._halves is None:
            return text
        alone = Halves({}, self._cursor)
        return alone.join(0, "", text) + alone.flush(0).get("", "")

    def _flush(self, news: _News, index: int, *, but: str = "") -> None:
        """Halves in an item that wait for nothing any more."""
        for part, text in self._halves.flush(index).items() if self._halves is not None else ():
            if part != but:
                news.texts.append((self.evidence.items[index], part, text))

    # -- the response itself -----------------------------------------------------------------------

    def _take_response(self, event: Event, said: _Event, news: _News, out: list[Delta]) -> None:
        """An event about the response as a whole: how it goes, and in the end all of it once more."""
        evidence, ending = self.evidence, said.type.removeprefix("response.")
        response = _convert({} if said.response is None else said.response, _Response, event)
        if self._halves is not None:
            no_halves_in(event, response.id, response.usage, response.incomplete_details)
        finish = None
        if ending in ("completed", "incomplete"):
            self._compare(news, event, response.output or [])
            finish = self._reason(ending, response.incomplete_details)
        usage = _usage(response.usage) if response.usage else None
        if usage == evidence.usage:
            usage = None  # said again, it is no news
        evidence.usage = usage or evidence.usage
        evidence.answer_id = evidence.answer_id or response.id or ""
        if ending in ("failed", "cancelled"):
            evidence.answer_id = ""  # it is over: there is nothing to read on, or to stop
        if ending == "failed":
            raise _failure(response.error, "response.failed")
        if ending == "cancelled":
            raise UpstreamError("the response was cancelled", code="cancelled", retryable=False)
        out.append(self._deliver(event, said, news, finish, usage))
        evidence.finish_reason = finish
        if finish is not None and self._end_at_done:
            raise EndOfStream

    def _reason(self, ending: str, details: _Details | None) -> str:
        """Why the answer ended, in the field's common words; one that has none stays the provider's."""
        if ending == "incomplete":
            reason = (details.reason if details is not None else None) or ending
            return _REASONS.get(reason, reason)
        return "tool_calls" if any(item.call >= 0 for item in self.evidence.items.values()) else "stop"

    def _compare(self, news: _News, event: Event, output: list[Any]) -> None:
        """The last event says all items again. Each is one that was streamed, or is news.

        Which one is told by its id; some servers draw other ids here (OpenRouter, for reasoning), so the rest are
        paired in order, kind by kind. An empty list says nothing.
        """
        told = [_convert(raw, _Item, event) for raw in output]
        if self._halves is not None:
            no_halves_in(event, told)
        left = dict(sorted(self.evidence.items.items()))
        places: dict[int, int] = {}
        for by_id in (True, False):
            for at, new in enumerate(told):
                same = (n for n, i in left.items() if i.type == new.type and (not by_id or i.id == new.id != ""))
                found = None if at in places else next(same, None)
                if found is not None:
                    places[at] = found
                    del left[found]
        lost = [i for i in left.values() if i.type != "reasoning" and any(length for length, _ in i.said.values())]
        if told and lost:
            many = len(told)
            raise IntegrityError(
                "the whole response lacks what was streamed of it",
                expected=f"{many} items",
                actual=f"{many + len(lost)}",
            )
        for at, new in enumerate(told):
            index = places.get(at, 1 + max(self.evidence.items, default=-1))
            self._item(event, index, new.type, new)
            self._said_of(news, event, index, output[at], whole=True)
        for index in self.evidence.items:
            self._flush(news, index)

    def end(self, out: list[Delta]) -> None:
        """The body ended cleanly. Raises `Truncated`, `NotAStream` or `UpstreamError` when the answer is unproven."""
        wrong = wrong_with(
            self._cursor,
            self._head,
            error_in,
            missing=self.evidence.missing,
            pieces=self._pieces,
            foreign=self._foreign,
            kind="a Responses answer",
        )
        if wrong is not None:
            raise wrong


def _check(text: str, before: int = 0) -> int:
    """A running checksum: a plain number, so that it goes to another process with the evidence."""
    return crc32(text.encode("utf-8", "surrogatepass"), before)


def _part(event: Event, channel: str, said: _Event) -> str:
    """Names a part of an item: its channel, and its number there."""
    place = 0 if channel == "arguments" else said.summary_index if channel == "summary" else said.content_index
    if not 0 <= place < _MAX_INDEX:
        raise DecodeError(f"a part is numbered {place}: no item has that many", offset=event.offset)
    return f"{channel}:{place}"


def _string(value: Any, key: str, event: Event) -> str:
    if not isinstance(value, str):
        raise DecodeError(f"the event is not of its dialect: `{key}` is not text", offset=event.offset)
    return value


def _convert(value: Any, kind: type[T], event: Event) -> T:
    wrong = ""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        wrong = str(error)
    except UnicodeError:
        wrong = "half a character stands in a key"
    raise DecodeError(f"the event is not of its dialect: {wrong}", offset=event.offset)


def _is_error(event: Event, said: _Event) -> bool:
    kind = said.type
    return kind == "error" or (not kind and event.type == "error") or (bool(said.error) and kind[:9] != "response.")


def _failure(error: Any, kind: str) -> UpstreamError:
    if isinstance(error, dict) and error.get("type") == "error":
        error = {key: value for key, value in error.items() if key != "type"}  # flat: the type is the event's
    failure = upstream_error(error, kind=kind)
    if any(part in failure.code for part in _HOPELESS):
        failure.retryable = False
    return failure


def _usage(raw: dict[str, Any]) -> Usage:
    given, answered = raw.get("input_tokens_details"), raw.get("output_tokens_details")
    return Usage(
        input_tokens=number(raw, "input_tokens"),
        output_tokens=number(raw, "output_tokens"),
        total_tokens=number(raw, "total_tokens"),
        cached_tokens=number(given, "cached_tokens"),
        cache_write_tokens=number(given, "cache_write_tokens"),
        reasoning_tokens=number(answered, "reasoning_tokens"),
        raw=raw,
    )


@dataclass(slots=True, frozen=True, kw_only=True)
class ResponsesWire:
    """The Responses shape as one kind of server speaks it: see `Wire`."""

    numbered: bool = True
    """True where `sequence_number` counts without a gap; some gateways write any number there."""
    unnumbered: tuple[bytes, ...] = (b"[DONE]", b'{"error"', b'{"type":"error"', b'{"type": "error"')

    def prepare(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Asks for a stream; usage comes with its last event."""
        return {**body, "stream": True}

    def reader(
        self,
        body: Mapping[str, Any] | None,
        cursor: Cursor,
        evidence: Evidence | None = None,
        *,
        head: Head | None = None,
        end_at_done: bool = True,
    ) -> ResponsesReader:
        """Gives the machine of one attempt; `evidence` is that of the attempt which it continues exactly."""
        if not isinstance(evidence, ResponsesEvidence):
            evidence = ResponsesEvidence()
        return ResponsesReader(
            evidence, cursor, head or Head(status=0), numbered=self.numbered, end_at_done=end_at_done
        )

    def revive(self, state: Mapping[str, Any]) -> Evidence:
        """Makes the evidence that was taken down."""
        return msgspec.convert(state, ResponsesEvidence, str_keys=True)

    def error_in(self, body: bytes) -> UpstreamError | None:
        """Recognises a bare error document."""
        return error_in(body)

    def recognises(self, event: Event) -> bool:
        """Types that begin with `response.` are of no other shape."""
        value = plain(event)
        kind = value.get("type") if isinstance(value, dict) else None
        return isinstance(kind, str) and kind.startswith("response.")

    def asks_json(self, body: Mapping[str, Any]) -> Mapping[str, Any] | bool:
        """`text.format`."""
        text = body.get("text")
        wanted = text.get("format") if isinstance(text, Mapping) else None
        if not isinstance(wanted, Mapping):
            return False
        schema = wanted.get("schema")
        if wanted.get("type") == "json_schema":
            return schema if isinstance(schema, Mapping) else True
        return wanted.get("type") == "json_object"
