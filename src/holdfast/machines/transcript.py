"""What has been delivered, in order, and the proof that a replay says the same.

A `Transcript` is the answer so far: per choice a list of segments (reasoning, text, a tool call's arguments...), each
as long as the model stayed in that channel. From it come the completion, the partial on an error, and `Replay`,
which compares a second answer with it character by character and lets only the new suffix through.

Text is folded into blocks of 4,096 characters: a list of small strings would cost twelve times what it holds. With
`keep=False` a block is replaced by its digest, so memory does not grow with the answer and a replay can still be
verified, block by block.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Any

from holdfast._types import Choice, Completion, Delta, ToolCall, ToolCallDelta, Usage, Verdict

BLOCK = 4_096
_FOLD_EVERY = 256
_TOOL = "tool:"
_NAME = "name:"


class _Segment:
    """One run of one channel. `blocks` holds text, or digests where the text is not kept; `tail` is not yet a block."""

    __slots__ = ("blocks", "channel", "keep", "length", "tail", "tail_length")

    def __init__(self, channel: str, *, keep: bool) -> None:
        self.channel = channel
        self.keep = keep
        self.length = 0
        self.blocks: list[str | bytes] = []
        self.tail: list[str] = []
        self.tail_length = 0

    def append(self, text: str) -> None:
        self.tail.append(text)
        self.length += len(text)
        self.tail_length += len(text)
        if self.tail_length >= BLOCK:
            self._fold()

    def _fold(self) -> None:
        joined = "".join(self.tail)
        whole = len(joined) // BLOCK * BLOCK
        for start in range(0, whole, BLOCK):
            block = joined[start : start + BLOCK]
            self.blocks.append(block if self.keep else _digest(block))
        self.tail = [joined[whole:]] if whole < len(joined) else []
        self.tail_length = len(joined) - whole

    def text(self) -> str:
        return "".join([b for b in self.blocks if isinstance(b, str)] + self.tail)

    def state(self, *, told: bool) -> list[Any]:
        """Channel and length; and where the answer does not tell the text, digests and the rest."""
        if told:
            return [self.channel, self.length]
        digests = [block.hex() for block in self.blocks if isinstance(block, bytes)]
        return [self.channel, self.length, digests, "".join(self.tail) if digests or not self.keep else self.text()]

    @classmethod
    def revived(cls, state: Sequence[Any], text: str) -> _Segment:
        channel, length, *rest = state
        segment = cls(channel, keep=not rest)
        segment.append(text if not rest else rest[1])
        if rest:
            segment.blocks[:0] = [bytes.fromhex(digest) for digest in rest[0]]
        if length != len(segment.blocks) * BLOCK + segment.tail_length:  # a replay would wait for it for ever
            raise ValueError("a partial's answer has not the length that its state says")
        segment.length = length
        return segment


def _digest(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


class _ChoiceTape:
    """One choice: its segments in order, how it finished, and the ids of its tool calls (opaque, never compared)."""

    __slots__ = ("finish_reason", "ids", "segments")

    def __init__(self) -> None:
        self.segments: list[_Segment] = []
        self.finish_reason: str | None = None
        self.ids: dict[int, str] = {}


def _pieces(delta: Delta) -> Iterator[tuple[str, str]]:
    """Gives what a delta says as (channel, text), in the order in which a model says it."""
    if delta.reasoning:
        yield "reasoning", delta.reasoning
    if delta.text:
        yield "text", delta.text
    if delta.refusal:
        yield "refusal", delta.refusal
    for call in delta.tool_calls:
        if call.name:
            yield f"{_NAME}{call.index}", call.name
        if call.arguments:
            yield f"{_TOOL}{call.index}", call.arguments


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
        self._choices: dict[int, _ChoiceTape] = {}
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
                tape = self._choices[delta.choice] = _ChoiceTape()
            if delta.finish_reason is not None:
                tape.finish_reason = delta.finish_reason
            if delta.usage is not None:
                self._usage = delta.usage
            for call in delta.tool_calls:
                if call.id:
                    tape.ids.setdefault(call.index, call.id)
            said = False
            for channel, text in _pieces(delta):
                said = True
                if not tape.segments or tape.segments[-1].channel != channel:
                    keep = self._keep or channel.startswith(_NAME)
                    tape.segments.append(_Segment(channel, keep=keep))
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
        tape = self._choices.get(0, _ChoiceTape())
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
            made._choices[choice.index] = tape = _ChoiceTape()
            tape.finish_reason = choice.finish_reason
            tape.ids = {int(n): id_ for n, id_ in known["ids"].items()}
            left = _texts(choice)
            for segment in known["segments"]:
                text = left.get(segment[0], "")
                length = segment[1] if len(segment) == 2 else 0
                tape.segments.append(_Segment.revived(segment, text[:length]))
                left[segment[0]] = text[length:]
                made.characters += segment[1]
        return made

    def replay(self) -> Replay:
        """Gives a comparer for an answer that is sent once more from its beginning."""
        self._fold()
        return Replay(self._choices, self._usage)


def _choice(index: int, tape: _ChoiceTape, *, proven: bool) -> Choice:
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
            ToolCall(tape.ids.get(n, ""), joined.get(f"{_NAME}{n}", ""), joined.get(f"{_TOOL}{n}", ""), n, proven)
            for n in sorted(numbers)
        ),
        finish_reason=tape.finish_reason,
    )


def _texts(choice: Choice) -> dict[str, str]:
    calls = {f"{_NAME}{call.index}": call.name for call in choice.tool_calls}
    calls |= {f"{_TOOL}{call.index}": call.arguments for call in choice.tool_calls}
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


class DivergenceError(Exception):
    """A replay said something else than what was delivered; `position` counts the characters that agreed."""

    def __init__(self, position: int) -> None:
        super().__init__(position)
        self.position = position


class _Place:
    """How far the replay of one choice has agreed."""

    __slots__ = ("agreed", "buffer", "finished", "offset", "segment", "tape")

    def __init__(self, tape: _ChoiceTape) -> None:
        self.tape = tape
        self.segment = 0
        self.offset = 0
        self.buffer = ""  # only where the text was not kept: the replay's own block, until it can be digested
        self.agreed = 0
        self.finished = tape.finish_reason is None  # what we hold of an end has been said again

    @property
    def at_end(self) -> bool:
        segments = self.tape.segments
        return not segments or (self.segment == len(segments) - 1 and self.offset == segments[-1].length)

    @property
    def caught_up(self) -> bool:
        return self.finished and self.at_end

    def match(self, channel: str, text: str) -> str:
        """Compares, and gives back what goes beyond what was delivered. Raises `DivergenceError`."""
        segments = self.tape.segments
        while text:
            if self.segment >= len(segments):
                return text
            here = segments[self.segment]
            if self.offset == here.length:
                if self.segment == len(segments) - 1:
                    return text
                if here.channel == channel:  # neighbours never share a channel: ours had moved on here
                    raise DivergenceError(self.agreed)
                self.segment, self.offset, self.buffer = self.segment + 1, 0, ""
                continue
            if here.channel != channel:
                raise DivergenceError(self.agreed)
            head = text[: here.length - self.offset]
            self._compare(here, head)
            self.offset += len(head)
            self.agreed += len(head)
            text = text[len(head) :]
        return ""

    def _compare(self, segment: _Segment, text: str) -> None:
        if segment.keep:
            at = self.offset
            while text:
                block, inside = divmod(at, BLOCK)
                ours = str(segment.blocks[block]) if block < len(segment.blocks) else "".join(segment.tail)
                part = text[: len(ours) - inside]
                if not ours.startswith(part, inside):
                    same = next(i for i, (a, b) in enumerate(zip(ours[inside:], part, strict=False)) if a != b)
                    raise DivergenceError(self.agreed + at - self.offset + same)
                at += len(part)
                text = text[len(part) :]
            return
        self.buffer += text
        done = (self.offset + len(text)) // BLOCK
        first = self.offset // BLOCK
        for block in range(first, min(done, len(segment.blocks))):
            if _digest(self.buffer[:BLOCK]) != segment.blocks[block]:
                raise DivergenceError(block * BLOCK)
            self.buffer = self.buffer[BLOCK:]
        if self.offset + len(text) == segment.length and self.buffer != "".join(segment.tail):
            raise DivergenceError(len(segment.blocks) * BLOCK)


class Replay:
    """Compares an answer that is sent again with the transcript, and holds back what is not yet vouched for.

    Nothing new is let go before *every* choice has said again all that was delivered: choices are interleaved at
    the server's whim, and one that agrees does not vouch for another that differs. Ids of tool calls are opaque
    handles drawn anew for every response, so they are not compared, and the ids delivered first stand.
    """

    __slots__ = ("_behind", "_held", "_places", "_usage", "swallowed")

    def __init__(self, choices: dict[int, _ChoiceTape], usage: Usage | None = None) -> None:
        self._places = {index: _Place(tape) for index, tape in choices.items()}
        self._usage = usage
        self._held: list[Delta] = []
        self.swallowed = 0
        self._behind = {index for index, place in self._places.items() if not place.caught_up}

    @property
    def caught_up(self) -> bool:
        """True once every choice has said again all that was delivered."""
        return not self._behind

    def feed(self, batch: Sequence[Delta], out: list[Delta]) -> None:
        """Appends what is new in a batch. Raises `DivergenceError` at the first character that differs."""
        for delta in batch:
            rest = self._rest(delta)
            if delta.choice in self._behind and self._places[delta.choice].caught_up:
                self._behind.discard(delta.choice)
            if rest is not None:
                self._held.append(rest)
            elif self.caught_up and delta.usage is not None and delta.usage != self._usage:
                # Said again up to here, but its usage is news: the cut came before it.
                self._held.append(Delta(delta.raw, usage=delta.usage, choice=delta.choice))
            elif self.caught_up and delta.empty:
                self._held.append(delta)  # it says nothing, and need not have come before: how a part ends, a signature
            else:
                self.swallowed += 1
            if self.caught_up and self._held:
                out += self._held
                self._held.clear()

    def _rest(self, delta: Delta) -> Delta | None:
        place = self._places.get(delta.choice)
        if place is None:
            return delta
        said = tuple(_pieces(delta))
        news = [(channel, place.match(channel, text)) for channel, text in said]
        finish, already = delta.finish_reason, place.tape.finish_reason
        ids = place.tape.ids
        new = any(text for _, text in news) or (
            place.at_end and any(call.id and call.index not in ids for call in delta.tool_calls)
        )
        if (finish is not None and not place.at_end) or (
            already is not None and (new or finish not in (None, already))
        ):
            raise DivergenceError(place.agreed)
        if finish is not None and already is not None:
            place.finished, finish = True, None
        if not new and finish is None:
            return None
        if tuple(news) == said and not any(call.id and call.index in ids for call in delta.tool_calls):
            return delta
        return _rebuilt(delta, news, finish, ids)

    def end(self) -> None:
        """The replay ended: it must have said everything that was delivered."""
        if not self.caught_up:
            raise DivergenceError(min(self._places[index].agreed for index in self._behind))


def with_usage(delta: Delta, usage: Usage | None) -> Delta:
    """The same piece with another usage."""
    return Delta(
        delta.raw,
        delta.text,
        delta.reasoning,
        delta.refusal,
        delta.tool_calls,
        delta.finish_reason,
        usage,
        delta.choice,
    )


def _rebuilt(delta: Delta, news: list[tuple[str, str]], finish: str | None, ids: dict[int, str]) -> Delta:
    """The same delta with only what is new in it."""
    left = iter(text for _, text in news)  # in the order in which `_pieces()` gave them
    reasoning, text, refusal = (next(left) if said else "" for said in (delta.reasoning, delta.text, delta.refusal))
    calls: list[ToolCallDelta] = []
    for call in delta.tool_calls:
        name = next(left) if call.name else ""
        arguments = next(left) if call.arguments else ""
        id_ = "" if call.index in ids else call.id
        if name or arguments or id_:
            calls.append(ToolCallDelta(call.index, id_, name, arguments))
    return Delta(delta.raw, text, reasoning, refusal, tuple(calls), finish, delta.usage, delta.choice)
