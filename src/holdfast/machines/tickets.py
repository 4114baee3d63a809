"""Who asked a circuit breaker, in which of its states, and who holds the one place to probe.

An outcome arrives long after the admission it belongs to. A ticket remembers the *generation* it was given out in:
any object that is replaced whenever the breaker changes its state. An outcome counts only while that generation is
still the present one, so a late success closes nothing and a late failure opens nothing. Tickets hold no breaker and
no lock; who shares them among threads guards every call.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass


@dataclass(slots=True, weakref_slot=True, eq=False)
class Ticket:
    """One admission. `decided` becomes True once, when its outcome is known or its holder gave up."""

    generation: object = None
    decided: bool = False


class Tickets:
    """The tickets of one breaker. In a generation that probes, one ticket at a time holds the place."""

    __slots__ = ("_probe",)

    def __init__(self) -> None:
        # A weak reference: a stream that was dropped without being closed takes its place with it.
        self._probe: weakref.ref[Ticket] | None = None

    @property
    def probe(self) -> Ticket | None:
        """The ticket that holds the place to probe, None when it is free."""
        return self._probe() if self._probe is not None else None

    def admit(self, ticket: Ticket, generation: object, *, probing: bool) -> bool:
        """Gives a ticket its generation. False: the place to probe is taken, or the ticket's holder has gone."""
        if ticket.decided:
            return False
        if probing:
            holder = self.probe
            if holder is not None and holder.generation is generation:
                return False
            self._probe = weakref.ref(ticket)
        ticket.generation = generation
        return True

    def decide(self, ticket: Ticket) -> bool:
        """Says that a ticket's outcome is known. True the first time: an outcome is recorded once."""
        first = not ticket.decided
        ticket.decided = True
        return first

    def release(self, ticket: Ticket) -> None:
        """Gives the place to probe back, if this ticket held it."""
        if self.probe is ticket:
            self._probe = None

    def counts(self, ticket: Ticket, generation: object) -> bool:
        """True while the generation that admitted the ticket is the present one."""
        return ticket.generation is generation
