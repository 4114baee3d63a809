"""Several upstreams behind a mount: an answer goes on at the other one, and no key of the client's goes along."""

from __future__ import annotations

import io
import json
from typing import Any

import aiohttp
import httpx
import pytest
import requests

from holdfast import Hedge, configure_logs, mounts
from holdfast._errors import UsageError
from holdfast.layers.fallback import Fallback
from holdfast.machines.ladder import Seams
from holdfast.mounts._relay import Mount
from holdfast.testing import ChaosServer, Schedule
from holdfast.testing.background import in_background
from holdfast.testing.faults import ClosedMidStream, Latency, Refused
from holdfast.upstreams import Upstream
from tests.mounts.shop import Nought

BODY: dict[str, Any] = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "kelp"}]}
COPIES = {"X-Copy": "org of-the-first", "X-Custom": "Bearer another", "X-JWT": "third", "Referer": "http://host/?k=1"}
SECRETS = {"Authorization": "Bearer of-the-first", "X-Api-Key": "of-the-first", "X-Team": "kelp", **COPIES}
FAULTS = {
    "before the first item": Schedule(streams={"*": [Refused(status=503)] * 8}),
    "in the middle": Schedule(streams={"*": [ClosedMidStream(after=30), *[Refused(status=503)] * 8]}),
}


def settings(first: ChaosServer, second: ChaosServer, **more: Any) -> dict[str, Any]:
    upstreams = [
        Upstream("openai-compatible", base_url=first.url, name="first"),
        Upstream("openai-compatible", base_url=second.url, name="second", model="m2/m", **more),
    ]
    return {
        "traffic": [Fallback(upstreams=upstreams)],
        "random": Nought(),
        "seams": Seams(leave_after=1),
        "dialect": "openai-compatible",
    }


def text_of(body: bytes) -> str:
    chunks = [json.loads(line[6:]) for line in body.split(b"\n") if line.startswith(b"data: {")]
    return "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c.get("choices"))


def check(body: bytes, first: ChaosServer, second: ChaosServer) -> None:
    assert text_of(body) == first.answer("kelp").text
    (sent,) = second.server.requests
    assert "authorization" not in sent.headers
    assert "x-api-key" not in sent.headers
    assert not {name.lower() for name in COPIES} & {name.lower() for name in sent.headers}
    assert sent.headers["x-team"] == "kelp"
    assert second.url.endswith(sent.headers["host"])
    assert json.loads(sent.body)["model"] == "m2/m"
    assert first.server.requests[0].headers["authorization"] == "Bearer of-the-first"


@pytest.mark.parametrize("schedule", FAULTS.values(), ids=FAULTS)
async def test_httpx_goes_on_elsewhere_without_the_clients_key(schedule: Schedule) -> None:
    async with ChaosServer(schedule=schedule) as first, ChaosServer() as second:
        transport = mounts.HttpxTransport(httpx.AsyncHTTPTransport(), **settings(first, second))
        async with httpx.AsyncClient(transport=transport) as client:
            response = await client.post(f"{first.url}/chat/completions", json=BODY, headers=SECRETS)
        check(response.content, first, second)


@pytest.mark.parametrize("schedule", FAULTS.values(), ids=FAULTS)
async def test_aiohttp_goes_on_elsewhere_without_the_clients_key(schedule: Schedule) -> None:
    async with ChaosServer(schedule=schedule) as first, ChaosServer() as second:
        middleware = mounts.aiohttp_middleware(**settings(first, second))
        async with (
            aiohttp.ClientSession(middlewares=[middleware]) as session,
            session.post(f"{first.url}/chat/completions", json=BODY, headers=SECRETS) as response,
        ):
            check(await response.read(), first, second)


@pytest.mark.parametrize("schedule", FAULTS.values(), ids=FAULTS)
def test_requests_goes_on_elsewhere_without_the_clients_key(schedule: Schedule) -> None:
    first, second = ChaosServer(schedule=schedule), ChaosServer()
    with in_background(first), in_background(second), requests.Session() as session:
        session.mount("http://", mounts.RequestsAdapter(**settings(first, second)))
        response = session.post(f"{first.url}/chat/completions", json=BODY, headers=SECRETS)
        check(response.content, first, second)


async def test_another_upstreams_own_key_goes_to_it() -> None:
    schedule = FAULTS["before the first item"]
    async with ChaosServer(schedule=schedule) as first, ChaosServer() as second:
        transport = mounts.HttpxTransport(
            httpx.AsyncHTTPTransport(), **settings(first, second, api_key="of-the-second")
        )
        async with httpx.AsyncClient(transport=transport) as client:
            await client.post(f"{first.url}/chat/completions", json=BODY, headers=SECRETS)
        assert second.server.requests[0].headers["authorization"] == "Bearer of-the-second"


def test_an_upstream_of_another_wire_is_refused() -> None:
    one = Upstream("openai", api_key="k")
    other = Upstream("anthropic", api_key="k", translate=lambda body: body)
    with pytest.raises(UsageError, match="no upstream here has a translate="):
        Mount(traffic=[Fallback(upstreams=[one, other])])


@pytest.mark.parametrize("hedged", [False, True])
async def test_the_dialect_is_that_of_who_answers_in_every_telling(*, hedged: bool) -> None:
    lines = io.StringIO()
    configure_logs(lines, json=True)
    slow = Schedule(streams={"*": [Latency(seconds=30) if hedged else Refused(status=503)] * 8})
    try:
        async with ChaosServer(schedule=slow) as first, ChaosServer() as second:
            asked = {**settings(first, second), "dialect": "auto"}
            if hedged:
                asked["traffic"] = [*asked["traffic"], Hedge(delay=0.05, share=1.0)]
            async with httpx.AsyncClient(transport=mounts.HttpxTransport(**asked)) as client:
                response = await client.post(f"{first.url}/chat/completions", json=BODY)
    finally:
        configure_logs(level=None)
    told = mounts.report(response)
    assert told is not None
    assert (told.dialect, told.upstream) == ("openai-compatible", "second")
    assert {bill.dialect for bill in told.bills} == {"openai-compatible"}
    (ended,) = (line for line in map(json.loads, lines.getvalue().splitlines()) if line["event"] == "stream.ended")
    assert ended["dialect"] == "openai-compatible"
