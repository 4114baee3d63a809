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
def test_an_account_holds_what_was_spent_in_each_period(spending: list[tuple[str, int, Decimal]]) -> None:
    book, model = Ledger(LIMIT), dict[tuple[str, str], Decimal]()
    for account, day, amount in spending:
        period = f"2026-11-{day:02}"
        book.spend(account, period, amount)
        model[account, period] = max(Decimal(0), model.get((account, period), Decimal(0)) + amount)
        assert {key: book.spent(*key) for key in model} == model
        assert book.left(account, period) == LIMIT - model[account, period]
        assert book.spent(account, "2026-12-01") == 0


def test_what_is_booked_late_leaves_the_new_period_as_it_is() -> None:
    book = Ledger(LIMIT)
    book.spend("a", "2026-11-21", Decimal(1))
    book.spend("a", "2026-11-22", Decimal(2))
    book.spend("a", "2026-11-21", Decimal(1))
    assert book.spent("a", "2026-11-21") == book.spent("a", "2026-11-22") == 2


def test_who_makes_up_accounts_gets_no_limit_for_each(monkeypatch: Any) -> None:
    monkeypatch.setattr(ledger, "MAX_ACCOUNTS", 3)
    book = Ledger(LIMIT)
    for number in range(10):
        book.spend(f"{number}", "today", Decimal(1))
    assert [book.spent(f"{number}", "today") for number in range(4)] == [1, 1, 1, 7]
    book.spend("new", "tomorrow", Decimal(2))  # there is room again: accounts of days that are over are forgotten
    assert book.spent("new", "tomorrow") == 2
    assert book.spent("0", "tomorrow") == 0
