"""Recorded bytes to what they say, without any I/O: the same machines, the same errors."""

from __future__ import annotations

import pytest

from holdfast._errors import DecodeError, Truncated, UpstreamError, UsageError
from holdfast.offline import assemble, parse_events
from tests.cuts import cuttings

STREAM = (
    b'data: {"choices":[{"delta":{"content":"H\xc3\xb6"}}]}\n\n'
    b'data: {"choices":[{"delta":{},"finish_reason":"stop"}],"usage":{"total_tokens":3}}\n\n'
    b"data: [DONE]\n\n"
)


def test_an_answer_is_put_together_however_it_is_cut() -> None:
    for chunks in cuttings(STREAM):
        answer = assemble(chunks)
        assert (answer.text, answer.finish_reason, str(answer.verdict)) == ("Hö", "stop", "COMPLETE")
        assert answer.usage is not None
        assert answer.usage.total_tokens == 3
    assert assemble(bytearray(STREAM)).text == "Hö"
    assert assemble(memoryview(STREAM)).text == "Hö"
    assert assemble(iter([STREAM]), "openai").text == "Hö"


def test_what_arrived_before_a_failure_is_on_the_error() -> None:
    half = STREAM[: STREAM.index(b"data", 5)]
    for tail, kind in (
        (b"", Truncated),
        (b"data: {\n\n", DecodeError),
        (b'data: {"error":{"message":"no"}}\n\n', UpstreamError),
        (b"x" * 9_000_000, DecodeError),
    ):
        for chunks in ([half + tail], [half, tail]):
            with pytest.raises(kind) as raised:
                assemble(chunks, "openai")
            assert raised.value.partial is not None
            assert raised.value.partial.text == "Hö"
            assert raised.value.partial.dialect == "openai"


def test_what_follows_a_proven_end_does_not_count() -> None:
    assert assemble(STREAM + b"x" * 9_000_000).text == "Hö"
    assert assemble([STREAM, b"data: {\n\n"]).text == "Hö"


def test_an_unknown_dialect_is_named() -> None:
    with pytest.raises(UsageError, match="opnai"):
        assemble(STREAM, "opnai")


def test_events_are_parsed_however_they_are_cut() -> None:
    data = b"\xef\xbb\xbfretry: 1500\nid: 1\nevent: ping\ndata: a\r\ndata: b\r\n\r\n: c\n\nid: 2\n\ndata: rest"
    for chunks in cuttings(data):
        log = parse_events(chunks)
        assert [(e.type, e.data, e.last_event_id) for e in log.events] == [("ping", "a\nb", "1")]
        assert (log.last_event_id, log.retry) == ("2", 1.5)
    assert parse_events(data).events == parse_events([data]).events
    assert parse_events(b"").retry is None


def test_a_limit_that_is_passed_is_an_error() -> None:
    with pytest.raises(DecodeError, match="max_line"):
        parse_events(b"x" * 9_000_000)
