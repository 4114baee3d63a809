"""True answers: what a model would say, in the pieces it would say it in.

An answer is written by seed, so that whoever knows the question knows the truth. It knows no provider: how it looks on
the wire is the business of `holdfast.testing.shapes`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Literal

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
_REFUSAL = "I am sorry, but I cannot help to loosen a holdfast. 抱歉，这个我不能帮忙。"
_TOOLS: tuple[tuple[str, tuple[dict[str, Any], ...]], ...] = (
    ("tide_table", ({"harbour": "Brest", "days": 3}, {"harbour": "青岛", "days": 1, "units": "m"})),
    ("measure_depth", ({"at": {"lat": 36.06, "lon": 120.38}}, {"at": {"lat": 48.38, "lon": -4.49}, "fathoms": True})),
    ("look_up", ({"query": "why is “kelp” no plant? 🌊"}, {"query": "固着器"}, {})),
)

Finish = Literal["stop", "length"]
"""Why an answer ends: it has said all, or there was no room for more."""


@dataclass(slots=True, frozen=True, kw_only=True)
class CalledTool:
    """One tool that the answer calls, and its arguments as a model streams them: JSON in pieces."""

    id: str
    name: str
    pieces: tuple[str, ...] = ()

    @property
    def arguments(self) -> str:
        """The arguments, JSON as it was written."""
        return "".join(self.pieces)


@dataclass(slots=True, frozen=True, kw_only=True)
class Answer:
    """One true answer: the pieces a model would stream, and what they add up to.

    What was thought comes first, then the text or the refusal, then the tools that are called. A piece is a token.
    `prompt_tokens` are those of what was asked, which the usage tells beside them.
    """

    reasoning_pieces: tuple[str, ...] = ()
    pieces: tuple[str, ...] = ()
    refusal_pieces: tuple[str, ...] = ()
    tools: tuple[CalledTool, ...] = ()
    finish: Finish = "stop"
    prompt_tokens: int = 19

    @classmethod
    def of(cls, text: str) -> Answer:
        """Gives the answer that says `text`, in pieces as a tokenizer cuts it, and nothing else."""
        return cls(pieces=in_pieces(text))

    @property
    def text(self) -> str:
        """What a client must end up with."""
        return "".join(self.pieces)

    @property
    def reasoning(self) -> str:
        """What the model thought aloud before it."""
        return "".join(self.reasoning_pieces)

    @property
    def refusal(self) -> str:
        """What the model said in the place of an answer."""
        return "".join(self.refusal_pieces)

    @property
    def tokens(self) -> int:
        """How many tokens it has."""
        called = sum(len(tool.pieces) for tool in self.tools)
        return len(self.reasoning_pieces) + len(self.pieces) + len(self.refusal_pieces) + called

    def rest(self, prefix: str) -> Answer | None:
        """Gives what comes after a prefix of the text, None where it is none; what was thought is not said again."""
        if not self.text.startswith(prefix):
            return None
        return replace(self, reasoning_pieces=(), pieces=in_pieces(self.text[len(prefix) :]))

    def cut(self, limit: int | None) -> Answer:
        """Gives the first `limit` tokens of it; whole where there are no more, or without a limit."""
        if limit is None or self.tokens <= limit:
            return self
        left = limit
        kept: list[tuple[str, ...]] = []
        said = (self.reasoning_pieces, self.pieces, self.refusal_pieces, *(tool.pieces for tool in self.tools))
        for pieces in said:
            kept.append(pieces[:left])
            left -= len(kept[-1])
        thoughts, words, refused, *arguments = kept
        begun = [replace(tool, pieces=cut) for tool, cut in zip(self.tools, arguments, strict=True) if cut]
        return replace(
            self,
            reasoning_pieces=thoughts,
            pieces=words,
            refusal_pieces=refused,
            tools=tuple(begun),
            finish="length",
        )


def write_answer(
    seed: int | str, *, sentences: int = 6, thoughts: int = 2, tools: int = 0, refuses: bool = False
) -> Answer:
    """Writes an answer of some sentences in English and Chinese; the same seed writes the same one.

    `thoughts` (0 to 2) sentences come before it, `tools` are called after it; an answer that `refuses` is a refusal and
    nothing else.
    """
    chance = Random(f"answer {seed}")  # noqa: S311 - a reproducible text is the point
    thought = in_pieces(" ".join(chance.sample(_THOUGHTS, 2)[:thoughts]))
    chosen = [s for _ in range(-(-sentences // len(_SENTENCES))) for s in chance.sample(_SENTENCES, len(_SENTENCES))]
    lines = chosen[:sentences]
    text = "\n\n".join(" ".join(lines[start : start + 2]) for start in range(0, len(lines), 2))
    if refuses:
        return Answer(reasoning_pieces=thought, refusal_pieces=in_pieces(_REFUSAL))
    called = tuple(_called(chance) for _ in range(tools))
    return Answer(reasoning_pieces=thought, pieces=in_pieces(text), tools=called)


def _called(chance: Random) -> CalledTool:
    name, choices = chance.choice(_TOOLS)
    # Without blanks, so that they are the same text where a dialect sends an object in their place.
    arguments = json.dumps(chance.choice(choices), ensure_ascii=False, separators=(",", ":"))
    return CalledTool(id=f"call_{chance.randrange(16**12):012x}", name=name, pieces=in_pieces(arguments))


def in_pieces(text: str) -> tuple[str, ...]:
    """Cuts a text as tokenizers do: Latin words with the blank before them, Chinese characters two at a time."""
    return tuple(re.findall(r"\s?[\u4e00-\u9fff]{1,2}|\s*[A-Za-z0-9ï']+|\s*[^\w\s]|\s+|\w", text))


__all__ = ["Answer", "CalledTool", "Finish", "in_pieces", "write_answer"]
