"""What was spent of a limit, for each account of it, in the period that runs.

The caller names the period; a new one begins with nothing spent. There is room for `MAX_ACCOUNTS`, and all others share
one: whoever can name accounts must not get a limit of his own for each name.
"""

from __future__ import annotations

from decimal import Context, Decimal

MAX_ACCOUNTS = 10_000
_EXACT = Context(prec=60)
_NOTHING = Decimal(0)
_SHARED = "(other)"


class Ledger:
    """Books money against one limit. Spending may pass the limit: what was spent is spent."""

    __slots__ = ("_accounts", "_limit")

    def __init__(self, limit: Decimal) -> None:
        self._limit = limit
        self._accounts: dict[str, tuple[str, Decimal]] = {}

    def spend(self, account: str, period: str, amount: Decimal) -> None:
        """Books an amount; a negative one gives back. What was of an earlier period is forgotten."""
        place = self._place(account, period)
        self._accounts[place] = (period, _EXACT.add(self.spent(account, period), amount))

    def spent(self, account: str, period: str) -> Decimal:
        """What was spent in a period; nothing in one that the account has left."""
        known = self._accounts.get(self._place(account, period))
        return known[1] if known is not None and known[0] == period else _NOTHING

    def left(self, account: str, period: str) -> Decimal:
        """What may still be spent; below nothing where more was spent than allowed."""
        return _EXACT.subtract(self._limit, self.spent(account, period))

    def _place(self, account: str, period: str) -> str:
        if account in self._accounts or len(self._accounts) < MAX_ACCOUNTS:
            return account
        for name in [name for name, (of, _) in self._accounts.items() if of != period]:
            del self._accounts[name]
        return account if len(self._accounts) < MAX_ACCOUNTS else _SHARED
