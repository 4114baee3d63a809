"""The resume ladder: how a broken stream goes on, and when it does not.

`Ladder.next(failure)` gives one `Step` at a time. It knows no stream and no clock; a layer climbs. The rungs,
strongest first; each is left for the next when the server refuses it:

1. `last-event-id`: the server numbers its events; re-open with the header. Exact.
2. `cursor`: the provider has a way of its own to go on behind a place in an answer. Exact.
3. `replay`: send the request again, compare what comes with what was delivered, hand over the new suffix. Verified.
4. `prefix`: the model is given what it said, and continues it. Seamed: another answer could have come of it.

The same upstream first. Where nothing leads on there and another one is at hand, the ladder is climbed there: a replay
or a prefix, since ids and cursors are of the server that gave them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, cast, get_args

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
from holdfast.machines.routes import leads_on
from holdfast.machines.settings import check_bool, check_count, check_kind

Rung = Literal["last-event-id", "cursor", "replay", "prefix"]
RUNGS: tuple[Rung, ...] = get_args(Rung)
EXACT: tuple[Rung, ...] = ("last-event-id", "cursor", "replay")
"""The rungs that never change the meaning of an answer."""
_MODES: dict[Rung, BatchMode] = {
    "last-event-id": "continue",
    "cursor": "continue",
    "replay": "replay",
    "prefix": "extend",
}
_GUARANTEES: dict[Rung, Guarantee] = {
    "last-event-id": "exact",
    "cursor": "exact",
    "replay": "verified",
    "prefix": "seamed",
}
_NOT_A_CURSOR = (*range(300, 400), 400, 404, 405, 409, 410, 412, 413, 414, 416, 422, 431, 501)
"""Statuses that refuse the cursor and not the caller: the id is unknown, gone, or the header is not understood; or at
the cursor's address nobody answers to its method, or somebody else does."""
_PAID: tuple[Rung, ...] = ("replay", "prefix")
"""Rungs on which the provider bills again what was delivered: as output, or as input."""
MAX_WAIT = 60.0
"""Seconds that a server may ask us to wait before we re-open; one that asks for more is left."""


@dataclass(slots=True, frozen=True, kw_only=True, repr=False)
class Seams:
    """The policy of the ladder: which seams a stream may have, and what they may cost.

    `rungs` are tried in their order; by default those that never change the meaning of an answer. `max_seams` one
    stream may have, and `max_barren` re-openings in a row may bring nothing new (content resets the count). After
    `leave_after` of them another upstream is asked, where there are several.
    `max_repaid_tokens` bounds what replays and prefixes may cost again; None allows replays twice what was delivered,
    one more at each other upstream that is asked for the rest, and prefixes, which are input and mostly cached, as
    often as there may be seams. When a replay differs, `on_divergence` climbs on to the next rung or raises at once. A
    prefix is never continued inside a tool call or a thought, and inside an answer in JSON only with `inside_json`.
    `cancel_abandoned`: a provider that goes on generating without us (background answers) is told to stop when the
    reader leaves before the end.
    """

    rungs: tuple[Rung, ...] = EXACT
    max_seams: int = 20
    max_barren: int = 5
    leave_after: int = 2
    max_repaid_tokens: int | None = None
    on_divergence: Literal["climb", "raise"] = "climb"
    inside_json: bool = False
    cancel_abandoned: bool = True

    def __post_init__(self) -> None:
        for name in ("max_barren", "max_seams", "leave_after"):
            check_count(name, getattr(self, name), least=0)
        check_count("max_repaid_tokens", self.max_repaid_tokens, least=0, optional=True)
        for name in ("inside_json", "cancel_abandoned"):
            check_bool(name, getattr(self, name))
        if not isinstance(cast("object", self.rungs), tuple) or not all(rung in RUNGS for rung in self.rungs):
            raise ValueError(f"rungs must be a tuple of {', '.join(RUNGS)}, not {self.rungs!r}")
        if self.on_divergence not in ("climb", "raise"):
            raise ValueError(f'on_divergence must be "climb" or "raise", not {self.on_divergence!r}')

    def __repr__(self) -> str:
        set_ = (f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if getattr(self, f.name) != f.default)
        return f"Seams({', '.join(set_)})"

    @classmethod
    def of(cls, allowed: Seams | bool) -> Seams:  # noqa: FBT001 - `seams=True` is how users say it
        """Gives the policy that `seams=` names: True allows every rung, False those that keep the meaning.

        Raises `UsageError` for anything else.
        """
        if isinstance(allowed, bool):
            return cls(rungs=RUNGS) if allowed else cls()
        check_kind("seams=", allowed, Seams, "True, False or Seams(...)")
        return allowed


@dataclass(slots=True, frozen=True, kw_only=True)
class Step:
    """What to do next: re-open after `delay` seconds, or `finish`: the answer was proven before the line died.

    `elsewhere`: not at the upstream that failed, but at the next one.
    """

    rung: Rung | None = None
    delay: float = 0.0
    elsewhere: bool = False

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

    `cursor`, `replayable` and `prefix` say whether those rungs exist here, `elsewhere` which do at another upstream.
    `effects` names what the request changes at the provider, for which it is not sent again; empty for nothing.
    `complete`: all of the answer was delivered, only its usage or its end mark may be missing.
    """

    last_event_id: str = ""
    cursor: bool = False
    replayable: bool = False
    prefix: bool = False
    elsewhere: tuple[Rung, ...] = ()
    effects: str = ""
    complete: bool = False
    usage_known: bool = False
    no_request: str = ""
    """What keeps the call from sending another request, in words; empty where nothing does."""
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
        "_here",
        "_policy",
        "_proven",
        "_refused",
        "_repaid",
        "_rung",
        "_seams",
        "blames_rung",
        "why",
    )

    def __init__(self, policy: Seams | None = None, *, backoff: Backoff | None = None) -> None:
        self._policy = policy or Seams()
        self._backoff = backoff or Backoff()
        self._refused: set[Rung] = set()
        self._rung: Rung | None = None
        self._barren = 0
        self._here = 0  # of the barren tries, those at this upstream
        self._seams = 0
        self._repaid = 0
        self._cost = 0
        self._proven = False
        self.why = ""
        """Why the last failure has no next step, in words; empty where that failure itself says it."""
        self.blames_rung = False
        """True where the last failure was the refusal of a rung: it says nothing of what the caller asked for."""

    def made_progress(self) -> None:
        """New content came: the tries in a row without any count from zero again, and so does a refused cursor."""
        if self._rung is not None:
            self._rung = None
            self._seams += 1
            self._barren = self._here = 0
            self._refused.clear()
            self._backoff.reset()

    def diverged(self, heard: int = 0) -> None:
        """What came is another answer: the rung that led to it is not tried again.

        A cursor may lead to one and a replay not: what was compared need not have been an answer from its beginning.
        `heard` is how many of its tokens came before that was seen: a provider bills no more of a replay.
        A model that did not take up its own words may do so at the next try: a prefix is bounded by `max_barren`.
        """
        if self._rung == "replay":
            self._repaid += min(heard, self._cost) - self._cost
            self._cost = min(heard, self._cost)
        if self._policy.on_divergence == "raise":
            self._refused |= set(RUNGS)
        elif self._rung != "prefix":
            self._refused.add(self._rung or "replay")

    def next(self, failure: StreamError, at: Situation) -> Step | None:
        """Gives the next step, or None: raise the failure."""
        self.why, self.blames_rung = "", False
        if self._proven:
            return Step()  # what we asked for was no more than the usage
        self._proven = at.complete and isinstance(failure, StreamBroken | DeadlineExceeded)
        if self._proven and (at.usage_known or not (at.last_event_id or at.cursor)):
            # The line died after the proof came. Usage may be missing, and a second answer is not bought for it.
            return Step()
        return self._climb(failure, at) or (Step() if self._proven else None)

    def _climb(self, failure: StreamError, at: Situation) -> Step | None:
        lost = False  # nothing leads on at this upstream
        if self._rung is not None and self._rung != "replay" and _refuses_cursor(failure):
            self._refused.add(self._rung)
            self.blames_rung = True
        elif not failure.retryable or isinstance(failure, BudgetExhausted | CircuitOpen):
            lost = True
            if not (at.elsewhere and leads_on(failure)):
                return None
        if at.no_request:
            self.why = at.no_request
            return None
        if isinstance(failure, IntegrityError):
            # Told when all had been delivered: behind the cursor is nothing, and something before it is not as it was
            # sent. A replay compares; going on would vouch for it.
            self._refused |= {"last-event-id", "cursor"}
        if self._rung in _PAID and isinstance(failure, ConnectError | StatusError):
            self._repaid -= self._cost  # nothing was generated for it
        policy = self._policy
        if self._barren >= policy.max_barren:
            self.why = f"{self._barren} tries in a row brought nothing new (Seams(max_barren=))"
            return None
        if self._seams >= policy.max_seams:
            self.why = f"it has {self._seams} seams already (Seams(max_seams=))"
            return None
        rung = next((r for r in policy.rungs if r not in self._refused and self._possible(r, at)), None)
        wait = max(at.server_retry or 0.0, failure.retry_after or 0.0)
        leaves = lost or rung is None or wait > MAX_WAIT or self._here >= policy.leave_after
        if leaves and not self._proven and (step := self._elsewhere(at)) is not None:
            return step
        if lost:
            return None
        if wait > MAX_WAIT:
            self.why = f"the server wants us to wait for {wait:g} s, and {MAX_WAIT:g} s is the most"
            return None
        if rung is None or (self._proven and rung in _PAID):
            self.why = "; ".join(self._left_out(r, at) for r in policy.rungs) or "no rung is allowed"
            return None
        if rung in _PAID:
            self._cost = at.delivered_tokens
            self._repaid += self._cost
        self._rung = rung
        self._barren += 1
        self._here += 1
        return Step(rung=rung, delay=max(wait, self._backoff.next(at.u)))

    def _elsewhere(self, at: Situation) -> Step | None:
        """Gives the step to another upstream: at once, since that one has not failed, and with no rung refused yet."""
        for rung in self._policy.rungs:
            # Without a limit of the caller's the first replay there is beside what replays here may cost: what was
            # spent on an upstream that breaks each time must not keep the others from being asked.
            free = self._policy.max_repaid_tokens is None
            if rung not in at.elsewhere or self._gives_up or not (free or self._affordable(rung, at)):
                continue
            self._cost = 0 if free or rung not in _PAID else at.delivered_tokens
            self._repaid += self._cost
            self._rung = rung
            self._refused.clear()
            self._barren += 1
            self._here = 1
            self._backoff.reset()
            self.why, self.blames_rung = "", False
            return Step(rung=rung, elsewhere=True)
        return None

    @property
    def _gives_up(self) -> bool:
        """True after a divergence, where one is to be raised."""
        return self._policy.on_divergence == "raise" and self._refused >= set(RUNGS)

    def _left_out(self, rung: Rung, at: Situation) -> str:
        """Says why a rung is not climbed."""
        if rung in self._refused:
            return f"{rung}: refused, or it led to another answer"
        if (rung == "replay" and at.replayable) or (rung == "prefix" and at.prefix):
            return f"{rung}: it would cost too much again (Seams(max_repaid_tokens=))"
        if at.effects and rung != "cursor":
            return f"{rung}: the request is not sent twice, for its {at.effects}"
        return f"{rung}: not to be had here"

    def _possible(self, rung: Rung, at: Situation) -> bool:
        if rung == "last-event-id":
            return bool(at.last_event_id)
        if rung == "cursor":
            return at.cursor
        return (at.replayable if rung == "replay" else at.prefix) and self._affordable(rung, at)

    def _affordable(self, rung: Rung, at: Situation) -> bool:
        limit = self._policy.max_repaid_tokens
        if limit is None and rung == "replay":
            limit = 2 * at.delivered_tokens
        return limit is None or self._repaid + at.delivered_tokens <= limit


def _refuses_cursor(failure: StreamError) -> bool:
    # "HTTP 204 No Content" tells an event source to stop reconnecting: for us it ends this rung only.
    return isinstance(failure, NotAStream) or (isinstance(failure, StatusError) and failure.status in _NOT_A_CURSOR)
