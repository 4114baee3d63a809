"""The table of dialects: a new provider is a file of its own and a line here.

A file is imported when its dialect is asked for: nobody waits for twenty providers to talk to one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module

from holdfast.dialects._dialect import Dialect

_FILES = {
    "deepseek": ("deepseek", "DEEPSEEK"),
    "openai": ("openai", "OPENAI"),
    "azure": ("azure", "AZURE"),
    "openrouter": ("openrouter", "OPENROUTER"),
    "groq": ("groq", "GROQ"),
    "mistral": ("mistral", "MISTRAL"),
    "perplexity": ("perplexity", "PERPLEXITY"),
    "vllm": ("vllm", "VLLM"),
    "sglang": ("sglang", "SGLANG"),
    "llama.cpp": ("llama_cpp", "LLAMA_CPP"),
    "ollama": ("ollama", "OLLAMA"),
    "openai-compatible": ("openai_compatible", "OPENAI_COMPATIBLE"),
    "openai-responses": ("openai_responses", "OPENAI_RESPONSES"),
    "deepseek-responses": ("deepseek_responses", "DEEPSEEK_RESPONSES"),
    "anthropic": ("anthropic", "ANTHROPIC"),
    "deepseek-anthropic": ("anthropic", "DEEPSEEK_ANTHROPIC"),
    "gemini": ("gemini", "GEMINI"),
    "gemini-interactions": ("gemini_interactions", "GEMINI_INTERACTIONS"),
    "cohere": ("cohere", "COHERE"),
    "mcp": ("mcp", "MCP"),
    "replicate": ("replicate", "REPLICATE"),
    "sse": ("sse", "SSE"),
}
"""Name -> the module and what it is called there."""


@cache  # an address is held against all of them, at every call of a mount
def _imported(name: str) -> Dialect:
    module, attribute = _FILES[name]
    dialect: Dialect = getattr(import_module(f"holdfast.dialects.{module}"), attribute)
    return dialect


class _Dialects(Mapping[str, Dialect]):
    def __getitem__(self, name: str) -> Dialect:
        return _imported(name)

    def __contains__(self, name: object) -> bool:
        return name in _FILES

    def __iter__(self) -> Iterator[str]:
        return iter(_FILES)

    def __len__(self) -> int:
        return len(_FILES)


DIALECTS: Mapping[str, Dialect] = _Dialects()
"""Every dialect by the name users say."""
