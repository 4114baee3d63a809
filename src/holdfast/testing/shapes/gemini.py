"""Google's Gemini `streamGenerateContent?alt=sse`: whole chunks in CR LF lines, and the end of the body is the end.

From https://ai.google.dev/api/generate-content and recorded streams: the usage so far on every chunk, thoughts as parts
that say so, calls whole and with an object for arguments. An error inside a stream is JSON in bare lines, no event.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from holdfast.testing.answers import Answer, in_pieces
from holdfast.testing.idiom import HOPELESS, Idiom, said_once
from holdfast.testing.server import ReceivedRequest
from holdfast.testing.shapes._shape import Question, body_of, compact, number, numbered, route, turns, wants_whole

_STATUSES = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND"} | {
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_PATH = re.compile(r"/models/(?P<model>[^/:]+):(?P<method>generateContent|streamGenerateContent)$")


def _document(status: int, _code: str, message: str) -> bytes:
    told = {"code": status, "message": message, "status": _STATUSES.get(status, "UNKNOWN")}
    return json.dumps({"error": told}, indent=2).encode()


def _error(code: str, message: str, _last: bytes) -> bytes:
    """Bare lines: the SDK counts their braces."""
    return _document(400 if code in HOPELESS else 503, code, message) + b"\n"


def _tokens(event: bytes) -> int:
    """A call comes whole, whatever its arguments cost."""
    if b'"functionCall"' not in event:
        return said_once(event)
    chunk = json.loads(event[event.index(b"{") :])
    (part,) = chunk["candidates"][0]["content"]["parts"]
    return len(in_pieces(compact(part["functionCall"]["args"])))


@dataclass(slots=True, frozen=True, kw_only=True)
class GeminiShape:
    """The `streamGenerateContent` of Gemini."""

    model: str = "gemini-3-flash-preview"
    array: bool = False
    """A document is an array of what a stream would bring: so is a stream that is asked for without `alt=sse`."""
    idiom: ClassVar[Idiom] = Idiom(
        document=_document,
        error=_error,
        gave_up=lambda reason, last: _error(reason, f"The model gave up: {reason}.", last),
        whole=b'{"candidates": [{"content": {"parts": [{"text": "All at once."}], "role": "model"}, '
        b'"finishReason": "STOP"}]}',
        end=b"",
        ends=b"",
        tokens=_tokens,
    )

    def read(self, request: ReceivedRequest) -> Question | None:
        found = _PATH.search(route(request))
        if request.method != "POST" or found is None:
            return None
        body = body_of(request)
        if (asked := turns(body.get("contents"), model="model")) is None:
            return None
        config = body.get("generationConfig")
        limit = config.get("maxOutputTokens") if isinstance(config, dict) else None
        streams = found["method"] == "streamGenerateContent"
        several = isinstance(config, dict) and config.get("candidateCount", 1) != 1
        return Question(
            prompt=asked[0],
            prefix=asked[1],
            max_tokens=number(limit),
            refused="This server gives one candidate: leave `candidateCount` out, or make it 1." if several else "",
            shape=replace(self, model=found["model"], array=streams),
            whole=not streams or ("alt=sse" not in request.path and wants_whole(request, body)),
        )

    def events(self, answer: Answer, answer_id: str, *, ids: bool) -> list[bytes]:
        payloads = (_written({**chunk, **self._names(answer_id)}) for chunk in _chunks(answer))
        return numbered(payloads, ids=ids, eol="\r\n")

    def document(self, answer: Answer, answer_id: str) -> Any:
        chunks = [{**chunk, **self._names(answer_id)} for chunk in _chunks(answer)]
        if self.array:
            return chunks
        *_, last = chunks
        ending = last["candidates"][0]
        parts = [part for chunk in chunks for part in chunk["candidates"][0]["content"]["parts"] if part.get("text", 1)]
        content = {**ending["content"], "parts": _joined(parts)}
        return {**last, "candidates": [{**ending, "content": content}]}

    def _names(self, answer_id: str) -> dict[str, str]:
        return {"modelVersion": self.model, "responseId": answer_id}


def _chunks(answer: Answer) -> Iterator[dict[str, Any]]:
    asked, thought, said = answer.prompt_tokens, 0, 0
    for piece in answer.reasoning_pieces:
        thought += 1
        yield _chunk({"text": piece, "thought": True}, asked, said, thought)
    for piece in answer.pieces:
        said += 1
        yield _chunk({"text": piece}, asked, said, thought)
    for tool in answer.tools:
        said += len(tool.pieces)
        if answer.finish == "stop" or tool is not answer.tools[-1]:  # a call that was cut never comes
            call = {"name": tool.name, "args": json.loads(tool.arguments)}
            yield _chunk({"functionCall": call}, asked, said, thought)
    said += len(answer.refusal_pieces)
    yield _chunk({"text": ""}, asked, said, thought, _finish(answer))


def _chunk(part: dict[str, Any], asked: int, said: int, thought: int, finish: str = "") -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": [part], "role": "model"}}
    candidate |= {"finishReason": finish} if finish else {}
    usage: dict[str, Any] = {"promptTokenCount": asked}
    usage |= {"candidatesTokenCount": said} if said else {}
    usage |= {"totalTokenCount": asked + said + thought}
    usage |= {"promptTokensDetails": [{"modality": "TEXT", "tokenCount": asked}]}
    usage |= {"thoughtsTokenCount": thought} if thought else {}
    return {"candidates": [{**candidate, "index": 0}], "usageMetadata": usage}


def _joined(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Makes one part of the parts of a text."""
    joined: list[dict[str, Any]] = []
    for part in parts:
        before = joined[-1] if joined else {}
        if "text" in part and "text" in before and part.get("thought") == before.get("thought"):
            before["text"] += part["text"]
        else:
            joined.append(dict(part))
    return joined


def _finish(answer: Answer) -> str:
    if answer.finish == "length":
        return "MAX_TOKENS"
    return "SAFETY" if answer.refusal_pieces else "STOP"


def _written(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ": "))


__all__ = ["GeminiShape"]
