"""Which attempt of which stream meets what, as a value: it can be printed, stored, and played again.

It never remembers anything: the fault of attempt k of stream s is a pure function of the schedule, s and k, whoever
else is being served meanwhile. Whoever plays a schedule counts the attempts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from random import Random
from typing import Any

import msgspec

from holdfast.testing.faults import EVIDENT, KINDS, Fault, Healthy

HEALTHY = Healthy()


@dataclass(slots=True, frozen=True, kw_only=True)
class Schedule:
    """What is to happen: written down by stream, drawn by chance, or both.

    `streams` gives for a stream's key what its attempts meet, in their order; after the last one all is well. The key
    "*" stands for every stream that is not named. Of other streams each attempt meets one of `faults` with probability
    `rate`, drawn from `seed`; a fault that strikes at a place gets one among the first `within` events, None leaving it
    where it is.
    """

    streams: Mapping[str, Sequence[Fault]] = field(default_factory=dict)
    seed: int = 0
    rate: float = 0.0
    faults: Sequence[Fault] = ()
    within: int | None = 60

    def __post_init__(self) -> None:
        object.__setattr__(self, "streams", {key: tuple(met) for key, met in self.streams.items()})
        object.__setattr__(self, "faults", tuple(self.faults))
        if not 0.0 <= self.rate <= 1.0:
            raise ValueError(f"Schedule(rate=...) is a probability between 0 and 1, not {self.rate!r}")
        if self.rate and not self.faults:
            raise ValueError(f"Schedule(rate={self.rate!r}) needs faults= to draw from")
        if self.within is not None and self.within < 1:
            raise ValueError(f"Schedule(within=...) is a number of events above 0, not {self.within!r}")

    @classmethod
    def draw(
        cls, seed: int = 0, *, rate: float = 0.12, faults: Sequence[Fault] = EVIDENT, within: int | None = 60
    ) -> Schedule:
        """Gives the schedule in which every attempt meets a fault with probability `rate`."""
        return cls(seed=seed, rate=rate, faults=faults, within=within)

    def fault(self, key: str, attempt: int) -> Fault:
        """Gives what an attempt of a stream meets; attempts count from 1."""
        written = self.streams.get(key, self.streams.get("*"))
        if written is not None:
            return written[attempt - 1] if attempt <= len(written) else HEALTHY
        if not self.rate:
            return HEALTHY
        chance = Random(f"{self.seed} {attempt} {key}")  # noqa: S311 - the same draw each time is the point
        if chance.random() >= self.rate:
            return HEALTHY
        return _placed(chance.choice(self.faults), chance, self.within)

    def to_json(self) -> str:
        """Gives the schedule as JSON. Raises `TypeError` for a fault that is not of the vocabulary."""
        whole = {name: getattr(self, name) for name in ("streams", "seed", "rate", "faults", "within")}
        return msgspec.json.encode(whole).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Schedule:
        """Reads what `to_json()` wrote; what is left out has its default. Raises `ValueError` for anything else."""
        stored = msgspec.json.decode(text, type=_Stored)
        return cls(**{name: getattr(stored, name) for name in stored.__struct_fields__})

    def __str__(self) -> str:
        lines = []
        for key, met in self.streams.items():
            lines.append(f"{key}: {', then '.join(map(str, met)) or HEALTHY}")
        if self.rate:
            kinds = f"{len(self.faults)} fault{'s' if len(self.faults) != 1 else ''}"
            lines.append(f"every attempt with probability {self.rate:g} one of {kinds}, drawn from seed {self.seed}")
        return "\n".join(lines) or "no faults"


def _placed(fault: Any, chance: Random, within: int | None) -> Fault:
    """Moves a fault that strikes after so many events."""
    if within is None or not isinstance(getattr(fault, "after", None), int) or not isinstance(fault, msgspec.Struct):
        return fault  # type: ignore[no-any-return]  # a fault of the user's own
    moved: Any = msgspec.structs.replace(fault, after=chance.randrange(within))
    return moved  # type: ignore[no-any-return]  # the same type, which msgspec does not say


class _Stored(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    streams: dict[str, tuple[reduce(or_, KINDS), ...]] = {}  # type: ignore[valid-type]  # the union of all faults
    seed: int = 0
    rate: float = 0.0
    faults: tuple[reduce(or_, KINDS), ...] = ()  # type: ignore[valid-type]  # as above
    within: int | None = 60


def stream_key(method: str, path: str, headers: Mapping[str, str], body: bytes) -> str:
    """Tells streams apart, and recognises the attempts of one: by its Idempotency-Key, else by what is asked for.

    Names of `headers` are lower case. What an attempt adds to the request to go on from where the last one was cut (an
    assistant's message at the end, and DeepSeek's `/beta` for it) does not make it another stream.
    """
    if key := headers.get("idempotency-key"):
        return key
    asked = b"%b %b %b" % (method.encode(), path.removeprefix("/beta").encode(), _asked(body))
    return hashlib.sha256(asked).hexdigest()[:16]


def _asked(body: bytes) -> bytes:
    try:
        request = json.loads(body)
    except ValueError:
        return body
    if not isinstance(request, dict):
        return body
    messages = request.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else None
    if isinstance(last, dict) and last.get("role") == "assistant":
        request = {**request, "messages": request["messages"][:-1]}
    return json.dumps(request, sort_keys=True).encode()


__all__ = ["HEALTHY", "Schedule", "stream_key"]
