"""A plain requests session over the adapter, on real sockets: whole streams, and everything else as it was."""

from __future__ import annotations

import gc
import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from requests import exceptions as theirs
from urllib3.util.retry import Retry as Urllib3Retry

from holdfast import mounts
from holdfast._errors import ConnectError, DeadlineExceeded, StreamBroken
from holdfast.dialects import Timeouts
from holdfast.layers.retry import Retry
from holdfast.mounts.requests import RequestsAdapter
from holdfast.testing import ChaosServer, Schedule, in_background
from holdfast.testing import faults as f
from holdfast.testing.server import (
    STREAM_HEAD,
    ReceivedRequest,
    Reset,
    ScriptedServer,
    Send,
    Stall,
    Step,
    chunked,
    head,
    respond,
    sse,
)
from tests.mounts.shop import BODY, CHAT, EVENTS, TEXT, WHOLE, WIRE, Nought, begun, healthy, text_of

Made = Callable[..., requests.Session]
AT_ONCE = Timeouts(open=2, first_token=2, progress=1)


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def session() -> Iterator[Made]:
    """Makes a session over a mount that never waits between its tries."""
    made: list[requests.Session] = []

    def make(**settings: Any) -> requests.Session:
        s = requests.Session()
        s.mount("http://", RequestsAdapter(**{"random": Nought(), **settings}))
        made.append(s)
        return s

    yield make
    for s in made:
        s.close()
    gc.collect()
    until(lambda: not workers())
    assert not workers()


def workers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "holdfast-worker"]


def until(done: Callable[[], bool], within: float = 10.0) -> bool:
    end = time.monotonic() + within
    while not done() and time.monotonic() < end:
        time.sleep(0.01)
    return done()


def post(s: requests.Session, server: ScriptedServer, **settings: Any) -> requests.Response:
    return s.post(f"{server.url}{CHAT}", **{"json": BODY, "stream": True, **settings})


def ask(s: requests.Session, server: ScriptedServer, **settings: Any) -> bytes:
    with post(s, server, **settings) as response:
        return b"".join(response.iter_content(None))


# -- streams ---------------------------------------------------------------------------------------

WAYS: dict[str, Callable[[requests.Response], bytes]] = {
    "pieces": lambda r: b"".join(r.iter_content(None)),
    "sized pieces": lambda r: b"".join(r.iter_content(7)),
    "lines": lambda r: b"".join(line + b"\n" for line in r.iter_lines()),
    "content": lambda r: r.content,
    "text": lambda r: r.content if r.text else b"",
    "raw": lambda r: bytes(r.raw.read()),
    "raw sized": lambda r: b"".join(iter(lambda: r.raw.read(11), b"")),
    "raw lines": lambda r: b"".join(iter(r.raw.readline, b"")),
    "raw stream": lambda r: b"".join(r.raw.stream(1024, decode_content=True)),
    "raw iterated": lambda r: b"".join(r.raw),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_healthy_stream_passes_to_the_byte(session: Made, way: str) -> None:
    events = [*EVENTS[:2], b": a comment\n\n", b":\n", *EVENTS[2:]]
    with in_background(ScriptedServer([healthy(events)])) as server:
        s = session()
        with post(s, server) as response:
            data = WAYS[way](response)
            assert response.raw.read(1) == b""
        again = ask(s, server)
        told = mounts.report(response)
        assert data == again == b"".join(events)
        assert (response.status_code, response.headers["content-type"]) == (200, "text/event-stream")
        assert told is not None
        assert (told.outcome, told.attempts) == ("complete", 1)
        assert server.accepted == 1  # the connection went back to the pool


def test_who_does_not_stream_gets_it_whole(session: Made) -> None:
    with in_background(ScriptedServer([begun(Reset()), healthy()])) as server:
        assert text_of(post(session(), server, stream=False).content) == TEXT


@pytest.mark.parametrize("read", ["iter_content", "iter_lines", "read1"])
def test_an_event_is_not_held_for_the_next(session: Made, read: str) -> None:
    with (
        in_background(ScriptedServer([begun(Stall(), events=[EVENTS[0]])])) as server,
        post(session(), server) as response,
    ):
        if read == "iter_lines":
            assert next(response.iter_lines()) == EVENTS[0].rstrip()
        elif read == "read1":
            assert response.raw.read1() == EVENTS[0]
        else:
            assert next(response.iter_content(1024)) == EVENTS[0]


@pytest.mark.parametrize("fault", f.EVIDENT, ids=str)
def test_every_evident_fault_is_mended(session: Made, fault: f.Fault) -> None:
    schedule = Schedule(streams={"kelp": [fault]})
    body: Any = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "kelp"}]}
    with in_background(ChaosServer(schedule=schedule, sentences=2)) as server:
        s = session(timeouts=AT_ONCE)
        with s.post(f"{server.url}{CHAT}", json=body, stream=True, timeout=30) as response:
            data = b"".join(response.iter_content(None))
        s.close()
        assert text_of(data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")) == server.answer("kelp").text
        assert len(server.served) <= 2


def test_ids_are_resumed_at_the_last_one(session: Made) -> None:
    events = [sse(event.decode()[6:-2], id=str(number)) for number, event in enumerate(EVENTS, 1)]
    with in_background(ScriptedServer([begun(Reset(), events=events[:4]), healthy(events[4:])])) as server:
        assert ask(session(), server) == b"".join(events)
        assert server.requests[1].headers["last-event-id"] == "4"


def test_a_model_continues_its_own_words_where_that_is_allowed(session: Made) -> None:
    schedule = Schedule(streams={"kelp": [f.ResetMidStream(after=60)]})
    body: Any = {**BODY, "messages": [{"role": "user", "content": "kelp"}]}
    with in_background(ChaosServer(schedule=schedule, mode="prefix")) as server:
        s = session(dialect="deepseek", seams=True)
        with s.post(f"{server.url}/chat/completions", json=body, stream=True) as response:
            assert text_of(response.content)
        assert server.served[-1].rung == "prefix"
        sent = server.server.requests[-1]
        assert sent.json()["messages"][-1]["prefix"] is True
        assert int(sent.headers["content-length"]) == len(sent.body)


def test_what_cannot_be_saved_is_an_error_of_requests(session: Made) -> None:
    with in_background(ScriptedServer([begun(Reset())])) as server, post(session(max_requests=3), server) as response:
        heard: list[bytes] = []
        with pytest.raises(theirs.ChunkedEncodingError) as lost:
            heard.extend(response.iter_content(None))
        with pytest.raises(theirs.ChunkedEncodingError):
            response.raw.read()
        assert until(lambda: server.open_connections == 0)
        assert len(server.requests) == 3
    assert isinstance(lost.value.__cause__, StreamBroken)
    assert "delivered before: 5 deltas" in str(lost.value)
    assert "3 requests" in str(lost.value)
    assert "secret" not in str(lost.value)


def test_a_clock_that_runs_out_is_a_connection_error(session: Made) -> None:
    with in_background(ScriptedServer([begun(Stall())])) as server:
        with pytest.raises(theirs.ConnectionError) as lost:
            ask(session(timeouts=AT_ONCE, max_requests=2), server)
        assert until(lambda: server.open_connections == 0)
    assert isinstance(lost.value.__cause__, DeadlineExceeded)


def test_a_read_timeout_of_the_callers_is_a_stall_that_is_mended(session: Made) -> None:
    with in_background(ScriptedServer([begun(Stall()), healthy()])) as server:
        assert text_of(ask(session(), server, timeout=1)) == TEXT
        assert len(server.requests) == 2


# -- what is no stream -----------------------------------------------------------------------------


def test_json_passes_untouched(session: Made) -> None:
    with in_background(ScriptedServer([respond(b'{"a": 1}', content_type="application/json")])) as server:
        s = session()
        for response in (s.get(f"{server.url}/v1/models"), s.post(f"{server.url}/v1/embeddings", json={"input": "x"})):
            assert response.json() == {"a": 1}
            assert response.headers["Content-Length"] == "8"
            assert mounts.report(response) is None
        assert server.accepted == 1


def test_a_refusal_that_stays_is_the_servers_own(session: Made) -> None:
    body = gzip.compress(b'{"error": {"message": "slow down", "code": "rate_limit"}}')
    script = respond(body, status=429, retry_after=0, content_type="application/json", content_encoding="gzip")
    with in_background(ScriptedServer([script])) as server:
        for stream in (False, True):
            response = post(session(), server, stream=stream)
            assert response.status_code == 429
            assert response.json()["error"]["code"] == "rate_limit"
            told = mounts.report(response)
            assert told is not None
            assert told.attempts == 4
        with pytest.raises(theirs.HTTPError):
            response.raise_for_status()
        assert len(server.requests) == 8


@pytest.mark.parametrize("status", [400, 401, 404])
def test_a_refusal_on_its_merits_is_sent_once(session: Made, status: int) -> None:
    body = bytes(range(256)) * 1024
    with in_background(ScriptedServer([respond(body, status=status)])) as server:
        response = post(session(), server)
        assert (response.status_code, response.content) == (status, body)
        assert len(server.requests) == 1


@pytest.mark.parametrize(("method", "sent"), [("GET", 3), ("PUT", 3), ("DELETE", 3), ("POST", 1), ("PATCH", 1)])
def test_only_what_may_be_repeated_is(session: Made, method: str, sent: int) -> None:
    script: list[list[Step]] = [respond(b"busy", status=503), [Reset()], respond(b"done")]
    with in_background(ScriptedServer(script)) as server:
        response = session().request(method, server.url, data=b"x")
        assert response.content == (b"done" if sent == 3 else b"busy")
        assert len(server.requests) == sent


def test_a_streamed_upload_is_sent_once(session: Made) -> None:
    with in_background(ScriptedServer([begun(Reset())])) as server:
        with pytest.raises(theirs.ChunkedEncodingError):
            ask(session(), server, json=None, data=iter([b'{"stream": true}']))
        assert len(server.requests) == 1


def test_who_cannot_connect_learns_it_as_without_a_mount(session: Made) -> None:
    s = session(layers=[*WHOLE, Retry(attempts=2)])
    with pytest.raises(theirs.ConnectionError) as refused:
        s.get("http://127.0.0.1:9")
    assert isinstance(refused.value.__cause__, ConnectError)
    with pytest.raises(theirs.MissingSchema):
        s.get("127.0.0.1")
    with pytest.raises(theirs.ConnectionError):
        session(random=Nought(), max_requests=2).request(
            "POST", "http://127.0.0.1:9", json=dict[str, Any](BODY), stream=True
        )


def test_a_coded_body_reads_as_without_a_mount(session: Made) -> None:
    packed = gzip.compress(WIRE)
    script = [
        Send(head(content_type="text/event-stream", content_encoding="gzip", content_length=len(packed)) + packed)
    ]
    with in_background(ScriptedServer([script])) as server:
        assert ask(session(), server) == WIRE
        assert server.requests[0].headers["accept-encoding"] == "identity"


def test_cookies_and_auth_work_over_a_stream(session: Made) -> None:
    first = head(content_type="text/event-stream", transfer_encoding="chunked", set_cookie="tide=high")
    with in_background(ScriptedServer([[Send(first), *healthy()[1:]]])) as server:
        s = session()
        ask(s, server, auth=("kelp", "holds"))
        assert s.cookies["tide"] == "high"
        assert server.requests[0].headers["authorization"].startswith("Basic ")


# -- closing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["close", "with", "break", "del"])
def test_closing_early_closes_the_connection_at_once(session: Made, how: str) -> None:
    with in_background(ScriptedServer([begun(Stall())])) as server:
        s = session()
        response = post(s, server)
        for _ in response.iter_content(None):
            break
        if how == "close":
            response.close()
            with pytest.raises(theirs.ConnectionError, match="closed"):
                response.raw.read()
        elif how == "with":
            with response:
                pass
        else:
            del response
            gc.collect()
        assert until(lambda: server.open_connections == 0)


def test_a_reader_that_waits_is_told_that_the_response_was_closed(session: Made) -> None:
    with in_background(ScriptedServer([begun(Stall())])) as server, ThreadPoolExecutor(1) as pool:
        response = post(session(), server)
        reading = pool.submit(lambda: b"".join(response.iter_content(None)))
        time.sleep(0.1)
        response.close()
        with pytest.raises(theirs.ConnectionError, match="closed"):
            reading.result(30)
        assert until(lambda: server.open_connections == 0)


# -- many at once ----------------------------------------------------------------------------------


def test_a_hundred_streams_through_one_session(session: Made) -> None:
    counts: dict[str, int] = {}

    def reply(request: ReceivedRequest) -> list[Step]:
        name = json.loads(request.body)["user"]
        counts[name] = counts.get(name, 0) + 1
        return begun(Reset(), events=EVENTS[:4]) if int(name) % 3 == 0 and counts[name] == 1 else healthy()

    with in_background(ScriptedServer(reply)) as server:
        s = session(adapter={"pool_maxsize": 100})

        def one(number: int) -> str:
            with post(s, server, json={**BODY, "user": str(number)}) as response:
                return text_of(b"".join(response.iter_content(None)))

        with ThreadPoolExecutor(100) as pool:
            assert set(pool.map(one, range(100))) == {TEXT}
        assert len(server.requests) == 134
        assert server.accepted <= 134


def test_who_reads_slowly_holds_the_server_back(session: Made) -> None:
    sent = 0

    async def flood(request: ReceivedRequest) -> Any:
        async def steps() -> Any:
            nonlocal sent
            yield Send(STREAM_HEAD)
            for _ in range(4_000):
                sent += 1
                yield Send(chunked(b": " + b"x" * 20_000 + b"\n\n"))

        return steps()

    with in_background(ScriptedServer(flood)) as server, post(session(), server) as response:
        next(response.iter_content(None))
        time.sleep(0.3)
        assert sent < 2_000


def test_a_session_can_be_pickled() -> None:
    import pickle  # noqa: PLC0415 - for this test alone

    s = requests.Session()
    s.mount("http://", RequestsAdapter(dialect="deepseek"))
    again = pickle.loads(pickle.dumps(s))
    assert isinstance(again.get_adapter("http://x"), RequestsAdapter)


URLLIB3: dict[str, tuple[list[Step], dict[str, Any]]] = {
    "refused": (respond(b"busy", status=503), {"raise_on_status": False}),
    "refused, and raised": (respond(b"busy", status=503), {}),
    "no head": ([Reset()], {}),
}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("fault", URLLIB3)
def test_tries_of_urllib3s_own_are_not_multiplied(session: Made, fault: str, *, stream: bool) -> None:
    script, more = URLLIB3[fault]
    tries = Urllib3Retry(2, status_forcelist=[503], allowed_methods=None, backoff_factor=0, **more)
    with in_background(ScriptedServer([script])) as server:
        s = session(adapter={"max_retries": tries})
        try:
            response = post(s, server) if stream else s.get(f"{server.url}/v1/models")
        except requests.ConnectionError:
            assert fault == "no head"
        except requests.exceptions.RetryError:
            assert fault == "refused, and raised"
        else:
            assert (response.status_code, response.content) == (503, b"busy")
        assert len(server.requests) == 3


def test_what_urllib3_does_not_try_again_is_tried_by_the_mount(session: Made) -> None:
    with in_background(ScriptedServer([[Reset()], healthy()])) as server:
        s = session(adapter={"max_retries": 2})  # of idempotent methods alone
        assert text_of(ask(s, server)) == TEXT
        assert len(server.requests) == 2
