"""What the bytes of the chat shape tell of who sent them; and each provider's table, as a request meets it."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.dialects import DIALECTS, ChatWire, by_events
from holdfast.dialects._profiles import marks, profile_of
from holdfast.offline import parse_events
from tests import shared
from tests.dialects.test_recordings import by_file, own_dialect
from tools.dialect_table import LATE

CHAT = [entry for entry in shared.recordings() if entry["api"] == "openai_chat"]
SAYS_NOTHING = {
    "azure_2.sse": "Azure passes a model of another maker through",
    "huggingface_1.sse": "a router, of which there is no profile",
    "llamabox_1.sse": "llama-box leaves its timings inside usage",
    "mistral_chunks_1.sse": "a gateway that rewrites pieces",
    "openai_4.sse": "before pieces were padded",
    "openai_8.sse": "before pieces were padded",
    "zai_1.sse": "a provider of which there is no profile",
}
"""Recordings that bear no mark of whose they are, and why."""
SAYS_ANOTHER = {
    "deepseek_chunks_3.sse": "sglang",  # Azure runs the model on it
    "openai_6.sse": "openrouter",  # recorded under the name of the SDK
}


@pytest.mark.parametrize("entry", CHAT, ids=by_file)
def test_a_recording_says_whose_it_is_and_never_two_things(entry: dict[str, Any]) -> None:
    payloads = [event.payload for event in parse_events(shared.recorded(entry)).events]
    chunks = [event.json() for event in parse_events(shared.recorded(entry)).events if event.payload != b"[DONE]"]
    assert payloads
    told = {profile_of(chunk) for chunk in chunks} - {None}
    if entry["file"] in SAYS_NOTHING:
        assert told == set()
    else:
        assert told == {SAYS_ANOTHER.get(entry["file"], own_dialect(entry))}


SAYS_NOTHING_AT_FIRST = {"mistral_1.sse", "mistral_3.sse", "openaicompat_localhost_1.sse"}
"""Recordings whose first piece lacks the mark that a later one bears."""


@pytest.mark.parametrize("entry", CHAT, ids=by_file)
def test_auto_goes_by_the_first_piece(entry: dict[str, Any]) -> None:
    first = next(event for event in parse_events(shared.recorded(entry)).events if event.payload)
    guess = by_events([first])
    assert guess is not None
    silent = entry["file"] in SAYS_NOTHING or entry["file"] in SAYS_NOTHING_AT_FIRST
    assert guess.name == ("openai-compatible" if silent else SAYS_ANOTHER.get(entry["file"], own_dialect(entry)))
    if entry["file"] in SAYS_NOTHING_AT_FIRST:
        assert own_dialect(entry) in LATE


@pytest.mark.parametrize(
    ("chunk", "dialect"),
    [
        ({"choices": [], "id": "", "prompt_filter_results": []}, "azure"),
        ({"choices": [{"delta": {}, "content_filter_results": {}}], "obfuscation": "x"}, "azure"),
        ({"choices": [], "timings": {}}, "llama.cpp"),
        ({"choices": [], "system_fingerprint": "b6123-0f4e2a1c"}, "llama.cpp"),
        ({"choices": [], "usage": {"prompt_cache_hit_tokens": 0}}, "deepseek"),
        ({"choices": [{"delta": {"content": [{"type": "thinking"}]}}]}, "mistral"),
        ({"choices": [{"delta": {}, "native_finish_reason": None}], "provider": "DeepSeek"}, "openrouter"),
        ({"choices": [{"delta": {"content": "x"}}], "system_fingerprint": None, "usage": None}, None),
        ({"choices": [7], "system_fingerprint": 7, "usage": 7}, None),
        ({"choices": 7}, None),
        ({}, None),
    ],
)
def test_a_mark_tells_a_provider(chunk: dict[str, Any], dialect: str | None) -> None:
    assert profile_of(chunk) == dialect


def test_what_a_mark_tells_is_a_dialect_of_the_chat_shape() -> None:
    assert all(isinstance(DIALECTS[name].wire, ChatWire) for name in marks({}))


@pytest.mark.parametrize(
    ("dialect", "base_url", "url"),
    [
        ("openai", "", "https://api.openai.com/v1/chat/completions"),
        ("openrouter", "", "https://openrouter.ai/api/v1/chat/completions"),
        ("groq", "", "https://api.groq.com/openai/v1/chat/completions"),
        ("mistral", "", "https://api.mistral.ai/v1/chat/completions"),
        ("perplexity", "", "https://api.perplexity.ai/chat/completions"),
        ("ollama", "", "http://localhost:11434/v1/chat/completions"),
        ("azure", "https://me.openai.azure.com/openai/v1/", "https://me.openai.azure.com/openai/v1/chat/completions"),
        (
            "azure",
            "https://me.openai.azure.com/openai/deployments/mini?api-version=2024-10-21",
            "https://me.openai.azure.com/openai/deployments/mini/chat/completions?api-version=2024-10-21",
        ),
    ],
)
def test_a_request_goes_where_the_provider_lives(dialect: str, base_url: str, url: str) -> None:
    found = DIALECTS[dialect]
    assert found.url(base_url or found.base_url, {"model": "m"}) == url


def test_azure_takes_its_key_in_a_header_of_its_own() -> None:
    assert DIALECTS["azure"].headers("secret") == {"api-key": "secret"}


@pytest.mark.parametrize("dialect", ["mistral", "perplexity", "openai-compatible"])
def test_usage_is_not_asked_for_where_that_is_refused_or_unknown(dialect: str) -> None:
    assert DIALECTS[dialect].prepare({"model": "m"}) == {"model": "m", "stream": True}


def test_each_base_url_is_at_a_host_of_its_provider() -> None:
    for dialect in DIALECTS.values():
        if dialect.base_url.startswith("https:"):
            assert dialect.base_url.split("/")[2] in dialect.hosts
            assert dialect.key_variable
