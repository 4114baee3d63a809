"""What stands beside a recorded body, and how the files of one recording are called.

One place for the layer that writes recordings and for all who read them. It opens no file itself.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

from holdfast import _errors
from holdfast._errors import StreamBroken, StreamError
from holdfast._types import Head

End = Literal["clean", "failure", "closed"]
"""How an attempt ended: the body did, it failed, or this side closed it."""

_PLAIN_ERRORS = ("ConnectError", "NotAStream", "StreamBroken", "Truncated")


class Sent(msgspec.Struct, kw_only=True):
    """The request, redacted; its body only where that was asked for."""

    url: str = ""
    method: str = "POST"
    headers: dict[str, str] = {}
    body: Any = msgspec.UNSET


class Failure(msgspec.Struct):
    """The error an attempt ended with, by its name."""

    type: str
    message: str


class Story(msgspec.Struct, kw_only=True):
    """What one attempt's `.json` file tells. `response` is None where no head arrived, `dialect` "" where none read it.

    A file of an older or a newer Holdfast may lack keys or have more; one without a `stream_id` is none.
    """

    stream_id: str
    attempt: int = 1
    dialect: str = ""
    ended_at: datetime | None = None
    seconds: float = 0.0
    bytes: int = 0
    ended: End = "clean"
    error: Failure | None = None
    request: Sent = msgspec.field(default_factory=Sent)
    response: Head | None = None

    def failure(self) -> StreamError | None:
        """Makes the error again. Kinds that need more than a message become `StreamBroken`: the body was cut."""
        if self.error is None:
            return None
        kind = getattr(_errors, self.error.type) if self.error.type in _PLAIN_ERRORS else StreamBroken
        failure: StreamError = kind(self.error.message)
        return failure


def numbered(path: Path, attempt: int) -> Path:
    """Gives the file of an attempt: `answer.sse`, then `answer.2.sse`, `answer.3.sse`."""
    return path if attempt == 1 else path.with_name(f"{path.stem}.{attempt}{path.suffix}")


def beside(path: Path) -> Path:
    """Gives the file that tells of a body: `answer.sse.json`."""
    return path.with_name(path.name + ".json")


__all__ = ["End", "Failure", "Sent", "Story", "beside", "numbered"]
