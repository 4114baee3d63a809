"""What a fault is, and what those of the vocabulary have in common.

A fault is a value that describes: it never waits, and draws nothing. One that finds nothing to strike at, its place
being behind the answer's end, leaves the reply as it is.
"""

from __future__ import annotations

import re
from typing import ClassVar, Protocol

import msgspec

from holdfast.testing.acts import Asked, Play
from holdfast.testing.faults._parts import whole


class Fault(Protocol):
    """One way a reply goes. `str()` of it names it for a person."""

    @property
    def name(self) -> str:
        """Its name in JSON."""

    @property
    def evident(self) -> bool:
        """False for silent corruption."""

    @property
    def final(self) -> bool:
        """True where the reply says that no other try will mend it."""

    @property
    def forgets(self) -> bool:
        """True where the server does as if the request had no `Last-Event-ID`."""

    def play(self, asked: Asked) -> Play:
        """Gives what is done to one reply."""


def _kebab(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()


class BaseFault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="fault", tag=_kebab):
    """What all faults have; a `Fault` of your own needs only the protocol."""

    words: ClassVar[str] = ""
    evident: ClassVar[bool] = True
    forgets: ClassVar[bool] = False

    @property
    def name(self) -> str:
        return str(self.__struct_config__.tag)

    @property
    def final(self) -> bool:
        return False

    def play(self, asked: Asked) -> Play:
        """Gives what is done to one reply: nothing."""
        return whole()

    def __str__(self) -> str:
        after = getattr(self, "after", None)
        return self.words if after is None else f"{self.words} after {after} event{'s' if after != 1 else ''}"


class Healthy(BaseFault, frozen=True, kw_only=True):
    """Nothing goes wrong."""

    words = "no fault"
