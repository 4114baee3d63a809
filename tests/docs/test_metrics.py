"""The page on metrics lists every number there is."""

from __future__ import annotations

from tools.metrics_table import PAGE, page


def test_the_page_lists_what_is_told() -> None:
    assert PAGE.read_text("utf-8") == page(), "run `python -m tools.metrics_table`"
