"""A provider that quotes the key in its error's code or type: it reaches no text, no log line and no recording."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest

import holdfast
from holdfast import MemorySource, Pipe, Request, StatusError, UpstreamError, parse_sse, verify
from holdfast._types import Head
from holdfast.testing import FakeClock
from tests.puppet import Puppet

KEY = "zzz-SECRETKEY-1234567890"
ERROR = {"error": {"message": f"Incorrect API key provided: {KEY}", "code": KEY, "type": f"x{KEY}"}}
BEGUN = b'data: {"id":"1","choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'
BEARERS: list[dict[str, Any]] = [
    {"url": "https://a.test/v1/chat/completions", "headers": {"Authorization": f"Bearer {KEY}"}},
    {"url": f"https://a.test/v1/chat/completions?key={KEY}"},
]


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    lines = io.StringIO()
    holdfast.configure_logs(lines, level="debug", json=True)
    yield lines
    holdfast.configure_logs(level=None)


@pytest.mark.parametrize("dialect", ["openai", "auto"])
@pytest.mark.parametrize("bearer", BEARERS, ids=["header", "query"])
async def test_an_error_in_the_stream_quotes_no_key(
    bearer: dict[str, Any], dialect: str, clock: FakeClock, log: io.StringIO
) -> None:
    body = BEGUN + b"data: " + json.dumps(ERROR).encode() + b"\n\n"
    with pytest.raises(UpstreamError) as raised:
        await (Pipe(MemorySource(body), clock=clock) | parse_sse() | verify(dialect)).stream(Request(**bearer, body={}))
    error = raised.value
    assert (error.code, error.type) == ("[redacted]", "x[redacted]")
    assert KEY in error.message, "the provider's words are as they came, where they are asked for"
    assert KEY not in f"{error!s} {error!r} {error.report} {error.report!r} {log.getvalue()}"
    assert "[redacted]" in str(error)


@pytest.mark.parametrize("bearer", BEARERS, ids=["header", "query"])
async def test_a_refusal_quotes_no_key(bearer: dict[str, Any], clock: FakeClock, log: io.StringIO) -> None:
    refused = StatusError("the server answered 401", head=Head(status=401), body=json.dumps(ERROR).encode())
    with pytest.raises(StatusError) as raised:
        await (Pipe(Puppet(refused), clock=clock) | parse_sse() | verify("openai")).stream(Request(**bearer, body={}))
    error = raised.value
    assert (error.code, error.type) == ("[redacted]", "x[redacted]")
    assert KEY not in f"{error!s} {error.report!r} {log.getvalue()}"
