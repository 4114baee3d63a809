"""A tool's answer as MCP's streamable HTTP sends it: notifications of its progress, then the result, in one stream.

From https://modelcontextprotocol.io/specification, "Streamable HTTP". With ids, a client goes on by a GET with its
Last-Event-ID, which names the call: nothing is remembered here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

from holdfast.testing.answers import Answer
from holdfast.testing.server import ReceivedRequest
from holdfast.testing.shapes import Question
from holdfast.testing.shapes._shape import body_of, compact, event

VERSION = "2026-07-28"
"""The protocol's version: the first in which a tool is called without a handshake before it."""


@dataclass(slots=True, frozen=True, kw_only=True)
class ToolShape:
    """A call of a tool, whose one argument is the prompt."""

    call: Any = 1
    token: Any = None
    prompt: str = ""

    def read(self, request: ReceivedRequest) -> Question | None:
        if request.method == "GET":
            prompt, call, token, *_ = *request.headers.get("last-event-id", "").split("/"), "", ""
            return self._question(unquote(prompt), int(call), int(token)) if prompt else None
        body = body_of(request)
        asked: Any = body.get("params")
        if body.get("method") == "tools/list":
            return Question(prompt="tools/list", shape=_List(call=body.get("id")))
        if body.get("method") != "tools/call":
            return None
        return self._question(asked["arguments"]["prompt"], body["id"], asked.get("_meta", {}).get("progressToken"))

    @staticmethod
    def _question(prompt: str, call: Any, token: Any) -> Question:
        return Question(prompt=prompt, shape=ToolShape(call=call, token=token, prompt=prompt))

    def events(self, answer: Answer, answer_id: str, *, ids: bool) -> list[bytes]:
        said: list[dict[str, Any]] = [
            {"method": "notifications/progress", "params": {"progressToken": self.token, "progress": n}}
            for n, _ in enumerate(answer.pieces, 1)
        ]
        text = {"content": [{"type": "text", "text": answer.text}], "isError": False}
        said.append({"id": self.call, "result": {"resultType": "complete", **text}})
        place = f"{quote(self.prompt, safe='')}/{self.call}/{self.token}"
        return [_message(message, id=f"{place}/{n}" if ids else None) for n, message in enumerate(said, 1)]


@dataclass(slots=True, frozen=True, kw_only=True)
class _List:
    """What a client asks before it believes a result: which tools there are."""

    call: Any

    def read(self, request: ReceivedRequest) -> Question | None:
        return None

    def events(self, answer: Answer, answer_id: str, *, ids: bool) -> list[bytes]:
        tool = {"name": "write", "inputSchema": {"type": "object", "properties": {"prompt": {"type": "string"}}}}
        return [
            _message(
                {
                    "id": self.call,
                    "result": {"resultType": "complete", "tools": [tool], "ttlMs": 1000, "cacheScope": "private"},
                }
            )
        ]


def _message(message: dict[str, Any], *, id: str | None = None) -> bytes:
    return event(compact({"jsonrpc": "2.0", **message}), name="message", id=id)
