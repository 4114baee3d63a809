"""The page about other parsers says what they do today, and the comparison sees what it must see."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.golden import CASES, Case, Said
from tools import differential
from tools.differential import Heard

CASE = Case("theme", "rule", b"id: 1\ndata: a\n\n", (Said("a", last_event_id="1"),), "1", 5)


def heard(*events: Said, last: str = "1", retry: int | None = 5, failure: str = "") -> str:
    return differential.difference(CASE, lambda chunks: Heard(events, last, retry, failure))


def test_the_page_is_what_the_parsers_do() -> None:
    for package in ("httpx", "httpx_sse", "httpx2", "openai"):
        pytest.importorskip(package)
    written = differential.PAGE.read_text("utf-8")
    assert differential.page() == written, "run `python -m tools.differential`"


def test_this_parser_follows_the_standard_everywhere() -> None:
    assert not [case.rule for case in CASES if differential.difference(case, differential.holdfast)]


def test_a_parser_that_agrees_has_no_words_for_it() -> None:
    assert heard(*CASE.events) == ""


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (heard(failure="ValueError"), "`ValueError` after 0 of 1 event"),
        (heard(), "0 events, not 1"),
        (heard(Said("", last_event_id="1"), *CASE.events), "2 events, not 1, of which without data: 1"),
        (heard(Said("b", last_event_id="1")), "data `'b'`, not `'a'`"),
        (heard(Said("a", "e", "1")), "type `'e'`, not `'message'`"),
        (heard(Said("a")), "last event id `''`, not `'1'`"),
        (heard(*CASE.events, last="2"), "id at the end `'2'`, not `'1'`"),
        (heard(*CASE.events, retry=None), "retry none, not 5"),
    ],
)
def test_each_kind_of_difference_is_told(words: str, expected: str) -> None:
    assert words == expected


def test_a_parser_that_depends_on_its_chunks_is_told() -> None:
    def parser(chunks: Sequence[bytes]) -> Heard:
        return Heard(CASE.events if len(chunks) == 1 else (), "1", 5)

    assert differential.difference(CASE, parser) == "as the standard says; byte by byte: 0 events, not 1"
