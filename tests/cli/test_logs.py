"""`holdfast logs`: what a person and a program get to see."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from holdfast.cli import main
from holdfast.cli._lanes import ASCII, draw
from holdfast.cli._paper import Paper, columns, cut, wrap
from holdfast.telemetry.timeline import LogReader


def line(event: str, stream: str, at: float = 0.0, attempt: int = 1, **fields: Any) -> str:
    return json.dumps({"event": event, "stream_id": stream, "elapsed": at, "attempt": attempt, **fields})


LOG = [
    line("stream.started", "aaa1", attempt=0, url="https://x.example/v1", dialect="deepseek", labels={"用户": "小明"}),
    line("attempt.opened", "aaa1", 1.0, status=200, seconds=1.0),
    line("stream.first_delta", "aaa1", 2.0, seconds=2.0),
    line("stream.resuming", "aaa1", 5.0, error="StreamBroken", error_message="reset " * 20, rung="id", delay=1.0),
    line("attempt.opened", "aaa1", 7.0, attempt=2, seconds=1.0),
    line("stream.resumed", "aaa1", 8.0, attempt=2, rung="id", guarantee="exact", gap=3.0, swallowed=2),
    line("stream.ended", "aaa1", 10.0, attempt=2, outcome="resumed", verdict="resumed", guarantee="exact", seams=1,
         total_tokens=512, billed_tokens=600, longest_gap=3.0),
    line("stream.started", "bbb2", attempt=0),
    line("stream.ended", "bbb2", 1.0, attempt=1, outcome="complete", verdict="complete"),
    line("stream.started", "ccc3", attempt=0),
    line("stream.ended", "ccc3", 1.0, attempt=1, outcome="Truncated", error="Truncated", error_message="cut"),
    '{"event": "somebody else"}',
    "not json",
]  # fmt: skip


@pytest.fixture
def log(tmp_path: Path) -> str:
    file = tmp_path / "log.jsonl"
    file.write_text("\n".join(LOG) + "\n", encoding="utf-8")
    return str(file)


LAX = ("first_chunk_p99=1000", "chunks_per_second=0", "errors=1")


def test_each_stream_is_drawn_to_scale(log: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["logs", log, "--stream", "aaa"]) == 0
    out = capsys.readouterr().out
    assert "aaa1  RESUMED (1 seam, exact)  deepseek  用户=小明" in out
    assert "2 attempts · 1 fault · first text 2.00 s · 10.0 s in all" in out
    first, second = (row for row in out.splitlines() if row.startswith("  #"))
    span = 52  # columns between the start at 0 s and the end at 10 s
    assert [first.index(sign) - 7 for sign in "╌─▸━✗"] == [0, 5, 10, 11, span // 2]
    assert [second.index(sign) - 7 for sign in "·╌┿━●"] == [26, 31, 42, 43, span]
    assert (first.split()[-1], second.split()[-2:]) == ("StreamBroken", ["proven", "whole"])
    assert max(columns(row) for row in out.splitlines()) <= 80
    assert "SEAM exact by id, gap 3.00 s, 2 items came again" in out


def test_the_sums_close_it(log: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["logs", log, "--brief"])
    assert capsys.readouterr().out.splitlines()[-4:] == [
        "3 streams: 1 resumed, 1 complete, 1 Truncated",
        "2 faults: 1 StreamBroken, 1 Truncated",
        "first text p50 2.00 s, p99 2.00 s · in all p50 1.00 s, p99 10.0 s",
        "1 malformed line, 1 foreign line of 13 not used",
    ]


@pytest.mark.parametrize(
    ("words", "ids"),
    [
        ([], ["aaa1", "bbb2", "ccc3"]),
        (["--outcome", "complete"], ["bbb2"]),
        (["--outcome", "error"], ["ccc3"]),
        (["--faults"], ["aaa1", "ccc3"]),
        (["--slow", "5"], ["aaa1"]),
        (["--last", "1"], ["ccc3"]),
        (["--since", "1d"], []),
    ],
)
def test_json_is_one_object_per_stream(
    log: str, words: list[str], ids: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["logs", log, "--json", *words]) == 0
    captured = capsys.readouterr()
    assert [json.loads(row)["stream_id"] for row in captured.out.splitlines()] == ids
    assert "1 malformed line" in captured.err


@pytest.mark.parametrize(
    ("words", "code"),
    [(["foo"], 2), (["foo", "--json"], 2), (["cancelled"], 0), (["CircuitOpen"], 0), (["truncated", "--slow", "9"], 0)],
)
def test_an_outcome_that_no_stream_has_is_2_and_says_what_there_is(
    log: str, words: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["logs", log, "--outcome", *words]) == code
    told = "--outcome: no stream ends as 'foo', but complete, resumed, cancelled, running, ended, error, or an error's"
    err = capsys.readouterr().err
    assert (told in err, "in this log there is Truncated, complete, resumed\n" in err) == (code == 2, code == 2)


def test_standard_input_is_a_file(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\n".join(LOG).encode())))
    assert main(["logs", "-", "--json"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_a_missed_objective_is_3_where_it_is_to_be_checked(log: str, capsys: pytest.CaptureFixture[str]) -> None:
    missed = ["logs", log, "--objective", "first_chunk_p99=0.001"]
    assert main([*missed, "--check"]) == 3
    assert "MISSED" in capsys.readouterr().out
    assert main([*missed, "--summary"]) == 0
    assert main(["logs", log, "--check", *(f"--objective={name}" for name in LAX)]) == 0


def test_a_log_of_others_alone_is_1(tmp_path: Path) -> None:
    file = tmp_path / "other.log"
    file.write_text("hello\n")
    assert main(["logs", str(file)]) == 1


def test_a_line_without_an_end_is_not_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("holdfast.cli.logs.MAX_LINE", 64)
    file = tmp_path / "log.jsonl"
    file.write_text("x" * 1_000 + "\n" + LOG[7][:60] + "\n" + '{"event":"stream.started","stream_id":"z"}\n')
    main(["logs", str(file), "--json"])
    captured = capsys.readouterr()
    assert json.loads(captured.out)["stream_id"] == "z"
    assert "2 malformed lines of 3 not used" in captured.err.replace(", 0", "")


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_row_is_wider_than_asked(width: int) -> None:
    reader = LogReader()
    lives = [life for one in LOG for life in reader.feed(one.encode())]
    rows = [row for life in lives for row in draw(life, width=width, signs=ASCII)]
    assert max(columns("".join(text for text, _ in row)) for row in rows) <= width


def test_paper_that_knows_no_unicode_gets_none() -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    paper = Paper(out)
    assert not paper.unicode
    paper.write([[("a · 小明", "bold")]])
    out.flush()
    assert raw.getvalue() == b"a - ??\n"


def test_texts_are_measured_in_columns() -> None:
    assert columns("小明x") == 5
    assert cut("小明小明", 6) == "小明.."
    assert wrap("ab cd 小明小明小明", 6) == ["ab cd", "小明小", "明小明"]
