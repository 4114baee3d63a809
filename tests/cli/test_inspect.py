"""`holdfast inspect`: what a recorded stream holds."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from holdfast._defaults import default_layers
from holdfast._errors import StreamBroken, StreamError
from holdfast._pipe import Pipe
from holdfast._types import Head, Request
from holdfast.cli import main
from holdfast.cli._paper import columns
from holdfast.layers.record import Record
from holdfast.sources.memory import MemorySource
from holdfast.testing import FakeClock

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


@pytest.mark.parametrize(("types", "told"), [(9, "1 t8"), (23, "1 t19, and 3 more types")])
def test_no_type_of_event_is_left_out_in_silence(
    types: int, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body = b"".join(b"event: t%d\ndata: x\n\n" % number for number in range(types))
    assert main(["inspect", recorded(tmp_path, body), "--dialect", "none"]) == 0
    events = " ".join(capsys.readouterr().out.partition("largest")[0].split())
    assert f"events {types}: 1 t0, 1 t1, " in events
    assert events.endswith(told)


@pytest.mark.parametrize("folder", [".", "..", "/"])
def test_a_folder_is_no_recording(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", folder]) == 1
    assert capsys.readouterr().err == f"holdfast: {folder}: Is a directory\n"


def test_help_tells_of_auto(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "--help"]) == 0
    assert "auto lets its first event tell" in " ".join(capsys.readouterr().out.split())


def test_an_unknown_dialect_is_2(tmp_path: Path) -> None:
    assert main(["inspect", recorded(tmp_path, WHOLE), "--dialect", "klingon"]) == 2


# -- recordings that tell of themselves -----------------------------------------------------------------


def record(path: Path, *bodies: Any, head: Head | None = None, dialect: str = "deepseek") -> StreamError | None:
    """Streams through the default layers and records it, one body an attempt; gives the error it ended with."""

    async def stream() -> None:
        async with FakeClock() as clock:
            source: MemorySource[bytes] = MemorySource(*bodies)
            if head is not None:
                source = MemorySource(*bodies, head=head)
            pipe: Pipe[Any] = Pipe(source, clock=clock, max_requests=len(bodies))
            pipe = pipe | Record(path)
            for layer in default_layers(dialect):
                pipe = pipe | layer
            async with pipe.stream(Request(url="http://h/p", body={})) as deltas:
                async for _ in deltas:
                    pass

    try:
        asyncio.run(stream())
    except StreamError as error:
        return error
    return None


CUT = [WHOLE[:90], StreamBroken("reset by peer")]


def test_all_attempts_of_a_recording_have_the_verdict_that_the_stream_had(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "answer.sse"
    assert record(file, CUT, WHOLE) is None
    assert main(["inspect", str(file)]) == 0
    out = capsys.readouterr().out
    assert "2 attempts, 264 bytes\nRESUMED (1 seam, verified)  as deepseek\n" in out
    assert out.index("text, 5 characters: Hello") < out.index("attempt 1 of 2, see answer.2.sse")
    assert "ended       it failed after 0 ms: StreamBroken: reset by peer" in out
    assert out.index("byte 90        StreamBroken") < out.index("attempt 2 of 2")
    assert out.endswith("nothing is wrong with it\n")
    assert main(["inspect", str(file.with_name("answer.2.sse"))]) == 0
    assert "2 of its stream; answer.sse is the first" in capsys.readouterr().out


def test_json_of_several_attempts_has_the_whole_and_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "answer.sse"
    record(file, StreamBroken("no head"), CUT, WHOLE)
    assert main(["inspect", str(file), "--events", "--json"]) == 0
    *events, whole = (json.loads(row) for row in capsys.readouterr().out.splitlines())
    assert [event["attempt"] for event in events] == [2, 3, 3, 3]
    assert (whole["verdict"], whole["seams"], whole["guarantee"], whole["text"]) == ("resumed", 1, "verified", "Hello")
    assert [one["status"] for one in whole["attempts"]] == [None, 200, 200]
    assert [one["error"] for one in whole["attempts"]] == ["StreamBroken", "StreamBroken", None]
    assert [one["ended"] for one in whole["attempts"]] == ["failure", "failure", "clean"]


def test_a_recording_whose_last_attempt_was_cut_is_1_and_asks_for_no_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "answer.sse"
    error = record(file, CUT, CUT)
    assert main(["inspect", str(file), "--json"]) == 1
    whole = json.loads(capsys.readouterr().out)
    assert (whole["error"], whole["error_message"]) == ("StreamBroken", str(error))
    assert (whole["text"], len(whole["attempts"])) == ("Hello", 2)


def test_a_file_that_looks_like_another_attempt_is_not_passed_over_in_silence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "answer.sse"
    record(file, WHOLE)
    file.with_name("answer.2.sse").write_bytes(WHOLE[:50])
    assert main(["inspect", str(file)]) == 0
    out = capsys.readouterr().out
    assert "COMPLETE  as deepseek" in out
    assert "answer.2.sse was left out" in out


@pytest.mark.parametrize(
    ("body", "head", "told"),
    [
        (b'{"error": {"message": "no such model"}}', Head(status=400), "says what is wrong with it: 'no such model'"),
        (b"<html>", Head(headers={"content-type": "text/html"}), "NotAStream: the server answered 200 with text/html"),
        (b"", Head(status=202), "NotAStream: the server answered 202 with an empty body"),
    ],
)
def test_the_recorded_status_and_content_type_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], body: bytes, head: Head, told: str
) -> None:
    file = tmp_path / "answer.sse"
    record(file, body, head=head)
    assert main(["inspect", str(file)]) == 1
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert f"response    {head.status} {head.content_type or 'without a content type'}" in lines
    assert told in " ".join(lines)


@pytest.mark.parametrize(("body", "told"), [(b"", "it is empty"), (b"<html>\n<p>\n<p>\n", "it holds no event")])
def test_of_a_plain_file_no_status_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], body: bytes, told: str
) -> None:
    assert main(["inspect", recorded(tmp_path, body)]) == 1
    out = capsys.readouterr().out
    assert f"NotAStream: {told}" in out
    assert "200" not in out
    assert out.count("a line that is no field") == bool(body)


def test_the_dialect_is_the_recorded_one_unless_another_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "answer.sse"
    record(file, WHOLE, dialect="openai")
    for words, told in (
        ([], "as openai\n"),
        (["--dialect", "deepseek"], "as deepseek\n"),
        (["--dialect", "none"], "not judged"),
    ):
        assert main(["inspect", str(file), *words]) == 0
        assert told in capsys.readouterr().out


def test_a_time_that_a_server_named_counts_from_then(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """FakeClock's day is 2026-01-01: played today, this date would lie in the past or far ahead."""
    file = tmp_path / "answer.sse"
    headers = {"retry-after": "Thu, 01 Jan 2026 00:00:30 GMT"}
    error = record(file, b"{}", b"{}", head=Head(status=429, headers=headers))
    assert main(["inspect", str(file), "--json"]) == 1
    whole = json.loads(capsys.readouterr().out)
    assert whole["error_message"] == str(error)
    assert len(whole["attempts"]) == 2
