"""Safety over real TCP: the client as users have it, before a chaos server in each of its modes. Few examples."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from holdfast._errors import StreamError
from holdfast._types import Delta
from holdfast.client import Client
from holdfast.dialects import Timeouts
from holdfast.moments import Report
from holdfast.testing import FakeClock
from holdfast.testing.chaos import ChaosServer, Mode
from holdfast.testing.faults import EVIDENT, AnotherAnswer
from holdfast.testing.schedule import Schedule
from holdfast.testing.strategies import schedules
from tests.properties.profile import examples

MODES: tuple[Mode, ...] = ("ids", "no-ids", "divergent", "prefix")
MET = schedules([fault for fault in EVIDENT if not isinstance(fault, AnotherAnswer)], min_faults=1, within=40)


@dataclass(slots=True)
class Run:
    texts: tuple[str, str] = ("", "")
    truths: list[tuple[str, str]] = field(default_factory=list)
    error: StreamError | None = None
    report: Report = field(default_factory=Report)
    requests: int = 0
    left_open: int = 0


async def play(schedule: Schedule, mode: Mode, seed: int) -> Run:
    run, deltas = Run(), list[Delta]()
    # With the server in the same loop, loopback is immediate: the clock hardly waits for sockets before it jumps.
    server, clock = ChaosServer(schedule=schedule, mode=mode, seed=seed, sentences=2), FakeClock(patience=0.005)
    timeouts = Timeouts(open=5, first_token=5, progress=2, total=300)
    async with (
        server,
        clock,
        Client(
            "deepseek", api_key="k", base_url=server.url, clock=clock, random=Random(seed), timeouts=timeouts
        ) as client,
    ):
        stream = client.stream({"messages": [{"role": "user", "content": "kelp"}]})
        try:
            async with stream:
                async for delta in stream:
                    deltas.append(delta)
        except StreamError as error:
            run.error = error
        run.report = stream.report
    run.texts = "".join(d.reasoning for d in deltas), "".join(d.text for d in deltas)
    run.truths = [(a.reasoning, a.text) for a in server.answers("kelp")]
    run.requests = len(server.server.requests)
    return run


@examples(60)
@given(MET, st.sampled_from(MODES), st.integers(0, 3))
def test_over_tcp_nothing_but_one_true_answer_is_handed_over(schedule: Schedule, mode: Mode, seed: int) -> None:
    run = asyncio.run(play(schedule, mode, seed))
    thought, text = run.texts
    assert any(
        whole[0].startswith(thought) and whole[1].startswith(text) and (not text or thought == whole[0])
        for whole in run.truths
    ) or run.texts == ("", "")
    if run.error is None:
        assert run.texts in run.truths
        assert run.report.verdict is not None
    assert run.report.attempts == run.requests
