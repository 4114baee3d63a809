"""`holdfast stream` against a server on real TCP: text to stdout, the story to stderr, exit codes."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from holdfast._errors import StatusError, Truncated, UpstreamError
from holdfast._types import Head
from holdfast.cli import main
from holdfast.cli.stream import advice
from holdfast.dialects import DIALECTS
from holdfast.testing.chaos import ChaosServer
from holdfast.testing.server import (
    STREAM_HEAD,
    Reply,
    ScriptedServer,
    Send,
    Stall,
    chunked,
    respond,
    sse,
    stream,
)

KEY = "sk-secret-of-the-test"


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPSEEK_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def piece(text: str, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return sse(json.dumps({"id": "a", "choices": [choice], "usage": {"total_tokens": 9} if finish else None}))


WHOLE = stream(piece("你好"), piece(", world"), piece("", "stop"), sse("[DONE]"))
CUT = stream(piece("Hel"), sse('{"error": {"message": "no such luck", "code": "invalid_request_error"}}'))


async def ask(reply: Reply, *options: str, words: Sequence[str] = ("hi there",)) -> tuple[int, ScriptedServer]:
    async with ScriptedServer([reply]) as server:
        code = await asyncio.to_thread(main, ["stream", *words, "--base-url", server.url, *options])
        return code, server


async def test_the_text_goes_to_stdout_and_the_report_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    code, server = await ask(WHOLE, "--model", "m1", "--system", "be brief")
    captured = capsys.readouterr()
    assert (code, captured.out) == (0, "你好, world\n")
    assert captured.err.startswith("COMPLETE · 1 attempt")
    sent = server.requests[0].json()
    assert sent["model"] == "m1"
    assert sent["messages"] == [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi there"}]


# -- whoever is asked ------------------------------------------------------------------------------

ASKED = [name for name, dialect in DIALECTS.items() if dialect.wire.question("") is not None]
SHAPES = ["deepseek", "openai-responses", "anthropic", "gemini", "gemini-interactions", "cohere"]


async def run(*words: str) -> int:
    return await asyncio.to_thread(main, ["stream", *words])


@pytest.mark.parametrize("dialect", ASKED)
async def test_every_dialect_that_takes_a_prompt_is_asked_in_its_own_way(
    dialect: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with ChaosServer() as server:
        where = ("--dialect", dialect, "--base-url", server.url)
        assert await run("tides", *where, "--model", "m1", "--system", "be brief") == 0
        captured = capsys.readouterr()
        assert captured.out == server.answer("tides").text + "\n"
        assert captured.err.startswith("COMPLETE")
        (request,) = server.server.requests
    question = DIALECTS[dialect].wire.question("tides", "be brief") or {}
    assert question.items() <= request.json().items()
    assert request.json().get("model", "m1") == "m1"
    assert ("m1" in request.path) == (dialect == "gemini")


@pytest.mark.parametrize("dialect", SHAPES)
async def test_auto_asks_whoever_is_at_the_address(dialect: str, capsys: pytest.CaptureFixture[str]) -> None:
    async with ChaosServer() as server:
        endpoint = DIALECTS[dialect].url(server.url, {"model": "m1"})
        model = [] if dialect == "gemini" else ["--model", "m1"]
        assert await run("tides", "--dialect", "auto", "--base-url", endpoint, *model) == 0
        assert capsys.readouterr().out == server.answer("tides").text + "\n"
        assert server.url + server.server.requests[0].path == endpoint


@pytest.mark.parametrize("dialect", ["mcp", "replicate", "sse"])
async def test_what_takes_no_prompt_is_refused_and_those_that_do_are_named(
    dialect: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with ChaosServer() as server:
        assert await run("tides", "--dialect", dialect, "--base-url", server.url) == 2
        assert server.server.requests == []
    err = capsys.readouterr().err
    assert err == f"holdfast: --dialect {dialect} takes no prompt; these do: {', '.join(ASKED)}\n"


@pytest.mark.parametrize("dialect", [name for name in ASKED if DIALECTS[name].needs_model])
async def test_a_model_that_must_be_named_is_missed_before_anything_is_sent(
    dialect: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with ChaosServer() as server:
        code = await run("tides", "--dialect", dialect, "--base-url", server.url)
        sent = len(server.server.requests)
    err = capsys.readouterr().err
    if DIALECTS[dialect].default_model:
        assert (code, sent) == (0, 1)
    else:
        assert (code, sent) == (2, 0)
        assert err == f"holdfast: --dialect {dialect} has no default model: name one with --model\n"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "--dialect auto needs --base-url"),
        (("--base-url", "http://localhost:11434/v1"), "name the dialect, or give the endpoint's full address"),
        (("--base-url", "http://localhost/mcp"), "--dialect mcp takes no prompt"),
        (("--base-url", "http://localhost/v1/messages"), "--dialect anthropic has no default model"),
    ],
)
def test_auto_that_cannot_be_is_2(words: Sequence[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stream", "hi", "--dialect", "auto", *words]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ((), "look at --dialect, --model and the prompt"),
        (("--dialect", "openai-compatible"), "name a --model, and look at --dialect"),
        (("--dialect", "openai-compatible", "--model", "m1"), "look at --dialect, --model and the prompt"),
    ],
)
async def test_the_hint_of_a_400_fits_the_request(
    options: Sequence[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (await ask(respond(REFUSAL, 400), *options))[0] == 1
    assert f"the server does not take this request: {told}\n" in capsys.readouterr().err


# -- what is told ----------------------------------------------------------------------------------


async def test_json_is_an_object_a_piece_and_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    code, _ = await ask(WHOLE, "--json")
    *pieces, last = (json.loads(row) for row in capsys.readouterr().out.splitlines())
    assert code == 0
    assert "".join(one.get("text", "") for one in pieces) == "你好, world"
    assert (last["report"]["outcome"], last["report"]["usage"]["total_tokens"]) == ("complete", 9)


async def test_a_recording_can_be_inspected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "answer.sse"
    code, _ = await ask(WHOLE, "--record", str(file))
    assert code == 0
    assert await asyncio.to_thread(main, ["inspect", str(file)]) == 0
    assert "text, 9 characters: 你好, world" in capsys.readouterr().out
    assert KEY not in file.read_text() + file.with_name("answer.sse.json").read_text()


async def test_a_failure_keeps_the_text_and_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    code, _ = await ask(CUT)
    captured = capsys.readouterr()
    assert (code, captured.out) == (1, "Hel\n")
    first, words, second, third = captured.err.splitlines()
    assert first.startswith("holdfast: UpstreamError: ")
    assert words == "  the server says: no such luck"
    assert second == "  asking again will not help"
    assert third.startswith("  UpstreamError · 1 attempt")


async def test_a_refused_key_names_what_to_look_at(capsys: pytest.CaptureFixture[str]) -> None:
    code, _ = await ask(respond(b'{"error":{"message":"bad key"}}', 401, content_type="application/json"), "--json")
    told = json.loads(capsys.readouterr().out)
    assert (code, told["error"]) == (1, "StatusError")
    assert "API key" in told["advice"]


REFUSAL = b'{"error":{"message":"no such model: m1","type":"invalid_request_error"}}'


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (REFUSAL, "no such model: m1"),
        (b"max_tokens:\x1b[2J\n too large", "the server says: max_tokens: [2J too large"),
        (b'{"error":"wrong key: ' + KEY.encode() + b'"}', "the server says: wrong key: [redacted]"),
        (b"<html>Bad Request</html>", "look at --dialect, --model"),
        (b"", "look at --dialect, --model"),
    ],
)
async def test_what_a_refusing_server_says_is_told_once(
    body: bytes, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _ = await ask(respond(body, 400))
    err = capsys.readouterr().err
    assert (code, err.count(told)) == (1, 1)
    assert KEY not in err
    assert "<html>" not in err


async def test_an_unquoted_prompt_is_its_words(capsys: pytest.CaptureFixture[str]) -> None:
    code, server = await ask(WHOLE, "--model", "m1", words=("why", "is", "it", "blue?"))
    assert (code, server.requests[0].json()["messages"][0]["content"]) == (0, "why is it blue?")


async def test_a_prompt_from_standard_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("why?\n"))
    _, server = await ask(WHOLE, words=("-",))
    assert server.requests[0].json()["messages"][0]["content"] == "why?\n"


async def test_the_timeout_is_over_all_attempts(capsys: pytest.CaptureFixture[str]) -> None:
    code, _ = await ask([Send(STREAM_HEAD + chunked(piece("Hel"))), Stall()], "--timeout", "0.2")
    captured = capsys.readouterr()
    assert (code, captured.out) == (1, "Hel\n")
    assert "the total clock ran out after 0.2 s" in captured.err
    assert "--timeout ran out" in captured.err


@pytest.mark.parametrize("words", [["--timeout", "0"], ["--timeout", "nan"], ["--timeout", "soon"]])
def test_a_timeout_that_cannot_be_is_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stream", "hi", *words]) == 2
    assert "--timeout: must be seconds above 0" in capsys.readouterr().err


def test_a_recording_that_cannot_be_is_2_and_names_the_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stream", "hi", "--record", "/nonexistent/a.sse"]) == 2
    assert capsys.readouterr().err == (
        "holdfast: --record must name a file in a folder that exists, not '/nonexistent/a.sse'\n"
    )


async def test_a_recording_that_is_given_up_stops_nothing_and_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "answer.sse"
    file.with_name("answer.sse.json").mkdir()  # nothing can be written beside it
    code, _ = await ask(WHOLE, "--record", str(file))
    captured = capsys.readouterr()
    assert (code, captured.out) == (0, "你好, world\n")
    assert f"holdfast: --record: nothing more is written to {file}: " in captured.err


async def test_an_encoding_without_the_characters_does_not_break_the_answer() -> None:
    async with ScriptedServer([WHOLE]) as server:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "holdfast", "stream", "hi", "--base-url", server.url),
            env={**os.environ, "PYTHONIOENCODING": "latin-1"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
    assert (process.returncode, out) == (0, b"??, world\n")
    assert err.startswith(b"COMPLETE")


def test_help_names_the_variables_and_shows_a_quoted_prompt(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stream", "--help"]) == 0
    out = capsys.readouterr().out
    for told in ("DEEPSEEK_API_KEY", "OPENAI_API_KEY", "--timeout SECONDS", 'holdfast stream "Why is'):
        assert told in out
    told = " ".join(out.split())
    assert "these have a default: deepseek, deepseek- responses, deepseek-anthropic" in told
    assert "(deepseek); auto tells by --base-url" in told
    assert max(map(len, out.splitlines())) <= 80


def test_a_missing_key_names_its_variable(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("DEEPSEEK_API_KEY")
    assert main(["stream", "hi"]) == 2
    assert "DEEPSEEK_API_KEY" in capsys.readouterr().err


def test_an_empty_prompt_is_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stream", " "]) == 2
    assert capsys.readouterr().err == "holdfast: the prompt is empty\n"


def test_every_failure_has_an_advice() -> None:
    assert advice(StatusError("HTTP 429", head=Head(status=429))).startswith("too many requests")
    assert advice(StatusError("HTTP 502", head=Head(status=502))) == "the server is in trouble: ask again later"
    assert advice(Truncated("cut")) == "what is printed is only a part of the answer: ask again"
    assert advice(UpstreamError("busy", retryable=True)) == "ask again"
