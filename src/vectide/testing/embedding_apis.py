"""The embedding APIs that the test server speaks: what a request may hold, how an answer and an error look.

Requests are read strictly: a field that the API does not have is refused, as the providers do. From what the
providers publish:

- OpenAI: the API reference, *Create embeddings*; its SDK's documentation of the limits.
- Azure: Microsoft's reference of the data plane, *Embeddings_Create*.
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


OPENAI: Final = Api()
AZURE: Final = Azure()
