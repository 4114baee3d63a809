"""The pytest plugin, as a user's suite meets it: a process of its own, another folder, no configuration."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import threading
import urllib.request
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from holdfast.client import Client
from holdfast.testing import ChaosServer, FakeClock, Schedule, in_background
from holdfast.testing.faults import CleanCut, ResetMidStream
from holdfast.testing.server import ReceivedRequest, Reply, ScriptedServer

PLAIN = """
import json, urllib.request
from holdfast.testing import Schedule
from holdfast.testing.faults import CleanCut

def ask(url):
    body = json.dumps({"messages": [{"role": "user", "content": "tides?"}]}).encode()
    with urllib.request.urlopen(url + "/chat/completions", body, timeout=10) as response:
        return response.read()

def test_a_cut(chaos_server):
    chaos_server.schedule = Schedule(streams={"tides?": [CleanCut(after=5)]})
    assert ask(chaos_server.url).count(b"data:") == 5
    assert ask(chaos_server.url).endswith(b"[DONE]\\n\\n")
    assert chaos_server.attempts == {"tides?": 2}

def test_every_test_has_its_own(chaos_server):
    assert chaos_server.served == []
"""
STUCK = """
import contextlib, json, urllib.request
from holdfast.testing import Schedule
from holdfast.testing.faults import StallBehindPings

def test_a_stall_behind_pings(chaos_server):
    chaos_server.patience = 0.3
    chaos_server.schedule = Schedule(streams={"*": [StallBehindPings(after=5, ping=0.05)]})
    body = json.dumps({"messages": [{"role": "user", "content": "tides?"}]}).encode()
    with contextlib.suppress(OSError), urllib.request.urlopen(chaos_server.url + "/chat/completions", body, 1) as reply:
        reply.read()
"""
ASYNCHRONOUS = """
import asyncio
from holdfast import Client
from holdfast.testing import Schedule
from holdfast.testing.faults import Refused, StallMidStream

def test_in_no_time(chaos_server, fake_clock):
    chaos_server.schedule = Schedule(streams={"*": [Refused(status=429, retry_after=30), StallMidStream(after=5)]})

    async def ask():
        async with Client("deepseek", base_url=chaos_server.url, clock=fake_clock) as client:
            return await client.complete({"messages": [{"role": "user", "content": "tides?"}]})

    assert asyncio.run(ask()).text == chaos_server.answer("tides?").text
    assert fake_clock.now() > 30
"""


def suite(folder: Path, text: str, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_mine.py").write_text(text)
    # pytest-asyncio warns where this is not set, and an unknown setting is a warning, too.
    scope = "" if "no:asyncio" in options else "asyncio_default_fixture_loop_scope = function\n"
    (folder / "pytest.ini").write_text(f"[pytest]\nfilterwarnings = error\n{scope}")
    # Where the entry point is not installed (a plain checkout on the path), the plugin is named.
    found = [point for point in entry_points(group="pytest11") if point.value == "holdfast.testing.plugin"]
    named = [] if found else ["-p", "holdfast.testing.plugin"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *named, *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=50, check=False)


@pytest.mark.parametrize("options", [[], ["-p", "no:asyncio"]], ids=["pytest-asyncio", "no pytest-asyncio"])
def test_the_fixtures_are_there_and_a_stall_of_minutes_takes_a_moment(tmp_path: Path, options: list[str]) -> None:
    result = suite(tmp_path, PLAIN + ASYNCHRONOUS, *options)
    assert "3 passed" in result.stdout, result.stdout + result.stderr


# -- servers in the background -----------------------------------------------------------------


def test_a_client_that_would_hang_for_ever_is_told_so(tmp_path: Path) -> None:
    told = suite(tmp_path, STUCK)
    assert "1 passed, 1 error" in told.stdout
    assert "after 0.3 s the client still bore this: stall behind pings after 5 events" in told.stdout


def ask(url: str) -> bytes:
    body = json.dumps({"messages": [{"role": "user", "content": "tides?"}]}).encode()
    with urllib.request.urlopen(f"{url}/chat/completions", body, timeout=10) as response:
        answer: bytes = response.read()
    return answer


def test_a_server_in_the_background_lives_as_long_as_its_block() -> None:
    with in_background(ChaosServer(schedule=Schedule(streams={"*": [CleanCut(after=3)]}))) as server:
        assert ask(server.url).count(b"data:") == 3
    assert not [thread for thread in threading.enumerate() if thread.name == "holdfast-server"]
    with pytest.raises(OSError, match="refused"):
        ask(server.url)


async def test_asynchronous_tests_may_use_it_too() -> None:
    with in_background(ChaosServer(schedule=Schedule(streams={"*": [ResetMidStream(after=9)]}))) as server:
        async with FakeClock(patience=0.05) as clock, Client("deepseek", base_url=server.url, clock=clock) as client:
            answer = await client.complete({"messages": [{"role": "user", "content": "tides?"}]})
    assert answer.text == server.answer("tides?").text


def test_a_server_that_cannot_start_says_so_at_once() -> None:
    with (
        in_background(ChaosServer()) as first,
        pytest.raises(OSError, match="in use"),
        in_background(ChaosServer(port=first.server.port)),
    ):
        pytest.fail("two servers at one port")


def test_what_went_wrong_in_it_is_told_at_the_end() -> None:
    def broken(request: ReceivedRequest) -> Reply:
        raise LookupError("a broken script")

    with (
        pytest.raises(LookupError, match="broken script"),
        in_background(ScriptedServer(broken)) as server,
        contextlib.suppress(OSError),
    ):
        urllib.request.urlopen(server.url, timeout=10)


def test_what_went_wrong_in_it_is_told_beside_what_the_client_raises() -> None:
    def broken(request: ReceivedRequest) -> Reply:
        raise LookupError("a broken script")

    with pytest.raises(OSError, match=r".") as failure, in_background(ScriptedServer(broken)) as server:
        urllib.request.urlopen(server.url, timeout=10)
    assert failure.value.__notes__ == ["while its server raised LookupError('a broken script')"]


def test_asyncio_is_left_as_it_was() -> None:
    with in_background(ChaosServer()), pytest.raises(RuntimeError):
        asyncio.get_running_loop()
