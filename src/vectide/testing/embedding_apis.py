"""The embedding APIs that the test server speaks: what a request may hold, how an answer and an error look.

Requests are read strictly: a field that the API does not have is refused, as the providers do. From what the
providers publish:

- OpenAI: the API reference, *Create embeddings*; its SDK's documentation of the limits.
- Azure: Microsoft's reference of the data plane, *Embeddings_Create*.
- Cohere: docs.cohere.com/reference/embed (version 2) and docs.cohere.com/reference/errors.
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
        return self._call(read, headers.get("api-key"))


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


OPENAI: Final = Api()
AZURE: Final = Azure()
COHERE: Final = Cohere()
