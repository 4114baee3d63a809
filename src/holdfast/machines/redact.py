"""What must not leave the process in a log line or a recording, and how it is taken out.

Headers are judged by their names: a new provider's key header is caught by the word in it, not by a list of providers.
Everything that is written down elsewhere goes through here, so that there is one rule.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit, urlunsplit

REDACTED = "[redacted]"
_SECRET_WORDS = re.compile("auth|cookie|credential|key|passw|secret|session|signature|token", re.IGNORECASE)
_COUNTERS = re.compile("ratelimit|idempotency", re.IGNORECASE)  # "...-remaining-tokens" is a number, not a token
_PLAIN_HEADERS = frozenset(
    ("accept", "accept-encoding", "cache-control", "connection", "content-type", "host", "user-agent")
)
_MIN_SECRET = 8
"""Characters: a shorter value is as likely a word that an error message needs."""
_NAME = re.compile(r"[\w.:/-]{1,64}", re.ASCII)
_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://[^\s'\"<>\])}]+")


def is_secret(name: str) -> bool:
    """Tells by a header's name whether its value is a secret."""
    return _SECRET_WORDS.search(name) is not None and _COUNTERS.search(name) is None


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


def scrub(message: str, headers: Mapping[str, str]) -> str:
    """Takes out of a message what must not stand there, should anybody have put it in: header values, URLs' secrets."""
    for name, value in headers.items():
        if name.lower() not in _PLAIN_HEADERS:
            for secret in (value, value.rpartition(" ")[2]):  # the whole, then the key without its scheme
                if len(secret) >= _MIN_SECRET:
                    message = message.replace(secret, REDACTED)
    return _URL.sub(lambda found: clean_url(found[0]), message)
