"""Factories for what a store is given, with short arguments and sensible rest: for tests of stores."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from vectide.core.model import Point, Position, Row, SourcePosition, Stamp, Value, listed_hash, text_hash
from vectide.ports import Mark, Patch, PatchChunks, Put, Trim, Vector


def row(key: Value, table: str = "products") -> Row:
    """The row whose primary key is ``id = key``."""
    return Row.of(table, {"id": key})


def stamp(
    offset: int = 0,
    *more: str,
    text: str = "text",
    log: str = "log",
    partition: int = 0,
    source: SourcePosition | None = None,
) -> Stamp:
    """The stamp of a row of one chunk (and ``more`` ones), written by the change at ``offset``."""
    return Stamp(
        space="test/model/4",
        layout="plain",
        chunks=tuple(listed_hash(text_hash(chunk)) for chunk in (text, *more)),
        columns={"name": "0011223344556677"},
        metadata_hash="8899aabbccddeeff",
        position=Position(log, partition, offset, source),
    )


def vector(*numbers: float, dimensions: int = 4) -> Vector:
    """A vector that starts with these numbers; the rest is 0."""
    made = np.zeros(dimensions, dtype=np.float32)
    made[: len(numbers)] = numbers
    return made


def put(
    of: Row,
    offset: int = 0,
    *,
    text: str = "text",
    metadata: Mapping[str, Value] | None = None,
    values: Mapping[str, str | None] | None = None,
    at: Vector | None = None,
    keep: frozenset[str] = frozenset(),
) -> Put:
    """Write a row of one chunk."""
    point = Point(
        id=of.head_id,
        row=of,
        chunk=0,
        text=text,
        text_hash=text_hash(text),
        metadata=metadata or {},
        stamp=stamp(offset, text=text),
        values=values,
    )
    return Put(point, vector(1.0) if at is None else at, keep)


def chunk_id(of: Row, text: str) -> str:
    """The id of the later chunk of the row that has this text."""
    return of.chunk_ids(("", listed_hash(text_hash(text))))[1]


def put_chunk(
    of: Row,
    chunk: int,
    *,
    text: str | None = None,
    metadata: Mapping[str, Value] | None = None,
    keep: frozenset[str] = frozenset(),
) -> Put:
    """Write a later chunk of a row; by default its text is ``more`` and its index."""
    text = f"more {chunk}" if text is None else text
    point = Point(
        id=chunk_id(of, text),
        row=of,
        chunk=chunk,
        text=text,
        text_hash=text_hash(text),
        metadata=metadata or {},
    )
    return Put(point, vector(0.0, 1.0), keep)


def patch(
    of: Row,
    offset: int = 0,
    *,
    text: str = "text",
    metadata: Mapping[str, Value] | None = None,
    keep: frozenset[str] = frozenset(),
    values: Mapping[str, str | None] | None = None,
) -> Patch:
    """Give chunk 0 of a row, which holds this text, new metadata."""
    return Patch(of, metadata or {}, stamp(offset, text=text), keep, values)


def patch_chunks(
    of: Row, *chunks: tuple[str, int], metadata: Mapping[str, Value], keep: frozenset[str] = frozenset()
) -> PatchChunks:
    """Give later chunks of a row, named by their texts, new metadata and an index."""
    return PatchChunks(of, metadata, tuple((chunk_id(of, text), at) for text, at in chunks), keep)


def trim(of: Row, *gone: str, stay: tuple[str, ...] = ()) -> Trim:
    """Remove later chunks of a row, named by their texts."""
    return Trim(of, tuple(chunk_id(of, text) for text in gone), tuple(chunk_id(of, text) for text in stay))


def mark(of: Row, offset: int = 0) -> Mark:
    """Give a row a new stamp."""
    return Mark(of, stamp(offset))
