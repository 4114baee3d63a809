"""How a gateway is set: values, checked when they are made. `config.py` reads them from a file.

Nothing here opens, binds or asks anything.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from holdfast._errors import UsageError
from holdfast.dialects import Timeouts, find
from holdfast.machines.settings import check_count, check_seconds, is_number
from holdfast.upstreams import check_url

REDIS = ("redis://", "rediss://", "unix://")
"""How the address of a Redis begins."""
SCOPES = ("stream", "ui")
"""What a key may be for."""


@dataclass(slots=True, frozen=True, kw_only=True)
class BreakerSettings:
    """When an upstream is left alone: after so many `failures` in a row, for so many `seconds`."""

    failures: int = 5
    seconds: float = 30.0

    def __post_init__(self) -> None:
        check_count("failures", self.failures)
        check_seconds("seconds", self.seconds, optional=False)


@dataclass(slots=True, frozen=True, kw_only=True)
class HedgeSettings:
    """When a second request is sent beside one that is slow to begin: see `holdfast.hedge()`."""

    delay: float | None = None
    share: float = 0.05

    def __post_init__(self) -> None:
        check_seconds("delay", self.delay)
        _check_number("share", self.share, most=1)


@dataclass(slots=True, frozen=True, kw_only=True)
class RetryBudgetSettings:
    """What all streams together may send again: see `RetryBudget`."""

    ratio: float = 0.1
    floor: float = 1.0
    burst: float = 10.0

    def __post_init__(self) -> None:
        _check_number("ratio", self.ratio, least=0, most=1)
        _check_number("floor", self.floor, least=0)
        _check_number("burst", self.burst, least=1)


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
    timeouts: Timeouts = field(default_factory=Timeouts)
    """Over the dialect's own."""
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    concurrency: int | None = None
    """Streams at a time."""
    breaker: BreakerSettings = BreakerSettings()

    def __post_init__(self) -> None:
        if self.dialect == "auto":
            raise ValueError("dialect must be named: every request of a gateway goes to an upstream that is known")
        for name, check in (("dialect", find), ("base_url", check_url)):
            value = getattr(self, name)
            try:
                if value is not None:
                    check(value)
            except UsageError as error:
                raise ValueError(f"{name}: {error}") from None
        for name in ("weight", "requests_per_minute", "tokens_per_minute"):
            if (value := getattr(self, name)) is not None:
                _check_number(name, value)
        check_count("concurrency", self.concurrency, optional=True)


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

    def __post_init__(self) -> None:
        if not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise ValueError("sha256 must be 64 digits 0-9a-f, as `holdfast gateway new-key` prints them")
        for scope in self.scopes:
            if scope not in SCOPES:
                raise ValueError(f"scopes must be among {', '.join(SCOPES)}, not {scope!r}")
        for name in ("requests_per_minute", "money"):
            if (value := getattr(self, name)) is not None:
                _check_number(name, value)
        check_count("concurrency", self.concurrency, optional=True)


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

    def __post_init__(self) -> None:
        for name in ("max_body", "max_header", "max_connections", "max_streams"):
            check_count(name, getattr(self, name))
        for name in ("header_timeout", "body_timeout", "idle_timeout"):
            check_seconds(name, getattr(self, name), optional=False)


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
    """Which of several upstreams is asked first."""
    max_requests: int = 8
    """What one stream may send upstream, its seams included."""
    hedge: HedgeSettings | None = None
    retry_budget: RetryBudgetSettings | None = None
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
    open: bool = False
    """Whether everybody may come in without a key at an address that others can reach."""

    def __post_init__(self) -> None:
        for name in ("workers", "max_requests", "max_stream", "max_memory"):
            check_count(name, getattr(self, name))
        check_count("port", self.port, least=0)
        if self.port > 65_535:
            raise ValueError(f"port must be from 0 to 65535, not {self.port}")
        if self.journal not in ("memory", "none") and not self.journal.startswith(REDIS):
            raise ValueError(
                f"journal must be memory, none, or the address of a Redis (redis://...), not {shown(self.journal)}"
            )
        for name in ("grace", "keep", "heartbeat", "drain"):
            check_seconds(name, getattr(self, name), optional=False)
        if self.private_key is not None and self.certificate is None:
            raise ValueError("private_key must come with a certificate")


def shown(address: str) -> str:
    """Gives an address without what may be a password."""
    return repr(address.rpartition("@")[2])


def _check_number(name: str, value: float, *, least: float | None = None, most: float = math.inf) -> None:
    """Raises `ValueError` for what is no number up to `most`, above 0 or, where it is given, from `least` on."""
    if is_number(value) and value < math.inf and value <= most and (value > 0 if least is None else value >= least):
        return
    begin = "above 0" if least is None else f"from {least:g}"
    end = f" to {most:g}" if most < math.inf else ""
    raise ValueError(f"{name} must be a number {begin}{end}, not {value!r}")
