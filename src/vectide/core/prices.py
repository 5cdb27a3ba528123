"""What providers charge for a million tokens, in USD: their list prices of late 2026, without the discounts
of their batch interfaces, which are not used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_OPENAI: Final = {
    "text-embedding-3-small": 0.02,
    "text-embedding-3-large": 0.13,
    "text-embedding-ada-002": 0.10,
}

#: Kind of embedder -> model -> price. What runs on one's own machine is free, whatever the model.
PRICES: Final[Mapping[str, Mapping[str, float]]] = {
    "openai": _OPENAI,
    "azure": _OPENAI,
    "cohere": {
        "embed-v5.0-fast": 0.08,
        "embed-v4.0": 0.12,
        "embed-english-v3.0": 0.10,
        "embed-multilingual-v3.0": 0.10,
        "embed-english-light-v3.0": 0.10,
        "embed-multilingual-light-v3.0": 0.10,
    },
    "voyage": {
        "voyage-4-large": 0.12,
        "voyage-4": 0.06,
        "voyage-4-lite": 0.02,
        "voyage-3.5": 0.06,
        "voyage-3.5-lite": 0.02,
        "voyage-code-3": 0.18,
        "voyage-finance-2": 0.12,
        "voyage-law-2": 0.12,
    },
    "gemini": {
        "gemini-embedding-2": 0.20,
        "gemini-embedding-001": 0.15,
    },
}

#: Kinds of embedder that run in the process itself.
FREE: Final = frozenset({"hashing", "model2vec", "onnx", "sentence-transformers", "wordllama"})


def usd_per_million_tokens(kind: str, model: str | None) -> float | None:
    """The list price; None where it is not known."""
    return 0.0 if kind in FREE else PRICES.get(kind, {}).get(model or "")


def usd_of(tokens: float, usd_per_million: float) -> float:
    """What so many tokens cost."""
    return tokens * usd_per_million / 1_000_000
