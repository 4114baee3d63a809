"""The layers that a gateway's settings ask for, and what they do to its streams."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from holdfast import parse_events
from holdfast.dialects import Timeouts, find
from holdfast.gateway.asking import read_asked
from holdfast.gateway.settings import (
    BreakerSettings,
    HedgeSettings,
    RetryBudgetSettings,
    Settings,
    UpstreamSettings,
)
from holdfast.gateway.surfaces import SURFACES
from holdfast.gateway.traffic import Traffic, timeouts_of
from holdfast.gateway.upstreams import request_of
from holdfast.machines.redact import clean_url
from holdfast.testing.server import ReceivedRequest, Reply, Reset, ScriptedServer, Stall, respond, stream
from tests.gateway.serving import serving, settings
from tests.gateway.test_server import ANSWER, BODY

OPENAI = UpstreamSettings(dialect="openai", api_key="sk")
WHOLE = parse_events(ANSWER).events


def names(layers: list[Any]) -> list[str]:
    return [type(layer).__name__ for layer in layers]


def test_an_upstream_has_its_clocks_its_breaker_and_its_limits_in_this_order() -> None:
    all_of_them = replace(
        OPENAI,
        timeouts=Timeouts(first_token=3),
        concurrency=2,
        requests_per_minute=60,
        breaker=BreakerSettings(failures=2),
    )
    chosen = Settings(upstreams=(OPENAI, all_of_them))
    traffic = Traffic(chosen, ["a", "b"])
    assert names(traffic.own("a", OPENAI)) == ["CircuitBreaker"]
    assert names(traffic.own("b", all_of_them)) == ["Deadline", "CircuitBreaker", "Concurrency", "RateLimit"]
    assert traffic.own("b", all_of_them)[1:] == traffic.own("b", all_of_them)[1:]
    assert (traffic.breakers["a"].breaker.fail_max, traffic.breakers["b"].breaker.fail_max) == (5, 2)
    assert not traffic.over
    assert traffic.retry_budget is None


def test_hedges_and_budgets_are_over_all_upstreams() -> None:
    chosen = Settings(upstreams=(OPENAI,), hedge=HedgeSettings(delay=1), retry_budget=RetryBudgetSettings(ratio=0.2))
    traffic = Traffic(chosen, ["a"])
    assert names(traffic.over) == ["Hedge"]
    assert traffic.retry_budget is not None
    assert traffic.retry_budget.ratio == 0.2


def test_no_clock_over_several_cuts_short_what_one_of_them_is_allowed() -> None:
    dialect = find("openai")
    fast, slow = (replace(OPENAI, timeouts=Timeouts(progress=seconds)) for seconds in (5, 900))
    assert timeouts_of([(fast, dialect), (slow, dialect)]).progress == 900
    assert timeouts_of([(fast, dialect)]) == replace(dialect.timeouts, progress=5)


@pytest.mark.parametrize("trouble", ["stalls", "is out of places"])
async def test_an_upstream_that_has_no_answer_in_time_is_left_for_the_next(trouble: str) -> None:
    async def upstream(request: ReceivedRequest) -> Reply:
        if request.path.startswith("/slow"):
            return [Stall()] if trouble == "stalls" else respond(b"{}", 429)
        return stream(*ANSWER)

    async with ScriptedServer(upstream) as http, aiohttp.ClientSession() as session:
        two = [
            replace(OPENAI, name="slow", base_url=f"{http.url}/slow", timeouts=Timeouts(open=0.1)),
            replace(OPENAI, name="other", base_url=f"{http.url}/other"),
        ]
        async with (
            serving(replace(settings(http.url), upstreams=tuple(two))) as served,
            session.post(f"{served.url}/v1/chat/completions", json=BODY) as response,
        ):
            assert response.status == 200
            assert (await response.read()).count(b"data: ") == 4
        assert [request.path.split("/")[1] for request in http.requests] == ["slow", "other"]


async def test_a_line_that_takes_many_answers_with_it_shuts_nobody_out() -> None:
    """Each of them is cut, one behind the other and before any has come to its end; each is asked for again."""
    together = asyncio.Barrier(20)

    async def upstream(request: ReceivedRequest) -> Reply:
        if sum(one.body == request.body for one in http.requests) > 1:
            return stream(*ANSWER)
        await together.wait()
        return [*stream(*ANSWER)[:2], Reset()]

    async def ask(number: int) -> bytes:
        body = {**BODY, "user": str(number)}
        async with session.post(f"{served.url}/v1/chat/completions", json=body) as response:
            return await response.read()

    async with (
        ScriptedServer(upstream) as http,
        serving(settings(http.url)) as served,
        aiohttp.ClientSession() as session,
    ):
        for told in await asyncio.gather(*map(ask, range(20))):
            assert [event.data for event in parse_events(told).events] == [event.data for event in WHOLE]
    assert len(http.requests) == 40


@pytest.mark.parametrize(
    ("surface", "path", "shown"),
    [
        ("chat", "/v1/chat/completions", "/chat/completions"),
        ("gemini", "/v1beta/models/m:streamGenerateContent", "/v1beta/models/m:streamGenerateContent"),
    ],
)
def test_no_address_is_told_before_it_is_known_who_is_asked(surface: str, path: str, shown: str) -> None:
    asked = read_asked(SURFACES[surface], path, "alt=sse", b'{"model": "m", "stream": true}')
    dialect = find("openai" if surface == "chat" else "gemini")
    assert clean_url(request_of(asked, dialect, {}, b"").url) == shown
