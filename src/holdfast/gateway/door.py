"""The front door: who may come in, and which streams are whose."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass

from aiohttp import web

from holdfast.gateway.journal import Entry
from holdfast.gateway.settings import KeySettings, Settings

TOKEN_SECONDS = 3600
"""How long a read token holds."""


@dataclass(slots=True, frozen=True)
class Guest:
    """Who asks. `name` is the key's, empty where the door is open."""

    name: str = ""
    key: KeySettings | None = None


class Door:
    """Knows the keys, by their digests."""

    def __init__(self, settings: Settings) -> None:
        self._keys = settings.keys
        self._secret = (settings.secret or secrets.token_hex(32)).encode()

    def guest(self, request: web.Request) -> Guest | None:
        """Says who asks, None for nobody that is known."""
        if not self._keys:
            return Guest()
        given = hashlib.sha256(_key_in(request).encode()).hexdigest()
        found = None
        for key in self._keys:
            if hmac.compare_digest(key.sha256, given):
                found = key
        return None if found is None else Guest(found.name, found)

    def token(self, entry: Entry) -> str:
        """Gives a token that reads one stream, for a while."""
        until = str(int(time.time()) + TOKEN_SECONDS)
        return f"{until}.{self._signed(entry, until)}"

    def may_read(self, request: web.Request, entry: Entry) -> bool:
        """Says whether who asks may read (and cancel) a stream: by its key, or by a token of it."""
        until, dot, signed = request.query.get("token", "").partition(".")
        if dot and until.isdecimal() and int(until) >= time.time():
            return hmac.compare_digest(signed, self._signed(entry, until))
        guest = self.guest(request)
        return guest is not None and guest.name == entry.owner

    def _signed(self, entry: Entry, until: str) -> str:
        said = f"{entry.stream} {entry.owner} {until}".encode()
        return hmac.new(self._secret, said, hashlib.sha256).hexdigest()


def _key_in(request: web.Request) -> str:
    """Finds the key where clients of any dialect put it."""
    headers = request.headers
    bearer = headers.get("Authorization", "")
    if bearer.lower().startswith("bearer "):
        return bearer[7:].strip()
    return (
        headers.get("x-api-key")
        or headers.get("api-key")
        or headers.get("x-goog-api-key")
        or request.query.get("key", "")
    )
