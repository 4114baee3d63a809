"""What something cost: an amount with its currency and its parts, and what could not be priced."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Context, Decimal

EXACT = Context(prec=60)
"""A program's own decimal context may round to six digits: sums of money must not."""
ZERO = Decimal(0)
_MAX_UNKNOWN = 32


@dataclass(slots=True, frozen=True, kw_only=True)
class Cost:
    """What one stream cost, or many: `answer` for the answers themselves, `again` at seams, `hedge` for lost races.

    `unknown` names the models that have no price here (an empty name: none was given), 32 at most: `amount` is None
    then. `estimated`: some tokens were, or which price held.
    """

    currency: str
    answer: Decimal = ZERO
    again: Decimal = ZERO
    hedge: Decimal = ZERO
    estimated: bool = False
    unknown: tuple[str, ...] = ()

    @property
    def amount(self) -> Decimal | None:
        """The sum of the parts; None where something has no price."""
        return None if self.unknown else self.known

    @property
    def known(self) -> Decimal:
        """The sum of all that has a price."""
        return EXACT.add(EXACT.add(self.answer, self.again), self.hedge)

    def __add__(self, other: Cost) -> Cost:
        if other.currency != self.currency:
            raise ValueError(f"costs in {self.currency} and {other.currency} have no sum: nothing here knows a rate")
        return Cost(
            currency=self.currency,
            answer=EXACT.add(self.answer, other.answer),
            again=EXACT.add(self.again, other.again),
            hedge=EXACT.add(self.hedge, other.hedge),
            estimated=self.estimated or other.estimated,
            unknown=names(self.unknown, other.unknown),
        )

    def __str__(self) -> str:
        parts = [f"{shown(self.known)} {self.currency}"]
        if self.estimated:
            parts[0] = f"about {parts[0]}"
        parts += [f"{shown(part)} {name}" for name, part in (("again", self.again), ("hedge", self.hedge)) if part]
        if self.unknown:
            parts[0] = f"at least {parts[0]}" if self.known else "unknown"
            parts.append("no price for " + ", ".join(name or "a request that names no model" for name in self.unknown))
        return " · ".join(parts)


def names(*known: Iterable[str]) -> tuple[str, ...]:
    """Gives each name once, in order, and no more than a few: models are named by whoever asks."""
    return tuple(sorted({name for some in known for name in some})[:_MAX_UNKNOWN])


def shown(amount: Decimal) -> str:
    """Writes money for the eye: at least two decimals, and as many as tell it."""
    digits = max(2, -int(amount.normalize().as_tuple().exponent)) if amount else 2
    return f"{amount:,.{min(digits, 9)}f}"
