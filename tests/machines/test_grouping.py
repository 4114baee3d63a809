"""Sentences in Chinese and English, cut into deltas in every way."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast._types import Delta, Event, ToolCallDelta, Usage
from holdfast.machines.grouping import Grouping, SentenceEnds


def sentences(*pieces: str) -> list[str]:
    """The groups that these pieces fall into, `|` between the pieces of one group."""
    groups = Grouping[Delta](count=None, sentences=True, max_items=1000, hold_first=True)
    groups.feed([Delta(raw=Event(), text=piece) for piece in pieces], 0.0)
    groups.flush()
    return ["|".join(delta.text for delta in group) for group in drain(groups)]


def drain(groups: Grouping[Delta]) -> list[list[Delta]]:
    out = []
    while (group := groups.take()) is not None:
        out.append(group)
    return out


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (["Hello", ".", " How", " are", " you", "?", " Fine"], ["Hello|.", " How| are| you|?", " Fine"]),
        (["Hello.", " ", "How"], ["Hello.| ", "How"]),
        (["Hello. ", "How"], ["Hello. ", "How"]),
        (["Hello. How ", "are you? I"], ["Hello. How ", "are you? I"]),
        (["What", "?!", " No"], ["What|?!", " No"]),
        (["Well", "...", " so"], ["Well|...", " so"]),
        (["He said ", "“Go.", "”", " Then"], ["He said |“Go.|”", " Then"]),
        (["(Yes.", ")", " No"], ["(Yes.|)", " No"]),
        (["**Bold.", "**", " Plain"], ["**Bold.|**", " Plain"]),
    ],
)
def test_english_sentences(pieces: list[str], expected: list[str]) -> None:
    assert sentences(*pieces) == expected


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (["你好", "。", "我", "很好", "！", "你呢", "？"], ["你好|。", "我|很好|！", "你呢|？"]),
        (["你好。", "我很好。", "再见"], ["你好。", "我很好。", "再见"]),
        (["他说：「你好", "。", "」", "然后"], ["他说：「你好|。|」", "然后"]),
        (["他说：“你好！", "”", "走了"], ["他说：“你好！|”", "走了"]),
        (["等一下…", "…", "好"], ["等一下…|…", "好"]),
        (["第一；", "第二；", "第三"], ["第一；", "第二；", "第三"]),
        (["（完。", "）", "下面"], ["（完。|）", "下面"]),
        (["圆周率是3", ".", "14", "。", "对"], ["圆周率是3|.|14|。", "对"]),
        (["用Python.", "很好"], ["用Python.", "很好"]),
    ],
)
def test_chinese_sentences(pieces: list[str], expected: list[str]) -> None:
    assert sentences(*pieces) == expected


@pytest.mark.parametrize(
    "pieces",
    [
        ["Pi is 3", ".", "14", " or", " so"],
        ["Pi is 3.", "14 or so"],
        ["fruit, e", ".", "g", ".", " apples"],
        ["e.g.", " apples"],
        ["Dear Mr", ".", " Smith"],
        ["by J.", " Smith"],
        ["in the U.S.", " today"],
        ["see main.py", " now"],
        ["at https://example.org/?", "q=1"],
        ["1", ".", " First"],
        ["version 1.2.", "3"],
    ],
)
def test_a_mark_that_ends_no_sentence_cuts_nothing(pieces: list[str]) -> None:
    assert sentences(*pieces) == ["|".join(pieces)]


def test_a_number_ends_a_sentence_unless_it_begins_the_line() -> None:
    assert sentences("It was 3", ".", " Then") == ["It was 3|.", " Then"]
    assert sentences("Steps:", "\n", "2", ".", " Then") == ["Steps:|\n", "2|.| Then"]


def test_a_line_break_ends_a_line_that_has_something_in_it() -> None:
    assert sentences("Title", "\n", "\n", "Text", "\n", "More") == ["Title|\n", "\n|Text|\n", "More"]
    assert sentences("Title\n\nText", " more") == ["Title\n\nText", " more"]
    assert sentences("Done.", "\n\n", "Next") == ["Done.|\n\n", "Next"]


def test_a_piece_may_end_one_sentence_and_hold_another() -> None:
    assert sentences("Go.", " Yes. N", "o") == ["Go.", " Yes. N", "o"]


def test_an_undecided_mark_is_decided_by_the_next_character() -> None:
    ends = SentenceEnds()
    assert ends.feed("3.") == (False, False)
    assert ends.feed("14") == (False, False)
    assert ends.feed(" is pi.") == (False, False)
    assert ends.feed(" Yes") == (True, False)


def test_memory_does_not_grow_with_a_run_of_marks() -> None:
    ends = SentenceEnds()
    for _ in range(1000):
        ends.feed("....")
    assert ends.feed(" x") == (True, False)
    assert len(ends._tail) + len(ends._pending) < 100


def test_each_choice_has_sentences_of_its_own() -> None:
    groups = Grouping[Delta](count=None, sentences=True, max_items=1000, hold_first=True)
    one = Delta(raw=Event(), text="3.", choice=0)
    other = Delta(raw=Event(), text=" Hm", choice=1)
    groups.feed([one, other, Delta(raw=Event(), text="14", choice=0)], 0.0)
    assert drain(groups) == []


def test_going_from_reasoning_to_text_ends_a_group() -> None:
    groups = Grouping[Delta](count=None, sentences=True, max_items=1000, hold_first=True)
    thought, answer = Delta(raw=Event(), reasoning="Let me see"), Delta(raw=Event(), text="It is")
    groups.feed([thought, answer], 0.0)
    assert drain(groups) == [[thought]]


@pytest.mark.parametrize(
    "urgent",
    [
        Delta(raw=Event(), finish_reason="stop"),
        Delta(raw=Event(), tool_calls=(ToolCallDelta(name="f"),)),
        Delta(raw=Event(), usage=Usage()),
    ],
)
def test_what_is_more_than_text_takes_along_all_that_is_held(urgent: Delta) -> None:
    groups = Grouping[Delta](count=8, sentences=True, max_items=8, hold_first=True)
    text = Delta(raw=Event(), text="a")
    groups.feed([text, urgent], 0.0)
    assert drain(groups) == [[text, urgent]]


def test_the_first_delta_that_is_not_empty_is_never_held() -> None:
    groups = Grouping[Delta](count=8, sentences=False, max_items=8, hold_first=False)
    role, first, second = Delta(raw=Event()), Delta(raw=Event(), text="a"), Delta(raw=Event(), text="b")
    groups.feed([role], 0.0)
    assert drain(groups) == [[role]]
    groups.feed([first, second], 0.0)
    assert drain(groups) == [[first]]
    groups.flush()
    assert drain(groups) == [[second]]


def test_items_without_text_are_counted_but_never_wait_for_a_sentence() -> None:
    by_count = Grouping[str](count=2, sentences=False, max_items=8, hold_first=True)
    by_count.feed(["a", "b", "c"], 0.0)
    assert (by_count.take(), by_count.take()) == (["a", "b"], None)
    by_sentence = Grouping[str](count=None, sentences=True, max_items=8, hold_first=True)
    by_sentence.feed(["a", "b"], 0.0)
    assert (by_sentence.take(), by_sentence.take()) == (["a"], ["b"])


def test_the_time_of_the_first_held_item_is_known() -> None:
    groups = Grouping[str](count=3, sentences=False, max_items=8, hold_first=True)
    since = [groups.held_since]
    for now, batch in enumerate((["a"], ["b"], ["c", "d"])):
        groups.feed(batch, now)
        since.append(groups.held_since)
    groups.flush()
    assert [*since, groups.held_since] == [None, 0, 0, 2, None]


_TEXT = st.text("ab. \n!?。！？；…」”)3e好", max_size=6)


@given(st.lists(st.lists(_TEXT, min_size=1, max_size=5), max_size=8), st.integers(1, 5), st.booleans(), st.booleans())
def test_groups_are_the_same_items_in_the_same_order_within_the_bound(
    batches: Sequence[Sequence[str]],
    max_items: int,
    by_sentence: bool,  # noqa: FBT001 - drawn
    hold_first: bool,  # noqa: FBT001 - drawn
) -> None:
    items = [[Delta(raw=Event(), text=text) for text in batch] for batch in batches]
    groups = Grouping[Delta](count=None, sentences=by_sentence, max_items=max_items, hold_first=hold_first)
    got: list[list[Delta]] = []
    for batch in items:
        groups.feed(batch, 0.0)
        got += drain(groups)
    groups.flush()
    got += drain(groups)
    assert [id(delta) for group in got for delta in group] == [id(delta) for batch in items for delta in batch]
    assert all(1 <= len(group) <= max_items for group in got)


@given(_TEXT, _TEXT, _TEXT)
def test_how_text_is_cut_changes_no_decision(one: str, two: str, three: str) -> None:
    """Character by character, the ends are where they are in larger pieces."""

    def ends(pieces: Sequence[str]) -> int:
        machine = SentenceEnds()
        return sum(before + inside for before, inside in map(machine.feed, pieces))

    whole = one + two + three
    assert ends(list(whole)) >= ends([one, two, three])
    assert (ends(list(whole)) > 0) == (ends([whole]) > 0)
