"""Fallback over real TCP: servers that refuse, die in the middle for good, and come back; and what each was asked."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from holdfast import Client, Fallback, Reconnect, Seams, StreamError, Upstream, sync
from holdfast.testing import ChaosServer, Schedule, ScriptedServer
from holdfast.testing.background import in_background
from holdfast.testing.faults import Refused, ResetMidStream
from holdfast.testing.server import ReceivedRequest, Reset, respond

BODY: dict[str, Any] = {"model": "kelp-1", "messages": [{"role": "user", "content": "tides"}]}
FIRST = ResetMidStream(after=40)
GONE = Schedule(streams={"*": [FIRST, *[Refused(status=503)] * 20]})
"""Dies in the middle, and for good."""


class Still:
    """Chance that lets nobody wait."""

    def random(self) -> float:
        return 0.0


def to(server: ChaosServer, name: str, dialect: str = "deepseek", **settings: Any) -> Upstream:
    return Upstream(dialect, base_url=server.url, api_key=f"key-{name}", name=name, **settings)


async def test_a_primary_that_dies_for_good_is_finished_by_the_other_and_verified() -> None:
    async with (
        ChaosServer(schedule=GONE) as first,
        ChaosServer() as second,
        Client(upstreams=[to(first, "first"), to(second, "second")], random=Still()) as client,
    ):
        stream = client.stream(BODY)
        async with stream as deltas:
            text = "".join([piece async for piece in deltas.text()])
        assert text == first.answer("tides").text
        report = stream.report
        assert str(report.verdict) == "RESUMED (1 seam, verified)"
        assert (report.upstreams, report.upstream, report.fallbacks) == (["first", "second"], "second", 1)
        # Once whole, twice for the rest of it (Seams(leave_after=2)), and then the other.
        assert (len(first.server.requests), len(second.server.requests)) == (3, 1)
        assert second.server.requests[0].headers["authorization"] == "Bearer key-second"
        assert report.attempts == 4


async def test_another_model_continues_where_a_prefix_is_allowed() -> None:
    async with (
        ChaosServer(schedule=GONE) as first,
        ChaosServer(mode="prefix") as second,
        Client(
            upstreams=[to(first, "first"), to(second, "second", "mistral", model="other")],
            random=Still(),
            seams=Seams(rungs=("replay", "prefix"), leave_after=0),
        ) as client,
    ):
        stream = client.stream({**BODY, "messages": [{"role": "user", "content": "tides"}]})
        answer = await stream
        assert str(answer.verdict) == "RESUMED (1 seam, seamed)"
        assert answer.text == first.answer("tides").text
        assert (len(first.server.requests), len(second.server.requests)) == (1, 1)
        assert answer.usage is not None
        assert answer.usage.estimated


async def test_another_model_without_a_prefix_is_no_way_and_the_partial_is_of_the_first() -> None:
    async with (
        ChaosServer(schedule=GONE) as first,
        ChaosServer() as second,
        Client(upstreams=[to(first, "first"), to(second, "second", model="other")], random=Still()) as client,
    ):
        with pytest.raises(StreamError) as caught:
            await client.complete(BODY)
        partial = caught.value.partial
        assert partial.url.startswith(first.url)
        assert first.answer("tides").text.startswith(partial.text)
        assert not second.server.requests


async def test_before_the_first_token_each_is_asked_once_and_without_a_pause() -> None:
    down = Schedule(streams={"*": [Refused(status=503)] * 20})
    async with (
        ChaosServer(schedule=down) as first,
        ScriptedServer(lambda _: [Reset()]) as second,
        ChaosServer() as third,
        Client(
            upstreams=[
                to(first, "first"),
                Upstream("deepseek", base_url=second.url, name="second"),
                to(third, "third", "openai", model="other"),
            ]
        ) as client,
    ):
        stream = client.stream(BODY)
        answer = await stream
        assert answer.text == third.answer("tides").text
        assert str(answer.verdict) == "COMPLETE"
        assert [len(server.requests) for server in (first.server, second, third.server)] == [1, 1, 1]
        assert stream.report.fallbacks == 2
        assert stream.report.retries == 0
        assert stream.report.total_seconds is not None
        assert stream.report.total_seconds < 1.0


async def test_one_that_keeps_failing_is_not_asked_again() -> None:
    async with (
        ChaosServer(schedule=Schedule(streams={"*": [Refused(status=503)] * 100})) as first,
        ChaosServer(sentences=1) as second,
        Client(upstreams=[to(first, "first"), to(second, "second")]) as client,
    ):
        for _ in range(10):
            await client.complete(BODY)
        assert (len(first.server.requests), len(second.server.requests)) == (3, 10)


async def test_a_key_that_is_refused_leads_to_the_next_key() -> None:
    def reply(request: ReceivedRequest) -> Any:
        return respond(b'{"error": {"message": "no", "type": "authentication_error"}}', 401)

    async with (
        ScriptedServer(reply) as first,
        ChaosServer() as second,
        Client(
            upstreams=[Upstream("deepseek", base_url=first.url, api_key="bad", name="bad"), to(second, "good")]
        ) as client,
    ):
        assert (await client.complete(BODY)).text == second.answer("tides").text


async def test_the_least_loaded_share_what_is_asked_at_once() -> None:
    async with (
        ChaosServer(every=0.002, sentences=1) as first,
        ChaosServer(every=0.002, sentences=1) as second,
        Client(
            upstreams=Fallback(upstreams=[to(first, "first"), to(second, "second", weight=3)], choose="least-loaded")
        ) as client,
    ):
        await asyncio.gather(*(client.complete(BODY) for _ in range(20)))
        assert len(first.server.requests) in (4, 5, 6)
        assert len(second.server.requests) == 20 - len(first.server.requests)


async def test_another_wire_takes_over_in_its_own_words() -> None:
    def translate(body: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"max_tokens": 4_000, "messages": body["messages"]}

    async with (
        ChaosServer(schedule=GONE, thoughts=0) as first,
        ChaosServer(thoughts=0) as second,
        Client(
            upstreams=[
                to(first, "first"),
                to(second, "second", "anthropic", translate=translate, model="kelp-1"),
            ],
            random=Still(),
        ) as client,
    ):
        stream = client.stream(BODY)
        answer = await stream
        assert answer.text == first.answer("tides").text
        assert str(answer.verdict) == "RESUMED (1 seam, verified)"
        assert second.server.requests[0].headers["x-api-key"] == "key-second"
        assert "authorization" not in second.server.requests[0].headers


def test_the_client_without_async_takes_them_too() -> None:
    first, second = ChaosServer(schedule=GONE), ChaosServer()
    with in_background(first), in_background(second):
        upstreams = [to(first, "first"), to(second, "second")]
        with sync.Client(upstreams=upstreams, random=Still()) as client:
            assert client.complete(BODY).text == first.answer("tides").text


def test_a_reconnect_of_ones_own_says_when_to_leave() -> None:
    assert Reconnect(seams=Seams(leave_after=0)).ladder() is not None
    with pytest.raises(ValueError, match="leave_after"):
        Seams(leave_after=-1)
