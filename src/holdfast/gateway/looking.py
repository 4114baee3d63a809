"""Looking on: what the page `/ui` is told, first the whole and then what has changed, about four times a second.

Nothing is done while nobody looks. All who look are told the same bytes, made once; who cannot keep up misses some, and
is told the whole again. What is told is bounded, and holds no more than `watching` does.
"""

from __future__ import annotations

import asyncio
import os
from itertools import islice
from typing import Any, Protocol

import msgspec

from holdfast.gateway.journal import Journal
from holdfast.gateway.streams import Streams
from holdfast.gateway.watching import Watch, Watched, shown

EVERY = 0.25
"""Seconds."""
MOST = 120
"""Streams that are told of one by one, the newest; of the others there is the number."""
MAX_LOOKING = 16
"""Who looks at a time: it is for people."""
_FAR_BEHIND = 256
"""Records that make a reader a slow one."""

Row = list[Any]


class Scene(Protocol):
    """What is looked at: `Gateway` is one."""

    watch: Watch
    draining: bool

    @property
    def streams(self) -> Streams | None:
        """Its streams, None without a journal."""

    @property
    def journal(self) -> Journal | None:
        """Where they are kept."""

    @property
    def heart(self) -> Any:
        """Knows the readers."""

    @property
    def upstreams(self) -> Any:
        """Whom it asks."""


class Crowded(Exception):
    """As many look as may."""


class Looking:
    """Tells everybody who looks. `about` are the facts of the node that stay the same."""

    def __init__(self, scene: Scene, about: dict[str, Any]) -> None:
        self._scene = scene
        self._about = about
        self._task: asyncio.Task[None] | None = None
        self._lookers = 0
        self._tick = 0
        self._told = b""
        self._seen: dict[str, tuple[int, Row]] = {}
        self._number = 0
        self._slow: dict[str, float | None] = {}
        self._waiting: set[asyncio.Future[None]] = set()
        self._closed = False

    def enter(self) -> None:
        """Somebody comes to look. Raises `Crowded`."""
        if self._closed or self._lookers >= MAX_LOOKING:
            raise Crowded
        self._lookers += 1
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="holdfast-looking")

    def leave(self) -> None:
        """Somebody leaves."""
        self._lookers -= 1
        if not self._lookers and self._task is not None:
            self._task.cancel()
            self._task = None
            self._seen.clear()

    def close(self) -> None:
        """There is nothing more to see."""
        self._closed = True
        self._wake()

    async def next(self, seen: int) -> tuple[int, bytes]:
        """Gives what there is to tell to who has seen the `seen`-th tick, 0 for nothing yet; empty where it is over."""
        if seen and not self._closed and seen == self._tick:
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.add(waiter)
            try:
                await waiter
            finally:
                self._waiting.discard(waiter)
        if self._closed:
            return seen, b""
        if seen and seen == self._tick - 1:
            return self._tick, self._told
        self._tick = self._tick or 1
        return self._tick, _event("all", self._whole())

    async def _run(self) -> None:
        self._tick = self._tick or 1
        self._changes()  # what was seen before anybody looked is told whole
        while True:
            await asyncio.sleep(EVERY)
            told = _event("tick", self._changes())
            self._tick += 1
            self._told = told
            self._wake()

    def _wake(self) -> None:
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)

    # -- what is told ----------------------------------------------------------------------------

    def _whole(self) -> dict[str, Any]:
        watch = self._scene.watch
        return {
            "about": {**self._about, "every": EVERY, "pid": os.getpid()},
            "sums": self._sums(),
            "upstreams": self._upstreams(),
            "streams": [{**self._facts(one), "now": self._moving(one)} for one in islice(watch.running(), MOST)],
            "ended": [_ended(*one) for one in watch.ended],
            "news": list(watch.news),
        }

    def _changes(self) -> dict[str, Any]:
        watch, before = self._scene.watch, self._seen
        self._seen, rows, moved = {}, [], {}
        for one in islice(watch.running(), MOST):
            moving = self._moving(one)
            self._seen[one.entry.stream] = one.changes, moving
            known = before.get(one.entry.stream)
            if known is None or known[0] != one.changes:
                rows.append({**self._facts(one), "now": moving})
            elif known[1] != moving:
                moved[shown(one.entry.stream)] = moving
        number, self._number = self._number, watch.number
        return {
            "sums": self._sums(),
            "upstreams": self._upstreams(),
            "streams": rows,
            "moved": moved,
            "gone": [shown(stream) for stream in before if stream not in self._seen],
            "ended": [_ended(*one) for one in watch.ended if one[0] > number],
            "news": [one for one in watch.news if one["number"] > number],
        }

    def _sums(self) -> dict[str, Any]:
        scene = self._scene
        watch, health, streams = scene.watch, scene.watch.health, scene.streams
        pulse = scene.journal.pulse if scene.journal is not None else None
        watch.count_written()
        if self._tick % 4 == 1:  # sorting is what costs most of all here
            self._slow = {"first": health.first_seconds(50), "first99": health.first_seconds(99)}
        return {
            "running": len(watch.live),
            "readers": streams.readers if streams is not None else 0,
            "slow": scene.heart.far_behind(_FAR_BEHIND),
            "draining": scene.draining,
            "silent": pulse is not None and pulse.silent,
            "records": watch.records,
            "bytes": watch.bytes,
            "whole": health.outcomes["complete"] + health.outcomes["resumed"],
            "failed": health.failed,
            "seams": health.seams + sum(len(one.seams) for one in watch.live.values()),
            **{name: watch.counts[name] for name in ("opened", "joined", "read_again", "taken_over", "refused")},
            **self._slow,
        }

    def _upstreams(self) -> list[dict[str, Any]]:
        watch = self._scene.watch
        busy: dict[str, int] = {}
        for one in watch.live.values():
            busy[one.report.upstream] = busy.get(one.report.upstream, 0) + 1
        breakers = self._scene.upstreams.breakers
        return [
            {
                "name": name,
                "state": str(breaker.breaker.current_state),
                "busy": busy.get(name, 0),
                "streams": watch.upstream(name).streams,
                "faults": watch.upstream(name).faults,
                "first": watch.upstream(name).typical,
            }
            for name, breaker in islice(breakers.items(), MOST)
        ]

    def _facts(self, one: Watched) -> dict[str, Any]:
        report = one.report
        return {
            "id": shown(one.entry.stream),
            "owner": one.entry.owner,
            "surface": one.entry.surface,
            "model": one.model,
            "upstream": report.upstream or report.dialect,
            "age": round(self._scene.watch.clock.now() - one.began, 2),
            "phase": one.phase,
            "attempts": report.attempts,
            "first": report.first_delta_seconds,
            "seams": one.seams[-20:],
            "faults": len(report.faults),
        }

    def _moving(self, one: Watched) -> Row:
        streams = self._scene.streams
        running = streams.get(one.entry.stream) if streams is not None else None
        return [one.records, one.bytes, running.readers if running is not None else 0]


def _ended(number: int, one: Watched, how: str) -> dict[str, Any]:
    report = one.report
    return {
        "number": number,
        "id": shown(one.entry.stream),
        "owner": one.entry.owner,
        "surface": one.entry.surface,
        "model": one.model,
        "upstream": report.upstream or report.dialect,
        "how": how,
        "took": round(one.took, 2),
        "first": report.first_delta_seconds,
        "gap": round(report.longest_gap, 3),
        "attempts": report.attempts,
        "seams": one.seams[-20:],
        "records": one.records,
        "bytes": one.bytes,
    }


def _event(name: str, data: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(data))


__all__ = ["EVERY", "MAX_LOOKING", "MOST", "Crowded", "Looking"]
