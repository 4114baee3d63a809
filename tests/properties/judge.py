"""What a client was told, against what is true: said in one form for both, so that they can be compared.

The truth is taken from what was drawn, never from what the library read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from holdfast._types import Choice, Completion, Delta
from holdfast.testing.strategies import TrueAnswer

Said = dict[int, list[tuple[str, str]]]
"""For each choice, each character in its channel, in order; how the choice finished is the last."""


def said(deltas: Iterable[Delta]) -> Said:
    """Puts into that form what deltas say."""
    heard: Said = {}
    for delta in deltas:
        pieces = [("reasoning", delta.reasoning), ("text", delta.text), ("refusal", delta.refusal)]
        for call in delta.tool_calls:
            pieces += [(f"name {call.index}", call.name), (f"arguments {call.index}", call.arguments)]
        tape = [(channel, character) for channel, text in pieces for character in text]
        if delta.finish_reason is not None:
            tape.append(("finish", delta.finish_reason))
        if tape:
            heard.setdefault(delta.choice, []).extend(tape)
    return heard


def truth(answer: TrueAnswer) -> Said:
    """Puts a true answer into that form."""
    whole: Said = {}
    for number, plan in enumerate(answer.plans):
        tape, calls = whole.setdefault(number, []), 0
        for part in plan.parts:
            if part.name:
                tape += [(f"name {calls}", c) for c in part.name] + [(f"arguments {calls}", c) for c in part.text]
                calls += 1
            else:
                tape += [(part.channel, c) for c in part.text]
        tape.append(("finish", plan.finish_reason))
    return whole


def begins(heard: Said, whole: Said) -> bool:
    """True where all that was heard is how the whole answer begins, choice by choice."""
    return all(tape == whole.get(choice, [])[: len(tape)] for choice, tape in heard.items())


def nameless(answer: Completion) -> tuple[Choice, ...]:
    """The choices without the ids of their tool calls, which a server draws anew for every response."""
    return tuple(
        replace(choice, tool_calls=tuple(replace(call, id="") for call in choice.tool_calls))
        for choice in answer.choices
    )
