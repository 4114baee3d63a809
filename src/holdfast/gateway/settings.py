"""How a gateway is set: values, checked when they are made. `config.py` reads them from a file.

Nothing here opens, binds or asks anything.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from holdfast.machines.settings import check_count, check_seconds


@dataclass(slots=True, frozen=True, kw_only=True)
class UpstreamSettings:
    """One upstream: a provider's name (a dialect's), and what is not its usual. The key is never shown."""

    dialect: str
    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    name: str = ""
    model: str | None = None
    """In the place of the request's, None keeps it."""
    models: tuple[str, ...] = ()
    """Patterns, such as `gpt-*`, of the models that it is asked for; all where there are none."""
    weight: float = 1.0
    headers: dict[str, str] = field(default_factory=dict, repr=False)


@dataclass(slots=True, frozen=True, kw_only=True)
class KeySettings:
    """One gateway key, by its SHA-256: the key itself is nowhere."""

    name: str
    sha256: str
    scopes: tuple[str, ...] = ("stream",)
    """What it may do: `stream` opens and reads streams, `ui` looks at the page and the numbers."""
    models: tuple[str, ...] = ()
    """Patterns of the models it may ask for; all where there are none."""
    requests_per_minute: float | None = None
    concurrency: int | None = None
    money: float | None = None
    """What its streams may cost, in US dollars a day."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Limits:
    """Bounds on what clients may send and hold. Sizes are bytes, times seconds."""

    max_body: int = 32 * 1024 * 1024
    max_header: int = 32 * 1024
    header_timeout: float = 10.0
    """From the connection, or the last answer on it, to the end of a request's headers."""
    body_timeout: float = 60.0
    idle_timeout: float = 75.0
    max_connections: int = 10_000
    max_streams: int = 2_000
    """Streams at a time; one more is refused with 503."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Settings:
    """A gateway. Times are seconds, sizes bytes."""

    host: str = "127.0.0.1"
    port: int = 8700
    upstreams: tuple[UpstreamSettings, ...] = ()
    keys: tuple[KeySettings, ...] = ()
    limits: Limits = Limits()
    journal: str = "memory"
    """`memory`, `none`, or the address of a Redis."""
    workers: int = 1
    grace: float = 60.0
    """How long a stream goes on that nobody reads."""
    keep: float = 600.0
    """How long a stream that ended can be read."""
    max_stream: int = 16 * 1024 * 1024
    max_memory: int = 256 * 1024 * 1024
    heartbeat: float = 15.0
    drain: float = 30.0
    """How long streams that run may go on after a SIGTERM."""
    choose: Literal["first", "weighted", "least-loaded"] = "first"
    seams: bool = False
    """Whether a model may continue its own words where nothing exact is left."""
    other: Literal["refuse", "pass"] = "refuse"
    """What becomes of requests to other paths."""
    cors: tuple[str, ...] = ()
    """Origins whose pages may read; none where it is empty."""
    certificate: Path | None = None
    private_key: Path | None = None
    secret: str | None = field(default=None, repr=False)
    """What read tokens are signed with, the same on all nodes; made anew, or kept in the journal, where None."""

    def __post_init__(self) -> None:
        check_count("workers", self.workers)
        for name in ("grace", "keep", "heartbeat", "drain"):
            check_seconds(name, getattr(self, name), optional=False)
