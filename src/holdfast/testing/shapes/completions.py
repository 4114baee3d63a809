"""OpenAI's older completions: text behind a prompt, without messages, as vLLM and llama.cpp stream it today.

From https://platform.openai.com/docs/api-reference/completions: one choice whose `text` is what is new, the finish
reason on a chunk of its own, and the end mark of chat completions. There are no thoughts and no tools.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

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
    wants_whole,
)


@dataclass(slots=True, frozen=True, kw_only=True)
class CompletionsShape:
    """The completions of OpenAI, of one prompt that is a text."""

    model: str = "gpt-3.5-turbo-instruct"
    idiom: ClassVar[Idiom] = CHAT

    def read(self, request: ReceivedRequest) -> Question | None:
        path = route(request)
        if request.method != "POST" or not path.endswith("/completions") or path.endswith("/chat/completions"):
            return None
        body = body_of(request)
        prompt = body.get("prompt")
        if not isinstance(prompt, str) or not prompt:
            return None
        return Question(prompt=prompt, max_tokens=number(body.get("max_tokens")), whole=wants_whole(request, body))

    def events(self, answer: Answer, answer_id: str, *, ids: bool) -> list[bytes]:
        told = [self._chunk(answer_id, piece) for piece in answer.pieces]
        return [*numbered([*told, self._chunk(answer_id, "", answer.finish)], ids=ids), event("[DONE]")]

    def document(self, answer: Answer, answer_id: str) -> dict[str, Any]:
        said = len(answer.pieces)
        usage = {"prompt_tokens": answer.prompt_tokens, "completion_tokens": said}
        usage |= {"total_tokens": answer.prompt_tokens + said}
        return {**self._said(answer_id, answer.text, answer.finish), "usage": usage}

    def _chunk(self, answer_id: str, text: str, finish: str | None = None) -> str:
        return compact(self._said(answer_id, text, finish))

    def _said(self, answer_id: str, text: str, finish: str | None) -> dict[str, Any]:
        choice = {"text": text, "index": 0, "logprobs": None, "finish_reason": finish}
        shell = {"id": answer_id, "object": "text_completion", "created": BEGAN, "model": self.model}
        return {**shell, "choices": [choice]}


__all__ = ["CompletionsShape"]
