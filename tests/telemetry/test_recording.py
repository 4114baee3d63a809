"""The anatomy of a recorded body: what it holds, its verdict, and where it is wrong."""

from __future__ import annotations

import json

import pytest

from holdfast.dialects import find
from holdfast.telemetry.recording import MAX_PROBLEMS, Inspector, Recording

HELLO = b'data: {"id":"a","choices":[{"index":0,"delta":{"content":"Hello"}}]}\n\n'
STOP = b'data: {"id":"a","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"total_tokens":7}}\n\n'
DONE = b"data: [DONE]\n\n"


def inspect(body: bytes, dialect: str | None = "deepseek", *, size: int = 1 << 20) -> Recording:
    inspector = Inspector(find(dialect) if dialect is not None else None)
    for start in range(0, len(body), size):
        inspector.feed(body[start : start + size])
    return inspector.end()


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_a_whole_answer_is_proven_at_any_chunking(size: int) -> None:
    found = inspect(b": ping\n\n" + HELLO + STOP + DONE, size=size)
    assert (str(found.verdict), found.error, found.problems) == ("COMPLETE", None, [])
    assert (found.events, found.comments, found.first_comment) == (3, 1, ": ping")
    assert (found.answer.text, found.answer.finish_reason) == ("Hello", "stop")
    assert found.answer.usage is not None
    assert found.answer.usage.total_tokens == 7
    assert found.line_ends["LF"] == 8
    assert found.first is not None
    assert (found.first.offset, found.last and found.last.data) == (8, "[DONE]")
    json.dumps(found.as_dict())


@pytest.mark.parametrize("size", [1, 2, 1 << 20])
def test_line_ends_are_counted_though_chunks_cut_them(size: int) -> None:
    found = inspect(b"data: 1\r\n\r\ndata: 2\r\rdata: 3\n\n", None, size=size)
    assert {name: number for name, number in found.line_ends.items() if number} == {"CRLF": 2, "CR": 2, "LF": 2}
    assert (found.events, found.verdict, found.error) == (3, None, None)


def test_a_cut_answer_is_truncated_and_told_where() -> None:
    body = HELLO + STOP[:20]
    found = inspect(body)
    assert (type(found.error).__name__, found.verdict) == ("Truncated", None)
    assert [problem.offset for problem in found.problems] == [len(HELLO), len(body)]
    assert (found.answer.text, found.unfinished) == ("Hello", 20)


def test_a_broken_event_is_told_with_its_offset() -> None:
    found = inspect(HELLO + b'data: {"id":\n\n' + STOP + DONE)
    assert type(found.error).__name__ == "DecodeError"
    assert found.problems[0].offset == len(HELLO)
    assert found.events == 4


def test_an_error_in_the_stream_is_its_verdict() -> None:
    found = inspect(HELLO + b'data: {"error":{"message":"overloaded","code":"503"}}\n\n' + DONE)
    assert type(found.error).__name__ == "UpstreamError"
    assert found.problems[0].offset == len(HELLO)


def test_oddities_are_problems_and_no_failure() -> None:
    body = b"\xef\xbb\xbf" + b"id: 1\ndata: x\n\n" * 2 + b"retry: soon\nfoo: bar\ndata: \xff\n\n"
    found = inspect(body, None)
    assert [(problem.offset, problem.words.partition(":")[0]) for problem in found.problems] == [
        (0, "a byte order mark"),
        (18, "the same event came before under this id"),
        (33, "a retry time that is no number"),
        (45, "a line that is no field"),
        (60, "a byte that is not UTF-8 (invalid start byte)"),
    ]
    assert (found.ids, found.first_id, found.last_event_id) == (2, "1", "1")


def test_events_after_the_proven_end_are_counted() -> None:
    assert inspect(HELLO + STOP + DONE + b"data: x\n\n").after_end == 1


def test_many_problems_are_counted_and_not_kept() -> None:
    found = inspect(b"foo\n" * (MAX_PROBLEMS + 5) + b"\n", None)
    assert (len(found.problems), found.more_problems) == (MAX_PROBLEMS, 5)


def test_nothing_at_all_is_not_a_stream() -> None:
    found = inspect(b"")
    assert type(found.error).__name__ == "NotAStream"
