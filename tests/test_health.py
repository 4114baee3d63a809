"""HealthCheck: who is probed and when, what it makes of the answers, and that its task ends with its block."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest

from holdfast._core import Call
from holdfast._errors import ConnectError, StatusError, StreamBroken, UsageError
from holdfast._types import Head, Request
from holdfast.client import Client
from holdfast.health import HealthCheck
from holdfast.layers.fallback import Fallback
from holdfast.testing import FakeClock, ScriptedServer, cancel_everywhere
from holdfast.testing.server import ReceivedRequest, respond
from holdfast.upstreams import Upstream
from tests.puppet import Puppet, Script, Wait


def up(name: str) -> Upstream:
    return Upstream("openai", api_key=f"key-{name}", base_url=f"http://{name}.test/v1", name=name, layers=())


class Several:
    """A source that hands each request to the puppet of its upstream."""

    def __init__(self, clock: FakeClock, **puppets: Puppet) -> None:
        self.clock = clock
        self.puppets = puppets
        self.asked: list[tuple[float, str]] = []

    async def open(self, request: Request) -> Any:
        self.asked.append((round(self.clock.now(), 1), request.upstream))
        return await self.puppets[request.upstream].open(request)

    @property
    def live(self) -> int:
        return sum(len(puppet.live) for puppet in self.puppets.values())


class Even:
    """Chance without jitter."""

    def random(self) -> float:
        return 0.5


def status(code: int) -> StatusError:
    return StatusError("no", head=Head(status=code))


def checked(source: Several, fallback: Fallback, **settings: Any) -> HealthCheck:
    return HealthCheck(fallback=fallback, source=source, clock=source.clock, random=Even(), **settings)


async def test_idle_upstreams_are_probed_at_once_and_then_at_their_interval() -> None:
    async with FakeClock() as clock:
        source = Several(clock, a=Puppet([b"{}"], repeat=True), b=Puppet([b"{}"], repeat=True))
        async with checked(source, Fallback(upstreams=[up("a"), up("b")]), every=30.0) as check:
            await clock.sleep(65.0)
        assert source.asked == [(0.0, "a"), (0.0, "b"), (30.0, "a"), (30.0, "b"), (60.0, "a"), (60.0, "b")]
        assert check.probes == 6
        assert source.live == 0
        probe = source.puppets["a"].requests[0]
        assert (probe.method, probe.url, probe.body) == ("GET", "http://a.test/v1/models", None)
        assert probe.headers == {"Authorization": "Bearer key-a"}
        await clock.sleep(100.0)
        assert check.probes == 6, "its task ended with its block"


async def test_who_had_traffic_lately_is_left_alone() -> None:
    async with FakeClock() as clock:
        source = Several(clock, a=Puppet([b"{}"], repeat=True), b=Puppet([b"{}"], repeat=True))
        fallback = Fallback(upstreams=[up("a"), up("b")])
        request = Request(url="http://a.test/v1/chat/completions", body={}, call=Call(clock=clock))
        stream = await fallback(source).open(request)
        async with checked(source, fallback):
            await clock.sleep(45.0)
            await stream.aclose()
            await clock.sleep(60.0)
        assert [asked for asked in source.asked[1:] if asked[1] == "a"] == [(90.0, "a")]


@pytest.mark.parametrize(
    ("answer", "well"),
    [
        (Script(b"{}"), True),
        (status(404), True),
        (status(405), True),
        (status(429), None),
        (status(401), False),
        (status(503), False),
        (ConnectError("gone"), False),
        (Script(b"{", StreamBroken("cut")), False),
        (Script(opening=(Wait(),)), False),
        (Script(b"{", Wait()), False),
    ],
)
async def test_what_a_probe_makes_of_an_answer(answer: Any, *, well: bool | None) -> None:
    async with FakeClock() as clock:
        source = Several(clock, a=Puppet(answer, repeat=True), b=Puppet([b"{}"], repeat=True))
        fallback = Fallback(upstreams=[up("a"), up("b")], eject_after=1, eject=1_000.0)
        if well is not False:  # it has been ejected before
            fallback.routes.probed(0, 0.0, good=False)
        async with checked(source, fallback, timeout=5.0):
            await clock.sleep(10.0)
        assert fallback.routes.healthy(0, clock.now()) == (well is True)
        assert fallback.routes.healthy(1, clock.now())
        assert source.live == 0


async def test_a_long_answer_is_read_as_far_as_is_allowed() -> None:
    async with FakeClock() as clock:
        source = Several(clock, a=Puppet([b"x" * 100] * 10, repeat=True))
        async with checked(source, Fallback(upstreams=[up("a")]), max_body=250):
            await clock.sleep(1.0)
        assert source.live == 0
        assert source.puppets["a"].closes == 1


async def test_a_source_that_is_broken_is_told_of_and_the_others_are_probed() -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, about: told.append(about))
    async with FakeClock() as clock:
        source = Several(clock, a=Puppet(ValueError("a bug"), repeat=True), b=Puppet([b"{}"], repeat=True))
        async with checked(source, Fallback(upstreams=[up("a"), up("b")])):
            await clock.sleep(1.0)
    assert [about["message"] for about in told] == ["the probe of upstream 'a' could not be made"]
    assert source.asked == [(0.0, "a"), (0.0, "b")]


async def test_cancelled_anywhere_no_task_and_no_stream_is_left() -> None:
    sources: list[Several] = []

    async def use() -> None:
        async with FakeClock() as clock:
            sources.append(Several(clock, a=Puppet(Script(b"{", Wait(1.0), b"}"), repeat=True)))
            async with checked(sources[-1], Fallback(upstreams=[up("a")])):
                await clock.sleep(3.0)

    def check() -> None:
        assert not sources or sources[-1].live == 0
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "holdfast-health"]

    assert await cancel_everywhere(use, check=check) > 5


@pytest.mark.parametrize(
    ("dialect", "url"),
    [
        ("openai", "https://api.openai.com/v1/models"),
        ("openai-responses", "https://api.openai.com/v1/models"),
        ("deepseek", "https://api.deepseek.com/models"),
        ("anthropic", "https://api.anthropic.com/v1/models"),
        ("gemini", "https://generativelanguage.googleapis.com/v1beta/models"),
    ],
)
def test_each_dialect_is_asked_for_its_models(dialect: str, url: str) -> None:
    assert Upstream(dialect, api_key="k").probe().url == url
    assert Upstream(dialect, api_key="k", base_url="http://x.test/sub").probe("/up").url == "http://x.test/sub/up"


@pytest.mark.parametrize(
    ("settings", "error"),
    [({"every": 0}, ValueError), ({"timeout": -1}, ValueError), ({"path": "models"}, ValueError)],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(settings))):
        Client(upstreams=[up("a")]).health_check(**settings)


def test_a_client_of_one_upstream_has_nobody_to_turn_to() -> None:
    with pytest.raises(UsageError, match="several upstreams"):
        Client("openai", api_key="k").health_check()


async def test_over_tcp_one_that_comes_back_is_found_before_a_caller_asks() -> None:
    well = False

    def reply(request: ReceivedRequest) -> Any:
        return respond(b'{"data": []}', 200 if well else 503, content_type="application/json")

    async with (
        ScriptedServer(reply) as first,
        ScriptedServer(reply) as second,
        Client(
            upstreams=Fallback(
                upstreams=[
                    Upstream("openai", base_url=first.url, api_key="k", name="a"),
                    Upstream("openai", base_url=second.url, api_key="k", name="b"),
                ],
                eject_after=1,
            ),
            random=Random(1),
        ) as client,
    ):
        check = client.health_check(every=0.02, timeout=1.0)
        routes = check.fallback.routes

        async def until(*, healthy: bool) -> None:
            async with asyncio.timeout(10):
                while routes.healthy(0, check.clock.now()) != healthy:  # noqa: ASYNC110 - it is no event of this loop
                    await asyncio.sleep(0.005)

        async with check:
            await until(healthy=False)
            well = True
            await until(healthy=True)
        assert first.requests[0].path == "/models"
        assert first.open_connections <= 1, "it is kept warm"
