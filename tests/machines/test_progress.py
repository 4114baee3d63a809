"""What is content, and what is padding."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast._types import Delta, Event, ToolCallDelta, Usage
from holdfast.machines.progress import finishes, moves_on, pieces_in

ROLE = Delta(Event())
CONTENT = [
    Delta(Event(), text="a"),
    Delta(Event(), reasoning="a"),
    Delta(Event(), refusal="no"),
    Delta(Event(), tool_calls=(ToolCallDelta(arguments="{"),)),
    Delta(Event(), finish_reason="stop"),
    Delta(Event(), usage=Usage()),
    Event(b"data"),
    b"bytes",
    "text",
]
PADDING = [ROLE, Delta(Event(), tool_calls=(ToolCallDelta(),)), Event(type="")]


@pytest.mark.parametrize("item", CONTENT, ids=repr)
def test_content_moves_on(item: Any) -> None:
    assert moves_on([ROLE, item])
    padding = [ROLE] if isinstance(item, Delta) else []
    assert pieces_in([*padding, item, item]) == 2


@pytest.mark.parametrize("item", PADDING, ids=repr)
def test_padding_does_not(item: Any) -> None:
    assert not moves_on([item, item])
    assert pieces_in([item]) == pieces_in([]) == 0


def test_a_finish_reason_finishes() -> None:
    assert finishes([ROLE, Delta(Event(), finish_reason="stop")])
    assert finishes([Delta(Event(), text="a"), Delta(Event(), text=".", finish_reason="stop"), ROLE])
    assert not finishes([ROLE, Delta(Event(), text="stop"), ROLE])
    assert not finishes([Delta(Event(), finish_reason="stop"), Delta(Event(), text="another choice goes on", choice=1)])
    assert not finishes([b"stop"])
    assert not finishes([])
