"""Writes the wire bytes of every attempt to a file, for looking at and for replaying.

It must never change, delay or break the stream: a recording that cannot be written is given up, and said so in a
`RecordingFailed` moment. It must never write a secret: headers are redacted, and a prompt is written only on request.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, ClassVar

import msgspec

from holdfast._core import Source, Stream
from holdfast._errors import EndOfStream, StatusError, StreamError
from holdfast._types import Head, Request
from holdfast.machines.recording import End, Failure, Sent, Story, beside, numbered
from holdfast.machines.redact import clean_url, redact_headers, scrub
from holdfast.moments import RecordingFailed

_BUFFER_BYTES = 65_536  # a write to the system takes some 20 microseconds; this makes it one in a few hundred events


@dataclass(slots=True, frozen=True, kw_only=True)
class Record:
    """Records what arrives; belongs left of `parse_sse()`. `MemorySource.replay(path)` plays a recording.

    The first attempt goes to `path`, the second of `answer.sse` to `answer.2.sse` and so on. `{id}` in the path
    becomes the stream's id; without it the next stream takes the place of the last, whose later attempts are removed.
    A file holds the body bytes as they arrived (a refused request's: the first 64 KiB), and beside it stands
    `path + ".json"`: request, response head, and how the attempt ended (`clean`, `failure`, or `closed` by this side).
    The latter is written last, so a recording without it is not whole. Headers are redacted; `prompts=True` adds the
    request's body.

    Files are written where the stream is read, in pieces of 64 KiB.
    """

    path: str | os.PathLike[str] = field(kw_only=False)
    prompts: bool = False
    takes: ClassVar[type] = bytes
    gives: ClassVar[type] = bytes

    def __post_init__(self) -> None:
        path = Path(self.path)
        if path.is_dir() or not path.parent.is_dir():
            raise ValueError(f"Record(path) must name a file in a directory that exists, not {str(self.path)!r}")

    def __call__(self, inner: Source[bytes]) -> Source[bytes]:
        return _RecordSource(inner, self)


@dataclass(slots=True)
class _RecordSource:
    inner: Source[bytes]
    settings: Record

    async def open(self, request: Request) -> Stream[bytes]:
        tape = _Tape(self.settings, request)
        try:
            stream = await self.inner.open(request)
        except StreamError as failure:
            tape.refused(failure)
            raise
        except BaseException:
            tape.refused(None)
            raise
        tape.begin(stream.head)
        return _RecordStream(stream, tape)


@dataclass(slots=True)
class _RecordStream:
    inner: Stream[bytes]
    tape: _Tape

    @property
    def head(self) -> Head:
        return self.inner.head

    async def receive(self) -> Sequence[bytes]:
        try:
            batch = await self.inner.receive()
        except EndOfStream:
            self.tape.end("clean")
            raise
        except StreamError as failure:
            self.tape.end("failure", failure)
            raise
        self.tape.write(batch)
        return batch

    async def aclose(self) -> None:
        self.tape.end("closed")
        await self.inner.aclose()


class _Tape:
    """The files of one attempt. `_file` is there from the head to the end, or to the first error in writing."""

    __slots__ = ("_attempt", "_call", "_file", "_head", "_path", "_request", "_settings", "_since", "_size")

    def __init__(self, settings: Record, request: Request) -> None:
        call = request.call
        self._attempt = call.requests + 1
        self._settings = settings
        self._request = request
        self._call = call
        self._path = numbered(Path(os.fspath(settings.path).replace("{id}", call.id)), self._attempt)
        self._since = call.clock.now()
        self._file: BinaryIO | None = None
        self._head: Head | None = None
        self._size = 0

    def begin(self, head: Head | None) -> None:
        self._head = head
        try:
            self._file = self._path.open("wb", _BUFFER_BYTES)
            beside(self._path).unlink(missing_ok=True)  # of an older recording; this one's comes when it is whole
            if self._attempt == 1:
                _remove_later_attempts(self._path)
        except OSError as error:
            self._give_up(error)

    def refused(self, failure: StreamError | None) -> None:
        """No stream was opened; None: because this side gave up."""
        if self._call.requests < self._attempt:
            return  # and nothing was sent
        refusal = failure if isinstance(failure, StatusError) else None
        self.begin(refusal.head if refusal is not None else None)
        if refusal is not None:
            self.write([refusal.body])
        self.end("closed" if failure is None else "failure", failure)

    def write(self, batch: Sequence[bytes]) -> None:
        if self._file is None:
            return
        try:
            for piece in batch:
                self._file.write(piece)
                self._size += len(piece)
        except OSError as error:
            self._give_up(error)

    def end(self, how: End, failure: StreamError | None = None) -> None:
        """Closes the files. Only the first end counts."""
        if self._file is None:
            return
        try:
            self._file.close()
            told = msgspec.json.encode(self._story(how, failure))
            beside(self._path).write_bytes(msgspec.json.format(told))
            self._file = None
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()
        self._call.note(RecordingFailed(path=str(self._path), reason=error.strerror or type(error).__name__))

    def _story(self, how: End, failure: StreamError | None) -> Story:
        request, call, head = self._request, self._call, self._head
        sent = Sent(url=clean_url(request.url), method=request.method, headers=redact_headers(request.headers))
        if self._settings.prompts:
            body = request.body
            sent.body = body if body is None or isinstance(body, Mapping) else body.decode("utf-8", "replace")
        bore = {**request.call.carried, **request.headers}
        told = Failure(type(failure).__name__, scrub(str(failure), bore, request.url)) if failure is not None else None
        if head is not None:
            head = replace(head, url=clean_url(head.url), headers=redact_headers(head.headers))
        return Story(
            stream_id=call.id,
            attempt=self._attempt,
            dialect=call.dialect.name if call.dialect is not None else "",
            ended_at=call.clock.wall(),
            seconds=round(call.clock.now() - self._since, 6),
            bytes=self._size,
            ended=how,
            error=told,
            request=sent,
            response=head,
        )


def _remove_later_attempts(path: Path) -> None:
    """Removes what an older stream left beside `path`, which would look like this one's.

    Only what its own story calls a later attempt: `answer.2.sse` may be the name of somebody's other recording.
    """
    attempt = 2
    with contextlib.suppress(OSError, ValueError):  # nothing there, or nothing of ours
        while True:
            later = numbered(path, attempt)
            if msgspec.json.decode(beside(later).read_bytes(), type=Story).attempt != attempt:
                return
            later.unlink(missing_ok=True)
            beside(later).unlink()
            attempt += 1
