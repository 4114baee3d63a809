"""Money: price tables as data, and what the requests of a call cost by them.

Everything here is a pure function of a bill (`moments.Billed`) and a table. Money is `Decimal` and never a float, and
nothing is rounded. What has no price has no cost: never zero, never a guess.
"""

from holdfast.prices._cost import Cost
from holdfast.prices._prices import Prices
from holdfast.prices._table import money

__all__ = ["Cost", "Prices", "money"]
