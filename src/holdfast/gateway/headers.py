"""Which headers and which parts of a query go through the gateway, in either direction.

What is not named here stays behind: a list of what must not pass would always be one name short. Keys, cookies and
what names somebody's account go nowhere: the gateway asks with its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from holdfast.machines.redact import is_secret

_TO_UPSTREAM = ("openai-", "anthropic-", "x-goog-", "x-stainless-", "x-client-request-id")
_TO_UPSTREAM_WHOLE = frozenset(
    {"user-agent", "accept-language", "traceparent", "tracestate", "http-referer", "x-title"}
)
_TO_CLIENT = (
    *("openai-", "anthropic-", "x-request-id", "request-id", "x-ratelimit-", "ratelimit", "x-goog-", "x-gemini-"),
    *("x-ms-", "apim-request-id", "azureml-", "x-groq-", "mistral-", "cf-ray", "x-ds-", "server-timing"),
    *("x-should-retry", "retry-after", "x-generation-id", "x-compute-", "x-inference-"),
)
_OF_AN_ACCOUNT = ("organization", "project", "workspace", "user-project", "account")


def to_upstream(headers: Mapping[str, str]) -> dict[str, str]:
    """Gives those of a client's headers that its provider may see, in lower case."""
    named = ((name.lower(), value) for name, value in headers.items())
    return {
        name: value
        for name, value in named
        if (name in _TO_UPSTREAM_WHOLE or name.startswith(_TO_UPSTREAM)) and not _stays(name)
    }


def to_client(headers: Mapping[str, str]) -> dict[str, str]:
    """Gives those of a provider's headers that a client may see. Names are lower case."""
    return {name: value for name, value in headers.items() if name.startswith(_TO_CLIENT) and not _stays(name)}


def _stays(name: str) -> bool:
    counts = "ratelimit" in name  # "...-remaining-tokens" is a number, and so is "...-remaining-project-tokens"
    return not counts and (is_secret(name) or any(word in name for word in _OF_AN_ACCOUNT))


def secrets_in(headers: Mapping[str, str]) -> list[str]:
    """Gives what must not be quoted of a request's headers, the longest first."""
    told = (value for name, value in headers.items() if is_secret(name))
    return sorted({part for value in told for part in (value, value.rpartition(" ")[2]) if part}, key=len, reverse=True)


def clean_target(path: str, query: str) -> str:
    """Gives a request's path and query without the keys and tokens that clients put there."""
    kept = urlencode(_kept(query))
    return f"{path}?{kept}" if kept else path


def with_query(url: str, query: str) -> str:
    """Gives a URL with what a client's query has and it has not: an `api-version`, for one."""
    at = urlsplit(url)
    known = {name for name, _ in parse_qsl(at.query, keep_blank_values=True)}
    more = urlencode([(name, value) for name, value in _kept(query) if name not in known])
    return urlunsplit(at._replace(query="&".join(part for part in (at.query, more) if part))) if more else url


def _kept(query: str) -> list[tuple[str, str]]:
    pairs = parse_qsl(query, keep_blank_values=True)
    return [(name, value) for name, value in pairs if not is_secret(name) and not name.startswith("$")]
