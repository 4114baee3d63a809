r"""Halves of characters (`\ud83d`, then `\ude00`) in the dialects whose texts need no more than to be joined."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from holdfast._errors import DecodeError
from holdfast._types import Delta, Event
from holdfast.dialects import COHERE, GEMINI, GEMINI_INTERACTIONS, Dialect, state_of
from holdfast.machines.cursor import Cursor

Say = Callable[..., list[Any]]


def gemini(*words: str, thought: bool = False) -> list[Any]:
    said = [{"candidates": [{"content": {"parts": [{"text": one, "thought": thought}]}}]} for one in words]
    return [*said, {"candidates": [{"finishReason": "STOP"}]}]


def interaction(*words: str, thought: bool = False) -> list[Any]:
    start = {"event_type": "step.start", "index": 0, "step": {"type": "thought" if thought else "model_output"}}
    said = [{"event_type": "step.delta", "index": 0, "delta": {"type": "text", "text": one}} for one in words]
    return [start, *said, {"event_type": "interaction.completed", "interaction": {"status": "completed"}}]


def cohere(*words: str, thought: bool = False) -> list[Any]:
    name = "thinking" if thought else "text"
    said = [{"type": "content-delta", "delta": {"message": {"content": {name: one}}}} for one in words]
    return [*said, {"type": "message-end", "delta": {"finish_reason": "COMPLETE"}}]


EACH = pytest.mark.parametrize(
    ("dialect", "say"),
    [(GEMINI, gemini), (GEMINI_INTERACTIONS, interaction), (COHERE, cohere)],
    ids=lambda value: value.name if isinstance(value, Dialect) else "",
)


def events(chunks: list[Any]) -> list[Event]:
    return [Event(json.dumps(chunk).encode()) for chunk in chunks]


def heard(dialect: Dialect, chunks: list[Any], *, handover: int | None = None) -> tuple[str, str, int]:
    """Gives text, reasoning and what was mended; after `handover` events another process goes on."""
    cursor, deltas = Cursor(), list[Delta]()
    reader = dialect.reader(None, cursor)
    before = chunks if handover is None else chunks[:handover]
    reader.feed(events(before), deltas)
    if handover is not None:
        evidence = dialect.wire.revive(state_of(reader.evidence))
        cursor.mode = "continue"
        reader = dialect.reader(None, cursor, evidence)
        reader.feed(events(chunks[handover:]), deltas)
    assert reader.evidence.complete
    assert all(delta.text.isprintable() for delta in deltas)
    return "".join(d.text for d in deltas), "".join(d.reasoning for d in deltas), cursor.repaired


@EACH
def test_the_halves_of_a_character_are_joined(dialect: Dialect, say: Say) -> None:
    assert heard(dialect, say("a\ud83d", "\ude00b", "c")) == ("a😀bc", "", 0)
    assert heard(dialect, say("a\ud83d", "\ude00b", thought=True)) == ("", "a😀b", 0)


@EACH
def test_a_half_that_stays_alone_is_replaced_and_counted(dialect: Dialect, say: Say) -> None:
    assert heard(dialect, say("a\ud83d", "b", "\ude00")) == ("a\ufffdb\ufffd", "", 2)
    assert heard(dialect, say("a\ud83d")) == ("a\ufffd", "", 1)


@EACH
def test_nothing_waits_after_the_end(dialect: Dialect, say: Say) -> None:
    finished = say("a\ud83d")
    assert heard(dialect, [*finished, *say("b\ud83d")])[0] == "a\ufffdb\ufffd"


@EACH
def test_a_half_waits_over_a_handover(dialect: Dialect, say: Say) -> None:
    said = say("a\ud83d", "\ude00b")
    assert heard(dialect, said, handover=len(said) - 2) == ("a😀b", "", 0)


@pytest.mark.parametrize(
    ("dialect", "chunk"),
    [
        (GEMINI, {"responseId": "\ud83d", "candidates": []}),
        (GEMINI, {"candidates": [{"finishReason": "\ud83d"}]}),
        (GEMINI, {"candidates": [{"content": {"parts": [{"functionCall": {"name": "\ud83d"}}]}}]}),
        (GEMINI_INTERACTIONS, {"event_type": "interaction.completed", "interaction": {"status": "\ud83d"}}),
        (GEMINI_INTERACTIONS, {"event_type": "step.start", "step": {"type": "function_call", "id": "\ud83d"}}),
        (COHERE, {"type": "message-start", "id": "\ud83d"}),
        (COHERE, {"type": "tool-call-start", "delta": {"message": {"tool_calls": {"id": "\ud83d"}}}}),
    ],
)
def test_what_is_no_text_cannot_come_in_halves(dialect: Dialect, chunk: dict[str, Any]) -> None:
    with pytest.raises(DecodeError, match="half a character"):
        dialect.reader(None, Cursor()).feed(events([chunk]), [])
