"""The promise, as checks of a `Run`: each raises `AssertionError` where a run breaks it.

Apart from the tests that hold the library to them, so that broken.py can show that each of them bites.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from holdfast._core import LINGER
from holdfast._errors import DeadlineExceeded
from holdfast._types import Completion, Delta, Event
from holdfast.dialects import OPENAI
from holdfast.machines.cursor import Cursor
from holdfast.machines.sse import SseParser
from holdfast.moments import Billed, Delivered, Diverged, Ended, Moment, Opening, Outlived, Resumed, Resuming, Retrying
from holdfast.prices import Prices
from holdfast.telemetry.costs import Costs
from holdfast.telemetry.logs import EVENTS
from holdfast.testing.acts import Asked, Bytes, acts
from holdfast.testing.faults import AnotherAnswer, Fault, Healthy
from tests.properties.judge import Said, begins, nameless, said, truth
from tests.properties.model import Run


def met(run: Run) -> list[Fault]:
    """What each attempt met."""
    return [run.scenario.schedule.fault("any", number) for number in range(1, len(run.served) + 1)]


def safety(run: Run) -> None:
    """One true answer or a prefix of it, each piece once; a normal end means equal, and an error hides nothing."""
    heard = said(run.deltas)
    truths = list(_truths(run))
    assert any(begins(heard, whole) for whole in truths), f"no beginning of a true answer: {heard}"
    if run.error is None:
        assert heard in truths, f"an end that is none: {heard}"
        _completion(run)
    else:
        assert run.error.partial is not None
        assert said_of(run.error.partial.answer) == said_of_deltas(run.deltas)


def liveness(run: Run) -> None:
    """The faults stopped and the server could resume: the answer is whole."""
    if run.error is not None and said(run.deltas) == truth(run.scenario.tellings[0]):
        return  # the provider reported an error behind the proof: all was handed over, and it is no clean end
    assert run.error is None, f"{run.error!r} after {', '.join(map(str, met(run)))}"
    assert said(run.deltas) == truth(run.scenario.tellings[0])


def timeliness(run: Run, total: float) -> None:
    """The call ended within its clock, and where that clock ended it, it says so.

    The clock is of the answer: to close one that is whole may take a moment more, until its body ends.
    """
    assert run.seconds <= total + (LINGER if run.error is None else 0)
    if isinstance(run.error, DeadlineExceeded) and run.error.clock == "total":
        assert run.seconds == total


def closedness(run: Run) -> None:
    """Nothing that was opened is open."""
    assert run.live == 0, f"{run.live} streams were left open"


def one_truth(run: Run) -> None:
    """Report, moments, log lines and what the server counted tell one story."""
    report, kinds = run.report, Counter(type(moment) for moment in run.moments)
    assert report.attempts == len(run.served) == kinds[Opening]
    assert report.retries == kinds[Retrying]
    assert len(report.seams) == kinds[Resumed]
    assert report.diverged == kinds[Diverged]
    assert len(report.faults) == kinds[Retrying] + kinds[Resuming] + kinds[Outlived] + (run.error is not None)
    assert report.items == len(run.deltas) == sum(m.items for m in run.moments if isinstance(m, Delivered))
    assert report.attempts == 1 + kinds[Retrying] + kinds[Resuming] - _never_sent(run)
    assert run.served.count(0) == len(run.served) - _continued(run)
    _end(run)
    _bill(run)
    _lines(run)


def _never_sent(run: Run) -> int:
    """Tries that were announced, and given up in their pause or refused by a clock."""
    announced = [m for m in run.moments if isinstance(m, Opening | Retrying | Resuming)]
    return sum(not isinstance(after, Opening) for before, after in pairs(announced) if not isinstance(before, Opening))


def pairs(moments: Sequence[Moment]) -> Iterator[tuple[Moment, Moment | None]]:
    """Each moment with the next."""
    return zip(moments, [*moments[1:], None], strict=True)


def _continued(run: Run) -> int:
    return sum(begin > 0 for begin in run.served)


def _end(run: Run) -> None:
    report = run.report
    last = run.moments[-1]
    assert [m for m in run.moments if isinstance(m, Ended)] == [last]
    assert isinstance(last, Ended)
    assert last.error is report.error is run.error
    assert last.verdict == report.verdict
    assert (report.verdict is None) == (run.error is not None)
    if run.error is not None:
        assert run.error.attempts == report.attempts
        assert run.error.report is report
        assert report.outcome == type(run.error).__name__
    elif report.verdict is not None and run.completion is not None:
        assert run.completion.verdict == report.verdict
        assert report.verdict.seams == len(report.seams)
        assert (report.verdict.kind == "complete") == (not report.seams)
        assert run.completion.usage == report.usage


def _bill(run: Run) -> None:
    """What was billed is the sum over the attempts that were, in tokens and in money, whoever adds it up."""
    report, prices = run.report, Prices(shipped=False)
    bills = [moment for moment in run.moments if isinstance(moment, Billed)]
    assert bills == report.bills
    assert report.billed_tokens == sum(bill.total_tokens for bill in bills)
    assert report.billed_estimated == any(bill.estimated for bill in bills)
    assert {bill.attempt for bill in bills} <= set(range(1, report.attempts + 1))
    if report.verdict is not None and report.usage is not None:
        assert sum(bill.total_tokens for bill in bills if bill.part == "answer") == report.usage.total_tokens
    for model in {bill.model for bill in bills if bill.model}:
        prices = prices.with_(model, input="3", output="7", cached="0.1")
    costs = Costs(prices)
    for moment in run.moments:
        costs(moment)
    assert costs.total == prices.cost(report)
    if run.lines:
        told = [line for line in run.lines if line["event"] == "attempt.billed"]
        assert sum(line.get("total_tokens", 0) for line in told) == report.billed_tokens
        assert run.lines[-1].get("billed_tokens", 0) == report.billed_tokens


def _lines(run: Run) -> None:
    """A line for each moment, in order, and in the last one the report's figures."""
    if not run.lines:
        return
    assert [line["event"] for line in run.lines] == [EVENTS[type(moment)][0] for moment in run.moments]
    ended, report = run.lines[-1], run.report
    assert {line["stream_id"] for line in run.lines} == {report.stream_id}
    assert ended["outcome"] == report.outcome
    told = [ended.get(name, 0) for name in ("attempts", "retries", "seams", "faults", "items")]
    assert told == [report.attempts, report.retries, len(report.seams), len(report.faults), report.items]


def _truths(run: Run) -> Iterator[Said]:
    """Every true answer that some attempt was told."""
    scenario = run.scenario
    for number, fault in enumerate(met(run), 1):
        telling = scenario.telling(number)
        yield truth(telling)
        if isinstance(fault, AnotherAnswer):
            whole = acts(fault.play(Asked(last_event_id="1")), telling.events())
            yield said(read([act.data for act in whole if isinstance(act, Bytes)]))


def read(chunks: Sequence[bytes]) -> list[Delta]:
    """What the machines make of a healthy body."""
    cursor = Cursor()
    parser, reader = SseParser(cursor), OPENAI.reader(None, cursor, end_at_done=False)
    events, deltas = list[Event](), list[Delta]()
    parser.feed(chunks, events)
    reader.feed(events, deltas)
    return deltas


def _completion(run: Run) -> None:
    """What is put together at the end is the drawn answer, with its usage where the server could still tell it."""
    scenario, answer = run.scenario, run.completion
    assert answer is not None
    faults = met(run)
    if any(isinstance(fault, AnotherAnswer) for fault in faults):
        return
    tellings = [scenario.telling(number) for number in range(1, len(faults) + 1)]
    if scenario.mode == "ids":
        assert answer.choices == tellings[0].completion.choices
    else:
        assert nameless(answer) in [nameless(telling.completion) for telling in tellings]
    usages = [telling.completion.usage for telling in tellings]
    assert answer.usage in usages or (answer.usage is None and not isinstance(faults[-1], Healthy))
    if isinstance(faults[-1], Healthy):
        assert answer.usage == usages[-1]


def said_of(answer: Completion) -> dict[str, str]:
    """A completion in one form with deltas: for each choice and channel, all its text."""
    texts: dict[str, str] = {}
    for choice in answer.choices:
        texts |= {f"{choice.index} {channel}": getattr(choice, channel) for channel in ("text", "reasoning", "refusal")}
        for call in choice.tool_calls:
            texts[f"{choice.index} name {call.index}"] = call.name
            texts[f"{choice.index} arguments {call.index}"] = call.arguments
        texts[f"{choice.index} finish"] = choice.finish_reason or ""
    return {name: text for name, text in texts.items() if text}


def said_of_deltas(deltas: Sequence[Delta]) -> dict[str, str]:
    """The same of deltas."""
    texts: dict[str, str] = {}
    for choice, tape in said(deltas).items():
        for channel, text in tape:
            texts[f"{choice} {channel}"] = texts.get(f"{choice} {channel}", "") + text
    return texts
