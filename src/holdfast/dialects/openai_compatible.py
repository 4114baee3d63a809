"""Any server that says it speaks OpenAI's chat shape, and of which nothing more is known.

A local server may load its model before it sends a head, and how it ends an answer varies, so it is forgiven more:
usage and `[DONE]` together are an end, too.
"""

from holdfast.dialects._dialect import Dialect
from holdfast.dialects.chat import ChatWire

OPENAI_COMPATIBLE = Dialect(
    name="openai-compatible",
    wire=ChatWire(strict=False),
    path="/chat/completions",
    key_variable="OPENAI_API_KEY",
    needs_model=False,
)
