"""The cursor against a model: an honest server's log of events, and how many of them were delivered.

The server numbers every event, or the first of each group, or all of a group alike, or groups in blocks of their own.
Its connections are cut anywhere, also between what was received and what was delivered; it goes on after the id that is
asked for, or repeats a past. Whatever happens, what was delivered is a prefix of the log: nothing lost, nothing twice.
"""

from __future__ import annotations

from typing import Literal

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from holdfast._types import Event
from holdfast.machines.cursor import Cursor
from tests.properties.profile import examples

LENGTH = 60
Numbering = Literal["each", "first", "shared", "apart"]


class CursorAgainstModel(RuleBasedStateMachine):
    cursor: Cursor | None = None

    @initialize(
        numbering=st.sampled_from(["each", "first", "shared", "apart"]),
        size=st.integers(2, 4),
        words=st.lists(st.sampled_from([b"a", b"b"]), min_size=LENGTH, max_size=LENGTH),
    )
    def begin(self, numbering: Numbering, size: int, words: list[bytes]) -> None:
        self.numbering = numbering
        self.size = 1 if numbering == "each" else size
        # Where several events share an id, the same bytes under it would be the same event.
        self.log = [w + b"%d" % n if numbering == "shared" else w for n, w in enumerate(words)]
        self.cursor = Cursor()
        self.cursor.begin("start")
        self.delivered: list[int] = []
        self.pending: list[tuple[int, Event]] = []  # received, not delivered yet
        self.place = 0  # of the next event on this connection
        self.running = ""
        self.first = 0  # the first event of this connection
        if numbering == "first":
            # Until an event without an id was delivered, a server that sends one may be taken for another.
            self.read(2, 2)

    def event(self, n: int) -> Event:
        """Gives the n-th event as the parser would, `running` being its connection's last id."""
        bears = self.numbering == "shared" or (self.numbering != "apart" and n % self.size == 0)
        self.running = f"id{n // self.size}"
        return Event(self.log[n], last_event_id=self.running, id=self.running if bears else None)

    def receive(self, count: int) -> None:
        assert self.cursor is not None
        for _ in range(min(count, LENGTH - self.place)):
            event = self.event(self.place)
            if self.cursor.admits(event):
                self.pending.append((self.place, event))
            self.place += 1

    # Each rule reads on first, because Hypothesis leaves some rules out of every run.

    @rule(count=st.integers(0, 6), deliver=st.integers(0, 6))
    def read(self, count: int, deliver: int) -> None:
        assert self.cursor is not None
        self.receive(count)
        batch, self.pending = self.pending[:deliver], self.pending[deliver:]
        self.cursor.commit([event for _, event in batch])
        self.delivered += [n for n, _ in batch]

    @precondition(lambda self: self.cursor is not None and self.numbering == "each")
    @rule(count=st.integers(1, 3), back=st.integers(1, 3))
    def stutter(self, count: int, back: int) -> None:
        """The same event comes once more on one connection."""
        assert self.cursor is not None
        self.receive(count)
        n = max(self.place - back, self.first)
        if n < self.place:
            assert not self.cursor.admits(self.event(n)), "an event came twice"
            self.running = f"id{self.place - 1}"

    @precondition(lambda self: self.cursor is not None)
    @rule(count=st.integers(0, 6), deliver=st.integers(0, 6), repeat=st.booleans(), back=st.integers(0, 3))
    def cut(self, *, count: int, deliver: int, repeat: bool, back: int) -> None:
        """What is pending is lost. The server goes on at the id that is asked for, or before it."""
        assert self.cursor is not None
        self.read(count, deliver)
        self.pending.clear()
        asked = self.running = self.cursor.last_event_id
        if not asked:
            assert not self.delivered, "the place was forgotten"
            self.cursor.begin("start")
            self.place = 0
        else:
            self.cursor.begin("continue")
            group = int(asked.removeprefix("id"))
            if self.numbering == "each":
                self.place = max(0, group + 1 - back)
            else:
                self.place = group * self.size + (1 if self.numbering == "first" and not repeat else 0)
        self.first = self.place

    @precondition(lambda self: self.cursor is not None)
    @invariant()
    def what_was_delivered_is_a_prefix_of_the_log(self) -> None:
        assert self.delivered == list(range(len(self.delivered)))

    @precondition(lambda self: self.cursor is not None)
    @invariant()
    def the_id_to_ask_for_is_that_of_the_last_delivered_event(self) -> None:
        assert self.cursor is not None
        expected = f"id{self.delivered[-1] // self.size}" if self.delivered else ""
        assert self.cursor.last_event_id == expected
        assert self.cursor.mode != "replay", "an honest server was taken for another"

    def teardown(self) -> None:
        """With no more cuts everything arrives."""
        if self.cursor is not None:
            self.read(LENGTH, LENGTH)
            assert self.delivered == list(range(LENGTH))


TestCursorAgainstModel = CursorAgainstModel.TestCase
TestCursorAgainstModel.settings = settings(examples(100), stateful_step_count=30)
