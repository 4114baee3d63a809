"""What stands in `__cause__` for an exception of another library.

The originals hold what they were raised over: aiohttp's keep the request with its Authorization header, the proxy with
its password, and bytes of the answer; a Unicode error keeps the whole text. Whatever prints a chain of exceptions
(tracebacks, repr(), error trackers) shows them. So an original never leaves the library, not even as `__context__`:
errors that stand for one are raised after the `except` block that caught it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator


def causes(error: BaseException) -> Iterator[BaseException]:
    """Gives an exception and what it was raised from, the first cause last; of several that failed together, one.

    What was raised again `from None` (as httpcore does) has lost its cause, and still has the context, the same thing.
    """
    following: BaseException | None = error
    while following is not None:
        if isinstance(following, BaseExceptionGroup):
            following = following.exceptions[0]
        yield following
        hidden = following.__context__ if following.__suppress_context__ else None
        following = following.__cause__ or hidden


class ForeignError(Exception):
    """Names the classes an exception was made of, the first cause last, and its errno; it holds nothing else of it."""

    def __init__(self, original: BaseException) -> None:
        chain = list(causes(original))
        names = [type(one).__name__ for one in chain]
        first = chain[-1]
        self.kind = names[0]
        self.errno = first.errno if isinstance(first, OSError) else None
        words = " from ".join(names)
        if self.errno is not None and self.errno > 0:
            words += f": {os.strerror(self.errno)} (errno {self.errno})"
        super().__init__(words)
