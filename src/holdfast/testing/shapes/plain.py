"""Plain event streams as Replicate sends them: text in `output` events, lines in it as lines of data, ids always.

From https://replicate.com/docs/topics/predictions/streaming and a recorded stream. The ids are those of the event
stream itself, so `Last-Event-ID` goes on from any of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import parse_qs, urlsplit

from holdfast.testing.answers import Answer
from holdfast.testing.idiom import Idiom
from holdfast.testing.server import ReceivedRequest
from holdfast.testing.shapes._shape import BEGAN, Question, body_of, event, route, words

_PER_SECOND = 8
_NOTHING = re.compile(rb"output\n(?:id: \S+\n)?data: \n\n$")


def _error(code: str, message: str, _last: bytes) -> bytes:
    return event(f"{code}: {message}", name="error")


def _tokens(said: bytes) -> int:
    return int(said.startswith(b"event: output") and _NOTHING.search(said) is None)


@dataclass(slots=True, frozen=True, kw_only=True)
class PlainShape:
    """Plain events with text and ids. The prompt is the `prompt` of a JSON body or of the query, else the path."""

    idiom: ClassVar[Idiom] = Idiom(
        error=_error,
        gave_up=lambda _reason, _last: event('{"reason": "error"}', name="done"),
        whole=b'{"status":"succeeded","output":["All at once."]}',
        end=event("{}", name="done"),
        ends=b"event: done",
        tokens=_tokens,
    )

    def read(self, request: ReceivedRequest) -> Question | None:
        body = body_of(request)
        given = body.get("input")
        prompt = words(body.get("prompt") or (given.get("prompt") if isinstance(given, dict) else None))
        asked = parse_qs(urlsplit(request.path).query).get("prompt", [""])[0]
        return Question(prompt=prompt or asked or route(request))

    def events(self, answer: Answer, answer_id: str, *, ids: bool) -> list[bytes]:
        said = ["", *answer.pieces]
        made = [event(piece, name="output", id=_id(n) if ids else None) for n, piece in enumerate(said)]
        return [*made, event("{}", name="done", id=_id(len(said)) if ids else None)]


def _id(n: int) -> str:
    """A second, and a count within it."""
    return f"{BEGAN + n // _PER_SECOND}:{n % _PER_SECOND}"


__all__ = ["PlainShape"]
