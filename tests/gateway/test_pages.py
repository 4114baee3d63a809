"""What there is to look at: who may, what a page may load, that no secret is told, and that the numbers are right."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from holdfast import configure_logs
from holdfast.cli import main
from holdfast.gateway import Settings, UpstreamSettings
from holdfast.gateway import looking as looking_on
from holdfast.gateway.settings import KeySettings, Limits
from holdfast.testing.chaos import ChaosServer
from holdfast.testing.faults import ResetMidStream
from holdfast.testing.schedule import Schedule
from holdfast.testing.server import ReceivedRequest, Reply, ScriptedServer, stream
from tests.gateway.browsing import browsing
from tests.gateway.serving import Served, serving, settings
from tests.gateway.test_server import ANSWER, BODY, ids_of

PROMPT = "the-words-of-a-prompt"
KEYS = (
    KeySettings(name="team", sha256=hashlib.sha256(b"hf-team").hexdigest()),
    KeySettings(name="watcher", sha256=hashlib.sha256(b"hf-watcher").hexdigest(), scopes=("ui",)),
)
WATCHER = {"Authorization": "Bearer hf-watcher"}
TEAM = {"Authorization": "Bearer hf-team"}
ASKED = {**BODY, "messages": [{"role": "user", "content": PROMPT}]}


async def healthy(request: ReceivedRequest) -> Reply:
    return stream(*ANSWER)


async def ask(session: aiohttp.ClientSession, served: Served, **headers: str) -> tuple[str, bytes]:
    async with session.post(f"{served.url}/v1/chat/completions", json=ASKED, headers={**TEAM, **headers}) as response:
        assert response.status == 200, await response.text()
        return response.headers.get("X-Holdfast-Stream", ""), await response.read()


async def look(session: aiohttp.ClientSession, served: Served, events: int) -> list[dict[str, Any]]:
    """Gives the first so many events that the page is told."""
    told: list[dict[str, Any]] = []
    async with session.get(f"{served.url}/ui/events", headers=WATCHER) as response:
        assert response.status == 200
        async for line in response.content:
            if line.startswith(b"data: "):
                told.append(json.loads(line[6:]))
                if len(told) == events:
                    return told
    raise AssertionError("it ended")


async def numbers(session: aiohttp.ClientSession, served: Served) -> dict[str, float]:
    async with session.get(f"{served.url}/metrics", headers=WATCHER) as response:
        assert response.status == 200
        lines = [line for line in (await response.text()).splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


async def eventually(holds: Callable[[], bool]) -> None:
    for _ in range(500):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come to that")


async def test_who_looks_needs_a_key_that_is_for_it() -> None:
    async with serving(settings("http://127.0.0.1:9/v1", keys=KEYS)) as served, aiohttp.ClientSession() as session:
        for path in ("/ui", "/ui/events", "/metrics"):
            for headers, status in (({}, 401), (TEAM, 403), ({"Authorization": "Bearer hf-other"}, 401)):
                async with session.get(served.url + path, headers=headers) as response:
                    assert (path, response.status) == (path, status)
            async with session.get(served.url + path, headers=WATCHER) as response:
                assert (path, response.status) == (path, 200)
        async with session.get(served.url + "/", allow_redirects=False) as response:
            assert response.status == 404


async def test_a_browser_trades_its_key_for_a_cookie_that_scripts_and_other_sites_have_nothing_of() -> None:
    async with serving(settings("http://127.0.0.1:9/v1", keys=KEYS)) as served, aiohttp.ClientSession() as session:
        form = f"{served.url}/ui"
        for key in ("hf-team", "hf-other", ""):
            async with session.post(form, data={"key": key}) as response:
                assert response.status == 403
                assert "Set-Cookie" not in response.headers
        async with session.post(form, data={"key": "hf-watcher"}, headers={"Sec-Fetch-Site": "cross-site"}) as response:
            assert response.status == 403
        async with session.post(form, data={"key": "x" * 5000}) as response:
            assert response.status == 413
        async with session.post(form, data={"key": "hf-watcher"}, allow_redirects=False) as response:
            assert response.status == 303
            given = response.headers["Set-Cookie"]
        cookie, *terms = given.split("; ")
        assert {"HttpOnly", "SameSite=Strict", "Path=/ui", "Max-Age=14400"} <= set(terms)
        assert "hf-watcher" not in given
        name, until, signed = cookie.removeprefix("holdfast_ui=").strip('"').split("!")
        for said, status in (
            ((name, until, signed), 200),
            (("team", until, signed), 401),
            ((name, str(int(until) + 1), signed), 401),
            ((name, "0", signed), 401),
            ((name, until, "é"), 401),
            (("nobody", until, ""), 401),
        ):
            async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as other:
                sent = {"Cookie": "holdfast_ui=" + "!".join(said)}
                async with other.get(form, headers=sent) as response:
                    assert (said, response.status) == (said, status)
                async with other.post(f"{served.url}/v1/chat/completions", json=BODY, headers=sent) as response:
                    assert response.status == 401


@pytest.mark.parametrize("form", ["application/x-www-form-urlencoded", "multipart/form-data", "x/y; charset=no"])
async def test_a_form_that_is_none_or_does_not_come_opens_nothing_and_is_not_waited_for(form: str) -> None:
    limits = Limits(body_timeout=0.05)
    async with (
        serving(settings("http://127.0.0.1:9/v1", keys=KEYS, limits=limits)) as served,
        aiohttp.ClientSession(headers={"Content-Type": form}) as session,
    ):
        for body in (b"", b"\xff\xfe=%ff", b"key=\xff%ff%00", b"key", b"&" * 4000, b'{"key":1}'):
            async with session.post(f"{served.url}/ui", data=body) as response:
                assert (body, response.status) == (body, 403)
        sent = {"Content-Length": "9"}
        async with asyncio.timeout(20), session.post(f"{served.url}/ui", data=slow(), headers=sent) as response:
            assert response.status == 408


async def slow() -> AsyncIterator[bytes]:
    yield b"key="
    await asyncio.Event().wait()


async def test_no_site_can_point_its_name_at_a_gateway_without_keys() -> None:
    async with serving(settings("http://127.0.0.1:9/v1")) as served, aiohttp.ClientSession() as session:
        for host, status in (("evil.example:80", 403), ("localhost:80", 200), ("[::1]:80", 200)):
            for path in ("/ui", "/try", "/try/about", "/metrics"):
                async with session.get(served.url + path, headers={"Host": host}) as response:
                    assert (host, path, response.status) == (host, path, status)


@pytest.mark.parametrize("name", ["ui", "try", "login"])
async def test_a_page_loads_nothing_and_runs_nothing_but_its_own(name: str) -> None:
    keys = KEYS if name == "login" else ()
    async with serving(settings("http://127.0.0.1:9/v1", keys=keys)) as served, aiohttp.ClientSession() as session:
        async with session.get(f"{served.url}/{'ui' if name == 'login' else name}") as response:
            page, headers = await response.text(), response.headers
        policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert policy["connect-src"] == "'self'"
        assert policy["frame-ancestors"] == "'none'"
        assert "unsafe" not in str(policy)
        for kind in ("script", "style"):
            for body in re.findall(rf"<{kind}>(.*?)</{kind}>", page, re.DOTALL):
                assert base64.b64encode(hashlib.sha256(body.encode()).digest()).decode() in policy[f"{kind}-src"]
        assert not re.search(
            r"(?:src|href|action)=\"(?:https?:)?//|url\(|@import|<script |<style | style=| on\w+=", page
        )
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", page)
        assert {headers["X-Content-Type-Options"], headers["Referrer-Policy"]} == {"nosniff", "no-referrer"}


async def test_the_numbers_are_those_of_what_was_served_and_nothing_secret_is_told(tmp_path: Path) -> None:
    log = tmp_path / "gateway.jsonl"
    configure_logs(log)
    try:
        async with (
            ScriptedServer(healthy) as http,
            serving(settings(f"http://127.0.0.1:{http.port}/v1", keys=KEYS)) as served,
            aiohttp.ClientSession() as session,
        ):
            streams = [await ask(session, served, **{"Idempotency-Key": "once"}) for _ in range(2)]
            streams.append(await ask(session, served))
            assert len({name for name, _ in streams}) == 2
            name, body = streams[-1]
            there = {**TEAM, "Last-Event-ID": f"{name}-1"}
            async with session.get(f"{served.url}/v1/streams/{name}", headers=there) as response:
                token = response.headers["X-Holdfast-Read-Token"]
                assert ids_of(await response.read()) == [f"{name}-{n}" for n in (3, 4, 5)]
            async with session.post(f"{served.url}/v1/chat/completions", json=BODY) as response:
                assert response.status == 401
            found = await numbers(session, served)
            [seen] = await look(session, served, 1)
    finally:
        configure_logs(level=None)
    chat = '{surface="chat"}'
    assert found[f"holdfast_gateway_opened_total{chat}"] == 2
    assert found[f"holdfast_gateway_joined_total{chat}"] == 1
    assert found[f"holdfast_gateway_read_again_total{chat}"] == 1
    assert found[f"holdfast_gateway_replayed_records_total{chat}"] == 4
    assert found[f"holdfast_gateway_records_total{chat}"] == 10
    assert found[f"holdfast_gateway_written_bytes_total{chat}"] == 2 * len(body)
    assert found['holdfast_gateway_ended_total{how="complete",surface="chat"}'] == 2
    assert found['holdfast_gateway_refused_total{reason="invalid_api_key",status="401"}'] == 1
    assert found['holdfast_streams_total{dialect="openai",model="m",outcome="complete"}'] == 2
    assert (found["holdfast_gateway_readers"], found["holdfast_gateway_streams"]) == (0, 0)
    sums = seen["sums"]
    told = [sums[one] for one in ("opened", "joined", "read_again", "records", "bytes", "whole", "failed", "refused")]
    assert told == [2, 1, 1, 10, 2 * len(body), 2, 0, 1]
    assert [one["how"] for one in seen["ended"]] == ["complete", "complete"]
    everything = json.dumps(seen) + str(found) + log.read_text("utf-8")
    for secret in (PROMPT, "hf-team", "hf-watcher", "sk-upstream", token, "three"):
        assert secret not in everything
    assert name not in json.dumps(seen)


async def test_the_log_of_a_gateway_is_read_like_any_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "gateway.jsonl"
    configure_logs(log)
    try:
        async with (
            ScriptedServer(healthy) as http,
            serving(settings(f"http://127.0.0.1:{http.port}/v1", keys=KEYS)) as served,
            aiohttp.ClientSession() as session,
        ):
            name, _ = await ask(session, served)
    finally:
        configure_logs(level=None)
    lines = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    assert {line["stream_id"] for line in lines} == {name}
    assert next(line for line in lines if line["event"] == "gateway.opened")["owner"] == "team"
    assert main(["logs", str(log)]) == 0
    shown = capsys.readouterr().out
    assert "asked at chat  team" in shown
    assert "not used" not in shown
    assert main(["logs", str(log), "--check"]) == 0


async def test_who_looks_is_told_what_moves_in_bounded_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking_on, "MOST", 3)
    monkeypatch.setattr(looking_on, "EVERY", 0.02)
    go = asyncio.Event()

    async def slow(request: ReceivedRequest) -> Reply:
        await go.wait()
        return stream(*ANSWER)

    async with (
        ScriptedServer(slow) as http,
        serving(settings(f"http://127.0.0.1:{http.port}/v1", keys=KEYS)) as served,
        aiohttp.ClientSession() as session,
    ):
        tasks = [asyncio.create_task(ask(session, served)) for _ in range(5)]
        await eventually(lambda: len(served.gateway.watch.live) == 5)
        first, *_ = await look(session, served, 2)
        assert (first["sums"]["running"], len(first["streams"])) == (5, 3)
        go.set()
        await asyncio.gather(*tasks)
        last = (await look(session, served, 1))[0]
        assert (last["sums"]["running"], last["streams"], last["sums"]["whole"]) == (0, [], 5)
        await eventually(lambda: "holdfast-looking" not in {one.get_name() for one in asyncio.all_tasks()})


async def test_what_is_kept_nowhere_is_seen_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking_on, "EVERY", 0.02)
    chaos = ChaosServer(every=0.01, sentences=2)
    async with chaos, aiohttp.ClientSession() as session:
        set_ = settings(chaos.url, keys=KEYS, journal="none")
        async with serving(set_) as served:
            asked = asyncio.create_task(ask(session, served))
            await eventually(lambda: len(served.gateway.watch.live) == 1)
            moved = [row[0] for event in await look(session, served, 12) for row in event.get("moved", {}).values()]
            assert 0 < moved[0] < moved[-1]
            await asked
            await eventually(lambda: not served.gateway.watch.live)
            last = (await look(session, served, 1))[0]
            assert ([one["how"] for one in last["ended"]], last["sums"]["running"]) == (["complete"], 0)
            found = await numbers(session, served)
            assert found['holdfast_gateway_ended_total{how="complete",surface="chat"}'] == 1


async def test_what_ended_holds_nothing_of_what_was_said() -> None:
    chaos = ChaosServer(schedule=Schedule(streams={"*": (ResetMidStream(after=30),)}))
    async with chaos, serving(settings(chaos.url)) as served, aiohttp.ClientSession() as session:
        await ask(session, served)
        await eventually(lambda: not served.gateway.watch.live)
        [(_, watched, _)] = served.gateway.watch.ended
        assert (watched.report.faults, watched.entry.body, watched.log) == ([], b"", None)
        assert len(watched.seams) == 1


async def test_who_missed_something_is_told_the_whole_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking_on, "EVERY", 0.01)
    async with serving(settings("http://127.0.0.1:9/v1")) as served:
        looking = looking_on.Looking(served.gateway, {})
        looking.enter()
        seen, told = await looking.next(0)
        assert told.startswith(b"event: all\n")
        seen, told = await looking.next(seen)
        assert told.startswith(b"event: tick\n")
        await asyncio.sleep(0.1)
        _, told = await looking.next(seen)
        assert told.startswith(b"event: all\n")
        looking.close()
        assert await looking.next(seen) == (seen, b"")
        looking.leave()


async def test_as_many_look_as_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking_on, "MAX_LOOKING", 1)
    async with (
        serving(settings("http://127.0.0.1:9/v1")) as served,
        aiohttp.ClientSession() as session,
        session.get(f"{served.url}/ui/events") as first,
        session.get(f"{served.url}/ui/events") as second,
    ):
        assert first.status == 200
        assert (second.status, second.headers["Retry-After"]) == (503, "5")


CUT_OFF = """[...document.querySelectorAll("body, .tile p, .tile b, #streams > li, #streams p")]
    .filter((one) => one.scrollWidth > one.clientWidth + 1 || one.scrollHeight > one.clientHeight + 2)
    .map((one) => one.textContent)"""
"""What on the page is larger than the room that it has."""


async def test_a_browser_sees_a_stream_move_and_gets_one_back_that_it_cut() -> None:
    chaos = ChaosServer(schedule=Schedule(streams={"*": (ResetMidStream(after=30),)}), every=0.01)
    async with chaos:
        upstream = UpstreamSettings(dialect="openai", base_url=chaos.url, api_key="demo", name="demo-openai")
        async with serving(Settings(upstreams=(upstream,))) as served, browsing() as tab:
            await tab.open(f"{served.url}/")
            await tab.until("document.body.dataset.ready")
            await tab.run("document.getElementById('ask').click()")
            for come in (10, 40):  # once from the fetch(), and once from an EventSource
                await tab.until(f"run.events > {come} && !document.getElementById('cut').disabled")
                await tab.run("document.getElementById('cut').click()")
            proof = "document.getElementById('proof').textContent"
            assert "the same" in await tab.until(f"{proof} !== 'at the end' && {proof}")
            assert await tab.run("[run.cuts, run.twice]") == [2, 0]
            text = await tab.run("run.text")
            await tab.reload()
            assert "the same" in await tab.until(f"{proof} !== 'at the end' && {proof}")
            assert await tab.run("run.text") == text
            assert await tab.run("[run.cuts, document.querySelectorAll('#answer i').length]") == [2, 2]
            assert await tab.run("document.getElementById('more').textContent") == "after 2 cuts"
            await tab.open(f"{served.url}/ui")
            await tab.until("document.getElementById('state').textContent === 'live'")
            await tab.until("document.querySelector('#streams .empty code')")
            for width in (1280, 1000, 400):
                size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
                await tab.command("Emulation.setDeviceMetricsOverride", **size)
                assert await tab.run(CUT_OFF) == []
            assert await tab.run("document.getElementById('seams').textContent") == "1"
            async with aiohttp.ClientSession() as session:
                asked = asyncio.create_task(ask(session, served))
                await tab.until("streams.size && [...streams.values()][0].now[0] > 20")
                assert await tab.run("document.getElementById('running').textContent") == "1"
                await asked
            assert tab.said == []
