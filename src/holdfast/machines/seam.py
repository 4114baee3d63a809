"""A seam: an answer that a model continues from a prefix of it, joined so that nothing is doubled and nothing is lost.

The delivered text is cut back to a safe boundary; the model gets the prefix and must say the tail once more. Only what
follows a re-said tail is new. Servers differ in where their continuation begins, and none says where: at the cut, some
words before it, or at the beginning of the answer. So every place is tried at once, and text is held back until one
single place is left. Where two would fit (text that repeats itself) none is believed: that is a divergence, like a
tail that is not said again. The rung is seamed and never exact: it proves the joint and not the model's mind.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from unicodedata import category

from holdfast._types import Delta, Usage
from holdfast.machines.replay import DivergenceError

MIN_PREFIX = 8
"""Characters. Below it this rung must not be used: there is nothing to go on, and an echo looks like a new answer."""
LOOK_BACK = 64
"""Characters within which a cut is sought. A longer "word" (base64, a ruler) is cut in two, this far from its end."""
MIN_TAIL = 12
"""Characters, one of Chinese or Japanese counting for three, that a continuation must say again. One word is no proof:
a server that ignores the prefix, and begins anew, may well begin with it."""
RESTART = 256
"""Characters before the cut from where on a continuation may begin anywhere: servers tokenise a prefix anew."""

_CJK = "\u3001-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003fffd"
# The last word and the white space around it. Scripts without spaces have no words to see: one or two characters.
_LAST = re.compile(rf"\s*(?:[^\s{_CJK}]+|[{_CJK}]{{1,2}})\s*\Z|\s+\Z")
_WIDE = re.compile(f"[{_CJK}]")
_SENTENCE_ENDS = ".!?:。！？：…\n"
_SLIPS = (" ", "\n")  # white space that a server's tokeniser adds or drops where a text begins


def cut_back(text: str) -> int:
    """Gives where to cut a text so that a model goes on from its prefix: before the last word and the space before it.

    In Chinese and Japanese it is before the last character or two. Something is always cut off, at most `LOOK_BACK`
    characters and what belongs to the character there. 0 for an empty text.
    """
    start = max(0, len(text) - LOOK_BACK)
    found = _LAST.search(text, start)
    cut = found.start() if found else start
    while 0 < cut < len(text) and _joined(text[cut - 1], text[cut]):
        cut -= 1
    return cut


def joint(text: str) -> int:
    """Gives where to cut a delivered text so that what the model says again proves that it goes on from it.

    Word by word back until `MIN_TAIL` is reached, and not to the beginning of a sentence: there a new answer may
    begin, too. At most about `LOOK_BACK` characters; 0 for a text that is too short.
    """
    cut = cut_back(text)
    while cut > 0 and len(text) - cut < LOOK_BACK and (_weight(text[cut:]) < MIN_TAIL or _begins(text, cut)):
        cut = cut_back(text[:cut])
    return cut


def _weight(tail: str) -> int:
    return len(tail.strip()) + 2 * len(_WIDE.findall(tail))


def _begins(text: str, cut: int) -> bool:
    """Says whether a sentence begins at a cut: behind its white space, or behind the end of the one before."""
    return text[cut - 1] in _SENTENCE_ENDS or "\n" in text[cut : cut + 2]


def _joined(before: str, after: str) -> bool:
    """Says whether a cut between two characters would be inside one that a reader sees."""
    if after.isascii():
        return before == "\r" and after == "\n"
    return (
        category(after) in ("Mn", "Mc", "Me")  # accents, signs, variation selectors
        or "\u200d" in (before, after)  # what joins emoji into one
        or "\U0001f3fb" <= after <= "\U0001f3ff"  # skin tones
        or "\U000e0020" <= after <= "\U000e007f"  # tags, of which flags are made
        or ("\U0001f1e6" <= before <= "\U0001f1ff" and "\U0001f1e6" <= after <= "\U0001f1ff")  # flags of two letters
        or ("\ud800" <= before <= "\udbff" and "\udc00" <= after <= "\udfff")
    )


def _targets(delivered: str, cut: int) -> Iterator[str]:
    """Gives what a continuation may begin with: ends of the delivered text, each holding all of the tail.

    It may begin at the cut, up to `RESTART` characters before it, or at the very beginning. One space or newline more
    or less is forgiven at the cut, one more at the beginning.
    """
    tail = delivered[cut:]
    if tail[0] in _SLIPS and tail.strip():
        yield tail[1:]
    for start in range(cut, max(-1, cut - RESTART - 1), -1):
        yield delivered[start:]
    yield delivered
    for slip in _SLIPS:
        yield slip + tail
        yield slip + delivered


class Extension:
    """Lets through what is new in a continuation of `delivered` from `delivered[:cut]` on. For answers of one choice.

    `feed()` and `end()` raise `DivergenceError` as soon as nothing fits, or more than one thing; its position counts
    the delivered characters that stood. Nothing is in `out` before the joint is certain.

    Reasoning is left out, because it was delivered already, unless `keep_reasoning`.
    """

    __slots__ = (
        "_alive",
        "_cut",
        "_delivered",
        "_fit",
        "_held",
        "_keep_reasoning",
        "_said",
        "_usage",
        "caught_up",
        "swallowed",
    )

    def __init__(self, delivered: str, cut: int, *, keep_reasoning: bool = False) -> None:
        if not 0 <= cut < len(delivered):
            raise ValueError(f"Extension(cut=...) must be inside a text of {len(delivered)} characters, not {cut!r}")
        self._delivered = len(delivered)
        self._cut = cut
        self._keep_reasoning = keep_reasoning
        self._alive = list(dict.fromkeys(_targets(delivered, cut)))
        self._fit = 0  # the length of the one target that has been said whole
        self._said = 0
        self._held: list[tuple[int, Delta]] = []  # with how much text had been said before it
        self._usage: Delta | None = None  # of pieces that were left out
        self.caught_up = False
        """True once the tail has been said again: all that follows is new."""
        self.swallowed = 0
        """How many pieces were left out, because all in them had been delivered."""

    @property
    def said_again(self) -> int:
        """With how many characters the continuation began that had been delivered; known once it has caught up."""
        return self._fit

    def feed(self, batch: Sequence[Delta], out: list[Delta]) -> None:
        """Appends what is new in a batch. Raises `DivergenceError`."""
        for delta in batch:
            said = delta
            if delta.reasoning and not self._keep_reasoning:
                said = _with(delta, delta.text, reasoning="")
                if said.empty:
                    self.swallowed += 1
                    continue
            if self.caught_up:
                out.append(said)
            else:
                self._align(said, out)

    def end(self, out: list[Delta]) -> None:
        """The continuation is over. Raises `DivergenceError` when it ended before it had said the tail again."""
        if not self.caught_up:
            self._alive, alive = [], self._alive
            self._settle(alive, "", out)

    def _align(self, delta: Delta, out: list[Delta]) -> None:
        self._held.append((self._said, delta))
        before = self._alive
        if delta.text and not delta.choice:
            self._hear(delta.text)
        if delta.refusal or delta.tool_calls or delta.finish_reason or (delta.choice and not delta.empty):
            self._alive = []  # it goes on with something else: no more is said again
        self._settle(before, delta.text, out)
        self._said += len(delta.text)
        if not self.caught_up:
            self._drop_old()

    def _hear(self, text: str) -> None:
        """Keeps the targets that agree with a piece. Raises `DivergenceError` when a second one is said whole."""
        alive = []
        for target in self._alive:
            part = text[: len(target) - self._said]
            if not target.startswith(part, self._said):
                continue
            if self._said + len(part) < len(target):
                alive.append(target)
            elif self._fit:
                self._fail(self._delivered)
            else:
                self._fit = len(target)
        self._alive = alive

    def _settle(self, before: list[str], text: str, out: list[Delta]) -> None:
        """Lets go of what is new when one target is left; `before` are those that `text` was held against."""
        if self._alive:
            return
        if not self._fit:
            self._fail(max((self._agreed(target, text) for target in before), default=self._cut))
        self.caught_up = True
        if self._usage is not None:
            out.append(self._usage)
        for start, delta in self._held:
            rest = delta.text[max(0, self._fit - start) :]
            kept = delta if rest == delta.text else _with(delta, rest, reasoning=delta.reasoning)
            if not kept.empty or (delta.empty and start >= self._fit):
                out.append(kept)
            elif not delta.empty:
                self.swallowed += 1
        self._held.clear()

    def _agreed(self, target: str, text: str) -> int:
        """How much of what was delivered stands if the continuation began with this target."""
        ours = target[self._said : self._said + len(text)]
        same = next((i for i, (a, b) in enumerate(zip(ours, text, strict=False)) if a != b), min(len(ours), len(text)))
        heard = self._said + same
        return max(self._cut, self._delivered - len(target) + heard) if heard else self._cut

    def _fail(self, position: int) -> None:
        self._alive, self._fit = [], 0
        self._held.clear()
        raise DivergenceError(position)

    def _drop_old(self) -> None:
        """Forgets the last piece if it ends before any target does. Of its usage the last is kept."""
        start, delta = self._held[-1]
        if not delta.reasoning and start + len(delta.text) <= (self._fit or min(map(len, self._alive))):
            self._held.pop()
            self.swallowed += not delta.empty
            if delta.usage is not None:
                self._usage = Delta(delta.raw, usage=delta.usage)


def _with(delta: Delta, text: str, *, reasoning: str) -> Delta:
    """The same piece with less in it; its event stays whole."""
    return Delta(
        delta.raw, text, reasoning, delta.refusal, delta.tool_calls, delta.finish_reason, delta.usage, delta.choice
    )


def join_usage(before_input: int | None, delivered_tokens: int, usage: Usage, *, said_again: int = 0) -> Usage:
    """Gives the usage of the whole answer, from that of its continuation; marked as estimated.

    The continuation's input was the prompt and the prefix. `before_input`: the tokens of the prompt, where the first
    attempt told them. `delivered_tokens`: an estimate of what had been delivered. `said_again`: an estimate of those
    that the continuation said again, and counted as its output (`Extension.swallowed`).
    """
    asked, answered = before_input, usage.output_tokens
    if asked is None and usage.input_tokens is not None:
        asked = max(0, usage.input_tokens - delivered_tokens)
    if answered is not None:
        answered = max(0, answered - said_again) + delivered_tokens
    cached = _within(usage.cached_tokens, asked)  # a part of the prefix may have come from a cache, too
    written = _within(usage.cache_write_tokens, None if asked is None else asked - (cached or 0))
    return Usage(
        input_tokens=asked,
        output_tokens=answered,
        total_tokens=None if asked is None or answered is None else asked + answered,
        cached_tokens=cached,
        cache_write_tokens=written,
        reasoning_tokens=_within(usage.reasoning_tokens, answered),
        raw=usage.raw,
        estimated=True,
    )


def add_usage(first: Usage, then: Usage, *, said_again: int = 0) -> Usage:
    """Gives the usage of an answer whose end was asked on from: the prompt of the first, what both answered.

    `said_again`: an estimate of the tokens with which the second began, because the first had ended with them.
    """
    asked, answered = first.input_tokens, _sum(first.output_tokens, then.output_tokens)
    if answered is not None:
        answered = max(first.output_tokens or 0, answered - said_again)
    return Usage(
        input_tokens=asked,
        output_tokens=answered,
        total_tokens=_sum(asked, answered),
        cached_tokens=first.cached_tokens,
        cache_write_tokens=first.cache_write_tokens,
        reasoning_tokens=first.reasoning_tokens
        if then.reasoning_tokens is None
        else (first.reasoning_tokens or 0) + then.reasoning_tokens,
        raw=then.raw,
        estimated=first.estimated or then.estimated or said_again > 0,
    )


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


def _within(part: int | None, whole: int | None) -> int | None:
    return part if part is None or whole is None else min(part, whole)


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
