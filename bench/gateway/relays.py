"""The relays that are compared: how each is started in front of the benchmark's upstream, and how it is asked.

All have one process that relays (nginx: one worker) and no logs of requests. LiteLLM lives in an environment of its own
(`.venv-gateway-litellm`), Portkey in a folder of node packages (`.venv-gateway-portkey`): `make bench-gateway` makes
both, and what cannot be started is said to be missing.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.gateway.processes import family

ROOT = Path(__file__).resolve().parent.parent.parent
BODY = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}]}
_READY = 90.0
"""Seconds that a relay may take to start: LiteLLM imports for twenty on a slow machine."""

_NGINX = """
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log; {user}
events {{ worker_connections 4096; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream up {{ server 127.0.0.1:{upstream}; keepalive 512; }}
  server {{
    listen 127.0.0.1:{port} backlog=2048;
    location / {{
      proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off; proxy_read_timeout 600s;
    }}
  }}
}}
"""
_LITELLM = """
model_list:
  - model_name: gpt-4o-mini
    litellm_params: {{model: openai/gpt-4o-mini, api_base: "http://127.0.0.1:{upstream}/v1", api_key: sk-upstream}}
"""


class Missing(Exception):
    """A relay that is not here."""


@dataclass(slots=True)
class Relay:
    """One that runs. `pids` are its processes; none for no relay at all."""

    name: str
    port: int
    pids: list[int] = field(default_factory=list)
    headers: Mapping[str, str] = field(default_factory=dict)
    ready: float = 0.0
    """Seconds from its start to its first answer."""


@dataclass(slots=True)
class Way:
    """How a relay is started: its command, and what else that takes."""

    command: list[str]
    headers: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)


def free_port() -> int:
    """Gives a port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _nginx(port: int, upstream: int, folder: Path) -> Way:
    path = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if path is None:
        raise Missing("nginx is not installed")
    user = "user root;" if os.geteuid() == 0 else ""
    conf = folder / "nginx.conf"
    conf.write_text(_NGINX.format(folder=folder, port=port, upstream=upstream, user=user), encoding="utf-8")
    return Way([path, "-p", str(folder), "-c", str(conf), "-e", str(folder / "error.log")])


def _naive(loop: str) -> Callable[[int, int, Path], Way]:
    def way(port: int, upstream: int, _: Path) -> Way:
        return Way([sys.executable, "-m", "bench.gateway.naive", f"http://127.0.0.1:{upstream}", str(port), loop])

    return way


def _ours(journal: str, loop: str) -> Callable[[int, int, Path], Way]:
    def way(port: int, upstream: int, _: Path) -> Way:
        settings = ["--port", str(port), "--upstream", f"http://127.0.0.1:{upstream}/v1", "--dialect", "openai"]
        command = [sys.executable, "-m", "bench.gateway.ours", loop, *settings, "--journal", journal]
        return Way(command, env={"OPENAI_API_KEY": "sk-upstream"})

    return way


def _portkey(port: int, upstream: int, _: Path) -> Way:
    server = ROOT / ".venv-gateway-portkey/node_modules/@portkey-ai/gateway/build/start-server.js"
    node = shutil.which("node")
    if node is None or not server.is_file():
        raise Missing("Portkey's gateway is not installed: it takes node and npm")
    headers = {
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": f"http://127.0.0.1:{upstream}/v1",
        "Authorization": "Bearer sk-upstream",
    }
    env = {"TRUSTED_CUSTOM_HOSTS": "127.0.0.1,localhost"}
    return Way([node, str(server), f"--port={port}", "--headless"], headers, env)


def _litellm(port: int, upstream: int, folder: Path) -> Way:
    program = ROOT / ".venv-gateway-litellm/bin/litellm"
    if not program.is_file():
        raise Missing("LiteLLM is not installed")
    config = folder / "litellm.yaml"
    config.write_text(_LITELLM.format(upstream=upstream), encoding="utf-8")
    command = [str(program), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    key = "sk-of-the-benchmark"  # it does not start without
    env = {"LITELLM_LOG": "ERROR", "LITELLM_TELEMETRY": "False", "LITELLM_MASTER_KEY": key}
    return Way(command, {"Authorization": f"Bearer {key}"}, env)


RELAYS: dict[str, Callable[[int, int, Path], Way]] = {
    "nginx": _nginx,
    "naive, uvloop": _naive("uvloop"),
    "holdfast --journal none": _ours("none", "uvloop"),
    "holdfast": _ours("memory", "uvloop"),
    "naive, asyncio": _naive("asyncio"),
    "holdfast --journal none, asyncio": _ours("none", "asyncio"),
    "holdfast, asyncio": _ours("memory", "asyncio"),
    "Portkey": _portkey,
    "LiteLLM": _litellm,
}
FLOORS = {name: "naive, asyncio" if name.endswith("asyncio") else "naive, uvloop" for name in RELAYS}
"""Beside whom each is looked at."""


@contextlib.contextmanager
def upstream(rate: float) -> Iterator[Relay]:
    """Runs the upstream: what stands for no relay at all."""
    command = [sys.executable, "-m", "bench.gateway.upstream", str(rate)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            if process.stdout is None:
                raise AssertionError("it is a pipe")
            yield Relay("direct", int(process.stdout.readline()), [process.pid])
        finally:
            process.terminate()


@contextlib.contextmanager
def relay(name: str, to: int, folder: Path) -> Iterator[Relay]:
    """Runs a relay in front of an upstream's port. Raises `Missing` for one that cannot be started here."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    way = RELAYS[name](port, to, folder)
    begun = time.monotonic()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(way.command, stdout=log, stderr=log, cwd=ROOT, env={**os.environ, **way.env})
        try:
            _wait(process, port, way.headers)
            yield Relay(name, port, family(process.pid), way.headers, time.monotonic() - begun)
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, headers: Mapping[str, str]) -> None:
    body = b'{"model":"gpt-4o-mini","stream":true,"max_tokens":2,"messages":[{"role":"user","content":"hello"}]}'
    address = f"http://127.0.0.1:{port}/v1/chat/completions"
    request = urllib.request.Request(address, body, {"Content-Type": "application/json", **headers})
    until, why = time.monotonic() + _READY, "it did not answer"
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                if b"[DONE]" in answer.read():
                    return
                why = "its answer was not whole"
        except OSError as error:
            why = str(error)
        time.sleep(0.02)
    raise Missing(f"it could not be started: {why if process.poll() is None else f'it ended with {process.poll()}'}")
