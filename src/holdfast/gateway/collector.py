"""Python's garbage collector, as a process wants it that does nothing but relay.

A stream makes a few hundred objects that live as long as it does, and each event some that are gone at once; by default
that is a walk through all that the process has ever loaded, over and over: a fifth of its time, and pauses that readers
would see.
"""

from __future__ import annotations

import gc

_THRESHOLDS = 20_000, 20, 50


def spare() -> None:
    """Leaves out of collections what is there now, and has them come seldom. For a whole process, once it has begun."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
