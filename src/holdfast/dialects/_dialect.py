"""What a dialect is: the wall between the pipe and what one provider says on the wire.

A `Dialect` is a table about one provider: where it lives, how it is asked, what can be resumed and how. The shape of
its stream is a `Wire`, which many providers share: its `reader()` turns events into validated deltas and keeps, in an
`Evidence`, all that the verdict rests on. A new provider is one file with such a table; a new shape is one more.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Protocol, cast
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import msgspec

from holdfast._errors import StatusError, UpstreamError, UsageError
from holdfast._types import Delta, Event, Head, Request, Usage
from holdfast.dialects._effects import HARMLESS_TOOLS, KEPT, effects
from holdfast.dialects._wire import is_hopeful
from holdfast.machines.cursor import Cursor
from holdfast.machines.redact import clean_url
from holdfast.machines.settings import check_kind, check_seconds


@dataclass(slots=True, frozen=True, kw_only=True)
class Timeouts:
    """The four clocks of a stream, in seconds; None leaves one out.

    `open`: from sending a request to its head. `first_token`: from sending a request to the first delta that is not
    empty. `progress`: waiting between two such deltas; comments, pings and empty deltas do not count. `total`: the
    whole call, over all attempts. The first three count per attempt and only while somebody waits.
    """

    open: float | None = None
    first_token: float | None = None
    progress: float | None = None
    total: float | None = None

    def __post_init__(self) -> None:
        for clock in fields(self):
            check_seconds(f"Timeouts({clock.name}=...)", getattr(self, clock.name))

    @classmethod
    def of(cls, given: Timeouts | None) -> Timeouts:
        """Gives the clocks that `timeouts=` names. Raises `UsageError` for anything else."""
        if given is None:
            return cls()
        check_kind("timeouts=", given, Timeouts, "Timeouts(open=, first_token=, progress=, total=)")
        return given

    def over(self, defaults: Timeouts) -> Timeouts:
        """Fills what is not given here from `defaults`."""
        given = {f.name: v for f in fields(self) if (v := getattr(self, f.name)) is not None}
        return replace(defaults, **given)


class Evidence(Protocol):
    """What one answer has proven so far. It outlives an attempt when the next one continues exactly.

    It is a dataclass of plain values: `state_of()` and `Wire.revive()` carry it to another process.
    """

    @property
    def complete(self) -> bool:
        """True once the dialect's terminal evidence has been seen for every choice that was asked for."""

    @property
    def missing(self) -> str:
        """What is still to come, in words for an error message; empty when complete."""

    @property
    def usage(self) -> Usage | None:
        """The answer's usage as far as it was told."""

    @property
    def finish_reason(self) -> str | None:
        """Why the first choice ended."""

    @property
    def answer_id(self) -> str:
        """The id that the provider gave this answer, empty without one."""


def state_of(evidence: Evidence) -> dict[str, Any]:
    """Gives evidence as JSON values."""
    return cast("dict[str, Any]", msgspec.json.decode(msgspec.json.encode(evidence)))


class DeltaReader(Protocol):
    """The machine of a wire: a `Transform` from events to deltas."""

    @property
    def evidence(self) -> Evidence:
        """What the verdict will rest on."""

    def feed(self, batch: Sequence[Event], out: list[Delta]) -> None:
        """Validates events: each gives at least one delta, an empty one where it says nothing of the answer.

        Raises `UpstreamError`, `DecodeError`, `Truncated`, and `EndOfStream` at a proven end mark.
        """

    def end(self, out: list[Delta]) -> None:
        """The body ended cleanly. Raises `Truncated` when nothing proves that the answer is whole, `NotAStream`."""


class Teller(Protocol):
    """Tells one answer to somebody who reads its events himself, over all the attempts that it takes.

    Healthy events are told as they came, to the byte. After `reseat()` what comes is the rest of another answer: its
    events are told in the terms of the first, under one id, one role, one running index and sequence number.
    """

    def feed(self, batch: Sequence[Delta], out: list[bytes]) -> None:
        """Appends the bytes of a batch. An event of several deltas, which follow one another, is told once."""

    def reseat(self) -> None:
        """From here on it is the rest of another answer: deltas hold what is new of it, and their events all."""

    def end(self, out: list[bytes]) -> None:
        """The answer is proven whole, and its line had died: appends the event that ends one, where it has not come."""


class Wire(Protocol):
    """The shape of a stream, and of the requests for one."""

    @property
    def unnumbered(self) -> tuple[bytes, ...]:
        """How events begin that are no part of an answer: servers that number their events give these no id."""

    def question(self, prompt: str, system: str = "") -> dict[str, Any] | None:
        """Gives the simplest request of this shape, which names no model; None for a shape that is asked nothing."""

    def prepare(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Makes a request ask for a stream, and for its usage."""

    def reader(
        self,
        body: Mapping[str, Any] | None,
        cursor: Cursor,
        evidence: Evidence | None = None,
        *,
        head: Head | None = None,
        end_at_done: bool = True,
    ) -> DeltaReader:
        """Gives a machine for one attempt; `evidence` is that of the attempt which it continues exactly.

        `end_at_done`: the proven end mark ends the answer, else only the end of the body does.
        """

    def revive(self, state: Mapping[str, Any]) -> Evidence:
        """Makes the evidence that `state_of()` took down. Raises `ValueError` for what it never gave."""

    def error_in(self, body: bytes) -> UpstreamError | None:
        """Recognises a bare error document that came where a stream should have been."""

    def recognises(self, event: Event) -> bool:
        """Says whether an event is surely of this shape, by its bytes alone."""

    def asks_json(self, body: Mapping[str, Any]) -> Mapping[str, Any] | bool:
        """Says whether a request asks for an answer in JSON: its schema, True for any JSON, False for neither."""

    def teller(self) -> Teller:
        """Gives the machine that passes one answer on as one stream of this shape."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Said:
    """What was delivered of an answer that a model is to go on from: its text up to a safe boundary, and the thought.

    `tokens` estimates what both took.
    """

    text: str
    reasoning: str = ""
    tokens: int = 0


class CursorRung(Protocol):
    """An exact way on that is the provider's own: another request goes on behind what was delivered."""

    @property
    def overlaps(self) -> bool:
        """True where a place is that of the event delivered last, which must come again first: a place may be wrong."""

    def place(self, event: Event, offset: int) -> str:
        """Names the place behind a delivered event, which is `offset` bytes into the whole body; empty for none.

        Of a cursor that overlaps it is the event's own place, where it begins.
        """

    def resume(self, request: Request, answer_id: str, place: str) -> Request | None:
        """Gives the request that goes on from a place, None where this answer cannot be resumed."""

    def cancel(self, request: Request, answer_id: str) -> Request | None:
        """Gives the request that stops an answer nobody reads any more, None where there is nothing to stop."""


class PrefixRung(Protocol):
    """A seamed way on: the model is given what it said, and continues it."""

    def extend(self, request: Request, said: Said) -> Request | None:
        """Gives the request for what follows, None where this request cannot be continued so."""


class PauseRung(Protocol):
    """A way on from an answer that ended in the middle of the model's turn: the turn goes back as it came."""

    def resume(self, request: Request, events: Sequence[Event]) -> Request | None:
        """Gives the request that goes on with a turn of these events, None where it cannot be sent back."""


CUT_REASONS = (
    *("length", "model_length"),  # the chat shape; Mistral's context
    *("max_tokens", "model_context_window_exceeded"),  # Messages
    *("max_output_tokens", "incomplete"),  # Responses, and those of its clones that say no more
    "MAX_TOKENS",  # Gemini, Cohere
)
"""How answers end that were cut at a limit, in all providers' words: gateways pass each other's on."""
FILTER_REASONS = (
    *("content_filter", "refusal"),
    *("SAFETY", "RECITATION", "LANGUAGE", "OTHER", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MODEL_ARMOR"),
    *("IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION", "IMAGE_OTHER", "NO_IMAGE"),
    "ERROR_TOXIC",
)
"""How answers end that somebody stopped for what they said, in all providers' words."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Dialect:
    """One provider: where it lives, what it wants to hear, what it can resume. `dataclasses.replace()` makes others.

    `path` comes after the base URL, "{model}" in it being the request's model; `hosts` are those at which the provider
    is known to live (a leading dot stands for all below), `key_variable` the environment variable that holds its key by
    convention. The key goes out in `key_header` behind `key_prefix`, `fixed_headers` beside it.
    """

    name: str
    wire: Wire
    base_url: str = ""
    path: str = ""
    hosts: tuple[str, ...] = ()
    key_variable: str = ""
    key_header: str = "Authorization"
    key_prefix: str = "Bearer "
    fixed_headers: Mapping[str, str] = field(default_factory=dict)
    default_model: str = ""
    needs_model: bool = True
    """False where a request without a model may do: the server has one, or its address names it."""
    timeouts: Timeouts = Timeouts(open=600, first_token=600, progress=120, total=3600)
    call_header: str = ""
    """A header that takes the call's id: every attempt that bears it means the same answer."""
    event_ids: Literal["post", "get"] = "post"
    """How a Last-Event-ID is sent: with the same request, or with a GET to the same address (MCP)."""
    end_mark: bool = False
    """True where every whole answer has an event that ends it, behind what proves it: a body without one was cut."""
    replayable: bool = True
    """True when the same request may be sent again to compare its answer with what was delivered: see `effects()`."""
    kept: tuple[str, ...] = KEPT
    """Fields of a request that name something lasting, which its answer is added to or made in."""
    harmless_tools: tuple[str, ...] = HARMLESS_TOOLS
    """How the types of tools begin that leave nothing behind at the provider, or that the caller runs."""
    refuses: Literal["rate", "concurrency"] = "rate"
    """What there was too much of where a 429 says nothing of it: requests in a time, or requests at a time."""
    cursor: CursorRung | None = None
    prefix: PrefixRung | None = None
    cut_reasons: tuple[str, ...] = CUT_REASONS
    """Finish reasons of an answer that ended where no more was allowed: it is whole, and says less than it would."""
    filter_reasons: tuple[str, ...] = FILTER_REASONS
    """Finish reasons of an answer that was stopped for what it says."""
    pause: PauseRung | None = None
    pause_reasons: tuple[str, ...] = ("pause_turn",)
    """Finish reasons of a turn that the model has not ended: the provider wants it back, and goes on with it."""

    @property
    def unfinished_reasons(self) -> tuple[str, ...]:
        """Finish reasons after which a tool call may be a half: what was said before them is no whole."""
        return (*self.cut_reasons, *self.filter_reasons, *self.pause_reasons)

    def headers(self, api_key: str | None) -> dict[str, str]:
        """The headers that authenticate, and those that each request must bear."""
        key = {self.key_header: self.key_prefix + api_key} if api_key else {}
        return {**self.fixed_headers, **key}

    def url(self, base_url: str, body: Mapping[str, Any]) -> str:
        """The address of the streaming endpoint: the path comes after the base's own path, before its query.

        Raises `UsageError` where the path has a place for the model, and the request names none.
        """
        model = body.get("model") or self.default_model
        if "{model}" in self.path and not (model and isinstance(model, str)):
            raise UsageError(f'a request of {self.name!r} must name its "model": it stands in the address')
        path, _, query = self.path.replace("{model}", quote(str(model), safe="/:@")).partition("?")
        base = urlsplit(base_url)
        both = "&".join(part for part in (base.query, query) if part)
        return urlunsplit(base._replace(path=base.path.rstrip("/") + path, query=both, fragment=""))

    def model_in(self, url: str) -> str:
        """The model that an address of this endpoint names; empty where the path has no place for one."""
        before, place, after = self.path.partition("?")[0].partition("{model}")
        path = urlsplit(clean_url(url)).path
        found = re.search(f"{re.escape(before)}(.+){re.escape(after)}$", path) if place else None
        return unquote(found[1]) if found else ""

    def prepare(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Makes a request ask for a stream, for its usage, and for the default model where it names none."""
        asked = self.wire.prepare(body)
        if self.default_model and "{model}" not in self.path:
            asked.setdefault("model", self.default_model)
        return asked

    def effects(self, body: Mapping[str, Any]) -> str:
        """Names what a request changes at the provider; empty where it changes nothing.

        One that does is sent once: where its answer has begun, nobody asks for it again, and nobody beside it.
        """
        return effects(body, kept=self.kept, harmless=self.harmless_tools)

    def reader(
        self,
        body: Mapping[str, Any] | None,
        cursor: Cursor,
        evidence: Evidence | None = None,
        *,
        head: Head | None = None,
        end_at_done: bool = True,
    ) -> DeltaReader:
        """Gives the wire's machine for one attempt: see `Wire.reader()`."""
        cursor.unnumbered = self.wire.unnumbered
        return self.wire.reader(body, cursor, evidence, head=head, end_at_done=end_at_done)

    def refine(self, error: StatusError) -> StatusError:
        """Reads the provider's own words out of a refused request. An empty account is a 429 that no waiting mends."""
        reported = self.wire.error_in(error.body)
        if reported is not None:
            error.code, error.type, error.message = reported.code, reported.type, reported.message
            words = [word for word in (reported.code, reported.type) if word != str(error.status)]  # that is no news
            error.retryable = error.retryable and is_hopeful(*words)
            if error.retry_after is None:
                error.retry_after = reported.retry_after  # Google says it in the body
        return error
