"""An answer that breaks in the middle goes on at another upstream: exact where the model is the same, else seamed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

import pytest

from holdfast._errors import BudgetExhausted, ConnectError, StreamBroken, StreamError, UsageError
from holdfast._types import Completion, Partial, Request
from holdfast.client import Client
from holdfast.dialects import Timeouts
from holdfast.layers.auto_continue import AutoContinue
from holdfast.layers.fallback import Fallback
from holdfast.layers.throughput import Throughput
from holdfast.machines.ladder import Seams
from holdfast.moments import FellBack, Moment, Resumed
from holdfast.testing import ChaosServer, FakeClock, Schedule, cancel_everywhere
from holdfast.testing.answers import Answer
from holdfast.testing.faults import ClosedMidStream, Refused, ResetMidStream, StallMidStream, ThroughputCollapse
from holdfast.upstreams import Upstream
from tests.properties.upstream import ChaosSource

BODY = {"model": "deepseek-flash", "messages": [{"role": "user", "content": "kelp"}]}
DEAD = ConnectError("nobody listens")


class Servers:
    """A source that hands each request to the chaos server of its host; who is in `dead` refuses from then on."""

    def __init__(self, **servers: ChaosServer) -> None:
        self.sources = {name: ChaosSource(server) for name, server in servers.items()}
        self.dead: set[str] = set()
        self.dies: set[str] = set()
        self.asked: list[str] = []

    async def open(self, request: Request) -> Any:
        name = request.url.partition("//")[2].partition(".")[0]
        self.asked.append(name)
        if name in self.dead:
            raise ConnectError("nobody listens")
        if name in self.dies:
            self.dead.add(name)
        return await self.sources[name].open(request)

    @property
    def live(self) -> int:
        return sum(source.live for source in self.sources.values())


def to(name: str, dialect: str = "deepseek", **settings: Any) -> Upstream:
    return Upstream(dialect, api_key=f"key-{name}", base_url=f"http://{name}.test", name=name, **settings)


def cut(after: int = 20) -> Schedule:
    """The first attempt at any prompt is cut."""
    return Schedule(streams={"*": [ClosedMidStream(after=after)]})


def client_over(
    source: Any, clock: FakeClock, *upstreams: Upstream, moments: list[Moment] | None = None, **settings: Any
) -> Client:
    listeners = [] if moments is None else [moments.append]
    return Client(
        upstreams=upstreams or [to("a"), to("b")],
        source=source,
        clock=clock,
        random=Random(1),
        listeners=listeners,
        **settings,
    )


def seams_of(moments: Sequence[Moment]) -> list[tuple[str, str]]:
    return [(moment.rung, moment.guarantee) for moment in moments if isinstance(moment, Resumed)]


def falls_of(moments: Sequence[Moment]) -> list[tuple[str, str, bool]]:
    return [(moment.old, moment.new, moment.midstream) for moment in moments if isinstance(moment, FellBack)]


async def test_the_same_model_elsewhere_is_replayed_and_verified() -> None:
    moments: list[Moment] = []
    async with FakeClock() as clock:
        first, second = ChaosServer(schedule=cut()), ChaosServer()
        source = Servers(a=first, b=second)
        source.dies = {"a"}
        reader = client_over(source, clock, moments=moments).stream(BODY)
        answer = await reader
    assert answer.text == first.answer("kelp").text == second.answer("kelp").text
    assert (str(answer.verdict), reader.report.upstream) == ("RESUMED (1 seam, verified)", "b")
    assert source.asked == ["a", "a", "a", "b"], "the same upstream first, `leave_after` times"
    assert seams_of(moments) == [("replay", "verified")]
    assert falls_of(moments) == [("a", "b", True)]
    assert reader.report.upstreams == ["a", "b"]
    assert len(reader.report.faults) == 3
    assert source.live == 0
    assert [request.headers["Authorization"] for request in source.sources["b"].asked] == ["Bearer key-b"]


@pytest.mark.parametrize(
    ("fault", "traffic"),
    [
        (ResetMidStream(after=60), ()),
        (StallMidStream(after=60), ()),
        (ThroughputCollapse(seconds=5), (Throughput(floor=2, over=10),)),
    ],
    ids=["resets", "stalls", "crawls"],
)
async def test_one_that_breaks_at_each_replay_is_left(fault: Any, traffic: Sequence[Any]) -> None:
    async with FakeClock() as clock:
        source = Servers(a=ChaosServer(schedule=Schedule(streams={"*": [fault] * 9})), b=ChaosServer())
        client = client_over(source, clock, traffic=traffic, timeouts=Timeouts(progress=30))
        reader = client.stream(BODY)
        answer = await reader
    assert str(answer.verdict) == "RESUMED (1 seam, verified)"
    assert source.asked == ["a", "a", "a", "b"]
    assert source.live == 0


async def test_an_open_breaker_is_left_at_once() -> None:
    async with FakeClock() as clock:
        source = Servers(a=ChaosServer(schedule=cut()), b=ChaosServer())
        client = client_over(source, clock, seams=Seams(leave_after=0))
        assert (await client.stream(BODY)).verdict is not None
        assert source.asked == ["a", "b"]
        assert clock.now() == 0.0, "another upstream is asked without a pause"


@pytest.mark.parametrize("alone", [False, True])
async def test_a_limit_over_all_leads_nowhere_and_one_of_an_upstream_alone_does(*, alone: bool) -> None:
    class Stops:
        """Lets ten items through."""

        def __call__(self, inner: Any) -> Any:
            self.inner = inner
            return self

        async def open(self, request: Request) -> Any:
            stream = await self.inner.open(request)
            receive, seen = stream.receive, [0]

            async def limited() -> Any:
                seen[0] += 1
                if seen[0] > 10:
                    raise BudgetExhausted("the money is spent")
                return await receive()

            return Limited(stream, limited)

    class Limited:
        def __init__(self, inner: Any, receive: Any) -> None:
            self.inner, self.receive, self.aclose, self.head = inner, receive, inner.aclose, inner.head

    async with FakeClock() as clock:
        source = Servers(a=ChaosServer(), b=ChaosServer())
        layers, traffic = ([Stops()], []) if alone else ([], [Stops()])
        reader = client_over(source, clock, to("a", layers=layers), to("b"), traffic=traffic).stream(BODY)
        if alone:
            assert (await reader).text == source.sources["a"].server.answer("kelp").text
            assert source.asked == ["a", "b"]
        else:
            with pytest.raises(BudgetExhausted):
                await reader
            assert source.asked == ["a"]
            assert reader.report.fallbacks == 0


async def test_ids_are_of_the_server_that_gave_them() -> None:
    moments: list[Moment] = []
    async with FakeClock() as clock:
        first, second = ChaosServer(schedule=cut(), mode="ids"), ChaosServer(mode="ids")
        source = Servers(a=first, b=second)
        source.dies = {"a"}
        answer = await client_over(source, clock, moments=moments).stream(BODY)
    assert answer.text == first.answer("kelp").text
    assert seams_of(moments) == [("replay", "verified")]
    assert "Last-Event-ID" not in source.sources["b"].asked[0].headers


async def test_ids_stay_behind_though_the_other_refuses_at_first() -> None:
    async with FakeClock() as clock:
        refuses = Schedule(streams={"*": [Refused(status=503)]})
        source = Servers(a=ChaosServer(schedule=cut(), mode="ids"), b=ChaosServer(mode="ids", schedule=refuses))
        source.dies = {"a"}
        answer = await client_over(source, clock).stream(BODY)
    assert answer.text == source.sources["a"].server.answer("kelp").text
    assert source.asked == ["a", "a", "a", "b", "b"]
    assert ["Last-Event-ID" in request.headers for request in source.sources["b"].asked] == [False, False]


async def test_a_providers_own_cursor_is_of_the_one_that_keeps_the_answer() -> None:
    moments: list[Moment] = []
    async with FakeClock() as clock:
        breaks = Schedule(streams={"*": [ClosedMidStream(after=5), ClosedMidStream(after=60)]})
        source = Servers(a=ChaosServer(schedule=cut()), b=ChaosServer(schedule=breaks))
        source.dies = {"a"}
        upstreams = to("a", "openai-responses"), to("b", "openai-responses")
        client = client_over(source, clock, *upstreams, moments=moments)
        answer = await client.stream({"model": "m", "input": "kelp", "background": True, "store": True})
    assert answer.text == source.sources["a"].server.answer("kelp").text
    assert source.asked == ["a", "a", "a", "b", "b", "b"]
    asked = [(request.method, request.url.partition("?")[0]) for request in source.sources["b"].asked]
    assert asked[:2] == [("POST", "http://b.test/responses")] * 2
    assert asked[2][0] == "GET", "by then it keeps the answer itself"
    assert seams_of(moments) == [("replay", "verified"), ("cursor", "exact")]


async def test_a_server_that_took_over_is_resumed_by_its_own_ids() -> None:
    moments: list[Moment] = []
    async with FakeClock() as clock:
        first = ChaosServer(schedule=cut(), mode="ids")
        second = ChaosServer(schedule=cut(60), mode="ids")
        source = Servers(a=first, b=second)
        source.dies = {"a"}
        reader = client_over(source, clock, moments=moments).stream(BODY)
        answer = await reader
    assert answer.text == first.answer("kelp").text
    assert seams_of(moments) == [("replay", "verified"), ("last-event-id", "exact")]
    assert source.asked == ["a", "a", "a", "b", "b"]
    assert source.sources["b"].asked[1].headers["Last-Event-ID"]


async def test_another_model_never_replays_and_continues_only_where_a_prefix_is_allowed() -> None:
    async with FakeClock() as clock:
        for seams in (False, True):
            moments: list[Moment] = []
            source = Servers(
                a=ChaosServer(schedule=cut(60), seed=1), b=ChaosServer(mode="prefix", continuing="rest", seed=1)
            )
            source.dies = {"a"}
            client = client_over(source, clock, to("a"), to("b", model="other"), moments=moments, seams=seams)
            reader = client.stream(BODY)
            if not seams:
                with pytest.raises(StreamError) as caught:
                    await reader
                assert "b" not in source.asked
                assert caught.value.partial.dialect == "deepseek"
                continue
            answer = await reader
            assert str(answer.verdict) == "RESUMED (1 seam, seamed)"
            assert seams_of(moments) == [("prefix", "seamed")]
            (sent,) = source.sources["b"].asked
            assert isinstance(sent.body, Mapping)
            assert sent.body["model"] == "other"
            assert sent.body["messages"][-1]["prefix"] is True
            assert answer.text == source.sources["a"].server.answer("kelp").text
            assert answer.usage is not None
            assert answer.usage.estimated


async def test_a_replay_that_differs_elsewhere_hands_nothing_over() -> None:
    async with FakeClock() as clock:
        first, second = ChaosServer(schedule=cut(60)), ChaosServer(seed=7)
        source = Servers(a=first, b=second)
        source.dies = {"a"}
        with pytest.raises(StreamBroken) as caught:
            await client_over(source, clock).stream(BODY)
    partial = caught.value.partial
    assert partial.text
    assert first.answer("kelp").text.startswith(partial.text)
    assert partial.url == "http://a.test/chat/completions"
    assert partial.state["upstream"] == "a"


async def test_three_upstreams_of_which_two_die_are_enough() -> None:
    moments: list[Moment] = []
    async with FakeClock() as clock:
        source = Servers(a=ChaosServer(schedule=cut()), b=ChaosServer(), c=ChaosServer())
        source.dies, source.dead = {"a"}, {"b"}
        reader = client_over(
            source, clock, to("a"), to("b"), to("c"), moments=moments, seams=Seams(leave_after=1)
        ).stream(BODY)
        answer = await reader
    assert answer.text == source.sources["a"].server.answer("kelp").text
    assert falls_of(moments) == [("a", "b", True), ("b", "c", True)]
    assert source.asked == ["a", "a", "b", "c"]


async def test_where_all_die_the_partial_is_of_the_first_and_another_process_goes_on_elsewhere() -> None:
    async with FakeClock() as clock:
        first, second = ChaosServer(schedule=cut()), ChaosServer()
        source = Servers(a=first, b=second)
        source.dies, source.dead = {"a"}, {"b"}
        upstreams = [to("a", model="vendor/m"), to("b", model="m")]
        with pytest.raises(StreamError) as caught:
            await client_over(source, clock, *upstreams).stream(BODY)
        partial = Partial.from_json(caught.value.partial.to_json())
        assert partial.request is not None
        assert partial.request["model"] == "vendor/m"
        assert partial.state["others"] == {"model": "deepseek-flash"}
        assert partial.state["alone"] == ["stream", "stream_options"]

        source.dead = {"a"}
        source.asked.clear()
        later = client_over(source, clock, *upstreams)
        async with later.resume(partial) as deltas:
            rest = "".join([delta.text async for delta in deltas])
        assert partial.text + rest == deltas.completion.text == first.answer("kelp").text
        assert deltas.report.upstream == "b"
        assert source.asked[0] == "a", "whose place it is"
        sent = source.sources["b"].asked[-1].body
        assert isinstance(sent, Mapping)
        assert sent["model"] == "m"

        alone = Client("deepseek", base_url="http://b.test", api_key="k", source=source, clock=clock)
        assert (await alone.resume(partial)).text == first.answer("kelp").text
        with pytest.raises(UsageError, match="partial is of 'deepseek'"):
            await client_over(source, clock, to("a", "openai"), to("b", "openai")).resume(partial)


async def test_a_leg_that_asks_on_stays_where_the_answer_is() -> None:
    async with FakeClock() as clock:
        first, second = ChaosServer(schedule=cut()), ChaosServer(mode="prefix")
        source = Servers(a=first, b=second)
        source.dies = {"a"}
        client = client_over(source, clock, auto_continue=AutoContinue(times=5))
        reader = client.stream({**BODY, "max_tokens": 60})
        answer = await reader
    assert answer.text == first.answer("kelp").text
    assert reader.report.legs > 1
    assert source.asked[:4] == ["a", "a", "a", "b"]
    assert set(source.asked[4:]) == {"b"}
    assert source.sources["b"].asked[-1].url == "http://b.test/beta/chat/completions"


async def test_a_leg_stays_though_the_first_upstream_is_well_again() -> None:
    async with FakeClock() as clock:
        source = Servers(a=ChaosServer(mode="prefix"), b=ChaosServer(mode="prefix"))
        source.dead = {"a"}
        reader = client_over(source, clock, auto_continue=AutoContinue(times=5)).stream({**BODY, "max_tokens": 60})
        async with reader:
            async for _ in reader:
                source.dead = set()
        assert reader.report.legs > 1
        assert source.asked == ["a", *["b"] * reader.report.legs]


async def test_a_leg_that_cannot_be_asked_on_is_asked_of_another_with_the_same_model() -> None:
    for model in (None, "other"):
        moments: list[Moment] = []
        async with FakeClock() as clock:
            source = Servers(a=ChaosServer(mode="prefix"), b=ChaosServer(mode="prefix"))
            source.dies = {"a"}
            # The rest is known to a server that has told the beginning.
            await client_over(source, clock, to("b")).stream(BODY)
            upstreams = to("a"), to("b", model=model)
            client = client_over(source, clock, *upstreams, moments=moments, auto_continue=AutoContinue(times=5))
            reader = client.stream({**BODY, "max_tokens": 60})
            if model is not None:
                with pytest.raises(ConnectError):
                    await reader
                continue
            answer = await reader
        assert answer.text == source.sources["a"].server.answer("kelp").text
        assert falls_of(moments) == [("a", "b", True)]
        assert len(reader.report.faults) == 1 + reader.report.retries
        assert reader.report.legs > 1
        assert source.sources["b"].asked[-1].url == "http://b.test/beta/chat/completions"


async def test_a_translated_answer_is_compared_by_what_it_says() -> None:
    text = "Kelp holds fast. " * 20

    def write(_: str) -> Answer:
        return Answer.of(text)

    def translate(body: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"max_tokens": 4_000, **body}

    moments: list[Moment] = []
    async with FakeClock() as clock:
        source = Servers(a=ChaosServer(schedule=cut(10), write=write), b=ChaosServer(write=write))
        source.dies = {"a"}
        client = client_over(source, clock, to("a"), to("b", "anthropic", translate=translate), moments=moments)
        reader = client.stream(BODY)
        answer = await reader
    assert answer.text == text
    assert seams_of(moments) == [("replay", "verified")]
    assert source.sources["b"].asked[0].url == "http://b.test/v1/messages"
    assert reader.dialect is not None
    assert reader.dialect.name == "anthropic"


async def test_a_failed_seam_leaves_dialect_and_evidence_of_one_answer() -> None:
    def translate(body: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"max_tokens": 4_000, **body}

    async with FakeClock() as clock:
        source = Servers(a=ChaosServer(schedule=cut(60)), b=ChaosServer(seed=5))
        source.dies = {"a"}
        upstreams = [to("a"), to("b", "anthropic", translate=translate)]
        reader = client_over(source, clock, *upstreams).stream(BODY)
        with pytest.raises(StreamError) as caught:
            await reader
        assert "b" in source.asked
        partial = caught.value.partial
        assert partial.dialect == "deepseek"
        assert reader.dialect is not None
        assert reader.dialect.name == "deepseek"
        source.dead, source.dies = set(), set()
        answer = await client_over(source, clock, *upstreams).resume(partial)
        assert answer.text == source.sources["a"].server.answer("kelp").text


async def test_a_whole_pipe_cancelled_anywhere_leaves_nothing_open() -> None:
    sources: list[Servers] = []
    fallbacks: list[Fallback] = []

    async def use() -> Completion:
        async with FakeClock() as clock:
            sources.append(Servers(a=ChaosServer(schedule=cut(5), sentences=1), b=ChaosServer(sentences=1)))
            sources[-1].dies = {"a"}
            fallbacks.append(Fallback(upstreams=[to("a"), to("b")]))
            return await Client(upstreams=fallbacks[-1], source=sources[-1], clock=clock, random=Random(1)).stream(BODY)

    def check() -> None:
        assert sources[-1].live == 0
        assert [fallbacks[-1].routes.load(place) for place in (0, 1)] == [0, 0]

    assert await cancel_everywhere(use, check=check) > 20


@pytest.mark.parametrize("fault", [ResetMidStream(after=30), Refused(status=503)])
async def test_one_that_comes_back_is_resumed_there(fault: Any) -> None:
    async with FakeClock() as clock:
        source = Servers(
            a=ChaosServer(schedule=Schedule(streams={"*": [ClosedMidStream(after=20), fault]})), b=ChaosServer()
        )
        answer = await client_over(source, clock).stream(BODY)
        assert answer.text == source.sources["a"].server.answer("kelp").text
        assert set(source.asked) == {"a"}


def test_upstreams_come_in_the_place_of_a_dialect_a_key_and_an_address() -> None:
    for mixed in ({"dialect": "openai"}, {"dialect": "deepseek"}, {"api_key": "k"}, {"base_url": "http://a.test"}):
        with pytest.raises(UsageError, match="upstreams= comes in the place of"):
            Client(upstreams=[to("a")], **mixed)  # type: ignore[arg-type]  # that is what is tested
    with pytest.raises(UsageError, match="translate="):
        Client(upstreams=[to("a"), to("b", "anthropic")])
    client = Client(upstreams=[to("a"), to("b")])
    assert repr(client) == "<Client a, b>"
    assert "Fallback(" in str(client.pipe)
    with pytest.raises(UsageError, match="breaker of its own"):
        _ = client.breaker
    assert json.dumps([str(one) for one in (client, client.pipe)]).count("key-") == 0


async def test_who_leaves_in_the_middle_of_a_move_stops_the_answer_that_is_being_made_there() -> None:
    async with FakeClock() as clock:
        stalls = Schedule(streams={"*": [StallMidStream(after=5)]})
        source = Servers(a=ChaosServer(schedule=cut()), b=ChaosServer(schedule=stalls))
        source.dies = {"a"}
        upstreams = to("a", "openai-responses"), to("b", "openai-responses")
        client = client_over(source, clock, *upstreams)
        async with client.stream({"model": "m", "input": "kelp", "background": True, "store": True}) as reader:
            while source.asked[-1] != "b":
                reading = asyncio.ensure_future(reader.read())
                await clock.sleep(10.0)
            reading.cancel()
            await asyncio.wait([reading])
        last = source.sources["b"].asked[-1]
    assert last.url.endswith("/cancel")
    assert last.upstream == "b"
