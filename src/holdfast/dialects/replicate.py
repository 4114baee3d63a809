"""Replicate, https://replicate.com/docs/topics/predictions/streaming: the output of a prediction, as plain text.

A prediction is made first (POST /v1/predictions with `stream: true`); its `urls.stream` is then read with a GET. Events
are `output` (text, its leading spaces and line ends meant), `error` (JSON with `detail`) and at last `done`: `{}`, or
`{"reason": "canceled"}` or `"error"` where the prediction came to nothing. Each bears an `id:` (`<seconds>:<n>`); that
a GET with `Last-Event-ID` goes on behind it is what such ids are for, and documented nowhere.
"""

from holdfast.dialects._dialect import Dialect, Timeouts
from holdfast.dialects.sse import SseWire

REPLICATE = Dialect(
    name="replicate",
    wire=SseWire(end_event="done", failures={"canceled": False, "error": True}),
    base_url="https://stream.replicate.com",
    hosts=("stream.replicate.com", "streaming.api.replicate.com"),
    key_variable="REPLICATE_API_TOKEN",
    timeouts=Timeouts(open=120, first_token=600, progress=120, total=3600),
    replayable=False,
)
