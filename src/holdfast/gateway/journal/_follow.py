"""The follower: one connection that waits for news of every stream that is read here and written elsewhere.

It only ever adds to logs what the journal holds, in the journal's order. `XREAD` waits for many streams at once; one of
them is the node's own, by which the follower is woken when there are more, or fewer, to wait for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import msgspec

from holdfast._types import Head
from holdfast.gateway.journal import Shelved
from holdfast.gateway.journal._line import connect, stop
from holdfast.gateway.log import Ending, Log

_BLOCK = 1_000
"""Milliseconds of one wait; the connection is given up where Redis says nothing for as long again, and some."""
_AT_ONCE = 64
"""Entries of one stream at a time."""
_PAUSE = 0.25


class Follower:
    """Follows streams. `freed` is called whenever a node gives one back in its middle."""

    def __init__(self, url: str, prefix: str, node: str, freed: Callable[[], None]) -> None:
        self._client = connect(url, socket_timeout=_BLOCK / 1000 + 1.5)
        self._freed = freed
        self._prefix = prefix
        self._places: dict[str, str] = {}
        self._own = {f"{prefix}w:{node}": "$", f"{prefix}free": "$"}
        self._shelved: dict[str, Shelved] = {}
        self._task: asyncio.Task[None] | None = None

    def __contains__(self, stream: str) -> bool:
        return stream in self._shelved

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._shelved))

    def add(self, shelved: Shelved) -> None:
        """From here on its log is fed with what is written."""
        log, stream = shelved.log, shelved.entry.stream
        self._shelved[stream] = shelved
        self._places[stream] = "0-0" if log.head is None and not log.last else f"{log.last}-9"

    def discard(self, stream: str) -> None:
        """It is followed no more."""
        self._shelved.pop(stream, None)
        self._places.pop(stream, None)

    def start(self) -> None:
        """Begins to follow."""
        self._task = asyncio.create_task(self._run(), name="holdfast-follower")

    async def aclose(self) -> None:
        """Ends it."""
        if self._task is not None:
            await stop(self._task)
        with suppress(Exception):  # it may be gone in any way
            await self._client.aclose()
            await self._client.connection_pool.disconnect(inuse_connections=True)

    async def _run(self) -> None:
        while True:
            try:
                found = await self._wait()
            except Exception:  # noqa: BLE001 - Redis is gone, in whichever way: it is asked again
                await asyncio.sleep(_PAUSE)
                continue
            for key, entries in found:
                self._take(key.decode(), entries)
            await asyncio.sleep(0)

    async def _wait(self) -> list[Any]:
        own = dict(self._own)
        for key, place in own.items():
            if place == "$":  # what comes between two waits must not be missed
                newest = await self._client.execute_command("XREVRANGE", key, "+", "-", "COUNT", 1)
                self._own[key] = newest[0][0].decode() if newest else "0-0"
        streams = {**self._own, **{f"{self._prefix}r:{name}": place for name, place in self._places.items()}}
        command = ["XREAD", "COUNT", _AT_ONCE, "BLOCK", _BLOCK, "STREAMS", *streams, *streams.values()]
        found: Any = await self._client.execute_command(*command)
        return list(found.items() if isinstance(found, dict) else found or ())

    def _take(self, key: str, entries: Any) -> None:
        if key in self._own:
            self._own[key] = entries[-1][0].decode()
            if key == f"{self._prefix}free":
                self._freed()
            return
        stream = key[len(self._prefix) + 2 :]
        shelved = self._shelved.get(stream)
        if shelved is None:  # forgotten while we waited
            return
        for place, fields in entries:
            self._places[stream] = place.decode()
            fold(shelved.log, int(place.partition(b"-")[0]), fields)
        if shelved.log.ending is not None:
            self.discard(stream)


def fold(log: Log, number: int, fields: Mapping[bytes, bytes]) -> None:
    """Adds one entry of the journal to a log: what it has already is passed over."""
    if b"h" in fields:
        log.start(msgspec.msgpack.decode(fields[b"h"], type=Head))
    elif b"e" in fields:
        if log.last + 1 < number:
            log.begin_at(number)
        log.end(msgspec.msgpack.decode(fields[b"e"], type=Ending))
    elif log.last + 1 < number:  # what is between was let go of there before we came
        log.begin_at(number)
        fold(log, number, fields)
    elif b"k" in fields:
        if number == log.last + 1:
            log.leave_out(int(fields[b"k"]))
    else:
        records = msgspec.msgpack.decode(fields[b"d"], type=list[bytes])
        known = log.last + 1 - number
        if known < len(records):
            log.extend(records[known:])


__all__ = ["Follower", "fold"]
