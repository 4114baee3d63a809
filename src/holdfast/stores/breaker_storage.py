"""Where a circuit breaker of several processes keeps its state: in Redis, with a copy at hand for when that is gone.

pybreaker asks it from a worker thread and in many small steps. Two of them decide something that must hold for all: a
failure is counted by Redis itself, and a circuit becomes half-open only if nobody has opened it anew since this process
looked. When it opened is kept in the server's time and handed out in ours. The probe's one place is not kept
here: the layer takes it for each opening, which `generation` names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pybreaker

from holdfast._clock import SystemClock
from holdfast._errors import MissingExtra
from holdfast.stores._scripts import HALF_OPEN, LOOK, OPEN
from holdfast.stores._watch import Watch, why

T = TypeVar("T")
_KEPT = 86_400
"""Seconds that a breaker is remembered which nobody asks."""


@dataclass(slots=True)
class _Copy:
    """What was seen last, or decided without Redis."""

    state: str = pybreaker.STATE_CLOSED
    counter: int = 0
    successes: int = 0
    opened_at: datetime | None = None


class BreakerStorage(pybreaker.CircuitBreakerStorage):
    """What pybreaker wants of a storage. It never raises for what Redis does: its own copy answers then."""

    def __init__(self, name: str, *, url: str, key: str, timeout: float, pause: float, watch: Watch) -> None:
        super().__init__(name)
        try:
            import redis  # noqa: PLC0415 - an extra
            from redis.backoff import NoBackoff  # noqa: PLC0415 - an extra
            from redis.retry import Retry  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise MissingExtra("RedisState.storage()", "redis") from error
        self._client: Any = redis.Redis.from_url(
            url, socket_timeout=timeout, socket_connect_timeout=timeout, retry=Retry(NoBackoff(), 0)
        )
        self._broken: tuple[type[Exception], ...] = (redis.RedisError, OSError)
        self._look: Any = self._client.register_script(LOOK)
        self._open: Any = self._client.register_script(OPEN)
        self._half_open: Any = self._client.register_script(HALF_OPEN)
        self._key = key
        self._pause = pause
        self._now = SystemClock().now
        self._shut_until: float | None = None
        self._timeout = timeout
        self._watch = watch
        self._copy = _Copy()
        self.generation = ""
        """Names the opening that was seen last: of each, one stream probes."""

    def _ask(self, question: Callable[[], T]) -> T | None:
        """Gives Redis's answer, None where it has none in time: it is left alone for a moment then."""
        if self._shut_until is not None and self._now() < self._shut_until:
            return None
        try:
            if self._shut_until is not None:
                self._heal()
            answer = question()
        except self._broken as error:
            self._shut_until = self._now() + self._pause
            self._watch.lost(why(error, self._timeout))
            return None
        self._shut_until = None
        self._watch.answered()
        return answer

    def _heal(self) -> None:
        """Redis may be back. One that forgot the breaker is told; of one that has it, the others know more than we."""
        copy = self._copy
        if not self._client.exists(self._key):
            self._write(state=copy.state, counter=copy.counter, successes=copy.successes)
            if copy.opened_at is not None:
                self._tell_opening(copy.opened_at)

    def _write(self, **values: str | int) -> None:
        self._client.hset(self._key, mapping=values)
        self._client.expire(self._key, _KEPT)

    def _tell_opening(self, when: datetime) -> None:
        ago = max(0.0, (datetime.now(UTC) - when).total_seconds())
        self._open(keys=[self._key], args=[ago, _KEPT])

    def _refresh(self) -> _Copy:
        """Gives the copy, as fresh as it can be had."""
        seen = self._ask(lambda: self._look(keys=[self._key]))
        if seen is not None:
            state, counter, successes, self.generation, ago = (part.decode() for part in seen)
            opened_at = datetime.now(UTC) - timedelta(seconds=float(ago)) if self.generation else None
            self._copy = _Copy(state or pybreaker.STATE_CLOSED, int(counter), int(successes), opened_at)
        return self._copy

    @property
    def state(self) -> str:
        return self._refresh().state

    @state.setter
    def state(self, state: str) -> None:
        if state == pybreaker.STATE_HALF_OPEN:
            agreed = self._ask(lambda: self._half_open(keys=[self._key], args=[self.generation, _KEPT]))
            if agreed == 0:  # somebody has probed and failed since we looked: the next look says so
                return
        else:
            self._ask(lambda: self._write(state=state))
        self._copy.state = state

    @property
    def opened_at(self) -> datetime | None:
        return self._refresh().opened_at

    @opened_at.setter
    def opened_at(self, when: datetime) -> None:
        self._copy.opened_at = when
        self._ask(lambda: self._tell_opening(when))

    @property
    def counter(self) -> int:
        return self._refresh().counter

    @property
    def success_counter(self) -> int:
        return self._refresh().successes

    def increment_counter(self) -> None:
        self._copy.counter += 1
        self._ask(lambda: self._client.hincrby(self._key, "counter", 1))

    def reset_counter(self) -> None:
        self._copy.counter = 0
        self._ask(lambda: self._write(counter=0))

    def increment_success_counter(self) -> None:
        self._copy.successes += 1
        self._ask(lambda: self._client.hincrby(self._key, "successes", 1))

    def reset_success_counter(self) -> None:
        self._copy.successes = 0
        self._ask(lambda: self._write(successes=0))
