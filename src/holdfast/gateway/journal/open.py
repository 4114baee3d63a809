"""Which journal there is, by its name in the settings: each is imported where it is wanted."""

from __future__ import annotations

from holdfast._errors import UsageError
from holdfast.gateway.journal import Journal
from holdfast.gateway.settings import Settings


def journal_of(settings: Settings) -> Journal | None:
    """Makes the journal that the settings name: `memory`, `none`, or the address of a Redis.

    Asks nobody. Raises `UsageError` for another name, and `MissingExtra` where the package for it is not installed.
    """
    if settings.journal == "none":
        return None
    if settings.journal == "memory":
        from holdfast.gateway.journal.memory import MemoryJournal  # noqa: PLC0415 - each where it is wanted

        return MemoryJournal(keep=settings.keep, max_stream=settings.max_stream, max_bytes=settings.max_memory)
    if settings.journal.startswith(("redis://", "rediss://", "unix://")):
        from holdfast.gateway.journal.redis import RedisJournal  # noqa: PLC0415 - as above, and an extra

        try:
            return RedisJournal(
                settings.journal,
                keep=settings.keep,
                max_stream=settings.max_stream,
                max_memory=settings.max_memory,
                lease=settings.lease,
            )
        except ValueError:  # whose words may quote a password
            raise UsageError("the journal's address is none of a Redis: redis://HOST:PORT/DB") from None
    raise UsageError(f"there is no journal {settings.journal!r}: it is memory, none, or redis://...")
