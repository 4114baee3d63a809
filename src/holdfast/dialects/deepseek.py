"""DeepSeek, https://api-docs.deepseek.com: the chat shape, with the usage beside the finish reason.

A request that waits for its turn is kept alive with `: keep-alive` comments for up to ten minutes, then the server
closes (https://api-docs.deepseek.com/quick_start/rate_limit): the first token has a clock of its own. The finish reason
`insufficient_system_resource` says that the server gave up.
"""

from holdfast.dialects._dialect import Dialect, Timeouts
from holdfast.dialects.chat import ChatWire

DEEPSEEK = Dialect(
    name="deepseek",
    wire=ChatWire(ask_usage=True),
    base_url="https://api.deepseek.com",
    path="/chat/completions",
    hosts=("api.deepseek.com",),
    key_variable="DEEPSEEK_API_KEY",
    default_model="deepseek-flash",
    timeouts=Timeouts(open=60, first_token=630, progress=60, total=3600),
)
