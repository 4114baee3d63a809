"""What has been delivered, in order: the completion and the partial are made of it, and a replay is held against it.

With `keep=False` memory does not grow with the answer, and a replay can still be verified, block by block.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from holdfast._types import Choice, Completion, Delta, ToolCall, Usage, Verdict
from holdfast.machines.replay import Replay
from holdfast.machines.tape import BLOCK, NAME, TOOL, Segment, Tape, pieces

_FOLD_EVERY = 256


class Transcript:
    """The answer so far. `tokens` counts pieces that were not empty: a provider sends about one per token.

    An answer that was asked for in several requests has a transcript for each: `before` is the one that this
    continues, and of its own text the first `skipped` characters only say again what the one before ended with;
    None: nothing of it has been vouched for so far.
    """

    __slots__ = ("_choices", "_earlier", "_keep", "_pending", "_tokens", "_usage", "before", "characters", "skipped")

    def __init__(self, *, keep: bool = True, before: Transcript | None = None) -> None:
        self.before = before
        self.skipped: int | None = 0
        self._earlier = 0  # tokens of other requests, where another process put several into one
        self._keep = keep
        self._choices: dict[int, Tape] = {}
        self._pending: list[Delta] = []
        self._tokens = 0
        self._usage: Usage | None = None
        self.characters = 0

    def add(self, batch: Sequence[object]) -> None:
        """Takes a delivered batch in. Items that are not deltas are no part of an answer."""
        if not batch or type(batch[0]) is not Delta:
            return
        self._pending += batch  # type: ignore[arg-type]  # a stream's items are all of one kind
        event = self._pending[-1].raw
        # A delta keeps its event alive: large ones, which come one a read, are not collected.
        if len(self._pending) > _FOLD_EVERY or event.end - event.offset > BLOCK:
            self._fold()

    def _fold(self) -> None:
        # A tight loop over many deltas at once: adding each on its own would cost a call per event.
        for delta in self._pending:
            tape = self._choices.get(delta.choice)
            if tape is None:
                tape = self._choices[delta.choice] = Tape()
            if delta.finish_reason is not None:
                tape.finish_reason = delta.finish_reason
            if delta.usage is not None:
                self._usage = delta.usage
            for call in delta.tool_calls:
                if call.id:
                    tape.ids.setdefault(call.index, call.id)
            said = False
            segments = tape.segments
            other = delta.reasoning or delta.refusal or delta.tool_calls
            if delta.text and not other and segments and segments[-1].channel == "text":  # what nearly all are
                segments[-1].append(delta.text)
                self.characters += len(delta.text)
                self._tokens += 1
                continue
            for channel, text in pieces(delta):
                said = True
                if not tape.segments or tape.segments[-1].channel != channel:
                    keep = self._keep or channel.startswith(NAME)
                    tape.segments.append(Segment(channel, keep=keep))
                tape.segments[-1].append(text)
                self.characters += len(text)
            self._tokens += said
        self._pending.clear()

    @property
    def tokens(self) -> int:
        """How many tokens were delivered, estimated: pieces, or a quarter of the characters where pieces are long."""
        self._fold()
        return max(self._tokens, self.characters // 4)

    @property
    def usage(self) -> Usage | None:
        """What was delivered of the answer's usage."""
        self._fold()
        return self._usage

    @property
    def empty(self) -> bool:
        """True while nothing of an answer has arrived."""
        self._fold()
        return self.characters == 0 and all(t.finish_reason is None for t in self._choices.values())

    def completion(
        self, *, usage: Usage | None = None, verdict: Verdict | None = None, cut_reasons: Collection[str] = ()
    ) -> Completion:
        """Puts the answer together. With `keep=False` only finish reasons and usage are there.

        Without a verdict, and in a choice whose finish reason is one of `cut_reasons`, no tool call is complete.
        """
        self._fold()
        proven = verdict is not None
        choices = tuple(
            _choice(index, tape, proven=proven and tape.finish_reason not in cut_reasons)
            for index, tape in sorted(self._choices.items())
        )
        if self.before is not None:
            choices = _joined(self.before.completion().choices, choices, self.skipped)
        return Completion(choices=choices or (Choice(),), usage=usage, verdict=verdict)

    def spent(self, resaid: int) -> int:
        """Estimates the tokens that this request's limit has lost, but for `resaid` characters that come once more."""
        again = -(-self.tokens * resaid // self.characters) if self.characters else 0
        return max(0, self.tokens - self._earlier - again)

    def said_again(self, tokens: int | None) -> int:
        """Estimates how many of its `tokens` only say again what the one before ended with."""
        self._fold()
        tokens = self.tokens if tokens is None else tokens
        if self.skipped is None:
            return tokens
        return -(-tokens * self.skipped // self.characters) if self.skipped else 0

    def said(self) -> tuple[str, str] | None:
        """Gives text and reasoning where a model could go on from them: one choice, no call, no refusal, no end."""
        self._fold()
        if set(self._choices) - {0} or not self._keep:
            return None
        tape = self._choices.get(0, Tape())
        if tape.finish_reason is not None or any(s.channel not in ("text", "reasoning") for s in tape.segments):
            return None
        text, reasoning = (
            "".join(s.text() for s in tape.segments if s.channel == channel) for channel in ("text", "reasoning")
        )
        return text, reasoning

    def said_to_the_end(self) -> tuple[str, str] | None:
        """Gives the whole answer's text and reasoning where it ended, with one choice and in the middle of its text."""
        self._fold()
        tape = self._choices.get(0)
        if tape is None or len(self._choices) > 1 or not self._keep or not tape.segments:
            return None
        if {s.channel for s in tape.segments} - {"text", "reasoning"} or tape.segments[-1].channel != "text":
            return None
        answer = self.completion()
        return answer.text, answer.reasoning

    def state(self) -> dict[str, Any]:
        """Gives, as JSON values, what `completion()` does not say: the order of the channels, ids, digests."""
        self._fold()
        if self.before is not None:
            return self._state_of_all()
        return {
            "tokens": self._tokens,
            "choices": {
                str(index): {
                    "segments": [s.state(told=self._keep) for s in tape.segments],
                    "ids": {str(number): id_ for number, id_ in tape.ids.items()},
                }
                for index, tape in self._choices.items()
            },
        }

    def _state_of_all(self) -> dict[str, Any]:
        """Over several requests the order of the channels means nothing any more."""
        choices = {
            str(choice.index): {
                "segments": [[channel, len(text)] for channel, text in _texts(choice).items() if text],
                "ids": {str(call.index): call.id for call in choice.tool_calls},
            }
            for choice in self.completion().choices
        }
        earlier = self.before.tokens if self.before is not None else 0
        return {"tokens": self._tokens + earlier, "earlier": earlier, "choices": choices}

    @classmethod
    def revived(cls, state: Mapping[str, Any], answer: Completion, *, keep: bool) -> Transcript:
        """Makes the transcript that `state()` and `completion()` took down. Raises `ValueError` where they disagree."""
        made = cls(keep=keep)
        made._tokens, made._earlier = int(state["tokens"]), int(state.get("earlier", 0))
        made._usage = answer.usage
        for choice in answer.choices:
            known = state["choices"].get(str(choice.index))
            if known is None:
                continue
            made._choices[choice.index] = tape = Tape()
            tape.finish_reason = choice.finish_reason
            tape.ids = {int(n): id_ for n, id_ in known["ids"].items()}
            left = _texts(choice)
            for segment in known["segments"]:
                text = left.get(segment[0], "")
                length = segment[1] if len(segment) == 2 else 0
                tape.segments.append(Segment.revived(segment, text[:length]))
                left[segment[0]] = text[length:]
                made.characters += segment[1]
        return made

    def replay(self) -> Replay:
        """Gives a comparer for an answer that is sent once more from its beginning."""
        self._fold()
        return Replay(self._choices, self._usage)


def _choice(index: int, tape: Tape, *, proven: bool) -> Choice:
    said: dict[str, list[str]] = {}
    for segment in tape.segments:
        said.setdefault(segment.channel, []).append(segment.text() if segment.keep else "")
    joined = {channel: "".join(parts) for channel, parts in said.items()}
    numbers = {int(c.partition(":")[2]) for c in joined if ":" in c} | set(tape.ids)
    if not all(segment.keep for segment in tape.segments):
        numbers = set()  # a call without its arguments must not look like one that has none
    return Choice(
        index=index,
        text=joined.get("text", ""),
        reasoning=joined.get("reasoning", ""),
        refusal=joined.get("refusal", ""),
        tool_calls=tuple(
            ToolCall(tape.ids.get(n, ""), joined.get(f"{NAME}{n}", ""), joined.get(f"{TOOL}{n}", ""), n, proven)
            for n in sorted(numbers)
        ),
        finish_reason=tape.finish_reason,
    )


def _texts(choice: Choice) -> dict[str, str]:
    calls = {f"{NAME}{call.index}": call.name for call in choice.tool_calls}
    calls |= {f"{TOOL}{call.index}": call.arguments for call in choice.tool_calls}
    return {"text": choice.text, "reasoning": choice.reasoning, "refusal": choice.refusal, **calls}


def _joined(before: tuple[Choice, ...], after: tuple[Choice, ...], skipped: int | None) -> tuple[Choice, ...]:
    """One answer of two: each choice goes on where it stood, and its end is the end of the second."""
    known = {choice.index: replace(choice, finish_reason=None) for choice in before}
    for choice in after if skipped is not None else ():
        first = known.get(choice.index, Choice(index=choice.index))
        known[choice.index] = replace(
            choice,
            text=first.text + choice.text[skipped:],
            reasoning=first.reasoning + choice.reasoning,
            refusal=first.refusal + choice.refusal,
            tool_calls=first.tool_calls + choice.tool_calls,
        )
    return tuple(known[index] for index in sorted(known))
