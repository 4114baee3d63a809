"""What a response's headers say about rate limits: how much there is, how much is left, and when it is full again.

It decides nothing: waiting is a layer's business, and `statuses.retry_after` reads the server's own wish. Nobody agreed
on names or on what a reset is, so this reads them all: OpenAI, Groq (Go durations: `1m3.57s`, `6ms`), Azure, Mistral
(seconds), Anthropic (RFC 3339), OpenRouter (milliseconds since 1970), and the IETF's drafts (seconds:
draft-ietf-httpapi-ratelimit-headers). DeepSeek, Gemini and servers of one's own say nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, get_args

import msgspec

from holdfast.machines.statuses import EPOCH, answered_at, since_1970

Kind = Literal["requests", "tokens", "input_tokens", "output_tokens"]


@dataclass(slots=True, frozen=True, kw_only=True)
class Limit:
    """One limit: `remaining` of `limit` are left, and `reset_seconds` from now it is full again. None: not told."""

    limit: int | None = None
    remaining: int | None = None
    reset_seconds: float | None = None
    family: str = field(default="", compare=False)
    """Which of the limits of its kind it is, by the header that tells what is left of it."""


@dataclass(slots=True, frozen=True, kw_only=True)
class RateLimits:
    """The limits that a response told of, by what they count. Where a kind has several, the one nearest to its end."""

    requests: Limit | None = None
    tokens: Limit | None = None
    input_tokens: Limit | None = None
    output_tokens: Limit | None = None
    every: tuple[tuple[Kind, Limit], ...] = field(default=(), compare=False, repr=False)
    """All of them: one a minute and one a day are different limits, though they count the same."""

    @property
    def wait(self) -> float | None:
        """Seconds until all that is used up is full again; None where nothing is, or nobody said when."""
        resets = [limit.reset_seconds for limit in self._limits if limit.remaining == 0]
        return max((seconds for seconds in resets if seconds is not None), default=None)

    @property
    def used_up(self) -> bool:
        """True where nothing is left of one of them."""
        return any(limit.remaining == 0 for limit in self._limits)

    @property
    def _limits(self) -> list[Limit]:
        nearest = (self.requests, self.tokens, self.input_tokens, self.output_tokens)
        return [limit for limit in nearest if limit is not None]


_FAMILIES: dict[Kind, tuple[str, ...]] = {
    "requests": (
        "x-ratelimit-{}-requests",  # OpenAI, Azure, Groq
        "anthropic-ratelimit-requests-{}",
        "x-ratelimit-{}-req-minute",  # Mistral
        "x-ratelimit-{}-requests-minute",  # Cerebras
        "x-ratelimit-{}-requests-day",
        "x-ratelimit-{}",  # OpenRouter
        "ratelimit-{}",  # the IETF's drafts up to 06
    ),
    "tokens": (
        "x-ratelimit-{}-tokens",
        "anthropic-ratelimit-tokens-{}",
        "x-ratelimit-{}-tokens-minute",  # Mistral, Cerebras
        "x-ratelimit-{}-tokens-day",
        "ratelimitbysize-{}",  # Mistral, before
    ),
    "input_tokens": ("anthropic-ratelimit-input-tokens-{}",),
    "output_tokens": ("anthropic-ratelimit-output-tokens-{}",),
}
_NAMES: dict[Kind, list[tuple[str, str, str]]] = {
    kind: [(name.format("limit"), name.format("remaining"), name.format("reset")) for name in names]
    for kind, names in _FAMILIES.items()
}
_COUNT = re.compile(r"\s*(\d{1,18})(?:\.\d*)?\s*(?:[,;].*)?", re.ASCII)  # the drafts add a policy: "100, 100;w=60"
_SECONDS = re.compile(r"\d{1,18}(?:\.\d{0,18})?", re.ASCII)
_DURATION = re.compile(r"(?:\d{1,12}(?:\.\d{0,12})?(?:h|ms|m|s|us|µs|μs|ns))+", re.ASCII)
_PART = re.compile(r"([\d.]+)([a-zµμ]+)")
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9}
_PAIR = re.compile(r"\b(limit|remaining|reset|r|t|q)\s*=\s*(\d{1,18})\b", re.ASCII)

_SHORTEST_TIME = len("1000000000")


def read(headers: Mapping[str, str], wall: float) -> RateLimits | None:
    """Gives the limits that headers (names in lower case) tell of, None where they tell of none.

    `wall` is the time in seconds since 1970, UTC, where the response does not tell it (`Date`). What is malformed
    counts as not told, and so do -1, and 0 as a limit: servers write them for "unknown".
    """
    said = [name for name in headers if "ratelimit" in name]
    if not said:
        return None
    # To read it costs as much as half of all the rest: durations are shorter than times, and need none.
    if "date" in headers and any(len(headers[name]) >= _SHORTEST_TIME for name in said):
        wall = answered_at(headers, datetime.fromtimestamp(wall, UTC)).timestamp()
    found = {kind: list(_limits(kind, headers, wall)) for kind in get_args(Kind)}
    every = tuple((kind, limit) for kind, limits in found.items() for limit in limits)
    return RateLimits(**{kind: _nearest(limits) for kind, limits in found.items()}, every=every) if every else None


def _nearest(limits: Sequence[Limit]) -> Limit | None:
    return min(limits, key=lambda limit: float("inf") if limit.remaining is None else limit.remaining, default=None)


def _limits(kind: Kind, headers: Mapping[str, str], wall: float) -> Iterator[Limit]:
    for names in _NAMES[kind]:
        made = _limit(*(headers.get(name) for name in names), wall=wall, family=names[1])
        if made is not None:
            yield made
    if kind == "requests":
        yield from _structured(headers, wall)


def _limit(
    limit: str | None, remaining: str | None, reset: str | None, *, wall: float, family: str = "ratelimit"
) -> Limit | None:
    total, left = _count(limit), _count(remaining)
    if limit is not None and not total:  # 0 or -1: unknown, and then a 0 that is left says nothing either
        total, left = None, left or None
    if total is None and left is None:
        return None  # when it will be full says nothing without how full it is
    seconds = None if reset is None else seconds_until(reset, wall)
    return Limit(limit=total, remaining=left, reset_seconds=seconds, family=family)


def _count(text: str | None) -> int | None:
    found = _COUNT.fullmatch(text or "")
    return int(found[1]) if found else None


def _structured(headers: Mapping[str, str], wall: float) -> Iterator[Limit]:
    """The IETF's drafts: in 07 `limit=100, remaining=50, reset=5`, then `"name";r=50;t=5` and a policy with `q`."""
    told = headers.get("ratelimit", "")
    if ";" not in told:
        said = dict(_PAIR.findall(told))
        made = _limit(said.get("limit"), said.get("remaining"), said.get("reset"), wall=wall)
        if made is not None:
            yield made
        return
    policies = {item.partition(";")[0].strip(): item for item in headers.get("ratelimit-policy", "").split(",")}
    for item in told.split(","):
        name = item.partition(";")[0].strip()
        quota, said = dict(_PAIR.findall(policies.get(name, ""))).get("q"), dict(_PAIR.findall(item))
        made = _limit(quota, said.get("r"), said.get("t"), wall=wall, family=f"ratelimit {name[:64]}")
        if made is not None:
            yield made


def seconds_until(reset: str, wall: float) -> float | None:
    """Gives the seconds from `wall` (since 1970, UTC) to a reset in any form that is known, None for another.

    A Go duration, a number of seconds, a time since 1970 in seconds or milliseconds, or RFC 3339. What is past is 0.
    """
    text = reset.strip()
    if _SECONDS.fullmatch(text):
        number = float(text)
        return number if number < EPOCH else max(0.0, since_1970(number) - wall)
    if _DURATION.fullmatch(text):
        return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    try:
        when = msgspec.convert(text, datetime)
    except msgspec.ValidationError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, when.timestamp() - wall)
