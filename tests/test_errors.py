"""Every error reaches another process, and a copy is like it."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import pytest

from holdfast import _errors
from holdfast._errors import DeadlineExceeded, MissingExtra, StatusError, StreamBroken, StreamError, UpstreamError
from holdfast._types import Choice, Completion, Head, Partial, Usage
from holdfast.moments import Billed, Ended, Report, Resumed, Resuming

HEAD = Head(status=429, headers={"retry-after": "3"}, url="https://a/b")
MADE: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "StatusError": (("no",), {"head": HEAD, "body": b"{}", "retry_after": 3.0}),
    "DeadlineExceeded": (("progress", 1.5), {}),
    "DecodeError": (("no",), {"offset": 7}),
    "IntegrityError": (("no",), {"expected": "1", "actual": "2"}),
    "UpstreamError": (("no",), {"code": "c", "type": "t", "retryable": True}),
    "MissingExtra": (("tracing", "otel"), {}),
}
KINDS = sorted(
    name for name, kind in vars(_errors).items() if isinstance(kind, type) and issubclass(kind, BaseException)
)
WAYS: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda error: pickle.loads(pickle.dumps(error)),
    "the oldest pickle": lambda error: pickle.loads(pickle.dumps(error, 2)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


def made(name: str) -> Any:
    args, settings = MADE.get(name, (("no",), {}))
    return getattr(_errors, name)(*args, **settings)


def settled(error: StreamError) -> StreamError:
    """Gives the error as it leaves the edge, its own report holding it."""
    report = Report()
    for moment in (
        Resuming(error=StreamBroken("cut"), rung="replay", delay=0.5),
        Resumed(rung="replay", guarantee="verified", gap=0.1, swallowed=3, repaid_tokens=3),
        Billed(total_tokens=5),
        Ended(error=error, usage=Usage(output_tokens=5)),
    ):
        report.add(moment)
    error.report = report
    error.attempts = 2
    answer = Completion(choices=(Choice(text="kelp"),))
    error.partial = Partial(dialect="openai", request={"model": "m"}, answer=answer, state={"call": "1"})
    error.add_note("2 requests were sent")
    return error


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", KINDS)
def test_it_is_the_same_on_the_other_side(name: str, way: str) -> None:
    error = made(name)
    if isinstance(error, StreamError):
        settled(error)
    again = WAYS[way](error)
    assert type(again) is type(error)
    assert (str(again), again.args) == (str(error), error.args)
    told, before = dict(vars(again)), dict(vars(error))
    if isinstance(error, StreamError):
        report, was = told.pop("report"), before.pop("report")
        assert report.error is (error if way == "copy" else again)
        assert (str(report), report.bills, report.seams, report.usage) == (str(was), was.bills, was.seams, was.usage)
        assert [str(fault) for fault in report.faults] == [str(fault) for fault in was.faults]
        assert again.__notes__ == ["2 requests were sent"]
    assert told == before


def test_a_request_that_cannot_be_carried_is_left_behind() -> None:
    error = settled(StreamBroken("cut"))
    error.partial = Partial(request={"model": "m", "lock": threading.Lock()}, answer=error.partial.answer)
    again = pickle.loads(pickle.dumps(error))
    assert (again.partial.request, again.partial.text) == (None, "kelp")


def fail(name: str) -> None:
    raise settled(made(name))


def test_a_worker_process_raises_it_where_it_was_asked() -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        with pytest.raises(DeadlineExceeded) as late:
            pool.submit(fail, "DeadlineExceeded").result(30)
        with pytest.raises(StatusError) as refused:
            pool.submit(fail, "StatusError").result(30)
        with pytest.raises(UpstreamError, match="no"):
            pool.submit(fail, "UpstreamError").result(30)
    assert (late.value.clock, late.value.seconds, late.value.partial.text) == ("progress", 1.5, "kelp")
    assert (refused.value.status, refused.value.head, refused.value.retry_after) == (429, HEAD, 3.0)


def test_a_missing_extra_is_an_import_error_there_too() -> None:
    again = pickle.loads(pickle.dumps(MissingExtra("tracing", "otel")))
    assert isinstance(again, ImportError)
    assert "holdfast[otel]" in str(again)
