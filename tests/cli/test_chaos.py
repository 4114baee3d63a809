"""`holdfast chaos` as somebody runs it: in a process of its own, spoken to over TCP, ended by Ctrl-C."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from holdfast.cli import main
from holdfast.offline import assemble
from holdfast.testing.faults import CleanCut, Refused
from holdfast.testing.schedule import Schedule

SEED = 12
"""Draws no stall."""
ASKED = {"messages": [{"role": "user", "content": "tides"}], "stream": True}


class Running:
    """The command while it runs, and what it printed once it has ended."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        self.process = process
        self.greeting = process.stderr.readline()
        found = re.search(r"http://\S+:\d+", self.greeting)
        assert found is not None, self.greeting + process.stderr.read()
        self.url = found[0]
        self.lines: list[dict[str, Any]] = []
        self.said = ""

    def ask(self, within: float = 20) -> bytes:
        request = urllib.request.Request(f"{self.url}/chat/completions", json.dumps(ASKED).encode())
        with urllib.request.urlopen(request, timeout=within) as response:
            body: bytes = response.read()
        return body

    def stop(self, with_signal: int = signal.SIGINT) -> None:
        self.process.send_signal(with_signal)
        out, self.said = self.process.communicate(timeout=20)
        self.lines = [json.loads(line) for line in out.splitlines()]


@contextmanager
def chaos(*arguments: str) -> Iterator[Running]:
    command = [sys.executable, "-m", "holdfast", "chaos", "--port", "0", "--pace", "10000", *arguments]
    env = {**os.environ, "PYTHONWARNINGS": "error"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    with process:
        try:
            yield Running(process)
        finally:
            if process.poll() is None:
                process.kill()


@pytest.fixture
def schedule(tmp_path: Path) -> str:
    path = tmp_path / "schedule.json"
    path.write_text(Schedule(streams={"*": [CleanCut(after=4), Refused(status=503)]}).to_json())
    return str(path)


@pytest.mark.parametrize("ended_by", [signal.SIGINT, signal.SIGTERM])
def test_made_up_answers_fail_as_the_schedule_says_and_every_request_is_a_line(schedule: str, ended_by: int) -> None:
    with chaos("--schedule", schedule) as running:
        assert running.ask().count(b"data:") == 4
        with pytest.raises(urllib.error.HTTPError, match="503"):
            running.ask()
        assert assemble([running.ask()]).finish_reason == "stop"
        running.stop(ended_by)
    assert running.process.returncode == 0
    *requests, last = running.lines
    assert [line["fault"] for line in requests] == ["clean truncation after 4 events", "503", None]
    assert [line["attempt"] for line in requests] == [1, 2, 3]
    assert [line["events_again"] for line in requests] == [0, 0, 4]
    assert all(line["time"].endswith("Z") and line["key"] == "tides" for line in requests)
    assert (last["summary"]["requests"], last["summary"]["events_again"]) == (3, 4)
    assert "3 requests of 1 streams, 2 of them struck" in running.said


def test_every_dialect_is_spoken_without_being_asked_for() -> None:
    ends = {"/v1/responses": b"response.completed", "/v1/messages": b"message_stop", "/v2/chat": b"message-end"}
    ends |= {"/v1beta/models/m:streamGenerateContent?alt=sse": b'"finishReason"', "/v1beta/interactions": b"[DONE]"}
    asked = {**ASKED, "input": "tides", "contents": [{"parts": [{"text": "tides"}]}]}
    with chaos("--rate", "0") as running:
        for path, end in ends.items():
            request = urllib.request.Request(running.url + path, json.dumps(asked).encode())
            with urllib.request.urlopen(request, timeout=20) as response:
                assert end in response.read()
        running.stop()
    assert len(running.lines) == len(ends) + 1


def test_it_stands_before_another_upstream(schedule: str) -> None:
    with chaos("--rate", "0") as upstream, chaos("--upstream", upstream.url, "--schedule", schedule) as proxy:
        assert upstream.url in proxy.greeting
        assert proxy.ask().count(b"data:") == 4
        proxy.stop()
        upstream.stop()
    assert [line["key"] for line in upstream.lines[:-1]] == ["tides"]
    assert proxy.lines[0]["fault"] == "clean truncation after 4 events"
    assert proxy.lines[0]["key"] != "tides"


def test_a_seed_draws_the_faults_that_it_always_draws() -> None:
    expected = [Schedule.draw(SEED, rate=1).fault("tides", attempt) for attempt in (1, 2, 3)]
    with chaos("--seed", str(SEED), "--rate", "1") as running:
        for _ in expected:
            with contextlib.suppress(OSError, http.client.HTTPException):  # what is drawn hurts
                running.ask(within=2)
        running.stop()
    assert [line["fault"] for line in running.lines[:-1]] == [str(fault) for fault in expected]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--schedule", "/nowhere.json"], "/nowhere.json"),
        (["--rate", "7"], "holdfast: --rate is a probability between 0 and 1, not 7\n"),
        (["--rate", "nan"], "--rate is"),
        (["--pace", "0"], "--pace"),
        (["--pace", "inf"], "--pace"),
        (["--mode", "magic"], "--mode"),
        (["--port", "99999"], "holdfast: --port is a number from 0 to 65535, not 99999\n"),
        (["--port", "-1"], "--port is"),
        (["--upstream", "foo"], "holdfast: --upstream is a URL that begins with http:// or https://, not 'foo'\n"),
        (["--upstream", ""], "--upstream is"),
        (["--upstream", "http://"], "--upstream is"),
        (["--upstream", "http://h:99999"], "--upstream is"),
    ],
)
def test_arguments_that_cannot_be_are_refused(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["chaos", "--port", "0", *arguments]) == (1 if said == "/nowhere.json" else 2)
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert "Traceback" not in err


def test_a_file_that_is_no_schedule_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"streams": {"a": [{"fault": "unheard-of"}]}}')
    assert main(["chaos", "--schedule", str(path)]) == 2
    assert "is no schedule" in capsys.readouterr().err
