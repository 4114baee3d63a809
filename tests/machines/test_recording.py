"""What stands beside a recording: read whatever an older or a newer Holdfast wrote, refused where it is none."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from holdfast._errors import StreamBroken, Truncated
from holdfast.machines.recording import Failure, Story, beside, numbered


def test_files_are_called_after_the_first() -> None:
    assert [numbered(Path("a/b.c.sse"), n).name for n in (1, 2, 10)] == ["b.c.sse", "b.c.2.sse", "b.c.10.sse"]
    assert beside(Path("a/b.sse")) == Path("a/b.sse.json")


def test_keys_may_be_missing_and_more() -> None:
    story = msgspec.json.decode(b'{"stream_id": "x", "response": {"status": 400}, "new": 1}', type=Story)
    assert (story.stream_id, story.attempt, story.response and story.response.status) == ("x", 1, 400)
    for foreign in (b"{}", b'{"stream_id": "x", "ended": "somehow"}'):
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(foreign, type=Story)


def test_a_failure_is_made_again_as_far_as_its_message_goes() -> None:
    assert Story(stream_id="x").failure() is None
    kinds = [
        type(Story(stream_id="x", error=Failure(name, "m")).failure())
        for name in ("Truncated", "DecodeError", "Anything")
    ]
    assert kinds == [Truncated, StreamBroken, StreamBroken]
