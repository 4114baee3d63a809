"""Where streams are kept, so that any reader can come back for the rest of one: in memory, or in Redis for many nodes.

`Journal` is what the gateway knows of either. A stream has one writer at a time, who holds its lease; what a writer
has been told is written, readers are shown, on every node alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from holdfast._types import Head
from holdfast.gateway.log import Ending, Log


class LeaseLost(Exception):
    """Another node writes this stream now: what this one has of it must reach nobody."""


class JournalError(Exception):
    """The journal cannot say: it did not answer in time, or no longer has what was asked for."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What a stream is, as it was opened: all that another node needs to go on with it, and no key of anybody's."""

    stream: str
    owner: str
    """The name of the gateway key that opened it, empty where there are none."""
    surface: str
    """The name of the surface it was asked at: see `surfaces.py`."""
    url: str
    """The path and query of the request."""
    headers: dict[str, str]
    """Those of the client's headers that go upstream; no secrets."""
    body: bytes
    digest: str
    """Of method, path and body: the same request has the same."""
    idempotency_key: str = ""
    opened: float = 0.0
    """Seconds since the epoch."""


@dataclass(slots=True, eq=False)
class Shelved:
    """A stream as this node has it. `log` is fed by whoever writes it, here or elsewhere."""

    entry: Entry
    log: Log
    fence: int = 1
    """How many nodes have written it: more than one, and its upstream was asked anew."""


@dataclass(slots=True)
class Pulse:
    """How a journal elsewhere answers: so many exchanges, the seconds they took together, and its silences."""

    exchanges: int = 0
    seconds: float = 0.0
    silences: int = 0
    silent: bool = False
    """True while it does not answer."""


class Writer(Protocol):
    """The right to write one stream: a lease, which is kept up until `end()` or `release()`."""

    shelved: Shelved

    def check(self) -> None:
        """Raises `LeaseLost` where the right is gone, or may be: asked before anything is sent upstream."""

    async def start(self, head: Head, *, upstream: str = "") -> None:
        """Notes the head that readers are given, and who answers. Again with another `upstream` after a move."""

    def note(self, **state: bool | str) -> None:
        """Tells, with the next records, what they do not tell themselves: `call`, `upstream`, `seamed`.

        It is for whoever takes the stream over, and must stand or fall with the records that it is about.
        """

    async def write(self, records: Sequence[bytes]) -> None:
        """Writes records, and then shows them to readers. Raises `LeaseLost`, and nobody is shown anything."""

    async def end(self, ending: Ending) -> None:
        """Notes that nothing follows, shows it, and gives the lease back."""

    async def drop(self) -> None:
        """Forgets the stream: nothing of it was shown to anybody, and who asks again shall have another."""

    async def release(self) -> None:
        """Gives the lease back in the middle of a stream: another node is to go on with it at once.

        Raises `JournalError` where there is none, and so the stream must be ended.
        """

    async def read_elsewhere(self) -> bool:
        """Says whether somebody reads it on another node."""


class Journal(Protocol):
    """Streams, by name. All methods raise `JournalError` where the journal cannot say."""

    @property
    def shared(self) -> bool:
        """Whether other nodes see it: they can go on with what this one leaves."""

    @property
    def pulse(self) -> Pulse | None:
        """How it answers, None for one in this process."""

    async def start(self, cancelled: Callable[[str], None]) -> None:
        """Begins what runs beside. `cancelled` is told of a stream written here that another node asks to stop."""

    async def secret(self) -> str:
        """Gives what all nodes of this journal sign with: made once, and then the same for every one of them."""

    async def begin(self, entry: Entry) -> Writer | Shelved:
        """Opens a stream and gives its writer; or gives the one that was opened with the same idempotency key."""

    async def find(self, stream: str) -> Shelved | None:
        """Gives a stream, None for one that there is not (any more). Its log follows whoever writes it."""

    async def read(self, shelved: Shelved, after: int) -> tuple[bytes, int]:
        """Gives records that the log has let go of, as `Log.after()` does. Raises `LookupError` where they are gone."""

    async def cancel(self, shelved: Shelved) -> None:
        """Asks whoever writes it to stop, wherever that is."""

    def held(self, shelved: Shelved, readers: int) -> None:
        """Says how many read a stream here: elsewhere it is known by that that somebody does."""

    def forget(self, shelved: Shelved) -> None:
        """Nobody here reads it: it need not be followed."""

    def sweep(self) -> None:
        """Forgets what is old, or too much. Called about once a second; must not wait."""

    async def aclose(self) -> None:
        """Gives everything back."""


__all__ = ["Entry", "Journal", "JournalError", "LeaseLost", "Pulse", "Shelved", "Writer"]
