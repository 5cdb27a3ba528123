"""How the embedding server answers, whatever API it speaks: pure, from a call to an answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from vectide.ports import Vector
from vectide.testing.embedding_apis import OPENAI, Api, Call, Objection
from vectide.testing.embedding_faults import Fault, rearranged, spoiled

#: From a text and a number of dimensions to a vector.
Vectorise = Callable[[str, int], Vector]

#: Where an API tells queries from documents, a query's vector is that of the text behind this.
QUERY_PROMPT: Final = "query: "

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
    #: Dimensions that can be asked for; None: any.
    sizes: Sequence[int] | None = None
    api: Api = OPENAI


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


def answer(contract: Contract, vectorise: Vectorise, call: Call, fault: Fault | None) -> Answer:
    """The whole answer to a call, unless the fault is one of the connection."""
    if fault is not None and fault.kind in ("status", "error_200"):
        status = fault.status if fault.kind == "status" else 200
        error = contract.api.error(fault.message, code=fault.code, type_=fault.type)
        return Answer(status, json.dumps(error).encode(), fault.headers)
    if fault is not None and fault.kind == "html":
        return Answer(200, _HTML, content_type="text/html")
    return _refusal(contract, call) or _vectors(contract, vectorise, call, fault)


def _refusal(contract: Contract, call: Call) -> Answer | None:
    def no(objection: Objection, limit: int = 0, got: int = 0) -> Answer:
        status, message, code, type_ = contract.api.objections[objection]
        return refused(contract, status, message.format(limit=limit, got=got), code, type_)

    texts = call.texts
    if contract.api_key is not None and call.key != contract.api_key:
        return no("key")
    if contract.models is not None and call.model not in contract.models:
        return no("model")
    if contract.sizes is not None and call.dimensions not in (None, *contract.sizes):
        return refused(contract, 400, f"dimensions {call.dimensions}: not one of {contract.sizes}")
    if not texts or any(not text for text in texts):
        return no("blank")
    if len(texts) > contract.max_items:
        return no("items", contract.max_items, len(texts))
    sizes = [tokens_of(text) for text in texts]
    if max(sizes) > contract.max_text_tokens and not call.truncates:
        return no("text", contract.max_text_tokens, max(sizes))
    return no("tokens", contract.max_tokens, sum(sizes)) if sum(sizes) > contract.max_tokens else None


def _vectors(contract: Contract, vectorise: Vectorise, call: Call, fault: Fault | None) -> Answer:
    texts = call.texts
    dimensions = call.dimensions or contract.dimensions
    prompt = QUERY_PROMPT if call.query else ""
    vectors = spoiled(fault, texts, [vectorise(prompt + text, dimensions) for text in texts])
    as_base64 = call.base64 and contract.base64
    embeddings = [vector.tobytes() if as_base64 else vector.tolist() for vector in vectors]
    if fault is not None and fault.kind == "null":
        nulls = [None] * dimensions
        embeddings = [nulls if fault.marks(t) else e for t, e in zip(texts, embeddings, strict=True)]
    items = [
        {"object": "embedding", "index": index, "embedding": embedding}
        for index, embedding in enumerate(embeddings)
    ]
    reply = contract.api.reply(call, rearranged(fault, items), sum(map(tokens_of, texts)))
    # json writes NaN as a literal, as servers in Python do; msgspec writes bytes as base64.
    body = msgspec.json.encode(reply) if as_base64 else json.dumps(reply).encode()
    right = texts if fault is None or fault.kind in ("shuffled", "drip", "delay") else ()
    return Answer(200, body, answered=right)


def refused(
    contract: Contract,
    status: int,
    message: str,
    code: str | None = None,
    type_: str = "invalid_request_error",
) -> Answer:
    """An answer that is an error, worded as the API does."""
    return Answer(status, json.dumps(contract.api.error(message, code=code, type_=type_)).encode())
