"""What a change means for the store: a pure function of the change, the stored stamp and the mapping.

What changed is decided from what the store holds, because ``before`` is null on a default PostgreSQL source
and says nothing about what was written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from vectide.core.mapping import TableMapping, metadata_hash
from vectide.core.model import (
    Deleted,
    Order,
    Point,
    Position,
    Row,
    Stamp,
    Upserted,
    Value,
    text_hash,
)


@dataclass(frozen=True, slots=True)
class Skip:
    """Nothing to do; ``reason`` is from a closed set."""

    reason: str


@dataclass(frozen=True, slots=True)
class PatchMetadata:
    """The text is unchanged: new metadata and stamp, no embedding, no vector on the wire.

    ``keep`` names the metadata whose (unavailable) value stays as stored.
    """

    metadata: Mapping[str, Value]
    keep: frozenset[str]
    stamp: Stamp
    values: Mapping[str, str | None] | None = None


@dataclass(frozen=True, slots=True)
class EmbedText:
    """The text is new: embed the text of each point, then write the points."""

    points: tuple[Point, ...]
    texts: tuple[str, ...]
    keep: frozenset[str]


@dataclass(frozen=True, slots=True)
class RemoveRow:
    """The row must have no points; ``reason``: deleted, soft_deleted or empty_text."""

    ids: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class MarkStale:
    """Nothing to change but the mark: a newer change of the row was dead-lettered. ``reason`` is that of
    the :class:`Skip` which it replaces."""

    stamp: Stamp
    reason: str


@dataclass(frozen=True, slots=True)
class Incomplete:
    """The text or metadata cannot be built: these columns are unavailable and nothing holds their value."""

    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Drift:
    """The event lacks mapped columns altogether: the source's schema and the configuration disagree."""

    columns: tuple[str, ...]


Plan = Skip | PatchMetadata | EmbedText | RemoveRow | MarkStale | Incomplete | Drift


@dataclass(frozen=True, slots=True)
class Known:
    """What is known when planning one change of ``row``.

    ``fresh``: nothing stored may complete the change, because it follows a delete of the row or a
    dead-lettered change that the store has not seen. ``stale``: a newer change of the row was dead-lettered:
    what is written now says so. ``must_write``: the position has to be written even if nothing else
    changed, because the change absorbed others that a replay would otherwise apply.
    """

    row: Row
    position: Position
    stamp: Stamp | None
    space: str
    fresh: bool = False
    stale: bool = False
    must_write: bool = False


def plan(change: Upserted | Deleted, known: Known, mapping: TableMapping) -> Plan:
    """Decide. The offset fence comes first: what the store already has is never applied again."""
    decided = _plan(change, known, mapping)
    stamp = known.stamp
    if isinstance(decided, Skip) and known.stale and stamp is not None and not stamp.stale:
        newer = known.position.relation_to(stamp.position) is Order.NEWER
        position = known.position if newer else stamp.position
        return MarkStale(replace(stamp, stale=True, position=position), decided.reason)
    return decided


def _plan(change: Upserted | Deleted, known: Known, mapping: TableMapping) -> Plan:
    stamp = known.stamp
    if stamp is not None and not stamp.open and _already_applied(known.position, stamp):
        return Skip("already_applied")
    if isinstance(change, Deleted):
        return _remove(known, "deleted", absent="absent")
    missing = mapping.missing(change)
    if missing:
        return Drift(missing)
    soft_deleted = mapping.is_soft_deleted(change)
    if soft_deleted:
        return _remove(known, "soft_deleted", absent="soft_deleted")
    if soft_deleted is None and _base(known) is None:
        assert mapping.soft_delete is not None
        return Incomplete((mapping.soft_delete.column,))
    return _plan_upsert(change, known, mapping)


def _already_applied(position: Position, stamp: Stamp) -> bool:
    return position.relation_to(stamp.position) in (Order.OLDER, Order.SAME)


def _remove(known: Known, reason: str, *, absent: str) -> Plan:
    if known.stamp is None:
        return Skip(absent)
    return RemoveRow((known.row.head_id,), reason)


def _plan_upsert(change: Upserted, known: Known, mapping: TableMapping) -> Plan:
    base = _base(known)
    rendered = dict(mapping.rendered(change))
    hashes = dict(mapping.column_hashes(change, rendered))
    metadata, keep = mapping.metadata_of(change)
    unknown = _complete_hashes(mapping, hashes, base)
    if unknown:
        return Incomplete(unknown)
    absent_text = tuple(name for name in mapping.embed_columns if name not in rendered)
    if absent_text:
        same = base if base is not None and _text_is_unchanged(known, mapping, hashes, base) else None
        stored = _stored_texts(mapping, base, absent_text)
        if same is not None and (stored is None or same.layout == mapping.layout):
            # An older layout stays until the row's text is at hand again.
            return _same_text(known, mapping, same.chunks, same.layout, hashes, metadata, keep, None)
        if stored is None:
            return Incomplete(absent_text)
        rendered |= stored
    text = mapping.render(rendered, change)
    if not text.strip():
        return _remove(known, "empty_text", absent="empty_text")
    stamp = known.stamp
    digest = text_hash(text)
    if stamp is not None and stamp.chunks == (digest,) and stamp.space == known.space and not stamp.open:
        return _same_text(known, mapping, (digest,), mapping.layout, hashes, metadata, keep, rendered)
    return _embed(known, mapping, text, digest, hashes, metadata, keep, rendered)


def _base(known: Known) -> Stamp | None:
    """What may complete the change: the row as it was right before it."""
    return None if known.fresh or known.stamp is None or known.stamp.stale else known.stamp


def _complete_hashes(mapping: TableMapping, hashes: dict[str, str], base: Stamp | None) -> tuple[str, ...]:
    """Fill in the hashes of unavailable columns from the stored ones; returns columns nothing knows."""
    unknown = []
    for name in mapping.hashed_columns:
        if name in hashes:
            continue
        if base is not None and name in base.columns:
            hashes[name] = base.columns[name]
        else:
            unknown.append(name)
    return tuple(unknown)


def _text_is_unchanged(known: Known, mapping: TableMapping, hashes: Mapping[str, str], base: Stamp) -> bool:
    """Whether the stored vector is that of the embed columns' present values, whatever the layout."""
    return (
        base.space == known.space
        and not base.open
        and all(base.columns.get(name) == hashes[name] for name in mapping.embed_columns)
    )


def _stored_texts(
    mapping: TableMapping, base: Stamp | None, names: tuple[str, ...]
) -> Mapping[str, str | None] | None:
    """The stored values of these embed columns, None where they are not all kept."""
    values = None if base is None or "stored" not in mapping.on_incomplete else base.values
    if values is None or not set(names) <= set(values):
        return None
    return {name: values[name] for name in names}


def _same_text(
    known: Known,
    mapping: TableMapping,
    chunks: tuple[str, ...],
    layout: str,
    hashes: Mapping[str, str],
    metadata: Mapping[str, Value],
    keep: frozenset[str],
    rendered: Mapping[str, str | None] | None,
) -> Plan:
    """``rendered``: the embed columns, to be kept anew when they moved although the text is the same."""
    stamp = known.stamp
    assert stamp is not None
    new = replace(_stamp(known, mapping, chunks, hashes), layout=layout)
    same = replace(new, position=stamp.position, values=stamp.values) == stamp
    if same and not known.must_write:
        return Skip("unchanged")
    moved = any(stamp.columns.get(name) != hashes[name] for name in mapping.embed_columns)
    values = rendered if moved and mapping.keeps_values else None
    return PatchMetadata(metadata, keep, new, values)


def _embed(
    known: Known,
    mapping: TableMapping,
    text: str,
    digest: str,
    hashes: Mapping[str, str],
    metadata: Mapping[str, Value],
    keep: frozenset[str],
    rendered: Mapping[str, str | None],
) -> Plan:
    point = Point(
        id=known.row.head_id,
        row=known.row,
        chunk=0,
        text=text if mapping.store_text else None,
        text_hash=digest,
        metadata=metadata,
        stamp=_stamp(known, mapping, (digest,), hashes),
        values=rendered if mapping.keeps_values else None,
    )
    return EmbedText((point,), (text,), keep)


def _stamp(known: Known, mapping: TableMapping, chunks: tuple[str, ...], hashes: Mapping[str, str]) -> Stamp:
    return Stamp(
        space=known.space,
        layout=mapping.layout,
        chunks=chunks,
        columns=hashes,
        metadata_hash=metadata_hash(mapping.metadata, hashes),
        position=known.position,
        stale=known.stale,
    )
