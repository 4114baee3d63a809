"""OpenAI's chat completions, as DeepSeek and as OpenAI stream them.

DeepSeek (https://api-docs.deepseek.com): reasoning in `reasoning_content`, its partner null beside it, the usage on the
chunk that has the finish reason. OpenAI, and vLLM after it: only what is new in a delta, a finish chunk without words,
the usage on a chunk of its own without choices.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from holdfast.testing.answers import Answer
from holdfast.testing.idiom import CHAT, Idiom
from holdfast.testing.server import ReceivedRequest
from holdfast.testing.shapes._shape import (
    BEGAN,
    Question,
    body_of,
    compact,
    event,
    number,
    numbered,
    route,
    turns,
    wants_whole,
    words,
)

_BOTH_TRUE = "Cannot set both `continue_final_message` and `add_generation_prompt` to True."
_ONE_CHOICE = "This server gives one choice: leave `n` out, or make it 1."


@dataclass(slots=True, frozen=True, kw_only=True)
class ChatShape:
    """The chat completions of OpenAI, by default as DeepSeek streams them.

    `reasoning` is the member that holds what was thought: `reasoning_content`, or `reasoning` (vLLM, Ollama, Groq).
    What says both that its last message is to be continued and that a new one is prompted for is refused; `strict`
    takes silence about the second for a yes, as vLLM does, and SGLang does not.
    """

    model: str = "deepseek-flash"
    style: Literal["deepseek", "openai"] = "deepseek"
    reasoning: str = "reasoning_content"
    strict: bool = False
    idiom: ClassVar[Idiom] = CHAT

    def read(self, request: ReceivedRequest) -> Question | None:
        if request.method != "POST" or not route(request).endswith("/chat/completions"):
            return None
        body = body_of(request)
        if (asked := turns(body.get("messages"))) is None:
            return None
        prompt, beginning = asked
        continues = body.get("continue_final_message") is True
        both = continues and body.get("add_generation_prompt", self.strict) is True
        several = body.get("n", 1) not in (1, None)
        last = body["messages"][-1]
        named = continues or bool(last.get("prefix"))
        conversation = request.headers.get("x-conversation-id", "")
        return Question(
            prompt=prompt,
            prefix=beginning if named else None,
            thought=words(last.get(self.reasoning)) if named else "",
            max_tokens=number(body.get("max_completion_tokens")) or number(body.get("max_tokens")),
            refused=_ONE_CHOICE if several else _BOTH_TRUE if both else "",
            keep=bool(conversation),  # llama.cpp
            keep_as=conversation,
            whole=wants_whole(request, body),
        )

    def events(self, answer: Answer, answer_id: str, *, ids: bool) -> list[bytes]:
        chunks = self._deepseek(answer) if self.style == "deepseek" else self._openai(answer)
        shell = {"id": answer_id, "object": "chat.completion.chunk", "created": BEGAN, "model": self.model}
        if self.style == "openai":
            shell |= {"service_tier": "default", "system_fingerprint": "fp_dbaca60df0"}
        payloads = [compact({**shell, **chunk}) for chunk in chunks]
        return [*numbered(payloads, ids=ids), event("[DONE]")]

    def document(self, answer: Answer, answer_id: str) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": answer.text or None}
        message |= {self.reasoning: answer.reasoning} if answer.reasoning_pieces else {}
        message |= {"refusal": answer.refusal} if answer.refusal_pieces else {}
        calls = [
            {"id": tool.id, "type": "function", "function": {"name": tool.name, "arguments": tool.arguments}}
            for tool in answer.tools
        ]
        message |= {"tool_calls": calls} if calls else {}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish(answer)}
        shell = {"id": answer_id, "object": "chat.completion", "created": BEGAN, "model": self.model}
        return {**shell, "choices": [choice], "usage": _usage(answer)}

    # -- two styles ----------------------------------------------------------------------------

    def _deepseek(self, answer: Answer) -> Iterator[dict[str, Any]]:
        thinks = bool(answer.reasoning_pieces)
        partner: dict[str, Any] = {self.reasoning: None} if thinks else {}
        first = {"content": None, self.reasoning: ""} if thinks else {"content": ""}
        yield _chunk({"role": "assistant", **first})
        for piece in answer.reasoning_pieces:
            yield _chunk({"content": None, self.reasoning: piece})
        for piece in answer.pieces:
            yield _chunk({"content": piece, **partner})
        for piece in answer.refusal_pieces:
            yield _chunk({"refusal": piece})
        for delta in _calls(answer):
            yield _chunk(delta)
        usage = _usage(answer)
        usage |= {"prompt_cache_hit_tokens": 0, "prompt_cache_miss_tokens": answer.prompt_tokens}
        yield _chunk({"content": "", **partner}, _finish(answer), usage)

    def _openai(self, answer: Answer) -> Iterator[dict[str, Any]]:
        yield _chunk({"role": "assistant", "content": "", "refusal": None})
        for piece in answer.reasoning_pieces:
            yield _chunk({self.reasoning: piece})
        for piece in answer.pieces:
            yield _chunk({"content": piece})
        for piece in answer.refusal_pieces:
            yield _chunk({"refusal": piece})
        for delta in _calls(answer):
            yield _chunk(delta)
        yield _chunk({}, _finish(answer))
        yield {"choices": [], "usage": _usage(answer)}


def _chunk(
    delta: dict[str, Any], finish_reason: str | None = None, usage: dict[str, Any] | None = None
) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return {"choices": [choice], "usage": usage}


def _calls(answer: Answer) -> Iterator[dict[str, Any]]:
    """Gives the deltas of the tools: the name first, then the arguments, without an id or a name."""
    for index, tool in enumerate(answer.tools):
        named = {"id": tool.id, "type": "function", "function": {"name": tool.name, "arguments": ""}}
        yield {"tool_calls": [{"index": index, **named}]}
        for piece in tool.pieces:
            yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}


def _finish(answer: Answer) -> str:
    if answer.finish == "length":
        return "length"
    return "tool_calls" if answer.tools else "stop"


def _usage(answer: Answer) -> dict[str, Any]:
    usage: dict[str, Any] = {
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.tokens,
        "total_tokens": answer.prompt_tokens + answer.tokens,
        "prompt_tokens_details": {"cached_tokens": 0},
    }
    if answer.reasoning_pieces:
        usage["completion_tokens_details"] = {"reasoning_tokens": len(answer.reasoning_pieces)}
    return usage


__all__ = ["ChatShape"]
