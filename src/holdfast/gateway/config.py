"""How a gateway's settings are read: from a TOML file, and from the environment where there is none."""

from __future__ import annotations

from collections.abc import Mapping

from holdfast.dialects import DIALECTS
from holdfast.gateway.settings import UpstreamSettings


def environment_upstreams(environment: Mapping[str, str]) -> tuple[UpstreamSettings, ...]:
    """Gives an upstream for every provider whose key is in the environment."""
    found: dict[str, UpstreamSettings] = {}
    for name, dialect in DIALECTS.items():
        variable = dialect.key_variable
        if variable and dialect.base_url and variable not in found and environment.get(variable):
            found[variable] = UpstreamSettings(dialect=name, api_key=environment[variable])
    return tuple(found.values())
