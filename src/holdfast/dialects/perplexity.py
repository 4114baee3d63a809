"""Perplexity's Sonar, https://docs.perplexity.ai/api-reference/chat-completions-post: answers that search the web.

The chat shape with CRLF line ends and `: ping` comments. Each piece has the whole `message` so far beside its `delta`,
which is what counts; `citations` and `search_results` are repeated in every piece and stay in `delta.raw`. Usage is on
every piece, cumulative: the last one holds. The end is the finish reason and the end of the body: `[DONE]` never
comes. A deep search takes minutes before its first token.
"""

from holdfast.dialects._dialect import Dialect, Timeouts
from holdfast.dialects.chat import ChatWire

PERPLEXITY = Dialect(
    name="perplexity",
    wire=ChatWire(),
    base_url="https://api.perplexity.ai",
    path="/chat/completions",
    hosts=("api.perplexity.ai",),
    key_variable="PERPLEXITY_API_KEY",
    timeouts=Timeouts(open=600, first_token=600, progress=120, total=3600),
)
