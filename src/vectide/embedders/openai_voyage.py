"""Voyage's embeddings. Its API is OpenAI's with other names for some parameters, and is spoken through the
openai SDK: Voyage's own brings fifty packages, and fetches tokenizers from the network.

A text that is longer than the model reads is refused (``truncation`` is false), as the API would otherwise
cut it off in silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

import httpx2
import openai

from vectide.embedders.openai_compatible import OpenAIEmbedder
from vectide.embedders.start import usable_key, usable_url
from vectide.embedders.tokens import Model

DEFAULT_BASE_URL: Final = "https://api.voyageai.com/v1"

#: Texts in one call, and the fewest tokens in one that any model takes
#: (docs.voyageai.com/reference/embeddings-api).
MAX_ITEMS: Final = 1000
CALL_TOKENS: Final = 120_000

#: What the API puts before a document ("Represent the document for retrieval: ") counts too.
_PROMPT_TOKENS: Final = 16
_READ: Final = 32_000 - _PROMPT_TOKENS

#: From the same page, and docs.voyageai.com/docs/embeddings.
MODELS: Final[Mapping[str, Model]] = {
    "voyage-4-large": Model(1024, _READ, 120_000),
    "voyage-4": Model(1024, _READ, 320_000),
    "voyage-4-lite": Model(1024, _READ, 1_000_000),
    "voyage-3-large": Model(1024, _READ, 120_000),
    "voyage-3.5": Model(1024, _READ, 320_000),
    "voyage-3.5-lite": Model(1024, _READ, 1_000_000),
    "voyage-code-3": Model(1024, _READ, 120_000),
    "voyage-finance-2": Model(1024, _READ, 120_000),
    "voyage-law-2": Model(1024, 16_000 - _PROMPT_TOKENS, 120_000),
}

_DOCUMENT: Final = "document"


class VoyageEmbedder(OpenAIEmbedder):
    """:class:`~vectide.ports.Embedder` over one model.

    Settings as in :class:`OpenAIEmbedder`; ``base_url`` is for who gets Voyage's models elsewhere (MongoDB
    Atlas: ``https://ai.mongodb.com/v1``).
    """

    provider: ClassVar[str] = "voyage"
    models: ClassVar[Mapping[str, Model]] = MODELS
    input_type: ClassVar[str | None] = _DOCUMENT
    advice: ClassVar[Mapping[str, str]] = {}

    def __init__(
        self,
        model: str,
        *,
        base_url: str = DEFAULT_BASE_URL,
        api_key: str | None = None,
        dimensions: int | None = None,
        text_tokens: int | None = None,
        tokenizer: str | None = None,
        concurrency: int = 8,
    ) -> None:
        super().__init__(
            model,
            base_url=base_url,
            api_key=api_key,
            dimensions=dimensions,
            max_items=MAX_ITEMS,
            max_tokens=CALL_TOKENS,
            text_tokens=text_tokens,
            tokenizer=tokenizer,
            concurrency=concurrency,
        )

    def _connected(self, base_url: str | None, api_key: str | None, http: httpx2.Client) -> openai.OpenAI:
        key = usable_key("Voyage", api_key)
        return openai.OpenAI(
            base_url=usable_url(base_url or ""), api_key=key, max_retries=0, http_client=http
        )

    def _parameters(self, *, query: bool) -> dict[str, object]:
        parameters: dict[str, object] = {
            "model": self._model,
            "input_type": "query" if query else _DOCUMENT,
            "truncation": False,
        }
        if self._configured is not None:
            parameters["output_dimension"] = self._configured
        return parameters


create = VoyageEmbedder
