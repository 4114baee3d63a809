"""The proof that an answer which is sent again says the same: character by character, or block by block.

Nothing new is let through before all that was delivered has been said again; where something differs, nothing is.
"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast._types import Delta, ToolCallDelta, Usage
from holdfast.machines.tape import BLOCK, Segment, Tape, digest, pieces


class DivergenceError(Exception):
    """A replay said something else than what was delivered; `position` counts the characters that agreed."""

    def __init__(self, position: int) -> None:
        super().__init__(position)
        self.position = position


class _Place:
    """How far the replay of one choice has agreed."""

    __slots__ = ("agreed", "buffer", "finished", "offset", "segment", "tape")

    def __init__(self, tape: Tape) -> None:
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

    def _compare(self, segment: Segment, text: str) -> None:
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
            if digest(self.buffer[:BLOCK]) != segment.blocks[block]:
                raise DivergenceError(block * BLOCK)
            self.buffer = self.buffer[BLOCK:]
        if self.offset + len(text) == segment.length and self.buffer != "".join(segment.tail):
            raise DivergenceError(len(segment.blocks) * BLOCK)


MAX_HELD = 64 * 1024 * 1024
"""Bytes of events that may wait for a choice that lags behind: no two choices of one answer are that far apart."""


class Replay:
    """Compares an answer that is sent again with the transcript, and holds back what is not yet vouched for.

    Nothing new is let go before *every* choice has said again all that was delivered: choices are interleaved at
    the server's whim, and one that agrees does not vouch for another that differs. Ids of tool calls are opaque
    handles drawn anew for every response, so they are not compared, and the ids delivered first stand.
    """

    __slots__ = ("_behind", "_held", "_held_bytes", "_places", "_usage", "swallowed")

    def __init__(self, choices: dict[int, Tape], usage: Usage | None = None) -> None:
        self._places = {index: _Place(tape) for index, tape in choices.items()}
        self._usage = usage
        self._held: list[Delta] = []
        self._held_bytes = 0
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
            elif rest is not None:
                self._held_bytes += delta.raw.end - delta.raw.offset
                if self._held_bytes > MAX_HELD:
                    self.end()

    def _rest(self, delta: Delta) -> Delta | None:
        place = self._places.get(delta.choice)
        if place is None:
            return delta
        said = tuple(pieces(delta))
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


def _rebuilt(delta: Delta, news: list[tuple[str, str]], finish: str | None, ids: dict[int, str]) -> Delta:
    """The same delta with only what is new in it."""
    left = iter(text for _, text in news)  # in the order in which `pieces()` gave them
    reasoning, text, refusal = (next(left) if said else "" for said in (delta.reasoning, delta.text, delta.refusal))
    calls: list[ToolCallDelta] = []
    for call in delta.tool_calls:
        name = next(left) if call.name else ""
        arguments = next(left) if call.arguments else ""
        id_ = "" if call.index in ids else call.id
        if name or arguments or id_:
            calls.append(ToolCallDelta(call.index, id_, name, arguments))
    return Delta(delta.raw, text, reasoning, refusal, tuple(calls), finish, delta.usage, delta.choice)
