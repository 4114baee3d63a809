"""Holdfast: resilient streaming transport for LLM completions. Exact, or a typed error."""
