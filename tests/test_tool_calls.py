"""A tool call is read only where nothing of it can be missing: half an argument gives an error to what would run it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from holdfast import Completion, MemorySource, Partial, Pipe, StreamBroken, ToolCall, ToolCallError, assemble, parse_sse
from holdfast import verify as verified

CALL = {"index": 0, "id": "call_1", "function": {"name": "delete", "arguments": ""}}


def body(*arguments: str, finish: str | None = "tool_calls") -> bytes:
    deltas: list[dict[str, Any]] = [{"tool_calls": [CALL]}]
    deltas += [{"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} for piece in arguments]
    chunks = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    if finish is not None:
        chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks)


def answer(*arguments: str, finish: str = "tool_calls") -> Completion:
    return assemble(body(*arguments, finish=finish), "openai")


@pytest.mark.parametrize(("arguments", "value"), [(('{"path"', ': "a"}'), {"path": "a"}), ((), {}), (("  ",), {})])
def test_a_whole_call_gives_its_arguments(arguments: tuple[str, ...], value: object) -> None:
    (call,) = answer(*arguments).tool_calls
    assert call.complete
    assert call.input == value


def test_a_named_tool_may_end_with_stop() -> None:
    assert answer("{}", finish="stop").tool_calls[0].input == {}


@pytest.mark.parametrize("finish", ["length", "content_filter", "max_tokens", "MAX_TOKENS", "pause_turn"])
@pytest.mark.parametrize("arguments", ["", '{"path": "/"}', '{"path": "/'])
def test_a_call_of_an_answer_that_was_cut_is_not_read(arguments: str, finish: str) -> None:
    (call,) = answer(arguments, finish=finish).tool_calls
    assert not call.complete
    with pytest.raises(ToolCallError, match=r"the tool call 'delete' \(number 0\) must not run: its answer broke off"):
        _ = call.input
    assert call.arguments == arguments


@pytest.mark.parametrize("arguments", [(), ('{"path": "/"}',), ('{"path": "/', "tmp")])
async def test_a_call_of_a_partial_is_not_read_here_or_in_another_process(arguments: tuple[str, ...]) -> None:
    pipe = Pipe(MemorySource(body(*arguments, finish=None))) | parse_sse() | verified("openai")
    with pytest.raises(StreamBroken) as broken:
        await pipe.stream()
    for partial in (broken.value.partial, Partial.from_json(broken.value.partial.to_json())):
        (call,) = partial.answer.tool_calls
        assert call.arguments == "".join(arguments)
        assert not call.complete
        with pytest.raises(ToolCallError, match="broke off"):
            _ = call.input


@pytest.mark.parametrize("arguments", ['{"path": "/', "delete it", "{} {}", '{"a": NaN}', "[" * 100_000, '"\ud83c"'])
def test_arguments_that_are_no_json_are_named_and_not_quoted(arguments: str) -> None:
    call = ToolCall("call_1", "delete", arguments, complete=True)
    with pytest.raises(ToolCallError, match=f"are {len(arguments)} characters that are no JSON") as refused:
        _ = call.input
    assert isinstance(refused.value, ValueError)
    assert refused.value.call is call
    assert refused.value.__context__ is None
    assert "path" not in str(refused.value)


def test_a_call_that_nobody_vouched_for_is_not_complete() -> None:
    assert not ToolCall("call_1", "delete", "{}").complete


async def test_a_whole_answer_has_whole_calls_as_a_completion_and_as_a_partial() -> None:
    pipe = Pipe(MemorySource(body("{}"))) | parse_sse() | verified("openai")
    async with pipe.stream() as deltas:
        async for _ in deltas:
            assert not any(call.complete for call in deltas.partial.answer.tool_calls)
    assert deltas.completion.tool_calls[0].input == deltas.partial.answer.tool_calls[0].input == {}
