"""The OpenAI chat shape, https://api.openai.com/v1/chat/completions with `stream: true`, and who speaks it.

One `data:` line of JSON an event, `choices[].delta` with the pieces, `finish_reason` once a choice is whole, usage on
the last chunk or on one without choices, then `data: [DONE]`. What proves an answer whole is a finish reason for each
choice: servers send `[DONE]` after an error as well, and some never send it.

Unknown keys pass and stay reachable in `delta.raw`; a known key of another type is a `DecodeError`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from holdfast._errors import DecodeError, EndOfStream, Truncated, UpstreamError
from holdfast._types import Delta, Event, Head, ToolCallDelta, Usage
from holdfast.dialects._dialect import Evidence
from holdfast.dialects._end import wrong_with
from holdfast.dialects._halves import Halves, no_halves_in
from holdfast.dialects._tell_chat import ChatTeller
from holdfast.dialects._wire import decode, error_in, number, plain, upstream_error
from holdfast.machines.cursor import Cursor


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class _ToolCall(msgspec.Struct, gc=False):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Part(msgspec.Struct, gc=False):
    """Mistral's reasoning models send `content` as a list of typed parts."""

    type: str = ""
    text: str | None = None
    thinking: list[_Part] | str | None = None


class _Delta(msgspec.Struct, gc=False):
    role: str | None = None
    content: str | list[_Part] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(msgspec.Struct, gc=False):
    delta: _Delta | None = None
    index: int = 0
    finish_reason: str | None = None
    text: str | None = None
    """The words of /completions, the older endpoint, which has no delta."""


class _Groq(msgspec.Struct, gc=False):
    usage: dict[str, Any] | None = None
    error: Any = None


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None
    usage: dict[str, Any] | None = None
    error: Any = None
    id: str | None = None
    type: str | None = None
    x_groq: _Groq | None = None


_DECODER = msgspec.json.Decoder(_Chunk)
_NO_DELTA = _Delta()
_BREAKS = {"insufficient_system_resource", "error", "abort"}
"""Finish reasons that say the server gave up: DeepSeek's, OpenRouter's and Mistral's, vLLM's. Never an end."""


@dataclass(slots=True)
class ChatEvidence:
    """What one chat answer has proven: see `Evidence`. It also knows how its tool calls are numbered."""

    expected: int = 1
    strict: bool = True
    usage: Usage | None = None
    done: bool = False
    answer_id: str = ""
    finished: dict[int, str] = field(default_factory=dict)
    seen: set[int] = field(default_factory=set)
    calls: dict[int, list[list[str]]] = field(default_factory=dict)
    """Per choice, [id, name] of each tool call in the order of their indices."""
    halves: dict[str, int] = field(default_factory=dict)
    """What waits for the other half of a character: see `Halves`."""

    def restart(self) -> None:
        """Forgets all: what follows is another answer from its beginning."""
        self.usage, self.done, self.answer_id = None, False, ""
        self.finished.clear()
        self.seen.clear()
        self.calls.clear()
        self.halves.clear()

    @property
    def complete(self) -> bool:
        """A finish reason for each choice.

        The forgiving profile takes usage and `[DONE]` together for an end, too: some servers (Snowflake Cortex) send no
        finish reason at all.
        """
        if len(self.finished) >= self.expected and self.finished.keys() >= self.seen:
            return True
        return not self.strict and self.done and self.usage is not None

    @property
    def missing(self) -> str:
        """What is still to come, in words."""
        if self.complete:
            return ""
        expected = max(self.expected, len(self.seen))
        reason = f"a finish_reason for {expected - len(self.finished)} of {expected} choices"
        return reason if self.strict else f"{reason}, or usage and [DONE]"

    @property
    def finish_reason(self) -> str | None:
        """Why the first choice ended."""
        return self.finished.get(0) or next(iter(self.finished.values()), None)


_MAX_CHOICES = 1_024  # OpenAI takes n up to 128
_MAX_NAME = 4_096  # characters of a tool's name, which comes in pieces from some; OpenAI takes 64


class ChatReader:
    """Turns events of the chat shape into deltas, and keeps the evidence. See `DeltaReader`.

    With `end_at_done` the answer ends at a proven `[DONE]` and not at the end of the body: a server that keeps the
    line open after it keeps nobody waiting.
    """

    __slots__ = (
        "_continues",
        "_cursor",
        "_end_at_done",
        "_foreign",
        "_halves",
        "_head",
        "_pieces",
        "_unchecked",
        "evidence",
    )

    def __init__(self, evidence: ChatEvidence, cursor: Cursor, head: Head, *, end_at_done: bool = True) -> None:
        self.evidence = evidence
        self._cursor = cursor
        self._head = head
        self._end_at_done = end_at_done
        self._continues = cursor.mode == "continue"
        self._unchecked = True
        self._halves = Halves(evidence.halves, cursor) if evidence.halves else None  # once there was one, all is joined
        self._foreign = 0  # events that have nothing of this shape
        self._pieces = 0  # events of this attempt that have, counted until the first is known

    def feed(self, batch: Sequence[Event], out: list[Delta]) -> None:
        """Appends the deltas of a batch. Raises `UpstreamError`, `DecodeError`, `Truncated`."""
        fast = _DECODER.decode
        seen = self.evidence.seen
        for event in batch:
            payload = event.payload
            try:
                chunk = fast(payload)
            except (ValueError, RecursionError):
                if not payload or self._is_done(event, out):
                    continue  # "data:" alone is somebody's ping
                chunk = decode(_DECODER, event, self._cursor, halves=True)
                if b"\\u" in payload:
                    self._expect_halves(event, chunk)
            choices = chunk.choices
            # The common piece, a few tokens of one choice, is told apart by what it lacks.
            if (
                choices
                and len(choices) == 1
                and chunk.error is None
                and chunk.usage is None
                and chunk.x_groq is None
                and not self._unchecked
                and self._halves is None
                and 0 in seen  # its first piece has been taken down
            ):
                choice = choices[0]
                said = choice.delta
                if said is not None and choice.finish_reason is None and not said.tool_calls and not choice.index:
                    text = said.content
                    if text is None or type(text) is str:
                        reasoning = said.reasoning_content or said.reasoning or ""
                        out.append(Delta(event, text or "", reasoning, said.refusal or ""))
                        continue
            self._take(event, chunk, out)

    def _expect_halves(self, event: Event, chunk: _Chunk) -> None:
        """Joins texts from here on. Raises `DecodeError` where half a character is in what is no text: an id, usage."""
        choices = chunk.choices or ()
        calls = [call for choice in choices if choice.delta is not None for call in choice.delta.tool_calls or ()]
        functions = [call.function for call in calls if call.function is not None]
        whole = (
            *(chunk.id, chunk.usage, chunk.x_groq and chunk.x_groq.usage),
            *(choice.finish_reason for choice in choices),
            *(call.id for call in calls),
            *((one.name, None if isinstance(one.arguments, str) else one.arguments) for one in functions),
        )
        no_halves_in(event, *whole)
        if self._halves is None:
            self._halves = Halves(self.evidence.halves, self._cursor)

    def _is_done(self, event: Event, out: list[Delta]) -> bool:
        """`[DONE]` by itself proves nothing: it must find the answer proven, or the answer is cut."""
        if not event.payload.lstrip().startswith(b"[DONE]"):
            return False
        evidence = self.evidence
        evidence.done = True
        if not evidence.complete:
            raise Truncated(f"[DONE] came, but not {evidence.missing}: the answer is not whole")
        self._give_up_halves(event, out)
        if self._end_at_done:
            raise EndOfStream
        return True

    def _give_up_halves(self, event: Event, out: list[Delta]) -> None:
        """An answer has ended, in whatever way: what still waits has waited in vain."""
        if self._halves is not None:
            lost = [Delta(event, choice=choice) for choice in self.evidence.seen]
            for delta in lost:
                self._halves.give_up(delta)
            out += [delta for delta in lost if not delta.empty]

    def _take(self, event: Event, chunk: _Chunk, out: list[Delta]) -> None:
        """Any piece at all: errors first, then each choice, then usage."""
        evidence = self.evidence
        if self._unchecked and chunk.choices is not None:
            self._check_start(chunk)
        error = chunk.error or (chunk.x_groq.error if chunk.x_groq is not None else None)
        if error:
            raise upstream_error(error)
        if chunk.choices is None and chunk.usage is None:
            said = plain(event)
            named = isinstance(said, dict) and said.get("object") == "error"  # vLLM's and Mistral's bare form
            if named or event.type == "error" or chunk.type == "error":
                raise upstream_error(said, kind="error")
        usage = chunk.usage or (chunk.x_groq.usage if chunk.x_groq is not None else None)
        if usage:
            # The last one wins: some servers send it cumulatively on every chunk. Said again, it is no news.
            known, evidence.usage = evidence.usage, _usage(usage)
            if evidence.usage == known:
                usage = None
        choices = chunk.choices or ()
        self._pieces += len(choices)
        # All of an event or nothing: what was handed over of it is not asked for again.
        before, gave_up = len(out), ""
        for place, choice in enumerate(choices):
            last = place == len(choices) - 1
            try:
                out.append(self._choice(event, choice, evidence.usage if usage and last else None))
            except DecodeError:
                del out[before:]
                raise
            if choice.finish_reason in _BREAKS:
                gave_up = choice.finish_reason
        if gave_up:
            raise _gave_up(event, gave_up)
        if not choices:
            self._foreign += chunk.choices is None and not usage
            self._pieces += chunk.choices is not None or bool(usage)
            out.append(Delta(event, usage=evidence.usage if usage else None))

    def _check_start(self, chunk: _Chunk) -> None:
        """The first piece of an attempt tells whose it is: all pieces of one answer bear the same id."""
        self._unchecked = False
        evidence = self.evidence
        if self._continues:
            renamed = chunk.id and evidence.answer_id and chunk.id != evidence.answer_id
            if renamed or _opens(chunk, evidence.seen) or self._goes_on_after_its_end(chunk):
                self._cursor.restart()
            if self._cursor.mode == "replay":
                evidence.restart()
                self._halves = self._halves and Halves(evidence.halves, self._cursor)
        if chunk.id:
            evidence.answer_id = chunk.id
        else:
            self._unchecked = not evidence.answer_id and not chunk.choices  # Azure's first piece is about the prompt

    def _goes_on_after_its_end(self, chunk: _Chunk) -> bool:
        finished = self.evidence.finished
        return any(c.index in finished and c.delta and any(_content(c.delta)) for c in chunk.choices or ())

    def _choice(self, event: Event, choice: _Choice, usage: Usage | None) -> Delta:
        evidence = self.evidence
        said = choice.delta or _NO_DELTA
        if not 0 <= choice.index < _MAX_CHOICES:
            raise DecodeError(f"a choice is numbered {choice.index}: nobody asks for that many", offset=event.offset)
        evidence.seen.add(choice.index)
        text, reasoning = _content(said)
        if choice.delta is None and choice.text:
            text = choice.text
        finish = choice.finish_reason or None
        if finish is not None and finish not in _BREAKS:
            if choice.index in evidence.finished:
                finish = None  # OpenRouter says it twice
            else:
                evidence.finished[choice.index] = finish
        else:
            finish = None
        calls = tuple(self._call(event, choice.index, call) for call in said.tool_calls or ())
        delta = Delta(event, text, reasoning, said.refusal or "", calls, finish, usage, choice.index)
        if self._halves is not None:
            self._halves.mend(delta)
        return delta

    def _call(self, event: Event, choice: int, call: _ToolCall) -> ToolCallDelta:
        """Numbers a fragment: by its index; without one (Mistral) by a new id, or as more of the last call.

        An id that is new under a number in use, with a name, is another call whose server always counts 0. Ids and
        names that are said again with every fragment are passed on once.
        """
        known = self.evidence.calls.setdefault(choice, [])
        function = call.function or _Function()
        index = call.index
        if index is None:
            index = next((n for n, (id_, _) in enumerate(known) if call.id and id_ == call.id), -1)
            if index < 0:
                index = len(known) if call.id or not known else len(known) - 1
        elif 0 <= index < len(known) and call.id and known[index][0] not in ("", call.id) and function.name:
            index = next((n for n, (id_, _) in enumerate(known) if id_ == call.id), len(known))
        if not 0 <= index <= 1_000:
            raise DecodeError(f"a tool call is numbered {index}: no model asks for that", offset=event.offset)
        while len(known) <= index:
            known.append(["", ""])
        entry = known[index]
        id_ = call.id if call.id and not entry[0] else ""
        name = function.name if function.name and function.name != entry[1] else ""
        entry[0] = entry[0] or id_
        entry[1] += name
        if len(entry[1]) > _MAX_NAME:
            raise DecodeError(f"a tool's name is longer than {_MAX_NAME} characters", offset=event.offset)
        arguments = function.arguments or ""
        if not isinstance(arguments, str):
            arguments = msgspec.json.encode(arguments).decode()
        return ToolCallDelta(index, id_, name, arguments)

    def end(self, out: list[Delta]) -> None:
        """The body ended cleanly. Raises `Truncated`, `NotAStream` or `UpstreamError` when the answer is unproven."""
        wrong = wrong_with(
            self._cursor,
            self._head,
            error_in,
            missing=self.evidence.missing,
            pieces=self._pieces,
            foreign=self._foreign,
            kind="a chat answer",
        )
        if wrong is not None:
            raise wrong
        self._give_up_halves(Event(), out)


def _gave_up(event: Event, reason: str) -> UpstreamError:
    """OpenRouter says in the choice what went wrong; others say no more than the reason."""
    said = plain(event)
    for choice in said["choices"] if isinstance(said, dict) else ():
        if isinstance(choice.get("error"), dict):
            return upstream_error(choice["error"], kind=reason)
    return UpstreamError(f"the provider gave up: finish_reason {reason}", code=reason, retryable=True)


def _opens(chunk: _Chunk, seen: set[int]) -> bool:
    """Says whether a piece begins a choice that had begun: a role, and nothing that a choice under way would say.

    Some servers repeat the role in every piece: with words, with the arguments of a call, with the finish reason. And
    one choice may begin when another has long been speaking.
    """
    choice = chunk.choices[0] if chunk.choices else None
    said = choice.delta if choice is not None else None
    if choice is None or said is None or not said.role or choice.finish_reason or choice.index not in seen:
        return False
    goes_on = said.content or said.reasoning_content or said.reasoning or said.refusal
    return not goes_on and all(call.id for call in said.tool_calls or ())


def _content(said: _Delta) -> tuple[str, str]:
    reasoning = said.reasoning_content or said.reasoning or ""
    content = said.content
    if content is None or isinstance(content, str):
        return content or "", reasoning
    text = "".join(part.text or "" for part in content if part.type != "thinking")
    return text, reasoning + "".join(_thinking(part) for part in content if part.type == "thinking")


def _thinking(part: _Part) -> str:
    inner = part.thinking or ""
    return inner if isinstance(inner, str) else "".join(piece.text or "" for piece in inner)


def _usage(raw: dict[str, Any]) -> Usage:
    asked, answered = raw.get("prompt_tokens_details"), raw.get("completion_tokens_details")
    cached, thought = number(asked, "cached_tokens"), number(answered, "reasoning_tokens")
    return Usage(
        input_tokens=number(raw, "prompt_tokens"),
        output_tokens=number(raw, "completion_tokens"),
        total_tokens=number(raw, "total_tokens"),
        cached_tokens=cached if cached is not None else number(raw, "prompt_cache_hit_tokens"),
        cache_write_tokens=number(asked, "cache_write_tokens"),
        reasoning_tokens=thought if thought is not None else number(raw, "reasoning_tokens"),
        raw=raw,
    )


def _choices_asked(body: Mapping[str, Any]) -> int:
    """`n` of them; of /completions, where several prompts may be asked at once, as many for each."""
    asked: Any = body.get("n")
    prompts: Any = body.get("prompt")
    tokens = not isinstance(prompts, list) or not prompts or isinstance(prompts[0], int)  # of one prompt
    return (asked if isinstance(asked, int) and asked > 0 else 1) * (1 if tokens else len(prompts))


@dataclass(slots=True, frozen=True, kw_only=True)
class ChatWire:
    """The chat shape as one kind of server speaks it: see `Wire`."""

    strict: bool = True
    """True where every answer ends with a finish reason: its lack is a cut."""
    ask_usage: bool = False
    """True where `stream_options.include_usage` is known to be understood."""
    unnumbered: tuple[bytes, ...] = (b"[DONE]", b'{"error"', b'{"type":"error"')

    def question(self, prompt: str, system: str = "") -> dict[str, Any]:
        """A turn of the user's; the system's comes before it."""
        said = [{"role": "system", "content": system}] if system else []
        return {"messages": [*said, {"role": "user", "content": prompt}]}

    def prepare(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Asks for a stream, and for its usage where that is understood."""
        asked: dict[str, Any] = {**body, "stream": True}
        if self.ask_usage:
            asked.setdefault("stream_options", {"include_usage": True})
        return asked

    def reader(
        self,
        body: Mapping[str, Any] | None,
        cursor: Cursor,
        evidence: Evidence | None = None,
        *,
        head: Head | None = None,
        end_at_done: bool = True,
    ) -> ChatReader:
        """Gives the machine of one attempt; `evidence` is that of the attempt which it continues exactly."""
        if not isinstance(evidence, ChatEvidence):
            evidence = ChatEvidence(expected=_choices_asked(body or {}), strict=self.strict)
        return ChatReader(evidence, cursor, head or Head(status=0), end_at_done=end_at_done)

    def revive(self, state: Mapping[str, Any]) -> Evidence:
        """Makes the evidence that was taken down."""
        evidence = msgspec.convert(state, ChatEvidence, str_keys=True)
        Halves(evidence.halves, Cursor())  # judges them
        return evidence

    def error_in(self, body: bytes) -> UpstreamError | None:
        """Recognises a bare error document."""
        return error_in(body)

    def recognises(self, event: Event) -> bool:
        """A list of choices is of no other shape; a piece that has none, of usage alone, says what it is."""
        value = plain(event)
        return isinstance(value, dict) and (
            isinstance(value.get("choices"), list) or value.get("object") == "chat.completion.chunk"
        )

    def asks_json(self, body: Mapping[str, Any]) -> Mapping[str, Any] | bool:
        """`response_format`, as OpenAI names it."""
        wanted = body.get("response_format")
        if not isinstance(wanted, Mapping):
            return False
        schema = wanted.get("json_schema")
        if wanted.get("type") == "json_schema" and isinstance(schema, Mapping):
            inner = schema.get("schema")
            return inner if isinstance(inner, Mapping) else True
        return wanted.get("type") == "json_object"

    def teller(self) -> ChatTeller:
        """One id and one opening, whoever answered."""
        return ChatTeller()
