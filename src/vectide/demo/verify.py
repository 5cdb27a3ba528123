"""Whether the store is right: what the whole topic folds to, against every point that the store holds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from vectide.core.mapping import TableMapping
from vectide.core.model import Deleted, Record, Row, Upserted, listed_hash, text_hash
from vectide.ports import Capabilities, Clock, Codec, Deadline, Embedder, Matrix, Scannable, Stored
from vectide.testing.fold import Expected, Fold

_PAGE = 1000
_TIMEOUT_S = 60.0

EmbedAll = Callable[[Sequence[str]], Matrix]


def folded(
    records: Iterable[Record], codec: Codec, mapping: TableMapping, able: Capabilities
) -> dict[Row, Expected]:
    """What a store that can do this must hold after these records, each partition's in their order."""
    fold = Fold(mapping)
    for record in records:
        change = codec.decode(record)
        if isinstance(change, Upserted | Deleted):
            fold.apply(change)
    return {row: replace(wanted, metadata=able.legal(wanted.metadata)) for row, wanted in fold.rows.items()}


def stored_points(store: Scannable, collection: str, clock: Clock, *, vectors: bool = True) -> list[Stored]:
    """Every point of the collection."""
    points: list[Stored] = []
    cursor: str | None = None
    while True:
        deadline = Deadline.after(clock, _TIMEOUT_S)
        page, cursor = store.scan(collection, cursor, _PAGE, deadline, vectors=vectors)
        points += page
        if cursor is None:
            return points


def embedding_all(embedder: Embedder, clock: Clock, able: Capabilities) -> EmbedAll:
    """The embedder for any number of texts, each embedded by itself and not as the worker batched it; the
    vectors as a store that can do this gives them back."""

    def embed(texts: Sequence[str]) -> Matrix:
        size = embedder.limits.max_items
        parts = [
            embedder.embed(texts[start : start + size], Deadline.after(clock, _TIMEOUT_S)).vectors
            for start in range(0, len(texts), size)
        ]
        vectors = np.concatenate(parts) if parts else np.empty((0, embedder.dimensions), dtype=np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True) if able.unit_vectors else vectors

    return embed


def differences(expected: Mapping[Row, Expected], stored: Iterable[Stored], embed: EmbedAll) -> list[str]:
    """Every way in which the store is not what it should be, one line each; empty when it is equal.

    Compared are the rows, each point's id, text, metadata and stamp, and whether its vector is the
    embedding of its text.
    """
    rows = list(expected)
    vectors = dict(zip(rows, embed([expected[row].text for row in rows]), strict=True))
    found: list[str] = []
    seen: set[Row] = set()
    for point in stored:
        if point.row in seen:
            found.append(f"{_name(point.row)}: has two points")
        seen.add(point.row)
        if point.row not in expected:
            found.append(f"{_name(point.row)}: is in the store and must not be")
            continue
        complaints = _complaints(expected[point.row], point, vectors[point.row])
        found += [f"{_name(point.row)}: {complaint}" for complaint in complaints]
    return [*found, *(f"{_name(row)}: is missing" for row in rows if row not in seen)]


def _complaints(
    wanted: Expected, point: Stored, vector: np.ndarray[tuple[int], np.dtype[np.float32]]
) -> Iterator[str]:
    if point.id != point.row.head_id or point.chunk != 0:
        yield "has another id than its row gives it"
    if point.text != wanted.text:
        yield f"text is {_short(point.text)}, should be {_short(wanted.text)}"
    if point.metadata != wanted.metadata:
        yield f"metadata is {dict(point.metadata)}, should be {dict(wanted.metadata)}"
    if point.stamp is None or point.stamp.chunks != (listed_hash(text_hash(wanted.text)),):
        yield "its stamp tells of another text"
    if point.vector is None or not np.allclose(point.vector, vector, atol=1e-5):
        yield "its vector is not the embedding of its text"


def to_embed(expected: Mapping[Row, Expected], stored: Iterable[Stored]) -> set[str]:
    """The texts that the store still lacks: what is worth an embedding call, and nothing else is."""
    held = {point.row: point.text_hash for point in stored}
    return {wanted.text for row, wanted in expected.items() if held.get(row) != text_hash(wanted.text)}


def already_stored(records: Iterable[Record], stored: Iterable[Stored]) -> list[Record]:
    """The records whose row the store holds as of them or later."""
    positions = {
        json.loads(point.row.key)["id"]: point.stamp.position for point in stored if point.stamp is not None
    }
    found = []
    for record in records:
        position = positions.get(json.loads(record.key or b"{}").get("id"))
        if position and position.partition == record.partition and position.offset >= record.offset:
            found.append(record)
    return found


def _name(row: Row) -> str:
    return f"{row.table} {row.key}"


def _short(text: str | None) -> str:
    return repr(text if text is None or len(text) <= 60 else text[:60] + "…")
