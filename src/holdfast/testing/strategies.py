"""Hypothesis strategies for whatever reads streams: legal event streams, true answers, chunkings, schedules of faults.

    @given(completions("deepseek"), st.data())
    def test_my_client_reads_it(answer, data):
        chunks = data.draw(chunkings(answer.wire()))
        assert my_client(chunks).text == answer.completion.text

What is drawn is always legal: a client that refuses it, or makes something else of it, is wrong. Everything shrinks to
what a person can read: few events, few words, few cuts, few faults. Needs the extra `testing`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from holdfast._errors import MissingExtra, UsageError
from holdfast._types import Choice, Completion, Event, ToolCall, Usage
from holdfast.dialects import ChatWire, Dialect, find
from holdfast.testing.faults import EVIDENT, Fault
from holdfast.testing.schedule import Schedule

try:
    from hypothesis import strategies as st
except ImportError as missing:
    raise MissingExtra("holdfast.testing.strategies", "testing") from missing

DONE = b"[DONE]"
_SCRIPTS = ("a", " the", "\n\n", "海藻", "潮起潮落，", "🌊", "👩\u200d🔬", "e\u0301", "ß ", "شكرا", "नमस्ते")
_TRAPS = ('"', "\\", "\t", "}", "[DONE]", "data: ", "\u2028", "\ufeff")
"""Text that naive readers take for something else: JSON's own characters, the end mark, a line end that is none."""
_FRAGMENTS = (*_SCRIPTS, *_TRAPS)

# -- chunkings ---------------------------------------------------------------------------------

# The places at which decoders and parsers break: round a line end, and inside a character.
_DELICATE = re.compile(rb"(?=[\r\n])|(?<=[\r\n])|(?=[\x80-\xbf])", re.DOTALL)


def chunkings(data: bytes, *, max_cuts: int = 16) -> st.SearchStrategy[list[bytes]]:
    """Gives ways to cut `data` into chunks, none of them empty: at most `max_cuts` cuts, or after every byte.

    Cuts before and after CR and LF and inside multi-byte characters are likely. Shrinks to few cuts.
    """
    if len(data) < 2:
        return st.just([data] if data else [])
    anywhere = st.integers(1, len(data) - 1)
    delicate = [found.start() for found in _DELICATE.finditer(data) if 0 < found.start() < len(data)]
    place = st.sampled_from(delicate) | anywhere if delicate else anywhere
    some = st.lists(place, max_size=max_cuts, unique=True)
    # Every byte alone only in the place of several cuts: so it shrinks to those, and they to few.
    bytewise = st.sampled_from((False, False, True))
    return st.builds(
        lambda cuts, every: _cut(data, range(1, len(data)) if every and len(cuts) > 2 else cuts), some, bytewise
    )


def _cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    ends = sorted(places)
    return [data[a:b] for a, b in zip([0, *ends], [*ends, len(data)], strict=True)]


# -- event streams -----------------------------------------------------------------------------


@dataclass(slots=True, frozen=True, kw_only=True)
class EventStream:
    """A legal event stream: `events` are what a reader that keeps to the standard makes of `data`, in order.

    `retry` (milliseconds) and `last_event_id` are what it knows at the end. An event's `wire` and `offset` are those of
    a reader that got `data` whole: where CR LF is cut, the LF is part of the next event.
    """

    events: tuple[Event, ...]
    data: bytes
    retry: int | None = None
    last_event_id: str = ""


@dataclass(slots=True, frozen=True, kw_only=True)
class _Block:
    """What stands between two blank lines. Without `data` it dispatches nothing."""

    data: tuple[str, ...] = ()
    type: str | None = None
    id: str | None = None
    retry: int | None = None
    noise: tuple[tuple[int, bytes], ...] = ()
    """Lines that mean nothing, and where they stand."""
    spaced: bool = True
    """One space behind the colon, where it may be left out."""
    late: bool = False
    """The other fields stand behind the data."""


def _line(*, without: str = "") -> st.SearchStrategy[str]:
    odd = st.text(st.characters(codec="utf-8", exclude_characters="\r\n" + without), max_size=4)
    usual = st.lists(st.sampled_from([f for f in _FRAGMENTS if "\n" not in f]), max_size=4).map("".join)
    return usual | odd


_NOISE = st.one_of(
    _line().map(lambda text: b":" + text.encode()),
    st.sampled_from((b"id: a\0b", b"retry: soon", b"retry:", b"unknown: field", b"x", b" data: no field", b"Data: no")),
)
_NAMES = st.sampled_from(("delta", "done", "error", "message", " spaced", "")) | _line()
_IDS = st.sampled_from(("1", "2", "", "海-3", " 4")) | _line(without="\0")
_BLOCKS = st.builds(
    _Block,
    data=st.lists(_line(), max_size=3).map(tuple),
    type=st.none() | _NAMES,
    id=st.none() | _IDS,
    retry=st.none() | st.integers(0, 100_000),
    noise=st.lists(st.tuples(st.integers(0, 5), _NOISE), max_size=2).map(tuple),
    spaced=st.booleans(),
    late=st.booleans(),
)
_ENDS = (b"\n", b"\r\n", b"\r")


def event_streams(*, max_events: int = 8) -> st.SearchStrategy[EventStream]:
    """Gives event streams in any legal spelling, of at most `max_events` blocks.

    Line ends of all three kinds, also mixed; a byte order mark; comments, ids, retry times, types, data of several
    lines; fields with and without a space, unknown ones; blocks that dispatch nothing, and an unfinished one at the
    end.
    """
    return st.builds(
        _spell,
        st.lists(_BLOCKS, max_size=max_events),
        # One kind of line end, or one after another: where lines are many, the pattern begins anew.
        st.sampled_from([(end,) for end in _ENDS]) | st.lists(st.sampled_from(_ENDS), min_size=2, max_size=7),
        bom=st.booleans(),
        blank=st.booleans(),
        tail=st.sampled_from((b"", b"data: cut off", b": a comm", b"id: 9", b"data", b"event: x")),
    )


def _spell(blocks: Sequence[_Block], ends: Sequence[bytes], *, bom: bool, blank: bool, tail: bytes) -> EventStream:
    data = bytearray(b"\xef\xbb\xbf" if bom else b"")
    events: list[Event] = []
    begin, count, last_id, retry = 0, 0, "", None

    def put(line: bytes) -> None:
        nonlocal count
        end = ends[count % len(ends)]
        if not line and end == b"\n" and data.endswith(b"\r"):
            end = b"\r"  # else the two would be one line end
        count += 1
        data.extend(line + end)

    for block in blocks:
        if blank:
            put(b"")
        for line in _lines(block):
            put(line)
        put(b"")
        last_id = last_id if block.id is None else block.id
        retry = retry if block.retry is None else block.retry
        if block.data:
            payload = "\n".join(block.data).encode()
            exact = bytes(data[begin:])
            events.append(Event(payload, begin, last_id, block.type or "message", block.id, exact))
            begin = len(data)
    return EventStream(events=tuple(events), data=bytes(data) + tail, retry=retry, last_event_id=last_id)


def _lines(block: _Block) -> list[bytes]:
    fields = [("event", block.type), ("id", block.id), ("retry", None if block.retry is None else str(block.retry))]
    others = [_field(name, value, block) for name, value in fields if value is not None]
    data = [_field("data", value, block) for value in block.data]
    lines = data + others if block.late else others + data
    for place, noise in block.noise:
        lines.insert(place, noise)
    return lines


def _field(name: str, value: str, block: _Block) -> bytes:
    if not value and not block.spaced:
        return name.encode()
    space = " " if block.spaced or value.startswith(" ") else ""
    return f"{name}:{space}{value}".encode()


# -- completions -------------------------------------------------------------------------------


@dataclass(slots=True, frozen=True)
class _Part:
    """A stretch of one channel, as a model stays in it: `reasoning`, `text`, `refusal`, or a tool call's arguments."""

    channel: str
    text: str
    name: str = ""


@dataclass(slots=True, frozen=True)
class _Plan:
    """One choice before it is put into words of the wire."""

    parts: tuple[_Part, ...]
    finish_reason: str


@dataclass(slots=True, frozen=True, kw_only=True)
class TrueAnswer:
    """One true answer, and one way to send it.

    `completion` is what a client must end up with (without a verdict), `payloads` the data of each event in order,
    `request` what a request's body must ask for to get it.
    """

    completion: Completion
    payloads: tuple[bytes, ...]
    request: dict[str, Any] = field(default_factory=dict)
    plans: tuple[_Plan, ...] = field(default=(), repr=False)
    """What `retellings()` needs; no part of the promise."""

    def events(self, *, ids: bool = False) -> tuple[bytes, ...]:
        """Gives the bytes of each event; with `ids` they are numbered from 1, the end mark being no part of it."""
        numbers = (f"id: {n}\n".encode() if ids and p != DONE else b"" for n, p in enumerate(self.payloads, 1))
        return tuple(b"%bdata: %b\n\n" % (number, p) for number, p in zip(numbers, self.payloads, strict=True))

    def wire(self, *, ids: bool = False) -> bytes:
        """Gives the whole body."""
        return b"".join(self.events(ids=ids))


def completions(dialect: str | Dialect = "openai", *, max_choices: int = 2) -> st.SearchStrategy[TrueAnswer]:
    """Gives true answers of a dialect, each with a way to send it: see `TrueAnswer`.

    Reasoning, text in several scripts with emoji, refusals, tool calls in fragments, several choices interleaved, usage
    in the places where providers put it, every finish reason; JSON with and without escapes and empty keys. Raises
    `UsageError` for a dialect of which none can be drawn.
    """
    dialect = find(dialect)
    if not isinstance(dialect.wire, ChatWire):
        raise UsageError(f"no completions can be drawn for the dialect {dialect.name!r}: it is not of the chat shape")
    plans = st.lists(_PLANS, min_size=1, max_size=max_choices).map(tuple)
    return plans.flatmap(_told)


def retellings(answer: TrueAnswer) -> st.SearchStrategy[TrueAnswer]:
    """Gives other ways to send the same answer, as a server does that is asked again: other pieces, other ids."""
    return _told(answer.plans)


_WORDS = st.lists(st.sampled_from(_FRAGMENTS), min_size=1, max_size=4).map("".join)
_ODD_WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=4)
_ARGUMENTS = st.sampled_from(("", "{}", '{"place": "海", "deep": [1, 2]}', '{"a": "\\n🌊"')) | _WORDS
_PARTS = st.lists(
    st.one_of(
        st.builds(_Part, st.sampled_from(("text", "text", "reasoning", "refusal")), _WORDS | _WORDS | _ODD_WORDS),
        st.builds(_Part, st.just("call"), _ARGUMENTS, st.sampled_from(("look", "look_up", "海"))),
    ),
    max_size=4,
)


def _plan(parts: list[_Part], reason: str) -> _Plan:
    return _Plan(tuple(parts), "tool_calls" if any(part.name for part in parts) else reason)


_PLANS = st.builds(_plan, _PARTS, st.sampled_from(("stop", "length", "content_filter")))


@dataclass(slots=True, frozen=True, kw_only=True)
class _Style:
    """How a server writes its chunks, where servers differ."""

    nulls: bool = False
    escapes: bool = False
    spaces: bool = False
    together: bool = False
    """Pieces of several choices stand in one chunk."""
    padded: bool = False
    """Pieces without words stand between the others."""
    reasoning_key: str = "reasoning_content"
    role: str = "first"
    usage: str = "own"
    answer_id: str = "a1"
    call: str = "call"


_STYLES = st.builds(
    _Style,
    nulls=st.booleans(),
    escapes=st.booleans(),
    spaces=st.booleans(),
    together=st.booleans(),
    padded=st.booleans(),
    reasoning_key=st.sampled_from(("reasoning_content", "reasoning")),
    role=st.sampled_from(("first", "every", "never")),
    usage=st.sampled_from(("own", "last", "every", "x_groq", "never")),
    answer_id=st.sampled_from(("a1", "chatcmpl-9", "海", "")),
    call=st.sampled_from(("call", "toolu", "9")),
)


@st.composite
def _told(draw: st.DrawFn, plans: tuple[_Plan, ...]) -> TrueAnswer:
    style = draw(_STYLES)
    pieces = [list(_pieces(plan, style, draw)) for plan in plans]
    order: list[int] = [n for n, some in enumerate(pieces) for _ in some]
    if len(plans) > 1:
        order = draw(st.permutations(order))
    queues = [iter(some) for some in pieces]
    choices = [{"index": n, **next(queues[n])} for n in order]
    usage = None if style.usage == "never" else _usage(len(choices), draw(st.integers(0, 40)))
    chunks = list(_chunks(choices, style, usage))
    compact = None if style.spaces else (",", ":")
    payloads = [json.dumps(c, ensure_ascii=style.escapes, separators=compact).encode() for c in chunks]
    whole = Completion(
        choices=tuple(_choice(n, plan, style) for n, plan in enumerate(plans)),
        usage=None if usage is None else _usage_of(usage),
    )
    request = {"n": len(plans)} if len(plans) > 1 else {}
    return TrueAnswer(completion=whole, payloads=(*payloads, DONE), request=request, plans=plans)


def _pieces(plan: _Plan, style: _Style, draw: st.DrawFn) -> Iterator[dict[str, Any]]:
    """Gives the choices' entries of one choice: a role, the parts in pieces, the finish reason."""
    role = {"role": "assistant"} if style.role == "every" else {}
    if style.role != "never":
        yield _entry({"role": "assistant", "content": ""}, style)
    calls = 0
    for part in plan.parts:
        texts = _cut_text(part.text, draw(st.lists(st.integers(0, len(part.text)), max_size=4)))
        if part.name:
            head = {"id": f"{style.call}_{calls}", "type": "function", "function": {"name": part.name, "arguments": ""}}
            head["function"]["arguments"] = texts.pop(0) if texts and not style.padded else ""  # type: ignore[index]
            # A role beside the beginning of a call says that an answer begins, as OpenAI's answers do.
            yield _entry({"tool_calls": [{"index": calls, **head}]}, style)
            for text in texts:
                yield _entry({**role, "tool_calls": [{"index": calls, "function": {"arguments": text}}]}, style)
            calls += 1
        else:
            key = {"text": "content", "reasoning": style.reasoning_key}.get(part.channel, part.channel)
            for text in texts:
                if style.padded:  # without a role: an empty piece that has one says that an answer begins
                    yield _entry({"content": ""}, style)
                yield _entry({**role, key: text}, style)
    yield _entry({**role, "content": ""} if style.padded else role, style, plan.finish_reason)


def _entry(delta: dict[str, Any], style: _Style, finish_reason: str | None = None) -> dict[str, Any]:
    if style.nulls:
        keys = ("role", "content", style.reasoning_key, "refusal", "tool_calls")
        return {"delta": {**dict.fromkeys(keys), **delta}, "logprobs": None, "finish_reason": finish_reason}
    return {"delta": delta, **({"finish_reason": finish_reason} if finish_reason else {})}


def _cut_text(text: str, places: list[int]) -> list[str]:
    ends = sorted(set(places))
    return [piece for a, b in zip([0, *ends], [*ends, len(text)], strict=True) if (piece := text[a:b])]


def _chunks(choices: list[dict[str, Any]], style: _Style, usage: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    shell: dict[str, Any] = {"id": style.answer_id} if style.answer_id else {}
    if style.nulls:
        shell |= {"object": "chat.completion.chunk", "created": 1_767_225_600, "system_fingerprint": None}
    groups: list[list[dict[str, Any]]] = []
    for choice in choices:
        if style.together and groups and all(choice["index"] != other["index"] for other in groups[-1]):
            groups[-1].append(choice)
        else:
            groups.append([choice])
    for number, group in enumerate(groups, 1):
        last = number == len(groups)
        chunk = {**shell, "choices": group}
        if usage is not None and style.usage == "every":
            chunk["usage"] = usage if last else {**usage, "completion_tokens": number, "total_tokens": number}
        elif usage is not None and style.usage == "x_groq" and last:
            chunk["x_groq"] = {"id": "req", "usage": usage}
        elif usage is not None and style.usage == "last" and last:
            chunk["usage"] = usage
        elif style.nulls:
            chunk["usage"] = None
        yield chunk
    if usage is not None and style.usage == "own":
        yield {**shell, "choices": [], "usage": usage}


def _usage(answered: int, cached: int) -> dict[str, Any]:
    asked = cached + 7
    return {
        "prompt_tokens": asked,
        "completion_tokens": answered,
        "total_tokens": asked + answered,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def _usage_of(raw: dict[str, Any]) -> Usage:
    return Usage(
        input_tokens=raw["prompt_tokens"],
        output_tokens=raw["completion_tokens"],
        total_tokens=raw["total_tokens"],
        cached_tokens=raw["prompt_tokens_details"]["cached_tokens"],
        reasoning_tokens=0,
        raw=raw,
    )


def _choice(index: int, plan: _Plan, style: _Style) -> Choice:
    said = {channel: "".join(p.text for p in plan.parts if p.channel == channel) for channel in _CHANNELS}
    calls = [part for part in plan.parts if part.name]
    whole = plan.finish_reason not in ("length", "content_filter")
    return Choice(
        index=index,
        **said,
        tool_calls=tuple(ToolCall(f"{style.call}_{n}", c.name, c.text, n, whole) for n, c in enumerate(calls)),
        finish_reason=plan.finish_reason,
    )


_CHANNELS = ("text", "reasoning", "refusal")

# -- schedules ---------------------------------------------------------------------------------


def schedules(
    faults: Sequence[Fault] = EVIDENT, *, min_faults: int = 0, max_faults: int = 4, within: int = 12, key: str = "*"
) -> st.SearchStrategy[Schedule]:
    """Gives schedules for one stream: what its attempts meet, in their order; after the last fault all is well.

    By default faults are evident ones, under which a client must be exact or raise. Those that strike at a place are
    the likelier ones, and get a place among the first `within` events. `key` is the stream's in the schedule, "*" being
    all. Shrinks to the fewest faults that still fail, each at the earliest place, those named first in `faults` being
    the simplest.
    """
    if not faults:
        raise ValueError("schedules(faults=...) needs at least one fault to draw")
    if within < 1:
        raise ValueError(f"schedules(within=...) is a number of events above 0, not {within!r}")
    placed = [fault for fault in faults if _has_place(fault)]
    others = [fault for fault in faults if not _has_place(fault)]
    kinds: list[st.SearchStrategy[Fault]] = []
    if placed:
        kinds += [_placed(st.sampled_from(placed), st.integers(0, within - 1))] * 2
    if others:
        kinds.append(st.sampled_from(others))
    met = st.lists(st.one_of(kinds), min_size=min_faults, max_size=max_faults)
    return _schedules(key, met)


@st.composite
def _schedules(draw: st.DrawFn, key: str, met: st.SearchStrategy[list[Fault]]) -> Schedule:
    """Of what `map` and `builds` make Hypothesis prints how it was made, names of ours included; of this, its repr."""
    return Schedule(streams={key: draw(met)})


def _has_place(fault: Fault) -> bool:
    return isinstance(fault, msgspec.Struct) and isinstance(getattr(fault, "after", None), int)


@st.composite
def _placed(draw: st.DrawFn, faults: st.SearchStrategy[Any], places: st.SearchStrategy[int]) -> Fault:
    moved: Fault = msgspec.structs.replace(draw(faults), after=draw(places))
    return moved


__all__ = ["EventStream", "TrueAnswer", "chunkings", "completions", "event_streams", "retellings", "schedules"]
