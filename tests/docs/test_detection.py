"""The table of docs/detection.md is what the library does."""

from __future__ import annotations

from tools.detection_table import PAGE, page


def test_the_page_says_what_is_detected() -> None:
    assert PAGE.read_text("utf-8") == page(), "run `python -m tools.detection_table`"
    assert "**nothing**" in page()
