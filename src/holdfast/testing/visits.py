"""Requests for an answer that a server has kept: which one, from which place on, or that it is to stop.

OpenAI: https://platform.openai.com/docs/guides/background; Gemini: the interactions of python-genai; llama.cpp: the
pull request ggml-org/llama.cpp#23226.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qs, urlsplit

from holdfast.testing.idiom import CHAT, Idiom
from holdfast.testing.server import ReceivedRequest
from holdfast.testing.shapes import SHAPES, idiom_of
from holdfast.testing.shapes.interactions import InteractionsShape
from holdfast.testing.shapes.responses import ResponsesShape

Kind = Literal["responses", "interactions", "conversations"]
_PATH = re.compile(r"/(?P<of>responses|interactions)/(?P<id>[^/]+?)(?P<cancel>/cancel)?$")
_IDIOMS: dict[str, Idiom] = {"responses": ResponsesShape.idiom, "interactions": InteractionsShape.idiom}


@dataclass(slots=True, frozen=True, kw_only=True)
class Visit:
    """One such request. `id` is the kept answer's without what its kind puts before it, `cursor` the place."""

    of: Kind
    id: str
    action: Literal["read", "show", "cancel"]
    cursor: str = ""

    @property
    def idiom(self) -> Idiom:
        """How errors are told here."""
        return _IDIOMS.get(self.of, CHAT)

    @property
    def member(self) -> str:
        """Where events have the whole of a kept answer; empty where none has."""
        return {"responses": "response", "interactions": "interaction", "conversations": ""}[self.of]

    @property
    def unknown(self) -> str:
        """What is said where nothing is kept."""
        if self.of == "responses":
            return f"Response with id 'resp_{self.id}' not found."
        return f"There is nothing to go on with under the id {self.id!r}."


def read_visit(request: ReceivedRequest) -> Visit | None:
    """Gives what is asked of a kept answer, None where a request asks something else."""
    url = urlsplit(request.path)
    query = {name: values[-1] for name, values in parse_qs(url.query).items()}
    if url.path.endswith("/stream") and query.get("conv_id") and request.method in ("GET", "DELETE"):
        action: Literal["read", "cancel"] = "read" if request.method == "GET" else "cancel"
        return Visit(of="conversations", id=query["conv_id"], action=action, cursor=_digits(query.get("from", "0")))
    found = _PATH.search(url.path)
    if found is None:
        return None
    of: Kind = "responses" if found["of"] == "responses" else "interactions"
    bare = found["id"].removeprefix("resp_").removeprefix("v1_")
    if request.method == "POST" and found["cancel"]:
        return Visit(of=of, id=bare, action="cancel")
    if request.method != "GET" or found["cancel"]:
        return None
    cursor = query.get("starting_after" if of == "responses" else "last_event_id", "")
    return Visit(of=of, id=bare, action="read" if query.get("stream") == "true" else "show", cursor=cursor)


def idiom_for(request: ReceivedRequest) -> Idiom:
    """Gives the idiom of the dialect that a request is in; that of chat completions where none of the shapes' is it."""
    if (visit := read_visit(request)) is not None:
        return visit.idiom
    return next((idiom_of(shape) for shape in SHAPES if shape.read(request) is not None), CHAT)


def _digits(text: str) -> str:
    return text if text.isascii() and text.isdigit() else "0"


__all__ = ["Visit", "idiom_for", "read_visit"]
