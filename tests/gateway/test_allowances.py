"""What a gateway's keys may use: refused before anything is sent, told when to come again, and counted once."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from holdfast._core import Call
from holdfast._types import Request
from holdfast.dialects import find
from holdfast.gateway.allowances import Allowances
from holdfast.gateway.door import digest_of
from holdfast.gateway.refusals import Refused
from holdfast.gateway.settings import KeySettings, Settings, UpstreamSettings
from holdfast.layers.budget import Budget
from holdfast.sources.memory import MemorySource
from holdfast.stores import RedisState
from holdfast.telemetry.logs import configure_logs
from holdfast.testing.clock import FakeClock
from holdfast.testing.server import (
    STREAM_HEAD,
    ReceivedRequest,
    Reply,
    ScriptedServer,
    Send,
    Stall,
    chunked,
    respond,
    sse,
    stream,
)
from tests.gateway.serving import Served, serving
from tests.redis_server import redis_server
from tests.telemetry.backends import configured

HEADERS = {"Authorization": "Bearer hf-one-0123456789"}
BODY = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], "stream": True}
EVENT = sse('{"id":"c","choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":null}]}')
LAST = sse('{"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}')
USAGE = '{"id":"c","choices":[],"usage":{"prompt_tokens":%d,"completion_tokens":0,"total_tokens":%d}}'
DONE = sse("[DONE]")
WHOLE = (
    b'{"id":"c","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},'
    b'"finish_reason":"stop"}],"usage":{"prompt_tokens":1000000,"completion_tokens":0,"total_tokens":1000000}}'
)


def one(**limits: Any) -> KeySettings:
    return KeySettings(name="one", sha256=digest_of("hf-one-0123456789"), **limits)


@asynccontextmanager
async def gateway(
    *replies: Reply, key: KeySettings, **more: Any
) -> AsyncIterator[tuple[Served, aiohttp.ClientSession, list[ReceivedRequest]]]:
    """The upstream answers with the replies, in their order, and with the last one from there on."""
    seen: list[ReceivedRequest] = []

    async def upstream(request: ReceivedRequest) -> Reply:
        seen.append(request)
        return replies[min(len(seen), len(replies)) - 1]

    async with ScriptedServer(upstream) as http:
        base = f"http://127.0.0.1:{http.port}/v1"
        set_ = Settings(
            upstreams=(UpstreamSettings(dialect="openai", base_url=base, api_key="sk-up"),), keys=(key,), **more
        )
        async with serving(set_) as served, aiohttp.ClientSession(served.url, headers=HEADERS) as session:
            yield served, session, seen


SHORT = stream(EVENT, LAST, DONE)
STALLS: Reply = [Send(STREAM_HEAD), Send(chunked(EVENT)), Stall()]


async def asked(
    session: aiohttp.ClientSession, path: str = "/v1/chat/completions", **more: Any
) -> tuple[int, str, Any]:
    """Asks and reads. Gives status, `Retry-After` and what was said."""
    async with session.post(path, json={**BODY, **more}) as response:
        said = await (response.json() if response.status >= 400 else response.read())
        return response.status, response.headers.get("Retry-After", ""), said


# -- requests --------------------------------------------------------------------------------------


@pytest.mark.parametrize("streamed", ["stream", "whole"])
async def test_one_request_too_many_is_refused_in_the_clients_words_and_not_sent(streamed: str) -> None:
    reply = SHORT if streamed == "stream" else respond(WHOLE, content_type="application/json")
    async with gateway(reply, key=one(requests_per_minute=1)) as (_, session, seen):
        told = [await asked(session, stream=streamed == "stream") for _ in range(3)]
        assert [status for status, *_ in told] == [200, 429, 429]
        status, again, said = told[-1]
        assert int(again) in range(50, 61)
        assert (said["error"]["type"], said["error"]["code"]) == ("rate_limit_error", "rate_limit_exceeded")
        assert len(seen) == 1
        status, again, said = await asked(session, "/v1/messages")
        assert status in (404, 429)  # no upstream speaks it


async def test_who_joins_or_reads_again_uses_nothing() -> None:
    async with gateway(SHORT, key=one(requests_per_minute=1, concurrency=1)) as (_, session, seen):
        for _ in range(5):
            headers = {"Idempotency-Key": "same"}
            async with session.post("/v1/chat/completions", json=BODY, headers=headers) as response:
                assert response.status == 200
                name = response.headers["X-Holdfast-Stream"]
                await response.read()
            async with session.get(f"/v1/streams/{name}") as response:
                assert response.status == 200
        assert len(seen) == 1


# -- places ----------------------------------------------------------------------------------------


async def test_a_place_is_held_as_long_as_the_stream_runs_and_not_as_long_as_it_is_read() -> None:
    async with gateway(STALLS, SHORT, key=one(concurrency=1)) as (_, session, seen):
        async with session.post("/v1/chat/completions", json=BODY) as response:
            name = response.headers["X-Holdfast-Stream"]
        status, again, said = await asked(session)  # its reader has left, and it runs on
        assert (status, again, said["error"]["type"]) == (429, "1", "rate_limit_error")
        assert said["error"]["code"] == "concurrency_limit_exceeded"
        async with session.delete(f"/v1/streams/{name}") as response:
            assert response.status == 204
        for _ in range(3):
            assert (await asked(session))[0] == 200
        assert len(seen) == 4


async def test_a_failure_gives_its_place_back() -> None:
    refused = respond(b'{"error":{"message":"no","type":"x"}}', 400, content_type="application/json")
    async with gateway(refused, refused, SHORT, key=one(concurrency=1)) as (_, session, _seen):
        told = [(await asked(session))[0] for _ in range(3)]
        assert told == [400, 400, 200]


async def test_a_stream_that_is_taken_over_is_let_in_whatever_else_runs() -> None:
    allowances = Allowances(Settings(keys=(one(concurrency=1, requests_per_minute=1),)))
    async with allowances.held("one"):
        answer = allowances.answer("one", _Answer(), begun=True)
        await answer.open()
        await answer.aclose()
        with pytest.raises(Refused):
            await allowances.answer("one", _Answer()).open()


class _Answer:
    async def open(self) -> Any:
        return None

    async def blocks(self) -> list[bytes]:
        return []

    async def aclose(self) -> None:
        pass


async def test_who_leaves_while_a_request_is_counted_keeps_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    async def counts_for_ever(self: RedisState, *_: Any, **__: Any) -> float:
        await asyncio.Event().wait()
        return 0.0

    monkeypatch.setattr(RedisState, "take", counts_for_ever)
    shared = RedisState("redis://127.0.0.1:1")  # nobody is there, so each node decides alone on places
    allowances = Allowances(Settings(keys=(one(concurrency=1, requests_per_minute=100),)), shared=shared)
    for _ in range(2):
        with pytest.raises(TimeoutError):  # and not refused: the place is free again
            async with asyncio.timeout(0.2), allowances.held("one"):
                raise AssertionError("it was let in")
    await allowances.aclose()


@pytest.mark.parametrize("journal", ["memory", "none"])
@pytest.mark.parametrize(("limits", "prompt"), [({"requests_per_minute": 1}, 1), ({"money": 1.0}, 1_000_000)])
async def test_a_stream_that_was_not_let_in_is_no_stream(
    journal: str, limits: dict[str, float], prompt: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Not to who watches, not to who measures, not in the log: nothing failed, and no upstream was asked."""
    log = io.StringIO()
    configure_logs(log, level="debug")
    try:
        with configured() as told:
            async with gateway(costs(prompt), key=one(**limits), journal=journal) as (served, session, seen):
                assert [(await asked(session))[0] for _ in range(3)] == [200, 429, 429]
                watch = served.gateway.watch
                assert watch.health.outcomes.total() == len(seen) == watch.counts["opened"] == 1
                assert watch.counts["refused"] == 2
                assert not [news for news in watch.news if news["what"] == "failed"]
                assert not watch.live
            names = {sample.name for metric in told.registry.collect() for sample in metric.samples}
            assert "holdfast_streams_total" in names
            assert not names & {"holdfast_faults_total", "holdfast_fallbacks_total"}
    finally:
        configure_logs(level=None)
    assert not caplog.records
    assert len({json.loads(line)["stream_id"] for line in log.getvalue().splitlines()}) == 1


async def test_one_upstream_that_has_a_price_is_enough_and_a_spent_key_is_led_on_to_none(tmp_path: Path) -> None:
    own, paths = tmp_path / "prices.toml", list[str]()
    own.write_text('[[models]]\nnames = ["priced"]\n[models.USD]\ninput = "1"\noutput = "2"\n')

    async def upstream(request: ReceivedRequest) -> Reply:
        paths.append(request.path)
        return costs(1_000_000)

    async with ScriptedServer(upstream) as http:
        models = ("unheard-of", "priced")
        ups = tuple(
            UpstreamSettings(dialect="openai", base_url=f"{http.url}/{model}/v1", model=model, api_key="k", name=model)
            for model in models
        )
        set_ = Settings(upstreams=ups, keys=(one(money=0.9),), prices=own)
        async with serving(set_) as served, aiohttp.ClientSession(served.url, headers=HEADERS) as session:
            assert [(await asked(session))[0] for _ in range(2)] == [200, 429]
    assert paths == ["/priced/v1/chat/completions"]


async def test_several_that_were_let_in_for_the_same_money_are_led_on_to_no_other_upstream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def lets_in(self: Budget, request: Request) -> None:
        pass

    monkeypatch.setattr(Budget, "check", lets_in)
    for whole in (True, False):
        reply = respond(WHOLE, content_type="application/json") if whole else costs(1_000_000)
        async with gateway(reply, key=one(money=2.0)) as (served, session, seen):
            assert [(await asked(session, stream=not whole))[0] for _ in range(2)] == [200, 429]
            assert len(seen) == 1
            assert not any(upstream.faults for upstream in served.gateway.watch.upstreams.values())


async def test_a_key_without_limits_costs_nothing() -> None:
    allowances, answer = Allowances(Settings(keys=(one(),))), _Answer()
    assert allowances.answer("one", answer) is answer
    assert not allowances.at_wire("one")


async def test_requests_come_back_with_time(clock: FakeClock) -> None:
    allowances = Allowances(Settings(keys=(one(requests_per_minute=6),)), clock=clock)
    waits: list[float] = []
    for _ in range(40):
        waits.append(await waited(allowances))
        await clock.advance(3.0)
    assert waits[:6] == [0.0] * 6
    assert waits.count(0.0) == 6 + 11  # in two minutes
    assert max(waits) <= 10


@pytest.mark.parametrize("most", [1, 2, 60])
async def test_as_many_as_a_minute_may_have_come_at_once_and_one_more_when_there_is_one(
    clock: FakeClock, most: int
) -> None:
    allowances = Allowances(Settings(keys=(one(requests_per_minute=most),)), clock=clock)
    assert [await waited(allowances) for _ in range(most)] == [0.0] * most
    wait = await waited(allowances)
    assert wait == pytest.approx(60 / most)
    await clock.advance(wait)
    assert await waited(allowances) == 0.0
    assert await waited(allowances) > 0.0


async def waited(allowances: Allowances) -> float:
    """Asks once. Gives the seconds to wait, 0.0 where it was let in."""
    answer = allowances.answer("one", _Answer())
    try:
        await answer.open()
    except Refused as error:
        return error.refusal.retry_after or 0.0
    await answer.aclose()
    return 0.0


# -- money -----------------------------------------------------------------------------------------


def costs(prompt: int) -> Reply:
    return stream(EVENT, LAST, sse(USAGE % (prompt, prompt)), DONE)


async def test_money_that_was_spent_stops_the_next_stream_until_the_day_ends() -> None:
    million = costs(1_000_000)  # 2.50 dollars
    async with gateway(million, key=one(money=4.0)) as (_, session, seen):
        assert [(await asked(session))[0] for _ in range(3)] == [200, 200, 429]
        _, again, said = await asked(session)
        assert 1 <= int(again) <= 86_400
        assert said["error"]["code"] == "insufficient_quota"
        assert "Budget" not in said["error"]["message"]
        assert len(seen) == 2


async def test_a_whole_answer_costs_money_too() -> None:
    async with gateway(respond(WHOLE, content_type="application/json"), key=one(money=2.0)) as (_, session, seen):
        first, second = [(await asked(session, stream=False))[0] for _ in range(2)]
        assert (first, second) == (200, 429)
        assert len(seen) == 1


async def test_a_stream_that_was_cancelled_is_paid_for() -> None:
    long = {**BODY, "messages": [{"role": "user", "content": "word " * 1000}]}
    async with gateway(STALLS, key=one(money=0.005)) as (_, session, seen):
        async with session.post("/v1/chat/completions", json=long) as response:
            name = response.headers["X-Holdfast-Stream"]
        async with session.delete(f"/v1/streams/{name}") as response:
            assert response.status == 204
        async with session.post("/v1/chat/completions", json=long) as response:
            assert response.status == 429  # some 1,250 tokens of its prompt were paid, and as many would be again
        assert len(seen) == 1


async def test_what_has_no_price_is_not_sent_for_a_key_with_money_and_has_one_in_a_table_of_ones_own(
    tmp_path: Path,
) -> None:
    own = tmp_path / "prices.toml"
    async with gateway(SHORT, key=one(money=1.0)) as (_, session, seen):
        for streamed in (True, False):
            status, again, said = await asked(session, model="nobody-knows-it", stream=streamed)
            assert (status, again, said["error"]["code"]) == (403, "", "model_not_priced")
            assert "prices" in said["error"]["message"]
            assert "Budget" not in said["error"]["message"]
        async with session.post("/v1/chat/completions", json={**BODY, "model": "nobody-knows-it"}) as response:
            assert response.headers["x-should-retry"] == "false"
        assert not seen
    own.write_text('[[models]]\nnames = ["nobody-knows-it"]\n[models.USD]\ninput = "1"\noutput = "2"\n')
    async with gateway(SHORT, key=one(money=1.0), prices=own) as (_, session, seen):
        assert (await asked(session, model="nobody-knows-it"))[0] == 200


# -- several nodes ---------------------------------------------------------------------------------


async def test_nodes_with_one_redis_share_the_limits_of_a_key() -> None:
    pytest.importorskip("redis")
    with redis_server() as redis:
        set_ = Settings(keys=(one(requests_per_minute=3, concurrency=1, money=1.0),), journal=redis.url)
        nodes = [Allowances(set_), Allowances(set_)]
        answers = [node.answer("one", _Answer()) for node in nodes]
        await answers[0].open()
        with pytest.raises(Refused, match="1 requests running"):
            await answers[1].open()
        await answers[0].aclose()
        await answers[1].open()
        await answers[1].aclose()
        assert [await waited(node) > 0 for node in nodes * 2] == [False, True, True, True]
        assert 10 < await waited(nodes[0]) <= 20
        for node in nodes:
            await node.aclose()


async def test_nodes_with_one_redis_share_money_and_asking_for_it_takes_none() -> None:
    pytest.importorskip("redis")
    body = json.dumps({**BODY, "messages": [{"role": "user", "content": "word " * 1000}]}).encode()
    request = Request(url="http://u/v1/chat/completions", body=body, dialect=find("openai"), call=Call())
    with redis_server() as redis:
        set_ = Settings(keys=(one(money=0.004),), journal=redis.url)  # of which a prompt takes more than a half
        nodes = [Allowances(set_), Allowances(set_)]
        for node in nodes * 2:
            async with node.held("one", lambda: [request]):
                pass
        budget = nodes[0].at_wire("one")[0]
        stream = await budget(MemorySource([EVENT])).open(request)
        for node in nodes:
            with pytest.raises(Refused) as refused:
                async with node.held("one", lambda: [request]):
                    raise AssertionError("it was let in")
            assert refused.value.refusal.code == "insufficient_quota"
        await stream.aclose()
        for node in nodes:
            await node.aclose()
