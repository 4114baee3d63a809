"""The Anthropic Messages shape, https://platform.claude.com/docs/en/build-with-claude/streaming, and who speaks it.

`message_start`, then block after block (`content_block_start`, deltas, `content_block_stop`; `index` counts them from
0), then `message_delta` with the `stop_reason`, then `message_stop`; `ping` anywhere. There are no event ids and there
is nothing to resume, but there is an order: what breaks it (a delta for a block that never began, a block left out) is
a `DecodeError`.

What proves an answer whole is the `stop_reason` once each block has ended: nothing of an answer can follow it, and its
usage came with it. `message_stop` is the end mark, as `[DONE]` is of the chat shape: without a `stop_reason` it proves
nothing, and where only it was cut off nothing is missing, so nothing is asked for, and paid, again. `pause_turn` ends
a whole answer, too: the server's tools took long, and the program may send the turn back to have it gone on with.

Text, thinking and the input of `tool_use` are the answer. What the server runs itself (`server_tool_use`,
`mcp_tool_use` and their results), citations, signatures and redacted thinking pass as empty deltas and stay reachable
in `delta.raw`; a known key of another type is a `DecodeError`. Usage comes in two halves and is cumulative: what
`message_delta` says replaces what `message_start` said. `input_tokens` there leaves out what was read from a cache or
written to one.

An `error` event may come after status 200 (https://platform.claude.com/docs/en/api/errors): its type, and not the
status, says whether another try may help (`overloaded_error`, `api_error`, `rate_limit_error`, `timeout_error`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from holdfast._errors import DecodeError, EndOfStream, Truncated, UpstreamError
from holdfast._types import Delta, Event, Head, ToolCallDelta, Usage
from holdfast.dialects._dialect import Evidence
from holdfast.dialects._end import is_done, wrong_with
from holdfast.dialects._halves import Halves, no_halves_in
from holdfast.dialects._tell_messages import MessagesTeller
from holdfast.dialects._wire import decode, error_in, number, plain, upstream_error
from holdfast.machines.cursor import Cursor


class _Message(msgspec.Struct, gc=False):
    id: str | None = None
    usage: dict[str, Any] | None = None


class _Block(msgspec.Struct, gc=False):
    """How a block begins; what is `Any` here is something else in a block of another type."""

    type: str = ""
    text: Any = None
    thinking: Any = None
    id: Any = None
    name: Any = None
    input: Any = None


class _Delta(msgspec.Struct, gc=False):
    """What a block or, without a type, the message gains."""

    type: str = ""
    text: Any = None
    thinking: Any = None
    partial_json: Any = None
    stop_reason: str | None = None


class _Event(msgspec.Struct, gc=False):
    type: str = ""
    index: int = -1
    message: _Message | None = None
    content_block: _Block | None = None
    delta: _Delta | None = None
    usage: dict[str, Any] | None = None
    error: Any = None


_DECODER = msgspec.json.Decoder(_Event)
_BLOCKS = ("content_block_start", "content_block_delta", "content_block_stop")
_MAX_COUNTS = 256  # keys of a usage, which grows by what each event says: each costs all of them
_LIMIT = 4096
"""The tokens allowed to the answer of a simple question: the shape has no request without a limit."""
_OURS = frozenset(["message_start", *_BLOCKS, "message_delta", "message_stop"])


@dataclass(slots=True)
class Block:
    """The block that is being said. `call` is the number of the tool call that it is; `input` came at its beginning."""

    type: str = ""
    call: int = -1
    input: str = ""


@dataclass(slots=True)
class MessagesEvidence:
    """What one message has proven: see `Evidence`. So many `blocks` and `calls` began; the last block may be `open`."""

    usage: Usage | None = None
    answer_id: str = ""
    finish_reason: str | None = None
    begun: bool = False
    blocks: int = 0
    calls: int = 0
    open: Block | None = None
    halves: dict[str, int] = field(default_factory=dict)
    """Halves of characters that wait for the other, by block and channel: see `Halves`."""

    def restart(self) -> None:
        """Forgets all: what follows is another answer from its beginning."""
        self.usage, self.answer_id, self.finish_reason = None, "", None
        self.begun, self.blocks, self.calls, self.open = False, 0, 0, None
        self.halves.clear()

    @property
    def complete(self) -> bool:
        """The message said why it stopped, and no block is left open."""
        return self.finish_reason is not None and self.open is None

    @property
    def missing(self) -> str:
        """What is still to come, in words."""
        if self.complete:
            return ""
        return "a stop_reason" if self.open is None else f"the end of content block {self.blocks - 1}"


class MessagesReader:
    """Turns events of the Messages shape into deltas, and keeps the evidence. See `DeltaReader`."""

    __slots__ = (
        "_begun",
        "_continues",
        "_cursor",
        "_end_at_done",
        "_foreign",
        "_halves",
        "_head",
        "_pieces",
        "evidence",
    )

    def __init__(self, evidence: MessagesEvidence, cursor: Cursor, head: Head, *, end_at_done: bool = True) -> None:
        self.evidence = evidence
        self._cursor = cursor
        self._head = head
        self._end_at_done = end_at_done
        self._continues = cursor.mode == "continue"
        self._begun = False  # an event of this attempt has been one of the shape
        self._halves = Halves(evidence.halves, cursor) if evidence.halves else None  # once a character was cut in half
        self._foreign = 0  # events that have nothing of this shape
        self._pieces = 0  # events of this attempt that have

    def feed(self, batch: Sequence[Event], out: list[Delta]) -> None:
        """Appends the deltas of a batch. Raises a `StreamError` for what is wrong, `EndOfStream` at a proven end."""
        fast = _DECODER.decode
        for event in batch:
            payload = event.payload
            try:
                said = fast(payload)
            except (ValueError, RecursionError):
                if not payload or is_done(payload, self.evidence, ends=self._end_at_done):
                    continue  # "data:" alone is somebody's ping, `[DONE]` some gateway's habit
                said = decode(_DECODER, event, self._cursor, halves=True)
                self._halves = self._halves or Halves(self.evidence.halves, self._cursor)
            out.append(self._take(event, said))
            if said.type == "message_stop" and self._end_at_done:
                raise EndOfStream

    def _take(self, event: Event, said: _Event) -> Delta:
        """Any event. A change of the evidence is the last thing that happens to one that is right."""
        kind = said.type
        if kind == "error" or said.error or (not kind and event.type == "error"):
            raise upstream_error(said.error or plain(event), kind="error")
        if kind not in _OURS:
            self._foreign += kind != "ping"
            return Delta(event)  # a ping, or what nobody knows yet
        if self._halves is not None:
            self._refuse_halves(event, said)
        if not self._begun:
            self._begin(kind)
        self._pieces += 1
        if kind == "content_block_delta":
            return self._grow(event, said)
        if kind == "message_start":
            return self._start(event, said)
        if not self.evidence.begun:
            raise _disorder(event, f"{kind} came before message_start")
        if kind == "message_delta":
            return self._change(event, said)
        if kind == "content_block_start":
            return self._open(event, said)
        if kind == "content_block_stop":
            return self._close(event, said)
        if not self.evidence.complete:
            raise Truncated(f"message_stop came, but not {self.evidence.missing}: the answer is not whole")
        return Delta(event)

    @staticmethod
    def _refuse_halves(event: Event, said: _Event) -> None:
        """Text alone may come in halves."""
        block = said.content_block or _Block()
        stop = said.delta.stop_reason if said.delta is not None else None
        no_halves_in(event, said.message, said.usage, stop, block.type, block.id, block.name, block.input)

    def _begin(self, kind: str) -> None:
        """The first event of an attempt: a message that should go on and starts is another one."""
        self._begun = True
        if self._continues and kind == "message_start":
            self._cursor.restart()
        if self._cursor.mode == "replay":
            self.evidence.restart()
            self._halves = self._halves and Halves(self.evidence.halves, self._cursor)

    # -- the message -------------------------------------------------------------------------------

    def _start(self, event: Event, said: _Event) -> Delta:
        """Its usage is for the evidence alone: what was asked has been read, but nothing is answered yet."""
        evidence, message = self.evidence, said.message or _Message()
        if evidence.begun:
            raise _disorder(event, "message_start came twice")
        evidence.begun, evidence.answer_id = True, message.id or ""
        evidence.usage = _usage(message.usage) if message.usage else None
        return Delta(event)

    def _change(self, event: Event, said: _Event) -> Delta:
        """Several of these may come: what the last one says of a key holds."""
        evidence = self.evidence
        stop = said.delta.stop_reason if said.delta is not None else None
        if stop and evidence.open is not None:
            raise _disorder(event, f"the message stopped inside content block {evidence.blocks - 1}")
        usage = None
        if said.usage:
            known = evidence.usage.raw if evidence.usage is not None else {}
            if len(known) + len(said.usage) > _MAX_COUNTS:
                raise DecodeError("the usage has more keys than any has", offset=event.offset)
            usage = _usage({**known, **{key: value for key, value in said.usage.items() if value is not None}})
            evidence.usage, usage = usage, None if usage == evidence.usage else usage
        if evidence.finish_reason is not None:
            stop = None
        evidence.finish_reason = evidence.finish_reason or stop or None
        return Delta(event, finish_reason=stop or None, usage=usage)

    # -- its blocks --------------------------------------------------------------------------------

    def _open(self, event: Event, said: _Event) -> Delta:
        evidence, block = self.evidence, said.content_block
        if block is None or said.index != evidence.blocks or evidence.open is not None:
            raise _disorder(event, f"content block {said.index} began where block {evidence.blocks} should")
        if evidence.finish_reason is not None:
            raise _disorder(event, "a content block began after the stop_reason")
        text, reasoning, calls = "", "", tuple[ToolCallDelta, ...]()
        new = Block(type=block.type)
        if block.type == "text":
            text = self._joined(event, said, "text", "" if block.text is None else block.text)
        elif block.type == "thinking":
            reasoning = self._joined(event, said, "thinking", "" if block.thinking is None else block.thinking)
        elif block.type == "tool_use":
            id_, name = _string(event, "id", block.id), _string(event, "name", block.name)
            new.call, new.input = evidence.calls, _input(event, block.input)
            calls = (ToolCallDelta(new.call, id_, name),)
        evidence.open, evidence.blocks, evidence.calls = new, evidence.blocks + 1, evidence.calls + len(calls)
        return Delta(event, text, reasoning, tool_calls=calls)

    def _grow(self, event: Event, said: _Event) -> Delta:
        block, delta = self.evidence.open, said.delta
        if block is None or delta is None or said.index != self.evidence.blocks - 1:
            raise _disorder(event, f"content block {said.index} has not begun, or has ended, and went on")
        if delta.type == "text_delta" and block.type == "text":
            return Delta(event, self._joined(event, said, "text", delta.text))
        if delta.type == "thinking_delta" and block.type == "thinking":
            return Delta(event, "", self._joined(event, said, "thinking", delta.thinking))
        if delta.type == "input_json_delta" and block.type == "tool_use":
            piece = self._joined(event, said, "partial_json", delta.partial_json)
            if piece:
                block.input = ""  # the whole of it comes in pieces
                return Delta(event, tool_calls=(ToolCallDelta(block.call, arguments=piece),))
        return Delta(event)  # of a block that the server fills for itself, or about one: a signature, a citation

    def _close(self, event: Event, said: _Event) -> Delta:
        """What came whole at a call's beginning is its input if nothing came in pieces."""
        evidence, block = self.evidence, self.evidence.open
        if block is None or said.index != evidence.blocks - 1:
            raise _disorder(event, f"content block {said.index} has not begun, or has ended, and ended")
        left = {"text": "", "thinking": "", "partial_json": block.input}
        for channel, rest in self._halves.flush(said.index).items() if self._halves is not None else ():
            left[channel] += rest
        piece = left["partial_json"]
        calls = (ToolCallDelta(block.call, arguments=piece),) if piece and block.call >= 0 else ()
        evidence.open = None
        return Delta(event, left["text"], left["thinking"], tool_calls=calls)

    def _joined(self, event: Event, said: _Event, channel: str, value: Any) -> str:
        text = _string(event, channel, value)
        return text if self._halves is None else self._halves.join(said.index, channel, text)

    def end(self, out: list[Delta]) -> None:
        """The body ended cleanly. Raises `Truncated`, `NotAStream` or `UpstreamError` when the answer is unproven."""
        wrong = wrong_with(
            self._cursor,
            self._head,
            error_in,
            missing=self.evidence.missing,
            pieces=self._pieces,
            foreign=self._foreign,
            kind="a Messages answer",
        )
        if wrong is not None:
            raise wrong


def _disorder(event: Event, what: str) -> DecodeError:
    return DecodeError(f"the events are out of order: {what}", offset=event.offset)


def _string(event: Event, key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise DecodeError(f"the event is not of its dialect: `{key}` is not text", offset=event.offset)
    return value


def _input(event: Event, value: Any) -> str:
    """A call's input as it began: the empty object, or all of it."""
    if not isinstance(value, dict | None):
        raise DecodeError("the event is not of its dialect: `input` is no object", offset=event.offset)
    return msgspec.json.encode(value).decode() if value else ""


def _usage(raw: dict[str, Any]) -> Usage:
    """Tokens read from a cache and written to one are no part of `input_tokens` here, and are of ours."""
    fresh, answered = number(raw, "input_tokens"), number(raw, "output_tokens")
    cached, written = number(raw, "cache_read_input_tokens"), number(raw, "cache_creation_input_tokens")
    given = None if fresh is None else fresh + (cached or 0) + (written or 0)
    return Usage(
        input_tokens=given,
        output_tokens=answered,
        total_tokens=None if given is None or answered is None else given + answered,
        cached_tokens=cached,
        cache_write_tokens=written,
        cache_write_1h_tokens=number(raw.get("cache_creation"), "ephemeral_1h_input_tokens"),
        reasoning_tokens=number(raw.get("output_tokens_details"), "thinking_tokens"),
        raw=raw,
    )


def _schema(body: Mapping[str, Any]) -> Mapping[str, Any] | bool:
    """`output_config.format`, or `output_format` as its beta named it."""
    config = body.get("output_config")
    wanted = (config.get("format") if isinstance(config, Mapping) else None) or body.get("output_format")
    if not isinstance(wanted, Mapping) or wanted.get("type") != "json_schema":
        return False
    schema = wanted.get("schema")
    return schema if isinstance(schema, Mapping) and schema else True


@dataclass(slots=True, frozen=True, kw_only=True)
class MessagesWire:
    """The Messages shape: see `Wire`."""

    unnumbered: tuple[bytes, ...] = tuple(
        b'{"type":' + blank + b'"' + kind + b'"' for kind in (b"error", b"ping") for blank in (b"", b" ")
    )

    def question(self, prompt: str, system: str = "") -> dict[str, Any]:
        """A turn of the user's. The system has a key of its own, and a limit must be named."""
        said = {"system": system} if system else {}
        return {"max_tokens": _LIMIT, **said, "messages": [{"role": "user", "content": prompt}]}

    def prepare(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Asks for a stream; usage always comes."""
        return {**body, "stream": True}

    def reader(
        self,
        body: Mapping[str, Any] | None,
        cursor: Cursor,
        evidence: Evidence | None = None,
        *,
        head: Head | None = None,
        end_at_done: bool = True,
    ) -> MessagesReader:
        """Gives the machine of one attempt; `evidence` is that of the attempt which it continues exactly."""
        if not isinstance(evidence, MessagesEvidence):
            evidence = MessagesEvidence()
        return MessagesReader(evidence, cursor, head or Head(status=0), end_at_done=end_at_done)

    def revive(self, state: Mapping[str, Any]) -> Evidence:
        """Makes the evidence that was taken down."""
        return msgspec.convert(state, MessagesEvidence, str_keys=True)

    def error_in(self, body: bytes) -> UpstreamError | None:
        """Recognises a bare error document."""
        return error_in(body)

    def recognises(self, event: Event) -> bool:
        """The types of a message's events are of no other shape; pings and errors are of many."""
        value = plain(event)
        return isinstance(value, dict) and value.get("type") in _OURS

    def asks_json(self, body: Mapping[str, Any]) -> Mapping[str, Any] | bool:
        """`output_config.format`, or `output_format`."""
        return _schema(body)

    def teller(self) -> MessagesTeller:
        """Another message's events inside the first one."""
        return MessagesTeller()
