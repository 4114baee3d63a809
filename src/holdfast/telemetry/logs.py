"""Structured log lines: the moments of a stream, told to structlog in one documented vocabulary (docs/logs.md).

Silent until the application configures structlog or calls `configure_logs()`; before that structlog is not even
imported. An application's own configuration is used as it is and never changed. A line never holds a key, a header,
a prompt or an answer unless `text=True` asked for it; URLs come without user, password and query. What a provider
wrote into an error stays out too: providers quote keys and prompts in their messages. A line that cannot be written
is lost, said once on stderr, and never the stream's problem.
"""

from __future__ import annotations

import atexit
import contextlib
import json as _json
import logging
import os
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from holdfast import moments
from holdfast._clock import Clock, SystemClock
from holdfast._errors import StatusError, StreamError, UpstreamError, UsageError
from holdfast._types import Completion, Request, Usage
from holdfast.machines.redact import clean_url, only_name, scrub
from holdfast.moments import Billed, BreakerChanged, Ended, Listener, Moment, Started, Waited

EVENTS: Mapping[type[Moment], tuple[str, str]] = {
    moments.Started: ("stream.started", "info"),
    moments.Recognised: ("dialect.recognised", "info"),
    moments.Opening: ("attempt.opening", "debug"),
    moments.Opened: ("attempt.opened", "info"),
    moments.FirstDelta: ("stream.first_delta", "info"),
    moments.Retrying: ("attempt.retrying", "warning"),
    moments.Resuming: ("stream.resuming", "warning"),
    moments.Resumed: ("stream.resumed", "info"),
    moments.Continued: ("stream.continued", "info"),
    moments.Outlived: ("stream.outlived", "info"),
    moments.Diverged: ("stream.diverged", "warning"),
    moments.Stalled: ("stream.stalled", "warning"),
    moments.Waited: ("attempt.waited", "info"),
    moments.Hedged: ("stream.hedged", "info"),
    moments.HedgeEnded: ("stream.hedge_ended", "info"),
    moments.FellBack: ("stream.fell_back", "warning"),
    moments.BreakerChanged: ("breaker.changed", "warning"),
    moments.SharedLost: ("shared.lost", "warning"),
    moments.SharedBack: ("shared.back", "warning"),
    moments.Repaired: ("stream.repaired", "warning"),
    moments.Dropped: ("events.dropped", "info"),
    moments.RecordingFailed: ("recording.failed", "warning"),
    moments.Delivered: ("stream.delivered", "debug"),
    moments.Billed: ("attempt.billed", "debug"),
    moments.Ended: ("stream.ended", "info"),
}
"""One event for each kind of moment, with its level; a stream that ended in an error says so at `error`."""

GATEWAY_EVENTS: Mapping[str, str] = {
    "gateway.opened": "info",
    "gateway.joined": "info",
    "gateway.read_again": "info",
    "gateway.cancelled": "info",
    "gateway.abandoned": "warning",
    "gateway.taken_over": "warning",
    "gateway.handed_over": "warning",
    "gateway.lease_lost": "warning",
}
"""What a gateway tells of a stream besides, by level: who came, who left, which node writes it."""

_SHORTEST_WAIT = 0.001
"""Seconds: less than that is one turn of the event loop, and no news to a person."""
LEVELS = ("debug", "info", "warning", "error")


@dataclass(slots=True, frozen=True)
class _Output:
    """Where `configure_logs()` sends lines, and what they may say."""

    logger: Any
    text: bool
    stamped: bool
    opened: TextIO | None


_output: _Output | None = None
_complained = False


def configure_logs(
    file: str | os.PathLike[str] | TextIO | None = None,
    *,
    json: bool | None = None,
    level: str | None = "info",
    text: bool = False,
    logger: Any = None,
) -> None:
    """Turns log lines on for every stream that starts from now on, without touching structlog's configuration.

    `file` is a path (lines are appended), an open text stream, or None for stderr. `json=None` writes for a person
    where the file is a terminal and JSON lines elsewhere. `level` is the lowest that is written: debug, info, warning
    or error; None turns the lines off again. `text=True` adds requests and answers to the lines: prompts, and
    whatever a provider wrote into an error. `logger` is a structlog logger of yours; it takes the place of `file`,
    `json` and `level`, which its own processors decide.

    Raises `ValueError` for a level that is none, `UsageError` for a logger of the standard library's, `OSError` when
    the file cannot be opened.
    """
    global _output, _complained
    if level is not None and level not in LEVELS:
        raise ValueError(f"level must be one of {', '.join(LEVELS)} or None, not {level!r}")
    if isinstance(logger, logging.Logger | logging.LoggerAdapter):
        raise UsageError(
            "logger= takes a structlog logger, not one of logging: structlog.wrap_logger(yours, processors=[...])"
        )
    made = None
    if logger is not None:
        made = _Output(logger, text, stamped=False, opened=None)
    elif level is not None:
        made = _open(file, level, json=json, text=text)
    _close()
    _output, _complained = made, False


def _open(file: str | os.PathLike[str] | TextIO | None, level: str, *, json: bool | None, text: bool) -> _Output:
    import structlog  # noqa: PLC0415 - costs 30 ms that only those pay who want lines

    opened = None
    if isinstance(file, str | os.PathLike):
        # Held open: a path opened again for every line would cost a stream more than its lines do.
        opened = Path(file).open("a", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
    target: TextIO = opened or (sys.stderr if file is None else file)  # type: ignore[assignment]  # a path was opened
    terminal = _is_terminal(target)
    render: Any
    if json or (json is None and not terminal):
        render = structlog.processors.JSONRenderer(serializer=_json.dumps, default=str)
    else:
        render = structlog.dev.ConsoleRenderer(colors=terminal and "NO_COLOR" not in os.environ, pad_event_to=22)
    logger = structlog.wrap_logger(
        structlog.WriteLogger(target),
        processors=[structlog.processors.add_log_level, _in_order, render],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        context_class=dict,
        cache_logger_on_first_use=False,
    )
    return _Output(logger, text, stamped=True, opened=opened)


def _is_terminal(target: TextIO) -> bool:
    try:
        return target.isatty()
    except (AttributeError, ValueError):
        return False


def _in_order(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """Puts what the eye looks for first."""
    names = [name for name in ("timestamp", "level", "event") if name in line]
    return {name: line[name] for name in (*names, *line)}


@atexit.register
def _close() -> None:
    if _output is not None and _output.opened is not None:
        with contextlib.suppress(OSError, ValueError):
            _output.opened.close()


def listener() -> Listener | None:
    """Gives one stream's teller, or None while nobody asked for lines: then nothing at all is done."""
    return _Lines() if _logger() is not None else None


def _logger() -> Any:
    """Where lines go at this moment, or None."""
    if _output is not None:
        return _output.logger
    structlog = sys.modules.get("structlog")
    if structlog is None or not structlog.is_configured():
        return None
    return structlog.get_logger("holdfast")


def tell(event: str, stream: str, elapsed: float, facts: Mapping[str, Any]) -> None:
    """Writes a line of `GATEWAY_EVENTS`, where lines are asked for."""
    logger = _logger()
    if logger is None:
        return
    line: dict[str, Any] = {}
    if _output is not None and _output.stamped:
        line["timestamp"] = _tidy(SystemClock().wall())
    line |= {"stream_id": stream, "attempt": 0, "elapsed": elapsed, **facts}
    try:
        told = {name: _tidy(value) for name, value in line.items() if value not in (None, "")}
        getattr(logger, GATEWAY_EVENTS[event])(event, **told)
    except Exception as failure:  # noqa: BLE001 - whatever a processor or a full disk does, the gateway goes on
        _complain(failure)


class _Lines:
    """Tells one stream's moments. `begin()` is called before the first of them."""

    __slots__ = ("_clock", "_id", "_request", "_started_at")

    def __init__(self) -> None:
        self._request = Request()
        self._clock: Clock = SystemClock()
        self._id = ""
        self._started_at: float | None = None

    def begin(self, request: Request) -> None:
        self._request = request
        self._clock, self._id = request.call.clock, request.call.id

    def __call__(self, moment: Moment) -> None:
        try:
            self._tell(moment)
        except Exception as failure:  # noqa: BLE001 - whatever a processor or a full disk does, the stream goes on
            _complain(failure)
        if isinstance(moment, Ended):
            self._request = Request()  # the call holds its listeners: a circle would keep the answer in memory

    def _tell(self, moment: Moment) -> None:
        if self._started_at is None:
            self._started_at = moment.at
        logger, known = _logger(), EVENTS.get(type(moment))
        if logger is None or known is None:
            return
        if isinstance(moment, Waited) and moment.seconds < _SHORTEST_WAIT:
            return
        event, level = known
        if isinstance(moment, Ended) and moment.error is not None:
            level = "error"
        text = _output is not None and _output.text
        line: dict[str, Any] = {}
        if _output is not None and _output.stamped:
            line["timestamp"] = self._clock.wall().isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line |= {"stream_id": self._id, "attempt": moment.attempt, "elapsed": moment.at - self._started_at}
        line.update(_fields(moment, self._request, text=text))
        getattr(logger, level)(event, **{name: _tidy(value) for name, value in line.items() if value not in (None, "")})


def _tidy(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return round(value, 4) if isinstance(value, float) else value


def _complain(failure: Exception) -> None:
    """Says once per process that lines are being lost; a log that fails must not fill another one."""
    global _complained  # noqa: PLW0603 - see above
    if _complained:
        return
    _complained = True
    with contextlib.suppress(Exception):
        sys.stderr.write(f"holdfast: log lines are being lost: {type(failure).__name__}\n")


# -- what a line says ------------------------------------------------------------------------------


def _fields(moment: Moment, request: Request, *, text: bool) -> Iterator[tuple[str, Any]]:
    """Gives the fields of a moment's line; those without a value are left out later."""
    match moment:
        case Started():
            yield "url", clean_url(moment.url)
            yield "dialect", moment.dialect
            yield "labels", moment.labels or None
            if text:
                yield "request", _body(request)
        case BreakerChanged():
            yield from (("breaker", moment.name), ("old", moment.old), ("new", moment.new))
        case Billed():
            yield from ((name, value or None) for name, value in moments.facts(moment).items())
        case Ended():
            yield from _end(moment, request, text=text)
        case _:
            for name, value in moments.facts(moment).items():
                if isinstance(value, StreamError):
                    yield from _error(value, request, text=text)
                else:
                    yield name, value


def _error(error: StreamError, request: Request, *, text: bool) -> Iterator[tuple[str, Any]]:
    yield "error", type(error).__name__
    theirs = isinstance(error, StatusError | UpstreamError)
    if text or not theirs:
        yield "error_message", scrub(str(error), _sent(request), request.url)
    yield "retryable", error.retryable
    for name in ("status", "code", "type", "clock", "offset"):
        value = getattr(error, name, None)
        yield {"type": "error_type"}.get(name, name), _word(value, request, text=text)
    yield "retry_after", error.retry_after
    cause = error.__cause__
    # What stands for another library's exception knows whose place it takes.
    yield "cause", getattr(cause, "kind", type(cause).__name__) if cause is not None else None


def _sent(request: Request) -> Mapping[str, str]:
    return {**request.call.carried, **request.headers}


def _word(value: Any, request: Request, *, text: bool) -> Any:
    """Gives a provider's own word, and nothing that hides in its place; other values as they are."""
    if not isinstance(value, str):
        return value
    value = scrub(value, _sent(request), request.url)
    return value if text else only_name(value)


def _end(moment: Ended, request: Request, *, text: bool) -> Iterator[tuple[str, Any]]:
    """The one line that tells the whole stream: what the report says, flat."""
    call = request.call
    report, verdict = call.report, moment.verdict
    yield "outcome", report.outcome
    yield "verdict", verdict.kind if verdict is not None else None
    yield "guarantee", verdict.guarantee if verdict is not None else None
    if moment.error is not None:
        yield from _error(moment.error, request, text=text)
    yield "dialect", call.dialect.name if call.dialect is not None else report.dialect
    yield "seconds", report.total_seconds
    yield "first_delta_seconds", report.first_delta_seconds
    yield "longest_gap", report.longest_gap
    yield "attempts", report.attempts
    yield "retries", report.retries
    yield "seams", len(report.seams)
    yield "legs", report.legs if report.legs > 1 else None
    yield "faults", len(report.faults)
    yield "items", report.items
    yield "dropped", report.dropped or None
    yield "repaired", report.repaired or None
    yield "bytes_received", moment.bytes_received
    yield "finish_reason", _word(moment.finish_reason, request, text=text)
    yield from _tokens(moment.usage)
    yield "billed_tokens", moment.billed_tokens or None
    yield "billed_estimated", moment.billed_estimated or None
    if text:
        yield from _answer(call.answer.completion())


def _tokens(usage: Usage | None) -> Iterator[tuple[str, Any]]:
    if usage is not None:
        for name in ("input_tokens", "output_tokens", "total_tokens", "cached_tokens", "reasoning_tokens"):
            yield name, getattr(usage, name)


def _body(request: Request) -> Any:
    body = request.body
    return dict(body) if isinstance(body, Mapping) else str(body or b"", "utf-8", "replace")


def _answer(answer: Completion) -> Iterator[tuple[str, Any]]:
    yield "answer", answer.text
    yield "reasoning", answer.reasoning
    calls = [{"name": call.name, "arguments": call.arguments} for call in answer.tool_calls]
    yield "tool_calls", calls or None


__all__ = ["EVENTS", "GATEWAY_EVENTS", "LEVELS", "configure_logs", "listener", "tell"]
