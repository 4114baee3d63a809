"""Workers: several processes that serve one port, and the parent that keeps them there.

The parent binds the port once for each worker and forks, so a connection that waits for a worker which died is still
there for the next one. It passes signals on, and starts a worker anew that died, later each time that it dies young.
From a signal on nobody holds a worker's socket but the worker: a port must refuse who comes where nobody listens any
more. The parent serves nothing itself, and must have no threads: a fork copies none.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from holdfast._errors import UsageError
from holdfast.gateway.settings import Settings

BACKLOG = 1024
"""Connections that wait to be accepted."""
_YOUNG = 30.0
"""Seconds that a worker must live for its death to be an accident."""
_FIRST, _LONGEST = 0.1, 10.0
"""Seconds until a worker that died young is started anew, at first and at most."""
_PASSED_ON = (signal.SIGTERM, signal.SIGINT)

Work = Callable[[socket.socket, Callable[[], None], int], int]
"""What a worker does with its socket until a signal ends it.

The second is called once it serves, the third a descriptor that ends when its parent does. Gives an exit code.
"""


def listen(settings: Settings) -> list[socket.socket]:
    """Binds the port, once for each worker where the system can share one so. Raises `OSError` where it is taken."""
    host, port = settings.host, settings.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    several = settings.workers > 1 and hasattr(socket, "SO_REUSEPORT")
    sockets: list[socket.socket] = []
    try:
        if several:  # whoever shares a port may take another's connections: it must be free, or ours
            socket.create_server((host, port), family=family).close()
        for _ in range(settings.workers if several else 1):
            one = socket.create_server((host, port), family=family, backlog=BACKLOG, reuse_port=several)
            sockets.append(one)
            port = one.getsockname()[1]
    except OSError as error:
        for one in sockets:
            one.close()
        known = (error.errno or 0) >= 0  # else it is of names and no number of the system's
        why = os.strerror(error.errno or 0) if known else (error.strerror or "").partition(" (")[0]
        raise OSError(error.errno, why, f"{host} port {port}") from error
    return sockets


@dataclass(slots=True)
class _Place:
    """A worker's place: it outlives who works there. `due` is when the next one is started, where there is none."""

    sock: socket.socket
    pid: int = 0
    born: float = 0.0
    deaths: int = 0
    due: float = 0.0


@dataclass(slots=True)
class Workers:
    """Runs `work` in a process for each of `count` workers until a signal comes.

    `started` is called when all serve, `tell` with words for a person when one died.
    """

    work: Work
    sockets: Sequence[socket.socket]
    count: int
    started: Callable[[], None]
    tell: Callable[[str], None] = lambda _: None
    _places: list[_Place] = field(init=False)
    _ready: int = 0
    _ending: bool = False
    _code: int = 0

    def __post_init__(self) -> None:
        if not hasattr(os, "fork"):
            raise UsageError("this system has no fork(), which several workers need: run one")
        self._places = [_Place(self.sockets[number % len(self.sockets)]) for number in range(self.count)]

    def run(self) -> int:
        """Returns when all have ended: 0, or the exit code of one that never came to serve."""
        alive, parent = os.pipe()  # its end tells workers that their parent is gone
        ready, told = os.pipe()
        with _waking() as wake, selectors.DefaultSelector() as selector:
            selector.register(wake, selectors.EVENT_READ)
            selector.register(ready, selectors.EVENT_READ)
            while not (self._ending and not any(place.pid for place in self._places)):
                for place in self._places:
                    if not place.pid and not self._ending and place.due <= time.monotonic():
                        self._start(place, (alive, told), (parent, ready))
                for key, _ in selector.select(self._patience()):
                    data = os.read(key.fd, 4096)
                    if key.fd == ready:
                        self._heard(len(data))
                    else:
                        self._woken(data)
        for end in (alive, parent, ready, told):
            os.close(end)
        return self._code

    def _patience(self) -> float | None:
        """Gives the seconds until a worker is to be started."""
        due = [place.due for place in self._places if not place.pid]
        return max(0.0, min(due) - time.monotonic()) if due and not self._ending else None

    def _start(self, place: _Place, ours: tuple[int, int], parents: tuple[int, int]) -> None:
        sys.stdout.flush()
        pid = os.fork()
        if pid:
            place.pid, place.born = pid, time.monotonic()
            return
        code = 1
        alive, told = ours
        try:
            signal.set_wakeup_fd(-1)
            for one in (*_PASSED_ON, signal.SIGCHLD):
                signal.signal(one, signal.SIG_DFL)
            os.setpgid(0, 0)  # Ctrl-C is the parent's to pass on: two signals would end what still runs
            for end in parents:
                os.close(end)
            for other in self.sockets:
                if other is not place.sock:
                    other.close()
            code = self.work(place.sock, lambda: _tell(told), alive)
        finally:
            sys.stdout.flush()
            os._exit(code)

    def _heard(self, ready: int) -> None:
        before, self._ready = self._ready, self._ready + ready
        if before < self.count <= self._ready and not self._ending:
            self.started()

    def _woken(self, signals: bytes) -> None:
        for number in signals:
            if number in _PASSED_ON:
                self._end(number)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            for place in self._places:
                if place.pid == pid:
                    self._bury(place, os.waitstatus_to_exitcode(status))

    def _bury(self, place: _Place, code: int) -> None:
        place.pid = 0
        now = time.monotonic()
        if self._ending:
            return
        if self._ready < self.count and code > 0:  # it could not be started, and said why
            self._code = code
            self._end(signal.SIGTERM)
            return
        place.deaths = place.deaths + 1 if now - place.born < _YOUNG else 0
        pause = min(_LONGEST, _FIRST * 2**place.deaths) if place.deaths else 0.0
        place.due = now + pause
        how = f"was ended by signal {-code}" if code < 0 else f"ended with {code}"
        self.tell(f"a worker {how}; another is started in {pause:g} s")

    def _end(self, number: int) -> None:
        self._ending = True
        for one in self.sockets:
            one.close()
        for place in self._places:
            if place.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(place.pid, number)


@contextlib.contextmanager
def _waking() -> Iterator[int]:
    """Gives a descriptor that the numbers of signals can be read from."""
    woken, wake = os.pipe()
    for end in (woken, wake):
        os.set_blocking(end, False)
    heard = (*_PASSED_ON, signal.SIGCHLD)
    before = {one: signal.signal(one, lambda *_: None) for one in heard}
    signal.set_wakeup_fd(wake)
    try:
        yield woken
    finally:
        signal.set_wakeup_fd(-1)
        for one, handler in before.items():
            signal.signal(one, handler)
        os.close(woken)
        os.close(wake)


def _tell(told: int) -> None:
    os.write(told, b"+")


__all__ = ["BACKLOG", "Work", "Workers", "listen"]
