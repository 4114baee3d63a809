"""Google's Interactions, https://ai.google.dev/gemini-api/docs/interactions/streaming: POST /v1beta/interactions.

Events say their name in `event_type` and in the SSE event name: `interaction.created`, `interaction.status_update`,
then for each step `step.start`, `step.delta`, `step.stop`, then `interaction.completed` with the status and the usage,
then `event: done` with `[DONE]`. A step is a thought (`thought_summary` deltas), the model's output (`text`), a call of
ours (`function_call`, its arguments as `arguments_delta` in pieces of JSON), or a call of Google's own tools, which
stays in `delta.raw`. What proves an answer whole is the status in `interaction.completed`, which is the finish reason
(`completed`, `requires_action` for calls of ours, `incomplete`, `budget_exceeded`); `failed` and `cancelled` are
errors, and so is an event named `error`.

What bears an `event_id` can be gone on from: GET /v1beta/interactions/{id}?stream=true&last_event_id=..., which
"resumes the interaction stream from the next chunk after the event" (python-genai, `interactions.get`). Nothing bears
one in the recorded stream, and an interaction that is not stored has an empty id. Only one in the background can be
cancelled: POST .../{id}/cancel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any
from urllib.parse import quote, urlencode, urlsplit, urlunsplit
from zlib import crc32

import msgspec

from holdfast._errors import DecodeError, StreamBroken, UpstreamError
from holdfast._types import Delta, Event, Head, Request, ToolCallDelta, Usage
from holdfast.dialects._dialect import CUT_REASONS, Dialect, Evidence, Timeouts
from holdfast.dialects._end import is_done, wrong_with
from holdfast.dialects._halves import Halves, no_halves_in
from holdfast.dialects._tell_interactions import InteractionTeller
from holdfast.dialects._wire import asked, decode, plain, upstream_error
from holdfast.dialects.gemini import added_up, google_error, google_error_in
from holdfast.machines.cursor import Cursor


class _Content(msgspec.Struct, gc=False):
    type: str | None = None
    text: str | None = None


class _Step(msgspec.Struct, gc=False):
    """A step as it begins. `summary` and `content` are empty when pieces follow."""

    type: str = ""
    id: str | None = None
    name: str | None = None
    arguments: msgspec.Raw = msgspec.Raw()
    summary: list[_Content] | None = None
    content: Any = None


class _Said(msgspec.Struct, gc=False):
    type: str | None = None
    text: str | None = None
    content: Any = None
    arguments: Any = None  # pieces of JSON for a call of ours, an object for Google's own tools


class _Interaction(msgspec.Struct, gc=False):
    id: str | None = None
    status: str | None = None
    usage: dict[str, Any] | None = None


class _Event(msgspec.Struct, gc=False):
    event_type: str | None = None
    event_id: str | None = None
    index: int = 0
    step: _Step | None = None
    delta: _Said | None = None
    interaction: _Interaction | None = None
    status: str | None = None
    error: Any = None


class _Place(msgspec.Struct, gc=False):
    event_id: str | None = None


_DECODER = msgspec.json.Decoder(_Event)
_PLACE = msgspec.json.Decoder(_Place)
_FAILED = {"failed", "cancelled"}
_RUNNING = {"", "queued", "in_progress", "created"}
_MAX_STEP = 100_000
_MAX_IDS = 4_096
"""Ids remembered per answer: a server that goes on repeats the recent past. A step that begins anew shows the rest."""


@dataclass(slots=True)
class InteractionEvidence:
    """What one interaction has proven: see `Evidence`. It also knows its steps, and how its calls are numbered."""

    usage: Usage | None = None
    answer_id: str = ""
    status: str = ""
    """The last status that was told."""
    finish_reason: str | None = None
    """The status with which it ended."""
    steps: dict[int, str] = field(default_factory=dict)
    """The type of each step that began."""
    calls: dict[int, int] = field(default_factory=dict)
    """The number of the call that a step is."""
    whole: set[int] = field(default_factory=set)
    """Steps whose call's arguments came whole, as the step began."""
    halves: dict[str, int] = field(default_factory=dict)
    """What waits for the other half of a character: see `Halves`."""
    ids: dict[str, int] = field(default_factory=dict)
    """The newest `event_id`s, each with a checksum of its event."""
    nameless: bool = False
    """Some event of a step bore no `event_id`."""

    def restart(self) -> None:
        """Forgets all: what follows is another answer from its beginning."""
        self.usage, self.answer_id, self.status, self.finish_reason = None, "", "", None
        self.steps.clear()
        self.calls.clear()
        self.whole.clear()
        self.halves.clear()
        self.ids.clear()
        self.nameless = False

    @property
    def complete(self) -> bool:
        """It ended with a status."""
        return self.finish_reason is not None

    @property
    def missing(self) -> str:
        """What is still to come, in words."""
        return "" if self.complete else "interaction.completed"


class InteractionReader:
    """Turns events into deltas, and keeps the evidence. See `DeltaReader`."""

    __slots__ = (
        "_cursor",
        "_end_at_done",
        "_foreign",
        "_halves",
        "_head",
        "_new",
        "_pieces",
        "_unchecked",
        "evidence",
    )

    def __init__(self, evidence: InteractionEvidence, cursor: Cursor, head: Head, *, end_at_done: bool = True) -> None:
        self.evidence = evidence
        self._cursor = cursor
        self._head = head
        self._end_at_done = end_at_done
        self._unchecked = cursor.mode == "continue"
        self._new = False  # a continuation has brought an event that bears an id we did not know
        self._halves = Halves(evidence.halves, cursor) if evidence.halves else None  # once a character was cut in half
        self._foreign = 0
        self._pieces = 0

    def feed(self, batch: Sequence[Event], out: list[Delta]) -> None:
        """Appends the deltas of a batch. Raises `UpstreamError`, `DecodeError`, `Truncated`."""
        for event in batch:
            payload = event.payload
            if not payload or self._is_done(payload):
                continue
            try:
                said = _DECODER.decode(payload)
            except (ValueError, RecursionError):
                said = decode(_DECODER, event, self._cursor, halves=True)
                self._expect_halves(event, said)
            if said.event_id and self._repeats(said.event_id, payload):
                self._cursor.dropped += 1
                continue
            delta = self._take(event, said)
            if self._halves is not None:
                self._halves.mend(delta, last=self.evidence.complete)
            out.append(delta)
            if said.event_id:
                self._remember(said.event_id, payload)
            elif said.step is not None or said.delta is not None:
                self.evidence.nameless = True

    def _repeats(self, name: str, payload: bytes) -> bool:
        """Says whether a continuation's event was delivered before the cut.

        One that bears an id of ours over other contents is of another answer: that one is compared and not appended.
        """
        known = self.evidence.ids.get(name) if self._cursor.mode == "continue" else None
        if known is not None and known == crc32(payload):
            return True
        if known is not None:
            if self._new:
                raise StreamBroken("the server continued our stream, and then sent an id of ours over other contents")
            self._begin_again()
        self._new = True
        return False

    def _remember(self, name: str, payload: bytes) -> None:
        ids = self.evidence.ids
        ids[name] = crc32(payload)
        if len(ids) > _MAX_IDS:
            for oldest in list(islice(ids, 1 + _MAX_IDS // 8)):
                del ids[oldest]

    def _begin_again(self) -> None:
        """What comes is another answer from its beginning."""
        self._unchecked = False
        self._cursor.restart()
        self.evidence.restart()
        self._halves = self._halves and Halves(self.evidence.halves, self._cursor)

    def _is_done(self, payload: bytes) -> bool:
        """`[DONE]` comes after a failure as well."""
        if self.evidence.status in _FAILED and payload.startswith(b"[DONE]"):
            raise _ended(self.evidence.status)
        return is_done(payload, self.evidence, ends=self._end_at_done)

    def _expect_halves(self, event: Event, said: _Event) -> None:
        """Joins texts from here on; nothing else may come in halves."""
        step = said.step or _Step()
        no_halves_in(event, said.event_id, said.interaction, said.status, step.type, step.id, step.name)
        self._halves = self._halves or Halves(self.evidence.halves, self._cursor)

    def _take(self, event: Event, said: _Event) -> Delta:
        name = said.event_type or event.type
        if said.error or name == "error":
            raise google_error(said.error or plain(event))
        self._foreign += (foreign := not name.startswith(("interaction.", "step.")))
        self._pieces += not foreign
        if self._unchecked and not foreign:
            self._check_start(name, said)
        evidence, interaction = self.evidence, said.interaction
        if name == "interaction.created" and evidence.steps and not self._unchecked:
            raise DecodeError("the events are out of order: an interaction began in another", offset=event.offset)
        if interaction is not None:
            evidence.answer_id = evidence.answer_id or interaction.id or ""
        if name == "interaction.status_update":
            evidence.status = said.status or evidence.status
        elif name == "interaction.completed" and interaction is not None:
            return self._completed(event, interaction)
        elif name == "step.start" and said.step is not None:
            return self._start(event, said.index, said.step)
        elif name == "step.delta" and said.delta is not None:
            return self._delta(event, said.index, said.delta)
        return Delta(event)

    def _check_start(self, name: str, said: _Event) -> None:
        """A continuation goes on inside the steps we know, under the same id; else it is another answer.

        That a continuation opens with `interaction.created` is no contradiction: the first step tells. Where each
        event bore an id until now, a server without ids does not continue, it begins.
        """
        evidence, cursor = self.evidence, self._cursor
        told = said.interaction.id if said.interaction is not None else None
        renamed = told and evidence.answer_id and told != evidence.answer_id
        lost = bool(evidence.ids) and not evidence.nameless and not said.event_id and name.startswith("step.")
        if cursor.mode == "replay" or renamed or lost or (name == "step.start" and said.index in evidence.steps):
            self._begin_again()
        self._unchecked = self._unchecked and not name.startswith("step.")

    def _start(self, event: Event, index: int, step: _Step) -> Delta:
        evidence = self.evidence
        if not 0 <= index < _MAX_STEP:
            raise DecodeError(f"a step is numbered {index}: no interaction has that many", offset=event.offset)
        again = index in evidence.steps
        evidence.steps[index] = step.type
        if step.type == "thought":
            return Delta(event, reasoning="".join(part.text or "" for part in step.summary or ()))
        if step.type == "model_output":
            return Delta(event, _texts(event, step.content))
        if step.type != "function_call" or again:
            return Delta(event)
        number = evidence.calls.setdefault(index, len(evidence.calls))
        arguments = bytes(step.arguments)
        if arguments not in (b"", b"null") and not arguments.startswith(b"{"):
            raise DecodeError("the event is not of its dialect: a call's arguments are no object", offset=event.offset)
        arguments = msgspec.json.format(arguments, indent=-1) if arguments.startswith(b"{") else b""
        if arguments == b"{}":
            arguments = b""  # the pieces follow, or there are none
        elif arguments:
            evidence.whole.add(index)
        return Delta(event, tool_calls=(ToolCallDelta(number, step.id or "", step.name or "", arguments.decode()),))

    def _delta(self, event: Event, index: int, said: _Said) -> Delta:
        evidence = self.evidence
        thought = evidence.steps.get(index) == "thought"
        if said.type == "text":
            return Delta(event, "", said.text or "") if thought else Delta(event, said.text or "")
        if said.type == "thought_summary":
            return Delta(event, "", _texts(event, None if said.content is None else [said.content]))
        if said.type == "arguments_delta":
            if said.arguments is not None and not isinstance(said.arguments, str):
                raise DecodeError("the event is not of its dialect: arguments_delta is no text", offset=event.offset)
            if index not in evidence.calls or index in evidence.whole:
                raise DecodeError(
                    f"arguments came for step {index}, which is no call that waits for them", offset=event.offset
                )
            return Delta(event, tool_calls=(ToolCallDelta(evidence.calls[index], "", "", said.arguments or ""),))
        return Delta(event)

    def _completed(self, event: Event, interaction: _Interaction) -> Delta:
        evidence = self.evidence
        status, told, usage = interaction.status or "", interaction.usage, None
        evidence.status = status
        if told and (evidence.usage is None or evidence.usage.raw != told):
            usage = evidence.usage = _usage(told)
        if status in _FAILED:
            raise _ended(status)
        if status in _RUNNING or evidence.complete:
            return Delta(event, usage=usage)
        evidence.finish_reason = status
        return Delta(event, finish_reason=status, usage=usage)

    def end(self, out: list[Delta]) -> None:
        """The body ended cleanly. Raises `Truncated`, `NotAStream` or `UpstreamError` when the answer is unproven."""
        if self.evidence.status in _FAILED:
            raise _ended(self.evidence.status)
        wrong = wrong_with(
            self._cursor,
            self._head,
            google_error_in,
            missing=self.evidence.missing,
            pieces=self._pieces,
            foreign=self._foreign,
            kind="an interaction",
        )
        if wrong is not None:
            raise wrong


def _ended(status: str) -> UpstreamError:
    """An interaction that somebody cancelled is not to be asked for again by us."""
    failure = upstream_error({"code": status, "message": f"the interaction ended as {status}"})
    failure.retryable = status != "cancelled"
    return failure


def _texts(event: Event, content: Any) -> str:
    """The text among parts; other kinds (images, audio) stay in `.raw`."""
    said, wrong = list[str](), content is not None and not isinstance(content, list)
    for part in content if isinstance(content, list) else ():
        text = part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None
        wrong = wrong or not isinstance(part, dict) or not isinstance(text, str | None)
        said.append(text if isinstance(text, str) else "")
    if wrong:
        raise DecodeError("the event is not of its dialect: what should be text is none", offset=event.offset)
    return "".join(said)


def _usage(raw: dict[str, Any]) -> Usage:
    """Thoughts are counted beside the output, and what built-in tools read beside the input."""
    return Usage(
        input_tokens=added_up(raw, "total_input_tokens", "total_tool_use_tokens"),
        output_tokens=added_up(raw, "total_output_tokens", "total_thought_tokens"),
        total_tokens=added_up(raw, "total_tokens"),
        cached_tokens=added_up(raw, "total_cached_tokens"),
        reasoning_tokens=added_up(raw, "total_thought_tokens"),
        raw=raw,
    )


def _counted(usage: Usage) -> dict[str, Any]:
    """The same in Google's names: as it came, or with the sums over several requests."""
    if _usage(usage.raw) == usage:
        return usage.raw
    answered, thought = usage.output_tokens, usage.reasoning_tokens
    sums = {
        "total_input_tokens": usage.input_tokens,
        "total_output_tokens": None if answered is None else answered - (thought or 0),
        "total_thought_tokens": thought,
        "total_tokens": usage.total_tokens,
        "total_cached_tokens": usage.cached_tokens,
    }
    kept = {name: value for name, value in usage.raw.items() if name != "total_tool_use_tokens"}
    return {**kept, **{name: value for name, value in sums.items() if value is not None}}


@dataclass(slots=True, frozen=True, kw_only=True)
class InteractionWire:
    """The shape of an interaction's stream: see `Wire`."""

    unnumbered: tuple[bytes, ...] = (b"[DONE]", b'{"error"')

    def question(self, prompt: str, system: str = "") -> dict[str, Any]:
        """The prompt as it is, and the system's beside it."""
        return {**({"system_instruction": system} if system else {}), "input": prompt}

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
    ) -> InteractionReader:
        """Gives the machine of one attempt; `evidence` is that of the attempt which it continues exactly."""
        if not isinstance(evidence, InteractionEvidence):
            evidence = InteractionEvidence()
        return InteractionReader(evidence, cursor, head or Head(status=0), end_at_done=end_at_done)

    def revive(self, state: Mapping[str, Any]) -> Evidence:
        """Makes the evidence that was taken down."""
        return msgspec.convert(state, InteractionEvidence, str_keys=True)

    def error_in(self, body: bytes) -> UpstreamError | None:
        """Recognises a bare error document."""
        return google_error_in(body)

    def recognises(self, event: Event) -> bool:
        """`event_type` names an event of an interaction."""
        value = plain(event)
        name = value.get("event_type") if isinstance(value, dict) else None
        return isinstance(name, str) and name.startswith(("interaction.", "step."))

    def asks_json(self, body: Mapping[str, Any]) -> Mapping[str, Any] | bool:
        """A text format with `application/json`, and its schema; or the schema itself beside `response_mime_type`."""
        wanted = body.get("response_format")
        for one in wanted if isinstance(wanted, list) else [wanted]:
            if isinstance(one, Mapping) and one.get("mime_type") == "application/json":
                schema = one.get("schema")
                return schema if isinstance(schema, Mapping) else True
        if body.get("response_mime_type") != "application/json":
            return False
        return wanted if isinstance(wanted, Mapping) else True

    def teller(self) -> InteractionTeller:
        """Gives the machine that passes one answer on as one stream of this shape."""
        return InteractionTeller(_counted)


@dataclass(slots=True, frozen=True, kw_only=True)
class InteractionRung:
    """Goes on behind the last `event_id`: see `CursorRung`."""

    overlaps: bool = False

    def place(self, event: Event, offset: int) -> str:
        """The event's own id, where it bears one."""
        try:
            return _PLACE.decode(event.payload).event_id or ""
        except (ValueError, RecursionError):
            return ""

    def resume(self, request: Request, answer_id: str, place: str) -> Request | None:
        """GET .../{id}?stream=true&last_event_id={place}."""
        if not answer_id or not place:
            return None
        return _at(request, answer_id, query=urlencode({"stream": "true", "last_event_id": place}))

    def cancel(self, request: Request, answer_id: str) -> Request | None:
        """POST .../{id}/cancel, for one that goes on in the background when nobody reads it."""
        body = asked(request)
        if not answer_id or body is None or not body.get("background"):
            return None
        return _at(request, answer_id, "/cancel", method="POST")


def _at(request: Request, answer_id: str, path: str = "", *, query: str = "", method: str = "GET") -> Request:
    url = urlsplit(request.url)
    query = "&".join(part for part in (url.query, query) if part)
    path = f"{url.path.rstrip('/')}/{quote(answer_id, safe='')}{path}"
    return replace(request, method=method, url=urlunsplit(url._replace(path=path, query=query)), body=None)


GEMINI_INTERACTIONS = Dialect(
    name="gemini-interactions",
    wire=InteractionWire(),
    base_url="https://generativelanguage.googleapis.com",
    path="/v1beta/interactions",
    hosts=("generativelanguage.googleapis.com",),
    key_variable="GEMINI_API_KEY",
    key_header="x-goog-api-key",
    key_prefix="",
    fixed_headers={"Api-Revision": "2026-05-20"},  # the events above; an older revision names them otherwise
    timeouts=Timeouts(open=120, first_token=600, progress=300, total=3600),  # an agent's tools take their time
    cursor=InteractionRung(),
    cut_reasons=(*CUT_REASONS, "budget_exceeded"),
)
