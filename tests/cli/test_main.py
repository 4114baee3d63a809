"""The door of the command line: exit codes, one-line errors, and nothing imported for nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from holdfast import cli
from holdfast._errors import Truncated, UsageError


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("holdfast ")


def test_help_names_every_command_and_imports_none() -> None:
    code = (
        "import sys; from holdfast.cli import main; code = main(['--help']);"
        "print([m for m in sys.modules if m.startswith('holdfast.cli.')]); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "[]"
    assert [name for name in cli.COMMANDS if f"    {name} " not in done.stdout] == []


@pytest.mark.parametrize(
    "words", [[], ["nonsense"], ["logs"], ["logs", "x", "--last", "0"], ["logs", "x", "--since", "y"]]
)
def test_a_wrong_command_is_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 2
    assert "usage: holdfast" in capsys.readouterr().err


def test_a_missing_file_is_one_line_and_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["logs", "no/such/file"]) == 1
    assert capsys.readouterr().err == "holdfast: no/such/file: No such file or directory\n"


@pytest.mark.parametrize(
    ("failure", "code", "told"),
    [
        (UsageError("no dialect is called 'x'"), 2, "holdfast: no dialect is called 'x'\n"),
        (Truncated("the body\nended"), 1, "holdfast: Truncated: the body ended\n"),
        (KeyboardInterrupt(), 130, ""),
        (RuntimeError("oh"), 1, "holdfast: RuntimeError: oh (this is a bug: HOLDFAST_TRACEBACK=1 shows where)\n"),
    ],
)
def test_failures_are_one_line(
    failure: BaseException, code: int, told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(_args: Any) -> int:
        raise failure

    module = SimpleNamespace(add_parser=lambda subparsers: subparsers.add_parser("logs"), run=run)
    monkeypatch.setattr("importlib.import_module", lambda _name: module)
    assert cli.main(["logs"]) == code
    assert capsys.readouterr().err == told


def test_a_reader_that_went_away_is_quiet(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    line = {"event": "stream.ended", "outcome": "complete", "elapsed": 1.0}
    file.write_text("".join(json.dumps({**line, "stream_id": f"s{n}"}) + "\n" for n in range(3_000)))
    with subprocess.Popen(
        [sys.executable, "-m", "holdfast", "logs", str(file)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141
