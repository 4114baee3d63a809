"""Who reads what: bytes that some clients die on are theirs alone to have changed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast import parse_events
from holdfast.gateway.reading import HEARTBEAT
from holdfast.gateway.records import new_stream, record
from holdfast.gateway.rewriting import rewriting_for
from holdfast.gateway.surfaces import CHAT, GEMINI, MESSAGES, RESPONSES, Surface
from tests.properties.profile import examples

STREAM = new_stream()
PYTHON = {"X-Stainless-Lang": "python", "User-Agent": "AsyncOpenAI/Python 3.54.0"}
CLAUDE = {"X-Stainless-Lang": "python", "User-Agent": "Mine/1", "anthropic-version": "2023-06-01"}
GOOGLE = {"User-Agent": "google-genai-sdk/3.4.0 gl-python/3.11"}
HTTPX = {"User-Agent": "python-httpx/0.28.1"}
JSON = b'data: {"a":1}\n\n'
NAMED = b'event: content_block_delta\ndata: {"type":"content_block_delta"}\n\n'


def told(headers: dict[str, str], surface: Surface, *blocks: bytes) -> bytes:
    """Gives what a client is sent of blocks, without our own ids."""
    rewriting = rewriting_for(headers, surface)
    records = b"".join(record(STREAM, number, block) for number, block in enumerate(blocks, 1))
    out = records if rewriting is None else rewriting(records)
    return b"".join(line for line in out.splitlines(keepends=True) if not line.startswith(b"id: " + STREAM.encode()))


@pytest.mark.parametrize(
    ("headers", "surface", "block", "becomes"),
    [
        (PYTHON, CHAT, b": ping\n\n", b": ping\n"),
        (PYTHON, CHAT, b"retry: 9\n\n", b"retry: 9\n"),
        (PYTHON, CHAT, b"data:\n\n", b""),
        (PYTHON, RESPONSES, b": ping\n\n", b": ping\n"),
        (PYTHON | {"User-Agent": "litellm/1.106"}, CHAT, b'data: {"a":\ndata: 1}\n\n', b'data: {"a": 1}\n\n'),
        (CLAUDE, MESSAGES, b'data: {"type":"ping"}\n\n', b'event: ping\ndata: {"type":"ping"}\n\n'),
        (CLAUDE, MESSAGES, b": ping\n\n", b": ping\n\n"),
        (GOOGLE, GEMINI, b": ping\n\n", b""),
        (GOOGLE, GEMINI, b'data: {"a":1}\r\n\r\n', b'data: {"a":1}\n\n'),
        (GOOGLE, GEMINI, b'event: x\ndata:{"a":1}\n\n', b'data: {"a":1}\n\n'),
        (HTTPX, CHAT, b'data: {"a":\ndata: 1}\n\n', b'data: {"a": 1}\n\n'),
        (HTTPX, CHAT, 'data: {"a":"\u2028"}\n\n'.encode(), b'data: {"a":"\\u2028"}\n\n'),
    ],
)
def test_what_a_client_dies_on_is_put_into_what_it_reads(
    headers: dict[str, str], surface: Surface, block: bytes, becomes: bytes
) -> None:
    assert told(headers, surface, JSON, block, JSON) == JSON + becomes + JSON
    for anybody in ({}, {"User-Agent": "OpenAI/JS 6.30.1", "X-Stainless-Lang": "js"}, {"User-Agent": "curl/8"}):
        assert told(anybody, surface, JSON, block, JSON) == JSON + block + JSON


@pytest.mark.parametrize("headers", [PYTHON, HTTPX, {}])
def test_healthy_bytes_stay_as_they_are(headers: dict[str, str]) -> None:
    blocks = (JSON, NAMED, JSON, b"data: [DONE]\n\n")
    assert told(headers, CHAT, *blocks) == b"".join(blocks)


def test_a_heartbeat_is_what_the_client_can_read() -> None:
    google, python = rewriting_for(GOOGLE, GEMINI), rewriting_for(PYTHON, CHAT)
    assert google is not None
    assert python is not None
    assert (google(HEARTBEAT), python(HEARTBEAT)) == (b"\n", HEARTBEAT)


BLOCKS = st.sampled_from(
    [
        JSON,
        NAMED,
        b": ping\n\n",
        b"data: [DONE]\n\n",
        b'data:{"b":2}\r\n\r\n',
        b"retry: 1\n\n",
        b'data: {"c":\ndata: 3}\n\n',
    ]
)


@examples(60)
@given(st.lists(BLOCKS, max_size=8), st.sampled_from([PYTHON, HTTPX, GOOGLE]), st.integers(1, 3))
def test_a_client_reads_the_same_events_however_they_come_together(
    blocks: list[bytes], headers: dict[str, str], size: int
) -> None:
    rewriting = rewriting_for(headers, GEMINI if headers is GOOGLE else CHAT)
    assert rewriting is not None
    records = [record(STREAM, number, block) for number, block in enumerate(blocks, 1)]
    got = b"".join(rewriting(b"".join(records[at : at + size])) for at in range(0, len(records), size))
    want, have = parse_events(b"".join(records)).events, parse_events(got).events
    assert [event.data.split() for event in have] == [event.data.split() for event in want]
    if headers is GOOGLE:
        assert all(not line or line.startswith(b"data: ") for line in got.split(b"\n"))
    else:
        assert [event.id for event in have] == [event.id for event in want]
