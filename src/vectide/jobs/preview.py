"""What the pump would do with records, decided by the same codec, mapping and planner, without doing it.

Each record is planned by itself, on what the records before it would have left in the store. (The pump may
merge waiting changes of one row, which saves work and ends the same, and gives an incomplete change some time
in which a newer one can complete it.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from vectide.core.chunkdiff import Tail
from vectide.core.completion import carried, completed
from vectide.core.mapping import TableMapping
from vectide.core.model import (
    Change,
    DecodeError,
    Deleted,
    Ignored,
    Position,
    Record,
    Row,
    Stamp,
    Truncated,
    Upserted,
    Value,
)
from vectide.core.planner import (
    Drift,
    EmbedText,
    Incomplete,
    Known,
    MarkStale,
    Outranked,
    PatchMetadata,
    Plan,
    RemoveRow,
    Skip,
    Unfit,
    plan,
)
from vectide.core.values import ValueRefused
from vectide.core.vanishing import Vanishing
from vectide.jobs.lookup import made_legal
from vectide.ports import Capabilities, EmbedderLimits


class Decision(Enum):
    """What would become of a record."""

    SKIP = "skip"
    EMBED = "embed"
    PATCH = "patch"
    REMOVE = "remove"
    DEAD_LETTER = "dead_letter"
    #: What the event lacks would be read from the source, then decided.
    REREAD = "reread"
    #: The table would stop and wait for an operator.
    HALT = "halt"


@dataclass(frozen=True, slots=True)
class Text:
    """A text that would be embedded, the point that it would become, and which chunk of its row that is."""

    point: str
    text: str
    tokens: int
    chunk: int = 0


@dataclass(frozen=True, slots=True)
class Preview:
    """What would become of one record. ``reason`` is the reason to skip or remove or the cause of the dead
    letter; ``points`` are the ids of points that would be written, patched or, with the row, removed;
    names in ``keep`` would keep their stored value. ``chunks``: how many chunks the row would have, when its
    table is cut into chunks; ``gone``: ids of those that would go."""

    record: Record
    decision: Decision
    reason: str = ""
    detail: str = ""
    table: str = ""
    collection: str = ""
    row: Row | None = None
    points: tuple[str, ...] = ()
    texts: tuple[Text, ...] = ()
    metadata: Mapping[str, Value] = field(default_factory=dict)
    keep: frozenset[str] = frozenset()
    chunks: int | None = None
    gone: tuple[str, ...] = ()

    @property
    def tokens(self) -> int:
        """Tokens that would be sent."""
        return sum(text.tokens for text in self.texts)


@dataclass(frozen=True, slots=True)
class Rules:
    """What the decisions depend on besides the records and what is stored. ``can_reread``: whether a source
    is configured that could be asked; it is not asked here."""

    decode: Callable[[Record], Change]
    mapping_of: Callable[[str], TableMapping | None]
    capabilities: Capabilities
    limits: EmbedderLimits
    count_tokens: Callable[[str], int]
    space: str
    can_reread: bool = False


class Previewer:
    """Previews records in the order given, remembering what each would leave behind.

    ``log_of`` tells the identity of a topic's log. ``stored`` is asked once for each row: collection and row
    to the stamp (with its kept values) that the store holds.
    """

    def __init__(
        self,
        rules: Rules,
        *,
        log_of: Callable[[str], str] = lambda topic: topic,
        stored: Callable[[str, Row], Stamp | None] = lambda _collection, _row: None,
    ) -> None:
        self._rules = rules
        self._log_of = log_of
        self._stored = stored
        self._stamps: dict[Row, Stamp | None] = {}
        #: What rows had when their primary key changed, by lane and new row.
        self._moved: dict[tuple[str, int, Row], Stamp] = {}
        #: Tables that were truncated: what the store holds of them would be gone.
        self._emptied: set[str] = set()
        self._vanishing = Vanishing()

    def preview(self, record: Record) -> Preview:
        """What would become of the next record."""
        mapping = self._rules.mapping_of(record.topic)
        if mapping is None:
            return Preview(record, Decision.SKIP, "unmapped_topic")
        seen = Preview(record, Decision.SKIP, table=mapping.table, collection=mapping.collection)
        try:
            return self._placed(seen, mapping, self._rules.decode(record))
        except DecodeError as error:
            return replace(seen, decision=Decision.DEAD_LETTER, reason=error.cause, detail=error.detail)

    def left(self, row: Row) -> Stamp | None:
        """The stamp that the records so far would leave of the row; None when it would have no points."""
        return self._stamps.get(row)

    def _placed(self, seen: Preview, mapping: TableMapping, change: Change) -> Preview:
        match change:
            case Ignored(reason):
                return replace(seen, reason=reason)
            case Truncated():
                return self._truncated(seen, mapping)
            case Upserted() | Deleted():
                unneeded = mapping.skip_reason(change)
                if unneeded is not None:
                    return replace(seen, reason=unneeded)
                return self._planned(replace(seen, row=mapping.row_of(change)), mapping, change)

    def _truncated(self, seen: Preview, mapping: TableMapping) -> Preview:
        if mapping.on_truncate == "skip":
            return replace(seen, reason="truncate")
        self._emptied.add(mapping.table)
        gone = [row for row in self._stamps if row.table == mapping.table]
        self._stamps.update(dict.fromkeys(gone))
        self._moved = {at: stamp for at, stamp in self._moved.items() if at[2].table != mapping.table}
        return replace(
            seen,
            decision=Decision.REMOVE,
            reason="truncate",
            detail="every row of the table, if its topic has one partition",
        )

    def _planned(self, seen: Preview, mapping: TableMapping, change: Upserted | Deleted) -> Preview:
        record, row = seen.record, seen.row
        assert row is not None
        if row not in self._stamps:
            emptied = row.table in self._emptied
            self._stamps[row] = None if emptied else self._stored(mapping.collection, row)
        stamp = self._stamps[row]
        position = Position(self._log_of(record.topic), record.partition, record.offset, change.source)
        change = self._moved_along(record, row, change, mapping)
        given = Known(row, position, stamp, self._rules.space, count_tokens=self._rules.count_tokens)
        planned = plan(change, given, mapping)
        vanished = self._vanished(row, change, mapping, planned)
        if vanished:
            detail = f"the documents have lost the fields: {', '.join(vanished)}"
            return replace(seen, decision=Decision.HALT, reason="vanished", detail=detail)
        if isinstance(planned, Incomplete) and mapping.rereads and self._rules.can_reread:
            seen = replace(seen, decision=Decision.REREAD)
        try:
            planned = made_legal(planned, self._rules.capabilities)
            shown = self._shown(seen, planned)
        except ValueRefused as refused:
            shown = replace(seen, decision=Decision.DEAD_LETTER, reason="value_refused", detail=str(refused))
        self._stamps[row] = _left(shown.decision, planned, stamp)
        if shown.decision is Decision.HALT and isinstance(change, Upserted):
            known = ", ".join(sorted({*change.columns, *change.unavailable}))
            return replace(shown, detail=f"{shown.detail}; they have {known}")
        return shown

    def _vanished(
        self, row: Row, change: Upserted | Deleted, mapping: TableMapping, planned: Plan
    ) -> list[str]:
        """The fields that one document after the other has lost, this one too."""
        if isinstance(change, Deleted) or planned == Skip("already_applied"):
            return []
        stamp = self._stamps[row]
        return self._vanishing.met(row, change, mapping, {} if stamp is None else stamp.columns)

    def _moved_along(
        self, record: Record, row: Row, change: Upserted | Deleted, mapping: TableMapping
    ) -> Upserted | Deleted:
        """What a row had under its former key goes with it, within its partition."""
        if isinstance(change, Deleted):
            stamp, new = self._stamps[row], mapping.row_at(change.new_key)
            if stamp is not None and new is not None:
                self._moved[record.topic, record.partition, new] = stamp
            return change
        if change.old_key is None:
            return change
        stamp = self._moved.pop((record.topic, record.partition, row), None)
        return completed(change, carried(stamp, mapping))

    def _shown(self, seen: Preview, planned: Plan) -> Preview:
        row = seen.row
        assert row is not None
        match planned:
            case Skip(reason) | MarkStale(_, reason):
                return replace(seen, reason=reason)
            case PatchMetadata(metadata, keep, tail=tail):
                patched = (row.head_id, *_changed(tail))
                shown = replace(seen, decision=Decision.PATCH, points=patched, metadata=metadata, keep=keep)
                return _with_tail(shown, tail)
            case RemoveRow(ids, reason):
                return replace(seen, decision=Decision.REMOVE, reason=reason, points=ids)
            case EmbedText():
                return self._embedded(seen, planned)
            case Unfit(cause, detail):
                return replace(seen, decision=Decision.DEAD_LETTER, reason=cause, detail=detail)
            case Incomplete(columns):
                detail = f"unavailable columns: {', '.join(columns)}"
                asks = seen.decision is Decision.REREAD
                decision = Decision.REREAD if asks else Decision.DEAD_LETTER
                return replace(seen, decision=decision, reason="incomplete_row", detail=detail)
            case Drift(columns):
                detail = f"the events lack mapped columns: {', '.join(columns)}"
                return replace(seen, decision=Decision.HALT, reason="drift", detail=detail)
            case Outranked():
                return replace(seen, decision=Decision.HALT, reason="outranked")

    def _embedded(self, seen: Preview, planned: EmbedText) -> Preview:
        texts = tuple(
            Text(point.id, text, tokens, point.chunk)
            for point, text, tokens in zip(planned.points, planned.texts, planned.tokens, strict=True)
        )
        patched = [] if planned.head is None else [planned.points[0].row.head_id]
        shown = replace(
            seen,
            decision=Decision.EMBED,
            points=(*patched, *(point.id for point in planned.points), *_changed(planned.tail)),
            texts=texts,
            metadata=planned.points[0].metadata,
            keep=planned.keep,
        )
        shown = _with_tail(shown, planned.tail)
        longest = max(planned.tokens)
        limit = self._rules.limits.max_text_tokens
        if limit is not None and longest > limit:
            detail = f"{longest} tokens; the model takes {limit}"
            return replace(shown, decision=Decision.DEAD_LETTER, reason="text_too_long", detail=detail)
        return shown


def _left(decision: Decision, planned: Plan, stamp: Stamp | None) -> Stamp | None:
    """The stamp that the store would hold afterwards."""
    if decision in (Decision.DEAD_LETTER, Decision.REREAD):
        return None if stamp is None else replace(stamp, stale=True)
    match planned:
        case EmbedText(points, head=None, keep=keep):
            metadata = _merged(points[0].metadata, keep, stamp)
            return replace(planned.stamp, values=points[0].values, text=points[0].text, metadata=metadata)
        case EmbedText(head=PatchMetadata() as patch):
            return _patched(patch, stamp)
        case PatchMetadata():
            return _patched(planned, stamp)
        case RemoveRow():
            return None
        case MarkStale(new):
            return new
        case _:
            return stamp


def _patched(patch: PatchMetadata, old: Stamp | None) -> Stamp:
    assert old is not None
    values = old.values if patch.values is None else patch.values
    metadata = _merged(patch.metadata, patch.keep, old)
    return replace(patch.stamp, values=values, text=old.text, metadata=metadata)


def _merged(new: Mapping[str, Value], keep: frozenset[str], old: Stamp | None) -> Mapping[str, Value]:
    stored = {} if old is None or old.metadata is None else old.metadata
    return {**new, **{name: stored[name] for name in keep if name in stored}}


def _changed(tail: Tail | None) -> tuple[str, ...]:
    return () if tail is None else tuple(id_ for id_, _ in tail.changed)


def _with_tail(shown: Preview, tail: Tail | None) -> Preview:
    return shown if tail is None else replace(shown, chunks=1 + len(tail.ids), gone=tail.gone)
