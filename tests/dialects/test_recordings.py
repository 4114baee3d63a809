"""Every recorded answer, cut anywhere, assembles to what its index says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from holdfast._errors import UpstreamError
from holdfast._types import Completion
from holdfast.offline import assemble, parse_events
from tests import shared
from tests.cuts import bytewise, randomly

DIALECTS = {
    "openai_chat": "openai-compatible",
    "openai_completions": "openai-compatible",
    "responses": "openai-responses",
    "anthropic": "anthropic",
    "gemini": "gemini",
    "gemini_interactions": "gemini-interactions",
    "cohere_v2": "cohere",
    "replicate": "replicate",
}
"""What reads each of the index's families; `mcp` stands below, because its text is what the messages are."""
PROFILES = {
    **dict.fromkeys(("azure", "deepseek", "groq", "mistral", "ollama", "openai", "openrouter", "perplexity"), ""),
    "crusoe": "vllm",
    "deepseek_chunks": "deepseek",
    "llamabox": "llama.cpp",
    "mistral_chunks": "mistral",
    "openaicompat_localhost": "vllm",
}
"""Whose chat shape a provider's recordings are, where that is not the provider's own name."""
SPECIAL = {"deepseek_chunks_3.sse": "azure", "openai_6.sse": ""}
"""A model of another maker; and one that was edited by hand: it has no end that any provider would send."""
READ = [entry for entry in shared.recordings() if entry["api"] in DIALECTS]
WHOLE = [entry for entry in READ if not entry["assembled"]["errors"]]
FAILED = [entry for entry in READ if entry["assembled"]["errors"]]
MESSAGES = [entry for entry in shared.recordings() if entry["api"] == "mcp"]
BYTEWISE_LIMIT = 30_000  # bytes: a longer recording is cut by bytes at its beginning and its end alone


def by_file(entry: dict[str, Any]) -> str:
    return str(entry["file"])


def own_dialect(entry: dict[str, Any]) -> str:
    """The provider's own profile; empty where there is none, or none that would take it."""
    if entry["api"] == "responses" and entry["provider"] == "deepseek":
        return "deepseek-responses"
    if not entry["api"].startswith("openai_c"):
        return ""
    provider = str(entry["provider"])
    return SPECIAL.get(entry["file"], PROFILES.get(provider) or (provider if provider in PROFILES else ""))


def dialects_of(entry: dict[str, Any]) -> set[str]:
    return {DIALECTS[entry["api"]], own_dialect(entry)} - {""}


def cuttings(data: bytes) -> Iterator[list[bytes]]:
    yield [data]
    yield from randomly(data, times=2, most=200)
    if len(data) <= BYTEWISE_LIMIT:
        yield bytewise(data)
    else:
        head, body, tail = data[:8_000], data[8_000:-8_000], data[-8_000:]
        yield [*bytewise(head), body, *bytewise(tail)]


def said(answer: Completion) -> dict[str, Any]:
    return {
        "text": answer.text,
        "reasoning": answer.reasoning,
        "refusal": answer.refusal,
        "tool_calls": [
            {"index": c.index, "id": c.id, "name": c.name, "arguments": c.arguments} for c in answer.tool_calls
        ],
        "finish_reason": answer.finish_reason,
        "usage": answer.usage.raw if answer.usage is not None else None,
    }


def indexed(entry: dict[str, Any]) -> dict[str, Any]:
    """What the index says of an answer, in this library's terms.

    It numbers the calls of Messages and Responses by where they stand among blocks and items, and names calls that the
    server ran itself among them; it tells a summary of the reasoning apart, and how a response ended in its own word.
    """
    told = {key: entry["assembled"][key] for key in said(Completion())}
    if entry["api"] not in ("responses", "anthropic"):
        return told
    calls = [call for call in told["tool_calls"] if call.get("type", "tool_use") == "tool_use"]
    told["tool_calls"] = [{**call, "index": index} for index, call in enumerate(calls)]
    told["reasoning"] += entry["assembled"].get("reasoning_summary", "")
    if told["finish_reason"] == "completed":
        told["finish_reason"] = "tool_calls" if calls else "stop"
    return told


def test_there_are_recordings_to_test_against() -> None:
    shared.recordings_folder()
    assert len(WHOLE) >= 20
    assert FAILED
    assert MESSAGES
    assert {entry["api"] for entry in READ} == DIALECTS.keys()


@pytest.mark.parametrize("entry", WHOLE, ids=by_file)
def test_a_recording_assembles_to_what_its_index_says(entry: dict[str, Any]) -> None:
    expected = indexed(entry)
    for chunks in cuttings(shared.recorded(entry)):
        for dialect in dialects_of(entry):
            answer = assemble(chunks, dialect)
            assert said(answer) == expected
            assert str(answer.verdict) == "COMPLETE"


@pytest.mark.parametrize("entry", FAILED, ids=by_file)
def test_a_recording_that_ends_in_an_error_raises_it_with_what_had_arrived(entry: dict[str, Any]) -> None:
    expected, error = entry["assembled"], entry["assembled"]["errors"][0]
    error = error.get("error", error)  # the index has a response's error as its event
    for chunks in cuttings(shared.recorded(entry)):
        with pytest.raises(UpstreamError) as raised:
            assemble(chunks, own_dialect(entry) or DIALECTS[entry["api"]])
        assert raised.value.message == error["message"]
        assert (raised.value.code, raised.value.type) == (error["code"], error["type"])
        assert raised.value.partial is not None
        answer = raised.value.partial.answer
        assert answer.text == expected["text"]
        assert answer.reasoning == expected["reasoning"]
        assert answer.verdict is None


@pytest.mark.parametrize("entry", MESSAGES, ids=by_file)
def test_recorded_messages_come_as_they_are_and_end_with_the_response(entry: dict[str, Any]) -> None:
    data = shared.recorded(entry)
    events = parse_events(data).events
    content = events[-1].json()["result"]["content"]
    assert "".join(part["text"] for part in content) == entry["assembled"]["text"]
    for chunks in cuttings(data):
        answer = assemble(chunks, "mcp")
        assert answer.text == "".join(event.data for event in events)
        assert str(answer.verdict) == "COMPLETE"
