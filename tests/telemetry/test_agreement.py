"""A thousand faulty streams: reports, log lines, numbers, spans and the server tell the same of all of them."""

from __future__ import annotations

import asyncio
import io
import json
from collections import Counter

import pytest

from holdfast import Client, Costs, Prices, Report, StatusError, StreamError, configure_logs
from holdfast.testing import ChaosServer, FakeClock, Schedule
from holdfast.testing import faults as f
from tests.properties.upstream import ChaosSource
from tests.telemetry.backends import Backends, configured

STREAMS = 1_000
FAULTS = (
    *(f.Refused(), f.Refused(status=401), f.HtmlPage(), f.EmptyBody(), f.JsonError(), f.ResetMidStream()),
    *(f.ClosedMidStream(), f.CleanCut(), f.CutInsideEvent(), f.StallMidStream()),
)


PRICES = Prices().with_("m0", input="1", output="2").with_("m1", input="3", output="5")


async def run(clock: FakeClock, source: ChaosSource, costs: Costs) -> list[Report]:
    client = Client("openai", source=source, clock=clock, max_requests=6, listeners=[costs])
    at_once = asyncio.Semaphore(50)

    async def ask(number: int) -> Report:
        async with at_once:
            stream = client.stream({"model": f"m{number % 2}", "messages": [{"role": "user", "content": f"q{number}"}]})
            try:
                async with stream as deltas:
                    async for _ in deltas.batches():
                        if number % 20 == 0:
                            break
            except StreamError:
                pass
            return stream.report

    return await asyncio.gather(*(ask(number) for number in range(STREAMS)))


def lines_of(log: str) -> dict[str, list[dict[str, object]]]:
    found: dict[str, list[dict[str, object]]] = {}
    for line in log.splitlines():
        told = json.loads(line)
        found.setdefault(told["event"], []).append(told)
    return found


async def test_everybody_tells_the_same_of_a_thousand_faulty_streams(clock: FakeClock) -> None:
    log, costs = io.StringIO(), Costs(PRICES)
    schedule = Schedule.draw(7, rate=0.25, faults=FAULTS)
    async with ChaosServer(schedule=schedule, sentences=3, thoughts=0, clock=clock) as server:
        source = ChaosSource(server)
        with configured(PRICES) as told:
            configure_logs(log, json=True, level="debug")
            try:
                reports = await run(clock, source, costs)
            finally:
                configure_logs(level=None)
            lines = lines_of(log.getvalue())
            assert len(reports) == STREAMS
            assert source.live == 0
            _requests(reports, lines, told, source)
            _ends(reports, lines, told)
            _seams(reports, lines, told)
            _tokens(reports, lines, told)
            assert costs.total.amount == sum(PRICES.cost(report).known for report in reports)
            _costs(costs, told)
            assert set(costs.by_model) == {"m0", "m1"}


def _requests(
    reports: list[Report], lines: dict[str, list[dict[str, object]]], told: Backends, source: ChaosSource
) -> None:
    sent = sum(report.attempts for report in reports)
    assert sent > STREAMS
    assert len(source.asked) == sent
    assert len(lines["attempt.opening"]) == sent
    assert told.prometheus("holdfast_attempts_total") == sent
    assert told.otel("holdfast.attempts") == sent
    assert sum(span.attributes["holdfast.attempts"] for span in told.spans if span.attributes) == sent  # type: ignore[misc]
    events = Counter(event.name for span in told.spans for event in span.events)
    assert events["attempt.opening"] == sent
    retries = sum(report.retries for report in reports)
    assert retries > 0
    assert told.prometheus("holdfast_retries_total") == told.otel("holdfast.retries") == retries
    faults = Counter(type(fault).__name__ for report in reports for fault in report.faults)
    assert len(faults) > 3
    for error, count in faults.items():
        assert told.prometheus("holdfast_faults_total", error=error) == count
        assert told.otel("holdfast.faults", error__type=error) == count
    refused = sum(isinstance(fault, StatusError) and fault.status == 401 for r in reports for fault in r.faults)
    assert told.prometheus("holdfast_faults_total", status="401") == refused > 0
    assert events["attempt.retrying"] == len(lines["attempt.retrying"]) == retries


def _ends(reports: list[Report], lines: dict[str, list[dict[str, object]]], told: Backends) -> None:
    outcomes = Counter(report.outcome for report in reports)
    assert {"complete", "resumed", "cancelled"} < set(outcomes)
    assert Counter(line["outcome"] for line in lines["stream.ended"]) == outcomes
    assert Counter(span.attributes["holdfast.outcome"] for span in told.spans if span.attributes) == outcomes
    for outcome, count in outcomes.items():
        assert told.prometheus("holdfast_streams_total", outcome=outcome) == count
        assert told.otel("holdfast.streams", holdfast__outcome=outcome) == count
        assert told.prometheus("holdfast_stream_duration_seconds_count", outcome=outcome) == count
    assert told.prometheus("holdfast_streams_running") == told.otel("holdfast.streams_running") == 0
    deltas = sum(report.items for report in reports)
    assert deltas == told.prometheus("holdfast_deltas_total") == told.otel("holdfast.deltas")
    received = sum(report.bytes_received for report in reports)
    assert received == told.prometheus("holdfast_received_bytes_total") == told.otel("holdfast.received_bytes")
    began = sum(report.first_delta_seconds is not None for report in reports)
    assert began == told.prometheus("holdfast_time_to_first_chunk_seconds_count")
    assert began == sum(point.count for point in told.points("gen_ai.client.operation.time_to_first_chunk"))


def _seams(reports: list[Report], lines: dict[str, list[dict[str, object]]], told: Backends) -> None:
    rungs = Counter(seam.rung for report in reports for seam in report.seams)
    assert rungs
    assert Counter(line["rung"] for line in lines["stream.resumed"]) == rungs
    for rung, count in rungs.items():
        assert told.prometheus("holdfast_seams_total", rung=rung) == count
        assert told.otel("holdfast.seams", holdfast__rung=rung) == count


def _tokens(reports: list[Report], lines: dict[str, list[dict[str, object]]], told: Backends) -> None:
    billed = sum(report.billed_tokens for report in reports)
    assert billed > 0
    assert sum(int(str(line.get("billed_tokens", 0))) for line in lines["stream.ended"]) == billed
    by_kind = sum((bill.input_tokens or 0) + (bill.output_tokens or 0) for report in reports for bill in report.bills)
    assert told.prometheus("holdfast_billed_tokens_sum") == by_kind
    assert told.otel("gen_ai.client.token.usage") == by_kind


def _costs(costs: Costs, told: Backends) -> None:
    for model, cost in costs.by_model.items():
        for part in ("answer", "again"):
            assert getattr(cost, part) > 0
            wanted = pytest.approx(float(getattr(cost, part)))
            assert told.prometheus("holdfast_cost_total", model=model, part=part, currency="USD") == wanted
            assert told.otel("holdfast.cost", gen_ai__request__model=model, holdfast__part=part) == wanted
    assert told.prometheus("holdfast_unpriced_total") == 0
