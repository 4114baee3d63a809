"""The facade's door: what it refuses, and in which words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from holdfast import (
    AiohttpSource,
    AutoContinue,
    Client,
    Completion,
    MemorySource,
    Partial,
    Pipe,
    Reconnect,
    Retry,
    Seams,
    Source,
    Timeouts,
    UsageError,
    parse_sse,
    verify,
)

SAID = b'data: {"choices":[{"delta":{"content":"hi"},"finish_reason":"stop"}]}\n\n'


NO_SEAMS = ("no", "yes", "prefix", 1, 0, None, ("prefix",), {"rungs": ("prefix",)}, Seams)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"dialect": "depseek"}, r"no dialect is called 'depseek' \(did you mean 'deepseek'\?\); there are deepseek"),
        ({"dialect": "openai-compatible"}, "needs a base_url="),
        ({"api_key": "sk-1\n"}, "without blanks or line ends"),
        ({"base_url": "localhost:8000"}, "must be http:// or https://"),
        ({"base_url": "http://user:pw@host/v1"}, "holds a user or a password"),
        ({"timeouts": 30}, r"takes Timeouts\(open="),
        ({"headers": {"X-N": 1}}, "'X-N' is int"),
        ({"timeouts": Timeouts(total=1), "layers": []}, "give Deadline its own"),
        *(({"seams": wrong}, r"seams= takes True, False or Seams\(...\), not ") for wrong in NO_SEAMS),
        ({"seams": "no"}, "not 'no'"),
        *(({"schema": wrong}, "schema= takes True, False or a mapping, not ") for wrong in ("yes", 1, None)),
        ({"auto_continue": "yes"}, r"auto_continue= takes True, False or AutoContinue\(...\), not 'yes'"),
        ({"dialect": None}, "takes a name or a Dialect, not None"),
        ({"dialect": 3}, "takes a name or a Dialect, not 3"),
        ({"api_key": b"abc"}, "api_key= takes a string, not bytes"),
        ({"base_url": 5}, "base_url= takes a string, not 5"),
        ({"base_url": "http://[::1"}, r"base_url= must be .* not 'http://\[::1'"),
        ({"base_url": "http://host:port"}, "base_url= must be http:// or https://"),
        ({"base_url": ""}, "base_url= must be .* not ''"),
        ({"dialect": "auto", "base_url": ""}, "base_url= must be .* not ''"),
        ({"session": "s"}, "session= takes an aiohttp.ClientSession, not 's'"),
        ({"clock": 3}, r"clock= takes something that has now\(\), and 3 has none"),
        ({"random": 3}, r"random= takes something that has random\(\), and 3 has none"),
        ({"listeners": 3}, "listeners= takes functions, in a list or tuple, not 3"),
        ({"listeners": [3]}, "listeners= takes functions, in a list or tuple, not 3"),
        ({"layers": 3}, "layers= takes a sequence of layers, not 3"),
        ({"headers": ["a"]}, "headers= takes a mapping of strings, not list"),
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
    with pytest.raises(ValueError, match=r"Timeouts\(open=...\) must be a number of seconds above 0 or None, not '1'"):
        Timeouts(open="1")  # type: ignore[arg-type]  # the mistake


@pytest.mark.parametrize("wrong", ["8", True, 2.0, 0, None])
def test_a_number_of_requests_that_is_none_is_named(wrong: Any) -> None:
    with pytest.raises(ValueError, match=f"max_requests must be a whole number from 1, not {wrong!r}"):
        Client("deepseek", api_key="sk-1", max_requests=wrong)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("deepsek", "deepseek"),
        ("OpenAI", "openai"),
        ("llamacpp", "llama.cpp"),
        ("claude", "anthropic"),
        ("gtp", "openai"),
        ("Auto", "auto"),
    ],
)
def test_the_nearest_dialect_is_suggested_and_not_taken(said: str, meant: str) -> None:
    with pytest.raises(UsageError, match=rf"no dialect is called '{said}' \(did you mean '{meant}'\?\)"):
        Client(said, api_key="sk-1")


def test_a_name_that_is_near_to_none_is_listed_only() -> None:
    with pytest.raises(UsageError, match="no dialect is called 'xyzzy'; there are deepseek"):
        Client("xyzzy")


@pytest.mark.parametrize(("given", "times"), [(True, 3), (False, None), (AutoContinue(times=5), 5)])
def test_true_asks_on_as_often_as_by_default(given: Any, times: int | None) -> None:
    drawn = str(Client("deepseek", api_key="sk-1", auto_continue=given).pipe)
    assert ("AutoContinue" in drawn) is (times is not None)
    assert f"times={times}" in drawn or times is None


PARTIAL = Partial(dialect="deepseek", url="https://api.deepseek.com/chat/completions", request={"messages": []})


@pytest.mark.parametrize("wrong", [None, "{}", b"{}", {}, 3, PARTIAL.to_json(), Completion(), Partial], ids=type)
def test_only_a_partial_is_resumed(wrong: Any) -> None:
    client = Client("deepseek", api_key="sk-1")
    with pytest.raises(
        UsageError, match=r"resume\(\) takes a Partial.*Partial.from_json\(...\) makes one of saved bytes"
    ):
        client.resume(wrong)
    if wrong is not None:
        with pytest.raises(UsageError, match=r"stream\(resume=...\) takes a Partial"):
            client.pipe.stream(resume=wrong)


@pytest.mark.parametrize("wrong", ["", "not json", None, 5, "{}", b"[]", b"\xff", '{"dialect": 3}', {}])
def test_what_was_no_partial_is_a_value_error_in_our_words(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"Partial.from_json\(\) takes what to_json\(\) gave") as raised:
        Partial.from_json(wrong)
    assert type(raised.value) is ValueError
    assert Partial.from_json(PARTIAL.to_json()) == PARTIAL


@pytest.mark.parametrize(
    ("asking", "words"),
    [
        ({"headers": ["a"]}, "headers= takes a mapping of strings, not list"),
        ({"headers": {"X-N": 1}}, "'X-N' is int"),
        ({"labels": "a"}, "labels= takes a mapping of strings, not str"),
        ({"timeouts": "30"}, r"timeouts= takes Timeouts\(open="),
    ],
)
def test_a_call_says_what_is_wrong_before_it_is_made(asking: dict[str, Any], words: str) -> None:
    client = Client("deepseek", api_key="sk-1")
    with pytest.raises(UsageError, match=words):
        client.stream({"messages": []}, **asking)
    with pytest.raises(UsageError, match=words):
        client.resume(PARTIAL, **asking)


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
    with pytest.raises(UsageError, match=r"a pipe streams a Request\(url.*not dict: a body is what Client\(layers="):
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


async def test_traffic_layers_stand_between_the_clocks_and_retry() -> None:
    def mine(inner: Source[Any]) -> Source[Any]:
        return inner

    async with Client("deepseek", api_key="sk-1", traffic=[mine]) as client:
        drawn = str(client.pipe)
    assert drawn.index("Deadline(open=") < drawn.index("mine()") < drawn.index("Retry(")


def test_traffic_that_is_no_list_of_layers_is_refused() -> None:
    with pytest.raises(UsageError, match="traffic= is for the default layers"):
        Client("deepseek", api_key="sk-1", traffic=[Retry()], layers=[])
    with pytest.raises(UsageError, match="traffic= takes a sequence of layers"):
        Client("deepseek", api_key="sk-1", traffic=Retry())  # type: ignore[arg-type]  # what a user may write
