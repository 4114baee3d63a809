"""SGLang's server, https://docs.sglang.ai/basic_usage/openai_api_completions.html: the chat shape, of any model.

Pieces bear `matched_stop`; older builds send each key of a delta, null where it has nothing. Usage comes without
choices when it is asked for, with `reasoning_tokens` at its top. A request that the scheduler aborts is `{"error":
...}` and then `[DONE]`, without a finish reason.

An answer can be continued with `continue_final_message` (`serving_chat.py`): the last message is taken out of the
conversation and written behind the template's prompt. Without it, a last message of the assistant becomes the user's.
"""

from holdfast.dialects._dialect import Dialect, Timeouts
from holdfast.dialects._prefix import AssistantPrefix
from holdfast.dialects.chat import ChatWire

SGLANG = Dialect(
    name="sglang",
    wire=ChatWire(ask_usage=True),
    base_url="http://localhost:30000/v1",
    path="/chat/completions",
    needs_model=False,
    timeouts=Timeouts(open=600, first_token=600, progress=120, total=3600),
    prefix=AssistantPrefix(body={"continue_final_message": True}),
)
