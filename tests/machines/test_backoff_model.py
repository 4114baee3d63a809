"""Backoff against a model: a list of the chances drawn since the last reset, from which each delay follows."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from holdfast.machines.backoff import Backoff, Jitter
from tests.properties.profile import examples


class BackoffAgainstModel(RuleBasedStateMachine):
    backoff: Backoff | None = None

    @initialize(
        base=st.sampled_from([0.0, 0.1, 1.0, 3.0]),
        more=st.sampled_from([0.0, 2.0, 9.0, 1e9]),
        jitter=st.sampled_from(["full", "decorrelated"]),
    )
    def begin(self, base: float, more: float, jitter: Jitter) -> None:
        self.base, self.cap, self.jitter = base, base + more, jitter
        self.backoff = Backoff(base=base, cap=self.cap, jitter=jitter)
        self.drawn: list[float] = []
        self.delay: float | None = None

    def expected(self) -> float:
        if self.jitter == "full":
            ceiling = self.base * 2.0 ** (len(self.drawn) - 1)
            return self.drawn[-1] * min(self.cap, ceiling)
        before = self.base
        for u in self.drawn:
            before = min(self.cap, self.base + u * (3 * before - self.base))
        return before

    @rule(u=st.floats(0.0, 1.0, exclude_max=True))
    def wait(self, u: float) -> None:
        assert self.backoff is not None
        self.drawn.append(u)
        self.delay = self.backoff.next(u)
        assert self.delay == pytest.approx(self.expected())

    @rule()
    def succeed(self) -> None:
        assert self.backoff is not None
        self.backoff.reset()
        self.drawn = []

    @precondition(lambda self: self.backoff is not None and self.delay is not None)
    @invariant()
    def no_delay_passes_the_cap(self) -> None:
        assert self.delay is not None
        assert 0.0 <= self.delay <= self.cap


TestBackoffAgainstModel = BackoffAgainstModel.TestCase
TestBackoffAgainstModel.settings = settings(examples(80), stateful_step_count=40)
