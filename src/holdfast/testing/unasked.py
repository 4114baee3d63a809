"""What a server says to requests that ask for no answer: which models there are, and what of a question is missing.

In the words of the dialect whose path it is, so that whoever forgot something reads what. It must never be asked for a
request that some shape can read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from holdfast.testing.idiom import Idiom
from holdfast.testing.server import ReceivedRequest
from holdfast.testing.shapes import (
    AnthropicShape,
    ChatShape,
    CohereShape,
    GeminiShape,
    InteractionsShape,
    ResponsesShape,
)
from holdfast.testing.shapes._shape import BEGAN, body_of, route


def _of_openai(member: str, *, there: bool) -> str:
    if not there:
        return f"Missing required parameter: '{member}'."
    return f"Invalid '{member}': it must hold at least one message of the role user, with text."


def _of_anthropic(member: str, *, there: bool) -> str:
    return f"{member}: " + (
        "at least one message of the role user, with text, is required" if there else "Field required"
    )


def _of_google(member: str, *, there: bool) -> str:
    return f"* GenerateContentRequest.{member}: {member} " + (
        "holds no text of a user" if there else "is not specified"
    )


_PATHS: tuple[tuple[str, str, Idiom, Callable[..., str]], ...] = (
    ("/chat/completions", "messages", ChatShape.idiom, _of_openai),
    ("/completions", "prompt", ChatShape.idiom, _of_openai),
    ("/responses", "input", ResponsesShape.idiom, _of_openai),
    ("/messages", "messages", AnthropicShape.idiom, _of_anthropic),
    ("GenerateContent", "contents", GeminiShape.idiom, _of_google),
    (":generateContent", "contents", GeminiShape.idiom, _of_google),
    ("/interactions", "input", InteractionsShape.idiom, _of_openai),
    ("/v2/chat", "messages", CohereShape.idiom, _of_openai),
)
"""How each path ends, and which member of a body asks there."""


def refusal_of(request: ReceivedRequest) -> bytes:
    """Gives the document that tells what is missing."""
    path = route(request)
    for end, member, idiom, words in _PATHS:
        if request.method == "POST" and path.endswith(end):
            told = words(member, there=member in body_of(request))
            return idiom.document(400, "invalid_request_error", told)
    return ChatShape.idiom.document(400, "invalid_request_error", "this is no request for a completion")


def models_at(path: str) -> dict[str, Any]:
    """Gives the one model that there is, in the words of whoever asks at such a path."""
    if path.startswith("/v1beta/"):
        name = GeminiShape().model
        methods = ["generateContent", "streamGenerateContent"]
        return {"models": [{"name": f"models/{name}", "displayName": name, "supportedGenerationMethods": methods}]}
    model = {"id": ChatShape().model, "object": "model", "created": BEGAN, "owned_by": "holdfast"}
    return {"object": "list", "data": [model]}


__all__ = ["models_at", "refusal_of"]
