"""Safety without a pipe: parser, dialect, cursor and transcript alone, over an answer that is cut and goes on.

Whatever is cut where, what was handed over is a prefix of one true answer, each piece once; and an end means equal.
"""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from holdfast._errors import EndOfStream, StreamError
from holdfast._types import Delta, Event
from holdfast.dialects import OPENAI
from holdfast.dialects.chat import ChatEvidence
from holdfast.machines.cursor import Cursor
from holdfast.machines.replay import DivergenceError
from holdfast.machines.sse import SseParser
from holdfast.machines.transcript import Transcript
from holdfast.testing.strategies import TrueAnswer, chunkings, completions, retellings
from tests.properties.judge import begins, said, truth
from tests.properties.model import altered
from tests.properties.profile import examples


def cut_off(answer: TrueAnswer, *, ids: bool) -> st.SearchStrategy[list[bytes]]:
    """Beginnings of its body, cut into chunks."""
    body = answer.wire(ids=ids)
    return st.integers(0, len(body)).flatmap(lambda end: chunkings(body[:end], max_cuts=6))


class Attempt:
    """One body read by the machines; `whole` where they say that it proves the answer."""

    def __init__(self, chunks: Sequence[bytes], answer: TrueAnswer, cursor: Cursor, evidence: ChatEvidence) -> None:
        self.deltas: list[Delta] = []
        self.failure: StreamError | None = None
        self.evidence = evidence
        parser = SseParser(cursor, admits=cursor.admits)
        reader = OPENAI.reader(answer.request, cursor, evidence)
        events: list[Event] = []
        try:
            for chunk in chunks:
                parser.feed([chunk], events)
                reader.feed(events, self.deltas)
                events.clear()
            parser.end(events)
            reader.end(self.deltas)
        except EndOfStream:
            pass
        except StreamError as failure:
            self.failure = failure

    @property
    def whole(self) -> bool:
        return self.failure is None


def first(chunks: Sequence[bytes], answer: TrueAnswer, cursor: Cursor) -> Attempt:
    cursor.begin("start")
    evidence = ChatEvidence(expected=len(answer.plans))
    return Attempt(chunks, answer, cursor, evidence)


@examples(150)
@given(completions().flatmap(lambda a: st.tuples(st.just(a), cut_off(a, ids=False))))
def test_a_cut_answer_is_a_beginning_and_never_looks_whole(drawn: tuple[TrueAnswer, list[bytes]]) -> None:
    answer, chunks = drawn
    attempt = first(chunks, answer, Cursor())
    heard, whole = said(attempt.deltas), truth(answer)
    assert begins(heard, whole)
    assert attempt.whole == (heard == whole)


@examples(100)
@given(completions().flatmap(lambda a: st.tuples(st.just(a), cut_off(a, ids=True))), st.integers(0, 3), st.data())
def test_a_continuation_adds_what_was_missing_and_nothing_else(
    drawn: tuple[TrueAnswer, list[bytes]], back: int, data: st.DataObject
) -> None:
    answer, chunks = drawn
    cursor = Cursor()
    attempt = first(chunks, answer, cursor)
    cursor.commit(attempt.deltas)
    begin = max(0, int(cursor.last_event_id or 0) - back)  # a server may repeat what it is not sure that we have
    rest = b"".join(answer.events(ids=True)[begin:])
    cursor.begin("continue" if cursor.last_event_id else "start")
    evidence = attempt.evidence if cursor.mode == "continue" else ChatEvidence(expected=len(answer.plans))
    again = Attempt(data.draw(chunkings(rest, max_cuts=6)), answer, cursor, evidence)
    healthy = first([answer.wire(ids=True)], answer, Cursor())
    assert again.whole
    assert plain(attempt.deltas + again.deltas) == plain(healthy.deltas)


def plain(deltas: Sequence[Delta]) -> list[Delta]:
    """Deltas without the events they came in."""
    return [
        Delta(Event(), d.text, d.reasoning, d.refusal, d.tool_calls, d.finish_reason, d.usage, d.choice)
        for d in deltas
        if not d.empty
    ]


def replayed(before: Sequence[Delta], again: Attempt, *, keep: bool = True) -> tuple[list[Delta], bool]:
    """What a comparison lets through of a second answer, and whether it agreed to the end."""
    transcript, fresh = Transcript(keep=keep), list[Delta]()
    transcript.add(list(before))
    replay = transcript.replay()
    try:
        replay.feed(again.deltas, fresh)
        if again.whole:
            replay.end()
    except DivergenceError:
        return fresh, False
    return fresh, again.whole


@examples(100)
@given(completions().flatmap(lambda a: st.tuples(cut_off(a, ids=False), st.just(a), retellings(a))), st.booleans())
def test_a_replay_of_the_same_answer_adds_what_was_missing(
    drawn: tuple[list[bytes], TrueAnswer, TrueAnswer],
    keep: bool,  # noqa: FBT001 - drawn
) -> None:
    chunks, answer, other = drawn
    attempt = first(chunks, answer, Cursor())
    again = first([other.wire()], other, Cursor())
    fresh, agreed = replayed(attempt.deltas, again, keep=keep)
    assert agreed
    assert said([*attempt.deltas, *fresh]) == truth(answer)


@examples(150)
@given(
    completions().flatmap(
        lambda a: st.tuples(cut_off(a, ids=False), st.just(a), altered(a).flatmap(retellings) | completions())
    ),
    st.booleans(),
)
def test_a_replay_of_another_answer_is_never_mixed_in(
    drawn: tuple[list[bytes], TrueAnswer, TrueAnswer],
    keep: bool,  # noqa: FBT001 - drawn
) -> None:
    chunks, answer, other = drawn
    attempt = first(chunks, answer, Cursor())
    again = first([other.wire()], other, Cursor())
    fresh, agreed = replayed(attempt.deltas, again, keep=keep)
    heard = said([*attempt.deltas, *fresh])
    assert begins(heard, truth(answer)) or begins(heard, truth(other))
    assert not agreed or heard == truth(other)
