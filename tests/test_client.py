"""The facade's door: what it refuses, and in which words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from holdfast import (
    AiohttpSource,
    Client,
    MemorySource,
    Pipe,
    Reconnect,
    Retry,
    Seams,
    Timeouts,
    UsageError,
    parse_sse,
    verify,
)

SAID = b'data: {"choices":[{"delta":{"content":"hi"},"finish_reason":"stop"}]}\n\n'


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"dialect": "depseek"}, "no dialect is called 'depseek'; there are deepseek"),
        ({"dialect": "openai-compatible"}, "needs a base_url="),
        ({"api_key": "sk-1\n"}, "without blanks or line ends"),
        ({"base_url": "localhost:8000"}, "must be http:// or https://"),
        ({"base_url": "http://user:pw@host/v1"}, "holds a user or a password"),
        ({"timeouts": 30}, r"takes Timeouts\(open="),
        ({"headers": {"X-N": 1}}, "'X-N' is int"),
        ({"timeouts": Timeouts(total=1), "layers": []}, "give Deadline its own"),
    ],
)
def test_a_client_says_what_is_wrong_where_it_is_made(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Client(**{"api_key": "sk-1", **settings})


def test_a_missing_key_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEEPSEEK_API_KEY", raising=False)
    with pytest.raises(UsageError, match="DEEPSEEK_API_KEY"):
        Client("deepseek")


def test_the_path_comes_before_the_query_of_a_base_url_and_no_secret_is_shown() -> None:
    client = Client("openai", api_key="sk-1", base_url="https://host/v1/?api-version=3&key=secret")
    assert repr(client) == "<Client openai https://host/v1/chat/completions>"


def test_a_time_that_is_no_number_is_named() -> None:
    with pytest.raises(ValueError, match=r"Timeouts\(open=...\) must be above 0 seconds or None, not '1'"):
        Timeouts(open="1")  # type: ignore[arg-type]  # the mistake


async def test_a_request_that_is_no_mapping_is_refused() -> None:
    async with Client("deepseek", api_key="sk-1") as client:
        with pytest.raises(UsageError, match="not str"):
            client.stream("hello")  # type: ignore[arg-type]  # the mistake


def test_a_pipe_in_an_order_that_cannot_work_is_refused_when_it_is_built() -> None:
    with pytest.raises(UsageError, match=r"verify\('deepseek'\) takes Event and gets bytes here"):
        Pipe(AiohttpSource()) | verify("deepseek")  # type: ignore[operator]  # the mistake
    with pytest.raises(UsageError, match=r"parse_sse\(\) takes bytes and gets Delta here"):
        Pipe(AiohttpSource()) | parse_sse() | Retry() | verify("deepseek") | parse_sse()  # type: ignore[operator]


def test_what_is_no_source_no_layer_and_no_request_is_named() -> None:
    anything: Any = Pipe
    with pytest.raises(UsageError, match="a pipe begins with a source"):
        anything(AiohttpSource)
    with pytest.raises(UsageError, match="3 is no layer"):
        anything(AiohttpSource()) | 3
    with pytest.raises(UsageError, match=r"a pipe streams a Request\(url"):
        anything(AiohttpSource()).stream({"messages": []})


async def test_layers_that_judge_nothing_give_no_completion() -> None:
    source = MemorySource(SAID)
    async with Client("deepseek", source=source, layers=[Retry(), parse_sse()]) as client:
        with pytest.raises(UsageError, match=r"put verify\(\) into its layers"):
            await client.complete({"messages": []})


async def test_the_dialect_is_known_from_the_start() -> None:
    async with Client("deepseek", source=MemorySource(SAID)) as client, client.stream({"messages": []}) as deltas:
        assert deltas.report.dialect == "deepseek"
        assert "".join([text async for text in deltas.text()]) == "hi"


def test_a_pipe_is_drawn_with_the_settings_that_are_set() -> None:
    drawn = str(Pipe(AiohttpSource()) | parse_sse() | verify("deepseek") | Reconnect(seams=Seams(max_seams=3)))
    assert "| verify('deepseek')\n" in drawn
    assert "max_seams=3" in drawn
    assert "None" not in drawn


def body_of(client: Client, request: Mapping[str, Any]) -> Any:
    return client.stream(request)._request.body


async def test_a_request_asks_for_a_stream_and_its_usage() -> None:
    async with Client("deepseek", api_key="sk-1") as client:
        asked = body_of(client, {"messages": []})
    assert asked == {
        "messages": [],
        "model": "deepseek-flash",
        "stream": True,
        "stream_options": {"include_usage": True},
    }
