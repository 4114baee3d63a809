"""Tidepool, a provider that nobody runs: what one file must say of a new provider. CONTRIBUTING.md reads it.

https://tidepool.example/docs/chat: the chat shape. Usage comes beside the finish reason and need not be asked for; a
request that waits in its queue is kept alive by comments for five minutes.
"""

from holdfast.dialects import ChatWire, Dialect, Timeouts

TIDEPOOL = Dialect(
    name="tidepool",
    wire=ChatWire(),
    base_url="https://api.tidepool.example/v1",
    path="/chat/completions",
    hosts=("api.tidepool.example",),
    key_variable="TIDEPOOL_API_KEY",
    timeouts=Timeouts(open=60, first_token=330, progress=60, total=1800),
)
