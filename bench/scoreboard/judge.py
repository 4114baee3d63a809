"""What a contender's stream came to, judged against what the server said. It must know nothing of who the contender is.

An error counts as typed when it is of a family that the library's documentation tells users to catch. What had been
shown before an error, or at a normal end, must be the beginning of one single answer of the server's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

Outcome = Literal["exact", "typed", "foreign", "wrong", "hang"]
OUTCOMES: tuple[Outcome, ...] = ("exact", "typed", "foreign", "wrong", "hang")
MEANING: Mapping[Outcome, str] = {
    "exact": "the whole answer, once",
    "typed": "an error of a family that the documentation tells users to catch, and before it nothing wrong",
    "foreign": "another error: of the JSON parser, a KeyError",
    "wrong": "a normal end with less or other text than the answer, or text shown twice or mixed",
    "hang": "neither an end nor an error when the watchdog came",
}
MARKS: Mapping[Outcome, str] = {"exact": "✓", "typed": "E", "foreign": "?", "wrong": "✗", "hang": "∞"}


def judge(heard: Mapping[str, Any], truths: Sequence[str]) -> Outcome:
    """Gives the outcome. `truths` are the answers that the attempts were told."""
    text = heard["text"]
    if heard["hung"]:
        return "hang"
    if not any(truth.startswith(text) for truth in truths) and (text or not heard["error"]):
        return "wrong"
    if heard["error"]:
        return "typed" if heard["typed"] else "foreign"
    return "exact" if text in truths else "wrong"
