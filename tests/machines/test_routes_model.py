"""The routes against a model that remembers the whole history of each upstream and works everything out anew."""

from __future__ import annotations

import math

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from holdfast.machines.routes import CHOICES, Routes, Visit
from tests.properties.profile import examples

EJECT, CAP, AFTER = 10.0, 35.0, 2


class RoutesAgainstModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.open: list[tuple[Visit, int, int]] = []  # the visit, its place, how many ejections it had seen begin

    @initialize(weights=st.lists(st.integers(1, 4), min_size=1, max_size=4), choose=st.sampled_from(CHOICES))
    def begin(self, weights: list[int], choose: str) -> None:
        self.weights, self.by = weights, choose
        self.routes = Routes(weights, choose=choose, eject_after=AFTER, eject=EJECT, max_eject=CAP)  # type: ignore[arg-type]
        count = len(weights)
        self.row, self.times, self.until, self.pauses = [0] * count, [0] * count, [-math.inf] * count, [0] * count

    def well(self, place: int) -> bool:
        return self.until[place] <= self.now

    def others_well(self, place: int) -> bool:
        return any(self.well(other) for other in range(len(self.weights)) if other != place)

    @rule(seconds=st.sampled_from([0.5, 3.0, 10.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(u=st.floats(0.0, 1.0, exclude_max=True), out=st.sets(st.integers(0, 3)), ejected=st.booleans())
    def ask(self, *, u: float, out: set[int], ejected: bool) -> None:
        place = self.routes.choose(self.now, u, out, ejected=ejected)
        left = [one for one in range(len(self.weights)) if one not in out]
        well = [one for one in left if self.well(one)]
        if place is None:
            assert not (left if ejected else well)
            return
        assert place in left
        assert place in well or (ejected and not well and self.until[place] == min(self.until[one] for one in left))
        if well and self.by == "first":
            assert place == well[0]
        if well and self.by == "least-loaded":
            loads = [sum(1 for _, at, _ in self.open if at == one) / self.weights[one] for one in well]
            assert loads[well.index(place)] == min(loads)
        self.open.append((self.routes.begin(place, self.now), place, self.pauses[place]))

    @precondition(lambda self: self.open)
    @rule(data=st.data(), good=st.sampled_from([True, False, False, False, None]), wait=st.sampled_from([None, 5.0]))
    def over(self, *, data: st.DataObject, good: bool | None, wait: float | None) -> None:
        visit, place, seen = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        self.routes.end(visit, self.now, good=good, wait=wait if good is False else None)
        self.routes.end(visit, self.now, good=False)  # the second says nothing
        if good is None or seen != self.pauses[place]:
            return
        if good:
            self.row[place] = self.times[place] = 0
            self.until[place] = min(self.until[place], self.now)
            return
        self.failed(place)
        if wait and self.well(place) and self.others_well(place):
            self.until[place] = self.now + wait
            self.row[place] = 0
            self.pauses[place] += 1

    def failed(self, place: int) -> None:
        self.row[place] += 1
        enough = self.row[place] >= AFTER or self.times[place] > 0
        if enough and self.well(place) and self.others_well(place):
            self.times[place] += 1
            self.until[place] = self.now + min(CAP, EJECT * 2 ** (self.times[place] - 1))
            self.row[place] = 0
            self.pauses[place] += 1

    @rule(place=st.integers(0, 3), good=st.booleans())
    def probe(self, *, place: int, good: bool) -> None:
        if place >= len(self.weights):
            return
        self.routes.probed(place, self.now, good=good)
        if good:
            self.row[place] = 0
            self.until[place] = min(self.until[place], self.now)
        elif self.well(place):
            self.failed(place)
        else:
            self.until[place] = max(
                self.until[place], self.now + min(CAP, EJECT * 2 ** (max(1, self.times[place]) - 1))
            )

    @invariant()
    def they_agree(self) -> None:
        if not hasattr(self, "routes"):
            return
        for place in range(len(self.weights)):
            assert self.routes.healthy(place, self.now) == self.well(place)
            assert self.routes.load(place) == sum(1 for _, at, _ in self.open if at == place)
        assert any(self.well(place) for place in range(len(self.weights))), "never all"


TestRoutesAgainstModel = RoutesAgainstModel.TestCase
TestRoutesAgainstModel.settings = settings(examples(60), stateful_step_count=40)
