"""Google's Interactions: steps that begin, grow and end, each event with the name that it can be gone on from.

From https://ai.google.dev/gemini-api/docs/interactions/streaming, the types of python-genai and a recorded stream. What
a stream's events are called stands in `event_type`, and their ids in `event_id`, not in a field of the event stream.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from holdfast.testing.answers import Answer
from holdfast.testing.idiom import HOPELESS, Idiom, in_data
from holdfast.testing.server import ReceivedRequest
from holdfast.testing.shapes._shape import Question, body_of, compact, event, number, route, turns

_CREATED = "2026-01-01T00:00:00Z"


def _document(_status: int, code: str, message: str) -> bytes:
    return compact({"error": {"message": message, "code": _code(code)}}).encode()


def _error(code: str, message: str, _last: bytes) -> bytes:
    told = {"message": message, "code": _code(code)}
    return event(compact({"error": told, "event_type": "error"}), name="error")


def _unplaced(said: bytes) -> bytes:
    return re.sub(rb',"event_id":"[^"]*"|^id:[^\r\n]*\n', b"", said, flags=re.MULTILINE)


def _code(code: str) -> str:
    return code if code in HOPELESS else "unavailable"


@dataclass(slots=True, frozen=True, kw_only=True)
class InteractionsShape:
    """The Interactions of Gemini; what was stored can be gone on with, and its events have an `event_id`."""

    model: str = "gemini-3-flash-preview"
    stored: bool = True
    idiom: ClassVar[Idiom] = Idiom(
        document=_document,
        error=_error,
        gave_up=lambda reason, last: _error(reason, f"The model gave up: {reason}.", last),
        whole=b'{"id":"v1_whole","object":"interaction","status":"completed",'
        b'"steps":[{"type":"model_output","content":[{"type":"text","text":"All at once."}]}]}',
        end=event("[DONE]", name="done"),
        place=in_data(rb'"event_id":"([^"]+)"'),
        unplaced=_unplaced,
    )

    def read(self, request: ReceivedRequest) -> Question | None:
        if request.method != "POST" or not route(request).endswith("/interactions"):
            return None
        body = body_of(request)
        given = body.get("input")
        asked = turns(given if isinstance(given, list) and _are_turns(given) else [{"content": given}], model="model")
        if asked is None:
            return None
        config = body.get("generation_config")
        limit = config.get("max_output_tokens") if isinstance(config, dict) else None
        stored = body.get("store") is not False
        shape = replace(self, model=str(body.get("model") or self.model), stored=stored)
        return Question(prompt=asked[0], max_tokens=number(limit), keep=stored, shape=shape)

    def events(self, answer: Answer, answer_id: str, *, ids: bool) -> list[bytes]:
        made = []
        for n, payload in enumerate(self._payloads(answer, f"v1_{answer_id.removeprefix('v1_')}"), 1):
            named = {**payload, "event_id": f"e{n}"} if self.stored else payload
            made.append(event(compact(named), name=payload["event_type"], id=str(n) if ids else None))
        return [*made, self.idiom.end]

    def _payloads(self, answer: Answer, answer_id: str) -> Iterator[dict[str, Any]]:
        begun = {"id": answer_id, "status": "in_progress", "object": "interaction", "model": self.model}
        yield {"interaction": begun, "event_type": "interaction.created"}
        yield {"interaction_id": answer_id, "status": "in_progress", "event_type": "interaction.status_update"}
        for index, (step, deltas) in enumerate(_steps(answer)):
            yield {"index": index, "step": step, "event_type": "step.start"}
            for delta in deltas:
                yield {"index": index, "delta": delta, "event_type": "step.delta"}
            yield {"index": index, "event_type": "step.stop"}
        dates = {"created": _CREATED, "updated": _CREATED, "service_tier": "standard"}
        over = {"id": answer_id, "status": _status(answer), "usage": _usage(answer), **dates}
        over |= {"object": "interaction", "model": self.model}
        yield {"interaction": over, "event_type": "interaction.completed"}


def _are_turns(given: list[Any]) -> bool:
    return all(isinstance(turn, dict) and "role" in turn for turn in given)


def _steps(answer: Answer) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Gives how each step begins, and its deltas."""
    if answer.reasoning_pieces:
        contents = ({"text": piece, "type": "text"} for piece in answer.reasoning_pieces)
        thought: list[dict[str, Any]] = [{"content": content, "type": "thought_summary"} for content in contents]
        signature = base64.b64encode(answer.reasoning.encode()).decode()[:120]
        thought.append({"signature": signature, "type": "thought_signature"})
        yield {"type": "thought"}, thought
    said = answer.pieces or answer.refusal_pieces
    if said or not answer.tools:
        yield {"type": "model_output"}, [{"text": piece, "type": "text"} for piece in said]
    for tool in answer.tools:
        step = {"id": tool.id, "type": "function_call", "name": tool.name, "arguments": {}}
        yield step, [{"arguments": piece, "type": "arguments_delta"} for piece in tool.pieces]


def _status(answer: Answer) -> str:
    if answer.finish == "length":
        return "incomplete"
    return "requires_action" if answer.tools else "completed"


def _usage(answer: Answer) -> dict[str, Any]:
    thought = len(answer.reasoning_pieces)
    return {
        "total_tokens": answer.prompt_tokens + answer.tokens,
        "total_input_tokens": answer.prompt_tokens,
        "input_tokens_by_modality": [{"modality": "text", "tokens": answer.prompt_tokens}],
        "total_cached_tokens": 0,
        "total_output_tokens": answer.tokens - thought,
        "total_tool_use_tokens": 0,
        "total_thought_tokens": thought,
    }


__all__ = ["InteractionsShape"]
