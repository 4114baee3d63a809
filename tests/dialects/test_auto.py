"""Who answers, guessed: from addresses, and from the bytes of every recording alone."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast._errors import Truncated, UsageError
from holdfast._types import Event
from holdfast.dialects import DIALECTS
from holdfast.dialects.auto import at_address, by_address, by_endpoint, by_events
from holdfast.offline import assemble, parse_events
from tests import shared

FIRST = 3  # events: what is known by then

SHAPES = {
    "anthropic": "anthropic",
    "responses": "openai-responses",
    "gemini": "gemini",
    "gemini_interactions": "gemini-interactions",
    "cohere_v2": "cohere",
    "mcp": "mcp",
}
"""Shapes that their events tell for sure; who speaks them the bytes do not say, where several do."""
MARKED = {
    "deepseek": "deepseek",
    "groq": "groq",
    "mistral": "mistral",
    "ollama": "ollama",
    "openrouter": "openrouter",
    "perplexity": "perplexity",
}
"""Who leaves a mark in the chat shape. The index names the rest by whose tests they come from, see below."""
OTHERS = {
    "azure_2.sse": ("openai-compatible", "Azure's models of other makers leave no mark of Azure's"),
    "crusoe_1.sse": ("vllm", "that is the server it runs"),
    "deepseek_chunks_2.sse": ("deepseek", ""),
    "deepseek_chunks_3.sse": ("sglang", "DeepSeek's model, on a server of Azure's"),
    "huggingface_1.sse": ("openai-compatible", "a router that leaves no mark"),
    "llamabox_1.sse": ("openai-compatible", "a server that leaves no mark"),
    "mistral_chunks_1.sse": ("openai-compatible", "a gateway rewrote it"),
    "openai_3.sse": ("openai", ""),
    "openai_4.sse": ("openai-compatible", "from before OpenAI padded its pieces"),
    "openai_6.sse": ("openrouter", "its note says so, too"),
    "openai_8.sse": ("openai-compatible", "from before OpenAI padded its pieces"),
    "openai_9.sse": ("openai-compatible", "the older endpoint, in the shape of its successor"),
    "openaicompat_localhost_1.sse": ("openai-compatible", "vLLM's own key comes with the end only"),
    "replicate_1.sse": (None, "plain text: no event says whose it is"),
    "zai_1.sse": ("openai-compatible", "a provider of whom nothing is known"),
}
"""What is guessed otherwise than the index names it, or not at all, and why."""


def by_file(entry: dict[str, Any]) -> str:
    return str(entry["file"])


@pytest.mark.parametrize("entry", shared.recordings(), ids=by_file)
def test_a_recording_is_guessed_from_its_first_events(entry: dict[str, Any]) -> None:
    events = parse_events(shared.recorded(entry)).events
    guess = by_events(events[:FIRST])
    expected = SHAPES.get(entry["api"]) or OTHERS.get(entry["file"], (MARKED.get(entry["provider"]), ""))[0]
    assert (guess.name if guess is not None else None) == expected
    assert guess is None or by_events(events) is not None


def test_no_recording_is_taken_for_another_shape() -> None:
    shared.recordings_folder()
    for entry in shared.recordings():
        events = parse_events(shared.recorded(entry)).events
        wires = {type(d.wire) for d in DIALECTS.values() if any(d.wire.recognises(event) for event in events)}
        assert len(wires) <= 1, entry["file"]


@pytest.mark.parametrize("payload", [b"", b"[DONE]", b"words", b"[1]", b"null", b'{"error":{"message":"m"}}', b"{}"])
def test_what_could_be_anybodys_is_not_guessed(payload: bytes) -> None:
    assert by_events([Event(payload)]) is None
    assert by_events([]) is None


def test_the_first_event_that_says_anything_decides() -> None:
    nothing, chat = Event(b'{"type":"ping"}'), Event(b'{"choices":[]}')
    marked = Event(b'{"choices":[],"x_groq":{}}')
    assert [guess and guess.name for guess in (by_events([nothing, chat]), by_events([chat, marked]))] == [
        "openai-compatible",
        "groq",
    ]


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://api.deepseek.com/chat/completions", "deepseek"),
        ("https://api.deepseek.com/beta/chat/completions", "deepseek"),
        ("https://API.DeepSeek.com", "deepseek"),
        ("https://api.deepseek.com/responses", "deepseek-responses"),
        ("https://api.deepseek.com/anthropic/v1/messages", "deepseek-anthropic"),
        ("https://api.openai.com/v1/chat/completions", "openai"),
        ("https://eu.api.openai.com/v1/responses?x=1", "openai-responses"),
        ("https://api.anthropic.com/v1/messages", "anthropic"),
        ("https://me.openai.azure.com/openai/deployments/d/chat/completions?api-version=1", "azure"),
        ("https://openrouter.ai/api/v1/chat/completions", "openrouter"),
        ("https://openrouter.ai/api/v1/responses", "openai-responses"),
        ("https://generativelanguage.googleapis.com/v1beta/models/m:streamGenerateContent?alt=sse", "gemini"),
        ("https://us-central1-aiplatform.googleapis.com/v1/x/models/m:streamGenerateContent?alt=sse", "gemini"),
        ("https://generativelanguage.googleapis.com/v1beta/interactions", "gemini-interactions"),
        ("https://generativelanguage.googleapis.com/v1beta/openai/chat/completions", "openai-compatible"),
        ("https://api.cohere.com/v2/chat", "cohere"),
        ("https://api.cohere.ai/compatibility/v1/chat/completions", "openai-compatible"),
        ("https://stream.replicate.com/v1/files/x", "replicate"),
        ("https://mcp.example/mcp", "mcp"),
        ("http://localhost:8000/v1/chat/completions/", "openai-compatible"),
        ("http://localhost:8000/v1/responses", "openai-responses"),
        ("https://evilapi.openai.com.example/x", None),
        ("https://notopenai.azure.com/x", None),
        ("http://localhost", None),
        ("", None),
        ("/v1/chat/completions", "openai-compatible"),
    ],
)
def test_an_address_tells_who_lives_there(url: str, name: str | None) -> None:
    guess = by_address(url)
    assert (guess.name if guess is not None else None) == name


def test_every_dialect_is_known_by_its_own_address() -> None:
    for dialect in DIALECTS.values():
        if dialect.hosts and dialect.base_url and "localhost" not in dialect.base_url:
            assert by_address(dialect.url(dialect.base_url, {"model": "m"})) is dialect
            assert by_endpoint(dialect.url(dialect.base_url, {"model": "m"})) is dialect


@pytest.mark.parametrize(
    "url",
    [
        "https://api.openai.com/v1/audio/transcriptions",
        "https://api.openai.com/v1/threads/t1/runs",
        "https://api.anthropic.com/v1/complete",
        "https://api.mistral.ai/v1/conversations",
    ],
)
def test_an_endpoint_of_another_kind_is_told_by_no_host(url: str) -> None:
    assert by_endpoint(url) is None
    assert by_address(url) is not None


_VERTEX = "https://aiplatform.googleapis.com/v1/projects/p/models/m:streamGenerateContent?alt=sse"


@pytest.mark.parametrize(
    ("given", "name", "asked"),
    [
        ("https://api.openai.com/v1", "openai", "https://api.openai.com/v1/chat/completions"),
        ("http://h/v1/chat/completions", "openai-compatible", "http://h/v1/chat/completions"),
        ("http://h/v1/chat/completions/?a=1", "openai-compatible", "http://h/v1/chat/completions?a=1"),
        ("http://h/api/v1/messages", "anthropic", "http://h/api/v1/messages"),
        ("http://h/api/messages/interactions", "gemini-interactions", "http://h/api/messages/interactions"),
        ("http://h/v1beta/models/a%20b:streamGenerateContent?alt=sse&x=1", "gemini", ""),
        (_VERTEX, "gemini", _VERTEX),
        ("https://generativelanguage.googleapis.com", "gemini", ""),
        ("http://h/mcp", "mcp", "http://h/mcp"),
    ],
)
def test_an_endpoint_is_asked_where_it_is(given: str, name: str, asked: str) -> None:
    dialect, base = at_address(given)
    assert dialect.name == name
    if asked:
        assert dialect.url(base, {}) == asked


def test_the_model_in_an_address_is_the_default() -> None:
    dialect, base = at_address("http://h/x/v1beta/models/a%20b:streamGenerateContent?alt=sse&k=1")
    assert dialect.url(base, {}) == "http://h/x/v1beta/models/a%20b:streamGenerateContent?k=1&alt=sse"
    assert dialect.url(base, {"model": "c"}) == "http://h/x/v1beta/models/c:streamGenerateContent?k=1&alt=sse"
    assert not at_address(_VERTEX)[0].needs_model
    assert at_address("http://h/interactions")[0].needs_model


@pytest.mark.parametrize("url", ["http://localhost:11434/v1", "http://localhost:11434/v1?key=secret", "nonsense"])
def test_an_address_that_does_not_tell_is_refused_with_what_would_do(url: str) -> None:
    with pytest.raises(UsageError, match="name the dialect, or give the endpoint's full address, such as") as raised:
        at_address(url)
    assert "secret" not in str(raised.value)
    with pytest.raises(UsageError, match="give a base URL, or name the dialect"):
        at_address("")


_MESSAGE = (
    b'data: {"type":"message_start","message":{"id":"m"}}\n\n'
    b'data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":"hi"}}\n\n'
)
_PIECE = b'data: {"choices":[{"delta":{"content":"hi"}}]}\n\n'


@pytest.mark.parametrize(
    ("first", "rest", "dialect"),
    [
        (b'event: ping\ndata: {"type":"ping"}\n\n', _MESSAGE, "anthropic"),
        (b"event: ping\ndata: {}\n\n", _MESSAGE, "anthropic"),
        (b'data: {"type":"keepalive"}\n\n', _PIECE, "openai-compatible"),
        (b'data: {"object":"chat.completion.chunk","usage":{}}\n\n', _PIECE, "openai-compatible"),
        (b'data: {"choices":[{"delta":{"content":"\\ud83d"}}]}\n\n', _PIECE, "openai-compatible"),
        (b"data: [DONE]\n\n", _PIECE, "openai-compatible"),
    ],
)
def test_a_cut_answer_is_no_whole_one_whatever_comes_first(first: bytes, rest: bytes, dialect: str) -> None:
    with pytest.raises(Truncated) as raised:
        assemble(first + rest)
    assert raised.value.partial.dialect == dialect
    assert raised.value.partial.text in ("hi", "\ufffdhi", "")


def test_pings_alone_prove_nothing() -> None:
    with pytest.raises(Truncated):
        assemble(b'data: {"type":"ping"}\n\n' * 3)
