"""The tickets of a breaker against a model: a place that at most one living ticket of this generation holds."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from holdfast.machines.tickets import Ticket, Tickets
from tests.properties.profile import examples

who = st.integers(0, 3)


class TicketsAgainstModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.tickets = Tickets()
        self.generation = object()
        self.probing = False
        self.live: dict[int, Ticket] = {}
        self.admitted_in: dict[int, object] = {}
        self.decided: set[int] = set()
        self.place: int | None = None

    @rule(number=who)
    def vanish(self, number: int) -> None:
        """Its holder was dropped without a word: the place goes with it."""
        self.live.pop(number, None)
        self.admitted_in.pop(number, None)
        self.decided.discard(number)
        if self.place == number:
            self.place = None

    @rule(probing=st.booleans())
    def change_state(self, *, probing: bool) -> None:
        self.generation, self.probing = object(), probing

    @rule(number=who)
    def admit(self, number: int) -> None:
        ticket = self.live.setdefault(number, Ticket())
        taken = self.place is not None and self.admitted_in[self.place] is self.generation
        expected = number not in self.decided and not (self.probing and taken)
        assert self.tickets.admit(ticket, self.generation, probing=self.probing) == expected
        if expected:
            self.admitted_in[number] = self.generation
            self.place = number if self.probing else self.place

    @rule(number=who)
    def decide(self, number: int) -> None:
        if number in self.live:
            assert self.tickets.decide(self.live[number]) == (number not in self.decided)
            self.decided.add(number)

    @rule(number=who)
    def release(self, number: int) -> None:
        if number in self.live:
            self.tickets.release(self.live[number])
            self.place = None if self.place == number else self.place

    @invariant()
    def the_place_is_held_by_whom_the_model_says(self) -> None:
        assert self.tickets.probe is (None if self.place is None else self.live[self.place])

    @invariant()
    def a_ticket_counts_in_the_generation_that_admitted_it(self) -> None:
        for number, ticket in self.live.items():
            assert self.tickets.counts(ticket, self.generation) == (self.admitted_in.get(number) is self.generation)


TestTicketsAgainstModel = TicketsAgainstModel.TestCase
TestTicketsAgainstModel.settings = settings(examples(80), stateful_step_count=40)
