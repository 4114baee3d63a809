"""What was spent of a limit, for each account of it, in each period.

The caller names the period, in words that sort as time goes. Money counts for the period it is booked in, whatever
period runs: who is paid late must not wipe out what was spent since. There is room for `MAX_ACCOUNTS`, and all others
share one: whoever can name accounts must not get a limit of his own for each name.
"""

from __future__ import annotations

from decimal import Context, Decimal

MAX_ACCOUNTS = 10_000
_EXACT = Context(prec=60)
_NOTHING = Decimal(0)
_OTHER = "(other)"


class Ledger:
    """Books money against one limit. Spending may pass the limit: what was spent is spent."""

    __slots__ = ("_accounts", "_limit", "_newest")

    def __init__(self, limit: Decimal) -> None:
        self._limit = limit
        self._accounts: dict[tuple[str, str], Decimal] = {}
        self._newest = ""

    def open(self, account: str, period: str) -> str:
        """Gives the name under which an account is kept from here on: its own, or where no room is left, a common one.

        Periods before the newest are forgotten when room is needed.
        """
        self._newest = max(self._newest, period)
        if (account, period) not in self._accounts and len(self._accounts) >= MAX_ACCOUNTS:
            for key in [key for key in self._accounts if key[1] != self._newest]:
                del self._accounts[key]
            if len(self._accounts) >= MAX_ACCOUNTS:
                account = _OTHER
        self._accounts.setdefault((account, period), _NOTHING)
        return account

    def spend(self, account: str, period: str, amount: Decimal) -> None:
        """Books an amount; a negative one gives back, and never more than was spent."""
        spent = _EXACT.add(self.spent(account, period), amount)
        self._accounts[self.open(account, period), period] = max(_NOTHING, spent)

    def spent(self, account: str, period: str) -> Decimal:
        """What was spent in a period, as far as it is not forgotten."""
        return self._accounts.get(self._key(account, period), _NOTHING)

    def total(self, period: str) -> Decimal:
        """What was spent in a period by all accounts, as far as it is not forgotten."""
        total = _NOTHING
        for (_, when), spent in self._accounts.items():
            if when == period:
                total = _EXACT.add(total, spent)
        return total

    def left(self, account: str, period: str) -> Decimal:
        """What may still be spent; below nothing where more was spent than allowed."""
        return _EXACT.subtract(self._limit, self.spent(account, period))

    def _key(self, account: str, period: str) -> tuple[str, str]:
        full = len(self._accounts) >= MAX_ACCOUNTS and period <= self._newest
        return (_OTHER if full and (account, period) not in self._accounts else account), period
