"""What must not leave the process in a log line or a recording, and how it is taken out.

Headers are judged by their names: a new provider's key header is caught by the word in it, not by a list of providers.
Everything that is written down elsewhere goes through here, so that there is one rule.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from urllib.parse import parse_qsl, urlsplit, urlunsplit

REDACTED = "[redacted]"
_SECRET_WORDS = re.compile(
    r"auth|bearer|cookie|credential|jwt|key|passw|secret|session|signature|token|\bpat\b", re.IGNORECASE
)
_COUNTERS = re.compile("ratelimit|idempotency", re.IGNORECASE)  # "...-remaining-tokens" is a number, not a token
_PLAIN_HEADERS = frozenset(
    ("accept", "accept-encoding", "cache-control", "connection", "content-type", "host", "user-agent")
)
_SCHEME = re.compile(r"(?:basic|bearer)\s", re.IGNORECASE)
_BETWEEN = re.compile(r"[\s,;=]+")
_MIN_SECRET = 8
"""Characters: a shorter value is as likely a word that an error message needs."""
_NAME = re.compile(r"[\w.:/-]{1,64}", re.ASCII)
_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://[^\s'\"<>\])}]+")


def is_secret(name: str) -> bool:
    """Tells by a header's name whether its value is a secret."""
    return _SECRET_WORDS.search(name) is not None and _COUNTERS.search(name) is None


def of_one_server(headers: Mapping[str, str]) -> set[str]:
    """Gives, in lower case, the names of those of a request's headers that no other server must see.

    A key may stand once more under a name that tells nothing of it, and an address that a page was left by holds some.
    """
    gone = {name for name, value in headers.items() if is_secret(name) or _SCHEME.match(value.lstrip())}
    parts = {part for name in gone for part in (headers[name], *_BETWEEN.split(headers[name]))}
    secrets = [part for part in parts if len(part) >= _MIN_SECRET]
    for name, value in headers.items():
        if name.lower() not in _PLAIN_HEADERS and any(secret in value for secret in secrets):
            gone.add(name)
    return {"referer", *(name.lower() for name in gone)}


def redact_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Gives the same headers with every secret value replaced."""
    return {name: REDACTED if is_secret(name) else value for name, value in headers.items()}


def clean_url(url: str) -> str:
    """Drops user, password, query and fragment: keys travel in all of them. What is no URL becomes empty."""
    try:
        parts = urlsplit(url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    except ValueError:
        return ""


def only_name(word: str) -> str:
    """Lets a provider's code or type through where it looks like one: at most 64 characters, and never a sentence."""
    return word if not word or _NAME.fullmatch(word) else REDACTED


def hide(text: str, headers: Mapping[str, str], url: str = "") -> str:
    """Takes out of a text every secret that a request bore: header values, and what its URL has beside its place."""
    for secret in _secrets(headers, url):
        if len(secret) >= _MIN_SECRET:
            text = text.replace(secret, REDACTED)
    return text


def _secrets(headers: Mapping[str, str], url: str) -> Iterator[str]:
    for name, value in headers.items():
        if name.lower() not in _PLAIN_HEADERS:
            yield value
            yield value.rpartition(" ")[2]  # the key without its scheme
    try:
        parts = urlsplit(url)
        yield from parts.netloc.rpartition("@")[0].split(":", 1)
        for name, value in parse_qsl(parts.query):
            if is_secret(name):
                yield value
    except ValueError:
        return


def scrub(message: str, headers: Mapping[str, str], url: str = "") -> str:
    """Takes out of a message what must not stand there, should anybody have put it in: secrets, and those of URLs."""
    return hide(_URL.sub(lambda found: clean_url(found[0]), message), headers, url)
