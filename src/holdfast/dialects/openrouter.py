"""OpenRouter, https://openrouter.ai/docs/api-reference/streaming: a router over many providers, in the chat shape.

While a provider is silent, `: OPENROUTER PROCESSING` comments keep the line alive: they are no progress. The finish
reason may come twice, and the usage, with the price as `cost`, on a piece after it that still has a choice. A failure
in the middle is a piece with `error` beside its choices, or the finish reason `error`; `[DONE]` follows either.
Reasoning is `delta.reasoning`, with `reasoning_details` for what must be sent back. Before the stream, 402 says that
the credits are used up, 408, 429, 502 and 503 may pass (https://openrouter.ai/docs/api-reference/errors).
"""

from holdfast.dialects._dialect import Dialect, Timeouts
from holdfast.dialects.chat import ChatWire

OPENROUTER = Dialect(
    name="openrouter",
    wire=ChatWire(ask_usage=True),
    base_url="https://openrouter.ai/api/v1",
    path="/chat/completions",
    hosts=("openrouter.ai",),
    key_variable="OPENROUTER_API_KEY",
    timeouts=Timeouts(open=120, first_token=600, progress=120, total=3600),
)
