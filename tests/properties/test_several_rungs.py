"""Safety over several upstreams with every rung: ids, replays, prefixes; the same model and another; one wire and two.

The servers are the library's own chaos servers without sockets: what a cursor or a prefix means is what it means there.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from holdfast._core import Stream
from holdfast._errors import StreamError
from holdfast._types import Delta, Partial, Request
from holdfast.client import Client
from holdfast.layers.fallback import Fallback
from holdfast.machines.ladder import Seams
from holdfast.moments import FellBack, Moment, Opening
from holdfast.testing import ChaosServer, FakeClock
from holdfast.testing.chaos import Mode
from holdfast.testing.faults import EVIDENT, AnotherAnswer, NoAnswer
from holdfast.testing.schedule import Schedule
from holdfast.testing.strategies import schedules
from holdfast.upstreams import Upstream
from tests.properties.profile import examples
from tests.properties.upstream import ChaosSource

MODES: tuple[Mode, ...] = ("ids", "no-ids", "divergent", "prefix")
MET = schedules(
    [fault for fault in EVIDENT if not isinstance(fault, AnotherAnswer | NoAnswer)], min_faults=1, within=40
)
BODY = {"model": "m", "messages": [{"role": "user", "content": "kelp"}]}


@dataclass(slots=True, frozen=True, kw_only=True)
class Place:
    """One upstream. Another `seed` is another model in all but its name."""

    schedule: Schedule
    mode: Mode
    seed: int
    model: str | None
    wire: str

    def upstream(self, name: str) -> Upstream:
        translate = _translated if self.wire == "anthropic" else None
        return Upstream(
            self.wire, api_key=name, base_url=f"http://{name}.test", name=name, model=self.model, translate=translate
        )


def _translated(body: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"max_tokens": 10_000, **body}


PLACES = st.builds(
    Place,
    schedule=MET,
    mode=st.sampled_from(MODES),
    seed=st.sampled_from([0, 0, 0, 1]),
    model=st.sampled_from([None, None, "other"]),
    wire=st.sampled_from(["deepseek", "deepseek", "mistral", "anthropic"]),
)


class Servers:
    """Hands each request to the server of its upstream."""

    def __init__(self, servers: Mapping[str, ChaosServer]) -> None:
        self.sources = {name: ChaosSource(server) for name, server in servers.items()}
        self.asked: Counter[str] = Counter()

    async def open(self, request: Request) -> Stream[bytes]:
        self.asked[request.upstream] += 1
        assert request.url.startswith(f"http://{request.upstream}.test/")
        keys = {
            name: value for name, value in request.headers.items() if name.lower() in ("authorization", "x-api-key")
        }
        assert [value.removeprefix("Bearer ") for value in keys.values()] == [request.upstream], "another one's key"
        return await self.sources[request.upstream].open(request)


@dataclass(slots=True)
class Told:
    """What a client was told: thought and text."""

    thought: str = ""
    text: str = ""
    error: StreamError | None = None
    seamed: bool = False


async def _read(reader: Any) -> Told:
    told, deltas = Told(), list[Delta]()
    try:
        async with reader:
            async for delta in reader:
                deltas.append(delta)
    except StreamError as error:
        told.error = error
    told.seamed = any(seam.guarantee == "seamed" for seam in reader.report.seams)
    told.thought, told.text = "".join(d.reasoning for d in deltas), "".join(d.text for d in deltas)
    return told


async def _play(places: list[Place], *, seams: bool, leave_after: int, seed: int) -> None:
    names = [f"u{number}" for number in range(len(places))]
    servers = {
        name: ChaosServer(schedule=place.schedule, mode=place.mode, seed=place.seed, sentences=2)
        for name, place in zip(names, places, strict=True)
    }
    source, moments = Servers(servers), list[Moment]()
    fallback = Fallback(upstreams=[place.upstream(name) for name, place in zip(names, places, strict=True)])
    policy = Seams(rungs=Seams.of(seams).rungs, leave_after=leave_after)
    async with FakeClock() as clock:
        client = Client(
            upstreams=fallback,
            source=source,
            clock=clock,
            random=Random(seed),
            seams=policy,
            listeners=[moments.append],
        )
        reader = client.stream(BODY)
        told = await _read(reader)
        truths = [(a.reasoning, a.text) for server in servers.values() for a in server.answers("kelp")]
        _check(told, truths)
        opened = sum(isinstance(moment, Opening) for moment in moments)
        assert reader.report.attempts == sum(source.asked.values()) == opened
        assert reader.report.fallbacks == sum(isinstance(moment, FellBack) for moment in moments)
        if told.error is not None:
            await _go_on(client, told, servers)
    assert all(fallback.routes.load(place) == 0 for place in range(len(places)))
    assert not any(one.live for one in source.sources.values())


def _check(told: Told, truths: list[tuple[str, str]]) -> None:
    """One true answer, or its beginning. Behind a prefix it may be one that was thought of otherwise."""
    if told.error is None:
        assert told.text in [text for thought, text in truths if told.seamed or thought == told.thought]
    elif told.text:
        assert any(text.startswith(told.text) and (told.seamed or thought == told.thought) for thought, text in truths)
    elif told.thought:
        assert any(thought.startswith(told.thought) for thought, _ in truths)


async def _go_on(client: Client, told: Told, servers: Mapping[str, ChaosServer]) -> None:
    """What was left over is a place of one upstream: another process gets the rest of the same answer, or nothing."""
    assert told.error is not None
    partial = Partial.from_json(told.error.partial.to_json())
    assert partial.text == told.text
    if not partial.text and not partial.answer.reasoning:
        return  # nothing had arrived: it is a request like the first
    rest = await _read(client.resume(partial))
    truths = [(a.reasoning, a.text) for server in servers.values() for a in server.answers("kelp")]
    whole = Told(told.thought + rest.thought, told.text + rest.text, rest.error, told.seamed or rest.seamed)
    _check(whole, truths)


@examples(60)
@given(st.lists(PLACES, min_size=2, max_size=3), st.booleans(), st.integers(0, 2), st.integers(0, 3))
def test_on_every_rung_elsewhere_it_is_one_true_answer_or_a_typed_error(
    places: list[Place], seams: object, leave_after: int, seed: int
) -> None:
    first = Place(schedule=places[0].schedule, mode=places[0].mode, seed=0, model=None, wire="deepseek")
    asyncio.run(_play([first, *places[1:]], seams=bool(seams), leave_after=leave_after, seed=seed))
