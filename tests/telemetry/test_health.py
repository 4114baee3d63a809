"""The health of a service: what it adds up, what it is held against, and that a log and live streams tell the same."""

from __future__ import annotations

import io
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast import Client, Hedge, StreamError, Upstream, UsageError, configure_logs
from holdfast._pipe import listener_factories
from holdfast.telemetry.health import Ending, Health, Objectives, watch_health
from holdfast.telemetry.timeline import LogReader
from holdfast.testing import ChaosServer, FakeClock, Schedule
from holdfast.testing import faults as f
from tests.properties.upstream import ChaosSource


def test_it_adds_up() -> None:
    health = Health()
    for n in range(1, 101):
        failed = n == 1
        health.add(
            Ending(
                outcome="Truncated" if failed else "complete",
                failed=failed,
                faults=["Truncated"] if failed else [],
                attempts=2 if failed else 1,
                first_seconds=n / 100,
                seconds=float(n),
                chunks=1 + 10 * n,
            )
        )
    assert (health.streams, dict(health.outcomes)) == (100, {"complete": 99, "Truncated": 1})
    assert dict(health.faults) == {"Truncated": 1}
    assert health.attempts == 101
    assert (health.first_seconds(50), health.first_seconds(99)) == (0.5, 0.99)
    assert health.seconds(99) == 99.0
    assert health.chunk_rate(50) == pytest.approx(10 / 0.99)
    assert health.error_rate == 0.01
    assert [(check.name, check.met) for check in health.checks()] == [
        *(("chunks_per_second", True), ("first_chunk_p99", True), ("errors", False))
    ]
    assert not health.well


def test_of_nothing_nothing_is_known() -> None:
    health = Health()
    assert health.seconds(50) is None
    assert [check.met for check in health.checks()] == [None, None, None]
    assert health.well


def test_streams_that_their_readers_gave_up_are_neither_well_nor_ill() -> None:
    health = Health()
    for outcome in ("cancelled", "cancelled", "complete"):
        health.add(Ending(outcome=outcome))
    health.add(Ending(outcome="ConnectError", failed=True))
    assert health.error_rate == 0.5


@given(st.lists(st.floats(0, 100), min_size=1), st.integers(1, 5))
def test_percentiles_are_those_of_the_last_ones(values: list[float], keep: int) -> None:
    health = Health(keep=keep)
    for value in values:
        health.add(Ending(outcome="complete", seconds=value))
    assert health.seconds(100) == max(values[-keep:])
    assert health.seconds(1) == min(values[-keep:])
    assert health.streams == len(values)


@pytest.mark.parametrize("wrong", [{"errors": -1}, {"first_chunk_p99": "1"}, {"chunks_per_second": float("inf")}])
def test_objectives_that_are_none_are_named(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name} must be a number from 0"):
        Objectives(**wrong)


def test_an_objective_that_there_is_not_is_told_with_those_that_there_are() -> None:
    with pytest.raises(UsageError, match=r"'first_chunk'; there are chunks_per_second, first_chunk_p99, errors"):
        watch_health({"first_chunk": 3})
    with pytest.raises(UsageError, match="mapping"):
        watch_health(3)  # type: ignore[arg-type]  # that is what is tested


@pytest.mark.parametrize("upstreams", [1, 3])
async def test_a_log_tells_the_same_as_the_streams_themselves(clock: FakeClock, upstreams: int) -> None:
    log, before = io.StringIO(), list(listener_factories)
    faults = (f.Refused(), f.Refused(status=401), f.ResetMidStream(), f.HtmlPage())
    async with ChaosServer(schedule=Schedule.draw(3, rate=0.6, faults=faults), clock=clock) as server:
        client = _client(upstreams, ChaosSource(server), clock)
        configure_logs(log, json=True)
        live = watch_health({"errors": 0.5})
        try:
            for number in range(60):
                if number == 50:  # from here on it is down: its breaker opens
                    server.schedule = Schedule(streams={"*": [f.Refused(status=503)] * 9})
                with suppress(StreamError):
                    await client.stream({"model": "m", "messages": [{"role": "user", "content": f"q{number}"}]})
        finally:
            configure_logs(level=None)
            listener_factories[:] = before
    told, reader = Health(Objectives(errors=0.5)), LogReader()
    for line in log.getvalue().splitlines():
        for life in reader.feed(line.encode()):
            told.add(life.ending())
            for name, state in life.breakers():
                told.note_breaker(name, state)
    assert live.streams == 60
    assert live.failed
    assert live.seams
    assert live.breakers
    assert told.as_dict() == _nearly(live.as_dict())


def _client(upstreams: int, source: ChaosSource, clock: FakeClock) -> Client:
    if upstreams == 1:
        return Client("openai", source=source, clock=clock, max_requests=4)
    several = [Upstream("openai", name=f"u{n}", base_url=f"http://u{n}.test/v1") for n in range(upstreams)]
    return Client(upstreams=several, source=source, clock=clock, max_requests=6, traffic=[Hedge(delay=1.0)])


def _nearly(told: Any) -> Any:
    """A log rounds to a tenth of a millisecond."""
    return json.loads(json.dumps(told), parse_float=lambda text: pytest.approx(float(text), rel=0.01, abs=0.001))
