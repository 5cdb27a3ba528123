"""A plan as writes for the store, and the order in which they may be made.

In a store of atomic calls the writes of a row travel together. In another one a row of several points is
changed in steps, each confirmed before the next is made, so that at every instant, whatever is lost in
between, either chunk 0 says that the row is open, or exactly the chunks that it lists exist (invariant 8):

=======  ============================================================================================
change   steps
=======  ============================================================================================
update   chunk 0 is marked open; later chunks are written and patched; surplus ones are removed; chunk 0
         is written, which closes it
insert   chunk 0 is written, open; later chunks are written; chunk 0 is marked closed
removal  chunk 0 is marked open; later chunks are removed; chunk 0 is removed
=======  ============================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from vectide.core.chunkdiff import Tail
from vectide.core.model import Position, Row, Stamp, Value
from vectide.core.opening import opened
from vectide.core.planner import EmbedText, MarkStale, PatchMetadata, Plan, RemoveRow
from vectide.core.value import value
from vectide.ports import Mark, Patch, PatchChunks, Put, Remove, Trim, Vector, Write


@value
class Step:
    """Writes of one row that may be made in any order. ``leaves``: the row's stamp when they are done."""

    writes: tuple[Write, ...]
    leaves: Stamp | None


def writes_of(
    planned: Plan | None,
    row: Row,
    vectors: Sequence[Vector | None],
    position: Position,
    *,
    update_only: bool = False,
    base: Position | None = None,
) -> list[Write]:
    """The writes of a plan that writes, chunk 0 first. ``vectors``: those of its points, all there.
    ``position``: that of the change. ``update_only``: the row was there, and shall not be made anew.
    ``base``: the position of the row that the plan was made on, None where there was none."""
    match planned:
        case EmbedText(points, keep=keep, head=head, tail=tail):
            writes: list[Write] = [
                Put(point, vector, keep, only_if_present=update_only and not point.chunk)
                for point, vector in zip(points, vectors, strict=True)
                if vector is not None
            ]
            if head is not None:
                writes.insert(0, _patch(row, head))
            return _with_tail(writes, tail, base, row, points[0].metadata, keep)
        case PatchMetadata(metadata, keep, tail=tail):
            return _with_tail([_patch(row, planned)], tail, base, row, metadata, keep)
        case RemoveRow(ids, _):
            return [Remove(row, ids, position)]
        case MarkStale(stamp, _):
            return [Mark(row, stamp)]
        case _:
            raise ValueError(f"{type(planned).__name__} writes nothing")


def steps_of(writes: Sequence[Write], stamp: Stamp | None, *, atomic_calls: bool) -> list[Step]:
    """The steps in which the writes of one row (as :func:`writes_of` gives them) are made, when the store
    holds ``stamp`` of it."""
    head, *tail = writes
    closed = _leaves(head)
    if atomic_calls:
        return [Step(tuple(writes), closed)]
    if isinstance(head, Remove):
        return _removal(head, stamp)
    changes = tuple(write for write in tail if not isinstance(write, Trim))
    trims = tuple(write for write in tail if isinstance(write, Trim) and write.ids)
    if closed is None or not (changes or trims):
        return [Step((head,), closed)]
    open_stamp = opened(stamp, closed)
    if isinstance(head, Put) and stamp is None:
        first: tuple[Write, ...] = (replace(head, point=replace(head.point, stamp=open_stamp)),)
        last: Write = Mark(head.point.row, closed)
    else:
        first = _mark(_row_of(head), stamp, open_stamp)
        last = head
    between = (group for group in (first, changes, trims) if group)
    return [*(Step(group, open_stamp) for group in between), Step((last,), closed)]


def _removal(remove: Remove, stamp: Stamp | None) -> list[Step]:
    head, *later = remove.ids
    if stamp is None or not later:
        return [Step((remove,), None)]
    open_stamp = opened(stamp, stamp)
    first = _mark(remove.row, stamp, open_stamp)
    between = (group for group in (first, (Trim(remove.row, tuple(later), ()),)) if group)
    return [*(Step(group, open_stamp) for group in between), Step((replace(remove, ids=(head,)),), None)]


def _mark(row: Row, stamp: Stamp | None, open_stamp: Stamp) -> tuple[Write, ...]:
    """Nothing where the store holds that stamp already."""
    held = None if stamp is None else replace(stamp, values=None)
    return () if held == open_stamp else (Mark(row, open_stamp),)


def _leaves(head: Write) -> Stamp | None:
    """The stamp of the row after this write to chunk 0."""
    match head:
        case Put(point):
            return point.stamp
        case Patch(stamp=stamp) | Mark(stamp=stamp):
            return stamp
        case _:
            return None


def _row_of(write: Write) -> Row:
    return write.point.row if isinstance(write, Put) else write.row


def _patch(row: Row, planned: PatchMetadata) -> Patch:
    return Patch(row, planned.metadata, planned.stamp, planned.keep, planned.values)


def _with_tail(
    writes: list[Write],
    tail: Tail | None,
    base: Position | None,
    row: Row,
    metadata: Mapping[str, Value],
    keep: frozenset[str],
) -> list[Write]:
    if tail is None:
        return writes
    head, *more = writes
    assert isinstance(head, Put | Patch)
    patched = [PatchChunks(row, metadata, tail.changed, keep)] if tail.changed else []
    return [replace(head, base=base), *more, *patched, Trim(row, tail.gone, tail.ids)]
