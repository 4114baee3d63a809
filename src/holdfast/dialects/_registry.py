"""The table of dialects: a new provider is a file of its own and a line here."""

from holdfast.dialects._dialect import Dialect
from holdfast.dialects.anthropic import ANTHROPIC, DEEPSEEK_ANTHROPIC
from holdfast.dialects.azure import AZURE
from holdfast.dialects.cohere import COHERE
from holdfast.dialects.deepseek import DEEPSEEK
from holdfast.dialects.deepseek_responses import DEEPSEEK_RESPONSES
from holdfast.dialects.gemini import GEMINI
from holdfast.dialects.gemini_interactions import GEMINI_INTERACTIONS
from holdfast.dialects.groq import GROQ
from holdfast.dialects.llama_cpp import LLAMA_CPP
from holdfast.dialects.mcp import MCP
from holdfast.dialects.mistral import MISTRAL
from holdfast.dialects.ollama import OLLAMA
from holdfast.dialects.openai import OPENAI
from holdfast.dialects.openai_compatible import OPENAI_COMPATIBLE
from holdfast.dialects.openai_responses import OPENAI_RESPONSES
from holdfast.dialects.openrouter import OPENROUTER
from holdfast.dialects.perplexity import PERPLEXITY
from holdfast.dialects.replicate import REPLICATE
from holdfast.dialects.sglang import SGLANG
from holdfast.dialects.sse import SSE
from holdfast.dialects.vllm import VLLM

DIALECTS: dict[str, Dialect] = {
    d.name: d
    for d in (
        DEEPSEEK,
        OPENAI,
        AZURE,
        OPENROUTER,
        GROQ,
        MISTRAL,
        PERPLEXITY,
        VLLM,
        SGLANG,
        LLAMA_CPP,
        OLLAMA,
        OPENAI_COMPATIBLE,
        OPENAI_RESPONSES,
        DEEPSEEK_RESPONSES,
        ANTHROPIC,
        DEEPSEEK_ANTHROPIC,
        GEMINI,
        GEMINI_INTERACTIONS,
        COHERE,
        MCP,
        REPLICATE,
        SSE,
    )
}
"""Every dialect by the name users say."""
