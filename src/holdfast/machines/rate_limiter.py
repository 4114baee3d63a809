"""The rate limiter: how many requests and tokens an upstream takes in a time, and who may send the next one, when.

It decides and never waits: callers stand in a `Line`, and whoever is first asks how many seconds it must wait.
A limit is set by hand (a bucket), told by headers (see `LearnedLimit`), or found by a 429 that told nothing (a pace).
It must never let more through because it knows less: of an estimate that was too low the rest is a debt. Nor must one
number that may be a lie stop it: what was told holds for `LONGEST_WAIT`, and then one request asks again.
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from holdfast._types import Usage
from holdfast.machines.bucket import LONGEST_WAIT, TokenBucket
from holdfast.machines.learned_limits import LearnedLimit
from holdfast.machines.line import Line
from holdfast.machines.rate_limits import Kind, RateLimits
from holdfast.machines.settings import check_bool, check_count, check_seconds, is_number

Reason = Literal["requests", "tokens", "slow-down"]
MAX_LANES = 256
"""Upstreams and models that are remembered; of more, those asked longest ago are forgotten."""
_KINDS: tuple[Kind, ...] = ("requests", "tokens", "input_tokens", "output_tokens")
_BLOB = re.compile(rb"[A-Za-z0-9+/_=-]{2048,}+")
_BLOB_TOKENS = 1_000
"""What a picture or a sound in a body counts for: its base64 is no text."""
_LEAVING = 4.0
"""After a pause those who wait leave this many times as fast as the limit refills, and so not all at once."""
_BACK_OFF = 0.7
"""A 429 that told no numbers: the pace found too fast is multiplied by this, once for all that were on their way."""
_GROW_SECONDS = 60.0
"""In this time without a 429 such a pace grows by as much as it was; ten times the first one is none any more."""
_RECENT_SECONDS = 10.0
_PEAK_SECONDS = 300.0
"""The most that was sent in a time is forgotten over so many seconds."""
_BLIND, _BLIND_SECONDS = 20, 2.0
"""So many are sent before the first answer is heard, the others after it, or so many seconds after the first one."""
_PROBE_SECONDS = 30.0
"""One that asks whether a pause that was cut short still holds: so long its answer is waited for, then another asks."""
_MAX_LEARNED = 16
"""Limits that are learned of one model; more are heard of from servers alone that make up names."""
_MOST_TOKENS = 1e9
"""No request has more: what sets such a limit of output, or none at all (infinity), is no estimate."""


@dataclass(slots=True)
class Size:
    """What one request costs, estimated until its usage is known: `input` and `output` tokens."""

    input: float = 0.0
    output: float = 0.0

    def of(self, kind: Kind) -> float:
        """The amount of a kind."""
        match kind:
            case "requests":
                return 1.0
            case "tokens":
                return self.input + self.output
            case "input_tokens":
                return self.input
            case _:
                return self.output


@dataclass(slots=True)
class Sent:
    """One request that was let through: its number, all that had been sent of each kind up to it, what was taken."""

    number: int
    size: Size
    totals: dict[Kind, float]
    claims: Sequence[Claim] = ()
    settled: bool = False


@dataclass(slots=True, frozen=True)
class Claim:
    """An amount to be taken out of one bucket: alone, or in a store under `name` for all processes."""

    name: Reason
    amount: float
    bucket: TokenBucket

    def settle(self, amount: float, now: float) -> None:
        """Gives so much of it back; a negative amount is taken, whatever is there."""
        self.bucket.settle(amount, now)


class Lane:
    """The limits of one model at one upstream, and those who wait for them."""

    __slots__ = (
        "_asked_at",
        "_asking",
        "_buckets",
        "_gate",
        "_heard",
        "_heard_from",
        "_held",
        "_learned",
        "_number",
        "_output",
        "_pace",
        "_pace_since",
        "_patience",
        "_peak",
        "_recent",
        "_recent_at",
        "_sent",
        "_settings",
        "_slowed_at",
        "key",
        "line",
        "paused_until",
        "ready_at",
    )

    def __init__(self, key: str, settings: RateLimiter) -> None:
        self.key = key
        self.line = Line()
        self.paused_until = -math.inf
        self.ready_at = -math.inf
        """When the first in line was told to ask again."""
        self._settings = settings
        self._buckets = {name: settings.bucket(name) for name in ("requests", "tokens")}
        self._gate = TokenBucket(rate=1.0, burst=1.0)
        self._learned: dict[tuple[Kind, str], LearnedLimit] = {}
        self._sent: dict[Kind, float] = dict.fromkeys(_KINDS, 0.0)
        # How many may still be sent before an answer to one of them is heard, and how long that is waited for.
        # Where a limit was set by hand nobody must be asked first.
        self._heard = not settings.learn or any(self._buckets.values())
        self._asking, self._patience = _BLIND, _BLIND_SECONDS
        self._asked_at, self._heard_from = math.inf, 0
        self._held = False  # a pause or a limit that was used up held somebody back, and not all of them have left
        self._number = 0
        self._output = 0.0  # tokens that an answer has in the mean
        self._pace: float | None = None
        self._pace_since = 0.0
        self._peak = 0.0
        self._recent, self._recent_at = 0.0, -math.inf
        self._slowed_at = 0

    # -- how much ------------------------------------------------------------------------------

    @property
    def counts_tokens(self) -> bool:
        """True where a request's size matters."""
        return self._buckets["tokens"] is not None or any(kind != "requests" for kind, _ in self._learned)

    def size(self, body: Mapping[str, Any] | bytes | None) -> Size:
        """Estimates a request: see `estimate_tokens()`; its output, where it sets no limit, by those before it."""
        if not self.counts_tokens:
            return Size()
        tokens, most = estimate_tokens(body)
        return Size(tokens, self._output if most is None else most * self._settings.output_share)

    # -- when ----------------------------------------------------------------------------------

    def ask(self, size: Size, now: float) -> tuple[float, Reason] | Sent:
        """Lets a request through, or gives the seconds after which to ask again and what it waits for."""
        held = self.held(size, now)
        if held is not None:
            return held
        claims = list(self.claims(size, now))
        wait, claim = max(
            ((claim.bucket.wait(claim.amount, now), claim) for claim in claims), key=_seconds, default=_NONE
        )
        if wait and claim is not None:
            self.ready_at = now + wait
            return wait, claim.name
        for one in claims:
            one.bucket.take(one.amount, now)
        return self.let_through(size, now, claims)

    def held(self, size: Size, now: float) -> tuple[float, Reason] | None:
        """Gives the wait for a pause to end or a used-up limit to be full again; None where nothing is used up."""
        waits: list[tuple[float, Reason]] = [(self.paused_until - now, "requests")]
        for (kind, _), learned in self._learned.items():
            waits.append((learned.wait(size.of(kind), now), "requests" if kind == "requests" else "tokens"))
        if not self._heard and self._asking <= 0:
            waits.append((self._asked_at + self._patience - now, "slow-down"))
        longest = max(waits)
        if longest[0] <= 0:
            return None
        self._held, self.ready_at = True, now + longest[0]
        return longest

    def claims(self, size: Size, now: float) -> Iterator[Claim]:
        """Gives what must be taken for one request: out of the buckets set by hand, and out of what slows it down."""
        requests, tokens = self._buckets["requests"], self._buckets["tokens"]
        if requests is not None:
            yield Claim("requests", 1.0, requests)
        if tokens is not None:
            yield Claim("tokens", size.of("tokens"), tokens)
        rate = self._rate(size, now)
        if rate is not None:
            self._gate.tune(now, rate=rate)
            yield Claim("slow-down", 1.0, self._gate)

    def _rate(self, size: Size, now: float) -> float | None:
        """Requests a second that are wise now; None for any number."""
        below = self._settings.slow_down_below
        rates = [learned.rate(size.of(kind), now, below=below) for (kind, _), learned in self._learned.items()]
        rates.append(self._paced(now))
        if self._held:
            paces = [learned.pace(now) for (kind, _), learned in self._learned.items() if kind == "requests"]
            rates += [_LEAVING * pace for pace in paces if pace is not None]
        return min((rate for rate in rates if rate is not None), default=None)

    def let_through(self, size: Size, now: float, claims: Sequence[Claim] = ()) -> Sent:
        """A request is sent: everything that was claimed for it has been taken, `claims` of it out of our own."""
        self._number += 1
        if not self._heard:
            self._ask_for_an_answer(now)
        for kind in _KINDS:
            self._sent[kind] += size.of(kind)
        for (kind, _), learned in self._learned.items():
            learned.send(size.of(kind), now)
        passed = now - self._recent_at
        self._recent = self._recent * math.exp(-passed / _RECENT_SECONDS) + 1.0 / _RECENT_SECONDS
        self._peak = max(self._peak * math.exp(-passed / _PEAK_SECONDS), self._recent)
        self._recent_at = now
        if len(self.line) <= 1:
            self._held = False
        return Sent(self._number, size, dict(self._sent), claims)

    def _ask_for_an_answer(self, now: float) -> None:
        if self._asking <= 0:  # the answer was waited for long enough
            if self._patience == _PROBE_SECONDS:
                self._asked_at = now
            return
        self._asking -= 1
        self._asked_at = min(self._asked_at, now)

    def pause(self, seconds: float, now: float, *, told: float = 0.0) -> None:
        """Nothing is sent for so long, and where longer was `told` than anybody is held up one request asks then."""
        until = now + min(seconds, LONGEST_WAIT)
        if until > self.paused_until:
            self.paused_until, self._held = until, True
            if max(seconds, told) > LONGEST_WAIT:
                self._heard, self._heard_from = False, self._number + 1
                self._asking, self._asked_at, self._patience = 1, math.inf, _PROBE_SECONDS

    # -- what came of it -----------------------------------------------------------------------

    def told(self, sent: Sent, limits: RateLimits | None, now: float) -> None:
        """An answer's headers told of limits, or of none."""
        if not self._heard and sent.number >= self._heard_from:
            self._heard = True
            self.line.nudge()
        if limits is None or not self._settings.learn:
            return
        for kind, limit in limits.every:
            learned = self._learned.get((kind, limit.family))
            if learned is None:
                if len(self._learned) >= _MAX_LEARNED:
                    continue
                learned = self._learned[kind, limit.family] = LearnedLimit(self._sent[kind])
            learned.told(limit, number=sent.number, sent=sent.totals[kind], now=now)
        self.line.nudge()

    def refused(self, sent: Sent, now: float, *, wait: float | None, numbers: bool, draw: float = 0.0) -> None:
        """It was too many in a time: all pause for `wait` seconds, as long as the server said and a bit by chance.

        `numbers`: the headers told which limit is used up. Else the pace that was kept is taken for too fast.
        """
        if wait is not None:
            self.pause(wait + draw * min(1.0, 0.05 * wait), now)
        if numbers:
            for learned in self._learned.values():
                learned.exceeded()
        elif sent.number > self._slowed_at:
            # After a quiet time a 429 says nothing of the pace then, which was next to none, but of the one before.
            kept = self._paced(now) or self._peak * math.exp((self._recent_at - now) / _PEAK_SECONDS)
            self._pace, self._pace_since, self._slowed_at = max(0.1, kept * _BACK_OFF), now, self._number
            self._gate.settle(-1.0, now)

    def _paced(self, now: float) -> float | None:
        if self._pace is None:
            return None
        grown = 1.0 + max(0.0, now - max(self._pace_since, self.paused_until)) / _GROW_SECONDS
        if grown >= 10.0:
            self._pace = None
            return None
        return self._pace * grown

    def settle(self, sent: Sent, usage: Usage | None, now: float) -> float:
        """The request is over, and this is what it really cost; None leaves the estimate. Counts once.

        Gives the tokens by which it cost more than was taken for it, below 0 for less.
        """
        if sent.settled:
            return 0.0
        sent.settled = True
        if usage is None or usage.total_tokens is None:
            return 0.0
        if usage.output_tokens is not None:
            self._output += (0.1 if self._output else 1.0) * (_tokens(usage.output_tokens) - self._output)
        owed = _tokens(usage.total_tokens) - sent.size.of("tokens")
        for claim in sent.claims:
            if claim.name == "tokens":
                claim.settle(-owed, now)
                self.line.nudge()
        return owed

    def unsend(self, sent: Sent, now: float) -> None:
        """Nothing was sent after all: what was taken out of our own buckets is given back."""
        sent.settled = True
        for claim in sent.claims:
            claim.settle(claim.amount, now)
        for kind in _KINDS:
            self._sent[kind] -= sent.size.of(kind)
        for (kind, _), learned in self._learned.items():
            learned.sent -= sent.size.of(kind)
        if not self._heard and sent.number >= self._heard_from:
            self._asking += 1
        self.line.nudge()


def _tokens(told: int) -> float:
    return float(min(max(0, told), _MOST_TOKENS))


_NONE: tuple[float, Claim | None] = (0.0, None)


def _seconds(wait: tuple[float, Claim | None]) -> float:
    return wait[0]


@dataclass(slots=True, kw_only=True, eq=False)
class RateLimiter:
    """How much each model of each upstream may be sent in a time. Make one, and hand it to every client that shares it.

    Set by hand: `requests_per_minute` and `tokens_per_minute`, of which never more is sent in any minute: up to `burst`
    seconds' worth at once, and the rest evenly. Learned: what answers' headers tell, unless `learn` is False. Under
    `slow_down_below` of what is allowed, what remains is spread over the time to its reset. A request's tokens are
    estimated (`estimate_tokens()`; of its limit of output, `output_share`), and settled when its stream is closed.

    Whoever must wait stands in line, first come, first served: `max_waiting` calls at most, `max_wait` seconds at most.
    Serves one event loop. `name` tells several accounts apart where processes share limits. Raises `ValueError`.
    """

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    burst: float = 6.0
    learn: bool = True
    slow_down_below: float = 0.2
    output_share: float = 0.5
    max_waiting: int = 1000
    max_wait: float = 60.0
    name: str = ""
    _lanes: OrderedDict[str, Lane] = field(default_factory=OrderedDict, init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("requests_per_minute", "tokens_per_minute"):
            value = getattr(self, name)
            if value is not None and not (is_number(value) and 1 <= value < math.inf):
                raise ValueError(f"{name} must be a number from 1 or None, not {value!r}")
        if not (is_number(self.burst) and 0 < self.burst < 60):
            raise ValueError(f"burst must be a number of seconds above 0 and under 60, not {self.burst!r}")
        for name in ("slow_down_below", "output_share"):
            value = getattr(self, name)
            if not (is_number(value) and 0 <= value <= 1):
                raise ValueError(f"{name} must be a share from 0 to 1, not {value!r}")
        check_bool("learn", self.learn)
        check_count("max_waiting", self.max_waiting, least=0)
        check_seconds("max_wait", self.max_wait, optional=False)

    def bucket(self, name: str) -> TokenBucket | None:
        """Gives a new bucket for "requests" or "tokens", None where no limit is set.

        What is in a full bucket and what flows in over a minute are together what a minute may have. A bucket holds one
        request at least.
        """
        limit = self.requests_per_minute if name == "requests" else self.tokens_per_minute
        if limit is None:
            return None
        burst = max(limit * self.burst / 60.0, min(1.0, limit / 2))
        return TokenBucket(rate=(limit - burst) / 60.0, burst=burst)

    def lane(self, key: str) -> Lane:
        """Gives the lane of one upstream's model."""
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(key, self)
            for old in [one for one in list(self._lanes)[:-MAX_LANES] if not self._lanes[one].line]:
                del self._lanes[old]
        self._lanes.move_to_end(key)
        return lane


def estimate_tokens(body: Mapping[str, Any] | bytes | None) -> tuple[float, float | None]:
    """Estimates the tokens that a request's body brings in, and gives the limit that it sets to its answer's.

    A token for every four bytes of its JSON; base64 of more than two thousand characters is a thousand tokens.
    """
    if body is None:
        return 0.0, None
    encoded = body if isinstance(body, bytes) else _encoded(body)
    blobs = _BLOB.findall(encoded) if len(encoded) > 2048 else []
    tokens = (len(encoded) - sum(map(len, blobs))) / 4 + _BLOB_TOKENS * len(blobs)
    return tokens, None if isinstance(body, bytes) else _most_output(body)


def _encoded(body: Mapping[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(body)
    except (ValueError, TypeError, OverflowError, RecursionError):
        pass  # half a character, a number beyond 64 bits: whether it can be sent is decided where it is
    try:
        return repr(body).encode("utf-8", "replace")
    except (ValueError, RecursionError):
        return b""


def _most_output(body: Mapping[str, Any]) -> float | None:
    inside = body.get("generationConfig")
    for holder in (body, inside if isinstance(inside, Mapping) else {}):
        for name in ("max_tokens", "max_completion_tokens", "max_output_tokens", "maxOutputTokens"):
            value = holder.get(name)
            if isinstance(value, int | float) and value > 0:
                return float(min(value, _MOST_TOKENS))
    return None
