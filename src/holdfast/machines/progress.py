"""What moves an answer on, and what is only padding: roles, keep-alives, blocks that dispatch nothing.

Clocks, hedges and floors must agree on it, so it is decided here alone. It runs at every read, and must stay cheap.
"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast._types import Delta, Event


def moves_on(batch: Sequence[object]) -> bool:
    """Says whether anything in a batch is more than padding."""
    for item in batch:
        if type(item) is Delta:
            if item.text or not item.empty:  # the plain case first
                return True
        elif type(item) is not Event or item.type:
            return True
    return False


def pieces_in(batch: Sequence[object]) -> int:
    """Counts the items of a batch that are more than padding."""
    count = 0
    for item in batch:
        if type(item) is Delta:
            if item.text or not item.empty:  # the plain case first
                count += 1
        elif type(item) is not Event or item.type:
            count += 1
    return count


def finishes(batch: Sequence[object]) -> bool:
    """Says whether a choice of the answer ends in a batch: what follows is its bookkeeping."""
    return any(type(item) is Delta and item.finish_reason is not None for item in batch)
