"""What a gateway's keys may use: refused before anything is sent, told when to come again, and counted once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from holdfast._errors import BudgetExhausted
from holdfast.gateway.allowances import Allowances
from holdfast.gateway.door import digest_of
from holdfast.gateway.settings import KeySettings, Settings, UpstreamSettings
from holdfast.stores import RedisState
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
    async with gateway(reply, key=one(requests_per_minute=10)) as (_, session, seen):
        told = [await asked(session, stream=streamed == "stream") for _ in range(3)]
        assert [status for status, *_ in told] == [200, 429, 429]
        status, again, said = told[-1]
        assert int(again) in range(1, 10)
        assert said["error"]["type"] == "rate_limit_error"
        assert len(seen) == 1
        status, again, said = await asked(session, "/v1/messages")
        assert status in (404, 429)  # no upstream speaks it


async def test_who_joins_or_reads_again_uses_nothing() -> None:
    async with gateway(SHORT, key=one(requests_per_minute=10, concurrency=1)) as (_, session, seen):
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
        with pytest.raises(BudgetExhausted):
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
async def test_a_stream_that_was_not_let_in_is_no_stream(journal: str, caplog: pytest.LogCaptureFixture) -> None:
    async with gateway(SHORT, key=one(requests_per_minute=1), journal=journal) as (served, session, _):
        assert [(await asked(session))[0] for _ in range(3)] == [200, 429, 429]
        assert served.gateway.watch.health.outcomes.total() == 1
    assert not caplog.records


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
    assert 9 <= waits.count(0.0) <= 12  # in two minutes
    assert max(waits) <= 12


async def waited(allowances: Allowances) -> float:
    """Asks once. Gives the seconds to wait, 0.0 where it was let in."""
    answer = allowances.answer("one", _Answer())
    try:
        await answer.open()
    except BudgetExhausted as error:
        return error.retry_after or 0.0
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
        assert said["error"]["code"]
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
        assert (await asked(session, model="nobody-knows-it"))[0] == 429
        assert not seen
    own.write_text('[[models]]\nnames = ["nobody-knows-it"]\n[models.USD]\ninput = "1"\noutput = "2"\n')
    async with gateway(SHORT, key=one(money=1.0), prices=own) as (_, session, seen):
        assert (await asked(session, model="nobody-knows-it"))[0] == 200


# -- several nodes ---------------------------------------------------------------------------------


async def test_nodes_with_one_redis_share_the_limits_of_a_key() -> None:
    pytest.importorskip("redis")
    with redis_server() as redis:
        set_ = Settings(keys=(one(requests_per_minute=30, concurrency=1, money=1.0),), journal=redis.url)
        nodes = [Allowances(set_), Allowances(set_)]
        answers = [node.answer("one", _Answer()) for node in nodes]
        await answers[0].open()
        with pytest.raises(BudgetExhausted, match="1 requests running"):
            await answers[1].open()
        await answers[0].aclose()
        await answers[1].open()
        await answers[1].aclose()
        assert [await waited(node) > 0 for node in nodes * 2] == [False, True, True, True]
        for node in nodes:
            await node.aclose()
