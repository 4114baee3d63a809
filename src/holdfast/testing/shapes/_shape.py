"""What a shape is: how one kind of provider is asked, and how it streams an answer.

Here is what all shapes share, and nothing that one provider does. A shape must never know of faults or of attempts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from holdfast.testing.answers import Answer
from holdfast.testing.server import ReceivedRequest

BEGAN = 1_767_225_600
"""When every answer was begun: the first second of 2026. An answer tells the same time each time it is told."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Question:
    """What a request asks: the last thing the user said, and what the model is to go on from, None without that.

    `thought` is what the model had thought before that beginning, where the request brings it, too.
    `max_tokens` is how long the answer may be. `refused` is why the provider does not take the request. `keep`: the
    answer is generated to its end whether or not somebody reads it, and can be gone on with under its own id or the one
    in `keep_as`. `shape` is the shape as this request wants it, where that is not the shape that read it.
    """

    prompt: str
    prefix: str | None = None
    thought: str = ""
    max_tokens: int | None = None
    refused: str = ""
    keep: bool = False
    keep_as: str = ""
    shape: Shape | None = None
    whole: bool = False
    """The answer is wanted as one document."""


class Shape(Protocol):
    """How one kind of provider is asked, and how it streams an answer.

    A shape may have an `idiom`, a `holdfast.testing.idiom.Idiom`: how faults say things in its dialect. One whose
    questions may be `whole` has `document(answer, answer_id)`, too, which gives the JSON values of an answer that is
    not streamed.
    """

    def read(self, request: ReceivedRequest) -> Question | None:
        """Gives what a request asks, None where it is none of this shape's."""

    def events(self, answer: Answer, answer_id: str, *, ids: bool) -> list[bytes]:
        """Gives the exact bytes of every event of an answer; with `ids`, those that can be gone on from have one."""


# -- requests ----------------------------------------------------------------------------------


def route(request: ReceivedRequest) -> str:
    """Gives the path of a request without its query."""
    return request.path.partition("?")[0]


def body_of(request: ReceivedRequest) -> dict[str, Any]:
    """Gives the JSON object that a request sends, empty where it sends none."""
    try:
        body = request.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def wants_whole(request: ReceivedRequest, body: Mapping[str, Any]) -> bool:
    """Says whether a request is for one document: in its body, or, where that is silent, by the kind it accepts."""
    accepted = request.headers.get("accept", "")
    silent = "stream" not in body and "application/json" in accepted and "text/event-stream" not in accepted
    return silent or body.get("stream") is False


def words(content: Any) -> str:
    """Gives the text of a message's content, which is a string, or a list of parts of which some have text."""
    if isinstance(content, str):
        return content
    if isinstance(content, Mapping):
        return words(content.get("text", content.get("content", content.get("parts"))))
    if isinstance(content, Sequence):
        return "".join(words(part) for part in content)
    return ""


def turns(messages: Any, *, model: str = "assistant") -> tuple[str, str | None] | None:
    """Gives the last thing the user said and what the model's message behind it begins with; None without a user."""
    if not isinstance(messages, list) or not all(isinstance(message, Mapping) for message in messages):
        return None
    asked = [words(message) for message in messages if message.get("role", "user") == "user"]
    said = [text for text in asked if text]  # the results of tools are items without a role, and without words
    if not said:
        return None
    last = messages[-1]
    return said[-1], words(last) if last.get("role") == model else None


def number(value: Any) -> int | None:
    """Gives a limit that a request sets."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


# -- events ------------------------------------------------------------------------------------


def compact(value: Any) -> str:
    """Writes JSON without a blank, and characters as they are."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def event(data: str, *, name: str = "", id: str | None = None, eol: str = "\n") -> bytes:
    """Makes one event: its name, its id, and a line of data for each line of `data`."""
    fields = [f"event: {name}"] if name else []
    fields += [f"id: {id}"] if id is not None else []
    fields += [f"data: {line}" for line in data.split("\n")]
    return eol.join([*fields, "", ""]).encode()


def numbered(datas: Iterable[str], *, ids: bool, name: str = "", eol: str = "\n") -> list[bytes]:
    """Makes events of one kind, with ids that count from 1 where they are asked for."""
    return [event(data, name=name, id=str(n) if ids else None, eol=eol) for n, data in enumerate(datas, 1)]


__all__ = [
    "BEGAN",
    "Question",
    "Shape",
    "body_of",
    "compact",
    "event",
    "number",
    "numbered",
    "route",
    "turns",
    "wants_whole",
    "words",
]
