"""`holdfast inspect`: what a recorded stream holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from holdfast.cli import main
from holdfast.cli._paper import columns

WHOLE = (
    b": keep-alive\n\n"
    b'data: {"id":"a","choices":[{"index":0,"delta":{"content":"Hello"}}]}\n\n'
    b'data: {"id":"a","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    b"data: [DONE]\n\n"
)


def recorded(tmp_path: Path, body: bytes) -> str:
    file = tmp_path / "stream.sse"
    file.write_bytes(body)
    return str(file)


def test_a_whole_recording(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", recorded(tmp_path, WHOLE), "--dialect", "deepseek"]) == 0
    out = capsys.readouterr().out
    assert "COMPLETE  as deepseek" in out
    assert "text, 5 characters: Hello" in out
    assert "comments    1, first ': keep-alive'" in out
    assert out.endswith("nothing is wrong with it\n")


def test_a_cut_recording_is_1_and_says_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", recorded(tmp_path, WHOLE[:100])]) == 1
    out = capsys.readouterr().out
    assert "Truncated  as openai-compatible" in out
    assert "byte 100 " in out
    assert max(columns(row) for row in out.splitlines()[1:]) <= 80


def test_events_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["inspect", recorded(tmp_path, b"event: a\nid: 7\ndata: \x1b[2J\n\n"), "--dialect", "none", "--events"])
        == 0
    )
    out = capsys.readouterr().out
    assert out.startswith("        0  a id=7   [2J\n")
    assert "not judged" in out


def test_json_has_the_events_and_the_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", recorded(tmp_path, WHOLE), "--events", "--json"]) == 0
    *events, whole = (json.loads(row) for row in capsys.readouterr().out.splitlines())
    assert [event["offset"] for event in events] == [14, 84, 160]
    assert (whole["verdict"], whole["text"], whole["events"], whole["problems"]) == ("complete", "Hello", 3, [])


def test_an_unknown_dialect_is_2(tmp_path: Path) -> None:
    assert main(["inspect", recorded(tmp_path, WHOLE), "--dialect", "klingon"]) == 2
