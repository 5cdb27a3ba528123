"""The embedding APIs that the test server speaks: what a request may hold, how an answer and an error look.

Requests are read strictly: a field that the API does not have is refused, as the providers do. From what the
providers publish:

- OpenAI: the API reference, *Create embeddings*; its SDK's documentation of the limits.
- Azure: Microsoft's reference of the data plane, *Embeddings_Create*.
- Cohere: docs.cohere.com/reference/embed (version 2) and docs.cohere.com/reference/errors.
- Voyage: docs.voyageai.com/reference/embeddings-api; errors as its users quote them.
- Gemini: ai.google.dev/api/embeddings (batchEmbedContents), /api/tokens (countTokens) and /api/models, and
  what google-genai 3.4 sends; errors as its users quote them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

#: What a server can have against a request.
Objection = Literal["key", "model", "blank", "items", "text", "tokens"]

_INVALID: Final = "invalid_request_error"


@dataclass(frozen=True, slots=True)
class Call:
    """What a request comes down to, whatever its API. ``key`` is the credential that came with it."""

    model: str
    texts: Sequence[str]
    key: str | None
    dimensions: int | None = None
    base64: bool = False
    query: bool = False
    #: A text that is too long is cut off.
    truncates: bool = False


class _OpenAIBody(msgspec.Struct, forbid_unknown_fields=True):
    model: str
    input: str | list[str]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    user: str | None = None


class Api:
    """OpenAI's. Others are subclasses."""

    #: Objection -> status, message, code and type of the error; ``limit`` and ``got`` are filled in.
    objections: ClassVar[Mapping[Objection, tuple[int, str, str | None, str]]] = {
        "key": (401, "Incorrect API key provided", "invalid_api_key", _INVALID),
        "model": (404, "The model does not exist", "model_not_found", _INVALID),
        "blank": (400, "'$.input' is invalid.", None, _INVALID),
        "items": (
            400,
            "Invalid 'input': array too long, maximum length {limit}.",
            "array_above_max_length",
            _INVALID,
        ),
        "text": (400, "This model's maximum context length is {limit} tokens.", None, _INVALID),
        "tokens": (
            400,
            "Requested {got} tokens, max {limit} tokens per request",
            None,
            "max_tokens_per_request",
        ),
    }

    def call(self, path: str, headers: Mapping[str, str], body: bytes) -> Call | None:
        """The call; None when the API has no such path. Raises :class:`msgspec.MsgspecError` for a body that
        it does not take."""
        if path != "/v1/embeddings":
            return None
        return self._call(msgspec.json.decode(body, type=_OpenAIBody), _bearer(headers))

    def aside(self, path: str, body: bytes, max_text_tokens: int) -> dict[str, Any] | None:
        """The answer to a question that is not for vectors; None where the API has no such path."""
        return None

    def error(self, message: str, *, code: str | None, type_: str) -> dict[str, Any]:
        """The body of an error answer."""
        return {"error": {"message": message, "type": type_, "param": None, "code": code}}

    def reply(self, call: Call, items: list[dict[str, Any]], tokens: int) -> dict[str, Any]:
        """The body of an answer; an item has ``index`` and ``embedding``, a list or bytes."""
        return {
            "object": "list",
            "data": items,
            "model": call.model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }

    def _call(self, body: _OpenAIBody, key: str | None) -> Call:
        texts = [body.input] if isinstance(body.input, str) else body.input
        return Call(body.model, texts, key, body.dimensions, body.encoding_format == "base64")


def _bearer(headers: Mapping[str, str]) -> str | None:
    kind, _, key = (headers.get("Authorization") or "").partition(" ")
    return key if kind == "Bearer" else None


class Azure(Api):
    """Azure OpenAI's; the model is the deployment that the path names."""

    _PATH: Final = re.compile(r"/openai/deployments/([^/]+)/embeddings")

    def call(self, path: str, headers: Mapping[str, str], body: bytes) -> Call | None:
        parts = urlsplit(path)
        found = self._PATH.fullmatch(parts.path)
        if not found or not re.fullmatch(
            r"\d{4}-\d\d-\d\d(-preview)?", "".join(parse_qs(parts.query).get("api-version", []))
        ):
            return None
        read = msgspec.json.decode(body, type=_OpenAIBody)
        read.model = unquote(found[1])
        bearer = (headers.get("authorization") or "").removeprefix("Bearer ")
        return self._call(read, headers.get("api-key") or bearer or None)


_CohereType = Literal["float", "int8", "uint8", "binary", "ubinary", "base64"]


class _CohereBody(msgspec.Struct, forbid_unknown_fields=True):
    model: str
    input_type: Literal["search_document", "search_query", "classification", "clustering", "image"]
    texts: list[str]
    embedding_types: tuple[_CohereType, ...] = ("float",)
    truncate: Literal["NONE", "START", "END"] = "END"
    output_dimension: int | None = None
    max_tokens: int | None = None
    priority: int | None = None


class Cohere(Api):
    """Cohere's, version 2. Answers have no indexes."""

    objections: ClassVar[Mapping[Objection, tuple[int, str, str | None, str]]] = {
        "key": (401, "invalid api token", None, ""),
        "model": (404, "model not found, make sure the correct model ID was used", None, ""),
        "blank": (400, "invalid request: all texts must be non-empty", None, ""),
        "items": (
            400,
            "invalid request: total number of texts must be at most {limit} - received {got}",
            None,
            "",
        ),
        "text": (
            400,
            "too many tokens: size limit of {limit} exceeded. Try using shorter or fewer inputs",
            None,
            "",
        ),
        "tokens": (413, "request too large", None, ""),
    }

    def call(self, path: str, headers: Mapping[str, str], body: bytes) -> Call | None:
        if path != "/v2/embed":
            return None
        read = msgspec.json.decode(body, type=_CohereBody)
        if read.output_dimension is not None and "-v3" in read.model:
            raise msgspec.ValidationError("invalid request: output_dimension is not supported by this model")
        return Call(
            read.model,
            read.texts,
            _bearer(headers),
            read.output_dimension,
            base64="base64" in read.embedding_types,
            query=read.input_type == "search_query",
            truncates=read.truncate != "NONE",
        )

    def error(self, message: str, *, code: str | None, type_: str) -> dict[str, Any]:
        return {"id": "0f4c1b0e-7f0b-4d55-9f6c-000000000000", "message": message}

    def reply(self, call: Call, items: list[dict[str, Any]], tokens: int) -> dict[str, Any]:
        vectors = [item["embedding"] for item in items]
        encoded = bool(vectors) and all(isinstance(vector, bytes) for vector in vectors)
        return {
            "id": "0f4c1b0e-7f0b-4d55-9f6c-000000000000",
            "response_type": "embeddings_by_type",
            "embeddings": {"base64" if encoded else "float": vectors},
            "texts": call.texts,
            "meta": {"api_version": {"version": "2"}, "billed_units": {"input_tokens": tokens}},
        }


class _VoyageBody(msgspec.Struct, forbid_unknown_fields=True):
    model: str
    input: str | list[str]
    input_type: Literal["query", "document"] | None = None
    truncation: bool = True
    output_dimension: Literal[256, 512, 1024, 2048] | None = None
    output_dtype: Literal["float", "int8", "uint8", "binary", "ubinary"] = "float"
    encoding_format: Literal["base64"] | None = None


class Voyage(Api):
    """Voyage's."""

    objections: ClassVar[Mapping[Objection, tuple[int, str, str | None, str]]] = {
        "key": (401, "Provided API key is invalid.", None, ""),
        "model": (400, "Model x is not supported. Supported models are ['voyage-4'].", None, ""),
        "blank": (400, "Input cannot contain empty strings or empty lists.", None, ""),
        "items": (400, "The batch size limit is {limit}. Your batch size is {got}.", None, ""),
        "text": (
            400,
            "Request to model 'x' failed. The example at index 0 in your batch has too many tokens and does "
            "not fit into the model's context window of {limit} tokens. Please lower the number of tokens in "
            "the listed example(s) or use truncation.",
            None,
            "",
        ),
        "tokens": (
            400,
            "Request to model 'x' failed. The max allowed tokens per submitted batch is {limit}. Your batch "
            "has {got} tokens after truncation. Please lower the number of tokens in the batch.",
            None,
            "",
        ),
    }

    def call(self, path: str, headers: Mapping[str, str], body: bytes) -> Call | None:
        if path != "/v1/embeddings":
            return None
        read = msgspec.json.decode(body, type=_VoyageBody)
        return Call(
            read.model,
            [read.input] if isinstance(read.input, str) else read.input,
            _bearer(headers),
            read.output_dimension,
            base64=read.encoding_format == "base64",
            query=read.input_type == "query",
            truncates=read.truncation,
        )

    def error(self, message: str, *, code: str | None, type_: str) -> dict[str, Any]:
        return {"detail": message}

    def reply(self, call: Call, items: list[dict[str, Any]], tokens: int) -> dict[str, Any]:
        return {"object": "list", "data": items, "model": call.model, "usage": {"total_tokens": tokens}}


class _GeminiPart(msgspec.Struct, forbid_unknown_fields=True):
    text: str


class _GeminiContent(msgspec.Struct, forbid_unknown_fields=True):
    parts: list[_GeminiPart]
    role: str | None = None

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.parts)


class _GeminiRequest(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    model: str
    content: _GeminiContent
    task_type: Literal["RETRIEVAL_QUERY", "RETRIEVAL_DOCUMENT", "SEMANTIC_SIMILARITY"] | None = None
    title: str | None = None
    output_dimensionality: int | None = None


class _GeminiBody(msgspec.Struct, forbid_unknown_fields=True):
    requests: list[_GeminiRequest]


class _GeminiCount(msgspec.Struct, forbid_unknown_fields=True):
    contents: list[_GeminiContent]


class Gemini(Api):
    """Gemini's developer API. Answers have no indexes; a text that is too long is cut off in silence."""

    objections: ClassVar[Mapping[Objection, tuple[int, str, str | None, str]]] = {
        "key": (400, "API key not valid. Please pass a valid API key.", "INVALID_ARGUMENT", ""),
        "model": (404, "models/x is not found for API version v1beta.", "NOT_FOUND", ""),
        "blank": (400, "* EmbedContentRequest.content contains an empty Part.", "INVALID_ARGUMENT", ""),
        "items": (
            400,
            "* BatchEmbedContentsRequest.requests: at most {limit} requests can be in one batch",
            "INVALID_ARGUMENT",
            "",
        ),
        "text": (400, "never said", None, ""),
        "tokens": (400, "Request payload size exceeds the limit: {limit} bytes.", "INVALID_ARGUMENT", ""),
    }

    _PATH: Final = re.compile(r"/v1beta/models/([^/:]+)(?::(\w+))?")
    #: A model that is told in the text what it is for.
    _PROMPTED: Final = "gemini-embedding-2"
    _QUERY: Final = "task: search result | query: "
    _DOCUMENT: Final = "title: none | text: "

    def call(self, path: str, headers: Mapping[str, str], body: bytes) -> Call | None:
        found = self._PATH.fullmatch(path)
        if not found or found[2] != "batchEmbedContents":
            return None
        requests = msgspec.json.decode(body, type=_GeminiBody).requests
        model = unquote(found[1])
        if any(request.model != f"models/{model}" for request in requests):
            raise msgspec.ValidationError("BatchEmbedContentsRequest.requests: model must match")
        texts = [request.content.text for request in requests]
        query = any(request.task_type == "RETRIEVAL_QUERY" for request in requests)
        if model.startswith(self._PROMPTED):
            if any(request.task_type for request in requests):
                raise msgspec.ValidationError("the model takes no task type")
            query = any(text.startswith(self._QUERY) for text in texts)
            texts = [text.removeprefix(self._QUERY).removeprefix(self._DOCUMENT) for text in texts]
        size = requests[0].output_dimensionality if requests else None
        return Call(model, texts, headers.get("x-goog-api-key"), size, query=query, truncates=True)

    def aside(self, path: str, body: bytes, max_text_tokens: int) -> dict[str, Any] | None:
        found = self._PATH.fullmatch(path)
        if found and found[2] is None:
            return {"name": f"models/{found[1]}", "inputTokenLimit": max_text_tokens}
        if found and found[2] == "countTokens":
            contents = msgspec.json.decode(body, type=_GeminiCount).contents
            return {"totalTokens": sum(-(-len(content.text.encode()) // 4) for content in contents)}
        return None

    def error(self, message: str, *, code: str | None, type_: str) -> dict[str, Any]:
        return {"error": {"code": 400, "message": message, "status": code or "UNKNOWN"}}

    def reply(self, call: Call, items: list[dict[str, Any]], tokens: int) -> dict[str, Any]:
        return {
            "embeddings": [{"values": item["embedding"]} for item in items],
            "usageMetadata": {"promptTokenCount": tokens},
        }


OPENAI: Final = Api()
AZURE: Final = Azure()
COHERE: Final = Cohere()
GEMINI: Final = Gemini()
VOYAGE: Final = Voyage()
