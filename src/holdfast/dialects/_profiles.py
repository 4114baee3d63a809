"""Whose chat shape this is: the marks that providers leave in their pieces.

A mark is a key or a value that one provider alone is known to send; what several send is none. Not every piece bears
one, and some providers never do: a gateway that rewrites pieces, Azure's models of other makers, Mistral's first piece,
and OpenAI's older models say nothing of themselves, and are read as `openai-compatible`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_DEEPSEEK = re.compile(r"fp_[0-9a-f]+_prod\d+")
_LLAMA_CPP = re.compile(r"b\d+-[0-9a-f]{7,}")


def profile_of(chunk: Mapping[str, Any]) -> str | None:
    """Names the dialect that a piece of the chat shape surely is of, None where it bears no mark."""
    return next((name for name, borne in marks(chunk).items() if borne), None)


def marks(chunk: Mapping[str, Any]) -> dict[str, bool]:
    """Says of each dialect that has a mark whether a piece bears it. A router comes before those whom it asks."""
    choices, usage, fingerprint = chunk.get("choices"), chunk.get("usage"), chunk.get("system_fingerprint")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    delta = choice.get("delta")
    usage = usage if isinstance(usage, dict) else {}
    fingerprint = fingerprint if isinstance(fingerprint, str) else ""
    in_parts = isinstance(delta, dict) and isinstance(delta.get("content"), list)
    return {
        "groq": "x_groq" in chunk,
        "openrouter": "native_finish_reason" in choice or "is_byok" in usage,
        "azure": "prompt_filter_results" in chunk or "content_filter_results" in choice,
        "perplexity": "message" in choice and "delta" in choice,
        "deepseek": _DEEPSEEK.match(fingerprint) is not None or "prompt_cache_hit_tokens" in usage,
        "ollama": fingerprint == "fp_ollama",
        "sglang": "matched_stop" in choice,
        "vllm": "stop_reason" in choice or "prompt_token_ids" in chunk or fingerprint.startswith("vllm-"),
        "llama.cpp": "timings" in chunk or _LLAMA_CPP.fullmatch(fingerprint) is not None,
        "mistral": isinstance(chunk.get("p"), str) or in_parts,
        "openai": "obfuscation" in chunk,
    }
