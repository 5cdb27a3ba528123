"""The writes of one call of the pgvector store: encoded for the server, applied, each with its outcome."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
from pgvector import HalfVector
from pgvector import Vector as FullVector
from psycopg import Cursor
from psycopg.rows import TupleRow
from psycopg.sql import Composed

from vectide.core.failures import Failure, Kind
from vectide.core.model import Position, Row, Stamp, Value
from vectide.ports import (
    APPLIED,
    MISSING,
    SUPERSEDED,
    AdapterError,
    Mark,
    Outcome,
    Patch,
    PatchChunks,
    Put,
    Remove,
    Trim,
    Vector,
    Write,
)
from vectide.stores.pgvector_connections import Link
from vectide.stores.pgvector_sql import Shape, Statements

#: Made once: json.dumps makes a new one for every call that asks for anything special.
_JSON: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


class Batch:
    """The writes of one call. Raises :class:`AdapterError` (refused) for what no server could take."""

    def __init__(self, writes: Sequence[Write], shape: Shape) -> None:
        self._writes = writes
        with refusing_the_unencodable():
            self._parameters = [_parameters(write, shape) for write in writes]
        self.outcomes: list[Outcome] = [APPLIED] * len(writes)

    def apply(self, link: Link, statements: Statements) -> None:
        """Send everything, in the open transaction of ``link``; afterwards ``outcomes`` is complete."""
        later = [i for i, write in enumerate(self._writes) if _is_later_chunk(write)]
        removed = self._which(Remove)
        self._lock(link, statements, {self._parameters[i]["row_id"] for i in removed.union(later)})
        self._change(link, statements.remove, removed)
        self._put(link, statements, self._unmoved(Put).difference(later))
        self._change_point(link, statements.patch_point, statements.patch, self._unmoved(Patch))
        self._change(link, statements.mark, self._which(Mark))
        self._share_fates(later)
        applied = {i for i in later if self.outcomes[i] is APPLIED}
        self._run(link, statements.put_chunk, applied & self._which(Put))
        self._run(link, statements.patch_chunks, applied & self._which(PatchChunks))
        self._run(link, statements.trim, applied & self._which(Trim))

    def _lock(self, link: Link, statements: Statements, row_ids: set[str]) -> None:
        """From here on chunk 0 of these rows stays as it is: what was planned on another one is not made."""
        if not row_ids:
            return
        held: dict[str, Value] = dict(link.execute(statements.lock, [sorted(row_ids)]).fetchall())
        for i, write in enumerate(self._writes):
            if isinstance(write, Put | Patch) and write.base is not None:
                at = held.get(self._parameters[i]["row_id"])
                if at not in (_place(write.base), _place(_stamp_of(write).position)):
                    self.outcomes[i] = MISSING

    def _share_fates(self, later: Iterable[int]) -> None:
        """What happens to chunk 0 happens to the row's later chunks."""
        untouched = {
            self._parameters[i]["row_id"]: outcome
            for i, outcome in enumerate(self.outcomes)
            if outcome is not APPLIED
        }
        for i in later:
            self.outcomes[i] = untouched.get(self._parameters[i]["row_id"], APPLIED)

    def _put(self, link: Link, statements: Statements, heads: set[int]) -> None:
        again = {i for i in heads if _is_update(self._writes[i])}
        for i, answer in self._answers(link, statements.put, heads - again):
            if answer is None:
                self.outcomes[i] = SUPERSEDED
        self._change_point(link, statements.put_again, statements.is_newer, again)

    def _change_point(self, link: Link, query: Composed, why_not: Composed, which: set[int]) -> None:
        """``why_not`` is asked about those that ``query`` did not apply to."""
        applied = {i for i, answer in self._answers(link, query, which) if answer is not None}
        self._change(link, why_not, which - applied)

    def _change(self, link: Link, query: Composed, which: Iterable[int]) -> None:
        for i, answer in self._answers(link, query, which):
            if answer is None:
                self.outcomes[i] = MISSING
            elif answer[0]:
                self.outcomes[i] = SUPERSEDED

    def _which(self, kind: type[Write]) -> set[int]:
        return {i for i, write in enumerate(self._writes) if isinstance(write, kind)}

    def _unmoved(self, kind: type[Write]) -> set[int]:
        return {i for i in self._which(kind) if self.outcomes[i] is APPLIED}

    def _in_id_order(self, which: Iterable[int]) -> list[int]:
        """Always the same order of locking, so that two writers of the same rows do not deadlock."""
        return sorted(which, key=lambda i: str(self._parameters[i]["id"]))

    def _run(self, link: Link, query: Composed, which: Iterable[int]) -> None:
        ordered = self._in_id_order(which)
        if ordered:
            link.cursor().executemany(query, [self._parameters[i] for i in ordered])

    def _answers(
        self, link: Link, query: Composed, which: Iterable[int]
    ) -> Iterable[tuple[int, TupleRow | None]]:
        ordered = self._in_id_order(which)
        if not ordered:
            return []
        cursor: Cursor[TupleRow] = link.cursor()
        cursor.executemany(query, [self._parameters[i] for i in ordered], returning=True)
        return zip(ordered, [result.fetchone() for result in cursor.results()], strict=True)


@contextmanager
def refusing_the_unencodable() -> Iterator[None]:
    """What cannot be said in JSON, UTF-8 or the vector's format is refused, without its content."""
    try:
        yield
    except (ValueError, TypeError, RecursionError) as error:
        detail = f"{type(error).__name__} while encoding"
        raise AdapterError(Failure(Kind.REFUSED, "data", detail)) from None


def encoded_vector(vector: Vector, shape: Shape) -> FullVector | HalfVector:
    """The vector in the type of the column; numbers beyond 16 bits become infinite, which is refused.

    Raises :class:`AdapterError` (refused) for a vector that does not fit or is not finite: the server would
    not look at it while the table is empty."""
    if vector.shape != (shape.dimensions,):
        detail = f"a vector of shape {vector.shape} where ({shape.dimensions},) is needed"
        raise AdapterError(Failure(Kind.REFUSED, "data", detail))
    if not np.isfinite(vector).all():
        raise AdapterError(Failure(Kind.REFUSED, "data", "a vector that is not finite"))
    if shape.column == "vector":
        return FullVector(vector)
    with np.errstate(over="ignore"):
        return HalfVector(vector)


def encoded_json(value: Mapping[str, Value]) -> str:
    """JSON text for jsonb. Raises ValueError or TypeError for what JSON or UTF-8 cannot say."""
    text = _JSON.encode(value)
    text.encode()
    return text


def _place(position: Position) -> Value:
    return position.to_payload()["position"]


def _stamp_of(write: Put | Patch) -> Stamp:
    stamp = write.stamp if isinstance(write, Patch) else write.point.stamp
    assert stamp is not None
    return stamp


def _is_update(write: Write) -> bool:
    return isinstance(write, Put) and write.only_if_present


def _is_later_chunk(write: Write) -> bool:
    return isinstance(write, PatchChunks | Trim) or (isinstance(write, Put) and write.point.stamp is None)


def _parameters(write: Write, shape: Shape) -> dict[str, Any]:
    match write:
        case Put():
            return _put(write, shape)
        case Patch():
            return {
                "id": write.row.head_id,
                "row_id": write.row.head_id,
                "stamp": _stamp(write.row, write.stamp),
                "kept_columns": _optional_json(write.values),
                **_metadata(write.metadata, write.keep),
            }
        case PatchChunks():
            return {
                "id": write.row.head_id,
                "row_id": write.row.head_id,
                "ids": [id_ for id_, _ in write.chunks],
                "chunks": [chunk for _, chunk in write.chunks],
                **_metadata(write.metadata, write.keep),
            }
        case Trim():
            return {"id": write.row.head_id, "row_id": write.row.head_id, "stay": list(write.stay)}
        case Mark():
            row_id = write.row.head_id
            return {"id": row_id, "row_id": row_id, "stamp": _stamp(write.row, write.stamp)}
        case Remove():
            stamp = None if write.position is None else encoded_json(write.position.to_payload())
            return {"id": write.row.head_id, "row_id": write.row.head_id, "stamp": stamp}


def _put(write: Put, shape: Shape) -> dict[str, Any]:
    point = write.point
    if point.text is not None:
        point.text.encode()
    return {
        "id": point.id,
        "row_id": point.row.head_id,
        "source_table": point.row.table,
        "row_key": point.row.key,
        "chunk": point.chunk,
        "text": point.text,
        "text_hash": point.text_hash,
        "embedding": encoded_vector(write.vector, shape),
        "stamp": None if point.stamp is None else _stamp(point.row, point.stamp),
        "kept_columns": _optional_json(point.values),
        **_metadata(point.metadata, write.keep),
    }


def _metadata(metadata: Mapping[str, Value], keep: frozenset[str]) -> dict[str, Any]:
    """New metadata without the kept names: those have their stored value or none."""
    new = {name: value for name, value in metadata.items() if name not in keep}
    return {"metadata": encoded_json(new), "keep": sorted(keep)}


def _stamp(row: Row, stamp: Stamp) -> str:
    return encoded_json(stamp.to_payload(row))


def _optional_json(value: Mapping[str, Value] | None) -> str | None:
    return None if value is None else encoded_json(value)
