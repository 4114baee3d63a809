"""What each provider says on the wire, one file a family. Dialects decide and never wait, like machines."""

from holdfast.dialects._dialect import DeltaReader, Dialect, Evidence, Timeouts

__all__ = ["DeltaReader", "Dialect", "Evidence", "Timeouts"]
