"""What moves an answer on, and what is only padding: roles, keep-alives, blocks that dispatch nothing.

Clocks, hedges and floors must agree on it, so it is decided here alone. It runs at every read, and must stay cheap.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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


def pieces_in(batch: Sequence[Any]) -> int:
    """Counts the items of a batch that are more than padding."""
    if not batch:
        return 0
    if type(batch[0]) is Delta:  # a stream's items are all of one kind
        return len([None for item in batch if item.text or not item.empty])
    return len([None for item in batch if type(item) is not Event or item.type])


def finishes(batch: Sequence[Any]) -> bool:
    """Says whether an answer's last choice ends in a batch: what follows is its bookkeeping."""
    for item in reversed(batch):
        if type(item) is not Delta:
            return False
        if item.finish_reason is not None:
            return True
        if item.text:
            return False
    return False
