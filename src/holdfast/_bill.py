"""What the requests of a call cost in tokens, one by one: told by the provider where it told, else estimated.

The bill is the one truth: `Ended.billed_tokens` is its sum, money is made of it (`machines/prices.py`), and a layer
that watches what is being spent reads the same one while the stream runs. Here is only reckoning. Whose answer began
to tell nothing costs nothing: who refuses sends no bill, and who lets a request wait in a queue has not begun it.

A *run* is what a provider generated at one go: a request and those that went on with it at a cursor, which cost nothing
twice. A run is part of the answer, was paid again (what a replay repeats, what a prefix makes the model read once
more), or lost a race.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

from holdfast._core import Attempt, Call
from holdfast._types import BatchMode, Guarantee, Usage
from holdfast.dialects._wire import plain_of
from holdfast.moments import Billed, BillPart

_BYTES_A_TOKEN = 4
"""A token is about four letters of English, or one or two characters of Chinese, each of which is three bytes."""
_MOST = 1_000_000_000
"""Tokens of one kind in one answer: more is a mistake, or a lie."""
_NO_TEXT = 512
"""Characters without a white space: so much at once is no text but an image, or a file."""
_MODES: Mapping[Guarantee, BatchMode] = {"exact": "continue", "verified": "replay", "seamed": "extend"}


@dataclass(slots=True)
class _Run:
    """What was generated at one go. `attempt` is the last of its requests, whose evidence tells of all of it."""

    attempt: Attempt
    mode: BatchMode
    vouched: bool
    before: int
    after: int
    lost: bool = False
    began: bool = False
    """True where another request went on from it, or beside it: what had come of it had begun, were it only a role."""

    @property
    def said(self) -> int:
        """Estimates how many tokens of it arrived."""
        new, repeated = max(0, self.after - self.before), self.attempt.repeated
        match self.mode:
            case "replay":
                return self.after if self.vouched else repeated
            case "extend":
                return new + repeated if self.vouched else repeated
        return new

    @property
    def told(self) -> Usage | None:
        usage = self.attempt.evidence.usage if self.attempt.evidence is not None else None
        return None if usage is None else _sane(usage)

    @property
    def told_all(self) -> bool:
        """True where it has ended and told what it cost: one that told a part, or what cannot be, is estimated."""
        told, evidence = self.told, self.attempt.evidence
        if told is None or evidence is None or not (evidence.complete or evidence.finish_reason is not None):
            return False
        counts = (told.input_tokens, told.output_tokens)
        return None not in counts or (counts == (None, None) and told.total_tokens is not None)


def bills(call: Call) -> list[Billed]:
    """Gives what each request of a call adds to its bill so far. Nothing where neither a model nor tokens are named."""
    attempts = [attempt for attempt in call.attempts if attempt.evidence is not None]
    made: list[Billed] = []
    if not any(attempt.model or (attempt.evidence and attempt.evidence.usage) for attempt in attempts):
        return made  # it is no model's answer
    read: int | None = None
    for leg in sorted({attempt.leg for attempt in attempts}):
        runs = _runs(call, [attempt for attempt in attempts if attempt.leg == leg])
        useful = _useful(runs) if leg <= len(call.legs) + 1 else []  # else it was dropped
        for run in runs:
            usage = _usage(run, runs, read)
            if usage is not None:
                prompt = usage.input_tokens or 0
                shares = _parts(call, leg, run, useful, usage)
                made.extend(_billed(call, run.attempt, part, share, prompt) for part, share in shares)
        answered = [bill for bill in made if bill.part == "answer"]
        read = sum((bill.input_tokens or 0) + (bill.output_tokens or 0) for bill in answered)  # by the next leg
    return made


def _runs(call: Call, attempts: Sequence[Attempt]) -> list[_Run]:
    """Puts requests together that went on with one another's answer."""
    seams = {seam.attempt: seam for seam in call.report.seams}
    losers = set(call.report.losers)
    runs: list[_Run] = []
    for attempt in attempts:
        seam = seams.get(attempt.number)
        mode = _MODES[seam.guarantee] if seam is not None else attempt.asked
        after = attempt.after
        if after is None:
            after = call.answer.tokens if attempt is call.attempt else attempt.before
        last = next((run for run in reversed(runs) if not run.lost), None)
        if last is not None and attempt.asked != "start":
            last.began = True
        if attempt.number in losers:
            runs.append(
                _Run(attempt, mode, vouched=False, before=attempt.before, after=attempt.before, lost=True, began=True)
            )
        elif mode == "continue" and last is not None and (seam is not None or not attempt.repeated):
            last.attempt, last.after = attempt, after
        else:
            runs.append(_Run(attempt, mode, vouched=seam is not None, before=attempt.before, after=after))
    return runs


def _useful(runs: Sequence[_Run]) -> list[_Run]:
    """Gives the runs that one leg of the answer is made of: one from its beginning, and what went on from its words."""
    useful: list[_Run] = []
    for run in runs:
        if run.lost or (run.mode in ("replay", "extend") and not run.vouched):
            continue
        if run.mode != "extend":
            useful.clear()
        useful.append(run)
    return useful


def _sane(usage: Usage) -> Usage:
    """Gives a usage without the counts that cannot be, which are then estimated: below nothing would be credit."""
    wrong = [
        name
        for name in usage.__struct_fields__
        if type(value := getattr(usage, name)) is int and not 0 <= value <= _MOST
    ]
    if not wrong:
        return usage
    sane = copy(usage)
    for name in (*wrong, "total_tokens"):
        setattr(sane, name, None)
    return sane


# -- tokens ----------------------------------------------------------------------------------------


def _usage(run: _Run, runs: Sequence[_Run], read: int | None) -> Usage | None:
    """Gives what a run cost: as it was told at its end, else an estimate; None where nothing of it had begun."""
    told = run.told
    if run.told_all:
        return told
    if told is None and not run.said and not run.began:
        return None
    told = told or Usage()
    given = told.input_tokens if told.input_tokens is not None else _prompt(run, runs, read)
    answered = max(told.output_tokens or 0, run.said)
    return Usage(
        input_tokens=given,
        output_tokens=answered,
        total_tokens=given + answered,
        cached_tokens=told.cached_tokens,
        cache_write_tokens=told.cache_write_tokens,
        cache_write_1h_tokens=told.cache_write_1h_tokens,
        reasoning_tokens=told.reasoning_tokens,
        estimated=True,
    )


def _prompt(run: _Run, runs: Sequence[_Run], read: int | None) -> int:
    """Estimates what a request gave to read, by what another told of the same prompt, or by its length."""
    asked = _told_prompt(runs, extended=False)
    if asked is None:
        asked = _told_prompt(runs, extended=True)
    if asked is None:
        asked = read
    if asked is not None:
        return asked + (run.before if run.mode == "extend" else 0)
    return prompt_tokens(run.attempt.body)


def _told_prompt(runs: Sequence[_Run], *, extended: bool) -> int | None:
    for run in runs:
        told = run.told
        if told is not None and told.input_tokens is not None and (run.mode == "extend") == extended:
            return max(0, told.input_tokens - (run.before if extended else 0))
    return None


def prompt_tokens(body: Mapping[str, Any] | bytes | None) -> int:
    """Estimates what a request gives to read, by the length of its texts."""
    return -(-_text_bytes(plain_of(body)) // _BYTES_A_TOKEN)


def _text_bytes(value: Any) -> int:
    """Counts the bytes of all texts in a body. What is no text (an image in base64) counts for nothing."""
    if isinstance(value, str):
        is_text = len(value) <= _NO_TEXT or any(mark.isspace() for mark in value[:_NO_TEXT])
        return len(value.encode("utf-8", "surrogatepass")) if is_text or not value.isascii() else 0
    if isinstance(value, Mapping):
        return sum(_text_bytes(part) for part in value.values())
    return sum(_text_bytes(part) for part in value) if isinstance(value, list | tuple) else 0


# -- shares ----------------------------------------------------------------------------------------


def _parts(call: Call, leg: int, run: _Run, useful: Sequence[_Run], usage: Usage) -> Iterator[tuple[BillPart, Usage]]:
    """Shares what a run cost between the answer and what was paid again: its prompt, and words said before."""
    if run.lost or run not in useful:
        yield "hedge" if run.lost else "again", usage
        return
    answered = usage.output_tokens
    if run.mode == "extend":
        again = min(run.attempt.repeated, answered or 0)
    elif leg > 1:
        answer = call.answer if leg > len(call.legs) else call.legs[leg - 1].answer
        again = min(answer.said_again(answered), answered or 0)
    else:
        yield "answer", usage
        return
    estimated = usage.estimated or again > 0
    read = usage.input_tokens or 0
    yield (
        "again",
        Usage(
            input_tokens=read,
            output_tokens=again,
            total_tokens=read + again,
            cached_tokens=usage.cached_tokens,
            cache_write_tokens=usage.cache_write_tokens,
            cache_write_1h_tokens=usage.cache_write_1h_tokens,
            estimated=estimated,
        ),
    )
    new = (answered or 0) - again
    thought = None if usage.reasoning_tokens is None else min(usage.reasoning_tokens, new)
    yield (
        "answer",
        Usage(input_tokens=0, output_tokens=new, total_tokens=new, reasoning_tokens=thought, estimated=estimated),
    )


def _billed(call: Call, attempt: Attempt, part: BillPart, usage: Usage, prompt: int) -> Billed:
    total = usage.total_tokens
    return Billed(
        attempt=attempt.number,
        upstream=attempt.upstream,
        dialect=attempt.dialect,
        model=attempt.model,
        part=part,
        prompt_tokens=prompt,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        total_tokens=(usage.input_tokens or 0) + (usage.output_tokens or 0) if total is None else total,
        cached_tokens=usage.cached_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        cache_write_1h_tokens=usage.cache_write_1h_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        estimated=usage.estimated,
        sent=attempt.sent,
        labels=call.labels,
    )
