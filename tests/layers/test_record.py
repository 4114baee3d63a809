"""Record leaves every attempt's bytes in a file, whatever became of it, and never a secret."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from holdfast._core import Call, Source
from holdfast._errors import ConnectError, StatusError, StreamBroken
from holdfast._pipe import Pipe
from holdfast._types import Head, Request
from holdfast.layers.read_ahead import ReadAhead
from holdfast.layers.record import Record
from holdfast.moments import Moment, RecordingFailed
from holdfast.sources.memory import MemorySource
from holdfast.testing import cancel_everywhere, check_layer
from tests.puppet import Puppet, Script, drain

PIECES = [b"data: 1\n", b"\ndata: ", [b"2\n", b"\n"]]
WHOLE = b"data: 1\n\ndata: 2\n\n"


def request() -> Request:
    return Request(
        url="https://host.example/v1?key=sk-123456789",
        headers={"Authorization": "Bearer sk-123456789", "Accept": "text/event-stream"},
        body={"messages": [{"role": "user", "content": "a prompt"}]},
    )


def told(path: Path) -> Any:
    return json.loads(path.with_name(path.name + ".json").read_text())


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def record(path: Path, *scripts: Any, prompts: bool = False, opens: int = 1) -> list[Any]:
    """Opens and reads as often as told, in one call, as a retry would; gives what each attempt came to."""
    return await read_attempts((Pipe[bytes](Puppet(*scripts)) | Record(path, prompts=prompts))._top, opens)


async def read_attempts(source: Source[bytes], opens: int) -> list[Any]:
    asked = replace(request(), call=Call())
    came: list[Any] = []
    for _ in range(opens):
        try:
            stream = await source.open(asked)
        except (StatusError, ConnectError) as error:
            came.append(error)
            continue
        try:
            came.append(b"".join(await drain(stream)))
        except StreamBroken as error:
            came.append(error)
        await stream.aclose()
    return came


@pytest.mark.parametrize("path", ["", ".", "missing/answer.sse"])
def test_a_path_that_no_file_can_have_is_refused_at_once(path: str) -> None:
    with pytest.raises(ValueError, match="directory that exists"):
        Record(path)


async def test_the_file_has_the_body_bytes_exactly(tmp_path: Path) -> None:
    file = tmp_path / "answer.sse"
    assert await record(file, PIECES) == [WHOLE]
    assert file.read_bytes() == WHOLE
    assert names(tmp_path) == ["answer.sse", "answer.sse.json"]


async def test_the_story_beside_it_tells_request_response_and_end(tmp_path: Path) -> None:
    file = tmp_path / "answer.sse"
    head = Head(headers={"content-type": "text/event-stream", "set-cookie": "session=1"}, url="https://host/v1?k=1")
    await record(file, Script(*PIECES, head=head))
    story = told(file)
    assert story["request"] == {
        "url": "https://host.example/v1",
        "method": "POST",
        "headers": {"Authorization": "[redacted]", "Accept": "text/event-stream"},
    }
    assert story["response"] == {
        "status": 200,
        "url": "https://host/v1",
        "encoding": "identity",
        "headers": {"content-type": "text/event-stream", "set-cookie": "[redacted]"},
    }
    assert (story["attempt"], story["bytes"], story["ended"], story["error"]) == (1, len(WHOLE), "clean", None)


async def test_no_file_holds_a_key_or_a_prompt(tmp_path: Path) -> None:
    await record(tmp_path / "answer.sse", [b": ok\n\n", StreamBroken("sk-123456789 was cut")])
    written = b"".join((tmp_path / name).read_bytes() for name in names(tmp_path))
    assert b"sk-123456789" not in written
    assert b"a prompt" not in written


async def test_the_prompt_is_written_on_request(tmp_path: Path) -> None:
    file = tmp_path / "answer.sse"
    await record(file, PIECES, prompts=True)
    assert told(file)["request"]["body"] == {"messages": [{"role": "user", "content": "a prompt"}]}


async def test_every_attempt_has_a_file_and_a_failed_one_keeps_what_arrived(tmp_path: Path) -> None:
    file = tmp_path / "answer.sse"
    refusal = StatusError("busy", head=Head(status=429), body=b'{"error": {}}')
    came = await record(file, [b"data: 1\n", StreamBroken("cut")], refusal, ConnectError("refused"), PIECES, opens=4)
    assert [type(one) for one in came] == [StreamBroken, StatusError, ConnectError, bytes]
    bodies = [tmp_path / name for name in ("answer.sse", "answer.2.sse", "answer.3.sse", "answer.4.sse")]
    assert [path.read_bytes() for path in bodies] == [b"data: 1\n", b'{"error": {}}', b"", WHOLE]
    stories = [told(path) for path in bodies]
    assert [story["ended"] for story in stories] == ["failure", "failure", "failure", "clean"]
    assert [story["error"] and story["error"]["type"] for story in stories] == [
        "StreamBroken",
        "StatusError",
        "ConnectError",
        None,
    ]
    assert [story["response"] and story["response"]["status"] for story in stories] == [200, 429, None, 200]
    assert len({story["stream_id"] for story in stories}) == 1


async def test_the_id_of_the_stream_keeps_streams_apart(tmp_path: Path) -> None:
    for _ in range(2):
        await record(tmp_path / "{id}.sse", PIECES)
    files = [tmp_path / name for name in names(tmp_path) if name.endswith(".sse")]
    assert [file.stem for file in files] == [told(file)["stream_id"] for file in files]
    assert len(files) == 2


async def test_a_stream_given_up_leaves_what_arrived(tmp_path: Path) -> None:
    file = tmp_path / "answer.sse"
    async with (Pipe[bytes](Puppet(PIECES)) | Record(file)).stream(request()) as pieces:
        async for piece in pieces:
            assert piece == b"data: 1\n"
            break
    assert file.read_bytes() == b"data: 1\n"
    assert told(file)["ended"] == "closed"


async def test_a_request_that_was_never_sent_leaves_no_file(tmp_path: Path) -> None:
    call = Call(max_requests=1)
    top = (Pipe[bytes](Puppet(PIECES)) | Record(tmp_path / "answer.sse"))._top
    sent = Request(call=call)
    await (await top.open(sent)).aclose()
    with pytest.raises(Exception, match="has sent its 1 requests"):
        await top.open(sent)
    assert names(tmp_path) == ["answer.sse", "answer.sse.json"]


async def test_wherever_it_is_cancelled_the_files_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[BinaryIO] = []
    real = Path.open

    def spy(path: Path, *args: Any, **settings: Any) -> Any:
        opened.append(real(path, *args, **settings))
        return opened[-1]

    monkeypatch.setattr(Path, "open", spy)
    puppet = Puppet(PIECES, repeat=True)
    pipe = Pipe[bytes](puppet) | Record(tmp_path / "answer.sse") | ReadAhead()

    async def scenario() -> None:
        async with pipe.stream(request()) as pieces:
            assert b"".join([piece async for piece in pieces]) == WHOLE

    def check() -> None:
        assert not puppet.live
        assert all(file.closed for file in opened)

    assert await cancel_everywhere(scenario, check=check) > 3
    assert opened


class _FullDisk:
    """A file on a disk that fills up after the first write."""

    def __init__(self, fails_at: str) -> None:
        self.fails_at = fails_at
        self.closed = 0

    def write(self, piece: bytes) -> None:
        self._do("write")

    def close(self) -> None:
        self.closed += 1
        self._do("close")

    def _do(self, what: str) -> None:
        if what == self.fails_at:
            raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("fails_at", ["open", "write", "close"])
async def test_a_recording_that_cannot_be_written_breaks_no_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: str
) -> None:
    disk = _FullDisk(fails_at)
    real = Path.open

    def full(path: Path, mode: str, *args: Any, **settings: Any) -> Any:
        if mode != "wb":
            return real(path, mode, *args, **settings)
        disk._do("open")
        return disk

    monkeypatch.setattr(Path, "open", full)
    moments: list[Moment] = []
    pipe = Pipe[bytes](Puppet(PIECES), listeners=[moments.append]) | Record(tmp_path / "answer.sse")
    async with pipe.stream(request()) as pieces:
        assert b"".join([piece async for piece in pieces]) == WHOLE
    (failed,) = [moment for moment in moments if isinstance(moment, RecordingFailed)]
    assert (failed.path, failed.reason) == (str(tmp_path / "answer.sse"), "No space left on device")
    assert bool(disk.closed) == (fails_at != "open")
    assert not (tmp_path / "answer.sse.json").exists()


async def test_an_older_story_does_not_stand_beside_a_recording_that_is_not_whole(tmp_path: Path) -> None:
    file = tmp_path / "answer.sse"
    await record(file, PIECES)
    stream = await Record(file)(Puppet(PIECES)).open(Request(call=Call()))
    assert not file.with_name("answer.sse.json").exists()
    assert b"".join(await drain(stream)) == WHOLE
    assert told(file)["ended"] == "clean"


async def test_a_stream_to_the_same_file_leaves_nothing_of_an_older_one(tmp_path: Path) -> None:
    file = tmp_path / "answer.sse"
    await record(file, [StreamBroken("cut")], [StreamBroken("cut")], PIECES, opens=3)
    assert len(names(tmp_path)) == 6
    await record(file, PIECES)
    assert names(tmp_path) == ["answer.sse", "answer.sse.json"]


async def test_what_only_looks_like_a_later_attempt_stays(tmp_path: Path) -> None:
    await record(tmp_path / "answer.2.sse", PIECES)  # a recording of that name, and no second attempt of another
    (tmp_path / "answer.3.sse").write_bytes(b"somebody's own")
    await record(tmp_path / "answer.sse", PIECES)
    assert (tmp_path / "answer.2.sse").read_bytes() == WHOLE
    assert (tmp_path / "answer.3.sse").exists()


async def test_a_recording_plays_again_attempt_by_attempt(tmp_path: Path) -> None:
    file = tmp_path / "answer.sse"
    busy = StatusError("busy", head=Head(status=503), body=b"{}")
    recorded = await record(file, busy, [b"data: 1\n", StreamBroken("cut")], PIECES, opens=3)
    replay = MemorySource.replay(file)
    played = await read_attempts(replay, 3)
    assert [type(came) for came in played] == [type(came) for came in recorded]
    assert played[-1] == WHOLE


async def test_the_contract(tmp_path: Path) -> None:
    await check_layer(Record(tmp_path / "answer.sse"), items=[b"data: 1\n", b"\n", b"data", b": 2\n\n"])
