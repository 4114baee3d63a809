"""The figures of a run, and its course over time: made of what was kept of calls and requests, and of nothing else."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.fleet.run import Asked, Run

LEARNED = 60.0
"""Seconds after which limits are known, and what was saved up in a full bucket is gone: figures begin here."""
RECOVERED = 0.8
WINDOW = 5.0
"""An upstream has recovered once it gives this share of the answers of before, over so many seconds."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Shares are from 0 to 1, times are seconds. None: there is nothing to measure it on."""

    goodput: float
    """Whole answers a second."""
    lost: float
    """Of the calls: those that ended in an error."""
    p50: float
    p99: float
    """From the call to its first token, over the calls that were answered."""
    too_many: float
    """Of the requests: those that were answered 429."""
    too_many_learning: float
    """The same for the time before `LEARNED`."""
    amplification: float
    """Requests for each call, over the calls that began in the time."""
    in_outage: float | None
    """The same over those that began in a full outage."""
    recovery: float | None
    """From the end of the last brown-out on."""
    fairness: float
    """Jain's index of the shares of their calls that clients had answered: 1 where all have the same."""


def figures(run: Run) -> Figures:
    """Gives the figures of a run."""
    end = run.scenario.seconds
    calls = [call for call in run.calls if LEARNED <= call.started < end]
    firsts = sorted(call.first for call in calls if not call.error and call.first is not None)
    bad = run.scenario.brown_outs
    outage = next((one for one in bad if one.kind == "outage" and not one.region), None)
    return Figures(
        goodput=len(_answered(run, LEARNED, end)) / (end - LEARNED),
        lost=_share(sum(bool(call.error) for call in calls), len(calls)),
        p50=quantile(firsts, 0.5),
        p99=quantile(firsts, 0.99),
        too_many=_refused(run, LEARNED, end),
        too_many_learning=_refused(run, 0.0, LEARNED),
        amplification=_amplification(run, LEARNED, end),
        in_outage=_amplification(run, outage.begin, outage.end) if outage is not None else None,
        recovery=_recovery(run, bad[-1].begin, bad[-1].end) if bad else None,
        fairness=jain(_shares(run.calls)),
    )


def quantile(ordered: Sequence[float], share: float) -> float:
    """Gives a quantile of numbers in order, 0 of none."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def jain(values: Sequence[float]) -> float:
    """Gives Jain's index of fairness: 1 where all have the same, 1/n where one of n has everything."""
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 1.0


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _answered(run: Run, begin: float, end: float) -> list[Asked]:
    return [call for call in run.calls if not call.error and begin <= call.ended < end]


def _refused(run: Run, begin: float, end: float) -> float:
    statuses = [status for at, status in run.requests if begin <= at < end]
    return _share(statuses.count(429), len(statuses))


def _amplification(run: Run, begin: float, end: float) -> float:
    calls = [call.requests for call in run.calls if begin <= call.started < end]
    return _share(sum(calls), len(calls))


def _shares(calls: Iterable[Asked]) -> list[float]:
    of: dict[int, list[bool]] = defaultdict(list)
    for call in calls:
        of[call.client].append(not call.error)
    return [sum(ends) / len(ends) for ends in of.values()]


def _recovery(run: Run, begin: float, end: float) -> float:
    """Seconds from the end of a brown-out until there are as many answers again as there were before it."""
    before = len(_answered(run, begin - 30, begin)) / 30
    last, at = int(run.scenario.seconds - WINDOW - end), 0.0
    for second in range(last + 1):
        at = end + second
        if len(_answered(run, at, at + WINDOW)) >= RECOVERED * before * WINDOW:
            return at - end
    return float(last)


@dataclass(frozen=True)
class Course:
    """A run over time, one value for each `step` seconds."""

    step: float
    goodput: list[float]
    p99: list[float]
    too_many: list[float]
    amplification: list[float]


def course(run: Run, step: float = 10.0) -> Course:
    """Gives the course of a run."""
    begins = [step * number for number in range(int(run.scenario.seconds / step))]
    firsts = [
        sorted(call.first for call in run.calls if call.first is not None and at <= call.started < at + step)
        for at in begins
    ]
    return Course(
        step=step,
        goodput=[len(_answered(run, at, at + step)) / step for at in begins],
        p99=[quantile(one, 0.99) for one in firsts],
        too_many=[_refused(run, at, at + step) for at in begins],
        amplification=[_amplification(run, at, at + step) for at in begins],
    )
