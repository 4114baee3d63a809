"""The values that flow through a pipe and come out of it.

Values without behaviour: no I/O, no clock, no decisions. What is made once per event is a
`msgspec.Struct` without garbage-collector tracking (a third of the cost of a slotted class);
what is made once per stream is a dataclass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import msgspec

if TYPE_CHECKING:  # a request carries its call and its dialect, and values import nobody
    from holdfast._core import Call
    from holdfast.dialects import Dialect

Guarantee = Literal["exact", "verified", "seamed"]
"""How a seam was vouched for, strongest first: `exact` (the server continued at our cursor),
`verified` (a replay agreed with all that was delivered), `seamed` (the model continued a prefix)."""

BatchMode = Literal["start", "continue", "replay", "extend"]
"""What an attempt's items are: a new answer, its continuation, the same answer once more, or a model's own
continuation of a prefix."""


@dataclass(slots=True, frozen=True, kw_only=True, repr=False)
class Request:
    """One request to an upstream. `body` is the JSON object to send, or the bytes to send as they are.

    `call` is set by `Pipe.stream()`: what the attempts of one stream share. `upstream` names whom it goes to
    where there are several, and `dialect` is that one's, None for the pipe's own.
    """

    url: str = ""
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: Mapping[str, Any] | bytes | None = field(default=None, repr=False)
    upstream: str = ""
    dialect: Dialect | None = field(default=None, repr=False)
    call: Call = field(default=None, repr=False, compare=False)  # type: ignore[assignment]  # set at the edge

    def __repr__(self) -> str:
        return f"Request({self.method} {self.url.partition('?')[0]})"  # some keep their key in the query

    @property
    def server(self) -> str:
        """The host and port that it goes to, without user and password; empty where there is no address."""
        return urlsplit(self.url).netloc.rpartition("@")[2]

    def with_headers(self, extra: Mapping[str, str]) -> Request:
        """Gives the same request with headers added; a name given before is replaced, whatever its case."""
        names = {name.lower() for name in extra}
        kept = {name: value for name, value in self.headers.items() if name.lower() not in names}
        return replace(self, headers={**kept, **extra})


@dataclass(slots=True, frozen=True, kw_only=True)
class Head:
    """Status and headers of one response. Header names are lower case; a repeated header is joined by ", "."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    url: str = ""
    encoding: str = "identity"
    """The content coding the body arrived in (it is already undone)."""

    @property
    def content_type(self) -> str:
        """The media type without parameters, lower case; empty when the server sent none."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


class Event(msgspec.Struct, gc=False):
    """One server-sent event, as https://html.spec.whatwg.org/multipage/server-sent-events.html dispatches it.

    `payload` is the data buffer as bytes (lines joined by LF); `data` is the same as text. `id` is the id given
    in this very block, None without one; `last_event_id` is the standard's running value. `offset` counts the bytes
    of the (inflated) body before `wire`, the event's exact bytes with the comments and blank lines before it.
    A block that dispatches nothing (comments, an id alone) has `type == ""`; it is handed over only on request.
    """

    payload: bytes = b""
    offset: int = 0
    last_event_id: str = ""
    type: str = "message"
    id: str | None = None
    exact: bytes | None = None
    """The bytes on the wire where they are not just `data: <payload>` and a blank line."""

    @property
    def data(self) -> str:
        """The data as text; bytes that are not UTF-8 become U+FFFD."""
        return str(self.payload, "utf-8", "replace")

    @property
    def wire(self) -> bytes:
        """The exact bytes this event arrived in."""
        return self.exact if self.exact is not None else b"data: " + self.payload + b"\n\n"

    @property
    def end(self) -> int:
        """Offset of the first byte after this event."""
        return self.offset + (len(self.payload) + 8 if self.exact is None else len(self.exact))

    def json(self) -> Any:
        """The data as plain JSON values. Raises `ValueError` where it is not JSON."""
        return msgspec.json.decode(self.data)


class Usage(msgspec.Struct):
    """Tokens of one answer in the field's common terms; `raw` is what the provider sent, whole.

    `cached_tokens` (read from a cache) and `cache_write_tokens` (written to one) are inside `input_tokens`,
    `reasoning_tokens` inside `output_tokens`. None: not told.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    raw: dict[str, Any] = {}
    estimated: bool = False
    """True where a number was reckoned and not told by the provider: an answer put together over a seam."""
    cache_write_1h_tokens: int | None = None
    """Those of `cache_write_tokens` that were written for an hour, at a price of their own."""


class ToolCallDelta(msgspec.Struct, gc=False):
    """A fragment of a tool call: the `index`-th of its choice. `id` and `name` come once, `arguments` in pieces."""

    index: int = 0
    id: str = ""
    name: str = ""
    arguments: str = ""


class Delta(msgspec.Struct, gc=False):
    """One validated piece of one choice of an answer. Fields that a piece does not carry are empty."""

    raw: Event
    """The event this piece came in; `raw.json()` has every key that the provider sent."""
    text: str = ""
    reasoning: str = ""
    refusal: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    finish_reason: str | None = None
    usage: Usage | None = None
    choice: int = 0

    @property
    def empty(self) -> bool:
        """True for a piece that moves the answer no further (a role, padding): it is no progress to a clock."""
        if self.text or self.reasoning or self.finish_reason or self.refusal or self.usage:
            return False
        return not any(call.id or call.name or call.arguments for call in self.tool_calls)


class ToolCallError(ValueError):
    """A tool call must not run: it may be half of one, or its arguments are no JSON. `call` is the whole of it."""

    def __init__(self, call: ToolCall, why: str) -> None:
        super().__init__(f"the tool call {call.name[:64]!r} (number {call.index}) must not run: {why}")
        self.call = call


@dataclass(slots=True, frozen=True)
class ToolCall:
    """A tool call. `arguments` are what arrived, as text; `input` is given only where nothing can be missing."""

    id: str
    name: str
    arguments: str
    index: int = 0
    complete: bool = False
    """True in an answer that is proven whole and whose finish reason does not say that it was cut."""

    @property
    def input(self) -> Any:
        """The arguments as JSON values; none at all are `{}`. Raises `ToolCallError`, a `ValueError`."""
        if not self.complete:
            raise ToolCallError(self, "its answer broke off, or was cut at a limit, so its arguments may be a half")
        if not self.arguments.strip():
            return {}
        try:
            return msgspec.json.decode(self.arguments)
        except (ValueError, RecursionError) as error:
            # What the decoder says of a text that is no UTF-8 would hold the text.
            wrong = "" if isinstance(error, UnicodeError) else f" ({error})"
        raise ToolCallError(self, f"its arguments are {len(self.arguments)} characters that are no JSON{wrong}")


@dataclass(slots=True, frozen=True)
class Verdict:
    """Why a stream counts as whole: `complete` in one piece, or `resumed` over `seams` seams.

    `guarantee` is the weakest among the seams, None without one.
    """

    kind: Literal["complete", "resumed"] = "complete"
    seams: int = 0
    guarantee: Guarantee | None = None

    def __str__(self) -> str:
        if self.kind == "complete":
            return "COMPLETE"
        return f"RESUMED ({self.seams} seam{'s' if self.seams != 1 else ''}, {self.guarantee})"


@dataclass(slots=True, frozen=True, kw_only=True)
class Choice:
    """One of an answer's choices, put together from its deltas."""

    index: int = 0
    text: str = ""
    reasoning: str = ""
    refusal: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str | None = None


@dataclass(slots=True, frozen=True, kw_only=True)
class Completion:
    """A whole answer. The short names speak of the first choice; `choices` has them all, by index.

    `verdict` is None only in a `Partial`: nothing proved that the answer is whole, and its tool calls cannot be read.
    """

    choices: tuple[Choice, ...] = (Choice(),)
    usage: Usage | None = None
    verdict: Verdict | None = None

    @property
    def text(self) -> str:
        """What the model answered."""
        return self.choices[0].text

    @property
    def reasoning(self) -> str:
        """What the model thought aloud."""
        return self.choices[0].reasoning

    @property
    def refusal(self) -> str:
        """Why the model would not answer."""
        return self.choices[0].refusal

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The calls the model asks for."""
        return self.choices[0].tool_calls

    @property
    def finish_reason(self) -> str | None:
        """Why the model stopped, in the provider's word."""
        return self.choices[0].finish_reason


@dataclass(slots=True, frozen=True, kw_only=True)
class Partial:
    """What had arrived when a stream broke, and all that going on from there needs; no headers, so no key.

    What the body itself holds is in it: the prompt, and a token for an MCP server where one was sent.

    `request` is the JSON body that was sent, `last_event_id` the cursor that was delivered, `offset` counts body bytes.
    `to_json()` and `from_json()` carry it to another process, prompt and answer included. `state` is for the machines
    that go on from it and for nobody else; it is made by this version of the library and read by the same one.
    """

    dialect: str = ""
    url: str = ""
    request: Mapping[str, Any] | None = field(default=None, repr=False)
    last_event_id: str = ""
    offset: int = 0
    answer: Completion = field(default_factory=Completion)
    state: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def text(self) -> str:
        """The text that arrived."""
        return self.answer.text

    def to_json(self) -> bytes:
        """Gives it as JSON."""
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, data: bytes | str) -> Partial:
        """Gives what `to_json()` was called on. Raises `ValueError` for anything else."""
        why = "it names no dialect"
        try:
            partial = msgspec.json.decode(data, type=cls)
            if partial.dialect:
                return partial
        except RecursionError:
            why = "it is nested too deeply"
        except (msgspec.MsgspecError, UnicodeError):
            why = "it is not its JSON"
        except TypeError:
            why = f"it is {type(data).__name__}"
        raise ValueError(f"Partial.from_json() takes what to_json() gave, and this is none: {why}")
