"""DeepSeek's Responses, https://api-docs.deepseek.com/guides/responses_api: the shape without its memory.

Nothing is stored: no response can be looked up, continued by its id, or made in the background. The clocks are those of
its chat.
"""

from holdfast.dialects._dialect import Dialect, Timeouts
from holdfast.dialects.responses import ResponsesWire

DEEPSEEK_RESPONSES = Dialect(
    name="deepseek-responses",
    wire=ResponsesWire(),
    base_url="https://api.deepseek.com",
    path="/responses",
    hosts=("api.deepseek.com",),
    key_variable="DEEPSEEK_API_KEY",
    default_model="deepseek-flash",
    refuses="concurrency",
    timeouts=Timeouts(open=60, first_token=630, progress=60, total=3600),
)
