"""Who comes in at the gateway's door, and which streams are whose: over TCP, as a stranger would try it."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import make_mocked_request

from holdfast.gateway.door import TOKEN_SECONDS, Door, digest_of, new_key
from holdfast.gateway.journal import Entry
from holdfast.gateway.settings import KeySettings, Settings, UpstreamSettings
from holdfast.testing.clock import FakeClock
from holdfast.testing.server import ReceivedRequest, Reply, ScriptedServer, respond, sse, stream
from tests.gateway.serving import Served, serving

ALICE, BOB, LOOKER = "hf-alice-0123456789", "hf-bob-0123456789", "hf-looker-0123456789"
CANARY = "sk-canary-upstream-key-0123456789"
PROMPT = "the secret prompt of a client"
BODY = {"model": "m", "messages": [{"role": "user", "content": PROMPT}], "stream": True}
ANSWER = [
    sse('{"id":"c","choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":"stop"}]}'),
    sse("[DONE]"),
]


def key(name: str, secret: str, **more: Any) -> KeySettings:
    return KeySettings(name=name, sha256=digest_of(secret), **more)


KEYS = (key("alice", ALICE), key("bob", BOB), key("looker", LOOKER, scopes=("ui",)))


@asynccontextmanager
async def gateway(
    reply: Reply | None = None, **more: Any
) -> AsyncIterator[tuple[Served, aiohttp.ClientSession, list[ReceivedRequest]]]:
    seen: list[ReceivedRequest] = []

    async def upstream(request: ReceivedRequest) -> Reply:
        seen.append(request)
        return stream(*ANSWER) if reply is None else reply

    more = {"keys": KEYS, **more}

    def upstream_at(port: int) -> UpstreamSettings:
        return UpstreamSettings(dialect="openai", base_url=f"http://127.0.0.1:{port}/v1", api_key=CANARY)

    async with (
        ScriptedServer(upstream) as http,
        serving(Settings(upstreams=(upstream_at(http.port),), **more)) as served,
        aiohttp.ClientSession(served.url) as session,
    ):
        yield served, session, seen


def bearer(secret: str, **more: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}", **more}


async def opened(session: aiohttp.ClientSession, secret: str, **more: str) -> tuple[str, str]:
    """Opens a stream and reads it. Gives its name and its token."""
    async with session.post("/v1/chat/completions", json=BODY, headers=bearer(secret, **more)) as response:
        assert response.status == 200, await response.text()
        assert b"[DONE]" in await response.read()
        return response.headers["X-Holdfast-Stream"], response.headers["X-Holdfast-Read-Token"]


# -- keys ------------------------------------------------------------------------------------------


def test_a_new_key_cannot_be_guessed_and_is_kept_as_a_digest() -> None:
    one, other = new_key(), new_key()
    assert one != other
    assert one.startswith("hf-")
    assert len(one) >= 46  # 256 bits in base64
    assert digest_of(one) == hashlib.sha256(one.encode()).hexdigest()
    assert one not in repr(KeySettings(name="n", sha256=digest_of(one)))


@pytest.mark.parametrize(
    "headers",
    [{"Authorization": f"bearer {ALICE}"}, {"x-api-key": ALICE}, {"api-key": ALICE}, {"x-goog-api-key": ALICE}],
)
def test_a_key_is_found_where_clients_of_any_dialect_put_it(headers: dict[str, str]) -> None:
    guest = Door(Settings(keys=KEYS)).guest(make_mocked_request("POST", "/v1/messages", headers=headers))
    assert guest is not None
    assert guest.name == "alice"


def test_a_key_in_the_address_is_one_where_googles_clients_write_it_and_nowhere_else() -> None:
    door = Door(Settings(keys=KEYS))
    assert door.guest(make_mocked_request("POST", f"/v1beta/models/m:generateContent?key={ALICE}")) is not None
    assert door.guest(make_mocked_request("POST", f"/v1/chat/completions?key={ALICE}")) is None


@pytest.mark.parametrize("given", ["Bearer", "Bearer ", "Bearer hf-nobody", f"Basic {ALICE}", f"Bearer {ALICE}x"])
async def test_who_has_no_key_is_refused_before_anything_is_sent(given: str) -> None:
    async with gateway() as (_, session, seen):
        async with session.post("/v1/chat/completions", json=BODY, headers={"Authorization": given}) as response:
            assert response.status == 401
            assert (await response.json())["error"]["code"] == "invalid_api_key"
        for path in ("/v1/models", f"/v1/streams/{'0' * 32}", "/v1/files"):
            async with session.get(path, headers={"Authorization": given}) as response:
                assert response.status == 401, path
        assert not seen


async def test_a_digest_is_not_a_key() -> None:
    headers = bearer(digest_of(ALICE))
    async with gateway() as (_, session, _seen), session.post("/v1/messages", json=BODY, headers=headers) as response:
        assert response.status == 401


async def test_a_key_does_what_its_scopes_say_and_asks_for_its_models_alone() -> None:
    keys = (*KEYS, key("small", "hf-small-0123456789", models=("small-*",)))
    async with gateway(keys=keys) as (_, session, seen):
        async with session.post("/v1/chat/completions", json=BODY, headers=bearer(LOOKER)) as response:
            assert response.status == 403
        async with session.post("/v1/chat/completions", json=BODY, headers=bearer("hf-small-0123456789")) as response:
            assert response.status == 403
            assert (await response.json())["error"]["code"] == "model_not_allowed"
        assert not seen
        small = {**BODY, "model": "small-1"}
        async with session.post("/v1/chat/completions", json=small, headers=bearer("hf-small-0123456789")) as response:
            assert response.status == 200


async def test_nothing_that_let_a_client_in_goes_upstream() -> None:
    headers = bearer(ALICE, Cookie=f"session={ALICE}", **{"x-api-key": ALICE, "OpenAI-Organization": "org-client"})
    async with gateway() as (_, session, seen):
        async with session.post(f"/v1/chat/completions?token={ALICE}&key={ALICE}", json=BODY, headers=headers) as one:
            assert one.status == 200
        (request,) = seen
        assert request.headers["authorization"] == f"Bearer {CANARY}"
        assert ALICE not in request.path
        assert ALICE not in repr(request.headers)
        assert not {"cookie", "openai-organization", "x-api-key"} & {name.lower() for name in request.headers}


# -- whose stream ----------------------------------------------------------------------------------


async def test_a_foreign_stream_answers_as_one_that_there_is_not() -> None:
    async with gateway() as (_, session, _seen):
        name, _token = await opened(session, ALICE)
        told = set()
        for stream_ in (name, "f" * 32):
            for secret in (BOB,):
                for method, path, more in (
                    ("GET", f"/v1/streams/{stream_}", {}),
                    ("GET", f"/v1/streams/{stream_}", {"Last-Event-ID": f"{stream_}-1"}),
                    ("DELETE", f"/v1/streams/{stream_}", {}),
                ):
                    async with session.request(method, path, headers=bearer(secret, **more)) as response:
                        headers = {k: v for k, v in response.headers.items() if k != "Date"}
                        told.add((response.status, await response.read(), tuple(sorted(headers.items()))))
                again = bearer(secret, **{"Last-Event-ID": f"{stream_}-1"})
                async with session.post("/v1/chat/completions", json=BODY, headers=again) as response:
                    headers = {k: v for k, v in response.headers.items() if k != "Date"}
                    told.add((response.status, await response.read(), tuple(sorted(headers.items()))))
        assert len(told) == 1
        assert {status for status, *_ in told} == {404}
        async with session.get(f"/v1/streams/{name}", headers=bearer(ALICE)) as response:
            assert response.status == 200


async def test_two_keys_may_use_the_same_idempotency_key() -> None:
    async with gateway() as (_, session, seen):
        names = {(await opened(session, secret, **{"Idempotency-Key": "one"}))[0] for secret in (ALICE, BOB, ALICE)}
        assert len(names) == 2
        assert len(seen) == 2


# -- tokens ----------------------------------------------------------------------------------------


async def test_a_token_reads_its_stream_and_nothing_else() -> None:
    async with gateway() as (_, session, _seen):
        name, token = await opened(session, ALICE)
        other, _ = await opened(session, ALICE)
        async with session.get(f"/v1/streams/{name}?token={token}") as response:
            assert response.status == 200
            assert b"[DONE]" in await response.read()
        for method, path, status in (
            ("GET", f"/v1/streams/{other}?token={token}", 401),  # another stream, of the same key
            ("DELETE", f"/v1/streams/{name}?token={token}", 401),
            ("HEAD", f"/v1/streams/{name}?token={token}", 401),
            ("POST", f"/v1/chat/completions?token={token}", 401),
            ("GET", f"/v1/models?token={token}", 401),
        ):
            async with session.request(method, path) as response:
                assert response.status == status, (method, path)
        async with session.get(f"/v1/streams/{name}?token={token}", headers=bearer(BOB)) as response:
            assert response.status == 200  # the token is enough


def entry(owner: str = "alice", name: str = "a" * 32) -> Entry:
    return Entry(stream=name, owner=owner, surface="chat", url="", headers={}, body=b"", digest="")


def may_read(door: Door, token: str, one: Entry, method: str = "GET") -> bool:
    return door.may_read(make_mocked_request(method, f"/v1/streams/{one.stream}?token={token}"), one)


async def test_a_token_ends_and_cannot_be_made_to_last(clock: FakeClock) -> None:
    door = Door(Settings(keys=KEYS, secret="s"), clock=clock)
    token = door.token(entry())
    until, _, signed = token.partition(".")
    assert may_read(door, token, entry())
    assert not may_read(door, f"{int(until) + 1}.{signed}", entry())
    await clock.advance(TOKEN_SECONDS - 1)
    assert may_read(door, token, entry())
    await clock.advance(2)
    assert not may_read(door, token, entry())
    assert datetime.fromtimestamp(int(until), UTC) - clock.wall() > timedelta(seconds=-3)


@pytest.mark.parametrize(
    "token", ["", ".", "1", "9999999999.", "9999999999.00", "9999999999.%C3%A9", "-1.00", "%D9%A1.0"]
)
def test_what_is_no_token_is_none(token: str) -> None:
    assert not may_read(Door(Settings(keys=KEYS, secret="s")), token, entry())


def test_a_token_is_of_one_key_and_one_secret() -> None:
    door = Door(Settings(keys=KEYS, secret="s"))
    token = door.token(entry())
    assert may_read(Door(Settings(keys=KEYS, secret="s")), token, entry()), "another node with the same secret"
    assert not may_read(Door(Settings(keys=KEYS, secret="other")), token, entry())
    assert not may_read(door, token, entry("bob"))
    assert not may_read(door, token, entry(name="b" * 32))
    assert not may_read(Door(Settings(keys=KEYS[1:], secret="s")), token, entry()), "the key is gone"
    changed = (key("alice", "hf-alice-another-one"),)
    assert not may_read(Door(Settings(keys=changed, secret="s")), token, entry()), "the key was changed"
    assert not may_read(door, door.token(entry("")), entry("")), "opened when there were no keys yet"
    shared = Door(Settings(keys=KEYS))
    shared.sign_with("s")
    assert may_read(shared, token, entry()), "a secret out of the journal"


# -- what leaves -----------------------------------------------------------------------------------

QUOTING = f'{{"error":{{"message":"Incorrect key {CANARY}, sent as Bearer {CANARY}","code":"invalid_api_key"}}}}'
FAILURES: dict[str, Reply] = {
    "an answer": stream(*ANSWER),
    "401": respond(QUOTING.encode(), 401, Content_Type="application/json"),
    "400": respond(QUOTING.encode(), 400, Content_Type="application/json", X_Request_Id=CANARY),
    "500": respond(QUOTING.encode(), 500, Content_Type="text/plain"),
    "an error as the first event": stream(sse(QUOTING)),
    "an error in the middle": stream(ANSWER[0], sse(QUOTING)),
    "no stream": respond(QUOTING.encode(), 200, Content_Type="text/html"),
    "a redirect": respond(b"", 302, Location=f"http://127.0.0.1:9/{CANARY}"),
}


@pytest.mark.parametrize("what", FAILURES)
async def test_no_key_and_no_prompt_is_told_or_logged(
    what: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    told: list[bytes] = []
    async with gateway(FAILURES[what]) as (served, session, _seen):
        bodies = (BODY, {**BODY, "stream": False})
        for path, body in [
            *(("/v1/chat/completions", one) for one in bodies),
            *(("/v1/responses", {"model": "m", "input": PROMPT, "stream": one["stream"]}) for one in bodies),
        ]:
            try:
                async with session.post(f"{path}?key={BOB}", json=body, headers=bearer(ALICE)) as response:
                    told += [repr(response.headers).encode(), await response.read()]
                    token = response.headers.get("X-Holdfast-Read-Token", "none")
                    name = response.headers.get("X-Holdfast-Stream", "0" * 32)
                async with session.get(f"/v1/streams/{name}?token={token}") as response:
                    told += [repr(response.headers).encode(), await response.read()]
            except aiohttp.ClientPayloadError:
                pass  # a stream that broke is cut
        for path in ("/metrics", "/ui", "/readyz", "/healthz", "/v1/models", "/nothing"):
            async with session.get(path, headers=bearer(LOOKER)) as response:
                told += [repr(response.headers).encode(), await response.read()]
            async with session.get(path, headers=bearer(ALICE)) as response:
                told += [repr(response.headers).encode(), await response.read()]
        assert CANARY not in repr(served.gateway.settings)
    logged = caplog.text + "".join(capfd.readouterr())
    assert not [one for one in told if CANARY.encode() in one]
    for secret in (CANARY, ALICE, BOB, LOOKER, PROMPT, token if token != "none" else CANARY):
        assert secret not in logged, f"{what}: a secret was logged"
