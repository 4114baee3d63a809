from __future__ import annotations

import gc

from hypothesis import given
from hypothesis import strategies as st

from holdfast.machines.tickets import Ticket, Tickets


def test_a_closed_generation_admits_everybody() -> None:
    tickets, closed = Tickets(), object()
    assert all(tickets.admit(Ticket(), closed, probing=False) for _ in range(3))
    assert tickets.probe is None


def test_a_ticket_counts_only_in_its_own_generation() -> None:
    tickets, first, second = Tickets(), object(), object()
    ticket = Ticket()
    tickets.admit(ticket, first, probing=False)
    assert tickets.counts(ticket, first)
    assert not tickets.counts(ticket, second)
    assert not tickets.counts(Ticket(), first)


def test_one_ticket_holds_the_place_to_probe() -> None:
    tickets, half_open = Tickets(), object()
    first, second = Ticket(), Ticket()
    assert tickets.admit(first, half_open, probing=True)
    assert not tickets.admit(second, half_open, probing=True)
    tickets.release(second)
    assert tickets.probe is first
    tickets.release(first)
    assert tickets.admit(second, half_open, probing=True)


def test_a_probe_of_an_older_generation_blocks_nobody_and_frees_nobody() -> None:
    tickets, older, newer = Tickets(), object(), object()
    old, new = Ticket(), Ticket()
    tickets.admit(old, older, probing=True)
    assert tickets.admit(new, newer, probing=True)
    tickets.release(old)
    assert tickets.probe is new


def test_a_probe_that_nobody_holds_any_more_frees_its_place() -> None:
    tickets, half_open = Tickets(), object()
    ticket = Ticket()
    tickets.admit(ticket, half_open, probing=True)
    del ticket
    gc.collect()
    assert tickets.admit(Ticket(), half_open, probing=True)


def test_a_holder_that_left_before_its_admission_takes_no_place() -> None:
    tickets, half_open = Tickets(), object()
    gone = Ticket()
    assert tickets.decide(gone)
    assert not tickets.admit(gone, half_open, probing=True)
    assert tickets.probe is None


def test_an_outcome_is_decided_once() -> None:
    tickets, ticket = Tickets(), Ticket()
    assert [tickets.decide(ticket) for _ in range(3)] == [True, False, False]


@given(st.lists(st.tuples(st.sampled_from(["admit", "release", "change"]), st.integers(0, 4)), max_size=60))
def test_never_two_probes_in_one_generation(steps: list[tuple[str, int]]) -> None:
    tickets, generation = Tickets(), object()
    holders: dict[int, Ticket] = {}
    probing: set[int] = set()
    for step, who in steps:
        if step == "change":
            generation, probing = object(), set()
        elif step == "release":
            if who in holders:
                tickets.release(holders.pop(who))
            probing.discard(who)
        elif who not in holders:
            ticket = Ticket()
            if tickets.admit(ticket, generation, probing=True):
                holders[who] = ticket
                probing.add(who)
        assert len(probing) <= 1
        assert (tickets.probe is not None and tickets.counts(tickets.probe, generation)) == bool(probing)
