"""The answer of the OpenAI embeddings API, decoded straight into float32."""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec

from vectide.core.failures import Failure, Kind
from vectide.embedders.http_answers import vector_of
from vectide.ports import AdapterError, Vector


class _Item(msgspec.Struct):
    embedding: bytes | list[float]
    index: int | None = None


class _Usage(msgspec.Struct):
    total_tokens: int | None = None


class _Answer(msgspec.Struct):
    data: list[_Item]
    usage: _Usage | None = None


_DECODER: Final = msgspec.json.Decoder(_Answer)


def decode(body: bytes, count: int) -> tuple[list[Vector], int | None]:
    """Vectors in the order of the inputs, not yet checked, and the tokens billed.

    Raises :class:`AdapterError`: transient ``not_json`` for what is no answer of this API at all (a proxy's
    page), transient ``error_in_answer`` for an error under status 200, invalid ``malformed``,
    ``wrong_count`` or ``wrong_order``.
    """
    try:
        answer = _DECODER.decode(body)
    except ValueError:  # every error of msgspec is one
        answer = _lenient(body)
    tokens = answer.usage.total_tokens if answer.usage else None
    return [vector_of(item.embedding) for item in _in_order(answer.data, count)], tokens


def _in_order(items: list[_Item], count: int) -> list[_Item]:
    """By ``index``, which must name every input once. A server that leaves it out everywhere is taken at
    its word: its items are in order."""
    if len(items) != count:
        raise AdapterError(Failure(Kind.INVALID, "wrong_count", f"{len(items)} vectors for {count} texts"))
    if all(item.index is None for item in items):
        return items
    places = {item.index: item for item in items}
    if places.keys() != set(range(count)):
        raise AdapterError(Failure(Kind.INVALID, "wrong_order", "the indexes do not name every text once"))
    return [places[index] for index in range(count)]


def _lenient(body: bytes) -> _Answer:
    """Understand what strict JSON does not allow (NaN literals) or the API does not promise (null for a
    number, a usage of another shape), so that the precise cause is found and the culprit can be isolated."""
    try:
        answer = json.loads(body)
    except ValueError:
        if body.lstrip()[:1] == b"{":
            raise AdapterError(Failure(Kind.TRANSIENT, "truncated", f"{len(body)} bytes")) from None
        raise AdapterError(Failure(Kind.TRANSIENT, "not_json", f"{len(body)} bytes")) from None
    if isinstance(answer, dict) and answer.get("error") is not None and not answer.get("data"):
        raise AdapterError(Failure(Kind.TRANSIENT, "error_in_answer"))
    try:
        items = [_lenient_item(item) for item in answer["data"]]
    except (KeyError, TypeError, ValueError):
        raise AdapterError(Failure(Kind.INVALID, "malformed", f"{len(body)} bytes")) from None
    return _Answer(items)


def _lenient_item(item: dict[str, Any]) -> _Item:
    embedding, index = item["embedding"], item.get("index")
    if isinstance(embedding, str):
        embedding = msgspec.convert(embedding, bytes)
    else:
        embedding = [float("nan") if number is None else float(number) for number in embedding]
    return _Item(embedding, index if isinstance(index, int) else None)
