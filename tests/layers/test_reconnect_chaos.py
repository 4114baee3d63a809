"""Reconnect before servers that misbehave at random: what is heard is one answer, whole, or its beginning and an error.

A server may be cut anywhere, repeat events, honour Last-Event-ID exactly or from a checkpoint, ignore it, or begin
another answer. Each scenario is drawn from its number, so a failure comes again.
"""

from __future__ import annotations

from random import Random

import pytest

from holdfast._errors import StreamBroken
from holdfast._types import Request
from holdfast.testing import FakeClock
from tests.layers.test_reconnect import REQUEST, answer, pieces, pipe_over, read, whole
from tests.puppet import Puppet, PuppetStream, Script

STYLES = ("none", "each", "checkpoint", "shared", "block")
EVERY = 3


class Chaos(Puppet):
    """`style` says which events bear ids; `apart`: the other answer has ids of its own, else it looks like ours."""

    def __init__(self, random: Random, ours: list[str], other: list[str]) -> None:
        super().__init__()
        self.random = random
        self.answers = {"": ours, "z": other}
        self.style = random.choice(STYLES)
        self.apart = random.random() < 0.5
        self.amnesia = False  # our ids could now mean either answer, so a sane server honours none of them

    async def open(self, request: Request) -> PuppetStream:
        random, last = self.random, request.headers.get("Last-Event-ID")
        if last is not None and not self.amnesia and random.random() < 0.7:
            which = "z" if last.startswith("z") else ""
            begin = self.resume(int(last.removeprefix("z")))
            prefix = which
        else:
            which, begin = ("", 0) if not self.opens or random.random() < 0.7 else ("z", 0)
            prefix = which if self.apart else ""
            self.amnesia = self.amnesia or which != prefix
        events = [self.event(n, payload, prefix) for n, payload in enumerate(self.answers[which])][begin:]
        if self.style == "each" and random.random() < 0.3:
            events = [event for event in events for _ in range(random.choice((1, 1, 2)))]
        body, ends = b"".join(events), []
        if self.opens < 6 and random.random() < 0.75:
            body, ends = body[: random.randrange(len(body) + 1)], [StreamBroken("reset")]
        size = random.choice((5, 50, len(body) + 1))
        self.scripts.append(Script(*(body[at : at + size] for at in range(0, len(body), size)), *ends))
        return await super().open(request)

    def event(self, number: int, payload: str, prefix: str) -> bytes:
        head = {
            "each": f"id: {prefix}{number}\n",
            "checkpoint": f"id: {prefix}{number}\n" if number % EVERY == 0 else "",
            "shared": f"id: {prefix}{number // EVERY}\n",
            "block": f"id: {prefix}{number}\n\n" if number % EVERY == 0 else "",
        }.get(self.style, "")
        return f"{head}data: {payload}\n\n".encode()

    def resume(self, last: int) -> int:
        """Gives the first event that a server with these ids may send after `last`, some of them again."""
        back = self.random.choice((0, 0, 0, 1, 2))
        return max(
            0, {"each": last + 1 - back, "checkpoint": last + back % 2, "shared": EVERY * last}.get(self.style, last)
        )


async def scenario(seed: int, clock: FakeClock) -> bool:
    """Plays one; says whether it ended exact."""
    random = Random(seed)
    words = [random.choice(["ha", "ho", "a ", "b"]) for _ in range(random.randrange(1, 9))]
    others = list(words)
    others[random.randrange(len(words))] += "X"
    id_ = random.choice(["one", "two"])
    ours, other = answer("one", words), answer(id_, others, call="call_b")
    if random.random() < 0.5:  # a server that gives its answers no id
        ours, other = ([p.replace('"id":"one",', "").replace('"id":"two",', "") for p in a] for a in (ours, other))
    server = Chaos(random, ours, other)
    got, error = await read(pipe_over(server, clock, max_barren=8).stream(REQUEST))
    said = [p for p in pieces(got) if p[0] != "usage"]
    wholes = [[p for p in await whole(a, clock) if p[0] != "usage"] for a in (ours, other)]
    assert any(said == w[: len(said)] for w in wholes), f"seed {seed}: a mixture: {said}"
    assert error is not None or said in wholes, f"seed {seed}: an end that is none: {said}"
    assert sum(d.usage is not None for d in got) <= 1
    assert not server.live
    return error is None


@pytest.mark.parametrize("seed", range(0, 500, 50))
async def test_whatever_a_server_does_nothing_is_heard_twice_or_mixed(seed: int, clock: FakeClock) -> None:
    exact = [await scenario(number, clock) for number in range(seed, seed + 50)]
    assert sum(exact) > len(exact) // 2
