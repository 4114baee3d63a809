"""What each provider says on the wire, one file a provider. Dialects decide and never wait, like machines."""

from holdfast._errors import UsageError
from holdfast.dialects._dialect import (
    CursorRung,
    DeltaReader,
    Dialect,
    Evidence,
    PrefixRung,
    Said,
    Timeouts,
    Wire,
    state_of,
)
from holdfast.dialects.chat import ChatWire
from holdfast.dialects.deepseek import DEEPSEEK
from holdfast.dialects.openai import OPENAI
from holdfast.dialects.openai_compatible import OPENAI_COMPATIBLE

DIALECTS: dict[str, Dialect] = {d.name: d for d in (DEEPSEEK, OPENAI, OPENAI_COMPATIBLE)}
"""Every dialect by the name users say."""


def find(dialect: str | Dialect) -> Dialect:
    """Gives a dialect by name; one that is a dialect already stays it. Raises `UsageError` for an unknown name."""
    if not isinstance(dialect, str):
        return dialect
    try:
        return DIALECTS[dialect]
    except KeyError:
        raise UsageError(f"no dialect is called {dialect!r}; there are {', '.join(sorted(DIALECTS))}") from None


__all__ = [
    "DEEPSEEK",
    "DIALECTS",
    "OPENAI",
    "OPENAI_COMPATIBLE",
    "ChatWire",
    "CursorRung",
    "DeltaReader",
    "Dialect",
    "Evidence",
    "PrefixRung",
    "Said",
    "Timeouts",
    "Wire",
    "find",
    "state_of",
]
