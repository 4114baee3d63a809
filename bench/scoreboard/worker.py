"""One contender at work: `python -m bench.scoreboard.worker NAME THREADS` reads asks from stdin, writes what was heard.

Both are JSON lines. It must import nothing of Holdfast: contenders live in environments of their own. A thread that
hangs is left where it is, for nothing can end it; the process ends without it.
"""

from __future__ import annotations

import importlib
import json
import os
import queue
import sys
import threading
import time
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any, TextIO

from bench.scoreboard.ask import WATCHDOG, Ask, Heard

_SAYING = threading.Lock()


def hear(contender: Any, ask: Ask, watchdog: float = WATCHDOG) -> Heard:
    """Reads one stream, and gives up watching after so many seconds."""
    heard = Heard(key=ask.key, hung=True)
    began = time.monotonic()

    def read() -> None:
        try:
            contender.read(ask, lambda piece: heard.pieces.append(str(piece)))  # a screen shows whatever it is given
        except Exception as error:  # noqa: BLE001 - how it fails is what we want to know
            heard.error = f"{type(error).__module__}.{type(error).__qualname__}"
            heard.typed = isinstance(error, contender.CATCH)
        heard.hung = False

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(watchdog)
    heard.seconds = time.monotonic() - began
    heard.text = "".join(heard.pieces)
    return heard


def _say(out: TextIO, heard: Heard) -> None:
    shown = ("key", "text", "error", "typed", "hung", "seconds")
    _write(out, {name: getattr(heard, name) for name in shown})


def _write(out: TextIO, document: dict[str, Any]) -> None:
    line = json.dumps(document) + "\n"
    with _SAYING:
        out.write(line)
        out.flush()


def _work(out: TextIO, contender: Any, asks: queue.SimpleQueue[Ask | None], watchdog: float) -> None:
    while (ask := asks.get()) is not None:
        _say(out, hear(contender, ask, watchdog))


def _versions(contender: Any) -> dict[str, str]:
    return {package: version(package) for package in contender.PACKAGES}


def work(contender: Any, threads: int, lines: Iterable[str], watchdog: float = WATCHDOG) -> None:
    """Lets a contender read all that is asked, so many streams at once, and ends the process."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries that print do so elsewhere
    _write(out, _versions(contender))
    waiting = [Ask(**json.loads(line)) for line in lines]
    hear(contender, waiting.pop(0), watchdog)  # what a library does once, at its first call, is nobody's stream
    asks: queue.SimpleQueue[Ask | None] = queue.SimpleQueue()
    for ask in [*waiting, *[None] * threads]:
        asks.put(ask)
    workers = [threading.Thread(target=_work, args=(out, contender, asks, watchdog)) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    os._exit(0)


if __name__ == "__main__":
    work(importlib.import_module(f"bench.scoreboard.contenders.{sys.argv[1]}"), int(sys.argv[2]), sys.stdin)
