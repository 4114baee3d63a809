"""What a whole answer cost, read out of its document: so that it is billed as a stream is.

Where it does not say so it is estimated, for money that was spent is spent. Whatever a document holds, nothing fails.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from holdfast._bill import prompt_tokens
from holdfast._types import Request, Usage
from holdfast.dialects import chat, gemini, messages, responses

_BYTES_A_TOKEN = 4
# The same counts under the same names as at a stream's end, where those modules read them.
_USAGES: Mapping[type, tuple[str, Callable[[dict[str, Any]], Usage]]] = {
    chat.ChatWire: ("usage", chat._usage),  # noqa: SLF001 - see above
    gemini.GeminiWire: ("usageMetadata", gemini._usage),  # noqa: SLF001 - see above
    messages.MessagesWire: ("usage", messages._usage),  # noqa: SLF001 - see above
    responses.ResponsesWire: ("usage", responses._usage),  # noqa: SLF001 - see above
}


@dataclass(slots=True)
class WholeEvidence:
    """The `Evidence` of a whole answer: it is there, and all of it."""

    usage: Usage | None
    complete: bool = True
    missing: str = ""
    finish_reason: str | None = "stop"
    answer_id: str = ""


def note_usage(request: Request, document: bytes) -> None:
    """Tells a request's call what its whole answer cost."""
    call = request.call
    if call.attempt is not None:
        evidence = WholeEvidence(_told(request, document) or _estimated(request, document))
        call.evidence = call.attempt.evidence = evidence
        call.attempt.dialect = request.dialect.name if request.dialect is not None else ""


def _told(request: Request, document: bytes) -> Usage | None:
    name, read = _USAGES.get(type(request.dialect.wire), ("", None)) if request.dialect is not None else ("", None)
    try:
        raw = msgspec.json.decode(document)[name]
        usage = read(raw) if read is not None and isinstance(raw, dict) else None
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
        return None
    return usage if usage is not None and None not in (usage.input_tokens, usage.output_tokens) else None


def _estimated(request: Request, document: bytes) -> Usage:
    given, answered = prompt_tokens(request.body), -(-len(document) // _BYTES_A_TOKEN)
    return Usage(input_tokens=given, output_tokens=answered, total_tokens=given + answered, estimated=True)
