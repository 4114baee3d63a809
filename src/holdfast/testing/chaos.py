"""An LLM upstream in a box: the providers' APIs on real TCP, whose replies fail as a schedule says.

It never draws anything at random while it serves: what a client gets is a function of the seed, the prompt and how
often that prompt was asked, so every run can be had again. It knows no fault by name: a fault is a value that says what
becomes of the healthy reply. It knows no provider either: shapes do.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Literal, Self

from holdfast._clock import Clock, SystemClock
from holdfast.testing import server
from holdfast.testing.acts import event_id
from holdfast.testing.answers import Answer, in_pieces, write_answer
from holdfast.testing.books import Books, Served
from holdfast.testing.continuing import Continuing, continued
from holdfast.testing.keeping import Keeper, Kept
from holdfast.testing.schedule import Schedule
from holdfast.testing.server import ReceivedRequest, Reply, ScriptedServer
from holdfast.testing.shapes import SHAPES, Question, Shape, idiom_of
from holdfast.testing.shapes._shape import compact, route
from holdfast.testing.unasked import models_at, refusal_of
from holdfast.testing.visits import read_visit

Mode = Literal["ids", "no-ids", "divergent", "prefix"]
"""What a second request for the same prompt gets.

`ids`: the rest after its Last-Event-ID; `no-ids`: the same answer from its beginning; `divergent`: another answer;
`prefix`: another answer, too, but a request that brings the beginning of one in its dialect's way gets the rest, as
`continuing` says.
"""


@dataclass(slots=True, kw_only=True)
class ChaosServer:
    """Answers every question as the schedule says, `every` seconds an event, on a free `port` unless told.

    An asynchronous context manager. `url` is what a client takes for a base URL. A stream's key is its prompt, in
    `schedule` and in `modes`, which are over `mode`. `answer(prompt)` is the truth, and `answers(prompt)` all that any
    attempt was told; `served` lists what was done, `attempts` counts it by prompt, and `server` counts connections.
    `schedule`, `mode` and the rest may be changed between requests.

    What a request is for is known by its path and body; a `shape` takes only requests of its own. One that says
    `"stream": false`, or says nothing of it and accepts JSON alone, gets a document, whole and without a fault, where
    its shape has such a form. Answers have so many
    `sentences`, `thoughts` (0 to 2) before them and `tools` behind, unless `write` writes them, which is given a seed
    and gives an `Answer`. What a provider keeps for later can be gone on with until `window` seconds have passed on
    `clock`, or within the last `ring` bytes. Who bears a stall for `patience` seconds, real ones, is reset, and noted
    as `stuck` in `served`; None waits as long as the client does.
    """

    schedule: Schedule = field(default_factory=Schedule)
    mode: Mode = "no-ids"
    modes: Mapping[str, Mode] = field(default_factory=dict)
    continuing: Continuing = "rest"
    seed: int = 0
    every: float = 0.0
    sentences: int = 6
    thoughts: int = 2
    tools: int = 0
    write: Callable[[str], Answer] | None = None
    shape: Shape | None = None
    window: float = 300.0
    ring: int = 4 * 2**20
    clock: Clock = field(default_factory=SystemClock)
    host: str = "127.0.0.1"
    port: int = 0
    patience: float | None = None
    heard: Callable[[Served], None] | None = None
    server: ScriptedServer = field(init=False)
    books: Books = field(init=False)
    _keeper: Keeper = field(init=False)

    def __post_init__(self) -> None:
        self.server = ScriptedServer(self._reply, host=self.host, port=self.port)
        self.books = Books(self.heard)
        self._keeper = Keeper(books=self.books, clock=self.clock, window=self.window, ring=self.ring)

    @property
    def url(self) -> str:
        """The base URL."""
        return self.server.url

    @property
    def served(self) -> list[Served]:
        """Every request for an answer, in the order they came."""
        return self.books.served

    @property
    def attempts(self) -> dict[str, int]:
        """How often each prompt was asked."""
        return self.books.attempts

    @property
    def summary(self) -> dict[str, Any]:
        """What was done, in sums."""
        return self.books.summary

    def answer(self, prompt: str, attempt: int = 1) -> Answer:
        """Gives the answer to a prompt; only where answers diverge has another attempt another one."""
        divergent = self._mode(prompt) in ("divergent", "prefix") and attempt > 1
        seed = f"{self.seed} {prompt} {attempt}" if divergent else f"{self.seed} {prompt}"
        if self.write is None:
            return write_answer(seed, sentences=self.sentences, thoughts=self.thoughts, tools=self.tools)
        written: object = self.write(seed)
        if not isinstance(written, Answer):
            kind = type(written).__name__
            raise TypeError(f"ChaosServer(write=...) must give an Answer, such as Answer.of(text), not {kind}")
        return written

    def answers(self, prompt: str) -> list[Answer]:
        """Gives every answer that the attempts so far were told: what a client delivers must be one of them."""
        asked = range(1, self.attempts.get(prompt, 0) + 1)
        return list(dict.fromkeys(self.answer(prompt, attempt) for attempt in asked))

    def _mode(self, prompt: str) -> Mode:
        return self.modes.get(prompt, self.mode)

    def _reply(self, request: ReceivedRequest) -> Reply:
        self.books.patience = self.patience
        if (visit := read_visit(request)) is not None:
            self._keeper.window, self._keeper.ring, self._keeper.clock = self.window, self.ring, self.clock
            return self._keeper.reply(visit, self.schedule)
        for shape in self._shapes:
            if (question := shape.read(request)) is not None:
                return self._answered(question, question.shape or shape, request.headers.get("last-event-id", ""))
        return server.respond(*self._no_question(request), content_type="application/json")

    def _no_question(self, request: ReceivedRequest) -> tuple[bytes, int]:
        if request.method == "GET" and route(request).endswith("/models"):
            return compact(models_at(route(request))).encode(), 200
        return refusal_of(request), 400

    @property
    def _shapes(self) -> Sequence[Shape]:
        return SHAPES if self.shape is None else (self.shape,)

    def _answered(self, question: Question, shape: Shape, last: str) -> Reply:
        key, idiom = question.prompt, idiom_of(shape)
        if question.refused:
            self.books.refused(key, 400, prefix=question.prefix is not None)
            body = idiom.document(400, "invalid_request_error", question.refused)
            return server.respond(body, 400, content_type="application/json")
        if question.whole and (document := getattr(shape, "document", None)) is not None:
            answer = self.answer(key).cut(question.max_tokens)
            body = compact(document(answer, self._name(key, 1))).encode()
            self.books.whole(key, tokens=answer.tokens, size=len(body))
            return server.respond(body, content_type="application/json")
        served = self.books.open(self.schedule, key, last, prefix=question.prefix is not None)
        last = "" if served.fault.forgets else last
        events, place = self._events(question, shape, served.attempt, last)
        if question.keep and not last:
            kept = Kept(served=served, events=events, idiom=idiom, every=self.every, at=self.clock.now())
            self._keeper.keep(question.keep_as or self._name(key, served.attempt), kept)
            return self.books.steps(served, kept.read(), place=place, idiom=idiom, paid=True)
        return self.books.steps(served, self._paced(events), place=place, idiom=idiom, paid=question.keep)

    async def _paced(self, events: list[bytes]) -> AsyncGenerator[bytes, None]:
        for event in events:
            yield event
            if self.every:
                await asyncio.sleep(self.every)

    def _name(self, prompt: str, attempt: int) -> str:
        """Gives an answer's id: a server that can resume keeps the answer and its id, others begin anew."""
        which = "" if self._mode(prompt) == "ids" else attempt
        return hashlib.sha256(f"{self.seed} {prompt} {which}".encode()).hexdigest()[:24]

    def _events(self, question: Question, shape: Shape, attempt: int, last: str) -> tuple[list[bytes], int | None]:
        """Gives what a healthy reply would send, and the place of its first event where no id tells it."""
        prompt, mode = question.prompt, self._mode(question.prompt)
        answer, place = self.answer(prompt, attempt), None
        if question.prefix is not None and mode == "prefix":
            rests = (told.rest(question.prefix) for told in self.answers(prompt))
            if (rest := next((rest for rest in rests if rest is not None), None)) is not None:
                # No event of it was ever sent before.
                answer, place = continued(rest, question.prefix, self.continuing), self.books.furthest(prompt)
        # A beginning that is sent back is read as the prompt is, and billed with it, whatever becomes of it.
        brought = len(in_pieces(question.prefix or "")) + len(in_pieces(question.thought))
        answer = replace(answer, prompt_tokens=answer.prompt_tokens + brought)
        events = shape.events(answer.cut(question.max_tokens), self._name(prompt, attempt), ids=mode == "ids")
        if mode == "ids" and last:
            begin = next((number for number, event in enumerate(events, 1) if event_id(event) == last), 0)
            events = events[begin:]
        return events, place

    async def __aenter__(self) -> Self:
        await self.server.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.server.__aexit__(kind, error, trace)


__all__ = ["ChaosServer", "Mode"]
