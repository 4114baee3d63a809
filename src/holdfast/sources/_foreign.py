"""What stands in `__cause__` for an exception of another library.

The originals hold what they were raised over: aiohttp's keep the request with its Authorization header, the proxy with
its password, and bytes of the answer; a Unicode error keeps the whole text. Whatever prints a chain of exceptions
(tracebacks, repr(), error trackers) shows them. So an original never leaves the library, not even as `__context__`:
errors that stand for one are raised after the `except` block that caught it.
"""

from __future__ import annotations

import os


class ForeignError(Exception):
    """Names the classes an exception was made of, the first cause last, and its errno; it holds nothing else of it."""

    def __init__(self, original: BaseException) -> None:
        names = [type(original).__name__]
        first = original
        while first.__cause__ is not None:
            first = first.__cause__
            names.append(type(first).__name__)
        self.kind = names[0]
        self.errno = first.errno if isinstance(first, OSError) else None
        words = " from ".join(names)
        if self.errno is not None and self.errno > 0:
            words += f": {os.strerror(self.errno)} (errno {self.errno})"
        super().__init__(words)
