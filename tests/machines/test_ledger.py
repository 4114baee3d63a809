"""The ledger against a dictionary."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from holdfast.machines import ledger
from holdfast.machines.ledger import Ledger

LIMIT = Decimal("5.00")
SPENDING = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 3), st.decimals(-9, 9, places=9, allow_nan=False)), max_size=40
)


@given(SPENDING)
def test_an_account_holds_what_was_spent_in_its_period(spending: list[tuple[str, int, Decimal]]) -> None:
    book, model = Ledger(LIMIT), dict[str, tuple[str, Decimal]]()
    for account, day, amount in spending:
        period = f"2026-11-{day:02}"
        book.spend(account, period, amount)
        known = model.get(account)
        model[account] = (period, amount + (known[1] if known is not None and known[0] == period else 0))
        assert book.spent(account, period) == model[account][1]
        assert book.left(account, period) == LIMIT - model[account][1]
        assert book.spent(account, "2026-12-01") == 0


def test_who_makes_up_accounts_gets_no_limit_for_each(monkeypatch: Any) -> None:
    monkeypatch.setattr(ledger, "MAX_ACCOUNTS", 3)
    book = Ledger(LIMIT)
    for number in range(10):
        book.spend(f"{number}", "today", Decimal(1))
    assert [book.spent(f"{number}", "today") for number in range(4)] == [1, 1, 1, 7]
    book.spend("new", "tomorrow", Decimal(2))  # there is room again: accounts of days that are over are forgotten
    assert book.spent("new", "tomorrow") == 2
    assert book.spent("0", "tomorrow") == 0
