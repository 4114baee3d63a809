"""Fallback before the first item: who is asked next, what is told of it, and that nothing stays open."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pybreaker
import pytest

from holdfast import AutoContinue, Buffer, Concurrency, Deadline, RateLimit, Reconnect
from holdfast._core import Call
from holdfast._errors import (
    BudgetExhausted,
    CircuitOpen,
    ConnectError,
    EndOfStream,
    StatusError,
    StreamBroken,
    StreamError,
    Truncated,
    UsageError,
)
from holdfast._pipe import Pipe
from holdfast._types import Head, Request
from holdfast.dialects import ANTHROPIC, DEEPSEEK, OPENAI
from holdfast.layers.breaker import CircuitBreaker
from holdfast.layers.fallback import Fallback
from holdfast.layers.retry import Retry
from holdfast.moments import FellBack, Moment
from holdfast.testing import FakeClock, cancel_everywhere, check_layer
from holdfast.upstreams import Upstream
from tests.puppet import Puppet, Script, Wait, drain

BODY = {"model": "m", "messages": []}


class Several:
    """A source that hands each request to the puppet of its upstream."""

    def __init__(self, **puppets: Puppet) -> None:
        self.puppets = puppets
        self.asked: list[str] = []

    async def open(self, request: Request) -> Any:
        self.asked.append(request.upstream)
        request.call.spend_request(request)
        return await self.puppets[request.upstream].open(request)

    @property
    def live(self) -> int:
        return sum(len(puppet.live) for puppet in self.puppets.values())


def upstream(name: str, **settings: Any) -> Upstream:
    settings = {"layers": (), "base_url": f"http://{name}.test", **settings}
    return Upstream("openai", name=name, **settings)


def over(*names: str, **settings: Any) -> Fallback:
    return Fallback(upstreams=[upstream(name) for name in names], **settings)


def asking(clock: FakeClock | None = None, *, moments: list[Moment] | None = None, **settings: Any) -> Request:
    call = Call(clock=clock or FakeClock(), listeners=[moments.append] if moments is not None else (), **settings)
    return Request(url="http://a.test/chat/completions", body=BODY, dialect=OPENAI, call=call)


def status(code: int, retry_after: float | None = None) -> StatusError:
    return StatusError("no", head=Head(status=code), retry_after=retry_after, retryable=code in (429, 503))


@pytest.mark.parametrize(
    "failure",
    [
        ConnectError("gone"),
        status(401),
        status(404),
        status(429),
        status(503),
        CircuitOpen("open"),
        BudgetExhausted(""),
    ],
)
@pytest.mark.parametrize("opened", [False, True])
async def test_a_failure_before_the_first_item_leads_to_the_next_at_once(failure: StreamError, *, opened: bool) -> None:
    first = Puppet([failure] if opened else failure)
    source, moments = Several(a=first, b=Puppet(["x", "y"])), list[Moment]()
    clock = FakeClock()
    stream = await over("a", "b")(source).open(asking(clock, moments=moments))
    assert await drain(stream) == ["x", "y"]
    assert source.asked == ["a", "b"]
    assert clock.now() == 0.0
    assert [(m.old, m.new, m.error, m.midstream) for m in moments if isinstance(m, FellBack)] == [
        ("a", "b", failure, False)
    ]
    await stream.aclose()
    assert source.live == 0


@pytest.mark.parametrize(("opened", "asked"), [(False, ["a", "b"]), (True, ["a"])])
async def test_what_changes_something_is_not_asked_elsewhere_once_its_head_has_come(
    *, opened: bool, asked: list[str]
) -> None:
    failure = StreamBroken("cut")
    source = Several(a=Puppet([failure] if opened else failure), b=Puppet(["x"]))
    stream = await over("a", "b")(source).open(replace(asking(), body={**BODY, "conversation": "c"}))
    if opened:
        for _ in range(2):
            with pytest.raises(StreamBroken):
                await stream.receive()
    else:
        assert await drain(stream) == ["x"]
    await stream.aclose()
    assert source.asked == asked
    assert source.live == 0


@pytest.mark.parametrize("code", [400, 413, 422])
async def test_what_is_wrong_with_the_request_is_not_sent_to_others(code: int) -> None:
    source = Several(a=Puppet(status(code)), b=Puppet(["x"]))
    with pytest.raises(StatusError):
        await over("a", "b")(source).open(asking())
    assert source.asked == ["a"]
    source = Several(a=Puppet(status(code)), b=Puppet(["x"]))
    stream = await over("a", "b", also=(code,))(source).open(asking())
    assert await drain(stream) == ["x"]
    await stream.aclose()


async def test_behind_the_first_item_it_hands_over_the_failure() -> None:
    source = Several(a=Puppet(["x", StreamBroken("cut")]), b=Puppet(["y"]))
    stream = await over("a", "b")(source).open(asking())
    assert await stream.receive() == ["x"]
    for _ in range(2):
        with pytest.raises(StreamBroken):
            await stream.receive()
    await stream.aclose()
    assert source.asked == ["a"]


@pytest.mark.parametrize(
    ("failures", "raised"),
    [
        ((status(503), status(401)), 0),  # one that may pass, so that a Retry makes another round
        ((status(401), status(503)), 1),
        ((ConnectError("1"), ConnectError("2")), 1),
        ((status(401), CircuitOpen("open")), 0),
        ((CircuitOpen("1"), CircuitOpen("2")), 1),
    ],
)
async def test_of_a_rounds_failures_the_last_that_may_pass_is_raised(
    failures: tuple[StreamError, ...], raised: int
) -> None:
    source = Several(a=Puppet(failures[0]), b=Puppet(failures[1]))
    with pytest.raises(StreamError) as caught:
        await over("a", "b")(source).open(asking())
    assert caught.value is failures[raised]
    assert source.live == 0


async def test_retry_right_of_it_makes_another_round_after_its_pause() -> None:
    async with FakeClock() as clock:
        source = Several(a=Puppet(status(503), ["x"]), b=Puppet(status(503)))
        stream = await Retry(base=2.0, jitter="full")(over("a", "b")(source)).open(asking(clock))
        assert await drain(stream) == ["x"]
        assert source.asked == ["a", "b", "a"]
        await stream.aclose()


async def test_the_calls_requests_bound_the_round() -> None:
    source = Several(a=Puppet(status(503)), b=Puppet(status(503)), c=Puppet(["x"]))
    with pytest.raises(StatusError):
        await over("a", "b", "c")(source).open(asking(max_requests=2))
    assert source.asked == ["a", "b"]


async def test_a_request_that_names_its_upstream_goes_nowhere_else() -> None:
    source = Several(a=Puppet(["x"]), b=Puppet(ConnectError("gone")))
    layer = over("a", "b")
    request = layer.upstreams[1].request(asking())
    with pytest.raises(ConnectError):
        await layer(source).open(request)
    assert source.asked == ["b"]
    with pytest.raises(UsageError, match="no upstream is called 'c'; there are a, b"):
        await layer(source).open(upstream("c").request(asking()))


async def test_who_fails_three_times_is_asked_last_until_its_time_is_over() -> None:
    async with FakeClock() as clock:
        source = Several(a=Puppet(*[ConnectError("gone")] * 3, ["x"]), b=Puppet(["y"], repeat=True))
        layer = over("a", "b", eject_after=3, eject=10.0)
        for _ in range(5):
            await (await layer(source).open(asking(clock))).aclose()
        assert source.asked == ["a", "b"] * 3 + ["b"] * 2
        await clock.sleep(10.0)
        await (await layer(source).open(asking(clock))).aclose()
        assert source.asked[-1] == "a"


async def test_breaking_in_the_middle_counts_and_being_given_up_does_not() -> None:
    source = Several(a=Puppet(["x", Truncated("")], repeat=True), b=Puppet())
    layer = over("a", "b", eject_after=2)

    async def read(batches: int) -> None:
        stream = await layer(source).open(asking())
        for _ in range(batches):
            await stream.receive()
        await stream.aclose()

    with pytest.raises(Truncated):
        await read(2)
    await read(1)
    await read(1)
    assert layer.routes.healthy(0, 0.0)
    with pytest.raises(Truncated):
        await read(2)
    assert not layer.routes.healthy(0, 0.0)


async def test_the_least_loaded_is_asked_and_a_closed_stream_is_no_load() -> None:
    source = Several(a=Puppet(["x", Wait()], repeat=True), b=Puppet(["x", Wait()], repeat=True))
    layer = over("a", "b", choose="least-loaded")
    streams = [await layer(source).open(asking()) for _ in range(4)]
    assert [layer.routes.load(place) for place in (0, 1)] == [2, 2]
    for stream in streams:
        await stream.aclose()
    assert [layer.routes.load(place) for place in (0, 1)] == [0, 0]


async def test_each_upstream_has_a_breaker_of_its_own_that_outlives_the_pipe() -> None:
    source = Several(a=Puppet(*[ConnectError("gone")] * 5), b=Puppet(["y"], repeat=True))
    layer = Fallback(upstreams=[upstream("a", layers=None), upstream("b", layers=None)], eject_after=100)
    for _ in range(7):
        await (await layer(source).open(asking())).aclose()  # a mount builds its pipe anew for each call
    assert source.asked.count("a") == 5, "then its circuit is open, and nothing is sent"


async def test_layers_of_an_upstream_are_over_that_one_alone() -> None:
    breaker = pybreaker.CircuitBreaker(fail_max=1, reset_timeout=60)
    source = Several(a=Puppet(ConnectError("gone")), b=Puppet(["y"], repeat=True))
    layer = Fallback(upstreams=[upstream("a", layers=(CircuitBreaker(breaker),)), upstream("b")])
    for _ in range(3):
        await (await layer(source).open(asking())).aclose()
    assert source.asked == ["a", "b", "b", "b"]


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (None, ["CircuitBreaker"]),
        ((), []),
        ((RateLimit(),), ["CircuitBreaker", "RateLimit"]),
        ((Deadline(open=3), Concurrency(), RateLimit()), ["Deadline", "CircuitBreaker", "Concurrency", "RateLimit"]),
        ((Deadline(open=3),), ["Deadline", "CircuitBreaker"]),
        ((RateLimit(), CircuitBreaker(pybreaker.CircuitBreaker())), ["RateLimit", "CircuitBreaker"]),
    ],
)
def test_layers_of_an_upstream_keep_the_breaker_unless_they_have_one_or_are_none(given: Any, wanted: list[str]) -> None:
    assert [type(layer).__name__ for layer in upstream("a", layers=given).own_layers()] == wanted


@pytest.mark.parametrize(
    "wrong", [Buffer(count=3), Reconnect(), AutoContinue(), Fallback(upstreams=[upstream("b")]), RateLimit, "RateLimit"]
)
def test_what_is_over_one_upstream_alone_must_be_able_to_stand_there(wrong: Any) -> None:
    with pytest.raises(UsageError, match=r"Upstream\(layers="):
        upstream("a", layers=[wrong])


def test_a_drawn_pipe_shows_what_is_over_each_upstream_with_its_warnings() -> None:
    limits = (CircuitBreaker(pybreaker.CircuitBreaker()), Retry(), RateLimit())
    layer = Fallback(upstreams=[upstream("a", layers=limits), upstream("b", layers=())])
    lines = str(Pipe(Puppet()) | layer).splitlines()
    told = [line.partition("(")[0] for line in lines]
    assert told[2:5] == ["      a", "      | CircuitBreaker", "      | Retry"]
    assert "      ! RateLimit belongs left of Retry: right of it, it sees one attempt of several" in lines
    assert lines[-1] == "      b"


# -- what goes out ---------------------------------------------------------------------------------


async def test_each_is_asked_in_its_own_words_and_with_its_own_key() -> None:
    source = Several(a=Puppet(ConnectError("gone")), b=Puppet(["y"]))
    first = Upstream("deepseek", api_key="key-a", name="a", layers=())
    second = Upstream(
        "openai",
        api_key="key-b",
        base_url="http://b.test/v1",
        model="gpt",
        name="b",
        headers={"X-Team": "b"},
        layers=(),
    )
    request = Request(
        url="https://api.deepseek.com/chat/completions",
        headers={"Authorization": "Bearer secret", "X-Api-Key": "secret", "Cookie": "c", "X-Trace": "t"},
        body={"messages": []},
        dialect=DEEPSEEK,
        call=Call(clock=FakeClock()),
    )
    stream = await Fallback(upstreams=[first, second])(source).open(request)
    await stream.aclose()
    (one,), (two,) = source.puppets["a"].requests, source.puppets["b"].requests
    assert one.url == "https://api.deepseek.com/chat/completions"
    assert one.headers == {"X-Trace": "t", "Authorization": "Bearer key-a"}
    assert one.body == {**DEEPSEEK.prepare({"messages": []})}
    assert two.url == "http://b.test/v1/chat/completions"
    assert two.headers == {"X-Trace": "t", "Authorization": "Bearer key-b", "X-Team": "b"}
    assert two.body == {**OPENAI.prepare({"messages": [], "model": "gpt"})}
    assert (two.upstream, two.dialect) == ("b", OPENAI)


def test_a_body_that_asks_for_a_stream_stays_as_it_is() -> None:
    body = {"model": "m", "stream": True}
    assert upstream("a").request(Request(body=body, dialect=OPENAI)).body is body
    assert upstream("a").request(Request(body=b"no json", dialect=OPENAI)).body == b"no json"
    with pytest.raises(UsageError, match="no JSON object"):
        upstream("a", model="n").request(Request(body=b"no json", dialect=OPENAI))


def test_a_key_stays_where_it_was_going_to() -> None:
    there = Request(url="http://a.test/chat/completions", headers={"Authorization": "Bearer mine"}, dialect=OPENAI)
    assert upstream("a").request(there).headers == {"Authorization": "Bearer mine"}
    assert upstream("b").request(there).headers == {}
    assert upstream("a", api_key="k").request(there).headers == {"Authorization": "Bearer k"}


def test_a_model_in_the_address_is_replaced_there() -> None:
    gemini = Upstream("gemini", api_key="k", model="gemini-b")
    sent = gemini.request(
        Request(url="https://x.test/v1beta/models/gemini-a:streamGenerateContent", body={}, dialect=gemini.dialect)
    )
    assert "/models/gemini-b:streamGenerateContent" in sent.url
    assert sent.body == {}
    same = Upstream("gemini", api_key="k").request(
        Request(url="https://x.test/v1beta/models/gemini-a:streamGenerateContent", body={}, dialect=gemini.dialect)
    )
    assert "/models/gemini-a:" in same.url


async def test_another_wire_needs_a_translation() -> None:
    layer = Fallback(upstreams=[upstream("a"), Upstream("anthropic", api_key="k", name="b", layers=())])
    source = Several(a=Puppet(["x"]), b=Puppet(["x"]))
    with pytest.raises(UsageError, match=r"Upstream\('anthropic'.* translate="):
        await layer(source).open(asking())
    assert source.asked == []

    def translate(body: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"max_tokens": 9, **body}

    other = Upstream("anthropic", api_key="k", name="b", model="claude", translate=translate, layers=())
    source = Several(a=Puppet(ConnectError("gone")), b=Puppet(["x"]))
    stream = await Fallback(upstreams=[upstream("a"), other])(source).open(asking())
    await stream.aclose()
    (sent,) = source.puppets["b"].requests
    assert sent.body == {"max_tokens": 9, "messages": [], "model": "claude", "stream": True}
    assert sent.headers == {"anthropic-version": "2023-06-01", "x-api-key": "k"}
    assert sent.dialect is ANTHROPIC


def test_keys_are_not_shown() -> None:
    assert repr(Upstream("openai", api_key="sk-secret", headers={"x-key": "sk-secret"}, model="m")) == (
        "Upstream('openai', base_url='https://api.openai.com/v1', model='m')"
    )
    assert "secret" not in repr(Fallback(upstreams=[Upstream("openai", api_key="secret")]))


def test_names_are_the_dialects_and_numbered() -> None:
    def named(*names: str) -> list[str]:
        return [
            one.name for one in Fallback(upstreams=[Upstream("openai", api_key="k", name=n) for n in names]).upstreams
        ]

    assert named("", "", "") == ["openai", "openai-2", "openai-3"]
    assert named("", "openai") == ["openai-2", "openai"]
    with pytest.raises(ValueError, match="names of their own"):
        named("a", "a")


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: Fallback(upstreams=[]), ValueError, "upstreams"),
        (lambda: Fallback(upstreams=["openai"]), ValueError, "upstreams"),  # type: ignore[list-item]  # what is tested
        (lambda: over("a", choose="best"), ValueError, "choose"),
        (lambda: over("a", eject=0), ValueError, "eject"),
        (lambda: upstream("a", weight=0), ValueError, "weight"),
        (lambda: upstream("a", weight=True), ValueError, "weight"),
        (lambda: upstream("a", translate="x"), UsageError, "translate"),
        (lambda: upstream("a", headers={"a": 1}), UsageError, "headers"),
        (lambda: upstream("a", base_url="ftp://x"), UsageError, "base_url"),
        (lambda: Upstream("openai-compatible"), UsageError, "base_url"),
        (lambda: Upstream("nobody"), UsageError, "nobody"),
    ],
)
def test_settings_that_cannot_be_are_refused(make: Callable[[], object], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        make()


def test_a_missing_key_is_told_where_the_upstream_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(UsageError, match=r"Upstream\('openai'\) needs api_key=, or .* OPENAI_API_KEY"):
        Upstream("openai")


# -- the contract ----------------------------------------------------------------------------------


async def test_it_keeps_the_contract_of_a_stream() -> None:
    request = Request(url="http://a.test/chat/completions", body=BODY, dialect=OPENAI)
    await check_layer(over("a"), items=["x", "y", "z"], request=request)
    await check_layer(over("a", "b"), items=["x", "y", "z"], request=request)


async def test_cancelled_anywhere_nothing_stays_open_and_no_load_is_left() -> None:
    layers: list[Fallback] = []
    sources: list[Several] = []

    async def use() -> None:
        async with FakeClock() as clock:
            layers.append(over("a", "b", "c"))
            sources.append(
                Several(
                    a=Puppet(Script(opening=(Wait(1.0), ConnectError("gone")))),
                    b=Puppet([Wait(1.0), StreamBroken("cut")]),
                    c=Puppet(Script("x", Wait(1.0), "y", opening=(Wait(1.0),))),
                )
            )
            stream = await layers[-1](sources[-1]).open(asking(clock))
            try:
                assert await drain(stream) == ["x", "y"]
            finally:
                await stream.aclose()

    def check() -> None:
        assert sources[-1].live == 0
        assert [layers[-1].routes.load(place) for place in range(3)] == [0, 0, 0]

    assert await cancel_everywhere(use, check=check) > 10


async def test_a_read_that_is_cancelled_while_it_opens_the_next_goes_on_with_it() -> None:
    arrives = asyncio.Event()
    source = Several(a=Puppet([StreamBroken("cut")]), b=Puppet(Script("x", opening=(arrives,))))
    layer = over("a", "b")
    stream = await layer(source).open(asking())
    for _ in range(3):
        reading = asyncio.ensure_future(stream.receive())
        await asyncio.sleep(0.001)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
    assert layer.routes.load(1) == 1
    arrives.set()
    assert await stream.receive() == ["x"]
    assert source.asked == ["a", "b"]
    with pytest.raises(EndOfStream):
        await stream.receive()
    assert layer.routes.load(1) == 0
    await stream.aclose()
    assert source.live == 0
