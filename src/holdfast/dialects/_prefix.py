"""Prefix continuation in the chat shape: what the model said goes back as its own message, and it goes on from there.

It must never send what the server would answer anew: a request that cannot be continued so is refused with None.
How a server is told differs by a mark on the message (DeepSeek, Mistral) or by flags of the request (vLLM, SGLang).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from holdfast._types import Request
from holdfast.dialects._dialect import Said

ENDPOINT = "/chat/completions"
_LIMITS = {"max_tokens": 1, "max_completion_tokens": 1, "min_tokens": 0}
"""What counts an answer's tokens in a request, and the least that each may be."""


@dataclass(slots=True, frozen=True, kw_only=True)
class AssistantPrefix:
    """The chat shape's way to continue an answer: see `PrefixRung`.

    `message` is what the message with the prefix bears besides its content, `body` what the request does. `reasoning`
    names the message's key for the thought, empty where the server takes none back. `base` is the base path at which
    a server continues, empty where that is everywhere. `echoes`: the answer repeats a prefix before it goes on.
    """

    message: Mapping[str, Any] = field(default_factory=dict)
    body: Mapping[str, Any] = field(default_factory=dict)
    reasoning: str = ""
    base: str = ""
    echoes: bool = False

    def __post_init__(self) -> None:
        if not self.message and not self.body:
            raise ValueError("AssistantPrefix(message=..., body=...) must say one thing at least to the server")

    def extend(self, request: Request, said: Said) -> Request | None:
        """Gives the request for what follows; None where it asks for several choices, or must end in a tool call."""
        body, url = request.body, self._url(request.url)
        if not isinstance(body, Mapping) or url is None or _is_closed(body):
            return None
        messages = body.get("messages")
        if not isinstance(messages, list | tuple) or not all(isinstance(one, Mapping) for one in messages):
            return None
        last = messages[-1] if messages and messages[-1].get("role") == "assistant" else None
        prefix = self._prefix(said, {} if last is None else last)
        if prefix is None or (last is not None and not self._is_ours(body, last)):
            return None
        asked = {**body, **self.body, "messages": [*(messages if last is None else messages[:-1]), prefix]}
        for name, least in _LIMITS.items():
            limit = body.get(name)
            if isinstance(limit, int) and not isinstance(limit, bool):
                asked[name] = max(least, limit - said.tokens)
        return replace(request, url=url, body=asked)

    def _prefix(self, said: Said, given: Mapping[str, Any]) -> dict[str, Any] | None:
        """The message to go on from: the prefix that the caller gave, if any, and behind it what was said."""
        thought = said.reasoning if self.reasoning else ""
        if not said.text and not thought:
            return None
        content = given.get("content") or ""
        if not isinstance(content, str):
            return None
        if self.echoes and said.text.startswith(content):
            content = ""  # the answer began with it
        prefix = {"role": "assistant", **given, "content": content + said.text, **self.message}
        if thought:
            prefix[self.reasoning] = f"{given.get(self.reasoning) or ''}{thought}"
        return prefix

    def _is_ours(self, body: Mapping[str, Any], last: Mapping[str, Any]) -> bool:
        """Says whether a conversation that ends with the assistant's words was to be continued in this very way."""
        marked = all(last.get(name) == value for name, value in self.message.items())
        return marked and all(body.get(name) == value for name, value in self.body.items())

    def _url(self, url: str) -> str | None:
        """The address at which the server continues."""
        if not self.base:
            return url
        at = urlsplit(url)
        root, endpoint, rest = at.path.rpartition(ENDPOINT)
        if not endpoint or rest:
            return None
        root = root.removesuffix("/v1").removesuffix(self.base)
        return urlunsplit(at._replace(path=root + self.base + ENDPOINT))


def _is_closed(body: Mapping[str, Any]) -> bool:
    """Several choices have several prefixes; and no text is the beginning of a call that the model must make."""
    tools = body.get("tool_choice")
    return body.get("n", 1) not in (1, None) or isinstance(tools, Mapping) or tools in ("required", "any")
