"""The log: its vocabulary is the documented one, it is silent until asked, and it never tells a secret."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import subprocess
import sys
import typing
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import structlog

from holdfast import moments
from holdfast._core import Attempt, Call
from holdfast._errors import (
    ConnectError,
    DeadlineExceeded,
    DecodeError,
    EndOfStream,
    StatusError,
    StreamBroken,
    StreamError,
    UpstreamError,
    UsageError,
)
from holdfast._pipe import Pipe
from holdfast._types import Delta, Event, Head, Request, ToolCallDelta, Usage, Verdict
from holdfast.sources._foreign import ForeignError
from holdfast.telemetry import logs
from holdfast.testing.clock import FakeClock

DOCS = Path(__file__).parents[2] / "docs" / "logs.md"
SECRETS = {
    "key": "sk-4c8f21aa77",
    "query": "q-key-998877",
    "password": "pw-hunter2hunter2",
    "prompt": "a prompt nobody may read",
    "answer": "an answer nobody may read",
    "thought": "a thought nobody may read",
    "argument": "an argument nobody may read",
}


@pytest.fixture(autouse=True)
def _quiet_again() -> Iterator[None]:
    yield
    logs.configure_logs(level=None)
    structlog.reset_defaults()


@pytest.fixture
def log() -> io.StringIO:
    out = io.StringIO()
    logs.configure_logs(out, level="debug")
    return out


def lines(log: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.getvalue().splitlines()]


def told_call(request: Request | None = None) -> Call:
    """A call whose moments are told, as the pipe's edge would set it up."""
    teller = logs.listener()
    assert teller is not None
    call = Call(clock=FakeClock(autojump=False), listeners=[teller], labels={"user": "42"})
    begin: Any = teller
    begin.begin(Request(**{**(vars_of(request) if request else {}), "call": call}))
    return call


def vars_of(request: Request) -> dict[str, Any]:
    return {name: getattr(request, name) for name in ("url", "method", "headers", "body")}


def every_error() -> list[StreamError]:
    status = StatusError("HTTP 429", head=Head(status=429), retry_after=2.5)
    status.code, status.type = "rate_limit", "requests"
    broken = StreamBroken("cut")
    broken.__cause__ = ConnectionResetError("104")
    return [
        status,
        broken,
        UpstreamError("overloaded", code="503", type="server_error"),
        DeadlineExceeded("progress", 60),
        DecodeError("no JSON", offset=17),
    ]


def test_a_wait_of_less_than_a_millisecond_has_no_line(log: io.StringIO) -> None:
    call = told_call()
    for seconds in (0.0009, 0.001):
        call.note(moments.Waited(reason="requests", seconds=seconds))
    assert [line["seconds"] for line in lines(log)] == [0.001]
    assert call.report.waited_seconds == pytest.approx(0.0019)


def full_moments() -> list[moments.Moment]:
    """One moment of every kind and every error, with a value in every field."""
    usage = Usage(input_tokens=1, output_tokens=2, total_tokens=3, cached_tokens=1, reasoning_tokens=1)
    told: list[moments.Moment] = [
        moments.Started(url="https://x.example/v1", dialect="deepseek", labels={"user": "42"}),
        moments.Recognised(dialect="openai", by="events"),
        moments.Opening(upstream="eu", dialect="openai"),
        moments.Opened(status=200, seconds=0.25, request_id="r1", upstream="eu"),
        moments.FirstDelta(seconds=0.5),
        moments.Resumed(rung="last_event_id", gap=0.1, swallowed=3, repaid_tokens=9),
        moments.Continued(leg=2, reason="length"),
        moments.Diverged(position=12),
        moments.Stalled(clock="progress", seconds=60),
        moments.Waited(reason="tokens", seconds=1.5),
        moments.Hedged(delay=0.75),
        moments.HedgeEnded(winner=2, loser=1, upstream="eu", dialect="openai"),
        moments.BreakerChanged(name="deepseek", old="closed", new="open"),
        moments.SharedLost(name="shop", reason="no answer in 0.25 s"),
        moments.SharedBack(name="shop", seconds=2.5),
        moments.Repaired(what="utf8", count=1),
        moments.Dropped(count=2),
        moments.RecordingFailed(path="answer.sse", reason="No space left on device"),
        moments.Delivered(items=5, longest_gap=0.75),
        moments.Billed(
            upstream="eu",
            dialect="deepseek",
            model="deepseek-flash",
            part="again",
            prompt_tokens=9,
            input_tokens=9,
            output_tokens=4,
            total_tokens=13,
            cached_tokens=2,
            cache_write_tokens=1,
            cache_write_1h_tokens=1,
            reasoning_tokens=1,
            estimated=True,
            sent=datetime(2026, 11, 22, tzinfo=UTC),
            labels={"team": "a"},
        ),
    ]
    for error in every_error():
        told += [
            moments.Retrying(error=error, delay=0.5),
            moments.Outlived(error=error),
            moments.FellBack(error=error, old="eu", new="us", midstream=True),
            moments.Resuming(error=error, rung="verified_replay", delay=0.5),
            moments.Ended(error=error, usage=usage, bytes_received=10),
        ]
    told.append(
        moments.Ended(
            verdict=Verdict("resumed", 1, "verified"),
            usage=usage,
            finish_reason="stop",
            bytes_received=10,
            billed_tokens=9,
            billed_estimated=True,
        )
    )
    return told


def delta(**fields: Any) -> Delta:
    return Delta(raw=Event(), **fields)


# -- the vocabulary --------------------------------------------------------------------------------


def documented() -> tuple[set[str], dict[str, tuple[str, set[str]]]]:
    text = DOCS.read_text(encoding="utf-8")
    section = text.partition("## Fields on every line")[2]
    common = set(re.findall(r"`(\w+)`", section.partition("## Events")[0]))
    events = section.partition("## Events")[2].partition("\n## ")[0]
    error = set(re.findall(r"`(\w+)`", events.partition("|")[0])) - {"error…"}
    table: dict[str, tuple[str, set[str]]] = {}
    for row in re.findall(r"^\| `(.+)$", events, re.MULTILINE):
        event, level, fields, _when = ("`" + row).split("|")[:4]
        names = set(re.findall(r"`(\w+)`", fields)) | (error if "error…" in fields else set())
        table[event.strip(" `")] = (level.strip(), names)
    return common, table


def test_every_kind_of_moment_has_an_event() -> None:
    kinds = {
        kind
        for kind in vars(moments).values()
        if isinstance(kind, type) and issubclass(kind, moments.Moment) and kind is not moments.Moment
    }
    assert set(logs.EVENTS) == kinds
    assert len({event for event, _ in logs.EVENTS.values()}) == len(logs.EVENTS)


def test_the_documented_table_and_the_code_agree() -> None:
    common, table = documented()
    out = io.StringIO()
    logs.configure_logs(out, level="debug", text=True)
    call = told_call(Request(body={"messages": ["hi"]}))
    call.attempts = [Attempt()] * 1
    call.answer.add(
        [delta(text="a", reasoning="b"), delta(tool_calls=(ToolCallDelta(0, "c1", "f", "{}"),), finish_reason="stop")]
    )
    begin: Any = call.listeners[0]
    for moment in full_moments():
        begin.begin(Request(body={"messages": ["hi"]}, call=call))
        call.note(moment)
    emitted: dict[str, set[str]] = {}
    for line in lines(out):
        emitted.setdefault(line["event"], set()).update(set(line) - {"event"})
        assert {"timestamp", "level", "stream_id", "attempt", "elapsed"} <= set(line)
    common_fields = {"timestamp", "level", "stream_id", "attempt", "elapsed"}
    assert common_fields <= common
    assert {event: fields - common_fields for event, fields in emitted.items()} == {
        event: fields for event, (_, fields) in table.items()
    }
    assert {event: level.split(";")[0] for event, (level, _) in table.items()} == dict(logs.EVENTS.values())


def test_the_documented_events_of_a_gateway_are_those_there_are() -> None:
    _, section = DOCS.read_text("utf-8").split("## Events of a gateway")
    rows = re.findall(r"^\| `(gateway\.\w+)` \| (\w+) \|", section.partition("\n## ")[0], re.MULTILINE)
    assert dict(rows) == dict(logs.GATEWAY_EVENTS)


def test_a_stream_that_failed_says_so_at_level_error(log: io.StringIO) -> None:
    call = told_call()
    call.note(moments.Started())
    call.note(moments.Ended(error=StreamBroken("cut")))
    assert [(line["event"], line["level"]) for line in lines(log)] == [
        ("stream.started", "info"),
        ("stream.ended", "error"),
    ]


async def test_lines_carry_one_stream_id_the_attempt_and_the_time_since_the_start(log: io.StringIO) -> None:
    call = told_call()
    clock = typing.cast("FakeClock", call.clock)
    call.note(moments.Started())
    await clock.advance(0.123456)
    call.attempts = [Attempt()] * 1
    call.note(moments.Opened(status=200, seconds=0.123456))
    told = lines(log)
    assert {line["stream_id"] for line in told} == {call.id}
    assert [line["attempt"] for line in told] == [0, 1]
    assert [line["elapsed"] for line in told] == [0.0, 0.1235]
    assert told[1]["seconds"] == 0.1235
    assert told[0]["timestamp"] == "2026-01-01T00:00:00.000Z"


def test_the_last_line_tells_the_whole_stream(log: io.StringIO) -> None:
    call = told_call()
    call.note(moments.Started(dialect="deepseek"))
    call.attempts = [Attempt()] * 2
    call.note(moments.Opening())
    call.note(moments.Resuming(error=StreamBroken("cut"), rung="last_event_id"))
    call.note(moments.Resumed(rung="last_event_id"))
    call.note(moments.Delivered(items=7, longest_gap=0.5))
    call.note(moments.Ended(verdict=Verdict("resumed", 1, "exact"), usage=Usage(total_tokens=9), finish_reason="stop"))
    last = lines(log)[-1]
    assert last["outcome"] == last["verdict"] == "resumed"
    assert (last["guarantee"], last["seams"], last["faults"], last["items"]) == ("exact", 1, 1, 7)
    assert (last["total_tokens"], last["finish_reason"], last["dialect"]) == (9, "stop", "deepseek")


# -- what is never told ----------------------------------------------------------------------------


class _Upstream:
    """Quotes everything it was sent, and dies."""

    async def open(self, request: Request) -> _Upstream:
        return self

    head = Head()

    def __init__(self) -> None:
        self.batches = [
            [delta(text=SECRETS["answer"], reasoning=SECRETS["thought"])],
            [delta(tool_calls=(ToolCallDelta(0, "c", "f", SECRETS["argument"]),))],
        ]

    async def receive(self) -> list[Delta]:
        if self.batches:
            return self.batches.pop(0)
        raise UpstreamError(f"bad key {SECRETS['key']}, prompt was {SECRETS['prompt']}", code="bad")

    async def aclose(self) -> None:
        pass


def secret_request() -> Request:
    return Request(
        url=f"https://user:{SECRETS['password']}@api.example:8443/v1/chat?key={SECRETS['query']}#f",
        headers={"Authorization": f"Bearer {SECRETS['key']}", "X-Api-Key": SECRETS["key"]},
        body={"messages": [{"role": "user", "content": SECRETS["prompt"]}]},
    )


async def _read(pipe: Pipe[Delta]) -> None:
    async with pipe.stream(secret_request()) as stream:
        with pytest.raises(StreamError):
            [item async for item in stream]


async def test_no_line_holds_a_key_a_prompt_or_an_answer(log: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast._pipe.listener_factories", [logs.listener])
    await _read(Pipe(_Upstream(), clock=FakeClock(autojump=False)))
    told = lines(log)
    assert [line["event"] for line in told] == [
        "stream.started",
        "attempt.opening",
        "attempt.opened",
        "stream.first_delta",
        "stream.delivered",
        "stream.ended",
    ]
    assert [name for name, secret in SECRETS.items() if secret in log.getvalue()] == []
    assert told[0]["url"] == "https://api.example:8443/v1/chat"
    assert (told[-1]["error"], told[-1]["code"]) == ("UpstreamError", "bad")


async def test_text_is_told_to_those_who_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    logs.configure_logs(out, text=True)
    monkeypatch.setattr("holdfast._pipe.listener_factories", [logs.listener])
    await _read(Pipe(_Upstream(), clock=FakeClock(autojump=False)))
    told = lines(out)
    assert told[0]["request"]["messages"][0]["content"] == SECRETS["prompt"]
    assert (told[-1]["answer"], told[-1]["reasoning"]) == (SECRETS["answer"], SECRETS["thought"])
    assert told[-1]["tool_calls"] == [{"name": "f", "arguments": SECRETS["argument"]}]
    assert SECRETS["key"] not in out.getvalue()


def test_a_secret_that_slipped_into_a_message_is_taken_out(log: io.StringIO) -> None:
    call = told_call(secret_request())
    url = secret_request().url
    call.note(moments.Retrying(error=ConnectError(f"no way to <{url}> with Bearer {SECRETS['key']}"), delay=1))
    assert lines(log)[0]["error_message"] == "no way to <https://api.example:8443/v1/chat> with [redacted]"


def test_of_a_foreign_cause_only_its_class_is_told(log: io.StringIO) -> None:
    call = told_call()
    error = ConnectError("nobody listens")
    error.__cause__ = OSError(SECRETS["key"])
    call.note(moments.Retrying(error=error, delay=1))
    assert lines(log)[0]["cause"] == "OSError"
    assert SECRETS["key"] not in log.getvalue()


def test_a_stand_in_is_told_by_the_class_it_stands_for(log: io.StringIO) -> None:
    call = told_call()
    error = ConnectError("nobody listens")
    error.__cause__ = ForeignError(ConnectionResetError(104, "reset"))
    call.note(moments.Retrying(error=error, delay=1))
    assert lines(log)[0]["cause"] == "ConnectionResetError"


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("rate_limit_exceeded", "rate_limit_exceeded"),
        ("error:quota.v1/tokens-per-min", "error:quota.v1/tokens-per-min"),
        (SECRETS["prompt"], "[redacted]"),
        ("a" * 64, "a" * 64),
        ("a" * 65, "[redacted]"),
        ("línea", "[redacted]"),
        ("a\n", "[redacted]"),
        (SECRETS["key"], "[redacted]"),
    ],
)
def test_of_a_providers_own_words_only_names_are_written(log: io.StringIO, given: str, written: str) -> None:
    call = told_call(secret_request())
    call.note(moments.Retrying(error=UpstreamError("failed", code=given, type=given), delay=1))
    call.note(moments.Ended(verdict=Verdict(), finish_reason=given))
    assert (lines(log)[0]["code"], lines(log)[0]["error_type"]) == (written, written)
    assert lines(log)[1]["finish_reason"] == written


# -- who is told -----------------------------------------------------------------------------------


def test_nobody_listens_until_asked() -> None:
    assert logs.listener() is None
    logs.configure_logs(io.StringIO())
    assert logs.listener() is not None
    logs.configure_logs(level=None)
    assert logs.listener() is None


_SILENT = """
import asyncio, sys
from holdfast import _pipe
from holdfast._types import Head
from holdfast._errors import EndOfStream, StreamBroken
from holdfast.telemetry import logs
if logs.listener not in _pipe.listener_factories:
    _pipe.listener_factories.append(logs.listener)

class Source:
    head = Head()
    async def open(self, request): return self
    async def receive(self): raise StreamBroken("cut")
    async def aclose(self): pass

async def main():
    try:
        async with _pipe.Pipe(Source()).stream() as stream:
            async for _ in stream: pass
    except StreamBroken:
        pass
asyncio.run(main())
assert "structlog" not in sys.modules, "structlog was imported for nothing"
"""


def test_nothing_is_printed_when_nobody_configured_structlog() -> None:
    done = subprocess.run([sys.executable, "-W", "error", "-c", _SILENT], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_an_applications_structlog_gets_the_lines_through_its_processors() -> None:
    heard: list[dict[str, Any]] = []

    def keep(_logger: Any, method: str, line: Any) -> Any:
        heard.append({"method": method, **line})
        raise structlog.DropEvent

    structlog.configure(processors=[structlog.contextvars.merge_contextvars, keep])
    with structlog.contextvars.bound_contextvars(user="ada"):
        call = told_call()
        call.note(moments.Started())
        call.note(moments.Stalled(clock="progress", seconds=3))
    assert [(line["method"], line["event"], line["user"]) for line in heard] == [
        ("info", "stream.started", "ada"),
        ("warning", "stream.stalled", "ada"),
    ]
    assert {line["stream_id"] for line in heard} == {call.id}
    assert "timestamp" not in heard[0]


def test_configure_logs_leaves_structlogs_configuration_alone(log: io.StringIO) -> None:
    assert not structlog.is_configured()
    structlog.configure(processors=[structlog.processors.KeyValueRenderer()])
    call = told_call()
    call.note(moments.Started())
    assert lines(log)[0]["event"] == "stream.started"


def test_a_logger_of_ones_own_takes_the_lines() -> None:
    heard: list[Any] = []

    def keep(_logger: Any, _method: str, line: Any) -> Any:
        heard.append(line)
        raise structlog.DropEvent

    logger = structlog.wrap_logger(structlog.PrintLogger(io.StringIO()), processors=[keep])
    logs.configure_logs(logger=logger, text=True)
    call = told_call(Request(body=b"raw"))
    call.note(moments.Started())
    assert (heard[0]["event"], heard[0]["request"]) == ("stream.started", "raw")


# -- where they go ---------------------------------------------------------------------------------


def test_a_path_is_appended_to(tmp_path: Path) -> None:
    file = tmp_path / "streams.jsonl"
    file.write_text("{}\n")
    for _ in range(2):
        logs.configure_logs(file)
        told_call().note(moments.Started())
    assert [json.loads(line).get("event") for line in file.read_text().splitlines()] == [
        None,
        "stream.started",
        "stream.started",
    ]


def test_a_person_gets_readable_lines() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    logs.configure_logs(out)
    told_call().note(moments.Started(url="https://x.example"))
    assert "stream.started" in out.getvalue()
    assert not out.getvalue().startswith("{")
    logs.configure_logs(out := Terminal(), json=True)
    told_call().note(moments.Started())
    assert json.loads(out.getvalue())["event"] == "stream.started"


def test_the_level_decides_what_is_written() -> None:
    logs.configure_logs(out := io.StringIO(), level="warning")
    call = told_call()
    call.note(moments.Started())
    call.note(moments.Stalled(clock="open", seconds=1))
    assert [line["event"] for line in lines(out)] == ["stream.stalled"]


def test_a_logger_of_the_standard_librarys_is_refused() -> None:
    with pytest.raises(UsageError, match="logger= takes a structlog logger"):
        logs.configure_logs(logger=logging.getLogger("x"))


def test_a_level_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="level must be one of debug, info, warning, error or None, not 'loud'"):
        logs.configure_logs(level="loud")


# -- when logging fails ----------------------------------------------------------------------------


async def test_a_processor_that_raises_breaks_no_stream(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError(SECRETS["key"])

    class Source(_Upstream):
        async def receive(self) -> list[Delta]:
            if self.batches:
                return self.batches.pop(0)
            raise EndOfStream

    monkeypatch.setattr("holdfast._pipe.listener_factories", [logs.listener])
    monkeypatch.setattr(logs, "_complained", False)
    structlog.configure(processors=[broken])
    async with Pipe(Source(), clock=FakeClock(autojump=False)).stream() as stream:
        items = [item async for item in stream]
    assert len(items) == 2
    assert capsys.readouterr().err == "holdfast: log lines are being lost: RuntimeError\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")  # noqa: PTH110
def test_a_full_disk_breaks_no_stream(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure_logs("/dev/full")
    call = told_call()
    for _ in range(3):
        call.note(moments.Started())
    assert capsys.readouterr().err == "holdfast: log lines are being lost: OSError\n"


def test_a_finished_stream_lets_go_of_its_answer(log: io.StringIO) -> None:
    call = told_call()
    call.note(moments.Ended())
    teller: Any = call.listeners[0]
    assert teller._request.call is None
    call.note(moments.BreakerChanged(name="b", old="closed", new="open"))
    assert lines(log)[-1]["stream_id"] == call.id
