"""Logs: records for any number of readers, from any place, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast._types import Head
from holdfast.gateway.log import Ending, Log

RECORDS = [b"%d;" % number for number in range(1, 41)]


def filled(*, max_bytes: int = 10**6, size: int = 3) -> Log:
    log = Log(max_bytes=max_bytes)
    for start in range(0, len(RECORDS), size):
        log.extend(RECORDS[start : start + size])
    return log


@given(st.integers(0, 40), st.integers(1, 60))
def test_every_place_gives_the_same_rest(place: int, most: int) -> None:
    log, got, at = filled(), b"", place
    while True:
        data, at = log.after(at, most=most)
        if not data:
            break
        got += data
    assert got == b"".join(RECORDS[place:])
    assert at == log.last == 40


def test_a_place_beyond_the_newest_gives_nothing_yet() -> None:
    log = filled()
    assert log.after(40) == (b"", 40)
    assert log.after(50) == (b"", 50)


def test_a_batch_is_about_as_large_as_asked_for() -> None:
    log = Log(max_bytes=10**6)
    log.extend([b"x" * 100] * 50)
    data, place = log.after(0, most=1_000)
    assert len(data) == 1_000
    assert place == 10


def test_one_record_larger_than_a_batch_is_given_whole() -> None:
    log = Log(max_bytes=10**6)
    log.extend([b"x" * 5_000, b"y"])
    assert log.after(0, most=10) == (b"x" * 5_000, 1)


def test_what_does_not_fit_is_let_go_of_from_the_front_and_said_to_be_gone() -> None:
    log = Log(max_bytes=1_000)
    for _ in range(100):
        log.extend([b"x" * 100])
        assert log.size <= 1_000
    assert log.last == 100
    assert log.written == 100 * 100
    with pytest.raises(LookupError, match="no longer here"):
        log.after(log.first - 2)
    assert log.after(log.first - 1)[1] == 100


def test_the_newest_is_kept_however_large_it_is() -> None:
    log = Log(max_bytes=10)
    log.extend([b"a", b"x" * 50])
    assert log.after(1) == (b"x" * 50, 2)


def test_whoever_watches_hears_of_head_records_and_end_once_each() -> None:
    log, heard = Log(max_bytes=100), list[str]()
    leave = log.watch(lambda: heard.append("one"))
    log.watch(lambda: heard.append("two"))
    log.start(Head())
    log.start(Head(status=201))
    assert log.head == Head()
    assert sorted(heard) == ["one", "two"]
    leave()
    heard.clear()
    log.extend([b"x"])
    log.end(Ending(kind="complete"))
    log.end(Ending(kind="failed"))
    assert heard == ["two", "two"]
    assert log.ending == Ending(kind="complete")


def test_one_who_leaves_while_all_are_told_disturbs_nobody() -> None:
    log, heard = Log(max_bytes=100), list[int]()
    leaves: dict[int, Callable[[], None]] = {}

    def hear_and_leave(number: int) -> None:
        heard.append(number)
        leaves[number]()

    for number in range(3):
        leaves[number] = log.watch(partial(hear_and_leave, number))
    log.extend([b"x"])
    log.extend([b"y"])
    assert sorted(heard) == [0, 1, 2]


def test_numbers_that_are_nobodys_are_places_of_no_reader() -> None:
    log = filled()
    log.leave_out(3)
    log.extend([b"new"])
    assert log.is_left_out(41)
    assert log.is_left_out(42)
    assert not log.is_left_out(40)
    assert not log.is_left_out(43)
    assert log.after(43) == (b"new", 44)


def test_records_that_were_never_written_can_be_withdrawn() -> None:
    log = filled()
    size = log.size
    log.extend([b"abc", b"def"])
    log.withdraw(40)
    assert (log.last, log.size) == (40, size)
