"""Azure OpenAI and the models of Azure AI Foundry, in the chat shape.

Each resource has a host of its own, so a base URL is needed: `https://NAME.openai.azure.com/openai/v1` since August
2025 (https://learn.microsoft.com/azure/ai-foundry/openai/api-version-lifecycle), or the older
`https://NAME.openai.azure.com/openai/deployments/DEPLOYMENT?api-version=...`, whose query stays behind the path. The
key goes into `api-key`; a token of Entra ID is the caller's own `Authorization` header.

The first piece is about the prompt: no choices, an empty id and model, `prompt_filter_results`. Rate limit headers are
whole seconds. An answer that the filter stops ends with `content_filter`.
"""

from holdfast.dialects._dialect import Dialect, Timeouts
from holdfast.dialects.chat import ChatWire

AZURE = Dialect(
    name="azure",
    wire=ChatWire(ask_usage=True),
    path="/chat/completions",
    hosts=(".openai.azure.com", ".services.ai.azure.com", ".cognitiveservices.azure.com", ".models.ai.azure.com"),
    key_variable="AZURE_OPENAI_API_KEY",
    key_header="api-key",
    key_prefix="",
    needs_model=False,
    timeouts=Timeouts(open=120, first_token=600, progress=60, total=3600),
)
