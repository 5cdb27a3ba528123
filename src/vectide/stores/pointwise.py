"""Writes for stores that change points one by one and cannot compare what they hold with what they are given.

Such a store reads what it holds of the points in question (:func:`ids_to_read`), decides here what becomes
of every write (:func:`changes_of`), and makes the changes. It writes payloads whole, so that half of one is
never seen, and finds the points of a row by the id of the row's chunk 0. Nothing here talks to a store.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from vectide.core.failures import Failure, Kind
from vectide.core.model import Order, Position, Row, Stamp, Value, canonical_json
from vectide.core.values import same_value
from vectide.ports import (
    APPLIED,
    MISSING,
    SUPERSEDED,
    AdapterError,
    Effect,
    Hit,
    Mark,
    Outcome,
    Patch,
    PatchChunks,
    Put,
    Remove,
    Stored,
    Trim,
    Vector,
    Write,
)


@dataclass(frozen=True, slots=True)
class Held:
    """A point as a store holds it: ``point`` without its vector, and the kept embed columns."""

    point: Stored
    values: Mapping[str, str | None] | None = None


@dataclass(slots=True)
class Changes:
    """What a call has to do. The writes have ``outcomes`` once it is done.

    ``puts`` are whole points, ``patches`` points that are there and keep their vector. ``removals``: of the
    row with this id of chunk 0, all points but those that stay, and (where there is a position) unless it has
    come to hold something newer. ``updates``: the ids of those puts that are only for a point that is there,
    and which outcome each has.
    """

    outcomes: list[Outcome]
    puts: list[tuple[Held, Vector]] = field(default_factory=list)
    patches: list[Held] = field(default_factory=list)
    removals: list[tuple[str, tuple[str, ...], Position | None]] = field(default_factory=list)
    updates: dict[str, int] = field(default_factory=dict)

    def found(self, there: Container[str]) -> None:
        """Which of the updated points are there when all is done: the others were gone before."""
        for id_, i in self.updates.items():
            if id_ not in there:
                self.outcomes[i] = MISSING

    def outcomes_of(self, writes: Sequence[Write], told: Mapping[str, Outcome]) -> list[Outcome]:
        """The outcomes, where points with these ids were told otherwise. A later chunk that has gone is
        passed over."""
        return [_told(write, outcome, told) for write, outcome in zip(writes, self.outcomes, strict=True)]


def _told(write: Write, outcome: Outcome, told: Mapping[str, Outcome]) -> Outcome:
    match write:
        case Put(point):
            return told.get(point.id, outcome)
        case Patch(row) | Mark(row):
            return told.get(row.head_id, outcome)
        case PatchChunks(_, _, chunks):
            failed = (told[id_] for id_, _ in chunks if id_ in told)
            return next((one for one in failed if one.effect is Effect.FAILED), outcome)
        case _:
            return outcome


def ids_to_read(writes: Iterable[Write], *, puts: bool) -> list[str]:
    """The points that :func:`changes_of` needs to know. ``puts``: all those that will be written whole, too,
    not only those that are for a row that is there."""
    wanted: dict[str, None] = {}
    for write in writes:
        match write:
            case Put(point, _, keep, only_if_present):
                wanted |= dict.fromkeys([point.id] if puts or only_if_present else [])
                wanted |= dict.fromkeys([point.row.head_id] if keep else [])
            case Patch(row) | Mark(row) | Remove(row, _, Position()):
                wanted[row.head_id] = None
            case PatchChunks(_, _, chunks):
                wanted |= dict.fromkeys(id_ for id_, _ in chunks)
    return list(wanted)


def changes_of(writes: Sequence[Write], held: Mapping[str, Held]) -> Changes:
    """What becomes of the writes where the store holds that of the points of :func:`ids_to_read`."""
    changes = Changes([APPLIED] * len(writes))
    for i, write in enumerate(writes):
        changes.outcomes[i] = _decide(write, held, changes)
        if isinstance(write, Put) and write.only_if_present and changes.outcomes[i] is APPLIED:
            changes.updates[write.point.id] = i
    return changes


def _decide(write: Write, held: Mapping[str, Held], changes: Changes) -> Outcome:
    match write:
        case Put(point, vector, keep):
            refused = _refused(write, held.get(point.id))
            if refused is not None:
                return refused
            changes.puts.append((_put(write, held.get(point.row.head_id) if keep else None), vector))
        case Patch(row, _, stamp) | Mark(row, stamp):
            head = held.get(row.head_id)
            if _is_older(stamp.position, head):
                return SUPERSEDED
            if head is None or (isinstance(write, Patch) and not stamp.is_of(head.point.text_hash)):
                return MISSING
            changes.patches.append(_patched(write, head))
        case PatchChunks():
            changes.patches.extend(_patched_chunks(write, held))
        case Trim(row, _, stay):
            changes.removals.append((row.head_id, (row.head_id, *stay), None))
        case Remove(row, _, position):
            if position is not None and _is_older(position, held.get(row.head_id)):
                return SUPERSEDED
            changes.removals.append((row.head_id, (), position))
    return APPLIED


def _refused(put: Put, there: Held | None) -> Outcome | None:
    if put.only_if_present and there is None:
        return MISSING
    stamp = put.point.stamp
    return SUPERSEDED if stamp is not None and _is_older(stamp.position, there) else None


def _is_older(position: Position, held: Held | None) -> bool:
    if held is None or held.point.stamp is None:
        return False
    return position.relation_to(held.point.stamp.position) is Order.OLDER


def _put(put: Put, head: Held | None) -> Held:
    point = put.point
    metadata = _merged(point.metadata, head, put.keep)
    stored = Stored(point.id, point.row, point.chunk, point.text, point.text_hash, metadata, point.stamp)
    return Held(stored, point.values)


def _patched(write: Patch | Mark, head: Held) -> Held:
    point, values = replace(head.point, stamp=write.stamp), head.values
    if isinstance(write, Patch):
        point = replace(point, metadata=_merged(write.metadata, head, write.keep))
        values = head.values if write.values is None else write.values
    return Held(point, values)


def _patched_chunks(write: PatchChunks, held: Mapping[str, Held]) -> Iterable[Held]:
    for id_, chunk in write.chunks:
        one = held.get(id_)
        if one is not None and one.point.row == write.row:
            metadata = _merged(write.metadata, one, write.keep)
            yield replace(one, point=replace(one.point, metadata=metadata, chunk=chunk))


def _merged(new: Mapping[str, Value], old: Held | None, keep: frozenset[str]) -> dict[str, Value]:
    """New metadata without the kept names: those have their stored value or none."""
    stored = {} if old is None else old.point.metadata
    return {name: value for name, value in new.items() if name not in keep} | {
        name: stored[name] for name in keep if name in stored
    }


# --- values, and what comes back ------------------------------------------------------------------------


def check_vectors(vectors: Iterable[Vector], dimensions: int) -> None:
    """Raise :class:`AdapterError` (refused) for a vector that does not fit or is not finite."""
    for vector in vectors:
        if vector.shape != (dimensions,):
            detail = f"a vector of shape {vector.shape} where ({dimensions},) is needed"
            raise AdapterError(Failure(Kind.REFUSED, "data", detail))
        if not np.isfinite(vector).all():
            raise AdapterError(Failure(Kind.REFUSED, "data", "a vector that is not finite"))


def ours_of(held: Held) -> dict[str, Value]:
    """What stands beside the text and the metadata of a point, for :func:`held_from`."""
    point = held.point
    ours: dict[str, Value] = {
        "table": point.row.table,
        "key": point.row.key,
        "chunk": point.chunk,
        "hash": point.text_hash,
    }
    if point.stamp is not None:
        ours["stamp"] = point.stamp.to_payload(point.row)
    if held.values is not None:
        ours["values"] = dict(held.values)
    return ours


def flat(ours: Mapping[str, Value]) -> dict[str, Value]:
    """The same for a store that cannot nest: objects are JSON text."""
    return {
        name: canonical_json(value) if isinstance(value, Mapping) else value for name, value in ours.items()
    }


def held_from(
    id_: str, ours: Mapping[str, Any], text: str | None, metadata: Mapping[str, Value], vector: Any = None
) -> Held:
    """The point that was written as this. ``vector``: numbers, or none."""
    stamp, values = (
        json.loads(part) if isinstance(part, str) else part
        for part in (ours.get("stamp"), ours.get("values"))
    )
    numbers = None if vector is None or len(vector) == 0 else np.asarray(vector, dtype=np.float32)
    row, chunk = Row(ours["table"], ours["key"]), int(ours["chunk"])
    return Held(Stored(id_, row, chunk, text, ours["hash"], metadata, read_stamp(stamp), numbers), values)


def hit_of(held: Held, score: float) -> Hit:
    """The point as a search gives it."""
    point = held.point
    return Hit(point.row, point.chunk, score, point.text, point.metadata)


def read_stamp(payload: Mapping[str, Value] | None) -> Stamp | None:
    """The stamp of this payload. Raises :class:`AdapterError` (operator) when it cannot be read."""
    if payload is None:
        return None
    try:
        return Stamp.from_payload(payload)
    except (KeyError, ValueError, TypeError) as error:
        detail = f"a point's stamp cannot be read: {error}"
        raise AdapterError(Failure(Kind.OPERATOR, "stamp_unreadable", detail)) from None


def stamps_of(rows: Sequence[Row], held: Mapping[str, Held], *, values: bool) -> list[Stamp | None]:
    """The stamps of the rows' chunks 0, in order, with what is kept beside them when asked for."""
    found: list[Stamp | None] = []
    for row in rows:
        head = held.get(row.head_id)
        stamp = None if head is None else head.point.stamp
        if stamp is not None and head is not None and values:
            text = head.point.text if head.values is None else None
            stamp = replace(stamp, values=head.values, text=text, metadata=head.point.metadata)
        found.append(stamp)
    return found


def matching(
    find: Callable[[int], Sequence[Hit | None]], limit: int, filters: Mapping[str, Value]
) -> list[Hit]:
    """The first ``limit`` hits whose metadata equals ``filters``, for stores whose own conditions let others
    through. ``find`` gives so many candidates, best first; None is a point that is not ours."""
    wanted = limit
    while True:
        found = find(wanted)
        hits = [hit for hit in found if hit is not None and _matches(hit, filters)]
        if len(hits) >= limit or len(found) < wanted:
            return hits[:limit]
        wanted *= 4


def _matches(hit: Hit, filters: Mapping[str, Value]) -> bool:
    return all(
        name in hit.metadata and same_value(hit.metadata[name], value) for name, value in filters.items()
    )
