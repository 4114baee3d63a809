"""Grouping against a model: the same items in one list, cut where a list of open items says so.

By number the model knows every cut. By sentence it knows those that are owed: after what is more than text.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from holdfast._types import Delta, Event, ToolCallDelta, Usage
from holdfast.machines.grouping import Grouping
from tests.properties.profile import examples

RAW = Event()
DELTAS = st.one_of(
    st.builds(lambda text: Delta(RAW, text), st.sampled_from(["a", " b", ".", "。", "3.", "e.g.", "\n", "! So"])),
    st.sampled_from([
        Delta(RAW),
        Delta(RAW, reasoning="hm."),
        Delta(RAW, "end", choice=1),
        Delta(RAW, tool_calls=(ToolCallDelta(0, "id", "f"),)),
        Delta(RAW, finish_reason="stop"),
        Delta(RAW, usage=Usage(total_tokens=1)),
    ]),
)  # fmt: skip


def ends_its_group(delta: Delta) -> bool:
    return bool(delta.finish_reason or delta.tool_calls or delta.usage)


class GroupingAgainstModel(RuleBasedStateMachine):
    grouping: Grouping[Delta] | None = None

    @initialize(
        count=st.none() | st.integers(1, 5), most=st.integers(1, 7), sentences=st.booleans(), hold_first=st.booleans()
    )
    def begin(self, *, count: int | None, most: int, sentences: bool, hold_first: bool) -> None:
        self.grouping = Grouping(count=count, sentences=sentences, max_items=most, hold_first=hold_first)
        self.limit, self.sentences, self.begun = min(count or most, most), sentences, hold_first
        self.now = 0.0
        self.open: list[Delta] = []  # fed, and in no group yet, as far as the model can know
        self.since: float | None = None
        self.groups: list[list[Delta]] = []
        self.fed: list[Delta] = []
        self.taken: list[Delta] = []

    @rule(batch=st.lists(DELTAS, max_size=6), later=st.integers(0, 3))
    def feed(self, batch: list[Delta], later: int) -> None:
        assert self.grouping is not None
        self.now += later
        self.grouping.feed(batch, self.now)
        self.fed += batch
        for delta in batch:
            self.since = self.since if self.open else self.now
            self.open.append(delta)
            first = not self.begun and not delta.empty
            self.begun = self.begun or first
            if first or ends_its_group(delta) or len(self.open) >= self.limit:
                self.close()
        if not self.begun:
            self.close()

    @rule()
    def flush(self) -> None:
        assert self.grouping is not None
        self.grouping.flush()
        self.close()

    def close(self) -> None:
        if self.open:
            self.groups.append(self.open)
        self.open, self.since = [], None

    @rule()
    def take(self) -> None:
        assert self.grouping is not None
        group = self.grouping.take()
        if not self.sentences:
            assert group == (self.groups.pop(0) if self.groups else None)
        if group is not None:
            assert 0 < len(group) <= self.limit
            assert not any(ends_its_group(delta) for delta in group[:-1])
            self.taken += group

    @precondition(lambda self: self.grouping is not None)
    @invariant()
    def time_runs_from_the_first_that_is_held(self) -> None:
        assert self.grouping is not None
        if not self.sentences:
            assert self.grouping.held_since == self.since
        elif not self.fed or ends_its_group(self.fed[-1]):
            assert self.grouping.held_since is None

    def teardown(self) -> None:
        """Everything comes out, once, in order: the same objects."""
        if self.grouping is None:
            return
        self.grouping.flush()
        while (group := self.grouping.take()) is not None:
            self.taken += group
        assert [id(delta) for delta in self.taken] == [id(delta) for delta in self.fed]


TestGroupingAgainstModel = GroupingAgainstModel.TestCase
TestGroupingAgainstModel.settings = settings(examples(80), stateful_step_count=30)
