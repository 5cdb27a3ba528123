"""Embeddings over the OpenAI API: OpenAI itself and every server that speaks its ``/embeddings`` endpoint.

Through the openai SDK, with its own retries off and its response parsing by-passed: vectors are asked for
as base64 and decoded straight into float32 (several times cheaper than the SDK's lists of floats; servers
that answer with lists are understood too). Providers that speak a dialect of this API are subclasses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import httpx2
import openai

from vectide.embedders import checked, checked_texts, in_time
from vectide.embedders.openai_answer import decode, read
from vectide.embedders.openai_failures import ERRORS, failure_of
from vectide.embedders.start import PROBE, at_start, dimensions_of, quiet, usable_key, usable_url
from vectide.embedders.tokens import counter_of, limits_of
from vectide.ports import AdapterError, Deadline, EmbedderLimits, Embeddings, Vector

DEFAULT_BASE_URL: Final = "https://api.openai.com/v1"

#: What OpenAI's models read of one text, and its API of one request, in tokens (the SDK's documentation of
#: ``embeddings.create``).
MODEL_TOKENS: Final = 8191
CALL_TOKENS: Final = 300_000

_CONNECT_S: Final = 5.0
_KEEPALIVE_S: Final = 30.0
#: The most bytes of one number in a JSON list, and what an answer may hold besides its vectors.
_NUMBER_BYTES: Final = 32
_ANSWER_BYTES: Final = 1 << 20
_LARGEST_DIMENSIONS: Final = 8192


@dataclass(frozen=True, slots=True)
class Model:
    """What is known of a model without asking: its dimensions, the tokens that it reads of one text, and
    those that the provider accepts in one request."""

    dimensions: int
    text_tokens: int = MODEL_TOKENS
    call_tokens: int = CALL_TOKENS


#: From the SDK's documentation and OpenAI's page of its embedding models.
MODELS: Final[Mapping[str, Model]] = {
    "text-embedding-3-small": Model(1536),
    "text-embedding-3-large": Model(3072),
    "text-embedding-ada-002": Model(1536),
}


class OpenAIEmbedder:
    """:class:`~vectide.ports.Embedder` over one model of one server. One client, shared by all threads.

    ``dimensions`` is sent along only when given; otherwise :meth:`prepare` learns it. ``max_tokens`` is
    what the provider accepts in one request; ``text_tokens`` what the model reads of one text, where it is
    not one that is known. ``tokenizer`` is the path of the model's ``tokenizer.json``; without it tokens
    are estimated. ``concurrency`` sizes the pool of kept connections.

    The space names model and dimensions, not the server: the same model behind another address (a proxy, a
    second deployment) gives the same vectors, and moving must not mean embedding everything again. Whoever
    serves two different models under one name must give them different names.

    Raises :class:`StartupRefused` for an address or a key that cannot be sent.
    """

    #: The provider, as the space and messages name it.
    provider: ClassVar[str] = "openai"
    models: ClassVar[Mapping[str, Model]] = MODELS
    #: Cause of a failure at start -> what to do, where this provider's differs from what all have.
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
        max_tokens: int | None = None,
        text_tokens: int | None = None,
        tokenizer: str | None = None,
        concurrency: int = 8,
    ) -> None:
        self._model = model
        self._configured = dimensions
        known = self.models.get(model)
        self._dimensions = dimensions or (known.dimensions if known else None)
        text_tokens = text_tokens or (known.text_tokens if known else None)
        max_tokens = max_tokens or (known.call_tokens if known else CALL_TOKENS)
        self._count = counter_of(tokenizer)
        self._limits = limits_of(max_items, max_tokens, text_tokens, exact=tokenizer is not None)
        quiet("openai", "httpx2", "httpcore2")
        self._client = self._connected(
            base_url,
            api_key,
            openai.DefaultHttpxClient(
                limits=httpx2.Limits(
                    max_connections=None,  # the callers are bounded; a call never queues for a connection
                    max_keepalive_connections=concurrency + 1,
                    keepalive_expiry=_KEEPALIVE_S,
                )
            ),
        )

    def prepare(self, deadline: Deadline) -> None:
        """One tiny call: does the server take the key and the model, and how long are its vectors?"""
        try:
            (vector,), _ = self._call([PROBE], deadline)
        except AdapterError as exc:
            raise at_start(exc.failure, self._client.base_url.host, self._model, self.advice) from None
        self._dimensions = dimensions_of(vector, self._model, self._configured)

    @property
    def space(self) -> str:
        return f"{self.provider}/{self._model}/{self.dimensions}"

    @property
    def dimensions(self) -> int:
        """Known once configured, or for models that are known, or after :meth:`prepare`."""
        if self._dimensions is None:
            raise RuntimeError("the dimension is not known before prepare()")
        return self._dimensions

    @property
    def limits(self) -> EmbedderLimits:
        """In tokens as :meth:`count_tokens` counts them: :func:`~vectide.embedders.tokens.limits_of`."""
        return self._limits

    def count_tokens(self, text: str) -> int:
        """Exact with the model's tokenizer, else :func:`~vectide.embedders.tokens.estimate`."""
        return self._count(text)

    def embed(self, texts: Sequence[str], deadline: Deadline) -> Embeddings:
        return self._embed(texts, deadline, query=False)

    def embed_query(self, text: str, deadline: Deadline) -> Vector:
        vector: Vector = self._embed([text], deadline, query=True).vectors[0]
        return vector

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

    def _embed(self, texts: Sequence[str], deadline: Deadline, *, query: bool) -> Embeddings:
        vectors, tokens = self._call(checked_texts(texts), deadline, query=query)
        return checked(vectors, len(texts), self.dimensions, tokens)

    def _call(
        self, texts: list[str], deadline: Deadline, *, query: bool = False
    ) -> tuple[list[Vector], int | None]:
        in_time(deadline)
        remaining_s = deadline.remaining_s()
        dimensions = self._configured or self._dimensions or _LARGEST_DIMENSIONS
        parameters = self._parameters(query=query)
        try:
            with self._client.embeddings.with_streaming_response.create(
                model=str(parameters.pop("model")),
                input=texts,
                encoding_format="base64",
                extra_body=parameters,
                timeout=httpx2.Timeout(remaining_s, connect=min(_CONNECT_S, remaining_s)),
            ) as response:
                body = read(response, len(texts) * dimensions * _NUMBER_BYTES + _ANSWER_BYTES, deadline)
        except ERRORS as exc:
            # Not chained: the SDK's errors hold the request, and with it the texts and the key.
            raise AdapterError(failure_of(exc)) from None
        return decode(body, len(texts))


create = OpenAIEmbedder
