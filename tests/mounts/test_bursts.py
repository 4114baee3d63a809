"""What blocking clients get of a burst: all that is there at once, and never a wait for what is not."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
import requests

from holdfast import mounts
from holdfast.mounts._blocking import bursts
from holdfast.testing.background import in_background
from holdfast.testing.server import LAST_CHUNK, STREAM_HEAD, Pause, ScriptedServer, Send, Step, chunked
from tests.mounts.shop import BODY, CHAT, EVENTS, WIRE, Nought

BURST = b"".join(chunked(event) for event in EVENTS[:4])
LATE = chunked(EVENTS[4])


def by_httpx(url: str) -> Iterator[bytes]:
    with (
        mounts.httpx2_sync_client(trust_env=False, verify=False, random=Nought()) as client,
        client.stream("POST", url, json=BODY) as response,
    ):
        yield from response.iter_raw()


def by_requests(url: str) -> Iterator[bytes]:
    session = requests.Session()
    session.trust_env = False
    session.mount("http://", mounts.RequestsAdapter(random=Nought()))
    with session, session.post(url, data=json.dumps(BODY), stream=True) as response:
        yield from response.iter_content(None)


def by_transport(url: str) -> Iterator[bytes]:
    inner = httpx2.HTTPTransport(trust_env=False, verify=False)
    with (
        httpx2.Client(transport=mounts.Httpx2SyncTransport(inner, random=Nought()), timeout=5) as client,
        client.stream("POST", url, json=BODY) as response,
    ):
        yield from response.iter_raw()


@pytest.mark.parametrize("read", [by_httpx, by_requests])
@pytest.mark.parametrize(
    "cut", [0, 1, 3, LATE.index(b"\r\n") + 2, LATE.index(b"\r\n") + 3, len(LATE) - 3, len(LATE) - 1]
)
def test_a_burst_is_read_at_once_and_the_rest_of_a_chunk_is_not_waited_for(read: Any, cut: int) -> None:
    steps: list[Step] = [Send(STREAM_HEAD), Pause(0.05), Send(BURST + LATE[:cut]), Pause(0.3), Send(LATE[cut:])]
    steps += [Send(chunked(event)) for event in EVENTS[5:]]
    with in_background(ScriptedServer([[*steps, Send(LAST_CHUNK)]])) as server:
        begun = time.monotonic()
        told = [(piece, time.monotonic() - begun) for piece in read(f"{server.url}{CHAT}")]
    assert b"".join(piece for piece, _ in told) == WIRE
    if read is by_httpx or cut != len(LATE) - 1:  # whose chunk ends is whole to its reader
        assert told[0][0].startswith(b"".join(EVENTS[:4]))
    assert told[-1][1] - told[0][1] > 0.15


@pytest.mark.parametrize("read", [by_httpx, by_requests, by_transport])
def test_any_cut_of_the_wire_gives_the_same(read: Any) -> None:
    wire = b"".join(chunked(event) for event in EVENTS) + LAST_CHUNK
    for size in (1, 7, 100, 333):
        parts: list[Step] = [Send(wire[place : place + size]) for place in range(0, len(wire), size)]
        with in_background(ScriptedServer([[Send(STREAM_HEAD), *parts]])) as server:
            assert b"".join(read(f"{server.url}{CHAT}")) == WIRE


def test_a_failure_comes_after_what_had_arrived_before_it() -> None:
    told: list[bytes | Exception] = [b"a", b"b", OSError("torn"), b""]

    def read() -> bytes:
        one = told.pop(0)
        if isinstance(one, Exception):
            raise one
        return one

    read_all = bursts(read, lambda _: True)
    assert read_all() == b"ab"
    with pytest.raises(OSError, match="torn"):
        read_all()
    assert not read_all()
