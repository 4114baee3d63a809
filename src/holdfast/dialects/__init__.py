"""What each provider says on the wire, one file a provider. Dialects decide and never wait, like machines."""

from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any

from holdfast._errors import UsageError
from holdfast.dialects._dialect import (
    CursorRung,
    DeltaReader,
    Dialect,
    Evidence,
    PrefixRung,
    Said,
    Teller,
    Timeouts,
    Wire,
    state_of,
)
from holdfast.dialects._prefix import AssistantPrefix
from holdfast.dialects._registry import DIALECTS
from holdfast.dialects.auto import AUTO, AutoReader, at_address, by_address, by_endpoint, by_events
from holdfast.dialects.chat import ChatWire
from holdfast.machines.settings import check_kind

if TYPE_CHECKING:
    from holdfast.dialects.anthropic import ANTHROPIC, DEEPSEEK_ANTHROPIC, TurnPrefix
    from holdfast.dialects.azure import AZURE
    from holdfast.dialects.cohere import COHERE
    from holdfast.dialects.deepseek import DEEPSEEK
    from holdfast.dialects.deepseek_responses import DEEPSEEK_RESPONSES
    from holdfast.dialects.gemini import GEMINI
    from holdfast.dialects.gemini_interactions import GEMINI_INTERACTIONS
    from holdfast.dialects.groq import GROQ
    from holdfast.dialects.llama_cpp import LLAMA_CPP
    from holdfast.dialects.mcp import MCP
    from holdfast.dialects.messages import MessagesWire
    from holdfast.dialects.mistral import MISTRAL
    from holdfast.dialects.ollama import OLLAMA
    from holdfast.dialects.openai import OPENAI
    from holdfast.dialects.openai_compatible import OPENAI_COMPATIBLE
    from holdfast.dialects.openai_responses import OPENAI_RESPONSES, BackgroundCursor
    from holdfast.dialects.openrouter import OPENROUTER
    from holdfast.dialects.perplexity import PERPLEXITY
    from holdfast.dialects.replicate import REPLICATE
    from holdfast.dialects.responses import ResponsesWire
    from holdfast.dialects.sglang import SGLANG
    from holdfast.dialects.sse import SSE, SseWire
    from holdfast.dialects.vllm import VLLM

_LATER = {
    "ANTHROPIC": "anthropic",
    "AZURE": "azure",
    "BackgroundCursor": "openai_responses",
    "COHERE": "cohere",
    "DEEPSEEK": "deepseek",
    "DEEPSEEK_ANTHROPIC": "anthropic",
    "DEEPSEEK_RESPONSES": "deepseek_responses",
    "GEMINI": "gemini",
    "GEMINI_INTERACTIONS": "gemini_interactions",
    "GROQ": "groq",
    "LLAMA_CPP": "llama_cpp",
    "MCP": "mcp",
    "MISTRAL": "mistral",
    "MessagesWire": "messages",
    "OLLAMA": "ollama",
    "OPENAI": "openai",
    "OPENAI_COMPATIBLE": "openai_compatible",
    "OPENAI_RESPONSES": "openai_responses",
    "OPENROUTER": "openrouter",
    "PERPLEXITY": "perplexity",
    "REPLICATE": "replicate",
    "ResponsesWire": "responses",
    "SGLANG": "sglang",
    "SSE": "sse",
    "SseWire": "sse",
    "TurnPrefix": "anthropic",
    "VLLM": "vllm",
}
"""Name -> its module, imported when it is asked for."""


_OF_MODELS = {"claude": "anthropic", "gpt": "openai", "google": "gemini", "command": "cohere"}
"""What models and companies are called, whose dialects have other names: to suggest those, not to take these."""


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(import_module(f"holdfast.dialects.{_LATER[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def find(dialect: str | Dialect) -> Dialect:
    """Gives a dialect by name; one that is a dialect already stays it. Raises `UsageError` for an unknown name."""
    check_kind("dialect", dialect, (str, Dialect), "a name or a Dialect")
    if not isinstance(dialect, str):
        return dialect
    if dialect == AUTO.name:
        return AUTO
    try:
        return DIALECTS[dialect]
    except KeyError:
        names = {name: name for name in (*DIALECTS, AUTO.name)} | _OF_MODELS
        near = get_close_matches(dialect.lower(), names, n=1, cutoff=0.65)
        meant = f" (did you mean {names[near[0]]!r}?)" if near else ""
        raise UsageError(
            f"no dialect is called {dialect!r}{meant}; there are {', '.join(DIALECTS)}, and auto"
        ) from None


__all__ = [
    "ANTHROPIC",
    "AUTO",
    "AZURE",
    "COHERE",
    "DEEPSEEK",
    "DEEPSEEK_ANTHROPIC",
    "DEEPSEEK_RESPONSES",
    "DIALECTS",
    "GEMINI",
    "GEMINI_INTERACTIONS",
    "GROQ",
    "LLAMA_CPP",
    "MCP",
    "MISTRAL",
    "OLLAMA",
    "OPENAI",
    "OPENAI_COMPATIBLE",
    "OPENAI_RESPONSES",
    "OPENROUTER",
    "PERPLEXITY",
    "REPLICATE",
    "SGLANG",
    "SSE",
    "VLLM",
    "AssistantPrefix",
    "AutoReader",
    "BackgroundCursor",
    "ChatWire",
    "CursorRung",
    "DeltaReader",
    "Dialect",
    "Evidence",
    "MessagesWire",
    "PrefixRung",
    "ResponsesWire",
    "Said",
    "SseWire",
    "Teller",
    "Timeouts",
    "TurnPrefix",
    "Wire",
    "at_address",
    "by_address",
    "by_endpoint",
    "by_events",
    "find",
    "state_of",
]
