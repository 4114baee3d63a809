"""verify("auto"): whose answer it is, told by the address or the first event, and said in the report."""

from __future__ import annotations

import pytest

from holdfast import (
    Client,
    MemorySource,
    NotAStream,
    Pipe,
    Reconnect,
    Request,
    UpstreamError,
    UsageError,
    assemble,
    parse_sse,
    verify,
)
from holdfast._errors import StreamBroken
from holdfast.testing import FakeClock

CHAT = b'data: {"choices":[{"delta":{"content":"hi"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
GROQ = CHAT.replace(b'{"choices"', b'{"x_groq":{"id":"r"},"choices"', 1)
PLAIN = b"event: output\ndata: hi\n\n"


@pytest.mark.parametrize(
    ("url", "body", "dialect", "by"),
    [
        ("https://api.deepseek.com/chat/completions", CHAT, "deepseek", "address"),
        ("https://example.test/v1/chat/completions", CHAT, "openai-compatible", "address"),
        ("https://example.test/any", CHAT, "openai-compatible", "events"),
        ("https://example.test/any", b": ping\n\n" + GROQ, "groq", "events"),
        ("https://example.test/any", PLAIN, "sse", "events"),
    ],
)
async def test_the_guess_is_in_the_report(url: str, body: bytes, dialect: str, by: str, clock: FakeClock) -> None:
    pipe = Pipe(MemorySource(body), clock=clock) | parse_sse() | verify("auto") | Reconnect()
    async with pipe.stream(Request(url=url, body={})) as deltas:
        text = [delta.text async for delta in deltas if delta.text]
    assert text == ["hi"]
    assert (deltas.report.dialect, deltas.report.dialect_known_by) == (dialect, by)
    assert deltas.partial.dialect == dialect
    assert deltas.report.outcome == "complete"


async def test_a_later_attempt_knows_what_the_first_one_learned(clock: FakeClock) -> None:
    cut = CHAT.replace(b'"finish_reason":"stop"', b'"finish_reason":null').partition(b"data: [DONE]")[0]
    pipe = Pipe(MemorySource([cut, StreamBroken("reset")]), clock=clock) | parse_sse() | verify("auto") | Reconnect()
    deltas = pipe.stream(Request(url="https://example.test/x", body={}))
    with pytest.raises(StreamBroken):
        await deltas
    assert deltas.report.attempts > 1
    assert deltas.report.dialect_known_by == "events"


def test_recorded_bytes_tell_whose_they_are() -> None:
    assert assemble(CHAT).text == "hi"
    with pytest.raises(UpstreamError) as raised:
        assemble(b'data: {"error":{"message":"busy"}}\n\n')
    assert raised.value.partial.dialect == "openai-compatible"
    with pytest.raises(NotAStream):
        assemble(b"<html>")


@pytest.mark.parametrize(
    ("base_url", "drawn"),
    [
        ("https://api.deepseek.com", "<Client deepseek https://api.deepseek.com/chat/completions>"),
        ("http://h/v1/chat/completions", "<Client openai-compatible http://h/v1/chat/completions>"),
    ],
)
def test_a_client_tells_the_dialect_by_its_address(base_url: str, drawn: str) -> None:
    assert repr(Client("auto", base_url=base_url, api_key="k")) == drawn


@pytest.mark.parametrize("base_url", [None, "http://localhost:8000"])
def test_a_client_that_cannot_tell_says_so(base_url: str | None) -> None:
    with pytest.raises(UsageError, match="name the dialect"):
        Client("auto", base_url=base_url)
