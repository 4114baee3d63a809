"""The chaos proxy: what it strikes it strikes exactly, and all else goes through as it came."""

from __future__ import annotations

import asyncio
import gzip
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from holdfast.client import Client
from holdfast.testing import faults as f
from holdfast.testing.books import Served
from holdfast.testing.chaos import ChaosServer
from holdfast.testing.proxy import ChaosProxy
from holdfast.testing.schedule import Schedule
from holdfast.testing.server import (
    STREAM_HEAD,
    Close,
    ReceivedRequest,
    Reply,
    Reset,
    ScriptedServer,
    Send,
    Stall,
    chunked,
    head,
    respond,
    sse,
    stream,
)

ASKED: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "tides"}], "stream": True}
PIECES = [sse(f"piece {n}") for n in range(5)]


class Nought:
    """Chance without chance: no try waits."""

    def random(self) -> float:
        return 0.0


def always(*faults: f.Fault) -> Schedule:
    return Schedule(streams={"*": faults})


@asynccontextmanager
async def before(reply: Reply, schedule: Schedule | None = None) -> AsyncIterator[tuple[ScriptedServer, ChaosProxy]]:
    async with ScriptedServer([reply]) as upstream:
        async with ChaosProxy(upstream=upstream.url, schedule=schedule or Schedule()) as proxy:
            yield upstream, proxy
        assert await upstream.all_closed()


async def ask(proxy: ChaosProxy, **headers: str) -> tuple[aiohttp.ClientResponse, bytes]:
    async with (
        aiohttp.ClientSession(auto_decompress=False) as session,
        session.post(f"{proxy.url}/v1/x?y=1", json=ASKED, headers=headers) as response,
    ):
        return response, await response.read()


async def test_a_healthy_stream_goes_through_byte_by_byte_with_its_headers() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-Request-Id: 7\r\nConnection: close\r\n\r\n"
    body = b": hello\n\n" + b"".join(PIECES) + b"data: half"
    async with before([Send(head), Send(body), Close()]) as (upstream, proxy):
        response, got = await ask(proxy, authorization="Bearer k", **{"last-event-id": "3"})
    assert got == body
    assert response.headers["x-request-id"] == "7"
    (asked,) = upstream.requests
    assert (asked.method, asked.path, asked.json()) == ("POST", "/v1/x?y=1", ASKED)
    assert (asked.headers["authorization"], asked.headers["last-event-id"]) == ("Bearer k", "3")
    assert asked.headers["host"] == upstream.url.removeprefix("http://")
    assert proxy.served[0].events == 5


async def test_events_go_on_as_soon_as_they_are_there() -> None:
    async with (
        before([Send(STREAM_HEAD), Send(chunked(PIECES[0])), Stall()]) as (_, proxy),
        aiohttp.ClientSession() as session,
        session.post(proxy.url, json=ASKED) as response,
    ):
        assert await asyncio.wait_for(response.content.readany(), 5) == PIECES[0]


async def test_a_fault_strikes_the_stream_at_its_place() -> None:
    async with before(stream(*PIECES), always(f.CleanCut(after=2))) as (_, proxy):
        assert (await ask(proxy))[1] == b"".join(PIECES[:2])
        assert (await ask(proxy))[1] == b"".join(PIECES)
    assert [(served.attempt, served.events, served.events_again) for served in proxy.served] == [(1, 2, 0), (2, 5, 2)]


async def test_what_needs_no_answer_sends_the_upstream_nothing() -> None:
    async with before(stream(*PIECES), always(f.Refused(status=503), f.NoAnswer())) as (upstream, proxy):
        assert (await ask(proxy))[0].status == 503
        with pytest.raises(aiohttp.ClientError):
            await ask(proxy, connection="close")
        assert upstream.requests == []


async def test_a_server_that_forgets_is_not_told() -> None:
    async with before(stream(*PIECES), always(f.IgnoresLastEventId())) as (upstream, proxy):
        await ask(proxy, **{"last-event-id": "3"})
    assert "last-event-id" not in upstream.requests[0].headers
    assert proxy.served[0].last_event_id == "3"


@pytest.mark.parametrize(
    "reply",
    [
        respond(b'{"error": {}}', 401, content_type="application/json", set_cookie="a=b"),
        respond(gzip.compress(b"{}"), content_type="application/json", content_encoding="gzip"),
        respond(gzip.compress(PIECES[0]), content_type="text/event-stream", content_encoding="gzip"),
        respond(status=204),
    ],
    ids=["401", "gzip", "compressed events", "204"],
)
async def test_what_is_no_stream_of_events_is_left_alone(reply: list[Send]) -> None:
    async with before(reply, always(f.CleanCut(after=0))) as (_, proxy):
        response, got = await ask(proxy)
    sent_head, _, sent_body = reply[0].data.partition(b"\r\n\r\n")
    assert got == sent_body
    assert b"%d " % response.status in sent_head
    assert proxy.served[0].fault == f.Healthy()
    for name, value in response.headers.items():
        assert f"{name}: {value}".encode() in sent_head


async def test_requests_for_no_stream_are_heard_of_and_not_counted() -> None:
    heard: list[Served] = []
    async with (
        ScriptedServer([respond(b"[]"), [Send(head(200, content_length=2))]]) as upstream,
        ChaosProxy(upstream=upstream.url, schedule=always(f.NoAnswer()), heard=heard.append) as proxy,
        aiohttp.ClientSession() as session,
    ):
        async with session.get(f"{proxy.url}/models") as response:
            assert await response.read() == b"[]"
        async with session.head(f"{proxy.url}/models") as response:
            assert (response.status, response.headers["content-length"]) == (200, "2")
    assert [(served.attempt, served.status, served.bytes) for served in heard] == [(0, 200, 2), (0, 200, 0)]
    assert proxy.served == []


@pytest.mark.parametrize("end", [Reset(), Close()], ids=["reset", "closed"])
async def test_a_true_break_of_the_upstream_is_a_break_here_too(end: Reset | Close) -> None:
    async with before([Send(STREAM_HEAD), Send(chunked(PIECES[0])), end]) as (_, proxy):
        with pytest.raises(aiohttp.ClientError):
            await ask(proxy)


async def test_an_upstream_that_is_not_there_is_a_502() -> None:
    async with ChaosProxy(upstream="http://127.0.0.1:1") as proxy:
        response, body = await ask(proxy)
    assert response.status == proxy.served[0].status == 502
    assert b"bad_gateway" in body


async def test_a_client_that_leaves_takes_the_upstream_along() -> None:
    async with before([Send(STREAM_HEAD), Send(chunked(PIECES[0])), Stall()]) as (upstream, proxy):
        async with aiohttp.ClientSession() as session, session.post(proxy.url, json=ASKED) as response:
            await response.content.readany()
            response.close()
        assert await upstream.all_closed()
        assert await proxy.server.all_closed()
    assert proxy.served[0].over


async def test_an_idempotency_key_names_the_stream() -> None:
    schedule = Schedule(streams={"mine": [f.EmptyBody()]})
    async with before(stream(*PIECES), schedule) as (_, proxy):
        assert (await ask(proxy, **{"idempotency-key": "mine"}))[1] == b""
        assert (await ask(proxy))[1] == b"".join(PIECES)
    assert len(proxy.attempts) == 2


@pytest.mark.parametrize("mode", ["ids", "no-ids"])
async def test_holdfast_behind_the_proxy_is_exact_and_both_count_alike(mode: Any) -> None:
    faults = (f.FinInsideChunk(after=30), f.ErrorEvent(after=5), f.Refused(status=503))
    async with (
        ChaosServer(mode=mode) as upstream,
        ChaosProxy(upstream=upstream.url, schedule=always(*faults)) as proxy,
        Client("deepseek", base_url=proxy.url, random=Nought()) as client,
    ):
        reader = client.stream({"messages": ASKED["messages"]})
        async with reader as deltas:
            got = "".join([delta.text async for delta in deltas])
    assert got == upstream.answer("tides").text
    assert reader.report.attempts == len(proxy.served) == 4
    assert (proxy.summary["events_again"] == 0) == (mode == "ids")


@pytest.mark.parametrize(
    ("path", "more", "cursor"),
    [
        (
            "/v1/responses",
            {"background": True},
            r'"sequence_number":(\d+)',
        ),
        ("/v1beta/interactions", {}, r'"event_id":"(\w+)"'),
    ],
)
async def test_going_on_by_an_id_is_an_attempt_of_the_stream_that_began_it(
    path: str, more: dict[str, Any], cursor: str
) -> None:
    cut = always(f.CleanCut(after=9), f.CleanCut(after=4))
    async with (
        ChaosServer() as upstream,
        ChaosProxy(upstream=upstream.url, schedule=cut) as proxy,
        aiohttp.ClientSession(proxy.url) as session,
    ):
        async with session.post(path, json={"input": "tides", "stream": True, **more}) as response:
            said = await response.text()
        which = re.findall(r'"id":"((?:resp|v1)_\w+)"', said)[0]
        name = "starting_after" if more else "last_event_id"
        for _ in range(2):
            url = f"{path}/{which}?stream=true&{name}={re.findall(cursor, said)[-1]}"
            async with session.get(url, headers={"accept": "application/json"}) as response:
                said += await response.text()
    assert list(proxy.attempts.values()) == [3]
    assert [served.rung for served in proxy.served] == ["", "cursor", "cursor"]
    assert [served.events_again for served in proxy.served] == [0, 0, 0]
    assert [served.events for served in proxy.served[:2]] == [9, 4]
    assert proxy.summary["tokens"] == upstream.answer("tides").tokens


async def test_the_openai_sdk_reads_through_it() -> None:
    openai = pytest.importorskip("openai")
    async with (
        ChaosServer() as upstream,
        ChaosProxy(upstream=upstream.url, schedule=always(f.Refused(status=503))) as proxy,
        openai.AsyncOpenAI(base_url=proxy.url, api_key="k") as client,
    ):
        chunks = await client.chat.completions.create(**ASKED)
        got = "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])
    assert got == upstream.answer("tides").text
    assert list(proxy.attempts.values()) == [2]


def test_an_upstream_is_a_url() -> None:
    with pytest.raises(ValueError, match="begins with http"):
        ChaosProxy(upstream="api.example.com")


async def test_requests_reach_the_upstream_below_its_path() -> None:
    seen: list[ReceivedRequest] = []

    def reply(request: ReceivedRequest) -> Reply:
        seen.append(request)
        return stream(*PIECES)

    async with ScriptedServer(reply) as upstream, ChaosProxy(upstream=f"{upstream.url}/beta/") as proxy:
        await ask(proxy)
    assert seen[0].path == "/beta/v1/x?y=1"
