"""The facade without `async`: the same answers, errors and reports, from any thread."""

from __future__ import annotations

import inspect
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import holdfast
from holdfast import Concurrency, ConcurrencyLimiter, sync
from holdfast._errors import DeadlineExceeded, StreamBroken, UsageError
from holdfast._types import Partial
from holdfast.dialects import Timeouts
from holdfast.testing import ChaosServer, Schedule, in_background
from holdfast.testing import faults as f
from tests.mounts.shop import Nought

PROMPT = "why?"
REQUEST = {"model": "m", "messages": [{"role": "user", "content": PROMPT}]}


def client(server: ChaosServer, **settings: Any) -> sync.Client:
    settings = {"random": Nought(), **settings}
    return sync.Client("openai-compatible", base_url=f"{server.url}/v1", api_key="k", **settings)


def chaos(*faults: f.Fault) -> ChaosServer:
    return ChaosServer(schedule=Schedule(streams={PROMPT: faults}))


def closed(server: ChaosServer) -> bool:
    deadline = time.monotonic() + 10
    while server.server.open_connections and time.monotonic() < deadline:
        time.sleep(0.005)
    return not server.server.open_connections


def test_it_has_the_facades_names_and_keywords() -> None:
    renamed = {"aclose": "close"}
    names = {renamed.get(name, name) for name in vars(holdfast.Client) if not name.startswith("_")}
    assert names == {name for name in vars(sync.Client) if not name.startswith("_")}
    keywords = [*inspect.signature(holdfast.Client).parameters][1:]
    assert set(keywords) == sync.Settings.__optional_keys__
    asking = set(inspect.signature(holdfast.Client.stream).parameters) - {"self", "request", "keep"}
    assert asking == sync.Asking.__optional_keys__
    # Nobody else can be waiting, batches() gives what read() does, and `Client.start()` starts.
    gone = {"cancel", "read", "start"}
    names = {renamed.get(name, name) for name in vars(holdfast.Reader) if not name.startswith("_")}
    assert names - gone == {name for name in vars(sync.Reader) if not name.startswith("_")}


def test_an_answer_is_read_to_its_proven_end() -> None:
    with in_background(chaos(f.ResetMidStream())) as server, client(server) as c:
        with c.stream(REQUEST) as deltas:
            assert "".join(deltas.text()) == server.answer(PROMPT).text
            assert list(deltas) == []
        assert deltas.report.outcome == "resumed"
        assert deltas.completion.text == server.answer(PROMPT).text
        assert c.complete(REQUEST).verdict is not None
    assert closed(server)


def test_batches_and_deltas_are_the_same_ones() -> None:
    with in_background(chaos()) as server, client(server) as c:
        with c.stream(REQUEST) as deltas:
            first = next(deltas)
            rest = [delta for batch in deltas.batches() for delta in batch]
        assert "".join(delta.text for delta in (first, *rest)) == server.answer(PROMPT).text


def test_an_error_is_the_same_and_stays() -> None:
    with in_background(chaos(*[f.ResetMidStream()] * 9)) as server, client(server, max_requests=2) as c:
        with c.stream(REQUEST) as deltas:
            for _ in range(2):
                with pytest.raises(StreamBroken) as caught:
                    list(deltas)
        error = caught.value
        assert error.attempts == 2
        assert error.partial.text
        assert server.answer(PROMPT).text.startswith(error.partial.text)

        server.schedule = Schedule()
        carried = Partial.from_json(error.partial.to_json())
        with c.resume(carried) as deltas:
            list(deltas)
        assert deltas.completion.text == server.answer(PROMPT).text


def test_a_stream_that_is_left_is_closed() -> None:
    with in_background(chaos(f.StallMidStream())) as server, client(server) as c:
        with c.stream(REQUEST) as deltas:
            next(deltas)
        assert closed(server)
        assert deltas.report.outcome == "cancelled"
        with pytest.raises(UsageError, match="closed"):
            list(deltas)
        with pytest.raises(UsageError, match="enter"):
            next(c.stream(REQUEST))


@pytest.mark.parametrize("way", ["entered", "read", "started"])
def test_a_stream_that_is_forgotten_gives_its_connection_and_its_place_back(way: str) -> None:
    places = Concurrency(ConcurrencyLimiter(limit=1))
    with in_background(chaos(f.StallMidStream())) as server, client(server, traffic=[places]) as c:
        deltas = c.start(REQUEST) if way == "started" else c.stream(REQUEST).__enter__()
        if way == "read":
            next(deltas)
        with pytest.warns(ResourceWarning, match="never closed"):
            del deltas
        assert closed(server)
        with c.stream({**REQUEST, "messages": [{"role": "user", "content": "and then?"}]}) as deltas:
            assert list(deltas)


def test_a_stream_that_was_never_begun_is_forgotten_in_silence() -> None:
    with in_background(chaos()) as server, client(server) as c:
        c.stream(REQUEST)
        assert not server.server.requests


@pytest.mark.parametrize("reading", [True, False])
def test_an_interruption_cancels_what_was_waited_for(request: pytest.FixtureRequest, *, reading: bool) -> None:
    def ask(c: sync.Client) -> None:
        if not reading:
            c.complete(REQUEST)
        with c.stream(REQUEST) as deltas:
            list(deltas)

    def interrupt() -> None:
        # Not before it is waited for: what is raised where Python tidies up (an import, a weak reference) is lost.
        while not server.served:
            time.sleep(0.01)
        time.sleep(0.2)
        # To the thread that waits, and no other: one that gets it in its place would not wake it.
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    with in_background(chaos(f.StallMidStream())) as server, client(server) as c:
        interrupting = threading.Thread(target=interrupt)
        interrupting.start()
        with pytest.raises(KeyboardInterrupt):
            ask(c)
        interrupting.join()
        assert closed(server)


def test_many_threads_share_one_client() -> None:
    with in_background(ChaosServer()) as server, client(server) as c, ThreadPoolExecutor(50) as pool:
        texts = pool.map(lambda _: c.complete(REQUEST).text, range(50))
        assert set(texts) == {server.answer(PROMPT).text}


def test_clocks_run_as_ever() -> None:
    with in_background(chaos(*[f.StallMidStream()] * 9)) as server:
        with client(server, timeouts=Timeouts(progress=0.1), max_requests=1) as c, pytest.raises(DeadlineExceeded):
            c.complete(REQUEST)
        assert closed(server)


def test_a_health_check_probes_in_the_background_until_its_block_ends() -> None:
    with in_background(ChaosServer()) as one, in_background(ChaosServer()) as two:
        upstreams = [holdfast.Upstream("openai-compatible", base_url=f"{each.url}/v1") for each in (one, two)]
        with sync.Client(upstreams=upstreams) as c:
            with c.health_check(every=0.05) as check:
                deadline = time.monotonic() + 30
                while check.probes < 4 and time.monotonic() < deadline:
                    time.sleep(0.01)
            probes = check.probes
            assert probes >= 4
            time.sleep(0.15)
            assert check.probes == probes
    assert {request.path for request in one.server.requests} == {"/v1/models"}
    with sync.Client("openai", api_key="k") as c, pytest.raises(UsageError, match="clients of several upstreams"):
        c.health_check()
