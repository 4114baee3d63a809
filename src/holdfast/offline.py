"""Recorded bytes to what they say, without any I/O: the same machines, the same errors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from holdfast._errors import EndOfStream, StreamError, UsageError
from holdfast._types import Completion, Delta, Event, Partial, Verdict
from holdfast.dialects import Dialect, find
from holdfast.machines.cursor import Cursor
from holdfast.machines.sse import SseParser
from holdfast.machines.transcript import Transcript
from holdfast.moments import Report

Bytes = bytes | bytearray | memoryview


@dataclass(slots=True, frozen=True, kw_only=True)
class EventLog:
    """What a body of server-sent events said.

    `last_event_id` is what a reconnection would send; `retry` the server's reconnection time in seconds, None without.
    """

    events: tuple[Event, ...] = ()
    last_event_id: str = ""
    retry: float | None = None


def parse_events(chunks: Bytes | Iterable[bytes]) -> EventLog:
    """Parses any bytes of server-sent events, cut anywhere. Raises `DecodeError` over a size limit."""
    parser = SseParser()
    events: list[Event] = []
    for chunk in _batch(chunks):
        parser.feed((chunk,), events)
    parser.end(events)
    retry = parser.retry
    return EventLog(
        events=tuple(events), last_event_id=parser.last_event_id, retry=None if retry is None else retry / 1000
    )


def assemble(chunks: Bytes | Iterable[bytes], dialect: str | Dialect = "auto") -> Completion:
    """Puts a recorded answer together, cut anywhere. Whose it is is told by its first event where nobody says it.

    Raises what a stream of these bytes would: `UpstreamError`, `Truncated`, `DecodeError`, `NotAStream`. Their
    `.partial` has what was whole.
    """
    dialect = find(dialect)
    cursor = Cursor()
    parser, reader, answer = SseParser(cursor, admits=cursor.admits), dialect.reader(None, cursor), Transcript()
    events: list[Event] = []
    deltas: list[Delta] = []
    try:
        try:
            for chunk in _batch(chunks):
                try:
                    parser.feed((chunk,), events)
                finally:  # what came before a failure counts, and may be the end
                    reader.feed(events, deltas)
                events.clear()
                answer.add(deltas)
                deltas.clear()
            parser.end(events)
            reader.end(deltas)
        except EndOfStream:
            pass  # the proven end mark: nothing after it counts
        answer.add(deltas)
    except StreamError as error:
        answer.add(deltas)
        dialect = getattr(reader, "dialect", None) or dialect
        error.partial = Partial(
            dialect=dialect.name,
            last_event_id=cursor.last_event_id,
            offset=cursor.received,
            answer=answer.completion(usage=reader.evidence.usage),
        )
        error.report = Report(dialect=dialect.name, error=error, faults=[error], usage=reader.evidence.usage)
        raise
    dialect = getattr(reader, "dialect", None) or dialect
    return answer.completion(usage=reader.evidence.usage, verdict=Verdict(), cut_reasons=dialect.unfinished_reasons)


def _batch(chunks: Bytes | Iterable[bytes]) -> Iterable[bytes]:
    if hasattr(chunks, "encode"):
        raise UsageError("a recorded stream is bytes: as text it has lost what is looked at here")
    return (bytes(chunks),) if isinstance(chunks, Bytes) else chunks
