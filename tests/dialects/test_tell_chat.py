"""The chat shape told on: bytes as they came, and after a seam one answer under one id."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast import Delta, MemorySource, Pipe, Reconnect, Request, Seams, assemble
from holdfast.dialects import Teller
from holdfast.layers.parse import parse_sse
from holdfast.layers.verify import verify
from holdfast.moments import Moment, Resumed
from holdfast.testing import FakeClock
from tests.cuts import bytewise, randomly
from tests.layers.test_reconnect import answer, wire
from tests.layers.test_rungs import SEAMED, TEXT, VLLM, Upstream, continuing, cut

REQUEST = Request(url="http://h/v1/chat/completions", body={"messages": []})


def relaying(source: Any, clock: FakeClock, dialect: str, seams: Seams | None = None) -> Pipe[Delta]:
    return (
        Pipe(source, clock=clock)
        | parse_sse(comments=True)
        | verify(dialect, relay=True)
        | Reconnect(seams=seams or Seams())
    )


async def told(pipe: Pipe[Delta], request: Request = REQUEST) -> bytes:
    teller: list[Teller] = []

    def hear(moment: Moment) -> None:
        if isinstance(moment, Resumed) and moment.rung in ("replay", "prefix"):
            teller[0].reseat()

    reader = pipe.stream(request, listeners=[hear])
    out: list[bytes] = []
    async with reader:
        assert reader.dialect is not None
        teller.append(reader.dialect.wire.teller())
        async for batch in reader.batches():
            teller[0].feed(batch, out)
    teller[0].end(out)
    return b"".join(out)


HEALTHY = (
    b"\xef\xbb\xbf: hello\n\nretry: 10\r\n\r\n"
    + b"".join(wire(answer(), ids=True))[:-2].replace(b"\n\n", b"\n\n: ping\r\r", 3)
    + b"\n\n"
)


async def test_what_is_healthy_is_told_to_the_byte(clock: FakeClock) -> None:
    for chunks in ([HEALTHY], bytewise(HEALTHY), *randomly(HEALTHY, times=5, most=60)):
        assert await told(relaying(MemorySource(chunks), clock, "openai")) == HEALTHY


@pytest.mark.parametrize("after", range(1, 11))
async def test_a_replay_is_told_as_the_rest_of_the_first_answer(after: int, clock: FakeClock) -> None:
    first, second = wire(answer("one")), wire(answer("two", call="call_b"))
    source = Upstream(lambda _request, turn: cut(first, after) if turn == 1 else [b": again\n\n", *second])
    body = await told(relaying(source, clock, "openai"))
    # The id of a call that had begun stands; of one that had not it is the second answer's.
    expected = b"".join(wire(answer("one", call="call_a" if after > 7 else "call_b")))
    assert assemble(body, "openai") == assemble(expected, "openai")
    assert b'"two"' not in body
    assert body.count(b'"role"') == 1
    assert body.count(b"[DONE]") == 1
    assert body.startswith(b"".join(first[:after]))


@pytest.mark.parametrize("after", range(6, 13))
async def test_a_prefix_is_told_as_one_answer_with_one_usage(after: int, clock: FakeClock) -> None:
    source = Upstream(continuing(after, echo=after % 2 == 0, other=["No"]))
    body = await told(relaying(source, clock, "vllm", SEAMED), VLLM)
    ours = assemble(body, "vllm")
    assert ours.text == TEXT
    assert body.count(b'"role"') == 1
    assert b'"id2"' not in body
    assert b'"id3"' not in body
    assert ours.usage is not None
    assert ours.usage.total_tokens == (ours.usage.input_tokens or 0) + (ours.usage.output_tokens or 0)


async def test_an_exact_continuation_is_told_to_the_byte(clock: FakeClock) -> None:
    events = wire(answer(), ids=True, first=1)
    source = Upstream(
        lambda request, turn: cut(events, 4) if turn == 1 else events[int(request.headers["Last-Event-ID"]) :]
    )
    assert await told(relaying(source, clock, "openai")) == b"".join(events)
