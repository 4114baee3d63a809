"""How the chat shape asks a model to go on from what it said."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast._types import Request
from holdfast.dialects import DIALECTS, AssistantPrefix, Said

USER = {"role": "user", "content": "Sing"}
URL = {name: dialect.base_url + dialect.path for name, dialect in DIALECTS.items()}


def extended(dialect: str, said: Said, *, url: str = "", **body: Any) -> Request | None:
    rung = DIALECTS[dialect].prefix
    assert rung is not None
    request = Request(url=url or URL[dialect], headers={"A": "b"}, body={"messages": [USER], **body})
    return rung.extend(request, said)


def body_of(dialect: str, said: Said, **body: Any) -> dict[str, Any]:
    request = extended(dialect, said, **body)
    assert request is not None
    assert isinstance(request.body, dict)
    return request.body


@pytest.mark.parametrize(
    ("dialect", "message", "body"),
    [
        ("deepseek", {"prefix": True}, {}),
        ("mistral", {"prefix": True}, {}),
        ("vllm", {}, {"add_generation_prompt": False, "continue_final_message": True}),
        ("sglang", {}, {"continue_final_message": True}),
    ],
)
def test_the_model_goes_on_from_its_own_message(dialect: str, message: dict[str, Any], body: dict[str, Any]) -> None:
    request = extended(dialect, Said(text="La la"), model="m")
    assert request is not None
    assert request.body == {
        "model": "m",
        "messages": [USER, {"role": "assistant", "content": "La la", **message}],
        **body,
    }
    assert (request.method, request.headers) == ("POST", {"A": "b"})


@pytest.mark.parametrize("name", ["openai", "azure", "openrouter", "groq", "perplexity", "llama.cpp", "ollama"])
def test_others_cannot_be_asked_so(name: str) -> None:
    assert DIALECTS[name].prefix is None


@pytest.mark.parametrize(
    ("url", "beta"),
    [
        ("https://api.deepseek.com/chat/completions", "https://api.deepseek.com/beta/chat/completions"),
        ("https://api.deepseek.com/v1/chat/completions", "https://api.deepseek.com/beta/chat/completions"),
        ("https://api.deepseek.com/beta/chat/completions", "https://api.deepseek.com/beta/chat/completions"),
        ("http://proxy/deep/v1/chat/completions?k=1", "http://proxy/deep/beta/chat/completions?k=1"),
        ("http://proxy/answers", None),
        ("http://proxy/chat/completions/mine", None),
    ],
)
def test_deepseek_continues_at_its_beta_base(url: str, beta: str | None) -> None:
    request = extended("deepseek", Said(text="La"), url=url)
    assert (request.url if request else None) == beta


def test_the_thought_goes_back_where_it_is_taken() -> None:
    said = Said(text="La", reasoning="Hm")
    assert body_of("deepseek", said)["messages"][-1]["reasoning_content"] == "Hm"
    assert "reasoning_content" not in body_of("mistral", said)["messages"][-1]
    assert extended("vllm", Said(text="", reasoning="Hm")) is None
    assert body_of("deepseek", Said(text="", reasoning="Hm"))["messages"][-1]["content"] == ""


def test_what_was_said_is_taken_off_the_limits() -> None:
    said = Said(text="La", tokens=40)
    assert body_of("vllm", said, max_tokens=100, min_tokens=50)["max_tokens"] == 60
    assert body_of("vllm", said, max_tokens=100, min_tokens=30)["min_tokens"] == 0
    assert body_of("vllm", said, max_completion_tokens=40)["max_completion_tokens"] == 1
    assert body_of("vllm", said, max_tokens=None)["max_tokens"] is None
    assert "max_tokens" not in body_of("vllm", said)


@pytest.mark.parametrize(
    "body",
    [
        {"n": 2},
        {"tool_choice": "required"},
        {"tool_choice": "any"},
        {"tool_choice": {"type": "function", "function": {"name": "f"}}},
        {"messages": "Sing"},
        {"messages": ["Sing"]},
        {"messages": [USER, {"role": "assistant", "content": "La"}]},
    ],
)
@pytest.mark.parametrize("dialect", ["deepseek", "mistral", "vllm", "sglang"])
def test_what_cannot_be_continued_is_left_alone(dialect: str, body: dict[str, Any]) -> None:
    assert extended(dialect, Said(text="La"), **body) is None


@pytest.mark.parametrize("body", [{"n": 1}, {"n": None}, {"tool_choice": "auto"}, {"tool_choice": "none"}])
def test_what_asks_for_nothing_special_is_continued(body: dict[str, Any]) -> None:
    assert extended("deepseek", Said(text="La"), **body) is not None


def test_nothing_said_is_nothing_to_go_on_from() -> None:
    assert extended("deepseek", Said(text="")) is None


def test_a_body_of_bytes_is_left_alone() -> None:
    rung = DIALECTS["vllm"].prefix
    assert rung is not None
    assert rung.extend(Request(url=URL["vllm"], body=b'{"messages": []}'), Said(text="La")) is None


def test_a_prefix_of_the_callers_own_stays_before_what_was_said() -> None:
    mine = {"role": "assistant", "content": "Oh ", "prefix": True, "name": "kelp"}
    asked = body_of("deepseek", Said(text="la"), messages=[USER, mine])
    assert asked["messages"] == [USER, {**mine, "content": "Oh la"}]
    flags = {"add_generation_prompt": False, "continue_final_message": True}
    asked = body_of("vllm", Said(text="la"), messages=[USER, {"role": "assistant", "content": "Oh "}], **flags)
    assert asked["messages"] == [USER, {"role": "assistant", "content": "Oh la"}]
    parts = {"role": "assistant", "content": [{"type": "text", "text": "Oh "}], "prefix": True}
    assert extended("deepseek", Said(text="la"), messages=[USER, parts]) is None


def test_mistral_says_the_callers_prefix_again_and_it_is_not_doubled() -> None:
    mine = {"role": "assistant", "content": "Oh ", "prefix": True}
    assert body_of("mistral", Said(text="Oh la"), messages=[USER, mine])["messages"][-1]["content"] == "Oh la"
    assert body_of("mistral", Said(text="la"), messages=[USER, mine])["messages"][-1]["content"] == "Oh la"


def test_the_request_that_was_sent_stays_as_it_was() -> None:
    messages = [USER]
    body_of("deepseek", Said(text="La", tokens=1), messages=messages, max_tokens=5)
    assert messages == [USER]


def test_a_prefix_must_tell_the_server_something() -> None:
    with pytest.raises(ValueError, match="message"):
        AssistantPrefix()
