"""A real redis-server for tests: on a free port of the loopback, without a file on disk, gone when the test is over."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.binaries import binary, free_port


class RedisServer:
    """One server. It can be killed, frozen and started again, on the same port and empty."""

    def __init__(self, binary: str) -> None:
        self._binary = binary
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        settings = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen([self._binary, *settings], stdout=subprocess.DEVNULL)
        for _ in range(500):
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1) as line:
                    line.sendall(b"PING\r\n")
                    if line.recv(16) == b"+PONG\r\n":
                        return
            except OSError:
                time.sleep(0.01)
        raise RuntimeError("redis-server did not answer within 5 s")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """A server that is there and says nothing."""
        assert self._process is not None
        self._process.send_signal(19)
        try:
            yield
        finally:
            self._process.send_signal(18)


@contextmanager
def redis_server() -> Iterator[RedisServer]:
    """Starts one, or skips the test where there is none."""
    server = RedisServer(binary("redis-server"))
    try:
        yield server
    finally:
        server.kill()
