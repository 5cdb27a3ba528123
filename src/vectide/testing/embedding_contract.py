"""The OpenAI embeddings API as the embedding server honours it: pure, from a request to an answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from vectide.ports import Vector
from vectide.testing.embedding_faults import Fault, error_body, rearranged, spoiled

#: From a text and a number of dimensions to a vector.
Vectorise = Callable[[str, int], Vector]

_HTML: Final = b"<!doctype html><html><body>Please sign in to the network.</body></html>"


@dataclass(frozen=True, slots=True)
class Contract:
    """What the server accepts. ``api_key`` and ``models`` None: any. Tokens are UTF-8 bytes / 4."""

    dimensions: int = 64
    api_key: str | None = None
    models: Sequence[str] | None = None
    max_items: int = 2048
    max_tokens: int = 300_000
    max_text_tokens: int = 8192
    #: False: answers with lists even when base64 is asked for, like some servers.
    base64: bool = True


class Request(msgspec.Struct):
    model: str
    input: str | list[str]
    encoding_format: str = "float"
    dimensions: int | None = None

    @property
    def texts(self) -> list[str]:
        return [self.input] if isinstance(self.input, str) else self.input


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"
    #: Texts that got their right vector.
    answered: Sequence[str] = ()


def tokens_of(text: str) -> int:
    return -(-len(text.encode("utf-8", "surrogatepass")) // 4)


def answer(
    contract: Contract, vectorise: Vectorise, request: Request, fault: Fault | None, authorization: str | None
) -> Answer:
    """The whole answer to a call, unless the fault is one of the connection."""
    if fault is not None and fault.kind in ("status", "error_200"):
        status = fault.status if fault.kind == "status" else 200
        return Answer(status, json.dumps(fault.error()).encode(), fault.headers)
    if fault is not None and fault.kind == "html":
        return Answer(200, _HTML, content_type="text/html")
    refusal = _refusal(contract, request, authorization)
    return refusal or _vectors(contract, vectorise, request, fault)


def _refusal(contract: Contract, request: Request, authorization: str | None) -> Answer | None:
    texts = request.texts
    if contract.api_key is not None and authorization != f"Bearer {contract.api_key}":
        return refused(401, "Incorrect API key provided", "invalid_api_key")
    if contract.models is not None and request.model not in contract.models:
        return refused(404, "The model does not exist", "model_not_found")
    if not texts or any(not text for text in texts):
        return refused(400, "'$.input' is invalid.", None)
    if len(texts) > contract.max_items:
        message = f"Invalid 'input': array too long, maximum length {contract.max_items}."
        return refused(400, message, "array_above_max_length")
    sizes = [tokens_of(text) for text in texts]
    if max(sizes) > contract.max_text_tokens:
        message = f"This model's maximum context length is {contract.max_text_tokens} tokens."
        return refused(400, message, None)
    if sum(sizes) > contract.max_tokens:
        message = f"Requested {sum(sizes)} tokens, max {contract.max_tokens} tokens per request"
        return refused(400, message, None, "max_tokens_per_request")
    return None


def _vectors(contract: Contract, vectorise: Vectorise, request: Request, fault: Fault | None) -> Answer:
    texts = request.texts
    dimensions = request.dimensions or contract.dimensions
    vectors = spoiled(fault, texts, [vectorise(text, dimensions) for text in texts])
    as_base64 = request.encoding_format == "base64" and contract.base64
    embeddings = [vector.tobytes() if as_base64 else vector.tolist() for vector in vectors]
    if fault is not None and fault.kind == "null":
        nulls = [None] * dimensions
        embeddings = [nulls if fault.marks(t) else e for t, e in zip(texts, embeddings, strict=True)]
    items = [
        {"object": "embedding", "index": index, "embedding": embedding}
        for index, embedding in enumerate(embeddings)
    ]
    tokens = sum(map(tokens_of, texts))
    answer = {
        "object": "list",
        "data": rearranged(fault, items),
        "model": request.model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    # json writes NaN as a literal, as servers in Python do; msgspec writes bytes as base64.
    body = msgspec.json.encode(answer) if as_base64 else json.dumps(answer).encode()
    right = texts if fault is None or fault.kind in ("shuffled", "drip", "delay") else ()
    return Answer(200, body, answered=right)


def refused(status: int, message: str, code: str | None, type_: str = "invalid_request_error") -> Answer:
    return Answer(status, json.dumps(error_body(message, code=code, type_=type_)).encode())
