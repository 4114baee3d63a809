"""What the shapes stream has the form of what providers were recorded to stream: events, their order, their members."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from holdfast.testing import (
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
from tests import shared

ANSWERS = [
    write_answer("tides"),
    write_answer("tides", thoughts=0),
    write_answer("tides", tools=2),
    write_answer("tides", sentences=0, tools=1),
]
SHAPES: dict[str, tuple[Shape, str, frozenset[str]]] = {
    "openai": (ChatShape(style="openai"), "openai_chat", frozenset({"openai", "vllm", "zai"})),
    "deepseek": (ChatShape(), "openai_chat", frozenset({"deepseek"})),
    "responses": (ResponsesShape(), "responses", frozenset({"openai_responses"})),
    "background": (ResponsesShape(background=True), "responses", frozenset({"openai_responses"})),
    "anthropic": (AnthropicShape(), "anthropic", frozenset({"anthropic"})),
    "gemini": (GeminiShape(), "gemini", frozenset({"gemini"})),
    "interactions": (InteractionsShape(stored=False), "gemini_interactions", frozenset({"gemini"})),
    "cohere": (CohereShape(), "cohere_v2", frozenset({"cohere"})),
    "replicate": (PlainShape(), "replicate", frozenset({"replicate"})),
}
UNRECORDED = {
    # Of these there is documentation and no recording here.
    "openai": {".choices.delta.reasoning_content"},
    "gemini": {".candidates.content.parts.functionCall"},
    "interactions": {"thought_summary", "arguments_delta", "function_call", ".delta.arguments", ".delta.content"}
    | {".step.id", ".step.name", ".step.arguments"},
    "cohere": {"content-start", "content-delta", "content-end"},
    "anthropic": {"tool_use"},
}

Seen = tuple[str, frozenset[str]]


def events(body: bytes) -> Iterator[tuple[str, str, Any]]:
    """Gives name, line end and data of each event; data that is no JSON is a string."""
    for block in re.split(rb"\r?\n\r?\n", body):
        lines = [line.decode() for line in block.splitlines()]
        data = [line[5:].removeprefix(" ") for line in lines if line.startswith("data:")]
        name = next((line[6:].strip() for line in lines if line.startswith("event:")), "")
        if data:
            text = "\n".join(data)
            yield name, "\r\n" if b"\r\n" in block else "\n", json.loads(text) if text.startswith("{") else text


def paths(value: Any, at: str = "") -> Iterator[str]:
    """Gives every member by its path; the word after a `type` belongs to it."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield f"{at}.{name}={inner}" if name == "type" and isinstance(inner, str) else f"{at}.{name}"
            yield from paths(inner, f"{at}.{name}")
    elif isinstance(value, list):
        for inner in value:
            yield from paths(inner, at)


def recorded(api: str, providers: frozenset[str]) -> list[bytes]:
    found = [
        e
        for e in shared.recordings()
        if e["api"] == api and e["provider"] in providers and "errors" not in e["contains"]
    ]
    shared.recordings_folder()
    return [shared.recorded(entry) for entry in found]


def kind(name: str, data: Any) -> str:
    told = data.get("type") or data.get("event_type") if isinstance(data, dict) else ""
    return f"{name} {told or ''}".strip()


@pytest.mark.parametrize("which", SHAPES)
def test_events_have_the_names_and_members_of_recorded_ones(which: str) -> None:
    shape, api, providers = SHAPES[which]
    known: dict[str, set[str]] = {}
    for body in recorded(api, providers):
        for name, _, data in events(body):
            # The oldest recordings of Responses have lost their names on the way.
            for called in {kind(name, data), kind(kind("", data), data)}:
                known.setdefault(called, set()).update(paths(data))
    assert known
    excused = UNRECORDED.get(which, set())
    strange: dict[str, set[str]] = {}
    for answer in ANSWERS:
        for name, _, data in events(b"".join(shape.events(answer, "a1", ids=which == "replicate"))):
            called = kind(name, data)
            odd = {p for p in paths(data) if called not in known or p not in known[called]}
            if called in known or not any(word in called for word in excused):
                odd = {p for p in odd if not any(word in p or word in called for word in excused)}
                if odd or called not in known:
                    strange.setdefault(called, set()).update(odd)
    assert strange == {}


@pytest.mark.parametrize("which", SHAPES)
def test_lines_end_as_recorded(which: str) -> None:
    shape, api, providers = SHAPES[which]
    ends = {end for body in recorded(api, providers) for _, end, _ in events(body)}
    assert {end for _, end, _ in events(b"".join(shape.events(ANSWERS[0], "a1", ids=False)))} <= ends


@pytest.mark.parametrize("which", SHAPES)
def test_the_end_is_that_of_recorded_streams(which: str) -> None:
    shape, api, providers = SHAPES[which]
    last = [list(events(body))[-1] for body in recorded(api, providers)]
    name, _, data = list(events(b"".join(shape.events(ANSWERS[0], "a1", ids=False))))[-1]
    assert kind(name, data) in {kind(name, data) for name, _, data in last}
    assert (data == "[DONE]") in {data == "[DONE]" for _, _, data in last}


def test_members_stand_in_the_order_in_which_they_were_recorded() -> None:
    def orders(bodies: list[bytes]) -> dict[str, set[tuple[str, ...]]]:
        found: dict[str, set[tuple[str, ...]]] = {}
        for body in bodies:
            for name, _, data in events(body):
                if isinstance(data, dict):
                    found.setdefault(kind(name, data), set()).add(tuple(data))
        return found

    for which in ("anthropic", "gemini", "interactions", "cohere"):
        shape, api, providers = SHAPES[which]
        told = orders(recorded(api, providers))
        for called, ours in orders([b"".join(shape.events(ANSWERS[0], "a1", ids=False))]).items():
            if called in told:
                assert ours <= told[called], (which, called)
