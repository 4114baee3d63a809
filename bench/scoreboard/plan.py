"""What every contender meets: the same keys, the same faults, the same server, whoever it is.

A key is `<part> <mode> <number>`. The parts: `once`, the fault meets the first attempt and then all is well; `always`,
it meets every attempt; `mix`, every attempt of a stream meets one with probability 0.12.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from holdfast.testing import faults as f
from holdfast.testing.chaos import ChaosServer, Mode
from holdfast.testing.faults import EVIDENT, FINAL, SILENT, VOCABULARY, Fault
from holdfast.testing.schedule import Schedule

Part = Literal["once", "always", "mix"]
WARM = "warm"
RATE, SEED, AFTER, SENTENCES = 0.12, 3, 45, 4
"""The published rate of failures; where faults of the matrix strike, in events; how long answers are, in sentences."""
ALWAYS = 30
MODES: tuple[Mode, ...] = ("ids", "no-ids", "divergent")

_RESUMING = (f.IgnoresLastEventId, f.ResumeRefused, f.AnotherAnswer, f.RepeatedAfterResume, f.IdRewound, f.IdWithNul)
_HARMLESS = (
    *(f.EarlyHints, f.SplitHead, f.WrongCharset, f.WrongDigest, f.ResetAtEnd, f.StallAtEnd),
    *(f.Latency, f.Drip, f.Throttle, f.ThroughputCollapse),
    *(f.SplitCharacters, f.ByteOrderMark, f.LineEnds, f.Comments, f.BigEvent, f.NoDone, f.Gzipped, f.Framed),
)


def _harmless(fault: Fault) -> bool:
    return isinstance(fault, _HARMLESS) or fault == f.LengthTooLong(after=None)


def _placed(fault: Any) -> Fault:
    """Moves a fault of the matrix into the text: before it stands what the model thought."""
    moved: Fault = msgspec.structs.replace(fault, after=AFTER) if getattr(fault, "after", None) is not None else fault
    return moved


ABOUT_IDS, CORRUPTION = "The server goes wrong about ids, after a reset", "Silent corruption"
BREAKING = tuple(x for x in EVIDENT if not _harmless(x) and not isinstance(x, _RESUMING))
GROUPS: dict[str, tuple[Fault, ...]] = {
    "The answer breaks; another try may mend it": tuple(map(_placed, BREAKING)),
    "The server says that no try will help": tuple(_placed(x) for x in FINAL if not isinstance(x, _RESUMING)),
    ABOUT_IDS: tuple(_placed(x) for x in VOCABULARY if isinstance(x, _RESUMING) and x.evident),
    "Nothing is lost": tuple(_placed(x) for x in EVIDENT if _harmless(x)),
    CORRUPTION: tuple(map(_placed, SILENT)),
}
"""The rows of the matrix. Silent corruption leaves no trace where there are no ids: nobody can be blamed for it."""
FAULTS = tuple(fault for group in GROUPS.values() for fault in group)


def groups(mode: Mode) -> dict[str, tuple[Fault, ...]]:
    """Gives the rows of one matrix: without ids, a server cannot go wrong about them."""
    return {name: faults for name, faults in GROUPS.items() if mode == "ids" or name != ABOUT_IDS}


def _met(fault: Fault, times: int) -> tuple[Fault, ...]:
    """Gives what the attempts meet: wrong answers to a Last-Event-ID need a cut to be asked for."""
    if isinstance(fault, _RESUMING) and not isinstance(fault, f.IdRewound | f.IdWithNul):
        return (f.ResetMidStream(after=AFTER), *(fault,) * times)
    return (fault,) * times


@dataclass(slots=True, frozen=True, kw_only=True)
class Plan:
    """`streams` is how many the mix has for each mode of the server."""

    streams: int = 300
    keys: dict[str, Mode] = field(init=False)
    schedule: Schedule = field(init=False)

    def __post_init__(self) -> None:
        met: dict[str, tuple[Fault, ...]] = {WARM: ()}
        keys: dict[str, Mode] = {}
        for number, fault in enumerate(FAULTS):
            for mode in ("no-ids", "ids"):
                keys[f"once {mode} {number}"] = mode
                met[f"once {mode} {number}"] = _met(fault, 1)
            keys[f"always no-ids {number}"] = "no-ids"
            met[f"always no-ids {number}"] = _met(fault, ALWAYS)
        keys |= {f"mix {mode} {number}": mode for mode in MODES for number in range(self.streams)}
        object.__setattr__(self, "keys", keys)
        schedule = Schedule(streams=met, seed=SEED, rate=RATE, faults=BREAKING, within=60)
        object.__setattr__(self, "schedule", schedule)

    @property
    def shifts(self) -> tuple[list[str], list[str]]:
        """The keys in two processes, one after the other.

        Some contenders take a whole core for minutes over a line without an end: their other streams must not pay.
        """
        heavy = [key for key in self.keys if isinstance(self.schedule.fault(key, 1), f.EndlessLine)]
        return [key for key in self.keys if key not in heavy], heavy

    def server(self) -> ChaosServer:
        """Gives the server of one contender."""
        return ChaosServer(schedule=self.schedule, modes=self.keys, seed=SEED, sentences=SENTENCES)

    def struck(self, key: str) -> bool:
        """Tells whether a stream's first attempt meets a fault."""
        return self.schedule.fault(key, 1).name != "healthy"
