"""Embeddings over the OpenAI API: OpenAI itself and every server that speaks its ``/embeddings`` endpoint.

Through the openai SDK, with its own retries off and its response parsing by-passed: vectors are asked for
as base64 and decoded straight into float32 (several times cheaper than the SDK's lists of floats; servers
that answer with lists are understood too). The body is read piece by piece so that a server that drips
cannot hold a worker much past its deadline, nor fill the memory. Providers that speak a dialect of this API
are subclasses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

import httpx2
import openai

from vectide.embedders.api import Answered, ApiEmbedder
from vectide.embedders.http_answers import CONNECT_S, KEEPALIVE_S, most_bytes, read
from vectide.embedders.http_failures import allowance_of
from vectide.embedders.openai_answer import decode
from vectide.embedders.openai_failures import ERRORS, failure_of
from vectide.embedders.start import quiet, usable_key, usable_url
from vectide.embedders.tokens import Model
from vectide.ports import AdapterError, Deadline

DEFAULT_BASE_URL: Final = "https://api.openai.com/v1"

#: What OpenAI's models read of one text, and its API of one request, in tokens (the SDK's documentation of
#: ``embeddings.create``).
MODEL_TOKENS: Final = 8191
CALL_TOKENS: Final = 300_000

#: From the same place, and OpenAI's page of its embedding models.
MODELS: Final[Mapping[str, Model]] = {
    "text-embedding-3-small": Model(1536, MODEL_TOKENS),
    "text-embedding-3-large": Model(3072, MODEL_TOKENS),
    "text-embedding-ada-002": Model(1536, MODEL_TOKENS),
}


class OpenAIEmbedder(ApiEmbedder):
    """:class:`~vectide.ports.Embedder` over one model of one server. One client, shared by all threads.

    Settings as in :class:`ApiEmbedder`; ``concurrency`` sizes the pool of kept connections.

    The space names model and dimensions, not the server: the same model behind another address (a proxy, a
    second deployment) gives the same vectors, and moving must not mean embedding everything again. Whoever
    serves two different models under one name must give them different names.

    Raises :class:`StartupRefused` for an address or a key that cannot be sent.
    """

    provider: ClassVar[str] = "openai"
    models: ClassVar[Mapping[str, Model]] = MODELS
    advice: ClassVar[Mapping[str, str]] = {
        "not_found": "check VECTIDE_EMBEDDER__MODEL and VECTIDE_EMBEDDER__BASE_URL (it usually ends in /v1)",
    }

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        dimensions: int | None = None,
        max_items: int = 2048,
        max_tokens: int = CALL_TOKENS,
        text_tokens: int | None = None,
        tokenizer: str | None = None,
        concurrency: int = 8,
    ) -> None:
        super().__init__(
            model,
            dimensions=dimensions,
            max_items=max_items,
            max_tokens=max_tokens,
            text_tokens=text_tokens,
            tokenizer=tokenizer,
        )
        quiet("openai", "httpx2", "httpcore2")
        self._client = self._connected(
            base_url,
            api_key,
            openai.DefaultHttpxClient(
                limits=httpx2.Limits(
                    max_connections=None,  # the callers are bounded; a call never queues for a connection
                    max_keepalive_connections=concurrency + 1,
                    keepalive_expiry=KEEPALIVE_S,
                )
            ),
        )

    def close(self) -> None:
        self._client.close()

    # What dialects differ in.

    def _connected(self, base_url: str | None, api_key: str | None, http: httpx2.Client) -> openai.OpenAI:
        """The client. A server of one's own may need no key, but the SDK insists on one."""
        key = "none" if base_url and not api_key else usable_key("OpenAI", api_key)
        url = usable_url(base_url or DEFAULT_BASE_URL)
        return openai.OpenAI(base_url=url, api_key=key, max_retries=0, http_client=http)

    def _parameters(self, *, query: bool) -> dict[str, object]:
        """Of a request, beside its texts and their encoding."""
        parameters: dict[str, object] = {"model": self._model}
        if self._configured is not None:
            parameters["dimensions"] = self._configured
        return parameters

    # The call.

    @property
    def _host(self) -> str:
        return self._client.base_url.host

    def _call(self, texts: list[str], deadline: Deadline, *, query: bool) -> Answered:
        remaining_s = deadline.remaining_s()
        parameters = self._parameters(query=query)
        try:
            with self._client.embeddings.with_streaming_response.create(
                model=str(parameters.pop("model")),
                input=texts,
                encoding_format="base64",
                extra_body=parameters,
                timeout=httpx2.Timeout(remaining_s, connect=min(CONNECT_S, remaining_s)),
            ) as response:
                allowance = allowance_of(response.headers)
                body = read(response, most_bytes(len(texts), self._dimensions), deadline)
        except ERRORS as exc:
            # Not chained: the SDK's errors hold the request, and with it the texts and the key.
            raise AdapterError(failure_of(exc)) from None
        vectors, tokens = decode(body, len(texts))
        return Answered(vectors, tokens, allowance)


create = OpenAIEmbedder
