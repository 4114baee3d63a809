"""Every layer of the house keeps the contract of a stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import pybreaker
import pytest

from holdfast._core import Source
from holdfast._errors import StatusError, StreamBroken
from holdfast._types import Delta, Event, Head, Request
from holdfast.layers.breaker import CircuitBreaker
from holdfast.layers.buffer import Buffer
from holdfast.layers.deadline import Deadline
from holdfast.layers.hedge import Hedge
from holdfast.layers.parse import decode_utf8, parse_sse
from holdfast.layers.read_ahead import ReadAhead
from holdfast.layers.reconnect import Reconnect
from holdfast.layers.record import Record
from holdfast.layers.retry import Retry
from holdfast.layers.throughput import Throughput
from holdfast.layers.verify import verify
from holdfast.machines.sse import SseParser
from holdfast.testing import FakeClock, check_layer, check_source
from tests.puppet import Puppet, Script, Wait

DELTAS = [Delta(raw=Event(), text=text) for text in ("It is 3", ".14. ", "Yes", "! ", "No")]
WIRE = [b'data: {"choices":[{"index":0,"delta":{"content":"a"}', b"}]}\n", b"\n: ping\n\ndata: b\n\n", b"data: c\n\n"]


@pytest.mark.parametrize(
    "layer",
    [
        Buffer(),
        Buffer(count=2),
        Buffer(count=2, hold_first=True),
        Buffer(sentences=True),
        Buffer(seconds=0.05),
        Buffer(count=3, sentences=True, seconds=0.05, max_items=4, hold_first=True),
    ],
    ids=repr,
)
async def test_buffer(layer: Any) -> None:
    await check_layer(layer, items=DELTAS, waits_to_fill=True)


@pytest.mark.parametrize(
    "layer",
    [
        ReadAhead(),
        ReadAhead(max_items=1),
        ReadAhead(max_items=2),
        Retry(attempts=1),
        Retry(),
        Reconnect(),
        Deadline(open=30, first_token=60, progress=60),
        Deadline(total=3600),
        CircuitBreaker(pybreaker.CircuitBreaker(fail_max=1_000_000)),
        Hedge(),
        Hedge(delay=1.0, share=1.0),
        Throughput(floor=1, learned=True),
        ReadAhead(max_items=2, unread=3600),
    ],
    ids=repr,
)
async def test_layers_over_any_items(layer: Any) -> None:
    await check_layer(layer, items=DELTAS)


async def test_record(tmp_path: Any) -> None:
    await check_layer(Record(tmp_path / "answer.sse"), items=WIRE)


def events(wire: Sequence[bytes]) -> list[Event]:
    out: list[Event] = []
    SseParser().feed(wire, out)
    return out


async def test_parse_sse() -> None:
    await check_layer(parse_sse(), items=WIRE, expected=events)


async def test_decode_utf8() -> None:
    text = "你好 – hé"
    wire = [text.encode()[at : at + 2] for at in range(0, len(text.encode()), 2)]
    await check_layer(
        decode_utf8(),
        items=wire,
        expected=lambda wire: [b"".join(wire).decode("utf-8", "ignore")] if wire else [],
    )


def chunk(text: str, finish: str = "null") -> bytes:
    return (
        b'data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"m","choices":'
        b'[{"index":0,"delta":{"content":"%b"},"finish_reason":%b}]}\n\n' % (text.encode(), finish.encode())
    )


CHAT = [chunk("Hel"), chunk("lo"), chunk("!"), chunk("", '"stop"'), b"data: [DONE]\n\n"]


@dataclass
class Texts:
    """Says what each item says, to compare: an item also holds where it came from. It hides nothing else."""

    inner: Any

    @property
    def head(self) -> Head:
        return cast("Head", self.inner.head)

    async def open(self, request: Request) -> Texts:
        return Texts(await self.inner.open(request))

    async def receive(self) -> list[str]:
        return [
            item.data if isinstance(item, Event) else item.text + (item.finish_reason or "")
            for item in await self.inner.receive()
        ]

    async def aclose(self) -> None:
        await self.inner.aclose()


def said(wire: Sequence[bytes]) -> list[str]:
    return ["Hel", "lo", "!", "stop"][: len(wire)]


async def test_verify() -> None:
    def layer(inner: Source[bytes]) -> Source[Any]:
        return Texts(verify("openai-compatible")(parse_sse()(inner)))

    await check_layer(layer, items=CHAT, expected=said)


async def test_the_whole_stack() -> None:
    def layer(inner: Source[bytes]) -> Source[Any]:
        checked = verify("openai-compatible")(parse_sse()(inner))
        timed = Deadline(open=30, first_token=600, progress=600)(checked)
        return Texts(ReadAhead()(Reconnect()(Retry()(timed))))

    await check_layer(layer, items=CHAT, expected=said)


async def heals(pipe_over: Any, *scripts: Script, expected: Sequence[Any]) -> None:
    """Checks a layer that opens again, over a source that does better every time."""
    made: list[Puppet] = []

    def fresh() -> Any:
        made.append(Puppet(*scripts))
        return pipe_over(made[-1])

    async with FakeClock() as clock:
        await check_source(
            fresh,
            expected=expected,
            fails=False,
            clock=clock,
            opened=lambda: sum(len(puppet.live) for puppet in made),
        )


async def test_retry_while_it_tries_again() -> None:
    busy = StatusError("busy", head=Head(status=503))
    await heals(
        Retry(),
        Script(opening=(busy,)),
        Script(Wait(1.0), StreamBroken("cut")),
        Script("a", Wait(1.0), "b"),
        expected=["a", "b"],
    )


async def test_reconnect_while_it_resumes_at_an_id() -> None:
    def layer(inner: Source[bytes]) -> Source[str]:
        return Texts(Reconnect()(parse_sse()(inner)))

    def wire(*numbers: int) -> list[bytes]:
        return [b"id: %d\ndata: %d\n\n" % (n, n) for n in numbers]

    await heals(
        layer,
        Script(*wire(1), Wait(1.0), *wire(2), StreamBroken("cut")),
        Script(opening=(StreamBroken("again"),)),
        Script(*wire(2, 3)),
        expected=["1", "2", "3"],
    )


async def test_reconnect_while_it_replays() -> None:
    def layer(inner: Source[bytes]) -> Source[Any]:
        return Texts(Reconnect()(verify("openai-compatible")(parse_sse()(inner))))

    await heals(
        layer,
        Script(*CHAT[:2], Wait(1.0), StreamBroken("cut")),
        Script(*CHAT[:1], StreamBroken("again")),
        Script(*CHAT),
        expected=["Hello!stop"],
    )
