"""The shapes in which providers stream an answer, one file each, to the byte as recorded streams have them.

`SHAPES` are those that a request's path tells apart. A shape of your own needs the two methods of `Shape`, and
an `idiom` where faults are to speak its dialect.
"""

from __future__ import annotations

from holdfast.testing.idiom import CHAT, Idiom
from holdfast.testing.shapes._shape import Question, Shape
from holdfast.testing.shapes.anthropic import AnthropicShape
from holdfast.testing.shapes.chat import ChatShape
from holdfast.testing.shapes.cohere import CohereShape
from holdfast.testing.shapes.completions import CompletionsShape
from holdfast.testing.shapes.gemini import GeminiShape
from holdfast.testing.shapes.interactions import InteractionsShape
from holdfast.testing.shapes.plain import PlainShape
from holdfast.testing.shapes.responses import ResponsesShape

SHAPES: tuple[Shape, ...] = (
    ChatShape(),
    CompletionsShape(),
    ResponsesShape(),
    AnthropicShape(),
    GeminiShape(),
    InteractionsShape(),
    CohereShape(),
)
"""The shapes that a `ChaosServer` has unless told; a `PlainShape` takes any request, so it is never among them."""


def idiom_of(shape: Shape) -> Idiom:
    """Gives how faults say things in a shape's dialect; that of chat completions where it does not say."""
    idiom = getattr(shape, "idiom", CHAT)
    return idiom if isinstance(idiom, Idiom) else CHAT


__all__ = [
    "SHAPES",
    "AnthropicShape",
    "ChatShape",
    "CohereShape",
    "CompletionsShape",
    "GeminiShape",
    "InteractionsShape",
    "PlainShape",
    "Question",
    "ResponsesShape",
    "Shape",
    "idiom_of",
]
