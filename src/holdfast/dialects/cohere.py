"""Cohere, https://docs.cohere.com/v2/docs/streaming: POST /v2/chat with `stream: true`.

Events say their name in `type` and in the SSE event name: `message-start`; for each block of the answer
`content-start`, `content-delta` (text, or the thinking of a reasoning model), `content-end`; before calls
`tool-plan-delta`, in which the model says what it is about to do, which is reasoning; for each call `tool-call-start`
with id and name, `tool-call-delta` with pieces of its arguments, `tool-call-end`; `citation-start` and `-end`, which
stay in `delta.raw`; `message-end` with the finish reason and the usage; then `[DONE]`.

What proves an answer whole is the finish reason: COMPLETE, STOP_SEQUENCE, MAX_TOKENS, TOOL_CALL. ERROR and TIMEOUT
(cohere-python, `ChatFinishReason`) say that the server gave up, ERROR_TOXIC and ERROR_LIMIT of the older API that the
same request would end so again; `delta.error` has the words. A refused request is answered with `{"message": ...}`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec

from holdfast._errors import DecodeError, UpstreamError
from holdfast._types import Delta, Event, Head, ToolCallDelta, Usage
from holdfast.dialects._dialect import Dialect, Evidence, Timeouts
from holdfast.dialects._end import is_done, wrong_with
from holdfast.dialects._halves import Halves, no_halves_in
from holdfast.dialects._tell_cohere import CohereTeller
from holdfast.dialects._wire import decode, number, plain, upstream_error
from holdfast.machines.cursor import Cursor


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct, gc=False):
    id: str | None = None
    function: _Function | None = None


class _Content(msgspec.Struct, gc=False):
    text: str | None = None
    thinking: str | None = None


_Nothing = Annotated[list[Any], msgspec.Meta(max_length=0)]


class _Message(msgspec.Struct, gc=False):
    """Lists stand here only in `message-start`, and are empty."""

    content: _Content | _Nothing | None = None
    tool_plan: str | None = None
    tool_calls: _ToolCall | _Nothing | None = None


class _Delta(msgspec.Struct, gc=False):
    message: _Message | None = None
    finish_reason: str | None = None
    error: str | None = None
    usage: dict[str, Any] | None = None


class _Event(msgspec.Struct, gc=False):
    type: str | None = None
    id: str | None = None
    index: int = 0
    delta: _Delta | None = None
    error: Any = None
    message: Any = None


_DECODER = msgspec.json.Decoder(_Event)
_GAVE_UP = {"ERROR": True, "TIMEOUT": True, "ERROR_TOXIC": False, "ERROR_LIMIT": False}
"""Finish reasons that are no end, and whether another try may help."""
_FAMILY = ("message-", "content-", "tool-", "citation-", "debug")
_MAX_CALLS = 1_000


@dataclass(slots=True)
class CohereEvidence:
    """What one answer has proven: see `Evidence`. It also knows which calls have been named."""

    usage: Usage | None = None
    answer_id: str = ""
    finish_reason: str | None = None
    begun: bool = False
    named: set[int] = field(default_factory=set)
    halves: dict[str, int] = field(default_factory=dict)
    """What waits for the other half of a character: see `Halves`."""

    def restart(self) -> None:
        """Forgets all: what follows is another answer from its beginning."""
        self.usage, self.answer_id, self.finish_reason, self.begun = None, "", None, False
        self.named.clear()
        self.halves.clear()

    @property
    def complete(self) -> bool:
        """A finish reason came."""
        return self.finish_reason is not None

    @property
    def missing(self) -> str:
        """What is still to come, in words."""
        return "" if self.complete else "the finish_reason of message-end"


class CohereReader:
    """Turns events into deltas, and keeps the evidence. See `DeltaReader`."""

    __slots__ = ("_cursor", "_end_at_done", "_foreign", "_halves", "_head", "_pieces", "_unchecked", "evidence")

    def __init__(self, evidence: CohereEvidence, cursor: Cursor, head: Head, *, end_at_done: bool = True) -> None:
        self.evidence = evidence
        self._cursor = cursor
        self._head = head
        self._end_at_done = end_at_done
        self._unchecked = cursor.mode == "continue"
        self._halves = Halves(evidence.halves, cursor) if evidence.halves else None  # once a character was cut in half
        self._foreign = 0
        self._pieces = 0

    def feed(self, batch: Sequence[Event], out: list[Delta]) -> None:
        """Appends the deltas of a batch. Raises `UpstreamError`, `DecodeError`, `Truncated`."""
        for event in batch:
            payload = event.payload
            if not payload or is_done(payload, self.evidence, ends=self._end_at_done):
                continue
            try:
                said = _DECODER.decode(payload)
            except (ValueError, RecursionError):
                said = decode(_DECODER, event, self._cursor, halves=True)
                self._expect_halves(event, said)
            delta = self._take(event, said)
            if self._halves is not None:
                self._halves.mend(delta, last=self.evidence.complete)
            out.append(delta)

    def _expect_halves(self, event: Event, said: _Event) -> None:
        """Joins texts from here on; nothing else may come in halves."""
        end = said.delta or _Delta()
        calls = end.message.tool_calls if end.message is not None else None
        call = calls if isinstance(calls, _ToolCall) else _ToolCall()
        name = call.function.name if call.function is not None else None
        no_halves_in(event, said.id, call.id, name, end.finish_reason, end.usage)
        self._halves = self._halves or Halves(self.evidence.halves, self._cursor)

    def _take(self, event: Event, said: _Event) -> Delta:
        name = said.type or event.type
        if said.error or name == "error":
            raise upstream_error(said.error or plain(event), kind="error")
        known = name.startswith(_FAMILY)
        self._pieces += known
        self._foreign += not known
        if self._unchecked and known:
            self._check_start(name)
        message = (said.delta.message if said.delta is not None else None) or _Message()
        if name == "message-start":
            if self.evidence.begun:
                raise DecodeError("the events are out of order: message-start came twice", offset=event.offset)
            self.evidence.begun = True
            self.evidence.answer_id = self.evidence.answer_id or said.id or ""
        elif name in ("content-start", "content-delta") and isinstance(message.content, _Content):
            return Delta(event, message.content.text or "", message.content.thinking or "")
        elif name == "tool-plan-delta":
            return Delta(event, reasoning=message.tool_plan or "")
        elif name in ("tool-call-start", "tool-call-delta") and isinstance(message.tool_calls, _ToolCall):
            return self._call(event, said.index, message.tool_calls)
        elif name == "message-end" and said.delta is not None:
            return self._ended(event, said.delta)
        return Delta(event)

    def _check_start(self, name: str) -> None:
        """A continuation does not begin a message that had begun."""
        self._unchecked = False
        if name == "message-start" and self.evidence.begun:
            self._cursor.restart()
        if self._cursor.mode == "replay":
            self.evidence.restart()
            self._halves = self._halves and Halves(self.evidence.halves, self._cursor)

    def _call(self, event: Event, index: int, call: _ToolCall) -> Delta:
        if not 0 <= index < _MAX_CALLS:
            raise DecodeError(f"a tool call is numbered {index}: no model asks for that", offset=event.offset)
        function, id_, name = call.function or _Function(), "", ""
        if index not in self.evidence.named:
            id_, name = call.id or "", function.name or ""
            if name:
                self.evidence.named.add(index)
        return Delta(event, tool_calls=(ToolCallDelta(index, id_, name, function.arguments or ""),))

    def _ended(self, event: Event, said: _Delta) -> Delta:
        evidence, reason, usage = self.evidence, said.finish_reason or None, None
        if said.usage and (evidence.usage is None or evidence.usage.raw != said.usage):
            usage = evidence.usage = _usage(said.usage)
        if said.error or reason in _GAVE_UP:
            failure = upstream_error({"code": reason, "message": said.error or "the server gave up"})
            failure.retryable = _GAVE_UP.get(reason or "", True)
            raise failure
        if evidence.complete:
            reason = None
        evidence.finish_reason = evidence.finish_reason or reason
        return Delta(event, finish_reason=reason, usage=usage)

    def end(self, out: list[Delta]) -> None:
        """The body ended cleanly. Raises `Truncated`, `NotAStream` or `UpstreamError` when the answer is unproven."""
        wrong = wrong_with(
            self._cursor,
            self._head,
            _error_in,
            missing=self.evidence.missing,
            pieces=self._pieces,
            foreign=self._foreign,
            kind="a Cohere answer",
        )
        if wrong is not None:
            raise wrong


def _error_in(body: bytes) -> UpstreamError | None:
    """A document with a `message` in words; that of an answer is an object."""
    value = plain(Event(body))
    if not isinstance(value, dict):
        return None
    if value.get("error"):
        return upstream_error(value["error"])
    return upstream_error(value) if isinstance(value.get("message"), str) else None


def _usage(raw: dict[str, Any]) -> Usage:
    """`tokens` is what the model read and wrote; `billed_units`, which leaves out what Cohere added, stays in `raw`."""
    tokens = raw.get("tokens")
    tokens = tokens if isinstance(tokens, dict) else {}
    asked, answered = _count(tokens.get("input_tokens")), _count(tokens.get("output_tokens"))
    return Usage(
        input_tokens=asked,
        output_tokens=answered,
        total_tokens=None if asked is None or answered is None else asked + answered,
        cached_tokens=_count(raw.get("cached_tokens")),
        raw=raw,
    )


def _counted(usage: Usage) -> dict[str, Any]:
    """The same in Cohere's names: as it came, or with the sums over several requests."""
    if _usage(usage.raw) == usage:
        return usage.raw
    sums = {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}
    told = usage.raw.get("tokens")
    told = told if isinstance(told, dict) else {}
    tokens = {**told, **{name: value for name, value in sums.items() if value is not None}}
    cached = {} if usage.cached_tokens is None else {"cached_tokens": usage.cached_tokens}
    return {**usage.raw, "tokens": tokens, **cached}


def _count(value: Any) -> int | None:
    """Cohere's schema has all numbers as floats."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return number({"count": value}, "count")


@dataclass(slots=True, frozen=True, kw_only=True)
class CohereWire:
    """The shape of Cohere's chat: see `Wire`."""

    unnumbered: tuple[bytes, ...] = (b"[DONE]", b'{"error"', b'{"type":"error"')

    def question(self, prompt: str, system: str = "") -> dict[str, Any]:
        """A turn of the user's; the system's comes before it."""
        said = [{"role": "system", "content": system}] if system else []
        return {"messages": [*said, {"role": "user", "content": prompt}]}

    def prepare(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Asks for a stream; usage comes by itself."""
        return {**body, "stream": True}

    def reader(
        self,
        body: Mapping[str, Any] | None,
        cursor: Cursor,
        evidence: Evidence | None = None,
        *,
        head: Head | None = None,
        end_at_done: bool = True,
    ) -> CohereReader:
        """Gives the machine of one attempt; `evidence` is that of the attempt which it continues exactly."""
        if not isinstance(evidence, CohereEvidence):
            evidence = CohereEvidence()
        return CohereReader(evidence, cursor, head or Head(status=0), end_at_done=end_at_done)

    def revive(self, state: Mapping[str, Any]) -> Evidence:
        """Makes the evidence that was taken down."""
        return msgspec.convert(state, CohereEvidence, str_keys=True)

    def error_in(self, body: bytes) -> UpstreamError | None:
        """Recognises a bare error document."""
        return _error_in(body)

    def recognises(self, event: Event) -> bool:
        """Names with a hyphen are nobody else's: Anthropic and OpenAI write theirs with underscores and dots."""
        value = plain(event)
        name = value.get("type") if isinstance(value, dict) else None
        return isinstance(name, str) and name.startswith(("message-", "content-", "tool-call-", "tool-plan-"))

    def asks_json(self, body: Mapping[str, Any]) -> Mapping[str, Any] | bool:
        """`response_format: {"type": "json_object", "json_schema": ...}`; the schema is optional."""
        wanted = body.get("response_format")
        if not isinstance(wanted, Mapping) or wanted.get("type") != "json_object":
            return False
        schema = wanted.get("json_schema")
        return schema if isinstance(schema, Mapping) else True

    def teller(self) -> CohereTeller:
        """Gives the machine that passes one answer on as one stream of this shape."""
        return CohereTeller(_counted)


COHERE = Dialect(
    name="cohere",
    wire=CohereWire(),
    base_url="https://api.cohere.com",
    path="/v2/chat",
    hosts=("api.cohere.com", "api.cohere.ai"),
    key_variable="CO_API_KEY",
    timeouts=Timeouts(open=120, first_token=300, progress=60, total=3600),
)
