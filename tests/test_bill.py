"""What a call is billed for, request by request, and to whom each share belongs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest

from holdfast._errors import ConnectError, StreamBroken, StreamError
from holdfast._pipe import Pipe
from holdfast._reader import Reader
from holdfast._types import Request
from holdfast.client import Client
from holdfast.layers.budget import Budget
from holdfast.layers.hedge import Hedge
from holdfast.layers.parse import parse_sse
from holdfast.layers.reconnect import Reconnect
from holdfast.layers.retry import Retry
from holdfast.layers.verify import verify
from holdfast.machines.ladder import Seams
from holdfast.moments import Billed
from holdfast.prices import Prices
from holdfast.telemetry.costs import OTHER, Costs
from holdfast.testing import FakeClock
from holdfast.upstreams import Upstream
from tests.puppet import Puppet, Script, Wait

URL = "https://api.deepseek.com/chat/completions"
WORDS = ("One ", "two ", "three ", "four ", "five.")
BODY = {"model": "deepseek-v4-pro", "messages": [{"role": "user", "content": "Count to five!"}]}
ASKED = Request(url=URL, body=BODY)


def chunk(text: str = "", end: str | None = None, usage: dict[str, Any] | None = None) -> bytes:
    told: dict[str, Any] = {"id": "1", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": end}]}
    return b"data: " + json.dumps(told | ({"usage": usage} if usage else {})).encode() + b"\n\n"


def usage(read: int, wrote: int, hit: int = 0) -> dict[str, Any]:
    total = {"prompt_tokens": read, "completion_tokens": wrote, "total_tokens": read + wrote}
    return total | {"prompt_cache_hit_tokens": hit}


def whole(words: Sequence[str] = WORDS, told: dict[str, Any] | None = None) -> list[bytes]:
    end = chunk(end="stop", usage=told if told is not None else usage(10, len(words), 4))
    return [*(chunk(word) for word in words), end, b"data: [DONE]\n\n"]


def cut(count: int) -> list[Any]:
    return [*whole()[:count], StreamBroken("reset")]


def pipe_over(puppet: Puppet, clock: FakeClock, *traffic: Any) -> Pipe[Any]:
    pipe: Pipe[Any] = Pipe(puppet, clock=clock) | parse_sse() | verify("deepseek")
    for layer in traffic:
        pipe |= layer
    return pipe | Retry() | Reconnect(seams=Seams(max_repaid_tokens=10_000))


async def read(reader: Reader[Any]) -> StreamError | None:
    try:
        async with reader as stream:
            async for _ in stream:
                pass
    except StreamError as error:
        return error
    return None


def told(reader: Reader[Any]) -> list[tuple[int, str, int | None, int | None, bool]]:
    report = reader.report
    assert report.billed_tokens == sum(bill.total_tokens for bill in report.bills)
    assert report.billed_estimated == any(bill.estimated for bill in report.bills)
    return [(one.attempt, one.part, one.input_tokens, one.output_tokens, one.estimated) for one in report.bills]


# -- who pays for what ---------------------------------------------------------------------------


async def test_one_request_is_billed_as_the_provider_told(clock: FakeClock) -> None:
    reader = pipe_over(Puppet(whole()), clock).stream(ASKED, labels={"team": "search"})
    assert await read(reader) is None
    (bill,) = reader.report.bills
    assert told(reader) == [(1, "answer", 10, 5, False)]
    assert (bill.model, bill.dialect, bill.upstream) == ("deepseek-v4-pro", "deepseek", "")
    assert (bill.total_tokens, bill.prompt_tokens, bill.cached_tokens, bill.labels) == (15, 10, 4, {"team": "search"})
    assert isinstance(bill.sent, datetime)
    assert Prices().cost(reader.report).amount == Decimal("0.000013948")  # 6 x 0.66 + 4 x 0.022 + 5 x 1.98


async def test_a_replay_pays_for_what_had_come_before_once_more(clock: FakeClock) -> None:
    reader = pipe_over(Puppet(cut(3), cut(4), whole()), clock).stream(ASKED)
    assert await read(reader) is None
    # The prompt of those that were cut is what the last one told; what they wrote is what arrived of them.
    assert told(reader) == [(1, "again", 10, 3, True), (2, "again", 10, 4, True), (3, "answer", 10, 5, False)]
    assert reader.report.usage is not None
    assert reader.report.billed_tokens == 13 + 14 + 15


async def test_a_replay_that_breaks_before_it_has_caught_up_pays_for_what_it_repeated(clock: FakeClock) -> None:
    reader = pipe_over(Puppet(cut(4), cut(2), whole()), clock).stream(ASKED)
    assert await read(reader) is None
    assert told(reader) == [(1, "again", 10, 4, True), (2, "again", 10, 2, True), (3, "answer", 10, 5, False)]


async def test_an_answer_that_never_was_is_no_bill(clock: FakeClock) -> None:
    reader = pipe_over(Puppet(StreamBroken("reset"), [StreamBroken("reset")], whole()), clock).stream(ASKED)
    assert await read(reader) is None
    assert told(reader) == [(3, "answer", 10, 5, False)]


async def test_a_stream_that_failed_is_billed_by_what_arrived(clock: FakeClock) -> None:
    failing: Pipe[Any] = Pipe(Puppet(cut(3)), clock=clock) | parse_sse() | verify("deepseek")
    reader = failing.stream(ASKED)
    assert isinstance(await read(reader), StreamBroken)
    assert told(reader) == [(1, "answer", 9, 3, True)]  # nobody told the prompt's tokens: 33 bytes of text


async def test_a_stream_that_was_left_is_billed_by_what_arrived(clock: FakeClock) -> None:
    reader = pipe_over(Puppet(whole()), clock).stream(ASKED)
    async with reader as stream:
        await anext(aiter(stream))
    assert told(reader) == [(1, "answer", 9, 1, True)]


async def test_an_answer_without_a_model_and_without_usage_is_no_models(clock: FakeClock) -> None:
    reader = pipe_over(Puppet(whole(told={})), clock).stream(Request(url=URL))
    assert await read(reader) is None
    assert (reader.report.bills, reader.report.billed_tokens, reader.report.billed_estimated) == ([], 0, False)


async def test_a_body_of_bytes_names_its_model_too(clock: FakeClock) -> None:
    reader = pipe_over(Puppet(whole()), clock).stream(Request(url=URL, body=json.dumps(BODY).encode()))
    assert await read(reader) is None
    assert [bill.model for bill in reader.report.bills] == ["deepseek-v4-pro"]


async def test_an_address_names_its_model(clock: FakeClock) -> None:
    url = "https://generativelanguage.googleapis.com/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse"
    told = {"promptTokenCount": 8, "candidatesTokenCount": 2, "thoughtsTokenCount": 3, "totalTokenCount": 13}
    part = {"content": {"parts": [{"text": "Hi"}]}, "finishReason": "STOP", "index": 0}
    event = b"data: " + json.dumps({"candidates": [part], "usageMetadata": told}).encode() + b"\r\n\r\n"
    pipe: Pipe[Any] = Pipe(Puppet([event]), clock=clock) | parse_sse() | verify("gemini")
    reader = pipe.stream(Request(url=url, body={"contents": []}))
    assert await read(reader) is None
    (bill,) = reader.report.bills
    assert (bill.model, bill.dialect, bill.output_tokens, bill.reasoning_tokens) == ("gemini-2.5-flash", "gemini", 5, 3)
    assert Prices().cost(reader.report).amount == Decimal("0.0000149")  # 8 x 0.30 + 5 x 2.50


async def test_what_is_no_text_is_not_read_as_one(clock: FakeClock) -> None:
    image = "data:image/png;base64," + "iVBORw0KGgo" * 10_000
    body = {"model": "deepseek-v4-pro", "messages": [{"role": "user", "content": [image, "数到五"]}]}
    failing: Pipe[Any] = Pipe(Puppet(cut(1)), clock=clock) | parse_sse() | verify("deepseek")
    reader = failing.stream(Request(url=URL, body=body))
    assert isinstance(await read(reader), StreamBroken)
    assert told(reader) == [(1, "answer", 7, 1, True)]


async def test_a_hedge_that_lost_is_shown_apart(clock: FakeClock) -> None:
    slow = Script(Wait(9.0), *whole())
    reader = pipe_over(Puppet(slow, whole()), clock, Hedge(delay=1.0, share=1.0)).stream(ASKED)
    assert await read(reader) is None
    assert told(reader) == [(1, "hedge", 10, 0, True), (2, "answer", 10, 5, False)]
    cost = Prices().cost(reader.report)
    assert (cost.hedge, cost.again) == (Decimal("0.0000066"), Decimal(0))
    assert cost.amount == cost.answer + cost.hedge


async def test_a_hedge_that_won_may_break_and_be_replayed(clock: FakeClock) -> None:
    slow = Script(Wait(9.0), *whole())
    puppet = Puppet(slow, cut(2), whole())
    reader = pipe_over(puppet, clock, Hedge(delay=1.0, share=1.0)).stream(ASKED)
    assert await read(reader) is None
    assert told(reader) == [(1, "hedge", 10, 0, True), (2, "again", 10, 2, True), (3, "answer", 10, 5, False)]


async def test_requests_that_go_on_at_a_cursor_are_one_bill(clock: FakeClock) -> None:
    numbered = [b"id: %d\n" % number + event for number, event in enumerate(whole())]
    broken = StreamBroken("reset")
    puppet = Puppet([*numbered[:2], broken], [broken], [*numbered[2:4], broken], numbered[4:])
    reader = pipe_over(puppet, clock).stream(ASKED)
    assert await read(reader) is None
    assert [seam.guarantee for seam in reader.report.seams] == ["exact", "exact"]
    assert told(reader) == [(4, "answer", 10, 5, False)]


async def test_each_upstream_is_billed_for_its_own_model_at_its_own_price(clock: FakeClock) -> None:
    upstreams = [
        Upstream("deepseek", api_key="one", name="first"),
        Upstream("openai", api_key="two", name="second", model="gpt-4.1"),
    ]
    puppet, budget = Puppet(ConnectError("refused"), cut(2), ConnectError("refused"), whole()), Budget(limit=1)
    client = Client(upstreams=upstreams, source=puppet, clock=clock, traffic=[budget])
    stream = client.stream(BODY)
    assert await read(stream) is None
    assert told(stream) == [(2, "again", 10, 2, True), (4, "answer", 10, 5, False)]
    assert {(bill.upstream, bill.dialect, bill.model) for bill in stream.report.bills} == {
        ("second", "openai", "gpt-4.1")
    }
    cost = Prices().cost(stream.report)
    # 10 x 2 + 2 x 8, and 6 x 2 + 4 x 0.50 + 5 x 8
    assert (cost.again, cost.answer, budget.spent()) == (Decimal("0.000036"), Decimal("0.000054"), cost.amount)


async def test_what_was_counted_before_a_cut_counts(clock: FakeClock) -> None:
    running = chunk("One two three ", usage=usage(12, 4))
    failing: Pipe[Any] = Pipe(Puppet([running, StreamBroken("reset")]), clock=clock) | parse_sse() | verify("deepseek")
    reader = failing.stream(ASKED)
    assert isinstance(await read(reader), StreamBroken)
    assert told(reader) == [(1, "answer", 12, 4, True)]


# -- sums ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", range(1, 6))
@pytest.mark.parametrize("second", range(1, 6))
async def test_whoever_adds_up_comes_to_the_same(first: int, second: int, clock: FakeClock) -> None:
    costs = Costs(labels=["team"])
    reader = pipe_over(Puppet(cut(first), cut(second), whole()), clock).stream(
        ASKED, labels={"team": "a"}, listeners=[costs]
    )
    assert await read(reader) is None
    told(reader)
    cost = Prices().cost(reader.report)
    assert costs.total == cost == costs.by_model["deepseek-v4-pro"] == costs.by_label["team"]["a"]
    answer = [bill for bill in reader.report.bills if bill.part == "answer"]
    assert reader.report.usage is not None
    assert sum(bill.total_tokens for bill in answer) == reader.report.usage.total_tokens == 15
    assert cost.estimated


async def test_costs_add_up_over_streams_by_model_and_by_label(clock: FakeClock) -> None:
    costs = Costs(labels=("team", "user"))
    for team, count in (("a", 2), ("b", 1)):
        for _ in range(count):
            reader = pipe_over(Puppet(whole()), clock).stream(ASKED, labels={"team": team}, listeners=[costs])
            assert await read(reader) is None
    one = Decimal("0.000013948")
    assert {name: cost.amount for name, cost in costs.by_label["team"].items()} == {"a": 2 * one, "b": one}
    assert costs.by_label["user"] == {}
    assert costs.total.amount == 3 * one
    assert str(costs) == "about 0.000041844 USD"  # at the beginning of 2026 nobody knows what it cost


def test_names_that_callers_make_up_do_not_fill_the_memory() -> None:
    costs = Costs(Prices().with_("m1", input="1", output="1"), labels=["user"], max_names=2)
    for number in range(100):
        costs(Billed(model=f"m{number}", input_tokens=10, output_tokens=0, labels={"user": f"{number}"}))
    costs(Billed(model="m1", input_tokens=10, output_tokens=0))
    assert costs.by_model["m1"].amount == Decimal("0.00002")  # who is known stays known
    assert set(costs.by_model) == {"m0", "m1", OTHER}
    assert set(costs.by_label["user"]) == {"0", "1", OTHER}
    assert costs.total.known == Decimal("0.00002")
    assert costs.total.amount is None
    assert len(costs.total.unknown) == 32
