"""A store in memory that keeps every promise of :mod:`vectide.ports`: the reference for the real ones.

Exact, deterministic and synchronous: no threads, no time, no chance, so that a simulation can own it. It
injects no faults; wrap it for that. What it holds survives :meth:`MemoryStore.close`, as a server would.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from vectide.core.chunks import MAX_CHUNKS
from vectide.core.failures import Failure, Kind
from vectide.core.model import Order, Position, Row, Stamp, Value
from vectide.core.value import value
from vectide.core.values import same_value
from vectide.ports import (
    APPLIED,
    MISSING,
    SUPERSEDED,
    AdapterError,
    Capabilities,
    CollectionSpec,
    Deadline,
    Hit,
    Mark,
    Outcome,
    Patch,
    PatchChunks,
    Put,
    Remove,
    StartupRefused,
    Stored,
    Trim,
    Vector,
    Write,
)

CAPABILITIES: Final = Capabilities(
    kind="memory",
    max_batch_items=2 * MAX_CHUNKS,
    atomic_calls=True,
    read_your_writes=True,
    conditional_writes=True,
    nested_metadata=True,
    null_metadata=True,
    update_only=True,
    max_integer=10**1000,
    nul_in_text=True,
    swap="alias",
)


@value
class _Held:
    """One point with everything that was written of it."""

    point: Stored
    vector: Vector
    values: Mapping[str, str | None] | None


@dataclass(slots=True)
class _Collection:
    spec: CollectionSpec
    #: The points of each row by id: no search through the others, and writers of different rows are apart.
    rows: dict[Row, dict[str, _Held]] = field(default_factory=dict)

    def head(self, row: Row) -> _Held | None:
        return self.rows.get(row, {}).get(row.head_id)

    def in_id_order(self) -> list[_Held]:
        held = (one for points in list(self.rows.values()) for one in list(points.values()))
        return sorted(held, key=lambda one: one.point.id)


class MemoryStore:
    """A :class:`~vectide.ports.Store`, searchable, scannable and swappable, of the capabilities given.

    ``conditional_writes`` False makes it apply whatever comes last. Without ``atomic_calls`` every write is
    made by itself, in the order given, and has its own outcome; points are found by their ids only. The
    other capabilities are claims only.
    """

    def __init__(self, capabilities: Capabilities = CAPABILITIES) -> None:
        self._capabilities = capabilities
        self._collections: dict[str, _Collection] = {}
        self._aliases: dict[str, str] = {}

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    def prepare(self, spec: CollectionSpec, deadline: Deadline) -> None:
        """As :meth:`vectide.ports.Store.prepare`."""
        if not spec.name:
            raise StartupRefused("a collection cannot be named '': choose another name")
        has = self._collections.setdefault(spec.name, _Collection(spec)).spec
        for what, held, wanted in (
            ("dimensions", has.dimensions, spec.dimensions),
            ("metric", has.metric, spec.metric),
            ("space", has.space, spec.space),
        ):
            if held != wanted:
                raise StartupRefused(
                    f"collection {spec.name!r} has {what} {held}, but {wanted} is configured: "
                    "configure what it has, or use another collection"
                )

    def write(self, collection: str, writes: Sequence[Write], deadline: Deadline) -> Sequence[Outcome]:
        """As :meth:`vectide.ports.Store.write`."""
        held = self._collection(collection)
        for write in writes:
            if isinstance(write, Put):
                _check_vector(write.vector, held.spec.dimensions)
        if not self._capabilities.atomic_calls:
            return [self._apply(held, write) for write in writes]
        outcomes: list[Outcome] = [APPLIED] * len(writes)
        fates: dict[Row, Outcome] = {}
        for i in sorted(range(len(writes)), key=lambda i: _is_later_chunk(writes[i])):
            row = row_of(writes[i])
            fate = fates.get(row, APPLIED)
            outcomes[i] = fates[row] = self._apply(held, writes[i]) if fate is APPLIED else fate
        return outcomes

    def stamps(
        self, collection: str, rows: Sequence[Row], deadline: Deadline, *, values: bool = False
    ) -> Sequence[Stamp | None]:
        """As :meth:`vectide.ports.Store.stamps`."""
        heads = [self._collection(collection).head(row) for row in rows]
        return [None if head is None else _stamp_of(head, values=values) for head in heads]

    def search(
        self, collection: str, vector: Vector, limit: int, deadline: Deadline, filters: Mapping[str, Value]
    ) -> Sequence[Hit]:
        """As :meth:`vectide.ports.Searchable.search`: exact."""
        held = self._collection(self._aliases.get(collection, collection))
        _check_vector(vector, held.spec.dimensions)
        scored = [
            (_score(held.spec.metric, one.vector, vector), one.point)
            for one in held.in_id_order()
            if all(name in one.point.metadata for name in filters)
            and all(same_value(one.point.metadata[name], value) for name, value in filters.items())
        ]
        scored.sort(key=lambda pair: -pair[0])
        return [
            Hit(point.row, point.chunk, score, point.text, point.metadata) for score, point in scored[:limit]
        ]

    def scan(
        self, collection: str, cursor: str | None, limit: int, deadline: Deadline, *, vectors: bool = False
    ) -> tuple[Sequence[Stored], str | None]:
        """As :meth:`vectide.ports.Scannable.scan`; the cursor is the last id."""
        after = [
            one
            for one in self._collection(collection).in_id_order()
            if cursor is None or one.point.id > cursor
        ]
        page = [replace(one.point, vector=one.vector if vectors else None) for one in after[:limit]]
        return page, page[-1].id if len(after) > limit else None

    def swap(self, alias: str, collection: str, deadline: Deadline) -> None:
        """As :meth:`vectide.ports.Swappable.swap`."""
        self._collection(collection)
        if alias in self._collections:
            raise _refused("name_taken", f"there is a collection {alias!r}: choose another alias")
        self._aliases[alias] = collection

    def leads_to(self, alias: str, deadline: Deadline) -> str | None:
        """As :meth:`vectide.ports.Swappable.leads_to`."""
        return self._aliases.get(alias)

    def drop(self, collection: str, deadline: Deadline) -> None:
        """As :meth:`vectide.ports.Droppable.drop`."""
        for alias, target in self._aliases.items():
            if collection in (alias, target):
                raise _refused("in_use", f"alias {alias!r} leads to collection {target!r}")
        self._collections.pop(collection, None)

    def of_row(self, collection: str, row: Row) -> Sequence[Stored]:
        """The points of one row, vectors included, by index."""
        held = self._collection(collection).rows.get(row, {})
        points = [replace(one.point, vector=one.vector) for one in held.values()]
        return sorted(points, key=lambda point: point.chunk)

    def count(self, collection: str, deadline: Deadline) -> int:
        """The number of points in the collection."""
        return len(self._collection(collection).in_id_order())

    def close(self) -> None:
        """Nothing to close; the content stays."""

    # --- one write ---

    def _collection(self, name: str) -> _Collection:
        found = self._collections.get(name)
        if found is None:
            raise _refused("collection_missing", f"there is no collection {name!r}")
        return found

    def _apply(self, held: _Collection, write: Write) -> Outcome:
        refused = self._refused(held, write)
        if refused is not None:
            return refused
        match write:
            case Remove(row, ids):
                self._delete(held, row, ids, ())
            case Put():
                _put(held, write)
            case PatchChunks(row):
                _patch_chunks(held.rows.get(row, {}), write)
            case Trim(row, ids, stay):
                self._delete(held, row, set(ids) - {row.head_id}, (row.head_id, *stay))
            case Patch(row) | Mark(row):
                _change(held.rows[row], write)
        return APPLIED

    def _refused(self, held: _Collection, write: Write) -> Outcome | None:
        """What becomes of a write that does not fit what the store holds of its row."""
        if self._capabilities.atomic_calls and _is_elsewhere(write, held.head(row_of(write))):
            return MISSING
        match write:
            case Put(point):
                position = None if point.stamp is None else point.stamp.position
                needs_row = write.only_if_present
            case Remove(position=position):
                needs_row = False
            case Patch(stamp=stamp) | Mark(stamp=stamp):
                position, needs_row = stamp.position, True
            case _:
                return None
        head = held.head(row_of(write))
        if head is None:
            return MISSING if needs_row else None
        if isinstance(write, Patch) and not write.stamp.is_of(head.point.text_hash):
            older = head.point.stamp is not None and _is_older(
                write.stamp.position, head.point.stamp.position
            )
            return SUPERSEDED if older else MISSING
        if position is None or head.point.stamp is None or not self._capabilities.conditional_writes:
            return None
        return SUPERSEDED if _is_older(position, head.point.stamp.position) else None

    def _delete(self, held: _Collection, row: Row, ids: Iterable[str], stay: Iterable[str]) -> None:
        points = held.rows.get(row, {})
        found = points.keys() - set(stay) if self._capabilities.atomic_calls else points.keys() & set(ids)
        for id_ in found:
            del points[id_]
        if not points:
            held.rows.pop(row, None)


def _refused(cause: str, detail: str) -> AdapterError:
    return AdapterError(Failure(Kind.OPERATOR, cause, detail))


def _is_older(position: Position, held: Position) -> bool:
    return position.relation_to(held) is Order.OLDER


def _is_elsewhere(write: Write, head: _Held | None) -> bool:
    """Whether the row is not what the write was planned on."""
    if not isinstance(write, Put | Patch) or write.base is None:
        return False
    stamp = None if head is None else head.point.stamp
    mine = write.stamp if isinstance(write, Patch) else write.point.stamp
    assert mine is not None
    return stamp is None or Order.SAME not in map(stamp.position.relation_to, (write.base, mine.position))


def _put(held: _Collection, put: Put) -> None:
    point = put.point
    points = held.rows.setdefault(point.row, {})
    head = points.get(point.row.head_id)
    points[point.id] = _Held(
        Stored(
            id=point.id,
            row=point.row,
            chunk=point.chunk,
            text=point.text,
            text_hash=point.text_hash,
            metadata=_merged(point.metadata, head, put.keep),
            stamp=_bare(point.stamp),
        ),
        np.array(put.vector, dtype=np.float32),
        point.values,
    )


def _change(points: dict[str, _Held], write: Patch | Mark) -> None:
    head_id = write.row.head_id
    head = points[head_id]
    point = replace(head.point, stamp=_bare(write.stamp))
    values = head.values
    if isinstance(write, Patch):
        point = replace(point, metadata=_merged(write.metadata, head, write.keep))
        values = head.values if write.values is None else write.values
    points[head_id] = replace(head, point=point, values=values)


def _patch_chunks(points: dict[str, _Held], write: PatchChunks) -> None:
    for id_, chunk in write.chunks:
        one = points.get(id_)
        if one is not None:
            metadata = _merged(write.metadata, one, write.keep)
            points[id_] = replace(one, point=replace(one.point, metadata=metadata, chunk=chunk))


def row_of(write: Write) -> Row:
    """The row that a write is about."""
    return write.point.row if isinstance(write, Put) else write.row


def _is_later_chunk(write: Write) -> bool:
    return isinstance(write, PatchChunks | Trim) or (isinstance(write, Put) and write.point.stamp is None)


def _merged(new: Mapping[str, Value], old: _Held | None, keep: frozenset[str]) -> dict[str, Value]:
    stored = {} if old is None else old.point.metadata
    return {name: value for name, value in new.items() if name not in keep} | {
        name: stored[name] for name in keep if name in stored
    }


def _bare(stamp: Stamp | None) -> Stamp | None:
    return None if stamp is None else replace(stamp, values=None, text=None, metadata=None)


def _stamp_of(head: _Held, *, values: bool) -> Stamp | None:
    stamp = head.point.stamp
    if stamp is None or not values:
        return stamp
    text = head.point.text if head.values is None else None
    return replace(stamp, values=head.values, text=text, metadata=head.point.metadata)


def _check_vector(vector: Vector, dimensions: int) -> None:
    if vector.shape != (dimensions,):
        detail = f"a vector of shape {vector.shape} where ({dimensions},) is needed"
        raise AdapterError(Failure(Kind.REFUSED, "data", detail))
    if not np.isfinite(vector).all():
        raise AdapterError(Failure(Kind.REFUSED, "data", "a vector that is not finite"))


def _score(metric: str, stored: Vector, wanted: Vector) -> float:
    a, b = stored.astype(np.float64), wanted.astype(np.float64)
    if metric == "l2":
        return -float(np.linalg.norm(a - b))
    if metric == "dot":
        return float(a @ b)
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norms if norms else 0.0
