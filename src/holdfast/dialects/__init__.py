"""What each provider says on the wire, one file a family. Dialects decide and never wait, like machines."""

from holdfast._errors import UsageError
from holdfast.dialects._dialect import DeltaReader, Dialect, Evidence, Timeouts
from holdfast.dialects.chat import DEEPSEEK, OPENAI, OPENAI_COMPATIBLE, ChatDialect

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
    "ChatDialect",
    "DeltaReader",
    "Dialect",
    "Evidence",
    "Timeouts",
    "find",
]
