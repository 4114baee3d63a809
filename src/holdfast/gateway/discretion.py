"""The upstreams' keys, kept from clients: in heads, in errors, and in answers of upstreams that quote what they got.

Errors are no answers, and each key is taken out of them. An answer is to be exact: of it only what can be nothing else
than a key is taken out, and no word such as "none" or "EMPTY", which many give to servers that ask for no key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from holdfast._errors import StatusError, StreamError, UpstreamError
from holdfast._types import Head
from holdfast.gateway.headers import secrets_in
from holdfast.gateway.production import Answer
from holdfast.gateway.refusals import HIDDEN
from holdfast.gateway.settings import UpstreamSettings

_NO_WORD = 20
"""Characters from which on a key is taken out of answers, too: those of providers are longer, and words are not."""
_MOST_OF_A_HEADER = 4096
"""Characters: many clients give up on a head that is larger than a few kilobytes."""


class Discretion:
    """Knows the keys of all upstreams, and tells nobody."""

    def __init__(self, upstreams: Iterable[UpstreamSettings]) -> None:
        headers = ({"authorization": one.api_key or "", **one.headers} for one in upstreams)
        secrets = {secret for sent in headers for secret in secrets_in(sent)}
        self._all = sorted(secrets, key=len, reverse=True)
        self._in_answers = [secret.encode() for secret in self._all if len(secret) >= _NO_WORD]

    def text(self, data: bytes) -> bytes:
        """Takes the keys out of (a part of) an answer."""
        for secret in self._in_answers:
            if secret in data:
                data = data.replace(secret, HIDDEN.encode())
        return data

    def blocks(self, blocks: list[bytes]) -> list[bytes]:
        """Takes the keys out of blocks of an answer."""
        for secret in self._in_answers:
            if any(secret in block for block in blocks):
                return [self.text(block) for block in blocks]
        return blocks

    def headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Leaves out headers that quote a key, and those that could not be said again."""
        return {name: value for name, value in headers.items() if _can_be_said(value) and not self._quotes(value)}

    def error(self, error: StreamError) -> None:
        """Takes the keys out of what an upstream said of a failure."""
        if isinstance(error, StatusError | UpstreamError):
            for secret in self._all:
                for name in ("code", "type", "message"):
                    setattr(error, name, getattr(error, name).replace(secret, HIDDEN))
                if isinstance(error, StatusError):
                    error.body = error.body.replace(secret.encode(), HIDDEN.encode())

    def answer(self, answer: Answer) -> Answer:
        """Gives the same answer without the keys."""
        return _Discreet(answer, self)

    def _quotes(self, value: str) -> bool:
        return any(secret in value for secret in self._all)


class _Discreet:
    __slots__ = ("_answer", "_discretion")

    def __init__(self, answer: Answer, discretion: Discretion) -> None:
        self._answer = answer
        self._discretion = discretion

    async def open(self) -> Head:
        try:
            head = await self._answer.open()
        except StreamError as error:
            self._discretion.error(error)
            raise
        return replace(head, headers=self._discretion.headers(head.headers))

    async def blocks(self) -> list[bytes]:
        try:
            return self._discretion.blocks(await self._answer.blocks())
        except StreamError as error:
            self._discretion.error(error)
            raise

    async def aclose(self) -> None:
        await self._answer.aclose()


def _can_be_said(value: str) -> bool:
    return value.isprintable() and len(value) <= _MOST_OF_A_HEADER


__all__ = ["Discretion"]
