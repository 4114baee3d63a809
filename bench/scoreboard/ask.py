"""What a contender is asked, and the clocks that all of them are given. Imports nothing: it runs in every environment.

A contender is a module with `CATCH`, the errors that its library's documentation tells users to catch, `PACKAGES`,
whose versions the page names, and `read(ask, show)`: it asks once and shows each piece of text as it gets it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

IDLE = 3.0
"""Seconds without data that each contender allows, where its library has a setting for it."""
TOTAL = 12.0
"""Seconds for a whole answer, where the library has a setting for that."""
WATCHDOG = 15.0
"""Seconds after which an answer that has neither ended nor failed counts as hung."""

Show = Callable[[str], None]


@dataclass(slots=True, frozen=True, kw_only=True)
class Ask:
    """One stream to be read. `key` is its Idempotency-Key, by which the server finds what its attempts meet."""

    key: str
    base_url: str

    @property
    def url(self) -> str:
        """The endpoint, for those who speak HTTP themselves."""
        return f"{self.base_url}/chat/completions"

    @property
    def headers(self) -> dict[str, str]:
        """What every attempt must send."""
        return {"Idempotency-Key": self.key}

    @property
    def body(self) -> dict[str, Any]:
        """The request."""
        return {"model": "deepseek-flash", "messages": [{"role": "user", "content": self.key}], "stream": True}


@dataclass(slots=True, kw_only=True)
class Heard:
    """What came of it: the text shown, and how it ended. `error` is what was raised, empty at a normal end."""

    key: str
    text: str = ""
    error: str = ""
    typed: bool = False
    hung: bool = False
    seconds: float = 0.0
    pieces: list[str] = field(default_factory=list, repr=False)
