"""Google's Gemini, https://ai.google.dev/api/generate-content#method:-models.streamgeneratecontent.

One `data:` line of JSON an event, CRLF line ends, no event names, no end mark. The model stands in the address, not in
the body, and without `alt=sse` there the body is one JSON array. A chunk has `candidates[].content.parts[]`, and
`usageMetadata` so far on every chunk: the last one is the answer's. What proves an answer whole is a `finishReason` for
each candidate (`generationConfig.candidateCount` of them); then the body ends.

A part is text, a thought (`thought: true`), a whole `functionCall` whose `args` are an object, or something that stays
in `delta.raw` (images, code, results, `thoughtSignature`). Calls have no numbers: they count in the order they come.

Every finish reason is an end in the provider's word, those of its filters too (SAFETY, RECITATION, OTHER...): what was
said before it stands. But MALFORMED_FUNCTION_CALL and UNEXPECTED_TOOL_CALL say that the model began a call and that
what it wrote was thrown away: what was to be called never came, and the next draw may bring it; MALFORMED_RESPONSE says
so of any answer. CONTINUATION ends a request and not the answer: the same request with the chunk's `continuationToken`
brings the rest (python-genai, `FinishReason`), for which the layer `AutoContinue` asks. A prompt that was
blocked (`promptFeedback.blockReason`, no candidates) stays blocked however often it is sent.

An error may come as bare JSON lines without `data:`, as an array of such, or in a `data:` line; `RetryInfo` in its
details says how long to wait (https://cloud.google.com/apis/design/errors). Vertex AI sends the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from holdfast._errors import DecodeError, UpstreamError
from holdfast._types import Delta, Event, Head, ToolCallDelta, Usage
from holdfast.dialects._dialect import FILTER_REASONS, Dialect, Evidence, Timeouts
from holdfast.dialects._end import is_done, wrong_with
from holdfast.dialects._halves import Halves, no_halves_in
from holdfast.dialects._pause import SameRequest
from holdfast.dialects._tell_gemini import GeminiTeller
from holdfast.dialects._wire import decode, number, plain, upstream_error
from holdfast.machines.cursor import Cursor


class _Call(msgspec.Struct, gc=False, rename="camel"):
    name: str | None = None
    id: str | None = None
    args: msgspec.Raw = msgspec.Raw()  # kept as sent: a number of any size stays what it is
    partial_args: Any = None
    will_continue: bool | None = None


class _Part(msgspec.Struct, gc=False, rename="camel"):
    text: str | None = None
    thought: bool | None = None
    function_call: _Call | None = None


class _Content(msgspec.Struct, gc=False):
    parts: list[_Part] | None = None


class _Candidate(msgspec.Struct, gc=False, rename="camel"):
    content: _Content | None = None
    index: int = 0
    finish_reason: str | None = None


class _Feedback(msgspec.Struct, gc=False, rename="camel"):
    block_reason: str | None = None
    block_reason_message: str | None = None


class _Chunk(msgspec.Struct, gc=False, rename="camel"):
    candidates: list[_Candidate] | None = None
    usage_metadata: dict[str, Any] | None = None
    prompt_feedback: _Feedback | None = None
    response_id: str | None = None
    error: Any = None


_DECODER = msgspec.json.Decoder(_Chunk)
_THROWN_AWAY = {"MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "MALFORMED_RESPONSE"}
_NO_REASON = ("", "FINISH_REASON_UNSPECIFIED")  # the enum's zero: nothing was said
_MAX_CANDIDATES = 1_024  # Google takes up to 8
_MAX_CALLS = 1_000


@dataclass(slots=True)
class GeminiEvidence:
    """What one answer has proven: see `Evidence`. It also counts the calls of each candidate."""

    expected: int = 1
    usage: Usage | None = None
    answer_id: str = ""
    finished: dict[int, str] = field(default_factory=dict)
    seen: set[int] = field(default_factory=set)
    calls: dict[int, int] = field(default_factory=dict)
    halves: dict[str, int] = field(default_factory=dict)
    """What waits for the other half of a character: see `Halves`."""

    def restart(self) -> None:
        """Forgets all: what follows is another answer from its beginning."""
        self.usage, self.answer_id = None, ""
        self.finished.clear()
        self.seen.clear()
        self.calls.clear()
        self.halves.clear()

    @property
    def complete(self) -> bool:
        """A finish reason for each candidate."""
        return len(self.finished) >= self.expected and self.finished.keys() >= self.seen

    @property
    def missing(self) -> str:
        """What is still to come, in words."""
        if self.complete:
            return ""
        expected = max(self.expected, len(self.seen))
        return f"a finishReason for {expected - len(self.finished)} of {expected} candidates"

    @property
    def finish_reason(self) -> str | None:
        """Why the first candidate ended."""
        return self.finished.get(0) or next(iter(self.finished.values()), None)


class GeminiReader:
    """Turns chunks into deltas, and keeps the evidence. See `DeltaReader`."""

    __slots__ = ("_cursor", "_end_at_done", "_foreign", "_halves", "_head", "_pieces", "_unchecked", "evidence")

    def __init__(self, evidence: GeminiEvidence, cursor: Cursor, head: Head, *, end_at_done: bool = True) -> None:
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
                continue  # "data:" alone is somebody's ping; Google sends no `[DONE]`, gateways in front of it do
            try:
                chunk = _DECODER.decode(payload)
            except (ValueError, RecursionError):
                chunk = decode(_DECODER, event, self._cursor, halves=True)
                self._expect_halves(event, chunk)
            self._take(event, chunk, out)

    def _expect_halves(self, event: Event, chunk: _Chunk) -> None:
        """Joins texts from here on; nothing else may come in halves."""
        parts = [part for candidate in chunk.candidates or () for part in _parts(candidate)]
        calls = [(call.name, call.id) for part in parts if (call := part.function_call) is not None]
        finishes = [candidate.finish_reason for candidate in chunk.candidates or ()]
        no_halves_in(event, chunk.response_id, chunk.usage_metadata, calls, finishes)
        self._halves = self._halves or Halves(self.evidence.halves, self._cursor)

    def _take(self, event: Event, chunk: _Chunk, out: list[Delta]) -> None:
        """Errors first, then each candidate, then usage. All of an event or nothing."""
        if chunk.error:
            raise google_error(chunk.error)
        if event.type == "error" and chunk.candidates is None:
            raise google_error(plain(event))
        blocked = chunk.prompt_feedback
        if blocked is not None and blocked.block_reason and not chunk.candidates:
            raise _blocked(blocked)
        candidates = chunk.candidates or ()
        if self._unchecked and (candidates or chunk.response_id):
            self._check_start(chunk)
        evidence = self.evidence
        evidence.answer_id = evidence.answer_id or chunk.response_id or ""
        said, ended = list[Delta](), set(evidence.finished)
        for candidate in candidates:
            self._candidate(event, candidate, said)
        if self._halves is not None:
            for delta in said:
                self._halves.mend(delta, last=delta.choice in ended)
        known = chunk.candidates is not None or chunk.usage_metadata is not None or blocked is not None
        self._pieces += known
        self._foreign += not known
        if not said:
            said.append(Delta(event))
        usage = chunk.usage_metadata
        if usage and (evidence.usage is None or evidence.usage.raw != usage):  # said again, it is no news
            evidence.usage = said[-1].usage = _usage(usage)
        out += said
        gave_up = next((c.finish_reason for c in candidates if c.finish_reason in _THROWN_AWAY), None)
        if gave_up:
            raise UpstreamError(
                f"what the model wrote was thrown away: finishReason {gave_up}", code=gave_up, retryable=True
            )

    def _check_start(self, chunk: _Chunk) -> None:
        """All chunks of one answer bear the same id, and nothing is said after an end."""
        self._unchecked = False
        evidence, cursor = self.evidence, self._cursor
        renamed = chunk.response_id and evidence.answer_id and chunk.response_id != evidence.answer_id
        speaks = {c.index for c in chunk.candidates or () if any(_said(part) for part in _parts(c))}
        if renamed or speaks & evidence.finished.keys():
            cursor.restart()
        if cursor.mode == "replay":
            evidence.restart()
            self._halves = self._halves and Halves(evidence.halves, cursor)

    def _candidate(self, event: Event, candidate: _Candidate, said: list[Delta]) -> None:
        """One delta, or more where its parts change channel against the order in which a delta is read."""
        index, evidence = candidate.index, self.evidence
        if not 0 <= index < _MAX_CANDIDATES:
            raise DecodeError(f"a candidate is numbered {index}: nobody asks for that many", offset=event.offset)
        evidence.seen.add(index)
        reasoning, text, calls = "", "", list[ToolCallDelta]()
        for part in _parts(candidate):
            words = part.text or ""
            if (calls and words) or (part.thought and words and text):
                said.append(Delta(event, text, reasoning, tool_calls=tuple(calls), choice=index))
                reasoning, text, calls = "", "", []
            if part.thought:
                reasoning += words
            else:
                text += words
            if part.function_call is not None:
                calls.append(self._call(event, index, part.function_call))
        finish = candidate.finish_reason
        if finish in _NO_REASON or finish in _THROWN_AWAY or index in evidence.finished:
            finish = None
        if finish is not None:
            evidence.finished[index] = finish
        said.append(Delta(event, text, reasoning, "", tuple(calls), finish, None, index))

    def _call(self, event: Event, index: int, call: _Call) -> ToolCallDelta:
        """A whole call. One whose arguments come by JSON path (Vertex, on request) cannot be told in pieces of JSON."""
        if call.partial_args is not None or call.will_continue:
            raise DecodeError(
                "a function call came in partialArgs, which this dialect cannot put together;"
                " ask without streamFunctionCallArguments",
                offset=event.offset,
                retryable=False,
            )
        place = self.evidence.calls.get(index, 0)
        if place >= _MAX_CALLS:
            raise DecodeError(f"more than {_MAX_CALLS} calls came: no model asks for that", offset=event.offset)
        args = bytes(call.args)
        if args in (b"", b"null"):
            args = b"{}"
        if not args.startswith(b"{"):
            raise DecodeError("the event is not of its dialect: a call's args are no object", offset=event.offset)
        self.evidence.calls[index] = place + 1
        return ToolCallDelta(place, call.id or "", call.name or "", str(msgspec.json.format(args, indent=-1), "utf-8"))

    def end(self, out: list[Delta]) -> None:
        """The body ended cleanly. Raises `Truncated`, `NotAStream` or `UpstreamError` when the answer is unproven."""
        wrong = wrong_with(
            self._cursor,
            self._head,
            google_error_in,
            missing=self.evidence.missing,
            pieces=self._pieces,
            foreign=self._foreign,
            kind="a Gemini answer",
            ask="the address must end in :streamGenerateContent?alt=sse",
        )
        if wrong is not None:
            raise wrong


def _parts(candidate: _Candidate) -> Sequence[_Part]:
    return (candidate.content.parts if candidate.content is not None else None) or ()


def _said(part: _Part) -> bool:
    return bool(part.text) or part.function_call is not None


def _blocked(feedback: _Feedback) -> UpstreamError:
    reason = feedback.block_reason
    return upstream_error(
        {"code": reason, "type": "content_filter", "message": feedback.block_reason_message or "the prompt was blocked"}
    )


def google_error(error: Any) -> UpstreamError:
    """Makes the typed error of Google's `{"code", "message", "status", "details"}`."""
    error = error[0] if isinstance(error, list) and error else error
    error = error.get("error", error) if isinstance(error, dict) else error
    status = error.get("status") if isinstance(error, dict) else None
    failure = upstream_error({**error, "type": status} if isinstance(status, str) else error)
    failure.retry_after = _retry_delay(error.get("details")) if isinstance(error, dict) else None
    return failure


def _retry_delay(details: Any) -> float | None:
    """Seconds, out of `{"@type": ".../google.rpc.RetryInfo", "retryDelay": "34.5s"}`."""
    for detail in details if isinstance(details, list) else ():
        said = detail.get("retryDelay") if isinstance(detail, dict) else None
        if isinstance(said, str) and said.endswith("s") and said[:-1].replace(".", "", 1).isdecimal():
            return float(said[:-1])
    return None


def google_error_in(body: bytes) -> UpstreamError | None:
    """Finds Google's error in a bare document: an object with `error`, or an array of such (without `alt=sse`)."""
    try:
        value = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return None
    if isinstance(value, list) and value:
        value = value[-1]  # what comes after pieces of an answer is last
    return google_error(value["error"]) if isinstance(value, dict) and value.get("error") else None


def _usage(raw: dict[str, Any]) -> Usage:
    """Thoughts are counted beside the candidates, and what built-in tools read beside the prompt: both are tokens."""
    return Usage(
        input_tokens=added_up(raw, "promptTokenCount", "toolUsePromptTokenCount"),
        output_tokens=added_up(raw, "candidatesTokenCount", "thoughtsTokenCount"),
        total_tokens=added_up(raw, "totalTokenCount"),
        cached_tokens=added_up(raw, "cachedContentTokenCount"),
        reasoning_tokens=added_up(raw, "thoughtsTokenCount"),
        raw=raw,
    )


def _counted(usage: Usage) -> dict[str, Any]:
    """The same in Google's names: as it came, or with the sums over several requests."""
    if _usage(usage.raw) == usage:
        return usage.raw
    answered, thought = usage.output_tokens, usage.reasoning_tokens
    sums = {
        "promptTokenCount": usage.input_tokens,
        "candidatesTokenCount": None if answered is None else answered - (thought or 0),
        "thoughtsTokenCount": thought,
        "totalTokenCount": usage.total_tokens,
        "cachedContentTokenCount": usage.cached_tokens,
    }
    kept = {name: value for name, value in usage.raw.items() if name != "toolUsePromptTokenCount"}
    return {**kept, **{name: value for name, value in sums.items() if value is not None}}


def added_up(raw: dict[str, Any], *names: str) -> int | None:
    """Adds up what was told; a number that is not there is zero, unless none is."""
    told = [n for name in names if (n := number(raw, name)) is not None]
    return sum(told) if told else None


@dataclass(slots=True, frozen=True, kw_only=True)
class GeminiWire:
    """The shape of `streamGenerateContent`: see `Wire`."""

    unnumbered: tuple[bytes, ...] = (b"[DONE]", b'{"error"')

    def question(self, prompt: str, system: str = "") -> dict[str, Any]:
        """A turn of the user's, in parts; the system's has no role."""
        said = {"systemInstruction": {"parts": [{"text": system}]}} if system else {}
        return {**said, "contents": [{"role": "user", "parts": [{"text": prompt}]}]}

    def prepare(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The model goes into the address; that a stream is wanted stands there already."""
        return {name: value for name, value in body.items() if name != "model"}

    def reader(
        self,
        body: Mapping[str, Any] | None,
        cursor: Cursor,
        evidence: Evidence | None = None,
        *,
        head: Head | None = None,
        end_at_done: bool = True,
    ) -> GeminiReader:
        """Gives the machine of one attempt; `evidence` is that of the attempt which it continues exactly."""
        if not isinstance(evidence, GeminiEvidence):
            asked = _config(body or {}, "candidateCount", "candidate_count")
            evidence = GeminiEvidence(expected=asked if isinstance(asked, int) and asked > 0 else 1)
        return GeminiReader(evidence, cursor, head or Head(status=0), end_at_done=end_at_done)

    def revive(self, state: Mapping[str, Any]) -> Evidence:
        """Makes the evidence that was taken down."""
        return msgspec.convert(state, GeminiEvidence, str_keys=True)

    def error_in(self, body: bytes) -> UpstreamError | None:
        """Recognises a bare error document."""
        return google_error_in(body)

    def recognises(self, event: Event) -> bool:
        """Candidates, or the prompt's feedback, are of no other shape."""
        value = plain(event)
        return isinstance(value, dict) and (
            isinstance(value.get("candidates"), list) or isinstance(value.get("promptFeedback"), dict)
        )

    def asks_json(self, body: Mapping[str, Any]) -> Mapping[str, Any] | bool:
        """`responseMimeType` says it. `responseSchema` is OpenAPI's own kind, and no JSON Schema to check by."""
        if _config(body, "responseMimeType", "response_mime_type") != "application/json":
            return False
        schema = _config(body, "responseJsonSchema", "response_json_schema")
        return schema if isinstance(schema, Mapping) else True

    def teller(self) -> GeminiTeller:
        """Gives the machine that passes one answer on as one stream of this shape."""
        return GeminiTeller(_counted)


def _config(body: Mapping[str, Any], *names: str) -> Any:
    """A setting; Google takes both spellings of every name."""
    config = body.get("generationConfig", body.get("generation_config"))
    return next((config[name] for name in names if name in config), None) if isinstance(config, Mapping) else None


GEMINI = Dialect(
    name="gemini",
    wire=GeminiWire(),
    base_url="https://generativelanguage.googleapis.com",
    path="/v1beta/models/{model}:streamGenerateContent?alt=sse",
    hosts=("generativelanguage.googleapis.com",),  # on Vertex hosts others live, too: the path tells
    key_variable="GEMINI_API_KEY",  # the SDK reads GOOGLE_API_KEY as well, which may be a key for anything of Google's
    key_header="x-goog-api-key",
    key_prefix="",
    timeouts=Timeouts(open=120, first_token=600, progress=120, total=3600),
    filter_reasons=(*FILTER_REASONS, "ESCALATION", "PUP_LIMITED_DISABLED"),
    pause_reasons=("CONTINUATION",),
    pause=SameRequest(),
)
