"""Factories for what a store is given, with short arguments and sensible rest: for tests of stores."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

import numpy as np

from vectide.core.model import POINT_NAMESPACE, Point, Position, Row, Stamp, Value, text_hash
from vectide.ports import Mark, Patch, Put, Vector


def row(key: Value, table: str = "products") -> Row:
    """The row whose primary key is ``id = key``."""
    return Row.of(table, {"id": key})


def stamp(offset: int = 0, *, text: str = "text", log: str = "log", partition: int = 0) -> Stamp:
    """The stamp of a row of one chunk, written by the change at ``offset``."""
    return Stamp(
        space="test/model/4",
        layout="plain",
        chunks=(text_hash(text),),
        columns={"name": "0011223344556677"},
        metadata_hash="8899aabbccddeeff",
        position=Position(log, partition, offset),
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


def put_chunk(of: Row, chunk: int, *, text: str = "more", metadata: Mapping[str, Value] | None = None) -> Put:
    """Write a later chunk of a row."""
    point = Point(
        id=str(uuid.uuid5(POINT_NAMESPACE, f"{of.canonical}#{chunk}")),
        row=of,
        chunk=chunk,
        text=text,
        text_hash=text_hash(text),
        metadata=metadata or {},
    )
    return Put(point, vector(0.0, 1.0))


def patch(
    of: Row,
    offset: int = 0,
    *,
    metadata: Mapping[str, Value] | None = None,
    keep: frozenset[str] = frozenset(),
    also: tuple[str, ...] = (),
    values: Mapping[str, str | None] | None = None,
) -> Patch:
    """Give a row new metadata."""
    return Patch(of, metadata or {}, stamp(offset), keep, also, values)


def mark(of: Row, offset: int = 0) -> Mark:
    """Give a row a new stamp."""
    return Mark(of, stamp(offset))
