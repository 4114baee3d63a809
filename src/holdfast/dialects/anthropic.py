"""Anthropic, https://platform.claude.com/docs/en/api/messages, who made the Messages shape; and DeepSeek's like it.

The key goes out in `x-api-key`, beside the version of the API. An answer can be continued from what it said by models
up to Claude 4.5; later ones refuse a last turn of the assistant's with a 400. A compressed answer comes in lumps.

DeepSeek (https://api-docs.deepseek.com/guides/anthropic_api) thinks unless it is told not to, and says nothing of
continuing a message. Its clocks are those of its chat.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from holdfast._types import Request
from holdfast.dialects._dialect import Dialect, Said, Timeouts
from holdfast.dialects._pause import SameTurn
from holdfast.dialects._wire import asked
from holdfast.dialects.messages import MessagesWire

_WIRE = MessagesWire()
_SERVERS = ("web_search", "web_fetch", "code_execution", "tool_search", "mcp_toolset")
"""How the types of tools begin that the server runs itself."""


@dataclass(slots=True, frozen=True, kw_only=True)
class TurnPrefix:
    """Continues a message from what it said, as the assistant's turn that the model ends: see `PrefixRung`.

    Newer models refuse it with a 400 (https://platform.claude.com/docs/en/build-with-claude/prompt-engineering/prefill-claudes-response).
    The last turn must not end in white space. Thinking, a call and the beginning of enforced JSON cannot be continued,
    nor an answer that may rest on what the server's own tools found: their results do not go back with the text.
    """

    def extend(self, request: Request, said: Said) -> Request | None:
        """Gives the request for what follows, None where this answer cannot be continued."""
        body = asked(request)
        if body is None or said.reasoning or not said.text or said.text != said.text.rstrip() or _is_closed(body):
            return None
        turns = body.get("messages")
        if not isinstance(turns, list | tuple) or not turns or not all(isinstance(turn, Mapping) for turn in turns):
            return None
        longer = {**body, "messages": _continued(turns, said.text)}
        limit = body.get("max_tokens")
        if isinstance(limit, int) and not isinstance(limit, bool):
            longer["max_tokens"] = max(1, limit - said.tokens)
        return replace(request, body=longer)


def _is_closed(body: Mapping[str, Any]) -> bool:
    thinking, choice = body.get("thinking"), body.get("tool_choice")
    thinks = isinstance(thinking, Mapping) and thinking.get("type") != "disabled"
    forced = isinstance(choice, Mapping) and choice.get("type") in ("any", "tool")
    tools = body.get("tools")
    types = [tool.get("type") for tool in tools if isinstance(tool, Mapping)] if isinstance(tools, list | tuple) else []
    searches = any(isinstance(kind, str) and kind.startswith(_SERVERS) for kind in types)
    return thinks or forced or searches or bool(body.get("mcp_servers")) or bool(_WIRE.asks_json(body))


def _continued(turns: Sequence[Mapping[str, Any]], text: str) -> list[Mapping[str, Any]]:
    """The conversation with what was said at its end; where it ended with the assistant's words, behind them."""
    *before, last = turns
    if last.get("role") != "assistant":
        return [*turns, {"role": "assistant", "content": text}]
    content = last.get("content")
    if isinstance(content, str):
        return [*before, {**last, "content": content + text}]
    blocks = list(content) if isinstance(content, list | tuple) else []
    if blocks and isinstance(blocks[-1], Mapping) and isinstance(blocks[-1].get("text"), str):
        blocks[-1] = {**blocks[-1], "text": blocks[-1]["text"] + text}
    else:
        blocks.append({"type": "text", "text": text})
    return [*before, {**last, "content": blocks}]


ANTHROPIC = Dialect(
    name="anthropic",
    wire=_WIRE,
    base_url="https://api.anthropic.com",
    path="/v1/messages",
    hosts=("api.anthropic.com",),
    key_variable="ANTHROPIC_API_KEY",
    key_header="x-api-key",
    key_prefix="",
    fixed_headers={"anthropic-version": "2023-06-01"},
    end_mark=True,
    timeouts=Timeouts(open=120, first_token=600, progress=120, total=3600),
    prefix=TurnPrefix(),
    pause=SameTurn(),
)

DEEPSEEK_ANTHROPIC = Dialect(
    name="deepseek-anthropic",
    wire=_WIRE,
    base_url="https://api.deepseek.com/anthropic",
    path="/v1/messages",
    hosts=("api.deepseek.com",),
    key_variable="DEEPSEEK_API_KEY",
    key_header="x-api-key",
    key_prefix="",
    fixed_headers={"anthropic-version": "2023-06-01"},
    end_mark=True,
    default_model="deepseek-flash",
    refuses="concurrency",
    timeouts=Timeouts(open=60, first_token=630, progress=60, total=3600),
)
