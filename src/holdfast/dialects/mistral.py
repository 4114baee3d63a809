"""Mistral, https://docs.mistral.ai/api: the chat shape, with the usage on the last piece.

Parameters that it does not know are refused with 422 (`extra_forbidden`), `stream_options` and `reasoning_content`
among them: usage is never asked for, and comes all the same. Pieces are padded with `p`. Models that think send
`content` as a list of `thinking` and `text` parts. Tool calls come whole in one piece, some without an index. Finish
reasons are `stop`, `length`, `model_length`, `tool_calls`, and `error`, which says that the server gave up.

An answer can be continued from a last message with `prefix: true`; what comes begins with that prefix again, as its
guide on prefixes shows by cutting it off.
"""

from holdfast.dialects._dialect import Dialect, Timeouts
from holdfast.dialects._prefix import AssistantPrefix
from holdfast.dialects.chat import ChatWire

MISTRAL = Dialect(
    name="mistral",
    wire=ChatWire(),
    base_url="https://api.mistral.ai/v1",
    path="/chat/completions",
    hosts=("api.mistral.ai", ".api.mistral.ai", "codestral.mistral.ai"),
    key_variable="MISTRAL_API_KEY",
    timeouts=Timeouts(open=120, first_token=600, progress=60, total=3600),
    prefix=AssistantPrefix(message={"prefix": True}, echoes=True),
)
