"""OpenAI's Responses: typed events whose `sequence_number` counts from 0, and a last one that repeats everything.

From https://platform.openai.com/docs/api-reference/responses-streaming and recorded streams, whose members stand in the
order of the alphabet behind `type`. There is no end mark. With `"background": true` the response is made to its end
whether or not it is read, begins `queued`, and can be gone on with.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from holdfast.testing.answers import Answer, CalledTool
from holdfast.testing.idiom import HOPELESS, Idiom, in_data, said_once
from holdfast.testing.server import ReceivedRequest
from holdfast.testing.shapes._shape import (
    BEGAN,
    Question,
    body_of,
    compact,
    event,
    number,
    route,
    turns,
    wants_whole,
    words,
)

_place = in_data(rb'"sequence_number":(\d+)')


def _document(status: int, code: str, message: str) -> bytes:
    kind = "invalid_request_error" if status < 429 else code
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}}, indent=2).encode()


def _tokens(said: bytes) -> int:
    """The events that end something say once more what their deltas said."""
    return said_once(said) if b".delta" in said[:80] else 0


def _next(last: bytes) -> int:
    return int(_place(last) or -1) + 1


def _unplaced(said: bytes) -> bytes:
    """Every event has a number: that of the one before it says nothing new."""
    before = max(0, _next(said) - 2)
    return re.sub(rb'("sequence_number":)\d+', rb"\g<1>%d" % before, re.sub(rb"(?m)^id:.*\n", b"", said))


def _code(code: str) -> str:
    return code if code in HOPELESS or code == "rate_limit_exceeded" else "server_error"


def _error(code: str, message: str, last: bytes) -> bytes:
    """Two events, as they were recorded: the error, and the response that failed of it."""
    at, code = _next(last), _code(code)
    told = {"type": code, "code": code, "message": message, "param": None}
    first = event(compact({"type": "error", "sequence_number": at, "error": told}), name="error")
    return first + _failed(at + 1, code, message)


def _gave_up(reason: str, last: bytes) -> bytes:
    return _failed(_next(last), "server_error", f"The model gave up: {reason}.")


def _failed(at: int, code: str, message: str) -> bytes:
    error = {"code": code, "message": message}
    response = {"id": "resp_failed", "object": "response", "created_at": BEGAN, "status": "failed", "error": error}
    payload = {"type": "response.failed", "response": {**response, "output": [], "usage": None}, "sequence_number": at}
    return event(compact(payload), name="response.failed")


@dataclass(slots=True, frozen=True, kw_only=True)
class ResponsesShape:
    """The Responses of OpenAI; `background` ones say so of themselves."""

    model: str = "gpt-5.4"
    background: bool = False
    idiom: ClassVar[Idiom] = Idiom(
        document=_document,
        error=_error,
        gave_up=_gave_up,
        whole=b'{"id":"resp_whole","object":"response","status":"completed","output":[{"type":"message",'
        b'"role":"assistant","content":[{"type":"output_text","text":"All at once."}]}]}',
        end=b"",
        ends=b"",
        tokens=_tokens,
        place=_place,
        unplaced=_unplaced,
    )

    def read(self, request: ReceivedRequest) -> Question | None:
        if request.method != "POST" or not route(request).endswith("/responses"):
            return None
        body = body_of(request)
        given = body.get("input")
        asked = turns([{"content": given}]) if isinstance(given, str) else turns(given)
        if asked is None:
            return None
        background = body.get("background") is True
        return Question(
            prompt=words(asked[0]),
            max_tokens=number(body.get("max_output_tokens")),
            keep=background,
            shape=replace(self, background=background),
            whole=wants_whole(request, body) and not background,
        )

    def events(self, answer: Answer, answer_id: str, *, ids: bool) -> list[bytes]:
        told = _Telling(self, answer, answer_id.removeprefix("resp_")).payloads()
        return [
            event(compact({**payload, "sequence_number": at}), name=payload["type"], id=str(at) if ids else None)
            for at, payload in enumerate(told)
        ]

    def document(self, answer: Answer, answer_id: str) -> dict[str, Any]:
        *_, last = _Telling(self, answer, answer_id.removeprefix("resp_")).payloads()
        whole: dict[str, Any] = last["response"]
        return whole


@dataclass(slots=True)
class _Telling:
    """The telling of one answer: what is said of each item, and the items that the response consists of."""

    shape: ResponsesShape
    answer: Answer
    id: str
    output: list[dict[str, Any]] = field(default_factory=list)

    def payloads(self) -> Iterator[dict[str, Any]]:
        answer = self.answer
        yield {"type": "response.created", "response": self._response(self._begun())}
        if self.shape.background:
            yield {"type": "response.queued", "response": self._response("queued")}
        yield {"type": "response.in_progress", "response": self._response("in_progress")}
        if answer.reasoning_pieces:
            yield from self._reasoning()
        if answer.pieces or answer.refusal_pieces or not answer.tools:
            yield from self._message()
        for tool in answer.tools:
            yield from self._call(tool)
        ending = "incomplete" if answer.finish == "length" else "completed"
        yield {"type": f"response.{ending}", "response": self._response(ending)}

    def _begun(self) -> str:
        return "queued" if self.shape.background else "in_progress"

    def _item(self, item: dict[str, Any]) -> dict[str, Any]:
        return {"type": "response.output_item.added", "item": item, "output_index": len(self.output)}

    def _done(self, item: dict[str, Any]) -> dict[str, Any]:
        self.output.append(item)
        return {"type": "response.output_item.done", "item": item, "output_index": len(self.output) - 1}

    def _reasoning(self) -> Iterator[dict[str, Any]]:
        item: dict[str, Any] = {"id": f"rs_{self.id}", "type": "reasoning", "summary": []}
        yield self._item(item)
        where = {"item_id": item["id"], "output_index": len(self.output)}
        part = {"type": "summary_text", "text": ""}
        yield {"type": "response.reasoning_summary_part.added", **where, "part": part, "summary_index": 0}
        for piece in self.answer.reasoning_pieces:
            yield self._delta("response.reasoning_summary_text.delta", piece, where, summary_index=0)
        text = self.answer.reasoning
        yield {"type": "response.reasoning_summary_text.done", **where, "summary_index": 0, "text": text}
        part = {**part, "text": text}
        yield {"type": "response.reasoning_summary_part.done", **where, "part": part, "summary_index": 0}
        yield self._done({**item, "summary": [part]})

    def _message(self) -> Iterator[dict[str, Any]]:
        item: dict[str, Any] = {"id": f"msg_{self.id}", "type": "message", "status": "in_progress", "content": []}
        yield self._item({**item, "role": "assistant"})
        where = {"content_index": 0, "item_id": item["id"], "output_index": len(self.output)}
        refuses = bool(self.answer.refusal_pieces)
        kind, member = ("refusal", "refusal") if refuses else ("output_text", "text")
        more: dict[str, Any] = {} if refuses else {"annotations": [], "logprobs": []}
        yield {"type": "response.content_part.added", **where, "part": {"type": kind, **more, member: ""}}
        logprobs: dict[str, Any] = {} if refuses else {"logprobs": []}
        for piece in self.answer.refusal_pieces or self.answer.pieces:
            yield self._delta(f"response.{kind}.delta", piece, where, **logprobs)
        said = self.answer.refusal or self.answer.text
        yield {"type": f"response.{kind}.done", **where, **logprobs, member: said}
        part = {"type": kind, **more, member: said}
        yield {"type": "response.content_part.done", **where, "part": part}
        yield self._done(
            {**item, "status": self._status(last=not self.answer.tools), "content": [part], "role": "assistant"}
        )

    def _call(self, tool: CalledTool) -> Iterator[dict[str, Any]]:
        item = {"id": f"fc_{tool.id.removeprefix('call_')}", "type": "function_call", "status": "in_progress"}
        named = {"call_id": tool.id, "name": tool.name}
        yield self._item({**item, "arguments": "", **named})
        where = {"item_id": item["id"], "output_index": len(self.output)}
        for piece in tool.pieces:
            yield self._delta("response.function_call_arguments.delta", piece, where)
        yield {"type": "response.function_call_arguments.done", "arguments": tool.arguments, **where}
        last = tool is self.answer.tools[-1]
        yield self._done({**item, "status": self._status(last=last), "arguments": tool.arguments, **named})

    def _delta(self, kind: str, piece: str, where: dict[str, Any], **more: Any) -> dict[str, Any]:
        # Padding hides how long a piece is from who counts the bytes of an encrypted connection.
        padding = hashlib.sha256(piece.encode()).hexdigest()[: 16 - len(piece) % 16]
        members = {**where, "delta": piece, "obfuscation": padding, **more}
        return {"type": kind, **dict(sorted(members.items()))}

    def _status(self, *, last: bool) -> str:
        return "incomplete" if last and self.answer.finish == "length" else "completed"

    def _response(self, status: str) -> dict[str, Any]:
        over = status in ("completed", "incomplete")
        reason = {"reason": "max_output_tokens"} if status == "incomplete" else None
        return {
            "id": f"resp_{self.id}",
            "object": "response",
            "created_at": BEGAN,
            "status": status,
            "background": self.shape.background,
            "completed_at": BEGAN + 1 if status == "completed" else None,
            "error": None,
            "incomplete_details": reason,
            "instructions": None,
            "max_output_tokens": None,
            "model": self.shape.model,
            "output": list(self.output),
            "parallel_tool_calls": True,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "store": True,
            "temperature": 1.0,
            "text": {"format": {"type": "text"}, "verbosity": "medium"},
            "tool_choice": "auto",
            "tools": [],
            "top_p": 1.0,
            "truncation": "disabled",
            "usage": self._usage() if over else None,
            "user": None,
            "metadata": {},
        }

    def _usage(self) -> dict[str, Any]:
        return {
            "input_tokens": self.answer.prompt_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": self.answer.tokens,
            "output_tokens_details": {"reasoning_tokens": len(self.answer.reasoning_pieces)},
            "total_tokens": self.answer.prompt_tokens + self.answer.tokens,
        }


__all__ = ["ResponsesShape"]
