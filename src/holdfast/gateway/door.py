"""The front door: who may come in, what for, and which streams are whose.

A key is known by its digest alone, and a stream belongs to the key that opened it: of another one's it is not even said
that it exists. What a browser's EventSource cannot say in a header, a read token says: it opens one stream of one key
to a GET, for a while. Nothing here logs, and no error quotes what was given.
"""

from __future__ import annotations

import fnmatch
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from holdfast._clock import Clock, SystemClock
from holdfast.gateway.journal import Entry
from holdfast.gateway.refusals import Refusal, Refused
from holdfast.gateway.settings import KeySettings, Scope, Settings

TOKEN_SECONDS = 3600
"""How long a read token holds."""
_SIGNED_FOR = "holdfast read token 1"
"""Whatever else may be signed with the same secret cannot be taken for a token."""


def new_key() -> str:
    """Makes a gateway key: 256 bits of chance, shown once and kept by whoever asked for it."""
    return f"hf-{secrets.token_urlsafe(32)}"


def digest_of(key: str) -> str:
    """Gives what is kept of a key."""
    # Not bcrypt or the like: they make guesses of weak passwords slow. Nobody guesses 256 bits, and a slow hash for
    # each request would let anybody keep the gateway busy with wrong keys.
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


@dataclass(slots=True, frozen=True)
class Guest:
    """Who asks. `name` is the key's, empty where the door is open."""

    name: str = ""
    key: KeySettings | None = None

    def may(self, scope: Scope) -> bool:
        """Says whether the key is for this."""
        return self.key is None or scope in self.key.scopes

    def may_ask(self, model: str) -> bool:
        """Says whether the key may ask for a model."""
        models = self.key.models if self.key is not None else ()
        return not models or any(fnmatch.fnmatchcase(model, pattern) for pattern in models)


class Door:
    """Knows the keys, by their digests. `open_to_all`: there are none, and the gateway is on the loopback."""

    def __init__(self, settings: Settings, *, clock: Clock | None = None) -> None:
        self._keys = {key.name: key for key in settings.keys}
        self._secret = (settings.secret or secrets.token_hex(32)).encode()
        self._clock = clock or SystemClock()

    @property
    def open_to_all(self) -> bool:
        """True where no key is asked for."""
        return not self._keys

    def sign_with(self, secret: str) -> None:
        """Takes what all nodes sign tokens with."""
        self._secret = secret.encode()

    def guest(self, request: web.BaseRequest) -> Guest | None:
        """Says who asks, None for nobody that is known."""
        return self.known(_key_in(request))

    def known(self, said: str) -> Guest | None:
        """Says whose a key is, None for nobody's."""
        if not self._keys:
            return Guest()
        given = digest_of(said)
        found = None
        for key in self._keys.values():  # all of them: how long it takes must not tell which
            if hmac.compare_digest(key.sha256, given):
                found = key
        return None if found is None else Guest(found.name, found)

    def admit(self, request: web.BaseRequest, scope: Scope = "stream") -> Guest:
        """Gives who asks. Raises `Refused` for nobody that is known, and for a key that is for other things."""
        guest = self.guest(request)
        if guest is None:
            raise Refused(Refusal(401, "invalid_api_key", "the gateway does not know this key"))
        if not guest.may(scope):
            raise Refused(Refusal(403, "permission_denied", f"this key has no scope {scope!r} at the gateway"))
        return guest

    def check_model(self, guest: Guest, model: str) -> None:
        """Raises `Refused` for a model that the key may not ask for."""
        if not guest.may_ask(model):
            raise Refused(Refusal(403, "model_not_allowed", "this key may not ask the gateway for this model"))

    def named(self, name: str) -> Guest | None:
        """Gives who has the key of a name, None where it is gone."""
        key = self._keys.get(name)
        return None if key is None else Guest(name, key)

    def seal(self, *said: str) -> str:
        """Signs words, so that only nodes of this gateway can have said them. The first tells what for."""
        return hmac.new(self._secret, "\n".join(said).encode(), hashlib.sha256).hexdigest()

    def check_other(self, guest: Guest) -> None:
        """Raises `Refused` where what a key asks for at other paths could go past its models, or its money."""
        if guest.key is not None and (guest.key.models or guest.key.money is not None):
            words = "this key is for some models, or some money, and neither can be looked after at this path"
            raise Refused(Refusal(403, "permission_denied", words))

    def token(self, entry: Entry) -> str:
        """Gives a token that reads one stream, for a while."""
        until = str(int(self._clock.wall().timestamp()) + TOKEN_SECONDS)
        return f"{until}.{self._signed(entry, until)}"

    def may_read(self, request: web.BaseRequest, entry: Entry) -> bool:
        """Says whether who asks may read a stream, by its key or by a token of it; or cancel it, by its key alone."""
        if request.method == "GET" and self._holds(request.query.get("token", ""), entry):
            return True
        guest = self.guest(request)
        return guest is not None and guest.may("stream") and guest.name == entry.owner

    def _holds(self, token: str, entry: Entry) -> bool:
        until, _, signed = token.partition(".")
        if not (until.isascii() and until.isdecimal() and len(until) <= 12 and signed.isascii()):
            return False
        # A stream whose key is gone is nobody's any more, whatever was signed while it was there.
        known = entry.owner in self._keys if self._keys else not entry.owner
        genuine = hmac.compare_digest(signed, self._signed(entry, until))
        return genuine and known and int(until) >= self._clock.wall().timestamp()

    def _signed(self, entry: Entry, until: str) -> str:
        key = self._keys.get(entry.owner)
        said = "\n".join((_SIGNED_FOR, entry.stream, until, key.sha256 if key is not None else "", entry.owner))
        return hmac.new(self._secret, said.encode(), hashlib.sha256).hexdigest()


def _key_in(request: web.BaseRequest) -> str:
    """Finds the key where clients of any dialect put it."""
    headers: Mapping[str, str] = request.headers
    bearer = headers.get("Authorization", "")
    if bearer[:7].lower() == "bearer ":
        return bearer[7:].strip()
    named = headers.get("x-api-key") or headers.get("api-key") or headers.get("x-goog-api-key")
    # Only the clients of one provider write it into the address, where too many others can read it.
    return named or (request.query.get("key", "") if request.path.startswith("/v1beta/") else "")
