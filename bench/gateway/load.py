"""Who reads: many streams at once, raw, and what they tell of the relay between.

`python -m bench.gateway.load '<JSON of Load>'` prints one JSON object. Streams are opened evenly over a while, so that
their events are, too; a window of the steady middle is measured, with the CPU time of the relay's processes over just
that window. Latency is from the upstream's write to this process's read: what a relay adds is the difference to a run
without one.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import Any, cast

from bench.gateway.processes import cpu_ns, rss
from bench.gateway.upstream import DIGITS, MARK

_DONE = b"[DONE]"
_AFTER = DIGITS + 1


@dataclass(slots=True, kw_only=True)
class Load:
    """What is asked for. `pids` are the relay's processes, `others` those that must not be what is measured."""

    port: int
    path: str = "/v1/chat/completions"
    headers: dict[str, str] = field(default_factory=dict)
    body: dict[str, Any] = field(default_factory=dict)
    streams: int = 100
    rate: float = 50.0
    opening: float = 1.0
    """Seconds over which streams are opened."""
    warm: float = 0.5
    """Seconds from the last stream's opening to the window."""
    seconds: float = 3.0
    pids: list[int] = field(default_factory=list)
    others: list[int] = field(default_factory=list)


class Reader(asyncio.Protocol):
    """One stream."""

    def __init__(self, request: bytes, run: Run) -> None:
        self._request = request
        self._run = run
        self._left = b""
        self._first = True
        self.whole = False
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class
        self._asked = time.monotonic_ns()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        if self._left:
            data = self._left + data
            self._left = b""
        place = data.find(MARK)
        while place >= 0:
            end = place + _AFTER
            if end > len(data):
                self._left = data[place:]
                return
            if self._first:
                self._first = False
                self._run.firsts.append(now - self._asked)
            elif self._run.measuring:
                self._run.latencies.append(now - int(data[place + 1 : end]))
            place = data.find(MARK, end)
        if _DONE in data:
            self.whole = True
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.over.done():
            self.over.set_result(None)


class Run:
    """One load."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.latencies: list[int] = []
        self.firsts: list[int] = []
        self.measuring = False

    async def run(self) -> dict[str, Any]:
        """Opens, measures, reads to the end."""
        load, loop = self.load, asyncio.get_running_loop()
        request, readers = self._request(), []
        idle = rss(load.pids)
        for _ in range(load.streams):
            _, reader = await loop.create_connection(lambda: Reader(request, self), "127.0.0.1", load.port)
            readers.append(reader)
            await asyncio.sleep(load.opening / load.streams)
        await asyncio.sleep(load.warm)
        before, others, started = cpu_ns(load.pids), cpu_ns(load.others), time.monotonic()
        own = time.process_time_ns()
        self.measuring = True
        await asyncio.sleep(load.seconds)
        self.measuring = False
        seconds = time.monotonic() - started
        cpu = cpu_ns(load.pids) - before
        told = {
            "events": len(self.latencies),
            "cpu": cpu / 1e9 / seconds,
            "us": cpu / 1e3 / max(1, len(self.latencies)),
            "others": (cpu_ns(load.others) - others) / 1e9 / seconds,
            "own": (time.process_time_ns() - own) / 1e9 / seconds,
            "idle": idle,
            "loaded": rss(load.pids),
            "share": len(self.latencies) / seconds / load.rate / load.streams,
            "p50": _quantile(self.latencies, 0.5),
            "p99": _quantile(self.latencies, 0.99),
            "first50": _quantile(self.firsts, 0.5),
            "first99": _quantile(self.firsts, 0.99),
        }
        await asyncio.wait([reader.over for reader in readers], timeout=10)
        told["whole"] = sum(reader.whole for reader in readers)
        return told

    def _request(self) -> bytes:
        load = self.load
        events = round((load.opening + load.warm + load.seconds + 0.3) * load.rate)
        body = json.dumps({**load.body, "max_tokens": events, "stream": True}).encode()
        given = {"Host": "127.0.0.1", "Content-Type": "application/json", "Content-Length": str(len(body))}
        lines = [f"{name}: {value}" for name, value in {**given, **load.headers}.items()]
        return "\r\n".join([f"POST {load.path} HTTP/1.1", *lines, "", ""]).encode() + body


def _quantile(values: list[int], share: float) -> float:
    """Gives milliseconds."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] / 1e6 if values else float("nan")


def median(rounds: list[dict[str, float]], name: str) -> float:
    """Gives the median of one figure over rounds."""
    return statistics.median(one[name] for one in rounds)


def arguments(load: Load) -> str:
    """Gives a load as this module's argument."""
    return json.dumps(asdict(load))


if __name__ == "__main__":
    import uvloop

    print(json.dumps(uvloop.run(Run(Load(**json.loads(sys.argv[1]))).run())))
