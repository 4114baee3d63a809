"""Where a run of items is cut into groups: by number, and between sentences, Chinese or Latin.

Groups are cut between items, never within one; nothing is merged, changed or reordered. What is held never exceeds
`max_items` and the batch that was fed last.

Where a sentence ends:

- After a run of the marks `。！？；…｡` or `. ! ?`, with the closing quotes and brackets behind it. What follows
  decides: a wide mark ends its sentence before anything else, a Latin one only before white space or a wide
  character, so that `3.14`, `file.py` and `a?b` stay whole. A mark at the very end of an item is undecided until the
  next one comes.
- Not at the full stop of an abbreviation (`e.g.`, `Mr.`), of an initial (`J. Smith`), or of a number that begins a
  line (`1. First`).
- At a line break, once its line has anything in it. That is decided at once.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from typing import Generic, TypeVar

from holdfast._types import Delta

T = TypeVar("T")

_WIDE_MARKS = "。！？；…｡"
_LATIN_MARKS = ".!?"
_CLOSERS = "」』”’）)]】》〉\"'*_`"  # Markdown's emphasis closes like a quote
_WIDE_FROM = "\u2e80"  # CJK begins here: ideographs, kana, full-width forms

_STOP = re.compile(rf"([^{_WIDE_MARKS}{_LATIN_MARKS}\n]*+)(\n|[{_WIDE_MARKS}{_LATIN_MARKS}]+[{re.escape(_CLOSERS)}]*)")
_DOTTED_WORD = re.compile(r"(?:^|[\s(\[\"'“‘])(?:[A-Za-z]\.)*[A-Za-z]$")  # e.g, i.e, U.S, J
_LINE_NUMBER = re.compile(r"(?:^|\n)[\s*_#>-]*\d+$")
_LAST_WORD = re.compile(r"(\w+)$")
_ABBREVIATIONS = frozenset(
    [
        "al",
        "approx",
        "cf",
        "dr",
        "eq",
        "etc",
        "fig",
        "figs",
        "jr",
        "mr",
        "mrs",
        "ms",
        "no",
        "nos",
        "prof",
        "resp",
        "sec",
        "sr",
        "st",
        "vol",
        "vs",
    ]
)
_MEMORY = 32
"""Characters before a full stop that are remembered: enough for a word, an initial, a line number."""


class SentenceEnds:
    """Finds the ends of sentences in text that comes in pieces. Holds at most some dozens of characters."""

    __slots__ = ("_blank", "_pending", "_tail")

    def __init__(self) -> None:
        self._tail = ""
        self._pending = ""  # a run of marks and closers at the very end of what was fed: undecided
        self._blank = True  # nothing but white space since the last end

    def feed(self, piece: str) -> tuple[bool, bool]:
        """Tells whether a sentence ended right before this piece, and whether one ended inside it or at its end."""
        text, start, at = self._pending + piece, len(self._pending), 0
        self._pending = ""
        before = inside = False
        while (stop := _STOP.match(text, at)) is not None:
            self._remember(stop[1])
            run = stop[2]
            at = stop.end()
            if at == len(text) and run != "\n":
                self._pending = run[-_MEMORY:]
                return before, inside
            ended = not self._blank if run == "\n" else self._ends(run, text[at])
            self._remember(run)
            if ended:
                self._blank = True
                # White space alone goes with the sentence before it; " Next" begins the sentence after.
                if at > start or piece.isspace():
                    inside = True
                else:
                    before = True
        self._remember(text[at:])
        return before, inside

    def _remember(self, text: str) -> None:
        self._tail = (self._tail + text)[-_MEMORY:]
        if text and not text.isspace():
            self._blank = False

    def _ends(self, run: str, following: str) -> bool:
        if any(mark in _WIDE_MARKS for mark in run):
            return True
        if not following.isspace() and following < _WIDE_FROM:
            return False
        if run.rstrip(_CLOSERS) != ".":
            return True
        word = _LAST_WORD.search(self._tail)
        if word is not None and word[0].lower() in _ABBREVIATIONS:
            return False
        return not (_DOTTED_WORD.search(self._tail) or _LINE_NUMBER.search(self._tail))


class Grouping(Generic[T]):
    """Takes items in and gives them back in groups of at most `count`, or of whole sentences, or of `max_items`.

    A delta that is more than text (finish reason, tool call, usage) ends its group, and so does the first that is not
    empty, unless `hold_first`. In groups by sentence, items without text are never held.
    """

    __slots__ = ("_begun", "_by_sentence", "_held", "_limit", "_ready", "_voices", "held_since")

    def __init__(self, *, count: int | None, sentences: bool, max_items: int, hold_first: bool) -> None:
        self._limit = min(count or max_items, max_items)
        self._by_sentence = sentences
        self._begun = hold_first  # from here on items may be held
        self._held: list[T] = []
        self._ready: deque[list[T]] = deque()
        self._voices: dict[int, tuple[str, SentenceEnds]] = {}
        self.held_since: float | None = None
        """When the first of the held items was fed; None when nothing is held."""

    def feed(self, batch: Sequence[T], now: float) -> None:
        """Takes a batch in. `now` is any clock's time."""
        for item in batch:
            before, ended = self._judge(item)
            if before:
                self.flush()
            if not self._held:
                self.held_since = now
            self._held.append(item)
            if ended or len(self._held) >= self._limit:
                self.flush()
        if not self._begun:  # only empty deltas so far
            self.flush()

    def flush(self) -> None:
        """What is held becomes a group."""
        if self._held:
            self._ready.append(self._held)
            self._held = []
            self.held_since = None

    def take(self) -> list[T] | None:
        """Gives the next group; None when there is none yet."""
        return self._ready.popleft() if self._ready else None

    def _judge(self, item: T) -> tuple[bool, bool]:
        """Tells whether a group ends before this item, and whether one ends after it."""
        if not isinstance(item, Delta):
            before, ended = False, self._by_sentence
        else:
            before, ended = self._listen(item) if self._by_sentence else (False, False)
            ended = ended or bool(item.finish_reason or item.tool_calls or item.usage)
        if not self._begun and not (isinstance(item, Delta) and item.empty):
            self._begun = ended = True
        return before, ended

    def _listen(self, delta: Delta) -> tuple[bool, bool]:
        """Choices talk at the same time, so each has its own sentences; going from thought to answer ends one."""
        text = delta.text or delta.reasoning or delta.refusal
        if not text:
            return False, False
        channel = "text" if delta.text else "reasoning" if delta.reasoning else "refusal"
        voice = self._voices.get(delta.choice)
        changed = voice is not None and voice[0] != channel
        if voice is None or changed:
            voice = self._voices[delta.choice] = (channel, SentenceEnds())
        before, inside = voice[1].feed(text)
        return before or changed, inside
