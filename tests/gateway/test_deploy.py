"""What `deploy/` holds: the nginx configuration before the real nginx, and the rest against what the project has."""

from __future__ import annotations

import argparse
import asyncio
import configparser
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from holdfast.cli import gateway as command
from holdfast.cli import main
from holdfast.gateway.config import load
from holdfast.gateway.serve import serve
from holdfast.gateway.settings import Settings
from holdfast.gateway.workers import listen
from holdfast.testing.server import (
    STREAM_HEAD,
    Close,
    Handler,
    ReceivedRequest,
    Reply,
    ScriptedServer,
    Send,
    chunked,
)
from tests.binaries import binary, free_port
from tests.gateway.serving import settings
from tests.gateway.test_serve import Held, begun, rest_of
from tests.gateway.test_server import ANSWER, BODY, ids_of
from tests.redis_server import redis_server

DEPLOY = Path(__file__).resolve().parent.parent.parent / "deploy"
ENVIRONMENT = {"DEEPSEEK_API_KEY": "sk-1", "HOLDFAST_JOURNAL": "redis://redis:6379/0"}


@asynccontextmanager
async def nginx(folder: Path, *nodes: str) -> AsyncIterator[str]:
    """Runs nginx with the configuration of `deploy/` before nodes, and gives its address."""
    port = free_port()
    text = (DEPLOY / "nginx.conf").read_text()
    for number, node in enumerate(nodes, 1):
        assert f"server gateway-{number}:8700 " in text
        text = text.replace(f"gateway-{number}:8700", node.removeprefix("http://"))
    text = text.replace("listen 8080;", f"listen 127.0.0.1:{port};").replace("/dev/stdout", f"{folder}/access.log")
    places = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    file = folder / "nginx.conf"
    file.write_text(f"daemon off; pid {folder}/pid; events {{}} http {{ {places} {text} }}")
    log = folder / "error.log"
    program = await asyncio.create_subprocess_exec(
        binary("nginx"), "-p", str(folder), "-c", str(file), "-e", str(log), stderr=asyncio.subprocess.DEVNULL
    )
    try:
        for _ in range(200):
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                assert program.returncode is None, log.read_text()
                await asyncio.sleep(0.02)
            else:
                writer.close()
                break
        yield f"http://127.0.0.1:{port}"
    finally:
        if program.returncode is None:
            program.terminate()
        await program.wait()


@dataclass
class Node:
    """A gateway that ends as if it had been sent a signal, and nobody else."""

    url: str
    line: int
    task: asyncio.Task[None]

    def end(self) -> None:
        if self.line:
            os.close(self.line)
        self.line = 0


@asynccontextmanager
async def node(chosen: Settings) -> AsyncIterator[Node]:
    [sock] = listen(chosen)
    started = asyncio.Event()
    alive, line = os.pipe()
    task = asyncio.create_task(serve(chosen, sock, started=started.set, alive=alive))
    running = Node(f"http://127.0.0.1:{sock.getsockname()[1]}", line, task)
    try:
        await begun(task, started)
        yield running
    finally:
        running.end()
        await asyncio.wait([task], timeout=10)
        sock.close()
        os.close(alive)
    task.result()


@dataclass
class Site:
    """Two gateways with a Redis between them, behind nginx."""

    url: str
    nodes: list[Node]
    upstream: ScriptedServer
    session: aiohttp.ClientSession

    def ask(self) -> Any:
        return self.session.post(f"{self.url}/v1/chat/completions", json=BODY)

    def read(self, stream: str, last: str, token: str) -> Any:
        return self.session.get(f"{self.url}/v1/streams/{stream}?token={token}", headers={"Last-Event-ID": last})


@asynccontextmanager
async def two_nodes(folder: Path, handler: Handler, *, drain: float = 5.0) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(ScriptedServer(handler))
        redis = stack.enter_context(redis_server())
        chosen = settings(f"{upstream.url}/v1", journal=redis.url, drain=drain, port=0)
        session = await stack.enter_async_context(aiohttp.ClientSession())
        nodes = [await stack.enter_async_context(node(chosen)) for _ in range(2)]
        url = await stack.enter_async_context(nginx(folder, *(one.url for one in nodes)))
        yield Site(url, nodes, upstream, session)


async def test_events_go_through_nginx_as_they_come_and_a_reader_comes_back_to_any_node(tmp_path: Path) -> None:
    held = Held()
    async with two_nodes(tmp_path, held) as site:
        async with site.ask() as response:
            first = await asyncio.wait_for(response.content.readuntil(b"\n\n"), 20)
            assert not held.go.is_set()  # the upstream has not said more
            stream, token = (response.headers[f"X-Holdfast-{name}"] for name in ("Stream", "Read-Token"))
            held.go.set()
            rest, whole = await rest_of(response)
        body = first + rest
        assert whole
        lines = [line for line in body.splitlines(keepends=True) if not line.startswith(b"id: ")]
        assert b"".join(lines) == b"".join(ANSWER)
        ids = ids_of(body)
        for place, last in enumerate(ids):  # nginx takes the nodes by turns
            async with site.read(stream, str(last), token) as again:
                assert again.status == (200 if place < len(ids) - 1 else 204)
                assert ids_of(await again.read()) == ids[place + 1 :]
        assert len(site.upstream.requests) == 1
    assert token not in (tmp_path / "access.log").read_text()


async def test_a_stream_that_broke_does_not_end_cleanly_behind_nginx(tmp_path: Path) -> None:
    async def broken(request: ReceivedRequest) -> Reply:
        error = b'data: {"error":{"message":"no","type":"x"}}\n\n'
        return [Send(STREAM_HEAD), Send(chunked(ANSWER[0])), Send(chunked(error)), Close()]

    async with two_nodes(tmp_path, broken) as site, site.ask() as response:
        said, whole = await rest_of(response)
    assert b'"error"' in said
    assert not whole


@pytest.mark.parametrize("which", [0, 1])
async def test_readers_go_on_behind_nginx_when_either_node_drains(tmp_path: Path, which: int) -> None:
    held = Held()
    async with two_nodes(tmp_path, held) as site, site.ask() as response:
        body = await response.content.readuntil(b"\n\n")
        stream, token = (response.headers[f"X-Holdfast-{name}"] for name in ("Stream", "Read-Token"))
        readers = [asyncio.create_task(_follow(site, stream, token)) for _ in range(4)]
        await asyncio.sleep(0.1)
        site.nodes[which].end()
        await asyncio.sleep(0.1)
        held.go.set()
        rest, whole = await rest_of(response)
        assert whole
        assert len(ids_of(body + rest)) == 4
        for reader in readers:
            assert await reader == body + rest
        await asyncio.wait_for(site.nodes[which].task, 20)
        assert len(site.upstream.requests) == 1


async def test_what_a_drain_leaves_is_gone_on_with_by_the_other_node(tmp_path: Path) -> None:
    held = Held()
    async with two_nodes(tmp_path, held, drain=0.1) as site, site.ask() as response:
        body = await response.content.readuntil(b"\n\n")
        stream, token = (response.headers[f"X-Holdfast-{name}"] for name in ("Stream", "Read-Token"))
        site.nodes[0].end()  # nginx took the first
        rest, whole = await rest_of(response)
        assert rest == b"retry: 500\n"
        assert not whole
        held.go.set()
        body += await _follow(site, stream, token, body)
    assert len(site.upstream.requests) == 2
    lines = [line for line in body.splitlines(keepends=True) if not line.startswith((b"id: ", b": still here"))]
    assert b"".join(lines) == b"".join(ANSWER)


async def _follow(site: Site, stream: str, token: str, before: bytes = b"") -> bytes:
    """Reads as an EventSource does: it comes back with the last id until there is nothing more."""
    said = b""
    for _ in range(5):
        async with site.read(stream, str((ids_of(before + said) or [""])[-1]), token) as response:
            assert response.status in (200, 204), await response.read()
            rest, whole = await rest_of(response)
            said += rest.removesuffix(b"retry: 500\n")
            if whole:
                return said
    raise AssertionError("it was sent away too often")


# -- the rest ------------------------------------------------------------------------------------


def test_the_example_configuration_can_be_served_once_it_has_a_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    text = (DEPLOY / "gateway.toml").read_text()
    file = tmp_path / "gateway.toml"
    file.write_text(text)
    make, look = (shlex.split(line) for line in re.findall(r"^#   holdfast (gateway .*)$", text, re.MULTILINE))
    assert [*make[:2], *make[-2:]] == ["gateway", "new-key", ">>", "gateway.toml"]
    monkeypatch.chdir(tmp_path)
    assert main(look) == 2
    assert "make one with `holdfast gateway new-key`" in capfd.readouterr().err
    for name in ("app", "operator"):
        assert main([*make[:2], name]) == 0
        file.write_text(file.read_text() + capfd.readouterr().out)
    more = re.findall(
        r"((?:requests_per_minute|concurrency|money|scopes) = (?:[\d.]+\d|\[.*\]))", text.partition("\nhost")[0]
    )
    assert len(more) == 4
    file.write_text("\n".join([file.read_text(), *more]))
    assert main(look) == 0
    assert "journal Redis, 2 keys, 1 upstream" in capfd.readouterr().out
    chosen = load(file, ENVIRONMENT)
    assert [(key.name, key.scopes, key.money) for key in chosen.keys] == [
        ("app", ("stream",), None),
        ("operator", ("ui",), 50.0),
    ]


def test_the_compose_recipe_makes_keys_where_the_containers_look_for_them() -> None:
    compose, docker = ((DEPLOY / name).read_text() for name in ("compose.yaml", "Dockerfile"))
    [command] = re.findall(r"^#   (.* run .*)$", compose, re.MULTILINE)
    run, to = command.split(" >> ")
    service, *words = run.partition(" -T ")[2].split()
    assert f"\n  {service}: " in compose
    assert _options(["gateway", *words]).words == ["new-key", "app"]  # behind the image's entrypoint
    assert 'ENTRYPOINT ["holdfast", "gateway"]' in docker
    assert DEPLOY.parent / to == DEPLOY / "gateway.toml"
    assert "- ./gateway.toml:/etc/holdfast/gateway.toml:ro" in compose


def test_the_unit_finds_its_credentials_where_systemd_puts_them(tmp_path: Path) -> None:
    name = "holdfast-gateway.service"
    unit = (DEPLOY / name).read_text()
    given = dict(re.findall(r"^LoadCredential=(\w+):(\S+)$", unit, re.MULTILINE))
    lines = re.findall(r'^#   (\w+) = "/run/credentials/(\S+)/(\w+)"$', unit, re.MULTILINE)
    assert {(where, which) for _, where, which in lines} == {(name, which) for which in given}
    text = (DEPLOY / "gateway.toml").read_text()
    for setting, _, which in lines:
        (tmp_path / which).write_text("redis://redis/0\n" if which == "journal" else "sk-1\n")
        text = re.sub(rf"^{setting.replace('_file', '_env')} = .*$", f'{setting} = "{which}"', text, flags=re.MULTILINE)
    (tmp_path / "gateway.toml").write_text(text)
    chosen = load(tmp_path / "gateway.toml", {})
    assert (chosen.journal, chosen.upstreams[0].api_key) == ("redis://redis/0", "sk-1")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze here")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "holdfast-gateway.service"
    unit.write_text((DEPLOY / unit.name).read_text().replace("/usr/local/bin/holdfast", "/bin/true"))
    command = ["systemd-analyze", "verify", str(unit)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert [line for line in ran.stderr.splitlines() if unit.name in line] == []


def _options(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(exit_on_error=False)
    command.add_parser(parser.add_subparsers(dest="command"))
    return parser.parse_args(words)


def test_every_command_there_is_one_that_the_project_has() -> None:
    docker = (DEPLOY / "Dockerfile").read_text()
    entry, given = (
        json.loads(re.findall(rf"^{word} (\[.*\])$", docker, re.MULTILINE)[0]) for word in ("ENTRYPOINT", "CMD")
    )
    assert entry[0] == "holdfast"
    assert _options([*entry[1:], *given]).config == "/etc/holdfast/gateway.toml"
    assert re.search(r"^USER (?!root)\w+$", docker, re.MULTILINE)
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # names keep their case
    unit.read(DEPLOY / "holdfast-gateway.service")
    service = unit["Service"]
    for line in (service["ExecStartPre"], service["ExecStart"]):
        program, *words = shlex.split(line)
        assert Path(program).name == "holdfast"
        assert _options(words).config == "/etc/holdfast/gateway.toml"


def test_whoever_stops_a_gateway_waits_longer_than_it_drains() -> None:
    drain = load(DEPLOY / "gateway.toml", ENVIRONMENT).drain
    unit, compose = ((DEPLOY / name).read_text() for name in ("holdfast-gateway.service", "compose.yaml"))
    assert int(re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)[0]) > drain
    assert int(re.findall(r"stop_grace_period: (\d+)s", compose)[0]) > drain


def test_compose_names_files_services_and_variables_that_are_there() -> None:
    compose, proxy = ((DEPLOY / name).read_text() for name in ("compose.yaml", "nginx.conf"))
    for file in re.findall(r"- \./(\S+?):", compose):
        assert (DEPLOY / file).is_file()
    assert (DEPLOY.parent / re.findall(r"dockerfile: (\S+)", compose)[0]).is_file()
    for node in re.findall(r"server (\S+):8700 ", proxy):
        assert f"\n  {node}: *gateway\n" in compose
    assert set(re.findall(r"^    ([A-Z_]+):", compose, re.MULTILINE)) == ENVIRONMENT.keys()


def test_nginx_waits_longer_than_a_gateway_is_silent_and_takes_what_it_takes() -> None:
    proxy, chosen = (DEPLOY / "nginx.conf").read_text(), load(DEPLOY / "gateway.toml", ENVIRONMENT)
    assert int(re.findall(r"proxy_read_timeout (\d+)s", proxy)[0]) > 2 * chosen.heartbeat
    assert int(re.findall(r"client_max_body_size (\d+)m", proxy)[0]) * 2**20 == chosen.limits.max_body
