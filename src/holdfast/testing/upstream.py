"""An upstream in a box: DeepSeek's chat API on real TCP, whose replies fail as a schedule says.

It never draws anything at random while it serves: what a client gets is a function of the seed, the prompt and how
often that prompt was asked, so every run can be had again. A fault is a value that turns the healthy reply into the
steps of a `ScriptedServer`; a new fault needs no change here. The chat shape is that of https://api-docs.deepseek.com.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from random import Random
from types import TracebackType
from typing import Any, Literal, Protocol, Self

from holdfast.testing import server
from holdfast.testing.server import Close, Pause, ReceivedRequest, Repeat, Reset, ScriptedServer, Send, Step

Mode = Literal["ids", "no-ids", "divergent"]
"""What a second request for the same prompt gets: `ids`, the rest after its Last-Event-ID; `no-ids`, the same answer
from its beginning; `divergent`, another answer."""

DONE = b"data: [DONE]\n\n"
HEAD = server.head(
    content_type="text/event-stream; charset=utf-8", cache_control="no-cache", transfer_encoding="chunked"
)

# -- answers -----------------------------------------------------------------------------------

_THOUGHTS = (
    "The question is about tides, so the moon comes first.",
    "先想一想：海藻为什么不会被冲走？",
    "A short answer in two languages will do.",
    "应该先说原因，再举一个例子。",
)
_SENTENCES = (
    "A holdfast is no root: it takes nothing from the rock, it only keeps its grip. 🌊",
    "海藻没有根，它用固着器抓住礁石，任凭潮水来去。",
    "Every wave pulls, and the kelp answers by bending instead of breaking.",
    "潮起潮落，一天两次；岩石还在那里，海藻也还在那里。🌙",
    "What the current tears off drifts ashore, and the plant grows on from where it was torn.",
    "风浪越大，抓得越紧；断了，就从断处再长。🪨",
    "Fishermen — and otters — know the forest by its canopy, naïve visitors by its smell. 🦦",
    "水下的森林随着洋流摇摆，小鱼在叶片之间穿行。🐟",
    "At the edge of the map the depth is given in fathoms: 12, 40, then nothing.",
    "“别松手。”老渔夫说，“等浪过去。”⚓",
)


@dataclass(slots=True, frozen=True, kw_only=True)
class Answer:
    """One true answer: the pieces a model would stream, and what they add up to."""

    reasoning_pieces: tuple[str, ...] = ()
    pieces: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """What a client must end up with."""
        return "".join(self.pieces)

    @property
    def reasoning(self) -> str:
        """What the model thought aloud before it."""
        return "".join(self.reasoning_pieces)

    def payloads(self, answer_id: str, *, model: str = "deepseek-flash") -> list[bytes]:
        """Gives the data of each event: a role, the reasoning, the text, and a finish reason with the usage."""
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": None, "reasoning_content": ""}]
        deltas += [{"content": None, "reasoning_content": piece} for piece in self.reasoning_pieces]
        deltas += [{"content": piece, "reasoning_content": None} for piece in self.pieces]
        shell = {"id": answer_id, "object": "chat.completion.chunk", "created": 1_767_225_600, "model": model}
        chunks = [{**shell, "choices": [_choice(delta)], "usage": None} for delta in deltas]
        ending = _choice({"content": "", "reasoning_content": None}, "stop")
        chunks.append({**shell, "choices": [ending], "usage": self._usage()})
        return [json.dumps(chunk, ensure_ascii=False, separators=(",", ":")).encode() for chunk in chunks]

    def _usage(self) -> dict[str, Any]:
        thought, said, asked = len(self.reasoning_pieces), len(self.pieces), 19
        return {
            "prompt_tokens": asked,
            "completion_tokens": thought + said,
            "total_tokens": asked + thought + said,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": thought},
            "prompt_cache_hit_tokens": 0,
            "prompt_cache_miss_tokens": asked,
        }


def _choice(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}


def write_answer(seed: int | str, *, sentences: int = 6) -> Answer:
    """Writes an answer of some sentences in English and Chinese; the same seed writes the same one."""
    chance = Random(f"answer {seed}")  # noqa: S311 - a reproducible text is the point
    thoughts = chance.sample(_THOUGHTS, 2)
    chosen = [s for _ in range(-(-sentences // len(_SENTENCES))) for s in chance.sample(_SENTENCES, len(_SENTENCES))]
    lines = chosen[:sentences]
    text = "\n\n".join(" ".join(lines[start : start + 2]) for start in range(0, len(lines), 2))
    return Answer(reasoning_pieces=_pieces(" ".join(thoughts)), pieces=_pieces(text))


def _pieces(text: str) -> tuple[str, ...]:
    """Cuts a text as tokenizers do: Latin words with the blank before them, Chinese characters two at a time."""
    return tuple(re.findall(r"\s?[\u4e00-\u9fff]{1,2}|\s*[A-Za-z0-9ï']+|\s*[^\w\s]|\s+", text))


# -- faults ------------------------------------------------------------------------------------


@dataclass(slots=True, frozen=True, kw_only=True)
class Wire:
    """What a healthy reply would send: whole events, `every` seconds one. A fault plays as much of it as it likes."""

    events: tuple[bytes, ...]
    every: float = 0.0

    def begin(self, events: int | None = None) -> Iterator[Step]:
        """Gives the steps for the head and the first so many events, by default all."""
        yield Send(HEAD)
        for event in self.events[:events]:
            yield Send(server.chunked(event))
            if self.every:
                yield Pause(self.every)


class Fault(Protocol):
    """One way a reply goes. `str()` of it names it for a person."""

    def steps(self, wire: Wire) -> Iterator[Step]:
        """Gives the steps that take the place of the healthy reply."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Healthy:
    """Nothing goes wrong."""

    def steps(self, wire: Wire) -> Iterator[Step]:
        yield from wire.begin()
        yield Send(server.LAST_CHUNK)

    def __str__(self) -> str:
        return "no fault"


@dataclass(slots=True, frozen=True, kw_only=True)
class ResetMidStream:
    """The connection is reset after so many events."""

    after: int

    def steps(self, wire: Wire) -> Iterator[Step]:
        yield from wire.begin(self.after)
        yield Reset()

    def __str__(self) -> str:
        return "reset mid-stream"


@dataclass(slots=True, frozen=True, kw_only=True)
class CleanCut:
    """The body ends by the book after so many events, and the answer is not whole."""

    after: int

    def steps(self, wire: Wire) -> Iterator[Step]:
        yield from wire.begin(self.after)
        yield Send(server.LAST_CHUNK)

    def __str__(self) -> str:
        return "clean truncation"


@dataclass(slots=True, frozen=True, kw_only=True)
class FinInsideChunk:
    """The connection is closed in the middle of the event that would come after so many."""

    after: int

    def steps(self, wire: Wire) -> Iterator[Step]:
        yield from wire.begin(self.after)
        rest = b"".join(wire.events[self.after : self.after + 1]) or b": nothing left"
        chunk = server.chunked(rest)
        yield Send(chunk[: len(chunk) // 2])
        yield Close()

    def __str__(self) -> str:
        return "closed inside a chunk"


@dataclass(slots=True, frozen=True, kw_only=True)
class StallBehindPings:
    """After so many events only comments come, `ping` seconds one, until the client leaves."""

    after: int
    ping: float = 0.1

    def steps(self, wire: Wire) -> Iterator[Step]:
        yield from wire.begin(self.after)
        yield Repeat(server.chunked(b": keep-alive\n\n"), self.ping)

    def __str__(self) -> str:
        return "stall behind pings"


@dataclass(slots=True, frozen=True, kw_only=True)
class Refused:
    """A status instead of an answer; with `retry_after`, that header in seconds."""

    status: int
    retry_after: int | None = None

    def steps(self, wire: Wire) -> Iterator[Step]:
        kind = "rate_limit_reached" if self.status == 429 else "server_error"
        document = {"error": {"message": "Please come back later.", "type": kind, "code": kind}}
        headers = {} if self.retry_after is None else {"retry_after": self.retry_after}
        body = json.dumps(document).encode()
        yield from server.respond(body, self.status, content_type="application/json", **headers)

    def __str__(self) -> str:
        return f"{self.status}" if self.retry_after is None else f"{self.status}, Retry-After {self.retry_after} s"


@dataclass(slots=True, frozen=True, kw_only=True)
class SplitCharacters:
    """Every byte outside ASCII travels alone, so that no read holds a whole Chinese character."""

    def steps(self, wire: Wire) -> Iterator[Step]:
        yield Send(HEAD)
        for event in wire.events:
            for part in re.findall(rb"[\x00-\x7f]+|[\x80-\xff]", event):
                yield Send(server.chunked(part))
            if wire.every:
                yield Pause(wire.every)
        yield Send(server.LAST_CHUNK)

    def __str__(self) -> str:
        return "split characters"


@dataclass(slots=True, frozen=True, kw_only=True)
class ErrorEvent:
    """The provider reports an error of its own after so many events, then ends as if all were well."""

    after: int
    code: str = "internal_server_error"

    def steps(self, wire: Wire) -> Iterator[Step]:
        yield from wire.begin(self.after)
        error = {"error": {"message": "The service is overloaded.", "type": "server_error", "code": self.code}}
        yield Send(server.chunked(server.sse(json.dumps(error)) + DONE) + server.LAST_CHUNK)

    def __str__(self) -> str:
        return "error event mid-stream"


@dataclass(slots=True, frozen=True, kw_only=True)
class HtmlPage:
    """A page with status 200, as a tired gateway serves it."""

    def steps(self, wire: Wire) -> Iterator[Step]:
        page = b"<!doctype html>\n<html><body><h1>We will be right back</h1></body></html>\n"
        yield from server.respond(page, content_type="text/html")

    def __str__(self) -> str:
        return "HTML with status 200"


@dataclass(slots=True, frozen=True, kw_only=True)
class EmptyBody:
    """Status 200, the right content type, and nothing."""

    def steps(self, wire: Wire) -> Iterator[Step]:
        yield from server.respond(content_type="text/event-stream")

    def __str__(self) -> str:
        return "empty body, status 200"


# -- schedules ---------------------------------------------------------------------------------


@dataclass(slots=True, frozen=True, kw_only=True)
class Script:
    """What the requests for one prompt meet, in their order; after the last fault all is well."""

    faults: tuple[Fault, ...] = ()
    mode: Mode = "no-ids"

    def fault(self, attempt: int) -> Fault:
        """Gives what the request with this number meets, counted from 1."""
        return self.faults[attempt - 1] if attempt <= len(self.faults) else Healthy()


Schedule = Mapping[str, Script]
"""A script for each prompt; one that is not there is served without a fault."""


# -- the upstream ------------------------------------------------------------------------------


@dataclass(slots=True, frozen=True, kw_only=True)
class Served:
    """One request that was answered: its place among those for its prompt, what it met, and where it was to begin."""

    prompt: str
    attempt: int
    fault: Fault
    last_event_id: str = ""


@dataclass(slots=True, kw_only=True)
class Upstream:
    """Serves `POST .../chat/completions` as the schedule says, `every` seconds an event.

    An asynchronous context manager. `url` is what a client takes for a base URL; `answer(prompt)` is the truth;
    `served` lists what was done, and `server` counts connections.
    """

    schedule: Schedule = field(default_factory=dict)
    seed: int = 0
    every: float = 0.0
    sentences: int = 6
    served: list[Served] = field(default_factory=list)
    server: ScriptedServer = field(init=False)
    _attempts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.server = ScriptedServer(self._reply)

    @property
    def url(self) -> str:
        """The base URL."""
        return self.server.url

    def answer(self, prompt: str, attempt: int = 1) -> Answer:
        """Gives the answer to a prompt; only divergent scripts have another one for another attempt."""
        divergent = self._script(prompt).mode == "divergent" and attempt > 1
        seed = f"{self.seed} {prompt} {attempt}" if divergent else f"{self.seed} {prompt}"
        return write_answer(seed, sentences=self.sentences)

    def _script(self, prompt: str) -> Script:
        return self.schedule.get(prompt, Script())

    def _reply(self, request: ReceivedRequest) -> Iterator[Step] | list[Step]:
        prompt = _prompt(request)
        if prompt is None:
            return server.respond(b'{"error": {"message": "not a chat request"}}', 400, content_type="application/json")
        self._attempts[prompt] += 1
        attempt, script = self._attempts[prompt], self._script(prompt)
        fault, last = script.fault(attempt), request.headers.get("last-event-id", "")
        self.served.append(Served(prompt=prompt, attempt=attempt, fault=fault, last_event_id=last))
        return fault.steps(Wire(events=self._events(prompt, attempt, script.mode, last), every=self.every))

    def _events(self, prompt: str, attempt: int, mode: Mode, last: str) -> tuple[bytes, ...]:
        # A server that can resume keeps the answer and its id; others begin anew, with a new id.
        answer_id = f"chat-{self.seed}" if mode == "ids" else f"chat-{self.seed}-{attempt}"
        payloads = self.answer(prompt, attempt).payloads(answer_id)
        if mode != "ids":
            return (*map(server.sse, payloads), DONE)
        numbered = [server.sse(payload, id=str(n)) for n, payload in enumerate(payloads, 1)]
        begin = int(last) if last.isdigit() and int(last) <= len(numbered) else 0
        return (*numbered[begin:], DONE)

    async def __aenter__(self) -> Self:
        await self.server.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.server.__aexit__(kind, error, trace)


def _prompt(request: ReceivedRequest) -> str | None:
    """Finds the last message's text; None where this is no chat request."""
    if request.method != "POST" or not request.path.partition("?")[0].endswith("/chat/completions"):
        return None
    try:
        prompt = request.json()["messages"][-1]["content"]
    except (ValueError, KeyError, IndexError, TypeError):
        return None
    return prompt if isinstance(prompt, str) else None


__all__ = [
    "CleanCut",
    "EmptyBody",
    "ErrorEvent",
    "Fault",
    "FinInsideChunk",
    "Healthy",
    "HtmlPage",
    "Refused",
    "ResetMidStream",
    "Schedule",
    "Script",
    "Served",
    "SplitCharacters",
    "StallBehindPings",
    "Upstream",
    "Wire",
    "write_answer",
]
