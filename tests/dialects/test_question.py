"""The simplest request of each shape: what it says, and that a server of that shape answers it."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast import Client, UsageError
from holdfast.dialects import AUTO, DIALECTS
from holdfast.testing import ChaosServer

ASKED = [name for name, dialect in DIALECTS.items() if dialect.wire.question("") is not None]
USER = {"role": "user", "content": "hi"}
SYSTEM = {"role": "system", "content": "be brief"}
SHAPES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "deepseek": ({"messages": [USER]}, {"messages": [SYSTEM, USER]}),
    "cohere": ({"messages": [USER]}, {"messages": [SYSTEM, USER]}),
    "anthropic": (
        {"messages": [USER], "max_tokens": 4096},
        {"messages": [USER], "max_tokens": 4096, "system": "be brief"},
    ),
    "openai-responses": ({"input": "hi"}, {"input": "hi", "instructions": "be brief"}),
    "gemini-interactions": ({"input": "hi"}, {"input": "hi", "system_instruction": "be brief"}),
    "gemini": (
        {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]},
        {
            "contents": [{"role": "user", "parts": [{"text": "hi"}]}],
            "systemInstruction": {"parts": [{"text": "be brief"}]},
        },
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_question_is_of_its_shape(name: str) -> None:
    wire = DIALECTS[name].wire
    assert (wire.question("hi"), wire.question("hi", "be brief")) == SHAPES[name]


def test_what_is_no_conversation_has_no_question() -> None:
    assert {name for name in DIALECTS if name not in ASKED} == {"mcp", "replicate", "sse"}
    assert AUTO.wire.question("hi") is None


@pytest.mark.parametrize("name", ASKED)
async def test_a_question_is_answered(name: str) -> None:
    async with ChaosServer() as server, Client(name, base_url=server.url) as client:
        question = DIALECTS[name].wire.question("tides", "be brief")
        completion = await client.complete({**(question or {}), "model": "m"})
        assert completion.text == server.answer("tides").text
        assert server.served[0].status == 200


@pytest.mark.parametrize("body", [{}, {"model": ""}, {"model": 7}])
async def test_a_model_that_stands_in_the_address_must_be_named(body: dict[str, Any]) -> None:
    async with ChaosServer() as server, Client("gemini", base_url=server.url) as client:
        with pytest.raises(UsageError, match="a request of 'gemini' must name its \"model\""):
            client.stream({"contents": [], **body})
        assert server.server.requests == []
        assert repr(client).endswith("/v1beta/models/MODEL:streamGenerateContent>")
