"""vLLM's server, https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html: the chat shape, of any model.

The first piece has a role and an empty text; usage comes without choices when it is asked for (or is forced by the
server, on every piece even). Whatever fails after the head is `{"error": {..., "code": int}}` and then `[DONE]`,
without a finish reason; `abort` says that the engine dropped the request. Reasoning is `delta.reasoning`,
`reasoning_content` in older builds. A tool that was asked for by name ends with `stop`.

An answer can be continued with `continue_final_message`, which needs `add_generation_prompt: false`
(`ChatCompletionRequest`): the template leaves the last message open. The prefix is not said again, unless `echo` is
set.
"""

from holdfast.dialects._dialect import Dialect, Timeouts
from holdfast.dialects._prefix import AssistantPrefix
from holdfast.dialects.chat import ChatWire

VLLM = Dialect(
    name="vllm",
    wire=ChatWire(ask_usage=True),
    base_url="http://localhost:8000/v1",
    path="/chat/completions",
    key_variable="VLLM_API_KEY",
    needs_model=False,
    timeouts=Timeouts(open=600, first_token=600, progress=120, total=3600),
    prefix=AssistantPrefix(body={"add_generation_prompt": False, "continue_final_message": True}),
)
