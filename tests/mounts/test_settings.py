"""What a mount refuses where it is made, and not in the middle of somebody else's request."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast import UsageError, mounts


@pytest.mark.parametrize("make", [mounts.httpx_client, mounts.httpx_sync_client, mounts.aiohttp_middleware])
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"seams": "no"}, r"seams= takes True, False or Seams\(...\), not 'no'"),
        ({"seams": ("prefix",)}, "seams= takes True, False"),
        ({"timeouts": 30}, r"timeouts= takes Timeouts\(.*, not 30"),
        ({"dialect": "deepsek"}, "did you mean 'deepseek'"),
        ({"clock": 3}, "clock= takes something"),
        ({"max_requests": "8"}, "max_requests must be a whole number from 1, not '8'"),
    ],
)
def test_a_mount_says_what_is_wrong_where_it_is_made(make: Any, settings: dict[str, Any], words: str) -> None:
    with pytest.raises((UsageError, ValueError), match=words):
        make(**settings)
