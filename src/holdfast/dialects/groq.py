"""Groq, https://console.groq.com/docs/api-reference#chat-create: the chat shape, with `x_groq` on some pieces.

Usage is always in `x_groq.usage` of the last piece, and at the top when it is asked for. `x_groq.error` says in words
why a stream was stopped early (groq-python, `XGroq.error`). A tool call that the model got wrong is an event named
`error` with the code `tool_use_failed` and `status_code` 400, after which nothing comes, not even `[DONE]`. Reasoning
is `delta.reasoning`. Answers are fast, so silence is short; rate limit headers are durations such as `2m59.56s`.
"""

from holdfast.dialects._dialect import Dialect, Timeouts
from holdfast.dialects.chat import ChatWire

GROQ = Dialect(
    name="groq",
    wire=ChatWire(ask_usage=True),
    base_url="https://api.groq.com/openai/v1",
    path="/chat/completions",
    hosts=("api.groq.com",),
    key_variable="GROQ_API_KEY",
    timeouts=Timeouts(open=60, first_token=120, progress=30, total=1800),
)
