"""The promise end to end: an upstream that breaks, and a reader whose own connection is cut wherever chance says.

What the reader puts together, coming back with the id of the last event that it has whole, is an answer that the
upstream gave, or ends in a typed error behind a true beginning of one. Never a word missing, twice, or for ever.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast import parse_events
from holdfast.testing.chaos import ChaosServer, Mode
from holdfast.testing.faults import VOCABULARY, AnotherAnswer, EndlessLine, StallAtEnd, StallMidStream
from holdfast.testing.schedule import Schedule
from holdfast.testing.strategies import schedules
from tests.gateway.serving import serving, settings
from tests.properties.profile import DEEP, examples

QUESTION = "kelp"
BODY = {"model": "m", "messages": [{"role": "user", "content": QUESTION}], "stream": True}
MODES: tuple[Mode, ...] = ("no-ids", "divergent", "ids", "prefix")
SECONDS = 20.0
"""For one example: far more than any takes, and far less than for ever."""
_SLOW = ("holdfast.testing.faults.timing",)
FAULTS = [
    fault
    for fault in VOCABULARY
    if fault.evident
    and not isinstance(fault, AnotherAnswer | EndlessLine)
    and (type(fault).__module__ not in _SLOW or isinstance(fault, StallMidStream | StallAtEnd))
]


@dataclass(slots=True)
class Read:
    """What a reader has."""

    body: bytes = b""
    """Whole blocks alone."""
    status: int = 200
    refusal: dict[str, Any] = field(default_factory=dict)
    connections: int = 0
    clean: bool = False
    """The last connection ended as a whole answer's does."""

    @property
    def chunks(self) -> list[dict[str, Any]]:
        return [json.loads(event.data) for event in parse_events(self.body).events if event.data.startswith("{")]

    def said(self, *names: str) -> str:
        deltas = (choice["delta"] for chunk in self.chunks for choice in chunk.get("choices", ()))
        return "".join(delta.get(name) or "" for delta in deltas for name in names)

    @property
    def ids(self) -> list[str]:
        return [event.id for event in parse_events(self.body).events if event.id is not None]


async def read(url: str, cuts: Sequence[int], *, by_post: bool) -> Read:
    """Reads a stream to its end, however often it is cut: after so many bytes of each connection."""
    got, stream, place = Read(), "", ""
    async with aiohttp.ClientSession() as session:
        while True:
            most = cuts[got.connections] if got.connections < len(cuts) else 2**30
            got.connections += 1
            headers = {"Last-Event-ID": place} if place else {}
            if stream and not by_post:
                asking = session.get(f"{url}/v1/streams/{stream}", headers=headers)
            else:
                more = {} if place else {"Idempotency-Key": "one"}  # of an answer it has nothing of yet
                asking = session.post(f"{url}/v1/chat/completions", json=BODY, headers={**headers, **more})
            async with asking as response:
                if response.status != 200:
                    got.status = response.status
                    if response.status != 204:
                        got.refusal = json.loads(await response.read())
                    return got
                stream = response.headers["X-Holdfast-Stream"]
                body, got.clean = await _some(response, most)
            got.body += body[: _whole(body)]
            place = ids[-1] if (ids := got.ids) else ""
            if got.clean or got.connections > len(cuts) + 2:
                return got


async def _some(response: aiohttp.ClientResponse, most: int) -> tuple[bytes, bool]:
    body = bytearray()
    try:
        while len(body) < most:
            data = await response.content.read(most - len(body))
            if not data:
                return bytes(body), True
            body += data
    except aiohttp.ClientError:
        pass
    response.close()
    return bytes(body), False


def _whole(body: bytes) -> int:
    """Says how many bytes are whole blocks. What a record has is cut at its id, which is the last of its lines."""
    return max((body.rfind(end) + len(end) for end in (b"\n\n", b"\r\n\r\n", b"\r\r") if end in body), default=0)


async def play(schedule: Schedule, mode: Mode, seed: int, cuts: Sequence[int], *, by_post: bool) -> None:
    upstream = ChaosServer(schedule=schedule, mode=mode, seed=seed, sentences=2, patience=0.02)
    async with asyncio.timeout(SECONDS), upstream, serving(settings(upstream.url)) as served:
        got = await read(served.url, cuts, by_post=by_post)
        truths = [(answer.reasoning, answer.text) for answer in upstream.answers(QUESTION)]
        thought, text = got.said("reasoning_content", "reasoning"), got.said("content")
        numbers = [int(one.rpartition("-")[2]) for one in got.ids]
        assert numbers == sorted(set(numbers))
        failed = [chunk["error"] for chunk in got.chunks if "error" in chunk]
        if got.clean and not failed:
            assert (thought, text) in truths
            return
        assert any(whole[0].startswith(thought) and whole[1].startswith(text) for whole in truths) or not text
        told = failed[-1] if failed else got.refusal["error"]
        assert told["code"]
        assert told["message"]
        assert not failed or got.chunks[-1] == {"error": told}
        assert got.connections <= len(cuts) + 2


@pytest.mark.timeout(0 if DEEP else 60)
@examples(60)
@given(
    schedules(FAULTS, within=40),
    st.sampled_from(MODES),
    st.integers(0, 3),
    st.lists(st.integers(0, 6000), max_size=4),
    st.sampled_from(("get", "post")),
)
def test_what_a_reader_puts_together_is_exact_or_ends_in_a_typed_error(
    schedule: Schedule, mode: Mode, seed: int, cuts: list[int], how: str
) -> None:
    asyncio.run(play(schedule, mode, seed, cuts, by_post=how == "post"))
