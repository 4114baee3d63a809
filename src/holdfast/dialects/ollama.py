"""Ollama, https://docs.ollama.com/api/openai-compatibility: its models in the chat shape, at home or at ollama.com.

The role is said in every piece, `system_fingerprint` is `fp_ollama`, reasoning is `delta.reasoning` beside an empty
text. A tool call comes whole in one piece, the finish reason on one of its own, and usage without choices when it is
asked for. Finish reasons such as `load` and `unload` are passed through. A failure in the middle leaves no trace but
its end: an empty piece, no finish reason, no `[DONE]` (`middleware/openai.go` reads the error into an empty answer). A
model is loaded before the head comes. A local server needs no key.
"""

from holdfast.dialects._dialect import Dialect, Timeouts
from holdfast.dialects.chat import ChatWire

OLLAMA = Dialect(
    name="ollama",
    wire=ChatWire(ask_usage=True),
    base_url="http://localhost:11434/v1",
    path="/chat/completions",
    hosts=("ollama.com",),
    key_variable="OLLAMA_API_KEY",
    timeouts=Timeouts(open=600, first_token=600, progress=120, total=3600),
)
