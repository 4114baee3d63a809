"""HealthCheck: asks upstreams that are idle whether they are well, before a caller has to find out.

One task, owned by the block it is entered in, probes one upstream after the other, never one that had traffic lately,
and tells what it found to whoever chooses among them. It must never cost an answer: a probe asks for no completion.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Self

from holdfast._clock import Alarm, Clock, Random, SystemClock, system_random
from holdfast._core import Call, Source
from holdfast._errors import EndOfStream, StatusError, StreamError, UsageError
from holdfast._tasks import outlast
from holdfast._types import Request
from holdfast.layers.fallback import Asked, Fallback
from holdfast.machines.settings import check_count, check_kind, check_seconds

MAX_BODY = 256 * 1024
"""Bytes of a probe's answer that are read: a connection whose answer was read to its end can be used again."""
_JITTER = 0.1
_BROKEN = (401, 402, 403, 407)
"""Statuses below 500 that say that no request by this key will be answered."""


@dataclass(slots=True, kw_only=True)
class HealthCheck:
    """Probes the upstreams of a `Fallback` through `source` as long as its block is entered.

    `every` so many seconds, a tenth more or less, each upstream that had no stream for as long is sent a GET for its
    models (or for `path`, behind its base URL), which also keeps a connection to it warm. No answer within `timeout`
    seconds, a status of 500 and above, and a refused key count as a failure, which ejects it as others do; any other
    answer shows it alive, and brings it back on probation. At the beginning each is probed at once.
    `client.health_check()` makes one.
    """

    fallback: Fallback
    source: Source[bytes]
    every: float = 30.0
    timeout: float = 5.0
    path: str = ""
    max_body: int = MAX_BODY
    clock: Clock = field(default_factory=SystemClock)
    random: Random = field(default_factory=system_random)
    probes: int = field(init=False, default=0)
    """How many were sent."""
    _task: asyncio.Task[None] | None = field(init=False, default=None, repr=False)

    def __post_init__(self) -> None:
        check_seconds("every", self.every, optional=False)
        check_seconds("timeout", self.timeout, optional=False)
        check_count("max_body", self.max_body)
        if self.path and not self.path.startswith("/"):
            raise ValueError(f"path must begin with a slash, not {self.path!r}")
        check_kind("fallback", self.fallback, Fallback, "a Fallback(...)")

    async def __aenter__(self) -> Self:
        if self._task is not None:
            raise UsageError("a HealthCheck is entered once at a time")
        self._task = asyncio.create_task(self._run(), name="holdfast-health")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await outlast(task)

    async def _run(self) -> None:
        while True:
            await self.probe_idle()
            await self.clock.sleep(self.every * (1 + _JITTER * (2 * self.random.random() - 1)))

    async def probe_idle(self) -> None:
        """Probes each upstream that is idle, one after the other."""
        routes = self.fallback.routes
        for place, upstream in enumerate(self.fallback.upstreams):
            if not routes.idle(place, self.clock.now(), self.every):
                continue
            good = await self._is_well(upstream)
            if good is not None and routes.load(place) == 0:  # else somebody else finds out right now
                routes.probed(place, self.clock.now(), good=good)

    async def _is_well(self, upstream: Asked) -> bool | None:
        self.probes += 1
        alarm = Alarm(self.clock)
        alarm.arm(self.clock.now() + self.timeout)
        try:
            good: bool | None = await self._answers(upstream.probe(self.path))
        except Exception as error:  # noqa: BLE001 - somebody's source may raise anything, and the others are to be probed
            alarm.disarm()
            about = {"message": f"the probe of upstream {upstream.name!r} could not be made", "exception": error}
            asyncio.get_running_loop().call_exception_handler(about)
            return None
        except BaseException:
            if not alarm.disarm():
                raise
            return False
        else:
            alarm.disarm()
            return good
        finally:
            alarm.close()

    async def _answers(self, request: Request) -> bool | None:
        """Says whether a server is well, by its answer; None where that says nothing."""
        call = Call(clock=self.clock, random=self.random)
        try:
            stream = await self.source.open(replace(request, call=call))
        except StatusError as refusal:
            return None if refusal.status == 429 else refusal.status < 500 and refusal.status not in _BROKEN
        except StreamError:
            return False
        try:
            left = self.max_body
            while left > 0:
                left -= sum(len(piece) for piece in await stream.receive())
        except EndOfStream:
            pass
        except StreamError:
            return False
        finally:
            await stream.aclose()
        return True


__all__ = ["HealthCheck"]
