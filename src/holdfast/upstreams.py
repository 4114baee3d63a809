"""Upstream: who can be asked for an answer, by which key, at which address, for which model.

A value: it asks nobody. It must never let a key out of its sight: what of an original request may be a secret stays
with the server that it was meant for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import NoneType
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pybreaker

from holdfast._core import Source
from holdfast._errors import UsageError
from holdfast._pipe import check_order
from holdfast._types import Request
from holdfast.dialects import AUTO, Dialect, at_address, by_endpoint, find
from holdfast.dialects._wire import asked
from holdfast.layers.breaker import CircuitBreaker
from holdfast.machines.redact import clean_url, of_one_server
from holdfast.machines.settings import check_kind, check_strings, is_number

_OF_THE_LINE = frozenset({"host", "content-length", "transfer-encoding", "connection"})
"""Headers that speak of one connection."""

_LIMITS = ("Concurrency", "RateLimit")
_WHOLE = "it is for the whole answer, which several upstreams may write: put it over all of them"
_NOT_OF_ONE = {
    **dict.fromkeys(("Buffer", "ReadAhead", "Reconnect", "AutoContinue", "ExpectJson"), _WHOLE),
    "Fallback": "its upstreams belong into the one list",
}


@dataclass(slots=True, frozen=True, init=False, repr=False)
class Upstream:
    """One of several that `Client(upstreams=[...])` or `Fallback` may ask: another key, region, model or provider.

    `dialect` names the provider; `api_key` is taken from its usual environment variable when not given, `base_url` is
    where it is when not at its usual place. `model` replaces the request's, None keeps it. `name` is what reports call
    it, by default the dialect's, numbered where several have the same. `headers` go to this one alone, and `weight` is
    its share among equals.

    A provider of another wire (openai's chat and anthropic's messages) needs `translate`, a function that makes a body
    for it of the request's body. `layers` are over this one alone, from the wire on: limits, clocks, a breaker. Where
    no `CircuitBreaker` is among them, one that five failures in a row open for 30 s is put left of the limits;
    `layers=()` is none at all. Raises `UsageError` for an unknown dialect, a missing key, a setting of another kind, or
    a layer that must not stand there.
    """

    dialect: Dialect
    api_key: str | None = None
    base_url: str = ""
    model: str | None = None
    name: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    weight: float = 1
    translate: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None
    layers: Sequence[Callable[[Source[Any]], Source[Any]]] | None = None

    def __init__(
        self,
        dialect: str | Dialect,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        model: str | None = None,
        name: str = "",
        headers: Mapping[str, str] | None = None,
        weight: float = 1,
        translate: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None,
        layers: Sequence[Callable[[Source[Any]], Source[Any]]] | None = None,
    ) -> None:
        given = base_url
        if base_url is not None:
            check_url(base_url)
        dialect = find(dialect)
        if dialect is AUTO:
            dialect, base_url = at_address(base_url or "")
        whose = f"Upstream({dialect.name!r})"
        check_kind("Upstream(model=...)", model, (str, NoneType), "a string or None")
        check_kind("Upstream(name=...)", name, str, "a string")
        check_strings("Upstream(headers=...)", headers)
        check_kind("Upstream(layers=...)", layers, (Sequence, NoneType), "a sequence of layers")
        _check_layers(layers or ())
        if translate is not None and not callable(translate):
            raise UsageError(f"Upstream(translate=...) takes a function from a body to a body, not {translate!r}")
        if not (is_number(weight) and 0 < weight < float("inf")):
            raise ValueError(f"Upstream(weight=...) must be a number above 0, not {weight!r}")
        values = {
            "dialect": dialect,
            "api_key": key_of(dialect, api_key, whose, needed=given is None),
            "base_url": base_of(dialect, base_url, whose),
            "model": model,
            "name": name,
            "headers": dict(headers or {}),
            "weight": weight,
            "translate": translate,
            "layers": None if layers is None else tuple(layers),
        }
        for setting, value in values.items():
            object.__setattr__(self, setting, value)  # the way to set a field of a frozen dataclass

    def __repr__(self) -> str:
        told = ("base_url", "model", "name", "weight")
        set_ = "".join(f", {name}={value!r}" for name in told if (value := getattr(self, name)) not in ("", None, 1))
        return f"Upstream({self.dialect.name!r}{set_})"

    def named(self, taken: Sequence[str]) -> Upstream:
        """Gives it with the dialect's name, numbered where that is taken."""
        name, number = self.dialect.name, 2
        while name in taken:
            name, number = f"{self.dialect.name}-{number}", number + 1
        return replace(self, name=name)

    def own_layers(self) -> Sequence[Callable[[Source[Any]], Source[Any]]]:
        """Gives the layers that are over this one alone, a new breaker among them where none was given."""
        given = self.layers or ()
        if self.layers == () or any(isinstance(layer, CircuitBreaker) for layer in given):
            return given
        limits = (place for place, layer in enumerate(given) if type(layer).__name__ in _LIMITS)
        # Right of clocks, whose failures it judges; left of limits: who waited is asked again whether it may be sent.
        place = next(limits, len(given))
        return (*given[:place], CircuitBreaker(breaker_of(self.name or self.dialect.name)), *given[place:])

    def suits(self, original: Request) -> None:
        """Raises `UsageError` for a request in the words of another wire, where nothing translates it."""
        words = original.dialect
        if words is AUTO:
            words = by_endpoint(original.url)
        if words is not None and self.translate is None and type(words.wire) is not type(self.dialect.wire):
            raise UsageError(
                f"{self!r} speaks another wire than the request, which is in the words of {words.name!r}:"
                " give it a translate=, or name upstreams that speak alike"
            )

    def request(self, original: Request) -> Request:
        """Gives a request in this one's words. Raises `UsageError` for one that cannot be put into them.

        A body that asks for a stream already stays as it is, but for the model.
        """
        self.suits(original)
        dialect, words, said = self.dialect, original.dialect, self._said(original)
        body = original.body if said is None else said
        model = (said or {}).get("model") or (words.model_in(original.url) if words is not None else "")
        if isinstance(body, Mapping) and body.get("stream") is not True:
            body = dialect.prepare(body)
        url = dialect.url(self.base_url, {"model": model} if model else {})
        stays = _origin(original.url) == _origin(url) and self.api_key is None
        not_for_it = _OF_THE_LINE if stays else _OF_THE_LINE | of_one_server(original.headers)
        headers = {name: value for name, value in original.headers.items() if name.lower() not in not_for_it}
        request = replace(original, url=url, headers=headers, body=body, upstream=self.name, dialect=dialect)
        return request.with_headers(dialect.headers(self.api_key)).with_headers(self.headers)

    def probe(self, path: str = "") -> Request:
        """Gives a request that costs nothing and that a server which is well answers, by default one for its models."""
        if not path:
            before, models, _ = self.dialect.path.partition("/models/")
            path = (before if models else before.removesuffix("/completions").rpartition("/")[0]) + "/models"
        at = urlsplit(self.base_url)
        url = urlunsplit(at._replace(path=at.path.rstrip("/") + path, fragment=""))
        headers = {**self.dialect.headers(self.api_key), **self.headers}
        return Request(url=url, method="GET", headers=headers, upstream=self.name, dialect=self.dialect)

    def _said(self, original: Request) -> Mapping[str, Any] | None:
        """Gives the body with what is this one's own; None for bytes that stay as they are."""
        said = asked(original) if self.translate or self.model or isinstance(original.body, Mapping) else None
        if said is None and (self.translate or self.model):
            raise UsageError(f"{self!r} cannot change a request whose body is no JSON object")
        if said is not None and self.translate is not None:
            said = self.translate(said)
            check_kind("what translate= gives", said, Mapping, "a mapping", secret=True)
        return said if said is None or self.model is None else {**said, "model": self.model}


def _check_layers(layers: Sequence[object]) -> None:
    for place, layer in enumerate(layers):
        kind = type(layer).__name__
        if not callable(layer) or isinstance(layer, type):
            raise UsageError(f"Upstream(layers=...) takes layers, such as RateLimit(limiter), and {layer!r} is none")
        if kind in _NOT_OF_ONE:
            raise UsageError(f"{kind} does not belong into Upstream(layers=...): {_NOT_OF_ONE[kind]}")
        check_order(layers[:place], layer)


def breaker_of(
    name: str,
    *,
    failures: int = 5,
    seconds: float = 30,
    harmless: Sequence[type[Exception] | Callable[[Exception], bool]] = (),
) -> pybreaker.CircuitBreaker:
    """Makes the breaker that is there where nobody gives one: so many failures in a row open it for so long.

    `harmless` are failures that count as successes.
    """
    return pybreaker.CircuitBreaker(
        fail_max=failures, reset_timeout=seconds, exclude=harmless, name=name, throw_new_error_on_trip=False
    )


def _origin(url: str) -> tuple[str, str | None, int | None]:
    at = urlsplit(url)
    return at.scheme, at.hostname, at.port


def check_url(base: str) -> None:
    """Tells of what would else be found out in the middle of a request. An empty one is no leave to ask the provider.

    Whoever reads the address from the environment, and finds nothing there, would send prompts to another server.
    """
    check_kind("base_url=", base, str, "a string")
    try:
        parts = urlsplit(base)
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # brackets without an end, a port that is none
        known = False
    if not known:
        shown = clean_url(base) or base[:80].rpartition("@")[2].partition("?")[0]
        raise UsageError(f"base_url= must be http:// or https:// and a host, not {shown!r}")
    if parts.username or parts.password:
        raise UsageError("base_url= holds a user or a password; give an Authorization header in headers= instead")


def base_of(dialect: Dialect, given: str | None, whose: str) -> str:
    """Where the provider is."""
    base = given or dialect.base_url
    if not base:
        raise UsageError(f"{whose} needs a base_url=: there is no one server of that dialect")
    return base


def key_of(dialect: Dialect, api_key: str | None, whose: str, *, needed: bool) -> str | None:
    """A server of one's own may need no key; the provider's does, and would say so late and in its own words."""
    check_kind("api_key=", api_key, (str, NoneType), "a string", secret=True)
    key = api_key or os.environ.get(dialect.key_variable or "", "") or None
    if key is None:
        if needed and dialect.base_url.startswith("https:"):
            raise UsageError(f"{whose} needs api_key=, or the environment variable {dialect.key_variable}")
        return None
    if not key.isprintable() or key != key.strip():
        raise UsageError("the API key must be a string without blanks or line ends around it: was it read from a file?")
    return key


__all__ = ["Upstream"]
