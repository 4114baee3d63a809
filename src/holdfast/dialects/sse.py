"""Plain server-sent events: each event is a delta whose text is the event's data, whatever it says.

What proves such a stream whole is, from strong to weak: an end event that is agreed on (`end_event`, `end_data`); the
answer to the request's own number (`json_rpc`, see `mcp.py`); or only the framing: the body ended as HTTP says that it
ends (its last chunk, all of its Content-Length), and no event was unfinished. A server that just closes the line proves
nothing that way, and HTTP/1.0 can do no better; agree on an end event then.

An event named `error` is an error. Nothing is known of what the same request would bring again, so nothing is replayed;
a server that numbers its events can be resumed by its ids.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from holdfast._errors import EndOfStream, UpstreamError
from holdfast._types import Delta, Event, Head, Usage
from holdfast.dialects._dialect import Dialect, Evidence
from holdfast.dialects._end import wrong_with
from holdfast.dialects._tell import PlainTeller
from holdfast.dialects._wire import decode, error_in, plain, upstream_error
from holdfast.machines.cursor import Cursor


class _Message(msgspec.Struct, gc=False):
    """A JSON-RPC message: a response has an `id`, and `result` or `error`."""

    id: str | int | float | None = None
    result: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()

    @property
    def responds(self) -> bool:
        told = bytes(self.error) not in (b"", b"null") or bytes(self.result) != b""
        return self.id is not None and told


_MESSAGES = msgspec.json.Decoder(_Message | list[_Message])


@dataclass(slots=True)
class SseEvidence:
    """What one stream has proven: see `Evidence`. `awaits` is what must come, in words; empty when the framing does."""

    awaits: str = ""
    asked: str | int | float | None = None
    """The number of the request that a JSON-RPC response must bear; None for any."""
    complete: bool = False
    finish_reason: str | None = None
    usage: Usage | None = None
    answer_id: str = ""

    def restart(self) -> None:
        """Forgets all: what follows is another stream from its beginning."""
        self.complete, self.finish_reason = False, None

    @property
    def missing(self) -> str:
        """What is still to come, in words."""
        return "" if self.complete else self.awaits or "an end to its last event"


class SseReader:
    """Passes events on, and looks for the end. See `DeltaReader`."""

    __slots__ = ("_cursor", "_end_at_done", "_events", "_head", "_unchecked", "_wire", "evidence")

    def __init__(self, wire: SseWire, evidence: SseEvidence, cursor: Cursor, head: Head, *, end_at_done: bool) -> None:
        self._wire = wire
        self.evidence = evidence
        self._cursor = cursor
        self._head = head
        self._end_at_done = end_at_done
        self._unchecked = cursor.mode == "continue"
        self._events = 0

    def feed(self, batch: Sequence[Event], out: list[Delta]) -> None:
        """Appends one delta for each event. Raises `UpstreamError` and, where messages are JSON, `DecodeError`."""
        wire, evidence = self._wire, self.evidence
        for event in batch:
            self._events += 1
            if event.type == "error":
                said = plain(event)
                raise upstream_error(event.data if said is None else said, kind="error")
            if self._unchecked:
                self._unchecked = False
                if self._cursor.mode == "replay":
                    evidence.restart()
            if evidence.complete and not wire.json_rpc:
                out.append(Delta(event))  # nothing counts after the end
            elif wire.ends(event):
                out.append(self._ended(event))
            else:
                if wire.json_rpc and event.payload:
                    self._hear(event)
                out.append(Delta(event, event.data))
            # Where nobody said which response is the last one, more may come.
            if evidence.complete and self._end_at_done and (evidence.asked is not None or not wire.json_rpc):
                raise EndOfStream

    def _ended(self, event: Event) -> Delta:
        """The end event is no part of what was said. Some say in it why they ended."""
        said = plain(event)
        told = said.get("reason") if isinstance(said, dict) else None
        reason = told if isinstance(told, str) and told else None
        if reason is not None and reason in self._wire.failures:
            failure = upstream_error({"code": reason, "message": f"the stream ended with the reason {reason}"})
            failure.retryable = self._wire.failures[reason]
            raise failure
        self.evidence.complete, self.evidence.finish_reason = True, reason
        return Delta(event, finish_reason=reason)

    def _hear(self, event: Event) -> None:
        messages = decode(_MESSAGES, event, self._cursor, halves=True)
        for message in messages if isinstance(messages, list) else [messages]:
            if message.responds and self.evidence.asked in (None, message.id):
                self.evidence.complete = True

    def end(self, out: list[Delta]) -> None:
        """The body ended cleanly. Raises `Truncated`, `NotAStream` or `UpstreamError` when the stream is unproven."""
        cursor, evidence = self._cursor, self.evidence
        # Behind the last event nothing is left to continue with: a server that was asked for it answers with nothing.
        came = cursor.received or (cursor.mode == "continue" and self._head.status == 200)
        framed = came and not cursor.unfinished and (self._events or not cursor.stray)
        if framed and not evidence.awaits:
            evidence.complete = True
        wrong = wrong_with(
            cursor,
            self._head,
            error_in,
            missing=evidence.missing,
            pieces=self._events,
            kind="this stream",
            ask="it is an answer without a stream"
            if self._wire.json_rpc
            else "the request must ask for an event stream",
        )
        if wrong is not None:
            raise wrong


@dataclass(slots=True, frozen=True, kw_only=True)
class SseWire:
    """Events as they are: see `Wire`.

    `end_event` names the event that ends a stream, `end_data` is the data of one that does; `json_rpc` streams end
    with the response to the request. `failures` are the values of `reason` in the end event's data that say that
    nothing was finished, and whether another try may help.
    """

    end_event: str = ""
    end_data: str = ""
    json_rpc: bool = False
    failures: Mapping[str, bool] = field(default_factory=dict)
    unnumbered: tuple[bytes, ...] = (b"[DONE]",)

    def ends(self, event: Event) -> bool:
        """Says whether an event is the agreed end."""
        return bool(self.end_event and event.type == self.end_event) or bool(
            self.end_data and event.payload == self.end_data.encode()
        )

    def question(self, prompt: str, system: str = "") -> dict[str, Any] | None:
        """Nothing is known of what is asked: there is no question."""
        return None

    def prepare(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Nothing is known of the request."""
        return dict(body)

    def reader(
        self,
        body: Mapping[str, Any] | None,
        cursor: Cursor,
        evidence: Evidence | None = None,
        *,
        head: Head | None = None,
        end_at_done: bool = True,
    ) -> SseReader:
        """Gives the machine of one attempt; `evidence` is that of the attempt which it continues exactly."""
        if not isinstance(evidence, SseEvidence):
            evidence = SseEvidence(awaits=self._awaits(), asked=_number(body) if self.json_rpc else None)
        return SseReader(self, evidence, cursor, head or Head(status=0), end_at_done=end_at_done)

    def _awaits(self) -> str:
        ends = {
            f"the event {self.end_event!r}": self.end_event,
            f"the data {self.end_data!r}": self.end_data,
            "the response to the request": self.json_rpc,
        }
        return " or ".join(end for end, counts in ends.items() if counts)

    def revive(self, state: Mapping[str, Any]) -> Evidence:
        """Makes the evidence that was taken down."""
        return msgspec.convert(state, SseEvidence, str_keys=True)

    def error_in(self, body: bytes) -> UpstreamError | None:
        """Recognises a bare error document."""
        return error_in(body)

    def recognises(self, event: Event) -> bool:
        """A JSON-RPC message says that it is one; of other events nothing is sure."""
        value = plain(event) if self.json_rpc else None
        return isinstance(value, dict) and value.get("jsonrpc") == "2.0"

    def asks_json(self, body: Mapping[str, Any]) -> Mapping[str, Any] | bool:
        """Nothing is known of the request."""
        return False

    def teller(self) -> PlainTeller:
        """Events as they came."""
        return PlainTeller()


def _number(body: Mapping[str, Any] | None) -> str | int | float | None:
    number = body.get("id") if body else None
    return number if isinstance(number, str | int | float) and not isinstance(number, bool) else None


SSE = Dialect(name="sse", wire=SseWire(), replayable=False)
