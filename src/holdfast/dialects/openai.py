"""OpenAI chat completions, https://platform.openai.com/docs/api-reference/chat/streaming: who made the shape.

Usage comes on a chunk of its own, without choices, when it is asked for. Nothing can be resumed.
"""

from holdfast.dialects._dialect import Dialect, Timeouts
from holdfast.dialects.chat import ChatWire

OPENAI = Dialect(
    name="openai",
    wire=ChatWire(ask_usage=True),
    base_url="https://api.openai.com/v1",
    path="/chat/completions",
    hosts=("api.openai.com",),
    key_variable="OPENAI_API_KEY",
    timeouts=Timeouts(open=120, first_token=600, progress=60, total=3600),
)
