"""True answers, and the shapes that providers stream them in.

An answer is written by seed, so that whoever knows the question knows the truth. A `Shape` reads a provider's requests
and makes its events; it must never know of faults. The chat shape is that of https://api-docs.deepseek.com.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol

from holdfast.testing import server
from holdfast.testing.server import ReceivedRequest

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
    "Whoever reads “data: [DONE]” in a story knows that the story is not over.",
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

    def rest(self, prefix: str) -> Answer | None:
        """Gives what comes after a prefix of the text, None where it is none; what was thought is not said again."""
        if not self.text.startswith(prefix):
            return None
        return Answer(pieces=_pieces(self.text[len(prefix) :]))


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


# -- shapes ------------------------------------------------------------------------------------


@dataclass(slots=True, frozen=True, kw_only=True)
class Question:
    """What a request asks: the last thing the user said, and what the model is to go on from, None without that."""

    prompt: str
    prefix: str | None = None


class Shape(Protocol):
    """How one kind of provider is asked, and how it streams an answer."""

    def read(self, request: ReceivedRequest) -> Question | None:
        """Gives what a request asks, None where it is none of this shape's."""

    def events(self, answer: Answer, answer_id: str, *, ids: bool) -> list[bytes]:
        """Gives the exact bytes of every event of an answer; with `ids`, those that can be gone on from have one."""


@dataclass(slots=True, frozen=True, kw_only=True)
class ChatShape:
    """The chat completions of OpenAI, as DeepSeek streams them: reasoning first, the usage beside the finish reason."""

    model: str = "deepseek-flash"

    def read(self, request: ReceivedRequest) -> Question | None:
        if request.method != "POST" or not request.path.partition("?")[0].endswith("/chat/completions"):
            return None
        try:
            messages = request.json()["messages"]
            last = messages[-1]
            prefix = last["content"] if last["role"] == "assistant" and last.get("prefix") else None
            prompt = [message["content"] for message in messages if message["role"] == "user"][-1]
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            return None
        return Question(prompt=prompt, prefix=prefix) if isinstance(prompt, str) else None

    def events(self, answer: Answer, answer_id: str, *, ids: bool) -> list[bytes]:
        payloads = self._payloads(answer, answer_id)
        numbered = [server.sse(payload, id=str(n) if ids else None) for n, payload in enumerate(payloads, 1)]
        return [*numbered, server.sse("[DONE]")]

    def _payloads(self, answer: Answer, answer_id: str) -> list[bytes]:
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": None, "reasoning_content": ""}]
        deltas += [{"content": None, "reasoning_content": piece} for piece in answer.reasoning_pieces]
        deltas += [{"content": piece, "reasoning_content": None} for piece in answer.pieces]
        shell = {"id": answer_id, "object": "chat.completion.chunk", "created": 1_767_225_600, "model": self.model}
        chunks = [{**shell, "choices": [_choice(delta)], "usage": None} for delta in deltas]
        ending = _choice({"content": "", "reasoning_content": None}, "stop")
        chunks.append({**shell, "choices": [ending], "usage": _usage(answer)})
        return [json.dumps(chunk, ensure_ascii=False, separators=(",", ":")).encode() for chunk in chunks]


def _choice(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}


def _usage(answer: Answer) -> dict[str, Any]:
    thought, said, asked = len(answer.reasoning_pieces), len(answer.pieces), 19
    return {
        "prompt_tokens": asked,
        "completion_tokens": thought + said,
        "total_tokens": asked + thought + said,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": thought},
        "prompt_cache_hit_tokens": 0,
        "prompt_cache_miss_tokens": asked,
    }


__all__ = ["Answer", "ChatShape", "Question", "Shape", "write_answer"]
