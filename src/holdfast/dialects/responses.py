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
from typing import Any
from zlib import crc32

import msgspec

from holdfast._errors import DecodeError, EndOfStream, NotAStream, StreamBroken, UpstreamError
from holdfast._types import Delta, Event, Head, ToolCallDelta, Usage
from holdfast.dialects._dialect import Evidence
from holdfast.dialects._end import is_done, wrong_with
from holdfast.dialects._halves import Halves, no_halves_in
from holdfast.dialects._items import MAX_INDEX, Item, ItemHead, Items, News, convert, string
from holdfast.dialects._tell_responses import ResponsesTeller
from holdfast.dialects._wire import decode, error_in, number, plain, upstream_error
from holdfast.machines.cursor import Cursor


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


class _Details(msgspec.Struct, gc=False):
    reason: str | None = None


class _Response(msgspec.Struct, gc=False):
    id: str | None = None
    output: list[Any] | None = None
    usage: dict[str, Any] | None = None
    incomplete_details: _Details | None = None
    error: Any = None


_DECODER = msgspec.json.Decoder(_Event)
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
_MAX_PARTS = 16_384  # of all items: each is remembered


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
        "_head",
        "_items",
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
        self._items = Items(evidence.items, cursor)
        if evidence.halves:
            self._items.halves = Halves(evidence.halves, cursor)
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
                self._items.halves = self._items.halves or Halves(evidence.halves, self._cursor)
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
        if known is None or not self._begun or self._items.halves is not None or evidence.finish_reason is not None:
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
            unnumbered = self._numbered and place is None and evidence.sequence >= 0 and said.type[:9] == "response."
            renamed = isinstance(about, dict) and evidence.answer_id not in ("", about.get("id") or evidence.answer_id)
            # Under its own id, too, an answer from its beginning is no continuation: its words may be others.
            if self._continues and self._is_of_another_item(said, event):
                raise NotAStream("the server was to go on in its response, and went on in another", retryable=False)
            if self._continues and (renamed or unnumbered or said.type == "response.created"):
                self._cursor.restart()
            if self._cursor.mode == "replay":
                self._continues = False
                evidence.restart()
                self._items.halves = self._items.halves and Halves(evidence.halves, self._cursor)
        elif place is None and said.type == "response.created" and evidence.parts:
            raise StreamBroken("a response began in the middle of another")
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

    def _is_of_another_item(self, said: _Event, event: Event) -> bool:
        """Says whether an event names an item of which another one stands at its place. Asked once an attempt."""
        value, item = plain(event), self.evidence.items.get(said.output_index)
        name = value.get("item_id") if isinstance(value, dict) else None
        return item is not None and item.id != "" and isinstance(name, str) and name not in ("", item.id)

    def _take(self, event: Event, said: _Event, out: list[Delta]) -> None:
        """Any event that is new."""
        kind, news, items = said.type, News(), self._items
        self._pieces += kind.startswith("response.")
        self._foreign += not kind.startswith("response.")
        if kind in _DELTAS:
            channel, speaker = _DELTAS[kind]
            text, part = string(said.delta, "delta", event), _part(event, channel, said)
            item = items.at(event, said.output_index, speaker)
            if items.halves is not None:
                text = items.halves.join(said.output_index, part, text)
            news.texts.append((item, part, text))
        elif kind in _WHOLES:
            channel, speaker, key = _WHOLES[kind]
            text, part = string(getattr(said, key), key, event), _part(event, channel, said)
            items.whole(news, said.output_index, items.at(event, said.output_index, speaker), part, text)
        elif kind in ("response.output_item.added", "response.output_item.done"):
            told = convert(said.item, ItemHead, event)
            if items.halves is not None:
                no_halves_in(event, told.type, told.id)
            items.at(event, said.output_index, told.type, told)
            items.tell(news, event, said.output_index, said.item, whole=kind.endswith("done"))
        elif kind in _ENDINGS or (said.response is not None and kind.startswith("response.")):
            self._take_response(event, said, news, out)
            return
        out.append(self._deliver(event, said, news))

    def _deliver(
        self, event: Event, said: _Event, news: News, finish_reason: str | None = None, usage: Usage | None = None
    ) -> Delta:
        """All of the event was found right: from here on it is known."""
        self.evidence.parts += sum(part not in item.said for item, part, _ in news.texts)
        if self.evidence.parts > _MAX_PARTS:
            raise DecodeError("the response has more parts than any answer has", offset=event.offset)
        if said.sequence_number is not None:
            self.evidence.sequence = said.sequence_number
        return news.delta(event, finish_reason, usage)

    # -- the response itself -----------------------------------------------------------------------

    def _take_response(self, event: Event, said: _Event, news: News, out: list[Delta]) -> None:
        """An event about the response as a whole: how it goes, and in the end all of it once more."""
        evidence, ending = self.evidence, said.type.removeprefix("response.")
        response = convert({} if said.response is None else said.response, _Response, event)
        if self._items.halves is not None:
            no_halves_in(event, response.id, response.usage, response.incomplete_details)
        finish = None
        if ending in ("completed", "incomplete"):
            self._items.compare(news, event, response.output or [])
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


def _part(event: Event, channel: str, said: _Event) -> str:
    """Names a part of an item: its channel, and its number there."""
    place = 0 if channel == "arguments" else said.summary_index if channel == "summary" else said.content_index
    if not 0 <= place < MAX_INDEX:
        raise DecodeError(f"a part is numbered {place}: no item has that many", offset=event.offset)
    return f"{channel}:{place}"


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

    def question(self, prompt: str, system: str = "") -> dict[str, Any]:
        """The prompt as it is, and the system's as instructions."""
        return {**({"instructions": system} if system else {}), "input": prompt}

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

    def teller(self) -> ResponsesTeller:
        """Another response's events inside the first one."""
        return ResponsesTeller()
