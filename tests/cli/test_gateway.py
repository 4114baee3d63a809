"""`holdfast gateway` as somebody runs it: in processes of its own, spoken to over TCP, ended by signals."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from holdfast.cli import main
from holdfast.testing import ChaosServer, in_background
from tests.redis_server import redis_server

ASKED = {"model": "m", "messages": [{"role": "user", "content": "tides"}], "stream": True}
LEAN = "import sys; sys.modules.update(redis=None, opentelemetry=None); from holdfast.cli import main; sys.exit(main())"
"""The command as where no more is installed than the gateway needs: these tests' environment has much more."""


class Gateway:
    """The command while it runs."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.process = process
        self.greeting = process.stdout.readline()
        found = re.search(r"http://\S+:\d+", self.greeting)
        assert found is not None, self.greeting + process.stdout.read()
        self.url = found[0]

    def get(self, path: str) -> int:
        with urllib.request.urlopen(self.url + path, timeout=10) as response:
            return int(response.status)

    def asked(self, path: str = "/v1/chat/completions", **body: Any) -> Any:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, json.dumps(body or ASKED).encode(), headers)
        return urllib.request.urlopen(request, timeout=20)

    def end(self, number: int = signal.SIGTERM, within: float = 10) -> int:
        self.process.send_signal(number)
        return self.process.wait(within)


@contextmanager
def gateway(*arguments: str, code: str = "", **environment: str) -> Iterator[Gateway]:
    command = [sys.executable, *(["-c", code] if code else ["-m", "holdfast"]), "gateway", "--port", "0", *arguments]
    env = {**without_keys(os.environ), "PYTHONWARNINGS": "error", **environment}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)
    try:
        yield Gateway(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.communicate()


def without_keys(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if not name.endswith(("_API_KEY", "_API_TOKEN"))}


@pytest.fixture
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ.keys() - without_keys(os.environ).keys():
        monkeypatch.delenv(name)


def test_the_demo_mends_every_answer_without_any_key() -> None:
    with gateway("--demo", "--grace", "0.1") as running:
        with running.asked() as response:
            ids = [next(line for line in response if line.startswith(b"id: ")) for _ in range(40)]
        assert running.end(signal.SIGINT) == 0
        assert running.process.stdout is not None
        said = running.process.stdout.read()
    assert len({one.rpartition(b"-")[0] for one in ids}) == 1
    assert "/try in a browser" in said
    assert "curl -sN" in said


def test_the_demo_answers_whoever_asks_for_no_stream_and_says_that_it_invents() -> None:
    messages = {"max_tokens": 500, "messages": ASKED["messages"]}
    ways: dict[str, dict[str, Any]] = {
        "/v1/chat/completions": {"model": "m", **messages},
        "/v1/completions": {"model": "m", "prompt": "tides"},
        "/v1/responses": {"model": "m", "input": "tides"},
        "/v1/messages": {"model": "m", **messages},
        "/v1beta/models/m:generateContent": {"contents": [{"parts": [{"text": "tides"}]}]},
    }
    with gateway("--demo") as running:
        for path, body in ways.items():
            for _ in range(2):
                with running.asked(path, **body) as response:
                    assert response.headers["Content-Type"] == "application/json"
                    assert b"\"(An invented text of the demo's" in response.read()
        with pytest.raises(urllib.error.HTTPError, match="400") as refused, running.asked(model="m", messages=[]):
            pass
        with refused.value as told:
            assert "Invalid 'messages'" in json.load(told)["error"]["message"]
        with urllib.request.urlopen(f"{running.url}/v1/models", timeout=10) as response:
            assert [model["id"] for model in json.load(response)["data"]] == ["deepseek-flash"]
        with running.asked() as response:
            assert next(line for line in response if line.startswith(b"id: "))


def test_a_key_in_the_environment_is_enough_and_little_is_needed_to_wait() -> None:
    with gateway(code=LEAN, DEEPSEEK_API_KEY="sk-1") as running:
        assert running.get("/readyz") == 200
        status = Path(f"/proc/{running.process.pid}/status")
        if status.exists():
            resident = int(re.findall(r"VmRSS:\s+(\d+) kB", status.read_text())[0])
            assert resident < 70_000  # measured 52,000
            spent = Path(f"/proc/{running.process.pid}/stat").read_text().rpartition(")")[2].split()
            assert (int(spent[11]) + int(spent[12])) / os.sysconf("SC_CLK_TCK") < 2.0  # measured 0.6
        assert running.end() == 0


def test_workers_share_a_port_and_one_that_dies_is_replaced() -> None:
    with (
        redis_server() as redis,
        in_background(ChaosServer()) as upstream,
        gateway("--upstream", upstream.url, "--dialect", "openai", "--journal", redis.url, "--workers", "2") as running,
    ):
        before = children(running.process.pid)
        assert len(before) == 2
        with running.asked() as response:
            assert response.read().rstrip().split(b"\n")[-2] == b"data: [DONE]"
        os.kill(before[0], signal.SIGKILL)
        assert until(lambda: len(children(running.process.pid)) == 2 and children(running.process.pid) != before)
        for _ in range(4):
            assert running.get("/healthz") == 200
        assert running.end() == 0
        assert not any(Path(f"/proc/{pid}").exists() for pid in before)


def test_workers_that_drain_leave_no_socket_behind_that_keeps_connections_waiting() -> None:
    with (
        redis_server() as redis,
        in_background(ChaosServer(every=0.5)) as upstream,
        gateway("--upstream", upstream.url, "--dialect", "openai", "--journal", redis.url, "--workers", "2") as running,
    ):
        with running.asked() as response:
            response.readline()
            running.process.send_signal(signal.SIGTERM)
            assert until(lambda: not listens(running.url))
            assert running.process.poll() is None
            running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(10) == 0
        assert running.process.stdout is not None
        said = running.process.stdout.read()
    assert "holdfast: draining 1 stream, for up to 30 s; a second signal does not wait\n" in said
    assert "holdfast: no stream runs: this is the end\n" in said


def listens(url: str) -> bool:
    host, port = url.removeprefix("http://").split(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


def test_workers_end_with_their_parent() -> None:
    with gateway("--workers", "2", "--journal", "none", DEEPSEEK_API_KEY="sk-1") as running:
        orphans = children(running.process.pid)
        running.end(signal.SIGKILL)
        assert until(lambda: not any(alive(pid) for pid in orphans))


def test_a_worker_that_cannot_start_ends_all_with_its_reason() -> None:
    nowhere = "redis://127.0.0.1:1/0"
    command = [sys.executable, "-m", "holdfast", "gateway", "--port", "0", "--workers", "2", "--journal", nowhere]
    env = {**without_keys(os.environ), "DEEPSEEK_API_KEY": "sk-1"}
    ran = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30, check=False)
    assert ran.returncode == 1
    assert "holdfast: Redis cannot be had: ConnectionError: " in ran.stderr
    assert "bug" not in ran.stderr
    assert not ran.stdout


@pytest.mark.parametrize("more", [(), ("--check",)])
def test_a_package_that_is_missing_is_named(more: tuple[str, ...]) -> None:
    command = [sys.executable, "-c", LEAN, "gateway", "--port", "0", "--journal", "redis://127.0.0.1:1/0", *more]
    env = {**without_keys(os.environ), "DEEPSEEK_API_KEY": "sk-1"}
    ran = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30, check=False)
    assert ran.returncode == 2
    assert ran.stderr == "holdfast: the journal in Redis needs an extra package: pip install 'holdfast[redis]'\n"
    assert not ran.stdout


def test_an_open_door_is_told_with_its_address() -> None:
    with gateway("--host", "0.0.0.0", "--open", DEEPSEEK_API_KEY="sk-1") as running:
        assert "(all addresses, 0.0.0.0)" in running.greeting
        assert running.end() == 0
        assert running.process.stdout is not None
        said = running.process.stdout.read()
    assert "holdfast: warning: everybody who can reach 0.0.0.0 may ask at your expense (--open)\n" in said


def children(parent: int) -> list[int]:
    """Gives the processes that one has, Linux only."""
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(met: object, seconds: float = 10) -> bool:
    assert callable(met)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if met():
            return True
        time.sleep(0.02)
    return False


# -- what is refused -----------------------------------------------------------------------------


@pytest.mark.usefixtures("no_keys")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "holdfast: there is no upstream: set the key of a provider in the environment (DEEPSEEK_API_KEY, "),
        (["--dialect", "openai"], "the upstream 'openai' needs a key: set OPENAI_API_KEY in the environment"),
        (["--dialect", "opnai"], "no dialect is called 'opnai' (did you mean 'openai'?)"),
        (["--upstream", "gpu:8000"], "--upstream: base_url= must be http:// or https:// and a host"),
        (["--upstream", "http://gpu", "--host", "0.0.0.0"], "others can reach 0.0.0.0, and there are no gateway keys"),
        (
            ["--upstream", "http://gpu", "--host", "300.1.1.1"],
            "--host must be a name or an IP address, not '300.1.1.1'",
        ),
        (["--upstream", "http://gpu", "--workers", "2"], "give them a Redis (--journal redis://...)"),
        (
            ["--upstream", "http://gpu", "--journal", "etcd"],
            "--journal must be memory, none, or the address of a Redis",
        ),
        (["--upstream", "http://gpu", "--grace", "0"], "--grace must be a number of seconds above 0, not 0.0"),
        (["--demo", "--workers", "2"], "--demo brings its own upstream, for one worker"),
        (["key"], "holdfast gateway takes new-key [NAME], or options, not 'key'"),
    ],
)
def test_what_cannot_be_served_is_told_in_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["gateway", *arguments]) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert err.count("\n") == 1
    assert not out


def test_check_says_what_is_wrong_with_a_file_and_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text("port = 8700\ngrase = 3\n\n[limits]\nmax_body = -1\n")
    assert main(["gateway", "--check", "--config", str(file)]) == 2
    err = capsys.readouterr().err
    assert f"{file}:2: grase: there is no such key (did you mean 'grace'?)" in err
    assert f"{file}:5: limits.max_body: must be a whole number from 1, not -1" in err
    assert main(["gateway", "--check", "--config", str(tmp_path / "none.toml")]) == 1
    assert "none.toml: No such file or directory" in capsys.readouterr().err


def test_check_says_what_would_be_served(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text("[[upstreams]]\ndialect = 'vllm'\nname = 'gpu'\nbase_url = 'http://gpu:8000/v1'\n")
    assert main(["gateway", "--check", "--config", str(file)]) == 0
    out, err = capsys.readouterr()
    assert re.search(r"/v1/chat/completions +gpu\n", out)
    assert "on host 127.0.0.1 port 8700:\n  journal memory, no keys needed, 1 upstream\n" in out
    assert not err
    file.write_text("prices = 'nope.toml'\n" + file.read_text())
    assert main(["gateway", "--check", "--config", str(file)]) == 2
    assert "nope.toml: No such file or directory" in capsys.readouterr().err


def test_a_new_key_is_shown_once_and_its_block_is_for_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["gateway", "new-key", "phone"]) == 0
    out, err = capsys.readouterr()
    [key] = re.findall(r"hf-[\w-]{40,}", err)
    assert key not in out
    [block] = tomllib.loads(out)["keys"]
    assert block == {"name": "phone", "sha256": hashlib.sha256(key.encode()).hexdigest()}
    (tmp_path / "gateway.toml").write_text("[[upstreams]]\ndialect = 'ollama'\n" + out)
    assert main(["gateway", "--check", "--host", "0.0.0.0", "--config", str(tmp_path / "gateway.toml")]) == 0
