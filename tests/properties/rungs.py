"""Every dialect on every rung: how each is asked, what stands behind it, and what the promise says of each run.

A `Way` is a dialect and a rung that it has; `WAYS` are all of them. `play()` runs one over a `ChaosServer` in memory
that plays that rung's side; `hold()` is the law. The truth is the answer that was written for the server, never what
the library made of its bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Literal, cast

from holdfast._errors import StreamError
from holdfast._types import Completion, Delta, Guarantee, Partial
from holdfast.client import Client
from holdfast.dialects import DIALECTS, Dialect, Timeouts
from holdfast.machines.ladder import Rung, Seams
from holdfast.moments import Moment, Report
from holdfast.testing import FakeClock
from holdfast.testing.answers import Answer, CalledTool, in_pieces
from holdfast.testing.chaos import ChaosServer, Mode
from holdfast.testing.continuing import Continuing
from holdfast.testing.faults import CleanCut, CutAtByte, Fault, ResetMidStream, StallMidStream
from holdfast.testing.idiom import Idiom
from holdfast.testing.schedule import Schedule
from holdfast.testing.server import ReceivedRequest
from holdfast.testing.shapes import ChatShape, InteractionsShape, PlainShape, Question, Shape, idiom_of
from holdfast.testing.shapes._shape import event, route
from tests.properties.judge import Said, begins, said
from tests.properties.laws import said_of, said_of_deltas
from tests.properties.upstream import ChaosSource

PROMPT = "kelp"
WITHIN = Timeouts(open=5, first_token=5, progress=2, total=300)
Ending = Literal["reset", "clean", "stall"]
ENDINGS: tuple[Ending, ...] = ("reset", "clean", "stall")

# -- answers -----------------------------------------------------------------------------------

_CALL = CalledTool(id="call_0a1b2c3d4e5f", name="look_up", pieces=('{"query"', ":", '"固着', '器"', "}"))
ANSWER = Answer(
    reasoning_pieces=("The", " moon", "先"),
    pieces=in_pieces("Every wave pulls, and 海藻 bends."),
    tools=(_CALL,),
)
"""Short, and with all that an answer may have."""
WORDS = Answer(pieces=in_pieces("Every wave pulls, and 海藻 bends, and holds on."))
"""Text alone: what plain events can say, and what every model continues."""


def another(answer: Answer) -> Answer:
    """An answer that begins like this one, and differs in one word: what a comparison must not be too lazy to find."""
    return replace(answer, pieces=(*answer.pieces[:4], " but", *answer.pieces[5:]))


# -- servers -----------------------------------------------------------------------------------


class RpcShape:
    """A tool of an MCP server: notifications, and at last the response; a GET with a place asks for the rest."""

    def read(self, request: ReceivedRequest) -> Question | None:
        return Question(prompt=route(request))

    def events(self, answer: Answer, answer_id: str, *, ids: bool) -> list[bytes]:
        def message(**said: Any) -> str:
            return json.dumps({"jsonrpc": "2.0", **said}, ensure_ascii=False)

        notes = [message(method="notifications/message", params={"data": piece}) for piece in answer.pieces]
        datas = ["", *notes, message(id=1, result={"content": []})]
        return [event(data, id=f"{answer_id[:4]}-{n}" if ids else None) for n, data in enumerate(datas, 1)]


@dataclass(slots=True, frozen=True, kw_only=True)
class Home:
    """How one dialect is asked for `PROMPT`, and how it streams an answer."""

    body: Mapping[str, Any]
    shape: Shape | None = None
    answer: Answer = ANSWER
    background: Mapping[str, Any] = field(default_factory=dict)
    """What a request says besides to be kept by the provider."""
    key: str = PROMPT


_CHAT = {"model": "m", "messages": [{"role": "user", "content": PROMPT}]}
_MESSAGES = {"model": "claude-sonnet-4-5", "max_tokens": 4096, "messages": [{"role": "user", "content": PROMPT}]}
_STORED = {"model": "gemini-3-flash", "input": PROMPT}
_OPENAI = ChatShape(style="openai")
_THINKING = ChatShape(style="openai", reasoning="reasoning")

HOMES: dict[str, Home] = {
    **{name: Home(body=_CHAT, shape=_OPENAI) for name in ("openai", "azure", "llama.cpp", "sglang")},
    "vllm": Home(body=_CHAT, shape=ChatShape(style="openai", reasoning="reasoning", strict=True)),
    **{name: Home(body=_CHAT, shape=_THINKING) for name in ("openrouter", "groq", "ollama", "perplexity")},
    **{name: Home(body=_CHAT) for name in ("deepseek", "mistral", "openai-compatible")},
    "openai-responses": Home(body={"model": "m", "input": PROMPT}, background={"background": True}),
    "deepseek-responses": Home(body={"model": "m", "input": PROMPT}),
    "anthropic": Home(body=_MESSAGES),
    "deepseek-anthropic": Home(body=_MESSAGES),
    "gemini": Home(body={"model": "gemini-3-flash", "contents": [{"role": "user", "parts": [{"text": PROMPT}]}]}),
    "gemini-interactions": Home(body=_STORED, shape=InteractionsShape(), background={"store": True}),
    "cohere": Home(body={"model": "command", "messages": [{"role": "user", "content": PROMPT}]}),
    "mcp": Home(
        body={"jsonrpc": "2.0", "id": 1, "method": "tools/call"},
        shape=cast("Shape", RpcShape()),
        answer=WORDS,
        key="",
    ),
    "replicate": Home(body={"prompt": PROMPT}, shape=PlainShape(), answer=WORDS),
    "sse": Home(body={"prompt": PROMPT}, shape=PlainShape(), answer=WORDS),
}
GUARANTEES: dict[Rung, Guarantee] = {
    "last-event-id": "exact",
    "cursor": "exact",
    "replay": "verified",
    "prefix": "seamed",
}
_MODES: dict[Rung, Mode] = {"last-event-id": "ids", "cursor": "no-ids", "replay": "no-ids", "prefix": "prefix"}


@dataclass(slots=True, frozen=True, kw_only=True)
class Way:
    """A dialect and one of its rungs, with the server's side of it: `mode` and, for a prefix, how the model goes on."""

    dialect: str
    rung: Rung
    continuing: Continuing = "rest"
    mode: Mode | None = None
    answer: Answer | None = None
    use: Dialect | None = None
    """The dialect where it is not the library's own."""

    def __str__(self) -> str:
        told = "" if self.mode is None else f" {self.mode}"
        return f"{self.dialect} {self.rung}{told}" + (f" {self.continuing}" if self.rung == "prefix" else "")

    @property
    def home(self) -> Home:
        """Where the dialect is spoken."""
        return HOMES[self.dialect]

    @property
    def of(self) -> Dialect:
        """The dialect itself."""
        return self.use or DIALECTS[self.dialect]

    @property
    def body(self) -> dict[str, Any]:
        """What is asked."""
        background = self.home.background
        kept = background if self.rung == "cursor" else {name: False for name in background if name == "store"}
        return {**self.home.body, **kept}

    @property
    def truth(self) -> Answer:
        """The answer that the first attempt is told."""
        return self.answer or self.home.answer

    def with_answer(self, answer: Answer) -> Way:
        """The same way to another answer."""
        return replace(self, answer=answer)

    def server(self, met: Sequence[Fault] = ()) -> ChaosServer:
        """Makes the upstream, whose attempts meet these faults, one after another."""
        truth = self.truth
        return ChaosServer(
            schedule=Schedule(streams={"*": met}),
            mode=self.mode or _MODES[self.rung],
            continuing=self.continuing,
            write=lambda seed: another(truth) if len(seed.split()) > 2 else truth,
            shape=self.home.shape,
        )

    def healthy(self) -> list[bytes]:
        """The events of an answer that nothing happens to."""
        return self._asked()[0]

    @property
    def idiom(self) -> Idiom:
        """How faults say things here."""
        return idiom_of(self._asked()[1])

    def _asked(self) -> tuple[list[bytes], Shape]:
        server = self.server()
        request = ReceivedRequest(
            method="POST",
            path=self.of.url("http://h", self.body).removeprefix("http://h"),
            body=json.dumps(self.body).encode(),
            headers={"x-conversation-id": "c"} if self.of.call_header and self.rung == "cursor" else {},
        )
        for shape in server._shapes:
            if (question := shape.read(request)) is not None:
                name = server._name(self.home.key, 1)
                spoken = question.shape or shape
                return spoken.events(self.truth, name, ids=server.mode == "ids"), spoken
        raise AssertionError(f"no shape reads a request of {self.dialect}")


def _ways() -> list[Way]:
    ways = []
    for name, dialect in DIALECTS.items():
        ways.append(Way(dialect=name, rung="last-event-id"))
        if dialect.cursor is not None:
            ways.append(Way(dialect=name, rung="cursor"))
        if dialect.replayable:
            ways.append(Way(dialect=name, rung="replay"))
        if dialect.prefix is not None:
            # A thought of Anthropic's is signed, and cannot be given back.
            answer = replace(ANSWER, pieces=WORDS.pieces, reasoning_pieces=() if name == "anthropic" else ("先",))
            kinds: tuple[Continuing, ...] = ("rest", "echo", "word", "space")
            ways += [Way(dialect=name, rung="prefix", continuing=how, answer=answer) for how in kinds]
    return ways


WAYS = _ways()
"""Every dialect on every rung that it has."""
SPEAKERS = {"deepseek", "openai", "llama.cpp", "openai-responses", "anthropic", "gemini", "gemini-interactions"}
SPEAKERS |= {"cohere", "mcp", "replicate", "sse"}
"""One dialect for each wire, and those with a rung of their own; the others differ in their tables alone."""
FEW = [way for way in WAYS if way.dialect in SPEAKERS]

# -- a run -------------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class Told:
    """What came of a run."""

    way: Way
    deltas: list[Delta]
    error: StreamError | None
    completion: Completion | None
    report: Report
    partial: Partial
    moments: list[Moment]
    server: ChaosServer
    live: int


def cut(place: int, how: Ending) -> Fault:
    """A cut behind so many events."""
    if how == "stall":
        return StallMidStream(after=place)
    if how == "reset":
        return ResetMidStream(after=place)
    return CleanCut(after=place)


def cut_at_byte(byte: int, how: Ending) -> Fault:
    """A cut behind so many bytes."""
    return CutAtByte(byte=byte, how="clean" if how == "clean" else "reset")


async def play(
    way: Way,
    clock: FakeClock,
    server: ChaosServer,
    *,
    seams: Seams | None = None,
    resume: Partial | None = None,
    at_once: int = 3,
) -> Told:
    """Asks a server once, with a client that may climb this way's rung alone."""
    source, moments = ChaosSource(server, at_once), list[Moment]()
    policy = seams if seams is not None else Seams(rungs=(way.rung,), max_repaid_tokens=100_000)
    client = Client(
        way.of,
        api_key="k",
        base_url=way.of.base_url or "http://upstream",
        source=source,
        clock=clock,
        random=Random(0),
        timeouts=WITHIN,
        seams=policy,
        max_requests=12,
        listeners=[moments.append],
    )
    deltas, error = list[Delta](), None
    reader = client.stream(way.body) if resume is None else client.resume(resume)
    try:
        async with reader:
            async for delta in reader:
                deltas.append(delta)
    except StreamError as failure:
        error = failure
    return Told(
        way=way,
        deltas=deltas,
        error=error,
        completion=None if error is not None else reader.completion,
        report=reader.report,
        partial=reader.partial,
        moments=moments,
        server=server,
        live=source.live,
    )


def _ended_by_the_book(told: Told) -> bool:
    faults = told.server.schedule.streams["*"]
    return any(isinstance(fault, CleanCut) or getattr(fault, "how", "") == "clean" for fault in faults)


# -- the law -----------------------------------------------------------------------------------


def truth_of(way: Way, answer: Answer, finish_reason: str | None) -> Said:
    """What deltas must say of an answer, in the form of `judge.said()`; `finish_reason` is the provider's word."""
    if way.dialect in ("sse", "mcp"):  # each event is said as it is
        whole = way.healthy() if answer == way.truth else []
        return {0: [("text", character) for told in whole for character in _data(told)]}
    tape = [("reasoning", c) for c in answer.reasoning] + [("text", c) for c in answer.text]
    tape += [("refusal", c) for c in answer.refusal]
    for number, tool in enumerate(answer.tools):
        tape += [(f"name {number}", c) for c in tool.name] + [(f"arguments {number}", c) for c in tool.arguments]
    return {0: [*tape, ("finish", finish_reason)] if finish_reason is not None else tape}


def _data(told: bytes) -> str:
    lines = [line[6:] for line in told.decode().splitlines() if line.startswith("data: ")]
    return "\n".join(lines)


def hold(
    told: Told,
    uncut: Completion,
    *,
    before: Sequence[Delta] = (),
    may_fail: bool = False,
    alone: bool = False,
    rungs: Sequence[Rung] = (),
) -> None:
    """The promise. `before` is what another process delivered.

    `may_fail`: the rung need not lead on from there. `alone`: no rung was allowed, so that nothing could be asked for.
    `rungs` are those that may be climbed besides this way's own.
    """
    way, error = told.way, told.error
    heard = said([*before, *told.deltas])
    # Where nothing had been delivered, the next attempt's answer is as good as the first.
    truths = [truth_of(way, answer, uncut.finish_reason) for answer in told.server.answers(way.home.key)]
    assert any(begins(heard, whole) for whole in truths), f"no beginning of an answer: {heard}"
    assert told.live == 0, "something was left open"
    _hold_seams(told, (told.way.rung, *rungs))
    if error is not None:
        assert error.partial is not None
        assert said_of(error.partial.answer) == said_of_deltas([*before, *told.deltas])
        assert may_fail, f"{error!r} after {sum(map(len, heard.values()))} characters"
        return
    assert heard in truths, "an end that is none"
    assert told.completion is not None
    if heard == truths[0]:
        _hold_completion(told.completion, told, uncut, alone=alone, refused="replay" in rungs)


def _hold_seams(told: Told, rungs: Sequence[Rung]) -> None:
    """Every seam names a rung that could be climbed and what it vouches for, and the verdict the weakest of them."""
    report = told.report
    assert {(seam.rung, seam.guarantee) for seam in report.seams} <= {(rung, GUARANTEES[rung]) for rung in rungs}
    if told.error is None:
        assert report.verdict is not None
        assert report.verdict.seams == len(report.seams)
        weakest = max((seam.guarantee for seam in report.seams), key=list(GUARANTEES.values()).index, default=None)
        assert report.verdict.guarantee == weakest


def _hold_completion(completion: Completion, told: Told, uncut: Completion, *, alone: bool, refused: bool) -> None:
    """The uncut answer, id for id; over a seam of a model's own, all but what the tokens were counted to be."""
    assert completion.choices == uncut.choices
    seams = told.report.seams
    if any(seam.guarantee == "seamed" for seam in seams):
        assert completion.usage is not None
        assert completion.usage.estimated
    elif completion.usage is None and uncut.usage is not None:
        # A second answer is not bought for a count of tokens; and a body that ended by the book behind the proof ended.
        dear = told.way.rung in ("replay", "prefix") or refused
        assert alone or dear or _ended_by_the_book(told), "its usage could have been asked for"
    else:
        assert completion.usage == uncut.usage
