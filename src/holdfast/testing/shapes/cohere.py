"""Cohere's Chat v2: named events for a message, its contents, and its calls, with `[DONE]` behind them.

From https://docs.cohere.com/v2/docs/streaming and a recorded stream: the role in the first event alone, the name of a
tool in the one that begins its call, the usage beside the finish reason in the last.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from holdfast.testing.answers import Answer
from holdfast.testing.idiom import HOPELESS, Idiom
from holdfast.testing.server import ReceivedRequest
from holdfast.testing.shapes._shape import Question, body_of, compact, event, number, route, turns


def _document(_status: int, code: str, message: str) -> bytes:
    return compact({"id": "f3b2d3c8", "message": f"{code}: {message}"}).encode()


def _ended(finish_reason: str, more: dict[str, Any]) -> dict[str, Any]:
    return {"type": "message-end", "delta": {**more, "finish_reason": finish_reason}}


def _error(code: str, message: str, _last: bytes) -> bytes:
    reason = "ERROR_TOXIC" if code in HOPELESS else "ERROR"
    return event(compact(_ended(reason, {"error": f"{code}: {message}"})), name="message-end")


@dataclass(slots=True, frozen=True, kw_only=True)
class CohereShape:
    """The Chat v2 of Cohere. An error is a message's end that says so."""

    idiom: ClassVar[Idiom] = Idiom(
        document=_document,
        error=_error,
        gave_up=lambda reason, last: _error(reason, "The model gave up.", last),
        whole=b'{"id":"f3b2d3c8","finish_reason":"COMPLETE",'
        b'"message":{"role":"assistant","content":[{"type":"text","text":"All at once."}]}}',
    )

    def read(self, request: ReceivedRequest) -> Question | None:
        if request.method != "POST" or not route(request).endswith("/v2/chat"):
            return None
        body = body_of(request)
        asked = turns(body.get("messages"))
        return Question(prompt=asked[0], max_tokens=number(body.get("max_tokens"))) if asked else None

    def events(self, answer: Answer, answer_id: str, *, ids: bool) -> list[bytes]:
        payloads = enumerate(_payloads(answer, answer_id), 1)
        made = [event(compact(told), name=told["type"], id=str(n) if ids else None) for n, told in payloads]
        return [*made, event("[DONE]")]


def _payloads(answer: Answer, answer_id: str) -> Iterator[dict[str, Any]]:
    begun = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}
    yield {"id": answer_id, "type": "message-start", "delta": {"message": begun}}
    index = 0
    contents = (("thinking", answer.reasoning_pieces), ("text", answer.pieces or answer.refusal_pieces))
    for kind, pieces in contents:
        if pieces:
            yield _message("content-start", index, {"content": {"type": kind, kind: ""}})
            for piece in pieces:
                yield _message("content-delta", index, {"content": {kind: piece}})
            yield {"type": "content-end", "index": index}
            index += 1
    for index, tool in enumerate(answer.tools):
        named = {"id": tool.id, "type": "function", "function": {"name": tool.name, "arguments": ""}}
        yield _message("tool-call-start", index, {"tool_calls": named})
        for piece in tool.pieces:
            yield _message("tool-call-delta", index, {"tool_calls": {"function": {"arguments": piece}}})
        yield {"type": "tool-call-end", "index": index}
    yield {"type": "message-end", "delta": {"finish_reason": _finish(answer), "usage": _usage(answer)}}


def _message(kind: str, index: int, message: dict[str, Any]) -> dict[str, Any]:
    return {"type": kind, "index": index, "delta": {"message": message}}


def _finish(answer: Answer) -> str:
    if answer.finish == "length":
        return "MAX_TOKENS"
    return "TOOL_CALL" if answer.tools else "COMPLETE"


def _usage(answer: Answer) -> dict[str, Any]:
    counts = {"input_tokens": answer.prompt_tokens, "output_tokens": answer.tokens}
    return {"billed_units": counts, "tokens": {**counts, "input_tokens": answer.prompt_tokens + 500}}


__all__ = ["CohereShape"]
