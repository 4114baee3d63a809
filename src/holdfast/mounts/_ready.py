"""Ready httpx and httpx2 clients with a mount inside, set as SDKs set their own.

A client that is given a transport reads no proxies from the environment. So it is built as ever, and what it built is
wrapped: proxies, certificates and limits stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast.mounts._httpx import check_transport
from holdfast.mounts._lines import with_known_lines
from holdfast.mounts._network import with_cheap_reads
from holdfast.mounts._relay import Settings, mount_of

_TRANSPORT = ("verify", "cert", "trust_env", "http1", "http2", "proxy", "limits")
"""What a client builds its transports of."""


class ReadySettings(Settings, total=False):
    """The keywords of a ready client: a mount's, and those of the library's own clients."""

    auth: Any
    base_url: Any
    cert: Any
    cookies: Any
    default_encoding: Any
    event_hooks: Any
    follow_redirects: bool
    headers: Any
    http1: bool
    http2: bool
    limits: Any
    max_redirects: int
    mounts: Any
    params: Any
    proxy: Any
    timeout: Any
    transport: Any
    trust_env: bool
    verify: Any


def ready(library: Any, transport: Any, settings: Mapping[str, Any]) -> Any:
    """Gives an `AsyncClient` of a library, of a mount's keywords and its own."""
    mount, rest = _parted(library, settings, "handle_async_request")
    client = library.AsyncClient(**rest)
    for one in _built(client, rest):
        with_cheap_reads(one)
    _wrap(client, transport, mount)
    return client


def ready_sync(library: Any, transport: Any, settings: Mapping[str, Any]) -> Any:
    """Gives a `Client` of a library. Connections that are shared as in HTTP/2 are in the background loop.

    Those of transports that are given stay where they are.
    """
    mount, rest = _parted(library, settings, "handle_request", "handle_async_request")
    if "transport" in rest:
        client = library.Client(**rest)
        _wrap(client, transport, mount)
        return client
    built = {name: rest[name] for name in _TRANSPORT if name in rest}
    kept = {name: value for name, value in rest.items() if name not in _TRANSPORT or name == "trust_env"}
    given = kept.pop("mounts", None) or {}

    blocks = mount_of(mount).runs_anywhere and not built.get("http2")

    def lines() -> dict[Any, Any]:
        """What a client would build; its transports alone are used, and closed by the other."""
        client = library.Client(**built) if blocks else library.AsyncClient(**built)
        for one in _built(client, built):
            (with_known_lines if blocks else with_cheap_reads)(one)
        return {None: client._transport, **{at.pattern: one for at, one in client._mounts.items()}}  # noqa: SLF001

    def mounted(pattern: Any, inner: Any) -> Any:
        if inner is None:
            return None
        made = transport(inner, **mount)
        made.fresh = lambda: lines()[pattern]
        return made

    mounts = {pattern: mounted(pattern, inner) for pattern, inner in lines().items()}
    first = mounts.pop(None)
    mounts.update({pattern: one and transport(one, **mount) for pattern, one in given.items()})
    return library.Client(transport=first, mounts=mounts, **kept)


def _parted(library: Any, settings: Mapping[str, Any], *does: str) -> tuple[dict[str, Any], dict[str, Any]]:
    names = {*Settings.__optional_keys__, "upstreams"}
    mount = {name: value for name, value in settings.items() if name in names}
    rest = {name: value for name, value in settings.items() if name not in names}
    # Bad settings are told before there is a client that would have to be closed.
    mount["listeners"] = mount_of(mount).listeners
    for name, given in (("transport=", [rest.get("transport")]), ("mounts=", (rest.get("mounts") or {}).values())):
        for inner in given:
            if inner is not None:
                check_transport(name, inner, *does)
    # What openai and anthropic set in the clients that they make.
    rest.setdefault("timeout", library.Timeout(600, connect=5.0))
    rest.setdefault("limits", library.Limits(max_connections=1000, max_keepalive_connections=100))
    rest.setdefault("follow_redirects", True)
    return mount, rest


def _built(client: Any, settings: dict[str, Any]) -> list[Any]:
    """Gives the transports that a client has built by itself."""
    given = [settings.get("transport"), *(settings.get("mounts") or {}).values()]
    ours = [client._transport, *client._mounts.values()]  # noqa: SLF001 - see below
    return [one for one in ours if not any(one is other for other in given)]


def _wrap(client: Any, transport: Any, mount: dict[str, Any]) -> None:
    # There is no public way to what a client has built, and none to build it alike: both libraries have it here.
    client._transport = transport(client._transport, **mount)  # noqa: SLF001
    for pattern, one in client._mounts.items():  # noqa: SLF001
        client._mounts[pattern] = transport(one, **mount) if one is not None else None  # noqa: SLF001


__all__ = ["ReadySettings", "ready", "ready_sync"]
