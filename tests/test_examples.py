"""Each example runs as a program of its own, against a server that cuts the first answer it sends."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

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

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))
TEXT = "Because the current never rests. 因为潮水不停。"


def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
    return sse(json.dumps({"id": "one", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}))


def events(request: ReceivedRequest) -> list[bytes]:
    if "tools" in request.json():
        call = {"index": 0, "id": "call_1", "function": {"name": "weather", "arguments": '{"city": '}}
        rest = {"index": 0, "function": {"arguments": '"Kiel"}'}}
        return [chunk({"tool_calls": [call]}), chunk({"tool_calls": [rest]}), chunk({}, "tool_calls")]
    return [chunk({"role": "assistant"}), *(chunk({"content": c}) for c in TEXT), chunk({}, "stop")]


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
        yield Reset() if cut else Send(chunked(b"data: [DONE]\n\n") + LAST_CHUNK)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
async def test_an_example_does_what_it_says(path: Path, tmp_path: Path) -> None:
    async with ScriptedServer(Cutting(cuts=path.stem != "own_layers")) as server:
        program = await asyncio.create_subprocess_exec(
            sys.executable,
            "-W",
            "error",
            str(path),
            cwd=tmp_path,
            env={**os.environ, "BASE_URL": server.url, "DEEPSEEK_API_KEY": "sk-example"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await program.communicate()
    assert (program.returncode, err.decode()) == (0, "")
    expected = "weather({'city': 'Kiel'})" if path.stem == "tools" else TEXT
    assert expected in out.decode()
