"""Another turn: what the model said as its own, and behind it a question of the user's.

It never sends what would be read otherwise than as a conversation: a body of another shape is refused with None. The
keys tell the shape: `messages` (chat, Messages, Cohere), `contents` (Gemini), `input` (Responses, Interactions).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from holdfast._types import Request
from holdfast.dialects._dialect import Said

_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")


def another_turn(request: Request, said: Said, prompt: str) -> Request | None:
    """Gives the request that asks on, None for one whose conversation ends with the model's words or is none."""
    body = request.body
    if not isinstance(body, Mapping) or not said.text:
        return None
    for key, turn in (("messages", _message), ("contents", _content), ("input", _message)):
        turns = body.get(key)
        if key == "input" and isinstance(turns, str):
            turns = [_message("user", turns)]
        if turns is None:
            continue
        if not isinstance(turns, list | tuple) or not turns or not all(isinstance(one, Mapping) for one in turns):
            return None
        if turns[-1].get("role") in ("assistant", "model"):
            return None  # the answer began in the request, and only its own way of continuing knows how
        model = "model" if key == "contents" else "assistant"
        asked = {**body, key: [*turns, turn(model, said.text), turn("user", prompt)]}
        return replace(request, body=_shorter(asked, said.tokens))
    return None


def _message(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": text}


def _content(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "parts": [{"text": text}]}


def _shorter(body: dict[str, Any], tokens: int) -> dict[str, Any]:
    """Takes what was said off the limits that the request sets."""
    for name in _LIMITS:
        limit = body.get(name)
        if isinstance(limit, int) and not isinstance(limit, bool):
            body[name] = max(1, limit - tokens)
    return body
