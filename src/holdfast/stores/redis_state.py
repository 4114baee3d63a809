"""Common decisions in Redis: limits, places and breakers that hold for every process that names the same server.

It must never be why a stream fails or waits: a Redis that is slow or gone is left alone for a moment, whoever asks
decides alone meanwhile, and the next answer heals it. Extra `redis`.
"""

from __future__ import annotations

import asyncio
import math
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import pybreaker

from holdfast._errors import MissingExtra, SharedStateError
from holdfast.machines.bucket import LONGEST_WAIT
from holdfast.machines.redact import clean_url
from holdfast.machines.settings import check_kind, is_number
from holdfast.moments import Moment
from holdfast.stores._scripts import HOLD, TAKE
from holdfast.stores._watch import Watch, why
from holdfast.stores.breaker_storage import BreakerStorage

T = TypeVar("T")
_FIRST = 1.0
"""Seconds that the first decision of an event loop may take."""
_MOST = 1e15
"""Larger amounts are no amounts; numbers in Redis's scripts are exact up to about here."""
_CONNECTIONS = 32
"""At once and per event loop: a decision takes a fraction of a millisecond, so hundreds of streams share them."""

_OWED = 4096
"""Places to be given back that are remembered while Redis is gone; of more, the oldest expire by themselves."""


class RedisState:
    """A `SharedState` in the Redis at `url`, for layers that take `shared=`; any number of them may share one.

    `prefix` begins every key: give services that must not share limits different ones. A decision that takes longer
    than `timeout` seconds is made without Redis, and so are all others of the next `pause` seconds; the first may take
    a second. `storage()` makes what a `pybreaker.CircuitBreaker` keeps its state in. Needs Redis 5 or newer, or what
    speaks like it. Raises `MissingExtra` where the package `redis` is not installed.
    """

    def __init__(
        self,
        url: str = "redis://localhost:6379/0",
        *,
        prefix: str = "holdfast",
        timeout: float = 0.25,
        pause: float = 1.0,
    ) -> None:
        check_kind("url", url, str, "an address such as redis://localhost:6379/0")
        check_kind("prefix", prefix, str, "a string")
        for name, value in (("timeout", timeout), ("pause", pause)):
            if not (is_number(value) and 0 < value < math.inf):
                raise ValueError(f"{name} must be a number of seconds above 0, not {value!r}")
        self._url = url
        self._prefix = prefix
        self._timeout = timeout
        self._pause = pause
        self._doors: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Door] = weakref.WeakKeyDictionary()
        self._watch = Watch(prefix)
        _library()

    async def take(
        self, name: str, amount: float, *, rate: float, burst: float, seconds: float | None = None, force: bool = False
    ) -> float | None:
        """Takes from a bucket: see `SharedState.take()`."""
        amount = max(-_MOST, min(amount, _MOST))
        args = [amount, rate, burst, "" if seconds is None else seconds, int(force), LONGEST_WAIT]
        wait = await self._ask(lambda door: door.take(keys=[self._key("bucket", name)], args=args))
        return None if wait is None else math.inf if float(wait) < 0 else float(wait)

    async def hold(self, name: str, holder: str, *, places: int, seconds: float) -> bool | None:
        """Takes one of a few places: see `SharedState.hold()`."""
        held = await self._ask(lambda door: door.hold(keys=[self._key("places", name)], args=[holder, places, seconds]))
        return None if held is None else bool(held)

    async def release(self, name: str, holder: str) -> None:
        """Gives a place back, later where Redis is gone now: one that nobody holds must not be kept for its lease."""
        key = self._key("places", name)
        if await self._ask(lambda door: door.client.zrem(key, holder)) is None:
            self._door().owed.append((key, holder))

    async def tell(self, name: str, values: Mapping[str, float], *, seconds: float) -> None:
        """Tells the others what was learned."""
        key = self._key("learned", name)

        async def told(door: _Door) -> None:
            async with door.client.pipeline(transaction=True) as pipe:
                pipe.delete(key)
                if values:
                    pipe.hset(key, mapping={field: repr(float(value)) for field, value in values.items()})
                    pipe.pexpire(key, max(1, round(seconds * 1000)))
                await pipe.execute()

        await self._ask(told)

    async def told(self, name: str) -> Mapping[str, float] | None:
        """Gives what any process learned last, and as `seconds` for how long that still holds."""
        key = self._key("learned", name)

        async def found(door: _Door) -> Mapping[str, float]:
            async with door.client.pipeline(transaction=True) as pipe:
                pipe.hgetall(key)
                pipe.pttl(key)
                values, left = await pipe.execute()
            known = dict(_numbers(values))
            return {**known, "seconds": max(0, left) / 1000} if known else {}

        return await self._ask(found)

    def news(self) -> Sequence[Moment]:
        """Gives what became of Redis since this was last asked, for the log and the numbers of the call that asks."""
        return self._watch.news()

    async def ping(self) -> None:
        """Has Redis make one decision: for the start of a program, which may rather not run alone.

        Raises `SharedStateError`, which says what is wrong: nobody listens, no answer in time, a wrong password, a user
        who may not. Of what happens later layers tell in moments, and raise nothing.
        """
        door, seconds = self._door(), max(self._timeout, _FIRST)
        try:
            async with asyncio.timeout(seconds):
                await door.take(keys=[self._key("bucket", "ping")], args=[0, 1, 1, "", 0, LONGEST_WAIT])
        except (TimeoutError, OSError, _library().RedisError) as error:
            raise SharedStateError(f"{self!r}: {why(error, seconds)}") from error
        door.answered, door.shut_until = True, -math.inf
        self._watch.answered()

    def storage(self, name: str) -> pybreaker.CircuitBreakerStorage:
        """Makes the storage of one circuit breaker, which every process that names it shares.

        For `CircuitBreaker(pybreaker.CircuitBreaker(state_storage=shared.storage("deepseek")), shared=shared)`.
        """
        return BreakerStorage(
            name,
            url=self._url,
            key=self._key("breaker", name),
            timeout=self._timeout,
            pause=self._pause,
            watch=self._watch,
        )

    async def aclose(self) -> None:
        """Closes the connections of the running loop, once places it owes are given back. It can be used again."""
        door = self._doors.pop(asyncio.get_running_loop(), None)
        if door is None:
            return
        try:
            if door.owed:
                async with asyncio.timeout(self._timeout):
                    await door.pay()
        except (TimeoutError, OSError, _library().RedisError):
            pass  # they expire
        finally:
            await door.client.aclose()

    def _key(self, kind: str, name: str) -> str:
        return f"{self._prefix}:{kind}:{name}"

    async def _ask(self, question: Callable[[_Door], Awaitable[T]]) -> T | None:
        """Gives the answer, None where there is none in time."""
        loop, door = asyncio.get_running_loop(), self._door()
        if loop.time() < door.shut_until:
            return None
        async with door.room:  # waiting for it is our doing, and not a sign that Redis is slow
            if loop.time() < door.shut_until:
                return None
            try:
                # At first a name is looked up and a connection made: to give up then would leave each process alone.
                seconds = self._timeout if door.answered else max(self._timeout, _FIRST)
                async with asyncio.timeout(seconds):
                    if door.owed:
                        await door.pay()
                    answer = await question(door)
            except _library().ResponseError as error:  # it answers, and says no to this key alone
                self._watch.refused(error)
                return None
            except (TimeoutError, OSError, _library().RedisError) as error:
                door.shut_until = loop.time() + self._pause
                self._watch.lost(why(error, seconds))
                return None
        door.answered = True
        if loop.time() >= door.shut_until:  # else it was asked before another question found no answer
            self._watch.answered()
        return answer

    def _door(self) -> _Door:
        loop = asyncio.get_running_loop()
        door = self._doors.get(loop)
        if door is None:
            door = self._doors[loop] = _Door(self._url, self._timeout)
        return door

    def __repr__(self) -> str:
        return f"RedisState({clean_url(self._url)!r}, prefix={self._prefix!r})"


class _Door:
    """The connections of one event loop, and until when they are left alone."""

    def __init__(self, url: str, timeout: float) -> None:
        from redis.asyncio.retry import Retry  # noqa: PLC0415 - an extra
        from redis.backoff import NoBackoff  # noqa: PLC0415 - an extra

        library = _library()
        pool = library.BlockingConnectionPool.from_url(
            url,
            max_connections=_CONNECTIONS,
            timeout=timeout,
            socket_connect_timeout=max(timeout, _FIRST),
            retry=Retry(NoBackoff(), 0),  # ours is to decide alone
        )
        self.client: Any = library.Redis.from_pool(pool)
        self.take: Any = self.client.register_script(TAKE)
        self.hold: Any = self.client.register_script(HOLD)
        self.answered = False
        self.room = asyncio.Semaphore(_CONNECTIONS)
        self.shut_until = -math.inf
        self.owed: deque[tuple[str, str]] = deque(maxlen=_OWED)
        """Places that could not be given back: of which key, and by whom they were held."""

    async def pay(self) -> None:
        """Gives back what could not be before."""
        owed = list(self.owed)
        async with self.client.pipeline(transaction=False) as pipe:
            for key, holder in owed:
                pipe.zrem(key, holder)
            await pipe.execute(raise_on_error=False)  # a key that others made something else of holds no place
        for paid in owed:  # one may have been paid by another who asked meanwhile
            with suppress(ValueError):
                self.owed.remove(paid)


def _numbers(values: Mapping[bytes, bytes]) -> Iterator[tuple[str, float]]:
    """Gives the fields that hold numbers: what others wrote under a key of ours is none of our decisions."""
    for field, value in values.items():
        with suppress(ValueError):
            number = float(value)
            if math.isfinite(number):
                yield field.decode(), number


def _library() -> Any:
    try:
        from redis import asyncio as library  # noqa: PLC0415 - an extra, and 60 ms that only those pay who want it
    except ImportError as error:
        raise MissingExtra("RedisState", "redis") from error
    return library
