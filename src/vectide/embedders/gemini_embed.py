"""Gemini's embeddings, over the REST interface of its developer API.

Spoken directly: Google's SDK takes as long to import as the whole of a start may, and makes one vector of
several texts for some models. The API cuts a text off in silence that is longer than the model reads.
Whatever could be too long (a token is never less than a byte) is therefore counted by the API before it is
sent, and refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar, Final
from urllib.parse import quote, urlsplit

import msgspec
import numpy as np

from vectide.core.failures import Failure, Kind
from vectide.embedders import in_time
from vectide.embedders.api import Answered, ApiEmbedder
from vectide.embedders.bounded_http import HTTP_ERRORS, BoundedClient, failure_of_http
from vectide.embedders.gemini_failures import failure_of
from vectide.embedders.http_answers import most_bytes, vector_of
from vectide.embedders.start import at_start, quiet, usable_key, usable_url
from vectide.embedders.tokens import Model
from vectide.ports import AdapterError, Deadline, Vector

DEFAULT_BASE_URL: Final = "https://generativelanguage.googleapis.com"

#: Texts in one call: "at most 100 requests can be in one batch".
MAX_ITEMS: Final = 100

#: From Google's page of its embedding models (ai.google.dev/gemini-api/docs/embeddings).
MODELS: Final[Mapping[str, Model]] = {
    "gemini-embedding-001": Model(3072, 2048),
    "gemini-embedding-2": Model(3072, 8192),
}

#: What is put before a text for models that take no task types, from the same page.
_PROMPTED: Final = "gemini-embedding-2"
_PROMPTS: Final = {False: "title: none | text: ", True: "task: search result | query: "}
_TASKS: Final = {False: "RETRIEVAL_DOCUMENT", True: "RETRIEVAL_QUERY"}

_SMALL_BYTES: Final = 1 << 20


class _Values(msgspec.Struct):
    values: list[float]


class _Usage(msgspec.Struct, rename="camel"):
    prompt_token_count: int | None = None


class _Answer(msgspec.Struct, rename="camel"):
    embeddings: list[_Values]
    usage_metadata: _Usage | None = None


_DECODER: Final = msgspec.json.Decoder(_Answer)


class GeminiEmbedder(ApiEmbedder):
    """:class:`~vectide.ports.Embedder` over one model. One client, shared by all threads.

    Settings as in :class:`ApiEmbedder`; ``base_url`` is for a proxy, without a path. ``concurrency`` sizes
    the pool of kept connections. Where ``dimensions`` are given vectors are scaled to unit length, which the
    API leaves out for some models. Raises :class:`~vectide.ports.StartupRefused` for an address or a key that
    cannot be sent.
    """

    provider: ClassVar[str] = "gemini"
    models: ClassVar[Mapping[str, Model]] = MODELS
    input_type: ClassVar[str | None] = "document"

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
        model = model.removeprefix("models/")
        super().__init__(
            model,
            dimensions=dimensions,
            max_items=MAX_ITEMS,
            max_tokens=None,
            text_tokens=text_tokens,
            tokenizer=tokenizer,
        )
        quiet("httpx", "httpcore")
        self._url = usable_url(base_url).rstrip("/")
        self._headers = {"x-goog-api-key": usable_key("Gemini", api_key)}
        self._http = BoundedClient(concurrency)
        known = MODELS.get(model)
        self._text_tokens = text_tokens or (known.text_tokens if known else None)

    def prepare(self, deadline: Deadline) -> None:
        """As for every API; the length of a text that an unknown model reads is asked for, too."""
        super().prepare(deadline)
        if self._text_tokens is None:
            try:
                about = self._asked("GET", "", None, _SMALL_BYTES, deadline)
            except AdapterError as error:
                raise at_start(error.failure, self._host, self._model) from None
            self._text_tokens = _whole(about, "inputTokenLimit")

    def close(self) -> None:
        self._http.close()

    @property
    def _host(self) -> str:
        return urlsplit(self._url).hostname or self._url

    def _call(self, texts: list[str], deadline: Deadline, *, query: bool) -> Answered:
        task: dict[str, object] = {}
        if self._model.startswith(_PROMPTED):
            texts = [_PROMPTS[query] + text for text in texts]
        else:
            task["taskType"] = _TASKS[query]
        if self._configured is not None:
            task["outputDimensionality"] = self._configured
        for text in texts:
            self._require_fit(text, deadline)
        requests = [{"model": f"models/{self._model}", "content": _content(text), **task} for text in texts]
        most = most_bytes(len(texts), self._dimensions)
        body = self._asked("POST", ":batchEmbedContents", {"requests": requests}, most, deadline)
        answer = _decoded(body)
        vectors = [vector_of(one.values) for one in answer.embeddings]
        if self._configured is not None:
            vectors = [_unit(vector) for vector in vectors]
        usage = answer.usage_metadata
        return Answered(vectors, usage.prompt_token_count if usage else None)

    def _require_fit(self, text: str, deadline: Deadline) -> None:
        """Raises :class:`AdapterError` for a text that would be cut off."""
        limit = self._text_tokens
        if limit is None or len(text.encode()) <= limit:
            return
        body = self._asked("POST", ":countTokens", {"contents": [_content(text)]}, _SMALL_BYTES, deadline)
        tokens = _whole(body, "totalTokens")
        if tokens > limit:
            detail = f"{tokens} tokens, the model reads {limit}"
            raise AdapterError(Failure(Kind.REFUSED, "text_too_long", detail))

    def _asked(self, method: str, verb: str, sent: Any, most: int, deadline: Deadline) -> bytes:
        """The body of a good answer."""
        in_time(deadline)
        url = f"{self._url}/v1beta/models/{quote(self._model, safe='')}{verb}"
        content = None if sent is None else msgspec.json.encode(sent)
        headers = self._headers | {"Content-Type": "application/json"}
        try:
            with self._http.bounds(deadline, most):
                response = self._http.request(method, url, content=content, headers=headers)
        except HTTP_ERRORS as exc:
            # Not chained: the errors hold the request, and with it the texts and the key.
            raise AdapterError(failure_of_http(exc)) from None
        if response.status_code != 200:
            raise AdapterError(failure_of(response.status_code, response.headers, response.content)) from None
        return response.content


create = GeminiEmbedder


def _content(text: str) -> dict[str, Any]:
    return {"parts": [{"text": text}]}


def _unit(vector: Vector) -> Vector:
    with np.errstate(invalid="ignore"):  # what is not finite is found by the check
        length = np.linalg.norm(vector)
        return vector / length if length > 0 else vector


def _whole(body: bytes, name: str) -> int:
    """A number of an answer."""
    try:
        return int(json.loads(body)[name])
    except (ValueError, TypeError, KeyError):
        raise AdapterError(Failure(Kind.TRANSIENT, "not_json", f"{len(body)} bytes")) from None


def _decoded(body: bytes) -> _Answer:
    try:
        return _DECODER.decode(body)
    except ValueError:  # every error of msgspec is one
        return _lenient(body)


def _lenient(body: bytes) -> _Answer:
    """Understand what strict JSON does not allow (NaN), or nulls, so that the precise cause is found."""
    try:
        answer = json.loads(body)
    except ValueError:
        raise AdapterError(Failure(Kind.TRANSIENT, "not_json", f"{len(body)} bytes")) from None
    if isinstance(answer, dict) and "error" in answer:
        raise AdapterError(Failure(Kind.TRANSIENT, "error_in_answer"))
    try:
        return _Answer([_Values([_number(n) for n in one["values"]]) for one in answer["embeddings"]])
    except (KeyError, TypeError, ValueError):
        raise AdapterError(Failure(Kind.INVALID, "malformed", f"{len(body)} bytes")) from None


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)
