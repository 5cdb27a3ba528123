"""Cohere's embeddings, over version 2 of its API and through its SDK.

Vectors are asked for as base64 (eighty times cheaper to read than the SDK's lists of floats). A text that is
longer than the model reads is refused (``truncate`` is ``NONE``), as the API would otherwise cut it off in
silence. Its answers have no indexes: they are in the order of the texts.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

import cohere

from vectide.core.failures import Failure, Kind
from vectide.embedders.api import Answered, ApiEmbedder
from vectide.embedders.bounded_http import BoundedClient
from vectide.embedders.cohere_failures import ERRORS, failure_of
from vectide.embedders.http_answers import most_bytes, vector_of
from vectide.embedders.start import quiet, usable_key, usable_url
from vectide.embedders.tokens import Model
from vectide.ports import AdapterError, Deadline, Vector

DEFAULT_BASE_URL: Final = "https://api.cohere.com"

#: Texts in one call (the SDK's documentation of ``embed``).
MAX_ITEMS: Final = 96

#: From Cohere's page of its embedding models (docs.cohere.com/docs/cohere-embed). Those of version 3 add a
#: token before and after each text.
MODELS: Final[Mapping[str, Model]] = {
    "embed-v5.0-pro": Model(2048, 128_000),
    "embed-v5.0-fast": Model(2048, 128_000),
    "embed-v4.0": Model(1536, 128_000),
    "embed-english-v3.0": Model(1024, 512),
    "embed-multilingual-v3.0": Model(1024, 512),
    "embed-english-light-v3.0": Model(384, 512),
    "embed-multilingual-light-v3.0": Model(384, 512),
}

_DOCUMENT: Final = "search_document"
_QUERY: Final = "search_query"


class CohereEmbedder(ApiEmbedder):
    """:class:`~vectide.ports.Embedder` over one model. One client, shared by all threads.

    Settings as in :class:`ApiEmbedder`; ``base_url`` is for a deployment of one's own or a proxy, without a
    path. ``concurrency`` sizes the pool of kept connections. Raises :class:`StartupRefused` for an address
    or a key that cannot be sent.
    """

    provider: ClassVar[str] = "cohere"
    models: ClassVar[Mapping[str, Model]] = MODELS
    input_type: ClassVar[str | None] = _DOCUMENT

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
            dimensions=dimensions,
            max_items=MAX_ITEMS,
            max_tokens=None,
            text_tokens=text_tokens,
            tokenizer=tokenizer,
        )
        quiet("cohere", "fern", "httpx", "httpcore")
        self._url = usable_url(base_url)
        key = usable_key("Cohere", api_key)
        self._http = BoundedClient(concurrency)
        self._client = cohere.ClientV2(
            api_key=key, base_url=self._url, max_retries=0, httpx_client=self._http, client_name="vectide"
        )

    def close(self) -> None:
        self._http.close()

    @property
    def _host(self) -> str:
        return urlsplit(self._url).hostname or self._url

    def _call(self, texts: list[str], deadline: Deadline, *, query: bool) -> Answered:
        size: dict[str, Any] = {} if self._configured is None else {"output_dimension": self._configured}
        try:
            with self._http.bounds(deadline, most_bytes(len(texts), self._dimensions)):
                answer = self._client.embed(
                    model=self._model,
                    texts=texts,
                    input_type=_QUERY if query else _DOCUMENT,
                    embedding_types=["base64"],
                    truncate="NONE",
                    request_options={"max_retries": 0},
                    **size,
                )
        except ERRORS as exc:
            # Not chained: the SDK's errors hold the answer, which may echo the texts.
            raise AdapterError(failure_of(exc)) from None
        return Answered(_vectors(answer), _tokens(answer))


def _vectors(answer: Any) -> list[Vector]:
    """From an answer that the SDK has not checked: base64, or lists from a server that knows no better."""
    embeddings = getattr(answer, "embeddings", None)
    if embeddings is None:
        raise AdapterError(Failure(Kind.TRANSIENT, "error_in_answer"))
    encoded, lists = getattr(embeddings, "base64", None), getattr(embeddings, "float_", None)
    try:
        if encoded is not None:
            return [vector_of(base64.b64decode(one, validate=True)) for one in encoded]
        return [vector_of([float("nan") if n is None else float(n) for n in one]) for one in lists or ()]
    except (TypeError, ValueError):
        raise AdapterError(Failure(Kind.INVALID, "malformed")) from None


def _tokens(answer: Any) -> int | None:
    billed = getattr(getattr(answer, "meta", None), "billed_units", None)
    tokens = getattr(billed, "input_tokens", None)
    return int(tokens) if isinstance(tokens, int | float) else None


create = CohereEmbedder
