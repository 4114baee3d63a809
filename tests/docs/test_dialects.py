"""The page on dialects says what their tables say."""

from __future__ import annotations

from tools.dialect_table import PAGE, page


def test_the_page_says_what_the_tables_say() -> None:
    assert PAGE.read_text("utf-8") == page(), "run `python -m tools.dialect_table`"
