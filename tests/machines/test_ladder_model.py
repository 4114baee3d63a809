"""The ladder against a model: two rungs with the reasons for which each is out, and counters of what was spent."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from holdfast._errors import (
    BudgetExhausted,
    CircuitOpen,
    ConnectError,
    DeadlineExceeded,
    NotAStream,
    StatusError,
    StreamBroken,
    StreamError,
    Truncated,
    UpstreamError,
)
from holdfast._types import Head
from holdfast.machines.ladder import MAX_WAIT, Ladder, Seams, Situation, Step
from tests.properties.profile import examples

CAP = 10.0


def refused(status: int, retry_after: float | None = None) -> StatusError:
    return StatusError("refused", head=Head(status=status), retry_after=retry_after, retryable=status in (429, 503))


# Most of what is drawn lets a stream go on, so that runs are long enough to meet the limits.
FAILURES = st.sampled_from([
    *[lambda: StreamBroken("cut")] * 10,
    *[lambda: refused(410)] * 3,
    lambda: Truncated("cut"),
    lambda: ConnectError("nobody"),
    lambda: DeadlineExceeded("progress", 1.0),
    lambda: DeadlineExceeded("total", 1.0),
    lambda: NotAStream("page"),
    lambda: UpstreamError("no", retryable=False),
    lambda: BudgetExhausted("spent"),
    lambda: CircuitOpen("open"),
    lambda: refused(401),
    lambda: refused(503, 3.0),
    lambda: refused(429, MAX_WAIT + 1),
])  # fmt: skip
SITUATIONS = st.builds(
    Situation,
    last_event_id=st.sampled_from(["", "7"]),
    replayable=st.sampled_from([True, True, False]),
    elsewhere=st.sampled_from([(), ("replay",)]),
    complete=st.sampled_from([False] * 30 + [True]),
    usage_known=st.booleans(),
    no_request=st.sampled_from([""] * 9 + ["the budget is spent"]),
    delivered_tokens=st.integers(0, 50),
    server_retry=st.sampled_from([None] * 6 + [0.5, 20.0, MAX_WAIT + 1]),
    u=st.floats(0.0, 1.0, exclude_max=True),
)


class LadderAgainstModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.rung: str | None = None  # on which we stand, untried
        self.out: set[str] = set()
        self.barren = self.seams = self.repaid = self.here = 0
        self.moves = False
        self.proven = False

    @initialize(
        barren=st.integers(1, 5),
        seams=st.integers(1, 4),
        limit=st.sampled_from([None, 0, 60, 10_000]),
        leave=st.integers(0, 3),
    )
    def begin(self, barren: int, seams: int, limit: int | None, leave: int) -> None:
        self.max_barren, self.max_seams, self.limit, self.leave = barren, seams, limit, leave
        self.ladder = Ladder(Seams(max_barren=barren, max_seams=seams, max_repaid_tokens=limit, leave_after=leave))
        self.cost = 0

    @rule()
    def progress(self) -> None:
        self.ladder.made_progress()
        if self.rung is not None:
            self.rung, self.out, self.barren, self.here = None, set(), 0, 0
            self.seams += 1

    @rule()
    def diverge(self) -> None:
        self.ladder.diverged()
        if self.rung == "replay":
            self.repaid -= self.cost  # nothing of it had been heard
            self.cost = 0
        self.out.add(self.rung or "replay")

    @rule(make=FAILURES, at=SITUATIONS)
    def fail(self, make: st.SearchStrategy[StreamError], at: Situation) -> None:
        failure: StreamError = make()  # type: ignore[operator]  # what is drawn is a function
        step = self.ladder.next(failure, at)
        wanted = self.expected(failure, at)
        assert step == Step() if wanted == "finish" else (step.rung if step else None) == wanted
        if step is None or step.finish:
            return
        assert step.elsewhere == self.moves
        if self.moves:
            assert step.delay == 0.0
            self.here, self.out = 0, set()
        else:
            wait = max(at.server_retry or 0.0, failure.retry_after or 0.0)
            assert wait <= step.delay <= max(wait, CAP)
            assert wait <= MAX_WAIT
        assert step.guarantee == {"last-event-id": "exact", "replay": "verified"}[step.rung or ""]
        self.rung = step.rung
        self.barren += 1
        self.here += 1
        if step.rung == "replay":
            # The first replay at another upstream is beside the allowance, where that is the ladder's own.
            self.cost = 0 if self.moves and self.limit is None else at.delivered_tokens
            self.repaid += self.cost

    def expected(self, failure: StreamError, at: Situation) -> str | None:
        """Gives the rung that is owed, "finish", or None for the failure itself."""
        if self.proven:
            return "finish"
        self.proven = at.complete and isinstance(failure, StreamBroken | DeadlineExceeded)
        rung = self.climb(failure, at)
        if self.proven and (at.usage_known or rung != "last-event-id"):
            return "finish"  # only usage is missing: an exact continuation may bring it, a second answer is not bought
        return rung

    def climb(self, failure: StreamError, at: Situation) -> str | None:
        self.moves = False
        if self.proven and (at.usage_known or not at.last_event_id):
            return None
        lost = False
        about_the_cursor = isinstance(failure, NotAStream) or (
            isinstance(failure, StatusError) and failure.status == 410
        )
        if self.rung == "last-event-id" and about_the_cursor:
            self.out.add("last-event-id")
        elif not failure.retryable:
            lost = True
            total = isinstance(failure, DeadlineExceeded) and failure.clock == "total"
            if not at.elsewhere or total:
                return None
        if at.no_request:
            return None
        if self.rung == "replay" and isinstance(failure, ConnectError | StatusError):
            self.repaid -= self.cost  # it was never answered, so it cost nothing
        wait = max(at.server_retry or 0.0, failure.retry_after or 0.0)
        if self.barren >= self.max_barren or self.seams >= self.max_seams:
            return None
        limit = self.limit if self.limit is not None else 2 * at.delivered_tokens
        affordable = self.repaid + at.delivered_tokens <= limit
        rung = None
        if at.last_event_id and "last-event-id" not in self.out:
            rung = "last-event-id"
        elif at.replayable and affordable and "replay" not in self.out:
            rung = "replay"
        nothing_here = lost or rung is None or wait > MAX_WAIT or self.here >= self.leave
        may_move = self.limit is None or affordable
        self.moves = nothing_here and may_move and bool(at.elsewhere) and not self.proven
        if self.moves:
            return "replay"
        return None if lost or wait > MAX_WAIT else rung


TestLadderAgainstModel = LadderAgainstModel.TestCase
TestLadderAgainstModel.settings = settings(examples(100), stateful_step_count=40)
