"""Each example runs as a program of its own, against a server that cuts the first answer it sends."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from bench.sdks.tools import ToolShape
from holdfast.testing import Answer
from holdfast.testing.server import (
    LAST_CHUNK,
    STREAM_HEAD,
    ReceivedRequest,
    Reset,
    ScriptedServer,
    Send,
    Step,
    chunked,
    sse,
)
from holdfast.testing.shapes import AnthropicShape, GeminiShape
from tests.binaries import sdk_python
from tests.pages import interpreted, started

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))
TEXT = "Because the current never rests. 因为潮水不停。"
KEYS = ("DEEPSEEK_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY")
ELSEWHERE = {
    "langchain_openai_model": "newest",
    "litellm_completion": "litellm",
    "mcp_client": "newest",
    "pydantic_ai_agent": "newest",
}
"""Examples for packages that are heavy, or at odds with others: each runs in an environment of the SDK matrix."""


def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
    return sse(json.dumps({"id": "one", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}))


def events(request: ReceivedRequest) -> list[bytes]:
    path, answer = request.path.partition("?")[0], Answer(pieces=tuple(TEXT))
    if path.endswith("/messages"):
        return AnthropicShape().events(answer, "one", ids=False)
    if path.endswith(":streamGenerateContent"):
        return GeminiShape().events(answer, "one", ids=False)
    if path == "/mcp":
        return tool(request, answer)
    if "tools" in request.json():
        call = {"index": 0, "id": "call_1", "function": {"name": "weather", "arguments": '{"city": '}}
        rest = {"index": 0, "function": {"arguments": '"Kiel"}'}}
        return [chunk({"tool_calls": [call]}), chunk({"tool_calls": [rest]}), chunk({}, "tool_calls")]
    return [chunk({"role": "assistant"}), *(chunk({"content": c}) for c in TEXT), chunk({}, "stop")]


def tool(request: ReceivedRequest, answer: Answer) -> list[bytes]:
    """A tool's answer, or what follows the event that was the last to arrive."""
    question = ToolShape().read(request)
    assert question is not None
    assert question.shape is not None
    place, _, last = request.headers.get("last-event-id", "").rpartition("/")
    return question.shape.events(answer, "one", ids=True)[int(last) if place else 0 :]


class Cutting:
    """Resets the first answer's connection in the middle where the example can bear it; serves the rest in full."""

    def __init__(self, *, cuts: bool) -> None:
        self.cuts = cuts

    def __call__(self, request: ReceivedRequest) -> Iterator[Step]:
        whole = events(request)
        cut, self.cuts = self.cuts, False
        yield Send(STREAM_HEAD)
        for event in whole[: len(whole) // 2] if cut else whole:
            yield Send(chunked(event))
        if cut:
            yield Reset()
        elif request.path.endswith("/chat/completions"):
            yield Send(chunked(b"data: [DONE]\n\n") + LAST_CHUNK)
        else:
            yield Send(LAST_CHUNK)


async def run(path: Path, cwd: Path, env: Mapping[str, str]) -> tuple[int, str, str]:
    """Runs an example; gives its exit code, and what it wrote to standard output and error."""
    if path.stem not in ELSEWHERE:
        return await interpreted(path, cwd=cwd, env=env)
    # What other packages warn of is theirs.
    return await started(sdk_python(ELSEWHERE[path.stem]), "-W", "ignore", str(path), cwd=cwd, env=env)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
async def test_an_example_does_what_it_says(path: Path, tmp_path: Path) -> None:
    async with ScriptedServer(Cutting(cuts=path.stem != "own_layers")) as server:
        env = {**os.environ, **dict.fromkeys(KEYS, "sk-example"), "BASE_URL": server.url}
        code, out, err = await run(path, tmp_path, env)
    assert (code, err) == (0, "")
    expected = "weather({'city': 'Kiel'})" if path.stem == "tools" else TEXT
    assert expected in out
