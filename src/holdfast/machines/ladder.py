"""The resume ladder: how a broken stream goes on, and when it does not.

`Ladder.next(failure)` gives one `Step` at a time. It knows no stream and no clock; a layer climbs. The rungs of this
house so far, strongest first; each is left for the next when the server refuses it:

1. `last-event-id`: the server numbers its events; re-open with the header. Exact.
2. `replay`: send the request again, compare what comes with what was delivered, hand over the new suffix. Verified.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from holdfast._errors import (
    BudgetExhausted,
    CircuitOpen,
    ConnectError,
    DeadlineExceeded,
    IntegrityError,
    NotAStream,
    StatusError,
    StreamBroken,
    StreamError,
)
from holdfast._types import BatchMode, Guarantee
from holdfast.machines.backoff import Backoff

Rung = Literal["last-event-id", "replay"]
RUNGS: tuple[Rung, ...] = get_args(Rung)
_MODES: dict[Rung, BatchMode] = {"last-event-id": "continue", "replay": "replay"}
_GUARANTEES: dict[Rung, Guarantee] = {"last-event-id": "exact", "replay": "verified"}
_NOT_A_CURSOR = (400, 404, 409, 410, 412, 413, 414, 416, 422, 431)
"""Statuses that refuse the cursor and not the caller: the id is unknown, gone, or the header is not understood."""
MAX_WAIT = 60.0
"""Seconds that a server may ask us to wait before we re-open; one that asks for more is left."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Step:
    """What to do next: re-open after `delay` seconds, or `finish`: the answer was proven before the line died."""

    rung: Rung | None = None
    delay: float = 0.0

    @property
    def finish(self) -> bool:
        """True when there is nothing left to ask for."""
        return self.rung is None

    @property
    def mode(self) -> BatchMode:
        """What the new attempt's items will be."""
        return "start" if self.rung is None else _MODES[self.rung]

    @property
    def guarantee(self) -> Guarantee:
        """How the seam will be vouched for."""
        return "exact" if self.rung is None else _GUARANTEES[self.rung]


@dataclass(slots=True, kw_only=True)
class Situation:
    """Where a stream stood when it broke. `u` is the chance for the delay, in [0, 1).

    `complete`: all of the answer was delivered, only its usage or its end mark may be missing.
    """

    last_event_id: str = ""
    replayable: bool = False
    complete: bool = False
    usage_known: bool = False
    may_request: bool = True
    delivered_tokens: int = 0
    server_retry: float | None = None
    """Seconds, from the stream's own `retry:` field."""
    u: float = 0.5


class Ladder:
    """Decides after each failure. `made_progress()` tells it of new content, `opened()` of a seam that held."""

    __slots__ = (
        "_backoff",
        "_barren",
        "_cost",
        "_max_barren",
        "_max_repaid",
        "_max_seams",
        "_proven",
        "_refused",
        "_repaid",
        "_rung",
        "_rungs",
        "_seams",
    )

    def __init__(
        self,
        *,
        rungs: tuple[Rung, ...] = RUNGS,
        max_barren: int = 5,
        max_seams: int = 20,
        max_repaid_tokens: int | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self._rungs = rungs
        self._max_barren = max_barren
        self._max_seams = max_seams
        self._max_repaid = max_repaid_tokens
        self._backoff = backoff or Backoff()
        self._refused: set[Rung] = set()
        self._rung: Rung | None = None
        self._barren = 0
        self._seams = 0
        self._repaid = 0
        self._cost = 0
        self._proven = False

    def made_progress(self) -> None:
        """New content came: the tries in a row without any count from zero again, and so does a refused cursor."""
        if self._rung is not None:
            self._rung = None
            self._seams += 1
            self._barren = 0
            self._refused.clear()
            self._backoff.reset()

    def diverged(self) -> None:
        """What came is another answer: neither a replay nor the rung that led to one is tried again."""
        self._refused |= {"replay", self._rung or "replay"}

    def next(self, failure: StreamError, at: Situation) -> Step | None:
        """Gives the next step, or None: raise the failure."""
        if self._proven:
            return Step()  # what we asked for was no more than the usage
        self._proven = at.complete and isinstance(failure, StreamBroken | DeadlineExceeded)
        if self._proven and (at.usage_known or not at.last_event_id):
            # The line died after the proof came. Usage may be missing, and a second answer is not bought for it.
            return Step()
        return self._climb(failure, at) or (Step() if self._proven else None)

    def _climb(self, failure: StreamError, at: Situation) -> Step | None:
        if isinstance(failure, BudgetExhausted | CircuitOpen) or not at.may_request:
            return None
        if self._rung == "last-event-id" and _refuses_cursor(failure):
            self._refused.add("last-event-id")
        elif not failure.retryable:
            return None
        if isinstance(failure, IntegrityError):
            # Told when all had been delivered: behind the cursor is nothing, and something before it is not as it was
            # sent. A replay compares; going on would vouch for it.
            self._refused.add("last-event-id")
        if self._rung == "replay" and isinstance(failure, ConnectError | StatusError):
            self._repaid -= self._cost  # nothing was generated for it
        if self._barren >= self._max_barren or self._seams >= self._max_seams:
            return None
        rung = next((r for r in self._rungs if r not in self._refused and self._possible(r, at)), None)
        wait = max(at.server_retry or 0.0, failure.retry_after or 0.0)
        if rung is None or (self._proven and rung == "replay") or wait > MAX_WAIT:
            return None
        if rung == "replay":
            self._cost = at.delivered_tokens
            self._repaid += self._cost
        self._rung = rung
        self._barren += 1
        return Step(rung=rung, delay=max(wait, self._backoff.next(at.u)))

    def _possible(self, rung: Rung, at: Situation) -> bool:
        if rung == "last-event-id":
            return bool(at.last_event_id)
        limit = self._max_repaid if self._max_repaid is not None else 2 * at.delivered_tokens
        return at.replayable and self._repaid + at.delivered_tokens <= limit


def _refuses_cursor(failure: StreamError) -> bool:
    # "HTTP 204 No Content" tells an event source to stop reconnecting: for us it ends this rung only.
    return isinstance(failure, NotAStream) or (isinstance(failure, StatusError) and failure.status in _NOT_A_CURSOR)
