"""How models go on from the beginning of an answer, which is not always where it ends.

Each variant is a function of the prefix and of the true rest, so a test knows what was added or lost.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from holdfast.testing.answers import Answer, in_pieces

Continuing = Literal["rest", "echo", "word", "space"]
"""How a model continues: with the rest alone; with the prefix once more before it; with its last word once more; or
with a blank too many at the seam, or too few where the rest began with one."""


def continued(rest: Answer, prefix: str, how: Continuing) -> Answer:
    """Gives the rest of an answer as a model of this kind says it."""
    if how == "echo":
        return replace(rest, pieces=in_pieces(prefix) + rest.pieces)
    if how == "word":
        return replace(rest, pieces=in_pieces(prefix)[-1:] + rest.pieces)
    if how == "space" and rest.pieces:
        first = rest.pieces[0]
        return replace(rest, pieces=(first[1:] if first[0].isspace() else f" {first}", *rest.pieces[1:]))
    return rest


__all__ = ["Continuing", "continued"]
