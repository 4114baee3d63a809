"""A line that ends between the finish reason and the usage: the answer is whole, and that its count is lost is said."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast import Pipe, Reconnect, Request, parse_sse, verify
from holdfast._errors import StreamBroken
from holdfast.moments import Moment, Outlived
from holdfast.testing import FakeClock
from tests.puppet import Puppet, Script

PIECE = b'data: {"id":"1","choices":[{"index":0,"delta":{"content":"kelp"},"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"id":"1","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":1,"total_tokens":6}}\n\n'
DONE = b"data: [DONE]\n\n"
ASKED: dict[str, Any] = {"model": "m", "stream_options": {"include_usage": True}}


async def told(clock: FakeClock, body: dict[str, Any], *steps: Any) -> tuple[Any, list[Moment]]:
    puppet, moments = Puppet(Script(*steps)), list[Moment]()
    pipe = Pipe(puppet, clock=clock, listeners=[moments.append]) | parse_sse() | verify("openai") | Reconnect()
    stream = pipe.stream(Request(url="http://a.test/v1/chat/completions", body=body))
    assert (await stream).text == "kelp"
    assert puppet.opens == 1, "no second answer is bought for a count"
    return stream.report, moments


@pytest.mark.parametrize("end", [(), (StreamBroken("reset"),)], ids=["a clean end", "a reset"])
async def test_that_the_usage_was_lost_is_told(clock: FakeClock, end: tuple[Any, ...]) -> None:
    report, moments = await told(clock, ASKED, PIECE, *end)
    assert (report.outcome, report.usage, report.usage_lost) == ("complete", None, True)
    assert str(report).endswith("its usage was lost")
    [outlived] = [moment for moment in moments if isinstance(moment, Outlived)]
    assert report.faults == [outlived.error]


@pytest.mark.parametrize(
    ("body", "steps"),
    [
        (ASKED, (PIECE, USAGE, DONE)),
        (ASKED, (PIECE, USAGE)),
        (ASKED, (PIECE, DONE)),  # a server that knows no usage
        ({"model": "m"}, (PIECE,)),
    ],
    ids=["all came", "no mark", "no usage at all", "not asked for"],
)
async def test_what_was_not_lost_is_not_missed(
    clock: FakeClock, body: dict[str, Any], steps: tuple[bytes, ...]
) -> None:
    report, _ = await told(clock, body, *steps)
    assert (report.usage_lost, report.faults) == (False, [])
    assert "lost" not in str(report)
