"""What a configuration file may say, and what is said of one that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast._errors import UsageError
from holdfast.gateway.config import check, environment_upstreams, is_loopback, key_variables, parse
from holdfast.gateway.settings import BreakerSettings, HedgeSettings, KeySettings, Settings, UpstreamSettings
from holdfast.gateway.toml_lines import line_at, lines_of

HASH = "ab" * 32
ENVIRONMENT = {"MY_KEY": "sk-mine", "REDIS_URL": "redis://:pw@cache/0"}


KEY = f"[[keys]]\nname = 'phone'\nsha256 = '{HASH}'"
UPSTREAM = "[[upstreams]]\ndialect = 'ollama'\nname = 'a'"


def read(text: str, folder: Path = Path()) -> Settings:
    return parse(text.encode(), "gateway.toml", ENVIRONMENT, folder=folder)


def wrong(text: str, folder: Path = Path()) -> list[str]:
    with pytest.raises(UsageError) as caught:
        read(text, folder)
    return str(caught.value).splitlines()


def test_a_file_becomes_settings(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-of-a-file\n")
    settings = read(
        f"""
        port = 9000
        journal_env = "REDIS_URL"
        workers = 4
        choose = "weighted"
        certificate = "tls/chain.pem"
        hedge = {{ delay = 2 }}

        [limits]
        max_streams = 10

        [[upstreams]]
        dialect = "openai"
        api_key_env = "MY_KEY"
        models = ["gpt-*"]
        breaker.failures = 3
        [upstreams.timeouts]
        first_token = 20
        [upstreams.headers]
        "X-Team" = "blue"

        [[upstreams]]
        dialect = "vllm"
        base_url = "http://gpu:8000/v1"
        api_key_file = "key"

        [[keys]]
        name = "phone"
        sha256 = "{HASH}"
        """,
        tmp_path,
    )
    first, second = settings.upstreams
    assert (settings.port, settings.journal, settings.workers) == (9000, "redis://:pw@cache/0", 4)
    assert (settings.choose, settings.certificate) == ("weighted", tmp_path / "tls/chain.pem")
    assert settings.hedge == HedgeSettings(delay=2)
    assert settings.limits.max_streams == 10
    assert (first.api_key, first.models, first.headers) == ("sk-mine", ("gpt-*",), {"X-Team": "blue"})
    assert (first.timeouts.first_token, first.breaker) == (20, BreakerSettings(failures=3))
    assert (second.base_url, second.api_key) == ("http://gpu:8000/v1", "sk-of-a-file")
    assert settings.keys == (KeySettings(name="phone", sha256=HASH),)
    check(settings)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("port = 1\nhots = 'x'", "gateway.toml:2: hots: there is no such key (did you mean 'host'?)"),
        ("port = 'x'", "gateway.toml:1: port: takes a whole number, not a string"),
        ("port = 70000", "gateway.toml:1: port: must be from 0 to 65535, not 70000"),
        ("workers = true", "gateway.toml:1: workers: takes a whole number, not true"),
        ("\n\ngrace = -1", "gateway.toml:3: grace: must be a number of seconds above 0, not -1"),
        ("[limits]\n# said\nmax_body = 0", "gateway.toml:3: limits.max_body: must be a whole number from 1, not 0"),
        ("limits = 3", "gateway.toml:1: limits: takes a table, not the number 3"),
        ("host = '300.1.1.1'", "gateway.toml:1: host: must be a name or an IP address, not '300.1.1.1'"),
        (f"{KEY}\n{KEY}", "gateway.toml:5: keys[1].name: is that of keys[0] too"),
        (f"{KEY}\n{KEY.replace('phone', 'b')}", "gateway.toml:6: keys[1].sha256: is that of keys[0] too"),
        (f"{UPSTREAM}\n{UPSTREAM}", "gateway.toml:6: upstreams[1].name: is that of upstreams[0] too"),
        ("journal = 'mysql://u:secret@h'", "the address of a Redis (redis://...), not 'h'"),
        ("private_key = 'x'", "gateway.toml:1: private_key: must come with a certificate"),
        ("[[upstreams]]\nname = 'a'", "gateway.toml:1: upstreams[0].dialect: is missing"),
        ("[[upstreams]]\ndialect='openai'\n[[upstreams]]\ndialect='opnai'", "gateway.toml:4: upstreams[1].dialect: no"),
        ("[[upstreams]]\ndialect = 'opnai'", "(did you mean 'openai'?)"),
        ("[[upstreams]]\ndialect='openai'\nbase_url='gpu:8000'", ":3: upstreams[0].base_url: base_url= must be http"),
        ("[[upstreams]]\ndialect='openai'\napi_key='sk-1'", ":3: upstreams[0].api_key: a secret does not belong into"),
        ("[[upstreams]]\ndialect='openai'\napi_key_env='NO'", "the environment has no variable NO"),
        ("[[upstreams]]\ndialect='openai'\napi_key_file='no'", ":3: upstreams[0].api_key_file: no cannot be read: No"),
        ("[[upstreams]]\ndialect='openai'\nmodels='gpt'", "upstreams[0].models: takes an array, not a string"),
        ("[[upstreams]]\ndialect='openai'\nweight=0", "upstreams[0].weight: must be a number above 0, not 0"),
        ("[[upstreams]]\ndialect='openai'\ntimeouts={open=0}", ":3: upstreams[0].timeouts.open: must be a number of"),
        ("upstreams = [1]", "gateway.toml:1: upstreams[0]: takes a table, not the number 1"),
        ("[[keys]]\nname='a'\nsha256='abc'", "gateway.toml:3: keys[0].sha256: must be 64 digits"),
        ("[[keys]]\nname='a'\nsha256='" + HASH + "'\nscopes=['all']", "keys[0].scopes"),
        ("port =", "gateway.toml:1: this is no TOML: Invalid value"),
        ("port = 1\nport = 2", "gateway.toml:2: this is no TOML: Cannot overwrite a value"),
    ],
)
def test_a_mistake_is_told_with_its_line_and_what_is_allowed(text: str, said: str) -> None:
    [line] = wrong(text)
    assert said in line


def test_what_may_be_chosen_is_told_once_and_nothing_far_off_is_suggested() -> None:
    told = "gateway.toml:1: choose: must be one of first, weighted, least-loaded, not"
    assert wrong("choose = 'x'") == [f"{told} 'x'"]
    assert wrong("choose = 'wieghted'") == [f"{told} 'wieghted' (did you mean 'weighted'?)"]
    [line] = wrong("[[upstreams]]\ndialect = 'nope'")
    assert "did you mean" not in line


def test_all_mistakes_are_told_at_once_and_in_their_order() -> None:
    said = wrong("port = 'x'\nnope = 1\n[[upstreams]]\ndialect = 3\nweight = 'much'\n")
    assert [line.split(": ")[0] for line in said] == [f"gateway.toml:{n}" for n in (1, 2, 4, 5)]


def test_no_mistake_shows_a_secret() -> None:
    secret = "sk-very-secret"
    text = f"[[upstreams]]\ndialect = 'openai'\napi_key = '{secret}'\nheaders = {{ Authorization = ['{secret}'] }}"
    assert not any(secret in line for line in wrong(text))


def test_what_is_no_utf8_is_told_with_its_line() -> None:
    with pytest.raises(UsageError, match=r"^f:2: this is not UTF-8$"):
        parse(b"port = 1\n# \xff", "f", {})


def test_lines_are_found_in_whatever_toml_allows() -> None:
    text = (
        'a.b = """\nc = 1\n[d]\n"""\n'  # 1-4
        "list = [ # with [a bracket\n  '[e]',\n  { x = '}' },\n]\n"  # 5-8
        "[ t . 'u v' ]\r\n"  # 9
        '"k=1" = 1\n'  # 10
        "[[rows]]\nn = '''\n'''\n[rows.sub]\nm = 1\n[[rows]]\nn = 2"  # 11-17
    )
    lines = lines_of(text)
    assert lines == {
        ("a",): 1,
        ("a", "b"): 1,
        ("list",): 5,
        ("t", "u v"): 9,
        ("t", "u v", "k=1"): 10,
        ("rows", 0): 11,
        ("rows", 0, "n"): 12,
        ("rows", 0, "sub"): 14,
        ("rows", 0, "sub", "m"): 15,
        ("rows", 1): 16,
        ("rows", 1, "n"): 17,
    }
    assert line_at(lines, ("list", 2, "x")) == 5
    assert line_at(lines, ("nowhere",)) == 1


# -- the environment ---------------------------------------------------------------------------


def test_each_key_in_the_environment_is_an_upstream() -> None:
    [one] = environment_upstreams({"OPENAI_API_KEY": "a", "PATH": "/"})
    assert (one.dialect, one.api_key, one.models) == ("openai", "a", ())
    several = environment_upstreams({"ANTHROPIC_API_KEY": "c", "OPENAI_API_KEY": "a", "DEEPSEEK_API_KEY": "b"})
    assert [(each.dialect, each.api_key) for each in several] == [
        ("deepseek", "b"),
        ("openai", "a"),
        ("anthropic", "c"),
    ]
    assert [each.models[0] for each in several] == ["deepseek-*", "gpt-*", "claude-*"]
    assert not environment_upstreams({"OPENAI_API_KEY": ""})
    assert {"DEEPSEEK_API_KEY", "GEMINI_API_KEY"} <= set(key_variables())


# -- what cannot be served ---------------------------------------------------------------------

ONE = (UpstreamSettings(dialect="openai", api_key="sk"),)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (Settings(), "set the key of a provider in the environment (DEEPSEEK_API_KEY, "),
        (Settings(upstreams=ONE, host="0.0.0.0"), "others can reach 0.0.0.0, and there are no gateway keys"),
        (Settings(upstreams=ONE, workers=2), "give them a Redis"),
        (Settings(upstreams=(UpstreamSettings(dialect="azure"),)), "'azure' needs a base_url"),
        (Settings(upstreams=(UpstreamSettings(dialect="mcp", base_url="http://h"),)), "served at no path"),
    ],
)
def test_settings_that_cannot_be_served_are_refused_with_what_to_do(settings: Settings, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        check(settings)
    assert said in str(caught.value)


def test_an_open_door_must_be_said_or_be_nobodys_to_reach() -> None:
    check(Settings(upstreams=ONE, host="0.0.0.0", open=True))
    check(Settings(upstreams=ONE, host="0.0.0.0", keys=(KeySettings(name="a", sha256=HASH),)))
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.9.9.9", "::1", "[::1]")))
    assert not any(map(is_loopback, ("", "0.0.0.0", "::", "10.0.0.1", "example.com")))
