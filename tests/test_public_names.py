"""The public names of `holdfast`, as users rely on them: adding one is a decision, and losing one breaks somebody."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

import holdfast
from holdfast import _errors

EXPECTED = {
    "the facade": {"Client", "Upstream", "default_layers", "assemble", "parse_events", "EventLog", "configure_logs"}
    | {"Timeouts", "configure_otel", "configure_prometheus", "watch_health", "Health", "Objectives"},
    "inside other clients, and without async": {"mounts", "sync"},
    "the core": {"Pipe", "Reader", "Request", "transform", "Source", "Stream", "Transform", "Layer", "Call", "moments"},
    "time and chance": {"Clock", "SystemClock", "Random"},
    "dialects": {"Dialect", "Wire"},
    "transforms": {"parse_sse", "decode_utf8", "verify"},
    "layers": {"Retry", "Reconnect", "CircuitBreaker", "Deadline", "Buffer", "ReadAhead", "Record"}
    | {
        "AutoContinue",
        "ExpectJson",
        "Seams",
        "Hedge",
        "Throughput",
        "Fallback",
        "RateLimit",
        "Concurrency",
        "HealthCheck",
    },
    "what outlives a stream": {
        "Budget",
        "RetryBudget",
        "SharedState",
        "RedisState",
        "RateLimiter",
        "ConcurrencyLimiter",
    },
    "sources": {"AiohttpSource", "AiohttpSseClientSource", "HttpxSource", "Httpx2Source", "MemorySource"},
    "money": {"Prices", "Cost", "Costs"},
    "values": {"Event", "Delta", "ToolCallDelta", "Usage", "Completion", "Choice", "ToolCall", "Partial", "Verdict"}
    | {"Head", "Report"},
    "errors": {"StreamError", "ConnectError", "StatusError", "NotAStream", "StreamBroken", "Truncated"}
    | {"DeadlineExceeded", "DecodeError", "IntegrityError", "UpstreamError", "CircuitOpen", "BudgetExhausted"}
    | {"UsageError", "MissingExtra", "SharedStateError", "ToolCallError"},
    "for whoever writes a layer": {"EndOfStream"},
}
NAMES = sorted(set().union(*EXPECTED.values()))
# What the library needs only for a feature that was asked for: importing it must not cost those who never ask.
LATE = (
    *("rich", "brotli", "backports.zstd", "hypothesis", "jsonschema", "structlog", "uvloop", "openai", "httpx"),
    *("httpx2", "pytest", "opentelemetry", "prometheus_client"),
)
CORE = "aiohttp, pybreaker"
"""What loads extras itself where they are installed: aiohttp codings, pybreaker redis, and that OpenTelemetry."""
TIMES = 4


def test_the_names_are_these_and_no_others() -> None:
    assert list(holdfast.__all__) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_exists_and_says_what_it_is(name: str) -> None:
    value = getattr(holdfast, name)
    if inspect.isclass(value) or inspect.isfunction(value) or inspect.ismodule(value):
        doc = value.__doc__ or ""
        assert doc.strip()
        assert not doc.startswith(f"{name}("), "a dataclass without a docstring of its own"


MOUNTS = [
    *("Httpx2SyncTransport", "Httpx2Transport", "HttpxSyncTransport", "HttpxTransport", "RequestsAdapter"),
    *("aiohttp_middleware", "httpx2_client", "httpx2_sync_client", "httpx_client", "httpx_sync_client", "report"),
]


def test_the_mounts_are_these_and_each_says_what_it_is() -> None:
    assert list(holdfast.mounts.__all__) == MOUNTS == dir(holdfast.mounts)
    assert all((getattr(holdfast.mounts, name).__doc__ or "").strip() for name in MOUNTS)


@pytest.mark.parametrize("library", ["httpx", "httpx2"])
def test_a_mount_whose_library_is_missing_says_how_to_get_it(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, f"holdfast.mounts.{library}", raising=False)
    with pytest.raises(holdfast.MissingExtra, match=rf"holdfast\[{library}\]"):
        getattr(holdfast.mounts, f"{library}_client")


def test_every_error_that_can_reach_a_reader_is_public() -> None:
    errors = {value for value in vars(_errors).values() if inspect.isclass(value) and issubclass(value, Exception)}
    assert {error.__name__ for error in errors} <= EXPECTED["errors"] | {"EndOfStream"}


def run(program: str, cache: Path | None = None) -> str:
    """Runs a program in a Python of its own; `cache` is where that keeps compiled modules."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    if cache is not None:
        env["PYTHONPYCACHEPREFIX"] = str(cache)
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def test_importing_holdfast_imports_no_extra() -> None:
    program = "import sys, {module}; print([name for name in {late} if name in sys.modules])"
    assert run(program.format(module="holdfast", late=LATE)) == run(program.format(module=CORE, late=LATE))


def test_importing_holdfast_costs_little_more_than_importing_what_it_stands_on(tmp_path: Path) -> None:
    clock = "from time import process_time as now; a = now()"
    program = f"{clock}; import {CORE}; b = now(); import holdfast; c = now(); print(b - a, c - b)"
    run(program, tmp_path)  # compiles everything, which an installation does once
    # Both in one interpreter, because a busy machine is not equally busy all the time; and the best of several.
    taken = [map(float, run(program, tmp_path).split()) for _ in range(TIMES)]
    assert min(ours - 0.6 * theirs for theirs, ours in taken) < 0.02
