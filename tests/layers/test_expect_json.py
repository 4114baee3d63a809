"""ExpectJson lets no answer pass for whole whose text is not the JSON that was asked for."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from holdfast import (
    AutoContinue,
    Client,
    Delta,
    Event,
    ExpectJson,
    IntegrityError,
    MemorySource,
    MissingExtra,
    Pipe,
    Reconnect,
    Request,
    Retry,
    UsageError,
    default_layers,
    parse_sse,
    verify,
)
from holdfast.machines.json_text import SchemaCheck, read_json
from holdfast.testing import check_layer
from tests.puppet import Puppet

SCHEMA = {
    "type": "object",
    "properties": {"age": {"type": "integer"}, "next": {"$ref": "#"}},
    "required": ["age"],
    "additionalProperties": False,
}
ANY_JSON = {"response_format": {"type": "json_object"}}
BY_SCHEMA = {"response_format": {"type": "json_schema", "json_schema": {"name": "age", "schema": SCHEMA}}}


def answer(*texts: str, finish: str = "stop", **said: Any) -> bytes:
    """One answer in the chat shape; more texts are more choices."""
    chunks = []
    for index, text in enumerate(texts):
        chunks += [{"index": index, "delta": {"content": piece}} for piece in (text[:5], text[5:])]
        chunks.append({"index": index, "delta": said, "finish_reason": finish})
    events = [b"data: " + json.dumps({"choices": [chunk]}).encode() + b"\n\n" for chunk in chunks]
    return b"".join(events) + b"data: [DONE]\n\n"


def pipe_over(body: bytes, *, layer: ExpectJson | None = None, dialect: str = "openai") -> Pipe[Delta]:
    return Pipe(MemorySource(body)) | parse_sse() | verify(dialect) | Retry() | Reconnect() | (layer or ExpectJson())


def ask(**more: Any) -> Request:
    return Request(url="https://host/v1/chat/completions", body={"messages": [], **more})


@pytest.mark.parametrize("text", ['{"age": 3}', " [1, 2]\n", "3", '"half a character: \\ud83c"', "null"])
async def test_json_is_complete(text: str) -> None:
    completion = await pipe_over(answer(text)).stream(ask(**ANY_JSON))
    assert (completion.text, str(completion.verdict)) == (text, "COMPLETE")


@pytest.mark.parametrize(
    ("text", "actual"),
    [
        ('{"age": 3', "a text that breaks off after 9 characters"),
        ("", "a text that breaks off after 0 characters"),
        ("Here you are: {}", "a text that is no JSON from character 0 on"),
        ('{"ä": "海", nope}', "a text that is no JSON from character 11 on"),
        ("{} {}", "a text that is no JSON from character 3 on"),
        ('{"age": NaN}', "a text that is no JSON: it has a number that JSON has not"),
    ],
)
async def test_what_is_no_json_is_named_and_not_quoted(text: str, actual: str) -> None:
    reader = pipe_over(answer(text)).stream(ask(**ANY_JSON))
    got: list[str] = []

    async def read() -> None:
        async with reader:
            async for piece in reader.text():
                got.append(piece)  # noqa: PERF401 - what came before the error counts

    with pytest.raises(IntegrityError) as error:
        await read()
    assert (error.value.expected, error.value.actual, error.value.retryable) == ("JSON", actual, True)
    assert "".join(got) == text == error.value.partial.text
    assert reader.report.verdict is None
    assert reader.report.outcome == "IntegrityError"
    with pytest.raises(IntegrityError):
        _ = reader.completion


async def test_an_answer_that_was_cut_says_so() -> None:
    with pytest.raises(IntegrityError, match=r"cut at a limit \(finish_reason length\): allow more tokens") as error:
        await pipe_over(answer('{"age": ', finish="length")).stream(ask(**ANY_JSON))
    assert not error.value.retryable


async def test_each_choice_is_judged() -> None:
    with pytest.raises(IntegrityError, match="the answer of choice 1 is not what was asked for"):
        await pipe_over(answer("{}", "{")).stream(ask(n=2, **ANY_JSON))


@pytest.mark.parametrize(
    ("finish", "said"),
    [
        ("tool_calls", {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}]}),
        ("stop", {"refusal": "No."}),
        ("content_filter", {}),
    ],
)
async def test_where_there_is_no_document_there_is_nothing_to_parse(finish: str, said: dict[str, Any]) -> None:
    completion = await pipe_over(answer("", finish=finish, **said)).stream(ask(**ANY_JSON))
    assert str(completion.verdict) == "COMPLETE"


async def test_prose_is_not_judged_and_costs_nothing() -> None:
    assert (await pipe_over(answer("Kelp {")).stream(ask())).text == "Kelp {"
    puppet = Puppet([b""])
    pipe = Pipe(puppet) | parse_sse() | verify("openai") | ExpectJson()
    async with pipe.stream(ask()) as deltas:
        assert type(deltas._stream).__name__ == "TransformStream"


async def test_without_reconnect_it_takes_the_answer_down_itself() -> None:
    pipe = Pipe(MemorySource(answer('{"age": 3'))) | parse_sse() | verify("openai") | ExpectJson()
    with pytest.raises(IntegrityError, match="breaks off after 9"):
        await pipe.stream(ask(**ANY_JSON))


async def test_a_body_in_bytes_and_a_guessed_dialect_are_judged_too() -> None:
    body = json.dumps({"messages": [], **ANY_JSON}).encode()
    with pytest.raises(IntegrityError):
        await pipe_over(answer("{")).stream(Request(url="https://host/v1", body=body))
    chunk = {"id": "c", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": "{"}}]}
    guessed = b"data: " + json.dumps(chunk).encode() + b"\n\n" + answer("")
    with pytest.raises(IntegrityError):
        await pipe_over(guessed, dialect="auto").stream(Request(url="https://host/v1", body=body))


async def test_a_digest_cannot_be_parsed_and_is_refused_before_anything_is_sent() -> None:
    puppet = Puppet()
    pipe = Pipe(puppet) | parse_sse() | verify("openai") | Reconnect() | ExpectJson()
    with pytest.raises(UsageError, match="keep=False keeps a digest"):
        await pipe.stream(ask(**ANY_JSON), keep=False)
    assert puppet.opens == 0


# -- with a schema -----------------------------------------------------------------------------


async def test_an_answer_that_fits_its_schema_is_complete() -> None:
    for layer in (ExpectJson(schema=True), ExpectJson(schema=SCHEMA)):
        completion = await pipe_over(answer('{"age": 3, "next": {"age": 4}}'), layer=layer).stream(ask(**BY_SCHEMA))
        assert str(completion.verdict) == "COMPLETE"


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ('{"age": "three"}', "#/properties/age/type"),
        ('{"age": 3, "next": {"age": []}}', "#/properties/next/properties/age/type"),
        ("{}", "#/required"),
        ('{"age": 1, "secret": 2}', "#/additionalProperties"),
    ],
)
async def test_the_rule_that_an_answer_breaks_is_named_and_the_answer_not_quoted(text: str, rule: str) -> None:
    with pytest.raises(IntegrityError) as error:
        await pipe_over(answer(text), layer=ExpectJson(schema=True)).stream(ask(**BY_SCHEMA))
    assert error.value.actual.replace("/$ref", "") == f"JSON that breaks the schema's {rule}"
    assert error.value.expected == "JSON that fits its schema"
    assert "three" not in str(error.value)
    assert "secret" not in str(error.value)


async def test_without_schema_true_only_the_syntax_counts() -> None:
    assert (await pipe_over(answer("[]")).stream(ask(**BY_SCHEMA))).text == "[]"
    assert (await pipe_over(answer("[]"), layer=ExpectJson(schema=True)).stream(ask(**ANY_JSON))).text == "[]"


async def test_a_schema_of_ones_own_counts_for_every_request() -> None:
    with pytest.raises(IntegrityError, match="#/type"):
        await pipe_over(answer("[]"), layer=ExpectJson(schema=SCHEMA)).stream(ask())


async def test_a_schema_that_is_none_is_the_programs_mistake() -> None:
    with pytest.raises(UsageError, match="this is no JSON Schema"):
        ExpectJson(schema={"type": "strange"})
    puppet = Puppet()
    pipe = Pipe(puppet) | parse_sse() | verify("openai") | ExpectJson(schema=True)
    wrong = {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": 3}}}}
    with pytest.raises(UsageError, match="this is no JSON Schema"):
        await pipe.stream(ask(**wrong))
    assert puppet.opens == 0


def test_a_schema_fetches_nothing() -> None:
    check = SchemaCheck({"$ref": "http://127.0.0.1:9/schema.json"})
    with pytest.raises(UsageError, match="nothing is fetched"):
        check.wrong({})


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    with pytest.raises(MissingExtra, match=r"holdfast\[jsonschema\]"):
        ExpectJson(schema=SCHEMA)


def test_json_that_is_nested_too_deeply_is_a_flaw_and_no_crash() -> None:
    assert read_json("[" * 100_000 + "]" * 100_000) == (None, "JSON nested too deeply to be read")


# -- in the client, and by the contract --------------------------------------------------------


async def test_a_client_checks_json_by_default() -> None:
    async with Client("openai", api_key="sk-1", source=MemorySource(answer("{"))) as client:
        with pytest.raises(IntegrityError):
            await client.complete({"messages": [], **ANY_JSON})
    async with Client("openai", api_key="sk-1", source=MemorySource(answer("[]")), schema=True) as client:
        with pytest.raises(IntegrityError, match="#/type"):
            await client.complete({"messages": [], **BY_SCHEMA})


def test_the_default_layers_have_it_behind_all_that_mends_and_before_the_total_clock() -> None:
    def names(**settings: Any) -> list[str]:
        return [type(layer).__name__ for layer in default_layers("openai", **settings)][4:]

    assert names() == ["Reconnect", "ExpectJson", "Deadline"]
    assert names(auto_continue=AutoContinue()) == ["Reconnect", "AutoContinue", "ExpectJson", "Deadline"]


def test_an_order_that_cannot_work_is_told() -> None:
    drawn = str(Pipe(Puppet()) | parse_sse() | verify("openai") | ExpectJson() | Reconnect())
    assert "! Reconnect belongs left of ExpectJson" in drawn


@pytest.mark.parametrize("request_", [None, ask(**ANY_JSON)], ids=["without a request", "with one"])
async def test_it_obeys_the_contract(request_: Request | None) -> None:
    items: Sequence[Delta] = [Delta(Event(), text=piece) for piece in ('{"age"', ": ", "3}")]
    await check_layer(ExpectJson(), items=items, request=request_)
