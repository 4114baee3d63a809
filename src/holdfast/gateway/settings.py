"""How a gateway is set: values, checked when they are made. `config.py` reads them from a file.

Nothing here opens, binds or asks anything.
"""

from __future__ import annotations

import ipaddress
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
Scope = Literal["stream", "ui"]
SCOPES: tuple[Scope, ...] = ("stream", "ui")
"""What a key may be for."""
_KEY_NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#\s]+")


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
    scopes: tuple[Scope, ...] = ("stream",)
    """What it may do: `stream` opens, reads and cancels streams, `ui` looks at the page and the numbers."""
    models: tuple[str, ...] = ()
    """Patterns of the models it may ask for; all where there are none."""
    requests_per_minute: float | None = None
    concurrency: int | None = None
    money: float | None = None
    """What its streams may cost, in US dollars a day (UTC). What has no price is not sent, then."""

    def __post_init__(self) -> None:
        if not _KEY_NAME.fullmatch(self.name):
            raise ValueError(f"name must be 1 to 64 letters, digits, or of '._@-', not {self.name!r}")
        if not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise ValueError("sha256 must be 64 digits 0-9a-f, as `holdfast gateway new-key` prints them")
        for scope in self.scopes:
            if scope not in SCOPES:
                raise ValueError(f"scopes must be among {', '.join(SCOPES)}, not {scope!r}")
        for name, least in (("requests_per_minute", 1.0), ("money", None)):
            if (value := getattr(self, name)) is not None:
                _check_number(name, value, least=least)
        check_count("concurrency", self.concurrency, optional=True)


@dataclass(slots=True, frozen=True, kw_only=True)
class Limits:
    """Bounds on what clients may send and hold. Sizes are bytes, times seconds."""

    max_body: int = 32 * 1024 * 1024
    max_bodies: int = 512 * 1024 * 1024
    """All bodies together of requests that are read or answered."""
    max_header: int = 32 * 1024
    """A request's line and headers together."""
    header_timeout: float = 10.0
    """From the connection, or the last answer on it, to the end of a request's headers."""
    body_timeout: float = 60.0
    idle_timeout: float = 75.0
    """Between two requests on a connection."""
    write_timeout: float = 600.0
    """How long a reader may take nothing at all."""
    max_readers: int = 100
    """Of one stream, at a time, on one node."""
    max_connections: int = 10_000
    max_streams: int = 2_000
    """Streams at a time; one more is refused with 503."""

    def __post_init__(self) -> None:
        for name in ("max_body", "max_bodies", "max_header", "max_connections", "max_readers", "max_streams"):
            check_count(name, getattr(self, name))
        for name in ("header_timeout", "body_timeout", "idle_timeout", "write_timeout"):
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
    lease: float = 5.0
    """With a Redis: after how long another node goes on with the streams of one that says nothing."""
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
    prices: Path | None = None
    """A price table that comes before the library's: see `holdfast.Prices.load()`. Keys' money is counted by it."""
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
        for name in ("lease", "grace", "keep", "heartbeat", "drain"):
            check_seconds(name, getattr(self, name), optional=False)
        _check_address(self.host)
        for table, what in (("keys", "name"), ("keys", "sha256"), ("upstreams", "name")):
            seen: dict[str, int] = {}
            for place, one in enumerate(getattr(self, table)):
                value = getattr(one, what)
                if value and seen.setdefault(value, place) != place:
                    raise ValueError(f"{table}[{place}].{what} is that of {table}[{seen[value]}] too")
        for origin in self.cors:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ValueError(f"cors takes origins such as 'https://example.com', or '*', not {origin!r}")
        if self.private_key is not None and self.certificate is None:
            raise ValueError("private_key must come with a certificate")


def shown(address: str) -> str:
    """Gives an address without what may be a password."""
    return repr(address.rpartition("@")[2])


def _check_address(host: str) -> None:
    """Raises `ValueError` for what looks like an address and is none; names are for others to know."""
    if ":" in host or re.fullmatch(r"[0-9.]+", host):
        try:
            ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            raise ValueError(f"host must be a name or an IP address, not {host!r}") from None


def _check_number(name: str, value: float, *, least: float | None = None, most: float = math.inf) -> None:
    """Raises `ValueError` for what is no number up to `most`, above 0 or, where it is given, from `least` on."""
    if is_number(value) and value < math.inf and value <= most and (value > 0 if least is None else value >= least):
        return
    begin = "above 0" if least is None else f"from {least:g}"
    end = f" to {most:g}" if most < math.inf else ""
    raise ValueError(f"{name} must be a number {begin}{end}, not {value!r}")
