"""Which requests change something at the provider, and are sent once: by the fields of its own SDK's types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from holdfast._core import Call
from holdfast._types import Request
from holdfast.dialects import ANTHROPIC, DIALECTS, OPENAI_RESPONSES
from holdfast.dialects._ways import effects_of


def tools(*given: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {"model": "m", "tools": list(given), **more}


MCP = {"type": "mcp", "server_label": "pay", "server_url": "https://pay.test"}
APPROVED = {"type": "mcp_approval_response", "approval_request_id": "r", "approve": True}


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"conversation": "conv_1"}, "`conversation`"),
        ({"conversation": {"id": "conv_1"}}, "`conversation`"),
        ({"container": "container_1"}, "`container`"),
        ({"environment": {"type": "remote"}}, "`environment`"),
        ({"mcp_servers": [{"type": "url", "url": "https://pay.test", "name": "pay"}]}, "`mcp_servers`"),
        (tools({**MCP, "require_approval": "never"}), "tool `mcp`"),
        (tools({**MCP, "require_approval": {"never": {"tool_names": ["pay"]}}}), "tool `mcp`"),
        (tools(MCP), "tool `mcp`"),
        (tools({**MCP, "require_approval": "always"}, input=[APPROVED]), "tool `mcp`"),
        (tools({"type": "function", "name": "f"}, {"type": "code_interpreter"}), "tool `code_interpreter`"),
        (tools({"type": "shell", "environment": {"type": "container_auto"}}), "tool `shell`"),
        (tools({"type": "namespace", "name": "n", "tools": [{"type": "unheard_of"}]}), "tool `unheard_of`"),
        (tools({"type": "code_execution_20260120", "name": "code_execution"}), "tool `code_execution_20260120`"),
        (tools({"type": "mcp_toolset", "mcp_server_name": "pay"}), "tool `mcp_toolset`"),
        (tools({"type": "mcp_server", "url": "https://pay.test"}), "tool `mcp_server`"),
        (tools({"mcpServers": [{"name": "pay"}]}), "tool `mcpServers`"),
    ],
)
def test_what_changes_something_is_named(body: Mapping[str, Any], named: str) -> None:
    assert {dialect.effects(body) for dialect in DIALECTS.values()} == {named}


@pytest.mark.parametrize(
    "body",
    [
        {"model": "m", "messages": []},
        {"input": "x", "store": True, "background": True, "previous_response_id": "resp_1", "conversation": None},
        tools({**MCP, "require_approval": "always"}, input=[{"role": "user", "content": "x"}]),
        tools({"type": "function", "function": {"name": "pay"}}, {"type": "custom", "name": "pay"}),
        tools({"name": "pay", "input_schema": {}}, {"type": "bash_20250124"}, {"type": "computer_20251124"}),
        tools({"type": "web_search_20260209"}, {"type": "web_fetch_20260209"}, {"type": "web_search_preview"}),
        tools({"type": "shell", "environment": {"type": "local"}}, {"type": "apply_patch"}, {"type": "local_shell"}),
        tools({"functionDeclarations": []}, {"googleSearch": {}}, {"codeExecution": {}}),
        tools({"type": "google_search"}, {"type": "namespace", "tools": [{"type": "function", "name": "f"}]}),
        {"tools": "none", "input": "x"},
        {"tools": [1, None, {"type": 7}]},
    ],
)
def test_what_changes_nothing_may_be_sent_again(body: Mapping[str, Any]) -> None:
    assert {dialect.effects(body) for dialect in DIALECTS.values()} == {""}


def test_a_dialect_of_ones_own_says_otherwise() -> None:
    sandboxed = replace(ANTHROPIC, harmless_tools=(*ANTHROPIC.harmless_tools, "code_execution_"), kept=())
    body = tools({"type": "code_execution_20260120"}, container="c")
    assert ANTHROPIC.effects(body) == "`container`"
    assert sandboxed.effects(body) == ""


def test_a_request_is_asked_whose_dialect_it_is_and_for_its_bytes() -> None:
    request = Request(url="https://a.test", body=b'{"conversation": "c"}', call=Call())
    assert effects_of(request) == "`conversation`"
    assert effects_of(replace(request, dialect=replace(OPENAI_RESPONSES, kept=()))) == ""
    assert effects_of(replace(request, method="GET", body=None)) == ""
