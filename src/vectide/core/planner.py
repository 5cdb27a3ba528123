"""What a change means for the store: a pure function of the change, the stored stamp and the mapping.

What changed is decided from what the store holds, because ``before`` is null on a default PostgreSQL source
and says nothing about what was written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice

from vectide.core.chunkdiff import Tail, difference
from vectide.core.chunks import MAX_CHUNKS, Chunk, CountTokens, chunks_of
from vectide.core.completion import kept_values
from vectide.core.mapping import TableMapping, metadata_hash
from vectide.core.model import (
    Deleted,
    Mapped,
    Order,
    Point,
    Position,
    Row,
    Stamp,
    Upserted,
    Value,
    listed_hash,
    text_hash,
)
from vectide.core.value import value
from vectide.core.where import WhereMismatch


@value
class Skip:
    """Nothing to do; ``reason`` is from a closed set."""

    reason: str


@value
class PatchMetadata:
    """No text is new: new metadata and stamp, no embedding, no vector on the wire.

    ``keep`` names the metadata whose (unavailable) value stays as stored. ``tail`` None: the row has only
    chunk 0.
    """

    metadata: Mapping[str, Value]
    keep: frozenset[str]
    stamp: Stamp
    values: Mapping[str, str | None] | None = None
    tail: Tail | None = None


@value
class EmbedText:
    """Texts are new: embed the text of each point, then write the points and what else changes of the row.

    ``tokens``: of each text. ``head``: what becomes of chunk 0 when it is not among the points.
    """

    points: tuple[Point, ...]
    texts: tuple[str, ...]
    keep: frozenset[str]
    tokens: tuple[int, ...]
    head: PatchMetadata | None = None
    tail: Tail | None = None

    @property
    def stamp(self) -> Stamp:
        """The row's new stamp."""
        stamp = self.points[0].stamp if self.head is None else self.head.stamp
        assert stamp is not None
        return stamp


@value
class RemoveRow:
    """The row must have no points; ``reason``: deleted, soft_deleted, filtered or empty_text."""

    ids: tuple[str, ...]
    reason: str


@value
class MarkStale:
    """Nothing to change but the mark: a newer change of the row was dead-lettered. ``reason`` is that of
    the :class:`Skip` which it replaces."""

    stamp: Stamp
    reason: str


@value
class Incomplete:
    """The text or metadata cannot be built: these columns are unavailable and nothing holds their value."""

    columns: tuple[str, ...]


@value
class Drift:
    """The event lacks mapped columns altogether: the source's schema and the configuration disagree."""

    columns: tuple[str, ...]


@value
class Unfit:
    """The row can never be stored as it is. ``cause`` and ``detail`` are what its dead letter says."""

    cause: str
    detail: str


@value
class Outranked:
    """Another mapping wrote the row, a later one: it takes a process with that one to apply the change."""

    by: Mapped


Plan = Skip | PatchMetadata | EmbedText | RemoveRow | MarkStale | Incomplete | Drift | Unfit | Outranked


@value
class Known:
    """What is known when planning one change of ``row``.

    ``fresh``: nothing stored may complete the change, because it follows a delete of the row or a
    dead-lettered change that the store has not seen, or because a value lies elsewhere. ``stale``: a newer
    change of the row was dead-lettered: what is written now says so. ``must_write``: the position has to be
    written even if nothing else changed, because the change absorbed others that a replay would otherwise
    apply. ``use_stored``: stored values may stand in for those that the event left out. ``ahead``: part of
    the change was read again from the source. ``count_tokens``: as the embedder counts. ``mapped``: by what
    rows are written now.
    """

    row: Row
    position: Position
    stamp: Stamp | None
    space: str
    fresh: bool = False
    stale: bool = False
    must_write: bool = False
    use_stored: bool = True
    ahead: bool = False
    count_tokens: CountTokens = len
    mapped: Mapped | None = None

    @property
    def base(self) -> Stamp | None:
        """The stamp of the version of the row that the change was made on, None when that is not stored."""
        stamp = self.stamp
        if self.fresh or stamp is None or stamp.stale or stamp.unborn:
            return None
        return stamp


@value
class _Content:
    """What the change makes of the row. ``rendered``: the embed columns' texts, as far as they are known."""

    hashes: Mapping[str, str]
    metadata: Mapping[str, Value]
    keep: frozenset[str]
    rendered: Mapping[str, str | None]


def plan(change: Upserted | Deleted, known: Known, mapping: TableMapping) -> Plan:
    """Decide. The offset fence comes first: what the store already has is never applied again."""
    decided = _plan(change, known, mapping)
    stamp = known.stamp
    if isinstance(decided, Skip) and known.stale and stamp is not None and not stamp.stale:
        return MarkStale(stamp.made_stale(known.position), decided.reason)
    return decided


def _plan(change: Upserted | Deleted, known: Known, mapping: TableMapping) -> Plan:
    stamp = known.stamp
    # An open row is not skipped: whatever comes makes it whole. But where the change that tore it is a dead
    # letter, what came before that is done, and could not be completed a second time.
    fenced = stamp is not None and (not stamp.open or stamp.stale)
    if fenced and stamp is not None and _already_applied(known.position, stamp):
        return Skip("already_applied")
    if isinstance(change, Deleted):
        return _remove(known, "deleted", absent="absent")
    by = None if stamp is None or known.mapped is None else stamp.mapped
    if by is not None and known.mapped is not None and by.outranks(known.mapped):
        # Nothing of it may be skipped either: it may say something that only the other mapping looks at.
        return Outranked(by)
    return _plan_row(change, known, mapping)


def _plan_row(change: Upserted, known: Known, mapping: TableMapping) -> Plan:
    if not change.offloaded.isdisjoint(mapping.mapped_columns):
        known = replace(known, fresh=True)
    missing = mapping.missing(change)
    if missing:
        return Drift(missing)
    soft_deleted = mapping.is_soft_deleted(change)
    if soft_deleted:
        return _remove(known, "soft_deleted", absent="soft_deleted")
    try:
        matches = mapping.matches_where(change.columns)
        if matches is None:
            matches = _still_matches(change, known, mapping)
    except WhereMismatch as mismatch:
        return Unfit("where_mismatch", str(mismatch))
    if matches is False:
        return _remove(known, "filtered", absent="filtered")
    if soft_deleted is None and known.base is None:
        assert mapping.soft_delete is not None
        return Incomplete((mapping.soft_delete.column,))
    if matches is None:
        return Incomplete(tuple(name for name in mapping.where_columns if name in change.unavailable))
    return _plan_upsert(change, known, mapping)


def _still_matches(change: Upserted, known: Known, mapping: TableMapping) -> bool | None:
    """Whether a row passes the filter that looks at columns which the event left out: what is stored of the
    row shows it, or nobody knows."""
    base = known.base
    if base is None:
        return None
    if mapping.was_matched(mapping.column_hashes(change, mapping.rendered(change)), base.columns):
        return True
    if not known.use_stored or not mapping.uses_stored:
        return None
    kept = kept_values(base, mapping)
    return mapping.matches_where({**kept, **change.columns})


def _already_applied(position: Position, stamp: Stamp) -> bool:
    return position.relation_to(stamp.position) in (Order.OLDER, Order.SAME)


def _remove(known: Known, reason: str, *, absent: str) -> Plan:
    if known.stamp is None:
        return Skip(absent)
    return RemoveRow(known.row.chunk_ids(known.stamp.chunks), reason)


def _plan_upsert(change: Upserted, known: Known, mapping: TableMapping) -> Plan:
    base = known.base
    rendered = mapping.rendered(change)
    hashes = dict(mapping.column_hashes(change, rendered))
    unknown = _complete_hashes(mapping, hashes, base)
    if unknown:
        return Incomplete(unknown)
    content = _Content(hashes, *mapping.metadata_of(change), rendered)
    absent = tuple(name for name in mapping.embed_columns if name not in rendered)
    if base is not None and base.ahead and not change.unavailable.isdisjoint(mapping.mapped_columns):
        known = replace(known, ahead=True)
    same = base if base is not None and _text_is_unchanged(known, mapping, content, base) else None
    stored = _stored_texts(known, mapping, base, absent)
    # Cutting a text into chunks is a hundred times the work of comparing its columns.
    costly = mapping.chunking is not None and not mapping.template.fields
    if same is not None and (absent or costly) and same.layout == mapping.layout:
        return _same_text(known, mapping, content, same.chunks, same.layout)
    if stored is None:
        # An older layout stays until the row's text is at hand again.
        if same is None:
            return Incomplete(absent)
        return _same_text(known, mapping, content, same.chunks, same.layout)
    if stored:
        content = replace(content, rendered={**rendered, **stored})
    text = mapping.render(content.rendered, change)
    if not text.strip():
        return _remove(known, "empty_text", absent="empty_text")
    return _plan_text(text, known, mapping, content)


def _complete_hashes(mapping: TableMapping, hashes: dict[str, str], base: Stamp | None) -> tuple[str, ...]:
    """Fill in the hashes of unavailable columns from the stored ones; returns columns nothing knows."""
    unknown = []
    for name in mapping.compared_columns:
        if name in hashes:
            continue
        if base is not None and name in base.columns:
            hashes[name] = base.columns[name]
        elif name in mapping.hashed_columns:
            unknown.append(name)
    return tuple(unknown)


def _text_is_unchanged(known: Known, mapping: TableMapping, content: _Content, base: Stamp) -> bool:
    """Whether the stored row is whole, and its vectors are those of the embed columns' present values,
    whatever the layout."""
    return (
        base.space == known.space
        and not base.open
        and all(base.columns.get(name) == content.hashes[name] for name in mapping.embed_columns)
    )


def _stored_texts(
    known: Known, mapping: TableMapping, base: Stamp | None, names: tuple[str, ...]
) -> Mapping[str, str | None] | None:
    """The stored values of these embed columns, None where they are not all kept or may not be used."""
    if not names:
        return {}
    usable = base is not None and known.use_stored and mapping.uses_stored
    values = base.values if base is not None and usable else None
    if values is None or not set(names) <= set(values):
        return None
    return {name: values[name] for name in names}


def _plan_text(text: str, known: Known, mapping: TableMapping, content: _Content) -> Plan:
    chunks: Sequence[Chunk] = (Chunk(text),)
    if mapping.chunking is not None:
        chunks = tuple(islice(chunks_of(text, mapping.chunking, known.count_tokens), MAX_CHUNKS + 1))
    if len(chunks) > MAX_CHUNKS:
        return Unfit("too_many_chunks", f"more than {MAX_CHUNKS} chunks")
    digests = tuple(text_hash(chunk.text) for chunk in chunks)
    new = _stamp(known, mapping, content, tuple(map(listed_hash, digests)), mapping.layout)
    stamp = known.stamp
    if stamp is not None and stamp.chunks == new.chunks and stamp.space == new.space and not stamp.open:
        return _same_text(known, mapping, content, new.chunks, mapping.layout)
    return _new_text(chunks, digests, new, known, mapping, content)


def _same_text(
    known: Known, mapping: TableMapping, content: _Content, chunks: tuple[str, ...], layout: str
) -> Plan:
    stamp = known.stamp
    assert stamp is not None
    new = _stamp(known, mapping, content, chunks, layout)
    if new.tells_the_same(stamp) and not known.must_write and not _fences_another_log(new, stamp):
        return Skip("unchanged")
    diff = difference(known.row, stamp, new) if _has_tail(mapping, stamp, new) else None
    return _patch(stamp, new, mapping, content, None if diff is None else diff.tail)


def _fences_another_log(new: Stamp, stamp: Stamp) -> bool:
    """Whether only the new position keeps what another log still has of the row, and is older by the source's
    order, from going over this change: another replica may be about to apply that."""
    return new.position.source is not None and not new.position.shares_log(stamp.position)


def _new_text(
    chunks: Sequence[Chunk],
    digests: Sequence[str],
    new: Stamp,
    known: Known,
    mapping: TableMapping,
    content: _Content,
) -> Plan:
    """Only the chunks that the row does not hold are embedded."""
    stamp = known.stamp
    diff = difference(known.row, stamp, new)
    tail = diff.tail if _has_tail(mapping, stamp, new) else None
    if stamp is not None and not diff.missing:
        return _patch(stamp, new, mapping, content, tail)
    points = tuple(
        Point(
            id=diff.ids[at],
            row=known.row,
            chunk=at,
            text=chunks[at].text if mapping.store_text else None,
            text_hash=digests[at],
            metadata=content.metadata,
            stamp=None if at else new,
            values=content.rendered if mapping.keeps_values and not at else None,
        )
        for at in diff.missing
    )
    head = None if stamp is None or 0 in diff.missing else _patch(stamp, new, mapping, content, None)
    embedded = [chunks[at] for at in diff.missing]
    return EmbedText(
        points,
        tuple(chunk.text for chunk in embedded),
        content.keep,
        tuple(known.count_tokens(chunk.text) if chunk.tokens is None else chunk.tokens for chunk in embedded),
        head,
        tail,
    )


def _patch(
    stamp: Stamp, new: Stamp, mapping: TableMapping, content: _Content, tail: Tail | None
) -> PatchMetadata:
    """``values`` are kept anew when they moved although the text is the same, or were not kept so far."""
    moved = stamp.layout != new.layout or any(
        stamp.columns.get(name) != new.columns[name] for name in mapping.embed_columns
    )
    values = content.rendered if moved and mapping.keeps_values else None
    return PatchMetadata(content.metadata, content.keep, new, values, tail)


def _has_tail(mapping: TableMapping, stamp: Stamp | None, new: Stamp) -> bool:
    """Whether the row may have, or have had, later chunks."""
    return (
        mapping.chunking is not None or len(new.chunks) > 1 or (stamp is not None and len(stamp.chunks) > 1)
    )


def _stamp(
    known: Known, mapping: TableMapping, content: _Content, chunks: tuple[str, ...], layout: str
) -> Stamp:
    return Stamp(
        space=known.space,
        layout=layout,
        chunks=chunks,
        columns=content.hashes,
        metadata_hash=metadata_hash(mapping.metadata, content.hashes),
        position=known.position,
        stale=known.stale,
        ahead=known.ahead,
        mapped=known.mapped,
    )
