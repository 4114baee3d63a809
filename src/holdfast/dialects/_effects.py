"""What a request changes at the provider, besides being answered: sent once more, it would change it twice.

It is read from the request alone, and by what is known to be harmless: of a tool that nobody knows it is assumed that
the provider runs it and that it acts. What a model does that its own provider gave tools, or what a stored prompt
brings with it, stands in no request and is not seen.

Names are those of OpenAI's `ToolParam` and `conversation` ("items from this response are added to it"), of Anthropic's
`BetaToolUnionParam`, `mcp_servers` and `container`, and of Google's `Tool` and of Interactions' `environment`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

KEPT = ("conversation", "container", "environment", "agent", "mcp_servers")
"""Fields of a request that name something which lasts beyond it, and which its answer is added to or made in.

`previous_response_id` and `previous_interaction_id` are none: an answer to them is one more branch.
"""
HARMLESS_TOOLS = (
    *("function", "custom", "builtin_function", "tool_search", "computer", "local_shell", "apply_patch"),
    *("bash_2", "text_editor_2", "memory_2"),  # as those before, the caller runs them; the figure is a date's
    *("web_search", "web_fetch", "fetch_url", "browser_search", "x_search", "google_", "url_context", "file_search"),
    *("retrieval", "image_generation", "advisor_"),
)
"""How the types of tools begin that leave nothing behind: the caller runs them, or they only look something up."""


def effects(body: Mapping[str, Any], *, kept: Sequence[str] = KEPT, harmless: Sequence[str] = HARMLESS_TOOLS) -> str:
    """Names what a request of this body changes; empty where it changes nothing that is known."""
    for name in kept:
        if body.get(name):
            return f"`{name}`"
    approves = any(_type(item) == "mcp_approval_response" for item in _several(body.get("input")))
    return next((f"tool `{name}`" for name in _acting(body.get("tools"), tuple(harmless), approves=approves)), "")


def _acting(tools: Any, harmless: tuple[str, ...], *, approves: bool) -> list[str]:
    """Names the tools that act."""
    found: list[str] = []
    for tool in _several(tools):
        kind = _type(tool)
        if kind == "namespace":  # of OpenAI: tools under one name
            found += _acting(tool.get("tools"), harmless, approves=approves)
        elif not kind:  # a function's declaration, or one of Google's, which are told by their keys
            found += [name for name in ("mcp_servers", "mcpServers") if tool.get(name)]
        elif kind == "mcp" and tool.get("require_approval") == "always" and not approves:
            continue  # it asks first, and that ends the answer
        elif kind == "shell" and _type(tool.get("environment")) == "local":
            continue  # the caller runs it
        elif not kind.startswith(harmless):
            found.append(kind)
    return found


def _several(value: Any) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list | tuple) else []


def _type(value: Any) -> str:
    kind = value.get("type") if isinstance(value, Mapping) else None
    return kind if isinstance(kind, str) else ""


__all__ = ["HARMLESS_TOOLS", "KEPT", "effects"]
