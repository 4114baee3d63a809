"""What a shape streams is, read by its dialect, the answer that was to be told."""

from __future__ import annotations

import pytest

from holdfast._types import Completion
from holdfast.offline import assemble
from holdfast.testing import (
    Answer,
    AnthropicShape,
    ChatShape,
    CohereShape,
    GeminiShape,
    InteractionsShape,
    PlainShape,
    ResponsesShape,
    Shape,
    write_answer,
)

DIALECTS: list[tuple[str, Shape]] = [
    ("deepseek", ChatShape()),
    ("openai", ChatShape(style="openai")),
    ("vllm", ChatShape(style="openai", reasoning="reasoning")),
    ("openai-responses", ResponsesShape()),
    ("openai-responses", ResponsesShape(background=True)),
    ("anthropic", AnthropicShape()),
    ("gemini", GeminiShape()),
    ("gemini-interactions", InteractionsShape()),
    ("gemini-interactions", InteractionsShape(stored=False)),
    ("cohere", CohereShape()),
]
SAID_AS_TEXT = (AnthropicShape, InteractionsShape, CohereShape)
"""Those that have no form for the words of a refusal."""


def read(shape: Shape, dialect: str, answer: Answer, *, ids: bool = False) -> Completion:
    return assemble([b"".join(shape.events(answer, "a1", ids=ids))], dialect=dialect)


@pytest.mark.parametrize(("dialect", "shape"), DIALECTS, ids=repr)
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ids", [False, True])
def test_every_word_thought_and_call_arrives(dialect: str, shape: Shape, seed: int, *, ids: bool) -> None:
    answer = write_answer(seed, sentences=(seed + 1) % 5, thoughts=seed % 3, tools=(seed + 1) % 4)
    completion = read(shape, dialect, answer, ids=ids)
    assert (completion.text, completion.reasoning) == (answer.text, answer.reasoning)
    told = [(call.name, call.arguments) for call in completion.tool_calls]
    assert told == [(tool.name, tool.arguments) for tool in answer.tools]
    assert completion.usage is not None
    assert completion.usage.output_tokens == answer.tokens


@pytest.mark.parametrize(("dialect", "shape"), DIALECTS, ids=repr)
def test_a_refusal_arrives(dialect: str, shape: Shape) -> None:
    answer = write_answer("tides", refuses=True)
    completion = read(shape, dialect, answer)
    if isinstance(shape, GeminiShape):
        assert (completion.text, completion.finish_reason) == ("", "SAFETY")
    else:
        assert (completion.text if isinstance(shape, SAID_AS_TEXT) else completion.refusal) == answer.refusal


@pytest.mark.parametrize(("dialect", "shape"), DIALECTS, ids=repr)
def test_an_answer_that_was_cut_is_whole_as_far_as_it_goes(dialect: str, shape: Shape) -> None:
    answer = write_answer("tides")
    whole, cut = read(shape, dialect, answer), read(shape, dialect, answer.cut(40))
    assert cut.text == answer.cut(40).text
    assert cut.finish_reason != whole.finish_reason


def test_plain_events_are_the_text() -> None:
    answer = write_answer("tides")
    assert read(PlainShape(), "replicate", answer, ids=True).text == answer.text
