"""What an attacker found: servers that lie about their ids, answers that turn, readers that poll."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from holdfast._errors import StreamBroken
from holdfast._pipe import Pipe
from holdfast._reader import Reader
from holdfast._types import Delta
from holdfast.layers.parse import parse_sse
from holdfast.layers.reconnect import Reconnect
from holdfast.layers.retry import Retry
from holdfast.layers.verify import verify
from holdfast.testing import FakeClock
from tests.layers.test_reconnect import REQUEST, chunk, says, wire
from tests.puppet import Puppet, Script, Wait


def body(payloads: Sequence[str]) -> bytes:
    return b"".join(wire(payloads))


async def collect(deltas: Reader[Delta]) -> list[Delta]:
    return [delta async for delta in deltas]


async def test_a_divergence_after_a_choice_caught_up_is_never_taken_for_a_proven_end(clock: FakeClock) -> None:
    first = [chunk("a", says(content="A")), chunk("a", says(finish="stop")), chunk("a", says(1, content="B"))]
    rest = [chunk("a", says(1, content="-rest")), chunk("a", says(1, finish="stop")), chunk("a", says(content="Z"))]
    puppet = Puppet(
        [body(first), StreamBroken("cut")], [body([*first, *rest])], [body([*first, *rest])], [body([*first, *rest])]
    )
    pipe = Pipe(puppet, clock=clock) | parse_sse() | verify("openai") | Reconnect()
    async with pipe.stream(replace(REQUEST, body={"messages": [], "n": 2})) as deltas:
        with pytest.raises(StreamBroken) as raised:
            await collect(deltas)
    assert [choice.text for choice in raised.value.partial.answer.choices] == ["A", "B"]


async def test_a_server_that_loses_its_ids_is_not_believed_to_continue(clock: FakeClock) -> None:
    said = [chunk("", says(content=letter)) for letter in "ABC"]
    ending = [chunk("", says(content="D")), chunk("", says(finish="stop"))]
    numbered = b"".join(b"id: %d\n" % n + body([payload]) for n, payload in enumerate(said, 1))
    puppet = Puppet([numbered, StreamBroken("cut")], [body([*said, *ending])])
    pipe = Pipe(puppet, clock=clock) | parse_sse() | verify("openai") | Reconnect()
    async with pipe.stream(REQUEST) as deltas:
        assert "".join([text async for text in deltas.text()]) == "ABCD"
    assert str(deltas.report.verdict) == "RESUMED (1 seam, verified)"


async def test_one_id_on_everything_loses_no_token(clock: FakeClock) -> None:
    payloads = [chunk("", says(content=word)) for word in ("ha", "ha", "!")] + [chunk("", says(finish="stop"))]
    whole = b"".join(b"id: same\n" + body([payload]) for payload in payloads)
    puppet = Puppet([whole], repeat=True)
    pipe = Pipe(puppet, clock=clock) | parse_sse() | verify("openai") | Retry() | Reconnect()
    async with pipe.stream(REQUEST) as deltas:
        assert "".join([text async for text in deltas.text()]) == "haha!"


@pytest.mark.parametrize("name", [b"\x01", b"a\x0bb", b"x" * 2_000], ids=["control", "tab", "long"])
async def test_an_id_that_cannot_go_back_as_a_header_is_no_cursor(name: bytes, clock: FakeClock) -> None:
    puppet = Puppet(
        [b"id: " + name + b"\n" + body([chunk("", says(content="a"))]), StreamBroken("cut")],
        [body([chunk("", says(content="a")), chunk("", says(content="b", finish="stop"))])],
    )
    pipe = Pipe(puppet, clock=clock) | parse_sse() | verify("openai") | Reconnect()
    async with pipe.stream(REQUEST) as deltas:
        assert "".join([text async for text in deltas.text()]) == "ab"
    assert "Last-Event-ID" not in puppet.requests[1].headers


async def test_a_reader_that_polls_pays_for_one_request(clock: FakeClock) -> None:
    whole = [chunk("", says(content="a")), chunk("", says(content="b", finish="stop"))]
    puppet = Puppet([body(whole[:1]), StreamBroken("cut")], Script(body(whole), opening=(Wait(5.0),)))
    pipe = Pipe(puppet, clock=clock) | parse_sse() | verify("openai") | Reconnect()
    got: list[str] = []
    async with pipe.stream(REQUEST) as deltas:
        while got[-1:] != ["b"]:
            polling = asyncio.ensure_future(anext(deltas))
            await asyncio.wait([polling, asyncio.ensure_future(clock.sleep(0.5))], return_when="FIRST_COMPLETED")
            polling.cancel()
            try:
                got.append((await polling).text)
            except asyncio.CancelledError:
                continue
    assert got == ["a", "b"]
    assert puppet.opens == 2


async def test_an_end_mark_without_an_id_ends_a_numbered_answer(clock: FakeClock) -> None:
    said = [chunk("", says(content="A")), chunk("", says(content="B", finish="stop"))]
    numbered = b"".join(b"id: %d\n" % n + body([payload]) for n, payload in enumerate(said, 1))
    puppet = Puppet([numbered, StreamBroken("cut")], [body(["[DONE]"])])
    pipe = Pipe(puppet, clock=clock) | parse_sse() | verify("openai") | Reconnect()
    async with pipe.stream(REQUEST) as deltas:
        assert "".join([text async for text in deltas.text()]) == "AB"
    assert puppet.opens == 2  # its usage was still to come


async def test_a_replay_that_says_nothing_more_for_long_is_not_kept(clock: FakeClock) -> None:
    said, ending = chunk("a", says(content="A")), chunk("a", says(content="B", finish="stop"))
    nothing = wire([chunk("a", says())])[0]
    puppet = Puppet([body([said]), StreamBroken("cut")], [body([said]), *[nothing] * 2_000, body([ending])])
    pipe = Pipe(puppet, clock=clock) | parse_sse() | verify("openai") | Reconnect()
    async with pipe.stream(REQUEST) as deltas:
        batches = [batch async for batch in deltas.batches()]
    assert "".join(delta.text for batch in batches for delta in batch) == "AB"
    assert max(map(len, batches)) < 500
    assert str(deltas.report.verdict) == "RESUMED (1 seam, verified)"
