"""Anthropic's Messages: blocks that begin, grow and end, between the beginning and the end of a message.

From https://platform.claude.com/docs/en/build-with-claude/streaming and recorded streams: JSON without blanks but for
those that pad it before its last brace, `ping` as an event behind the first block's beginning, usage in two halves.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from holdfast.testing.answers import Answer
from holdfast.testing.idiom import HOPELESS, Idiom
from holdfast.testing.server import ReceivedRequest
from holdfast.testing.shapes._shape import Question, body_of, compact, event, number, route, turns, wants_whole

_NO_PREFILL = "This model does not support assistant message prefill. The conversation must end with a user message."
_PING = event('{"type": "ping"}', name="ping")
_TYPES = {400: "invalid_request_error", 401: "authentication_error", 402: "billing_error", 403: "permission_error"} | {
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_HOPELESS_TYPES = {"invalid_api_key": "authentication_error", "insufficient_quota": "billing_error"}


def _told(kind: str, message: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}}


def _document(status: int, code: str, message: str) -> bytes:
    kind = _HOPELESS_TYPES.get(code) or _TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return compact({**_told(kind, message), "request_id": "req_011CSHoEeqs5C35K2UUqR7Fy"}).encode()


def _error(code: str, message: str, _last: bytes) -> bytes:
    if code in HOPELESS:
        told = _told(_HOPELESS_TYPES.get(code, "invalid_request_error"), message)
    else:
        told = _told("overloaded_error", "Overloaded")
    return event(json.dumps(told), name="error")


def takes_prefill(model: str) -> bool:
    """True for models up to 4.5; later ones take no message of the assistant's at the end. Without a version, true."""
    found = re.search(r"claude\D*(\d{1,2})(?:[-.](\d{1,2})(?!\d))?", model)
    return found is None or (int(found[1]), int(found[2] or 0)) <= (4, 5)


@dataclass(slots=True, frozen=True, kw_only=True)
class AnthropicShape:
    """The Messages of Anthropic; a request's own model decides whether it may end with the assistant's words."""

    model: str = "claude-sonnet-4-5-20250929"
    idiom: ClassVar[Idiom] = Idiom(
        document=_document,
        error=_error,
        gave_up=lambda reason, last: _error(reason, "", last),
        whole=b'{"type":"message","role":"assistant","content":[{"type":"text","text":"All at once."}],'
        b'"stop_reason":"end_turn"}',
        ping=_PING,
        end=event('{"type":"message_stop"}', name="message_stop"),
        ends=b'data: {"type":"message_stop"',
    )

    def read(self, request: ReceivedRequest) -> Question | None:
        if request.method != "POST" or not route(request).endswith("/messages"):
            return None
        body = body_of(request)
        if (asked := turns(body.get("messages"))) is None:
            return None
        model = str(body.get("model") or self.model)
        return Question(
            prompt=asked[0],
            prefix=asked[1],
            max_tokens=number(body.get("max_tokens")),
            refused="" if asked[1] is None or takes_prefill(model) else _NO_PREFILL,
            shape=replace(self, model=model),
            whole=wants_whole(request, body),
        )

    def events(self, answer: Answer, answer_id: str, *, ids: bool) -> list[bytes]:
        payloads = self._payloads(answer, answer_id.removeprefix("msg_"))
        return [
            event(_padded(payload), name=payload["type"], id=str(n) if ids else None)
            if payload["type"] != "ping"
            else _PING
            for n, payload in enumerate(payloads, 1)
        ]

    def document(self, answer: Answer, answer_id: str) -> dict[str, Any]:
        answer_id = answer_id.removeprefix("msg_")
        message = self._message(answer, answer_id)
        content = [_grown(block, deltas) for block, deltas in _blocks(answer, answer_id)]
        usage = {**message["usage"], "output_tokens": answer.tokens}
        ending = {"stop_reason": _stop_reason(answer), "stop_details": _details(answer)}
        return {**message, "content": content, **ending, "usage": usage}

    def _payloads(self, answer: Answer, answer_id: str) -> Iterator[dict[str, Any]]:
        yield {"type": "message_start", "message": self._message(answer, answer_id)}
        for index, (block, deltas) in enumerate(_blocks(answer, answer_id)):
            yield {"type": "content_block_start", "index": index, "content_block": block}
            if index == 0:
                yield {"type": "ping"}
            for delta in deltas:
                yield {"type": "content_block_delta", "index": index, "delta": delta}
            yield {"type": "content_block_stop", "index": index}
        usage = {"input_tokens": answer.prompt_tokens, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
        ending = {"stop_reason": _stop_reason(answer), "stop_sequence": None, "stop_details": _details(answer)}
        yield {"type": "message_delta", "delta": ending, "usage": {**usage, "output_tokens": answer.tokens}}
        yield {"type": "message_stop"}

    def _message(self, answer: Answer, answer_id: str) -> dict[str, Any]:
        usage = {
            "input_tokens": answer.prompt_tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
            "output_tokens": 1,
            "service_tier": "standard",
            "inference_geo": "not_available",
        }
        stop: dict[str, Any] = {"stop_reason": None, "stop_sequence": None, "stop_details": None}
        named: dict[str, Any] = {"model": self.model, "id": f"msg_{answer_id}", "type": "message", "role": "assistant"}
        return {**named, "content": [], **stop, "usage": usage}


def _blocks(answer: Answer, answer_id: str) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Gives how each block begins, and its deltas."""
    if answer.reasoning_pieces:
        thought = [{"type": "thinking_delta", "thinking": piece} for piece in answer.reasoning_pieces]
        signature = base64.b64encode(f"signed {answer_id} {answer.reasoning}".encode()).decode()[:120]
        thought.append({"type": "signature_delta", "signature": signature})
        yield {"type": "thinking", "thinking": "", "signature": ""}, thought
    said = answer.pieces or answer.refusal_pieces
    if said or not answer.tools:
        yield {"type": "text", "text": ""}, [{"type": "text_delta", "text": piece} for piece in said]
    for tool in answer.tools:
        block = {"type": "tool_use", "id": f"toolu_{tool.id.removeprefix('call_')}", "name": tool.name, "input": {}}
        yield block, [{"type": "input_json_delta", "partial_json": piece} for piece in ("", *tool.pieces)]


def _grown(block: dict[str, Any], deltas: list[dict[str, Any]]) -> dict[str, Any]:
    """Gives a block as it is at its end."""
    grown = dict(block)
    arguments = "".join(delta.get("partial_json", "") for delta in deltas)
    for delta in deltas:
        grown |= {name: grown[name] + delta[name] for name in ("text", "thinking", "signature") if name in delta}
    try:
        return {**grown, "input": json.loads(arguments or "{}")} if "input" in grown else grown
    except ValueError:  # there was no room for all of it
        return grown


def _stop_reason(answer: Answer) -> str:
    if answer.finish == "length":
        return "max_tokens"
    if answer.refusal_pieces:
        return "refusal"
    return "tool_use" if answer.tools else "end_turn"


def _details(answer: Answer) -> dict[str, Any] | None:
    return {"type": "refusal", "category": None, "explanation": None} if answer.refusal_pieces else None


def _padded(payload: dict[str, Any]) -> str:
    """Writes JSON with blanks before its last brace, as many as its bytes say, so that it is the same each time."""
    text = compact(payload)
    return f"{text[:-1]}{' ' * (zlib.crc32(text.encode()) % 16)}}}"


__all__ = ["AnthropicShape", "takes_prefill"]
