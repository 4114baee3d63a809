"""A gateway from its start to its end: it drains on a signal, ends at once on a second, and shares its port."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme

from holdfast._errors import UsageError
from holdfast.gateway.serve import context_of, rehearse, serve
from holdfast.gateway.settings import Settings
from holdfast.gateway.workers import listen
from holdfast.testing.server import STREAM_HEAD, Handler, ReceivedRequest, ScriptedServer, Send, Step, chunked
from tests.gateway.serving import settings
from tests.gateway.test_server import ANSWER, BODY, ids_of
from tests.redis_server import redis_server


@dataclass
class Held:
    """An upstream whose answer goes on, behind its first event, when `go` is set."""

    go: asyncio.Event = field(default_factory=asyncio.Event)
    requests: int = 0

    async def __call__(self, request: ReceivedRequest) -> AsyncGenerator[Step, None]:
        self.requests += 1
        return self._answer()

    async def _answer(self) -> AsyncGenerator[Step, None]:
        yield Send(STREAM_HEAD)
        yield Send(chunked(ANSWER[0]))
        await self.go.wait()
        for piece in (*ANSWER[1:], b""):
            yield Send(chunked(piece))


@dataclass
class Serving:
    """A gateway that serves, and its upstream."""

    url: str
    held: Held
    task: asyncio.Task[None]
    session: aiohttp.ClientSession
    told: list[str]

    def ask(self) -> Any:
        return self.session.post(f"{self.url}/v1/chat/completions", json=BODY)

    async def ready(self) -> bool:
        async with self.session.get(f"{self.url}/readyz") as response:
            return response.status == 200

    async def says(self, said: dict[str, str]) -> bool:
        async with self.session.get(f"{self.url}/readyz") as response:
            assert (response.status == 200) == (await response.json() == {"status": "ok"})
            return bool(await response.json() == said)

    async def drains(self) -> bool:
        return await until(self.says, {"status": "draining"})

    async def refuses_connections(self) -> bool:
        for _ in range(200):
            try:
                _, writer = await asyncio.open_connection(*self.url.removeprefix("http://").split(":"))
            except OSError:
                return True
            writer.close()
            await asyncio.sleep(0.005)
        return False


@asynccontextmanager
async def served(handler: Handler | None = None, **more: Any) -> AsyncIterator[Serving]:
    """Serves with real sockets and real signals, in this process."""
    held = Held()
    async with ScriptedServer(handler or held) as upstream, aiohttp.ClientSession() as session:
        chosen = settings(f"http://127.0.0.1:{upstream.port}/v1", **{"port": 0, "drain": 5.0, **more})
        [sock] = listen(chosen)
        started, told = asyncio.Event(), list[str]()
        task = asyncio.create_task(serve(chosen, sock, started=started.set, tell=told.append))
        try:
            await begun(task, started)
            yield Serving(f"http://127.0.0.1:{sock.getsockname()[1]}", held, task, session, told)
        finally:
            task.cancel()
            await asyncio.wait([task])
            sock.close()


async def begun(task: asyncio.Task[None], started: asyncio.Event) -> None:
    """Waits until a gateway serves, or raises why it does not."""
    waiting = asyncio.create_task(started.wait())
    await asyncio.wait([task, waiting], timeout=20, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if task.done():
        task.result()
    assert started.is_set()


async def until(met: Callable[[dict[str, str]], Awaitable[bool]], said: dict[str, str]) -> bool:
    for _ in range(400):
        if await met(said):
            return True
        await asyncio.sleep(0.01)
    return False


def end() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


async def rest_of(response: aiohttp.ClientResponse) -> tuple[bytes, bool]:
    """Reads to the end, and says whether it was a clean one."""
    said = b""
    try:
        while data := await asyncio.wait_for(response.content.readany(), 30):
            said += data
    except aiohttp.ClientPayloadError:
        return said, False
    return said, True


async def test_what_runs_comes_to_its_end_behind_a_signal() -> None:
    async with served() as gateway:
        assert await gateway.ready()
        async with gateway.ask() as response:
            first = await response.content.readuntil(b"\n\n")
            end()
            assert await gateway.drains()
            assert not gateway.task.done()
            gateway.held.go.set()
            body = first + await response.read()
        await asyncio.wait_for(gateway.task, 20)
    assert len(ids_of(body)) == 4
    assert body.endswith(b"\n\n")
    assert gateway.told == ["draining 1 stream, for up to 5 s; a second signal does not wait"]


async def test_a_node_that_others_can_go_on_for_refuses_connections_and_says_that_it_is_not_ready() -> None:
    with redis_server() as redis:
        async with served(journal=redis.url) as gateway:
            line = await asyncio.open_connection(*gateway.url.removeprefix("http://").split(":"))
            line[1].write(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n")  # a request that is on its way
            async with gateway.ask() as response:
                await response.content.readuntil(b"\n\n")
                end()
                assert await gateway.refuses_connections()
                line[1].write(b"\r\n")
                answer = await asyncio.wait_for(line[0].read(), 20)
                gateway.held.go.set()
                await response.read()
            line[1].close()
    assert answer.startswith(b"HTTP/1.1 503")


async def test_a_reader_that_loses_its_line_in_a_drain_comes_back_where_no_other_node_has_the_stream() -> None:
    async with served() as gateway:
        response = await gateway.ask()
        first = await response.content.readuntil(b"\n\n")
        end()
        assert await gateway.drains()
        response.close()
        again = {"Last-Event-ID": str(ids_of(first)[0])}
        stream = response.headers["X-Holdfast-Stream"]
        async with (
            gateway.session.get(f"{gateway.url}/v1/streams/{stream}", headers=again) as reader,
            gateway.session.post(f"{gateway.url}/v1/chat/completions", json=BODY, headers=again) as other,
        ):
            gateway.held.go.set()
            rest = await reader.read()
            assert await other.read() == rest
        await asyncio.wait_for(gateway.task, 20)
    assert len(ids_of(first + rest)) == 4


async def test_a_stream_that_nobody_reads_when_a_drain_begins_waits_for_its_readers() -> None:
    async with served() as gateway:
        response = await gateway.ask()
        first = await response.content.readuntil(b"\n\n")
        response.close()
        await asyncio.sleep(0.05)
        end()
        assert await gateway.drains()
        stream = response.headers["X-Holdfast-Stream"]
        async with gateway.session.get(f"{gateway.url}/v1/streams/{stream}") as reader:
            gateway.held.go.set()
            assert (await reader.read()).startswith(first)


@pytest.mark.parametrize("journal", ["memory", "none"])
async def test_nothing_new_is_begun_in_a_drain(journal: str) -> None:
    async with served(journal=journal) as gateway, gateway.ask() as response:
        await response.content.readuntil(b"\n\n")
        end()
        assert await gateway.drains()
        chat, whole = f"{gateway.url}/v1/chat/completions", {**BODY, "stream": False}
        asks = [
            gateway.ask(),
            gateway.session.post(chat, json=whole),
            gateway.session.post(chat, json=whole, headers={"Last-Event-ID": "x"}),
            gateway.session.post(chat, json=BODY, headers={"Last-Event-ID": ""}),
            gateway.session.get(f"{gateway.url}/v1/models"),
        ]
        for ask in asks:
            async with ask as refused:
                assert refused.status == 503
                assert (await refused.json())["error"]["code"] == "shutting_down"
                assert refused.headers["Retry-After"] == "1"
                assert refused.headers["Connection"] == "close"
        async with gateway.session.get(f"{gateway.url}/healthz") as healthy:
            assert healthy.status == 200
        assert not gateway.task.done()
        gateway.held.go.set()
        await response.read()
        assert gateway.held.requests == 1


async def test_an_answer_that_is_no_stream_is_waited_for_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async def slow(request: ReceivedRequest) -> AsyncGenerator[Step, None]:
        return told()

    async def told() -> AsyncGenerator[Step, None]:
        await go.wait()
        yield Send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")

    monkeypatch.setattr("holdfast.gateway.serve._AFTERWARDS", 0.05)
    go = asyncio.Event()
    async with served(handler=slow) as gateway:
        whole = {**BODY, "stream": False}
        asked = asyncio.create_task(gateway.session.post(f"{gateway.url}/v1/chat/completions", json=whole))
        await asyncio.sleep(0.1)
        end()
        assert await gateway.drains()
        await asyncio.sleep(0.3)
        assert not gateway.task.done()
        go.set()
        assert (await asked).status == 200
        await asyncio.wait_for(gateway.task, 20)


async def test_a_node_whose_journal_is_silent_is_not_ready() -> None:
    with redis_server() as redis:
        async with served(journal=redis.url) as gateway:
            assert await gateway.ready()
            with redis.frozen():
                assert await until(gateway.says, {"status": "journal silent"})
            assert await until(gateway.says, {"status": "ok"})


async def test_without_anything_running_a_signal_ends_it_at_once() -> None:
    async with served(drain=60.0) as gateway:
        assert await gateway.ready()
        end()
        await asyncio.wait_for(gateway.task, 5)


async def test_a_second_signal_ends_what_runs_with_an_error_and_no_clean_end() -> None:
    async with served(drain=60.0) as gateway, gateway.ask() as response:
        await response.content.readuntil(b"\n\n")
        end()
        assert await gateway.drains()
        end()
        rest, whole = await rest_of(response)
        await asyncio.wait_for(gateway.task, 20)
    assert b'"shutting_down"' in rest
    assert b"[DONE]" not in rest
    assert not whole


async def test_what_takes_longer_than_the_drain_ends_with_an_error() -> None:
    async with served(drain=0.05) as gateway, gateway.ask() as response:
        await response.content.readuntil(b"\n\n")
        end()
        rest, whole = await rest_of(response)
    assert b'"shutting_down"' in rest
    assert not whole


async def test_a_stream_that_nobody_comes_back_for_holds_nobody_up() -> None:
    async with served(drain=60.0, grace=0.2) as gateway:
        response = await gateway.ask()
        await response.content.readuntil(b"\n\n")
        response.close()
        end()
        await asyncio.wait_for(gateway.task, 20)


async def test_readers_that_can_come_back_are_sent_to_other_nodes() -> None:
    with redis_server() as redis:
        async with served(journal=redis.url) as gateway, gateway.ask() as response:
            said = await response.content.readuntil(b"\n\n")
            stream = response.headers["X-Holdfast-Stream"]
            async with gateway.session.get(f"{gateway.url}/v1/streams/{stream}") as reader:
                await reader.content.readuntil(b"\n\n")
                end()
                rest, whole = await rest_of(reader)
            gateway.held.go.set()
            said += await response.read()
    assert rest == b"retry: 500\n"
    assert not whole
    assert len(ids_of(said)) == 4


async def test_tls_is_served_by_files(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with served(certificate=tmp_path / "both.pem") as gateway:
        url = gateway.url.replace("http:", "https:")
        async with gateway.session.get(f"{url}/healthz", ssl=trusting) as response:
            assert response.status == 200


def test_files_that_hold_no_tls_are_told_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("nothing")
    for name, said in (("cert.pem", "cert.pem: "), ("none.pem", "none.pem: No such file")):
        with pytest.raises(UsageError, match=said):
            context_of(Settings(certificate=tmp_path / name))


def test_a_certificate_alone_is_told_what_it_lacks(tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(tmp_path / "cert.pem")
    with pytest.raises(UsageError, match=r"private_key is missing, and .*cert\.pem holds none"):
        context_of(Settings(certificate=tmp_path / "cert.pem"))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"prices": Path("nope.toml")}, "prices cannot be read: nope.toml: No such file"),
        ({"prices": Path(__file__)}, f"prices cannot be read: {__file__}: "),
        ({"journal": "redis://:secret@host:port/0"}, "the journal's address is none of a Redis: redis://HOST:PORT/DB"),
        ({"certificate": Path("nope.pem")}, "nope.pem: No such file"),
    ],
)
def test_what_would_keep_it_from_serving_is_found_without_asking_anybody(more: dict[str, Any], said: str) -> None:
    rehearse(settings("http://127.0.0.1:1/v1", journal="redis://127.0.0.1:1/0"))
    with pytest.raises(UsageError) as caught:
        rehearse(settings("http://127.0.0.1:1/v1", **more))
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_name_that_is_none_is_told() -> None:
    with pytest.raises(OSError, match=r"nowhere\.invalid port 0") as caught:
        listen(Settings(host="nowhere.invalid", port=0))
    assert "Unknown" not in str(caught.value)


def test_a_port_that_is_taken_is_told() -> None:
    [sock] = listen(Settings(port=0))
    port = sock.getsockname()[1]
    with sock, pytest.raises(OSError, match="Address already in use") as caught:
        listen(Settings(port=port))
    assert caught.value.filename == f"127.0.0.1 port {port}"
    taken = replace(Settings(port=0), workers=2, journal="none")
    both = listen(taken)
    assert len({sock.getsockname() for sock in both}) == 1
    with pytest.raises(OSError, match="Address already in use"):
        listen(replace(taken, port=both[0].getsockname()[1]))
    for sock in both:
        sock.close()
