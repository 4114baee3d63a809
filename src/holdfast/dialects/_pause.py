"""A turn that the model has paused: in the Messages shape it goes back whole, block by block, and the model goes on.

https://platform.claude.com/docs/en/build-with-claude/handling-stop-reasons#pause-turn: the server's own tools may take
longer than one answer. What they found stands in blocks that are no text, so the turn is put together from the events.
It must never send a block that is not exactly what came: where one is in doubt, nothing is asked.

Gemini keeps the turn itself, and takes the same request with a token: python-genai 3.4, `automatic_continuation`, which
tests/sdks holds this against.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from holdfast._types import Event, Request
from holdfast.dialects._wire import asked, plain

_GROWS = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}


@dataclass(slots=True, frozen=True)
class SameTurn:
    """Sends a paused turn back as the assistant's: see `PauseRung`."""

    def resume(self, request: Request, events: Sequence[Event]) -> Request | None:
        """Gives the request that goes on with the turn, None where it cannot be put together, or waits for a tool."""
        body = asked(request)
        try:
            blocks = _blocks(events)
        except (KeyError, TypeError, ValueError):  # a block of a kind that nobody knows yet
            return None
        turns = body.get("messages") if body is not None else None
        if body is None or not blocks or not isinstance(turns, list | tuple) or not turns:
            return None
        *before, last = turns
        if isinstance(last, Mapping) and last.get("role") == "assistant":  # it was paused before
            content = last.get("content")
            if not isinstance(content, list):
                return None
            blocks = [*content, *blocks]
        else:
            before = list(turns)
        return replace(request, body={**body, "messages": [*before, {"role": "assistant", "content": blocks}]})


@dataclass(slots=True, frozen=True)
class SameRequest:
    """Sends the request again with the token that its answer ended with (Gemini): see `PauseRung`."""

    def resume(self, request: Request, events: Sequence[Event]) -> Request | None:
        """Gives the request that brings the rest, None where no token came, or the one that was sent."""
        body = asked(request)
        token = next((token for event in reversed(events) if (token := _token(event))), None)
        if body is None or token is None or token == body.get("continuationToken"):
            return None
        return replace(request, body={**body, "continuationToken": token})


def _token(event: Event) -> str | None:
    """The first candidate's `continuationToken`: the only one that can be gone on with (python-genai)."""
    try:
        token = plain(event)["candidates"][0]["continuationToken"]
    except (KeyError, IndexError, TypeError):
        return None
    return token if isinstance(token, str) else None


def _blocks(events: Sequence[Event]) -> list[dict[str, Any]] | None:
    """Puts the blocks of a message together; None where one did not end, grew in an unknown way, or is the caller's."""
    blocks: dict[int, dict[str, Any]] = {}
    inputs: dict[int, str] = {}
    ended = set()
    for event in events:
        value = plain(event)
        kind, index = (value.get("type"), value.get("index", -1)) if isinstance(value, dict) else (None, -1)
        if kind == "content_block_start":
            blocks[index] = dict(value["content_block"])
        elif kind == "content_block_delta" and not _grow(blocks[index], value["delta"], inputs, index):
            return None
        elif kind == "content_block_stop":
            ended.add(index)
    for index, written in inputs.items():
        blocks[index]["input"] = msgspec.json.decode(written) if written.strip() else {}
    if ended != blocks.keys() or any(block.get("type") == "tool_use" for block in blocks.values()):
        return None
    return [blocks[index] for index in sorted(blocks)]


def _grow(block: dict[str, Any], delta: Mapping[str, Any], inputs: dict[int, str], index: int) -> bool:
    kind = delta.get("type", "")
    if kind in _GROWS:
        name = _GROWS[kind]
        block[name] = (block.get(name) or "") + delta[name]
    elif kind == "input_json_delta":
        inputs[index] = inputs.get(index, "") + delta["partial_json"]
    elif kind == "citations_delta":
        block["citations"] = [*(block.get("citations") or ()), delta["citation"]]
    else:
        return False
    return True
