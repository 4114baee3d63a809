"""Anthropic, https://platform.claude.com/docs/en/api/messages, who made the Messages shape; and DeepSeek's like it.

The key goes out in `x-api-key`, beside the version of the API. An answer can be continued from what it said by models
up to Claude 4.5; later ones refuse a last turn of the assistant's with a 400. A compressed answer comes in lumps.

DeepSeek (https://api-docs.deepseek.com/guides/anthropic_api) thinks unless it is told not to, and says nothing of
continuing a message. Its clocks are those of its chat.
"""

from holdfast.dialects._dialect import Dialect, Timeouts
from holdfast.dialects.messages import MessagesWire, TurnPrefix

ANTHROPIC = Dialect(
    name="anthropic",
    wire=MessagesWire(),
    base_url="https://api.anthropic.com",
    path="/v1/messages",
    hosts=("api.anthropic.com",),
    key_variable="ANTHROPIC_API_KEY",
    key_header="x-api-key",
    key_prefix="",
    fixed_headers={"anthropic-version": "2023-06-01"},
    timeouts=Timeouts(open=120, first_token=600, progress=120, total=3600),
    prefix=TurnPrefix(),
)

DEEPSEEK_ANTHROPIC = Dialect(
    name="deepseek-anthropic",
    wire=MessagesWire(),
    base_url="https://api.deepseek.com/anthropic",
    path="/v1/messages",
    hosts=("api.deepseek.com",),
    key_variable="DEEPSEEK_API_KEY",
    key_header="x-api-key",
    key_prefix="",
    fixed_headers={"anthropic-version": "2023-06-01"},
    default_model="deepseek-flash",
    timeouts=Timeouts(open=60, first_token=630, progress=60, total=3600),
)
