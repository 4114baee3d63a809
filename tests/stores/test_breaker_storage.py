"""A circuit breaker over a real Redis: one state for all processes, one probe among them, and a copy for bad times."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pybreaker
import pytest

from holdfast import CircuitBreaker, CircuitOpen, Pipe
from holdfast._errors import ConnectError, StatusError, StreamBroken
from holdfast._types import Head
from holdfast.stores import RedisState
from holdfast.testing.server import ReceivedRequest, Reply, ScriptedServer, respond, sse, stream
from tests.puppet import Puppet, Script
from tests.redis_server import RedisServer, redis_server

OTHERS = Path(__file__).with_name("one_of_many.py")
PROCESSES = 8
CALLERS = 100
RESET_SECONDS = 600  # no machine is so slow: time passes where a test says so
ANSWER = stream(sse('{"choices":[{"delta":{"content":"hi"},"finish_reason":"stop"}]}'), sse("[DONE]"))


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as started:
        yield started


@pytest.fixture
def shared(server: RedisServer, request: pytest.FixtureRequest) -> RedisState:
    return RedisState(server.url, prefix=request.node.name, timeout=2, pause=0.05)


def breaker_over(shared: RedisState, *, reset_timeout: float = 60) -> pybreaker.CircuitBreaker:
    """What each process makes for itself."""
    return pybreaker.CircuitBreaker(
        fail_max=2, reset_timeout=reset_timeout, state_storage=shared.storage("up"), throw_new_error_on_trip=False
    )


def opened_ago(breaker: pybreaker.CircuitBreaker, seconds: float) -> None:
    breaker._state_storage.opened_at = datetime.now(UTC) - timedelta(seconds=seconds)


async def test_what_one_process_saw_fail_another_does_not_ask(shared: RedisState) -> None:
    mine, yours = (CircuitBreaker(breaker_over(shared), shared=shared) for _ in range(2))
    for layer in (mine, yours):
        with pytest.raises(ConnectError):
            await (Pipe(Puppet(ConnectError("refused"))) | layer).stream()
    for layer in (mine, yours):
        with pytest.raises(CircuitOpen) as refused:
            await (Pipe(Puppet()) | layer).stream()
        assert refused.value.retry_after == pytest.approx(60, abs=5)
    await shared.aclose()


async def test_one_process_probes_and_closes_the_circuit_for_all(shared: RedisState) -> None:
    mine, yours = breaker_over(shared), breaker_over(shared)
    mine.open()
    opened_ago(mine, 61)
    running = asyncio.Event()
    probe = Pipe(Puppet(Script(running, "a"))) | CircuitBreaker(mine, shared=shared)
    async with probe.stream() as items:
        with pytest.raises(CircuitOpen, match="another process"):
            await (Pipe(Puppet()) | CircuitBreaker(yours, shared=shared)).stream()
        running.set()
        assert [item async for item in items] == ["a"]
    assert [mine.current_state, yours.current_state] == ["closed", "closed"]
    await shared.aclose()


async def test_a_probe_that_was_given_up_leaves_its_place_to_another_process(shared: RedisState) -> None:
    mine, yours = breaker_over(shared), breaker_over(shared)
    mine.open()
    opened_ago(mine, 61)
    async with (Pipe(Puppet(Script("a", asyncio.Event()))) | CircuitBreaker(mine, shared=shared)).stream() as items:
        assert await anext(items) == "a"
    refused = StatusError("no", head=Head(status=400), retryable=False)  # shows nothing of the upstream's streams
    for outcome in (refused, refused):
        with pytest.raises(StatusError):
            await (Pipe(Puppet(outcome)) | CircuitBreaker(yours, shared=shared)).stream()
    async with (Pipe(Puppet(Script("b"))) | CircuitBreaker(yours, shared=shared)).stream() as items:
        assert [item async for item in items] == ["b"]
    assert mine.current_state == "closed"
    await shared.aclose()


async def test_a_circuit_that_needs_two_successes_probes_twice(shared: RedisState) -> None:
    breaker = breaker_over(shared)
    breaker.success_threshold = 2
    breaker.open()
    opened_ago(breaker, 61)
    for state in ("half-open", "closed"):
        async with (Pipe(Puppet(Script("a"))) | CircuitBreaker(breaker, shared=shared)).stream() as items:
            assert [item async for item in items] == ["a"]
        assert breaker.current_state == state
    await shared.aclose()


def test_a_process_that_looked_before_a_probe_failed_opens_nothing_half(shared: RedisState) -> None:
    mine, yours = breaker_over(shared), breaker_over(shared)
    mine.open()
    assert yours.current_state == "open"
    mine.half_open()
    mine.open()
    late = yours._state_storage
    late.state = "half-open"
    assert mine.current_state == "open"
    assert yours.current_state == "open"


def test_one_copy_decides_while_redis_is_gone_and_tells_it_when_it_is_back() -> None:
    with redis_server() as own:
        breaker = breaker_over(RedisState(own.url, timeout=1, pause=0.05))
        own.kill()
        for _ in range(2):
            with pytest.raises(StreamBroken):
                breaker.call(_fail)
        assert breaker.current_state == "open"
        own.start()
        time.sleep(0.1)
        assert breaker.current_state == "open"
        assert breaker_over(RedisState(own.url, timeout=1)).current_state == "open"


def _fail() -> None:
    raise StreamBroken("cut")


def test_a_storage_that_hangs_is_waited_for_once() -> None:
    with redis_server() as own:
        breaker = breaker_over(RedisState(own.url, timeout=0.1, pause=60))
        with own.frozen():
            started = time.monotonic()
            assert [breaker.current_state for _ in range(100)] == ["closed"] * 100
            assert time.monotonic() - started < 5  # else it would be 10 at the least


class Crowd:
    """Processes that share a breaker. What is asked of an upstream waits until all other callers have been refused."""

    def __init__(self, processes: list[asyncio.subprocess.Process]) -> None:
        self.processes = processes
        self.let_go = asyncio.Event()

    async def lines(self, each: int, *, but: int = 0) -> Counter[str]:
        """Counts `each` lines of each process; `but` of them all may come only after the upstream was let go."""
        waiting = each * len(self.processes) - but
        counts: Counter[str] = Counter()

        async def read(process: asyncio.subprocess.Process) -> None:
            assert process.stdout is not None
            for _ in range(each):
                counts[(await process.stdout.readline()).decode().strip()] += 1
                if counts.total() >= waiting:
                    self.let_go.set()

        await asyncio.gather(*map(read, self.processes))
        return counts

    async def ask(self, *, but: int = 0) -> Counter[str]:
        """Lets all callers of all processes ask at once; gives what became of them."""
        self.let_go.clear()
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write(b"\n")
        return await self.lines(CALLERS, but=but)


async def test_of_eight_processes_with_a_hundred_callers_each_one_stream_probes(server: RedisServer) -> None:
    """First a probe that fails, then one that does not; what the upstream counted is what was sent."""
    asked: list[ReceivedRequest] = []

    async def upstream(request: ReceivedRequest) -> Reply:
        asked.append(request)
        number = len(asked)
        if number <= 2:
            await crowd.let_go.wait()
        return respond(b"down", 500) if number == 1 else ANSWER

    breaker = pybreaker.CircuitBreaker(state_storage=RedisState(server.url, timeout=2).storage("upstream"))
    breaker.open()
    everybody = PROCESSES * CALLERS
    async with ScriptedServer(upstream) as http:
        here = (str(OTHERS), server.url, f"http://127.0.0.1:{http.port}/v1", str(RESET_SECONDS))
        pipe = asyncio.subprocess.PIPE
        crowd = Crowd(
            [
                await asyncio.create_subprocess_exec(sys.executable, *here, stdin=pipe, stdout=pipe)
                for _ in range(PROCESSES)
            ]
        )
        try:
            assert await crowd.lines(1) == {"ready": PROCESSES}
            opened_ago(breaker, RESET_SECONDS + 1)
            assert await crowd.ask(but=1) == {"StatusError": 1, "refused": everybody - 1}
            assert await crowd.ask() == {"refused": everybody}
            assert len(asked) == 1
            opened_ago(breaker, RESET_SECONDS + 1)
            assert await crowd.ask(but=1) == {"answered": 1, "refused": everybody - 1}
            assert len(asked) == 2
            assert await crowd.ask() == {"answered": everybody}
        finally:
            for process in crowd.processes:
                process.kill()
                await process.wait()
