"""OpenAI chat completions, https://platform.openai.com/docs/api-reference/chat-streaming: who made the shape.

Usage comes on a piece of its own, without choices, and only when it is asked for (`stream_options.include_usage`); a
stream that was interrupted may lack it. Each piece is padded with `obfuscation`. A tool that was asked for by name ends
with `stop`. An account without money is a 429 with the code `insufficient_quota`, which no waiting mends. Nothing can
be resumed, and `seed` is a best effort. An account may live in a region, at a host below api.openai.com.
"""

from holdfast.dialects._dialect import Dialect, Timeouts
from holdfast.dialects.chat import ChatWire

OPENAI = Dialect(
    name="openai",
    wire=ChatWire(ask_usage=True),
    base_url="https://api.openai.com/v1",
    path="/chat/completions",
    hosts=("api.openai.com", ".api.openai.com"),
    key_variable="OPENAI_API_KEY",
    timeouts=Timeouts(open=120, first_token=600, progress=60, total=3600),
    end_mark=True,
)
