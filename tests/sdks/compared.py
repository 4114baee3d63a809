"""Which of the makers' SDKs are read against this library, and where they say otherwise.

No SDK is imported here: docs/dialects.md is made of this table, and of the versions in constraints.txt.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True, frozen=True, kw_only=True)
class Endpoint:
    """One way to ask an SDK for a stream, and the dialects whose transcripts it reads."""

    sdk: str
    method: str
    dialects: tuple[str, ...]


@dataclass(slots=True, frozen=True, kw_only=True)
class Disagreement:
    """In what one version of an SDK says otherwise of some recordings, and `why`: it is the SDK that does less.

    The tests fail when it does so no more. What no recording shows has a test of its own.
    """

    endpoint: str
    version: str
    recordings: tuple[str, ...] = ()
    differs: frozenset[str] = field(default_factory=frozenset)
    why: str


ENDPOINTS = {
    "openai_chat": Endpoint(
        sdk="openai", method="chat.completions.stream", dialects=("openai", "deepseek", "vllm", "openai-compatible")
    ),
    "openai_completions": Endpoint(sdk="openai", method="completions.create", dialects=("openai-compatible",)),
    "openai_responses": Endpoint(sdk="openai", method="responses.stream", dialects=("openai-responses",)),
    "anthropic_messages": Endpoint(sdk="anthropic", method="messages.stream", dialects=("anthropic",)),
    "gemini": Endpoint(sdk="google-genai", method="models.generate_content_stream", dialects=("gemini",)),
    "gemini_interactions": Endpoint(
        sdk="google-genai", method="interactions.create", dialects=("gemini-interactions",)
    ),
    "mistral": Endpoint(sdk="mistralai", method="chat.stream_async", dialects=("mistral",)),
}
"""By the name of the reader in tests/sdks/readers.py."""

DISAGREEMENTS = (
    Disagreement(
        endpoint="openai_chat",
        version="3.54.0",
        recordings=("perplexity_1.sse",),
        differs=frozenset({"finish_reason"}),
        why="passes over chunks whose `object` is not `chat.completion.chunk`: Perplexity's last has the finish reason",
    ),
    Disagreement(
        endpoint="openai_chat",
        version="3.54.0",
        recordings=("openai_6.sse",),
        differs=frozenset({"calls"}),
        why="strings together ids and names of tools that a server says again with every fragment",
    ),
    Disagreement(
        endpoint="openai_chat",
        version="3.54.0",
        recordings=("mistral_1.sse",),
        differs=frozenset({"reasoning"}),
        why="loses content that comes as a list of parts, as the thoughts of Mistral's models do",
    ),
    Disagreement(
        endpoint="openai_responses",
        version="3.54.0",
        why="`get_final_response()` raises after a response that ended incomplete, at its token limit for one",
    ),
    Disagreement(
        endpoint="mistral",
        version="3.7.0",
        recordings=("mistral_chunks_1.sse",),
        differs=frozenset({"calls"}),
        why="makes each fragment of a tool call a call of its own, with the id `null`",
    ),
)
