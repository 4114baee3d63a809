"""Every transcript beside this file, cut anywhere, assembles to what stands beside it.

`transcripts/NAME.sse` is a body as a provider sends it, `NAME.json` what it says: its `dialect`, and any of `text`,
`reasoning`, `refusal`, `tool_calls`, `finish_reason`, `usage` (as it was sent), or the `error` it ends in.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from holdfast._errors import StreamError
from holdfast._types import Completion
from holdfast.dialects import DIALECTS
from holdfast.offline import assemble
from tests.cuts import bytewise, randomly
from tests.dialects.example_provider import TIDEPOOL

FOLDER = Path(__file__).parent / "transcripts"
TRANSCRIPTS = sorted(FOLDER.glob("*.sse"))
PROVIDERS = {**DIALECTS, TIDEPOOL.name: TIDEPOOL}


def said(answer: Completion) -> dict[str, Any]:
    calls = [{"index": c.index, "id": c.id, "name": c.name, "arguments": c.arguments} for c in answer.tool_calls]
    return {
        "text": answer.text,
        "reasoning": answer.reasoning,
        "refusal": answer.refusal,
        "tool_calls": calls,
        "finish_reason": answer.finish_reason,
        "usage": answer.usage.raw if answer.usage is not None else None,
    }


def read(chunks: Iterable[bytes], dialect: str) -> dict[str, Any]:
    """What a body says, whole or up to its error."""
    try:
        return said(assemble(chunks, PROVIDERS[dialect]))
    except StreamError as error:
        told = {"kind": type(error).__name__, "retryable": error.retryable, "code": getattr(error, "code", "")}
        return {**said(error.partial.answer), "error": told}


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_a_transcript_says_what_stands_beside_it(path: Path) -> None:
    data, expected = path.read_bytes(), json.loads(path.with_suffix(".json").read_text("utf-8"))
    for chunks in ([data], bytewise(data), *randomly(data, times=5, most=100)):
        told = read(chunks, expected["dialect"])
        assert {"dialect": expected["dialect"], **{name: told.get(name) for name in expected if name != "dialect"}} == (
            expected
        )
        assert ("error" in told) == ("error" in expected), told


def test_nothing_lies_there_unread() -> None:
    assert {path.with_suffix(".json") for path in TRANSCRIPTS} == set(FOLDER.glob("*.json"))
    assert TRANSCRIPTS
