"""DeepSeek, https://api-docs.deepseek.com: the chat shape, with the usage beside the finish reason.

A request that waits for its turn is kept alive with `: keep-alive` comments for up to ten minutes, then the server
closes (https://api-docs.deepseek.com/quick_start/rate_limit): the first token has a clock of its own. The finish reason
`insufficient_system_resource` says that the server gave up. A request counts against the account's concurrency until
its answer is whole or its connection closed. Usage splits the prompt into `prompt_cache_hit_tokens` and `_miss_tokens`.

An answer can be continued at the base `/beta`, from a last message with `prefix: true`
(https://api-docs.deepseek.com/guides/chat_prefix_completion); the prefix is not said again. The message may bear the
`reasoning_content` that came before it.
"""

from holdfast.dialects._dialect import Dialect, Timeouts
from holdfast.dialects._prefix import AssistantPrefix
from holdfast.dialects.chat import ChatWire

DEEPSEEK = Dialect(
    name="deepseek",
    wire=ChatWire(ask_usage=True),
    base_url="https://api.deepseek.com",
    path="/chat/completions",
    hosts=("api.deepseek.com",),
    key_variable="DEEPSEEK_API_KEY",
    default_model="deepseek-flash",
    refuses="concurrency",
    timeouts=Timeouts(open=60, first_token=630, progress=60, total=3600),
    prefix=AssistantPrefix(message={"prefix": True}, reasoning="reasoning_content", base="/beta"),
)
