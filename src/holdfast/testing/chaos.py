"""An LLM upstream in a box: a provider's API on real TCP, whose replies fail as a schedule says.

It never draws anything at random while it serves: what a client gets is a function of the seed, the prompt and how
often that prompt was asked, so every run can be had again. It knows no fault by name: a fault is a value that says what
becomes of the healthy reply.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self

from holdfast.testing import server
from holdfast.testing.acts import event_id
from holdfast.testing.answers import Answer, ChatShape, Question, Shape, write_answer
from holdfast.testing.books import Books, Served
from holdfast.testing.schedule import Schedule
from holdfast.testing.server import ReceivedRequest, Reply, ScriptedServer

Mode = Literal["ids", "no-ids", "divergent", "prefix"]
"""What a second request for the same prompt gets.

`ids`: the rest after its Last-Event-ID; `no-ids`: the same answer from its beginning; `divergent`: another answer;
`prefix`: another answer, too, but a request whose last message is an assistant's with `"prefix": true` gets the rest.
"""


@dataclass(slots=True, kw_only=True)
class ChaosServer:
    """Answers every question as the schedule says, `every` seconds an event, on a free `port` unless told.

    An asynchronous context manager. `url` is what a client takes for a base URL. A stream's key is its prompt, in
    `schedule` and in `modes`, which are over `mode`. `answer(prompt)` is the truth, and `answers(prompt)` all that any
    attempt was told; `served` lists what was done, `attempts` counts it by prompt, and `server` counts connections.
    `schedule`, `mode` and the rest may be changed between requests.
    """

    schedule: Schedule = field(default_factory=Schedule)
    mode: Mode = "no-ids"
    modes: Mapping[str, Mode] = field(default_factory=dict)
    seed: int = 0
    every: float = 0.0
    sentences: int = 6
    shape: Shape = field(default_factory=ChatShape)
    host: str = "127.0.0.1"
    port: int = 0
    heard: Callable[[Served], None] | None = None
    server: ScriptedServer = field(init=False)
    books: Books = field(init=False)

    def __post_init__(self) -> None:
        self.server = ScriptedServer(self._reply, host=self.host, port=self.port)
        self.books = Books(self.heard)

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
        return write_answer(seed, sentences=self.sentences)

    def answers(self, prompt: str) -> list[Answer]:
        """Gives every answer that the attempts so far were told: what a client delivers must be one of them."""
        asked = range(1, self.attempts.get(prompt, 0) + 1)
        return list(dict.fromkeys(self.answer(prompt, attempt) for attempt in asked))

    def _mode(self, prompt: str) -> Mode:
        return self.modes.get(prompt, self.mode)

    def _reply(self, request: ReceivedRequest) -> Reply:
        question = self.shape.read(request)
        if question is None:
            body = b'{"error": {"message": "this is no request for a completion", "type": "invalid_request_error"}}'
            return server.respond(body, 400, content_type="application/json")
        served = self.books.open(self.schedule, question.prompt, request.headers.get("last-event-id", ""))
        last = "" if served.fault.forgets else served.last_event_id
        events, continues = self._events(question, served.attempt, last)
        return self.books.steps(served, self._paced(events), continues=continues)

    async def _paced(self, events: list[bytes]) -> AsyncGenerator[bytes, None]:
        for event in events:
            yield event
            if self.every:
                await asyncio.sleep(self.every)

    def _events(self, question: Question, attempt: int, last: str) -> tuple[list[bytes], bool]:
        """Gives what a healthy reply would send, and whether it goes on from a prefix."""
        prompt, mode = question.prompt, self._mode(question.prompt)
        # A server that can resume keeps the answer and its id; others begin anew, with a new id.
        answer_id = f"chat-{self.seed}" if mode == "ids" else f"chat-{self.seed}-{attempt}"
        answer, rest = self.answer(prompt, attempt), None
        if question.prefix is not None and mode == "prefix":
            rests = (told.rest(question.prefix) for told in self.answers(prompt))
            rest = next((rest for rest in rests if rest is not None), None)
        events = self.shape.events(rest or answer, answer_id, ids=mode == "ids")
        if mode == "ids" and last:
            place = next((number for number, event in enumerate(events, 1) if event_id(event) == last), 0)
            events = events[place:]
        return events, rest is not None

    async def __aenter__(self) -> Self:
        await self.server.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.server.__aexit__(kind, error, trace)


__all__ = ["ChaosServer", "Mode"]
