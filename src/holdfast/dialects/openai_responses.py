"""OpenAI's Responses, https://platform.openai.com/docs/api-reference/responses: who made the shape.

With `"background": true` an answer outlives its connection, and is read on where it stopped. A model that thinks says
nothing of it but a summary, if asked to, and a server tool nothing at all, so long pauses are no stall.
"""

from holdfast.dialects._dialect import Dialect, Timeouts
from holdfast.dialects.responses import BackgroundCursor, ResponsesWire

OPENAI_RESPONSES = Dialect(
    name="openai-responses",
    wire=ResponsesWire(),
    base_url="https://api.openai.com/v1",
    path="/responses",
    hosts=("api.openai.com", ".api.openai.com"),
    key_variable="OPENAI_API_KEY",
    timeouts=Timeouts(open=120, first_token=600, progress=300, total=3600),
    cursor=BackgroundCursor(),
)
