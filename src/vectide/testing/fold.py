"""The reference: what a store must hold after a sequence of changes, written as plainly as possible.

It shares the mapping and the chunker with the service (what text a row has, and where it is cut, is
configuration) and nothing of the pump.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from vectide.core.chunks import CountTokens, chunks_of
from vectide.core.mapping import TableMapping
from vectide.core.model import Deleted, Row, Upserted, Value


@dataclass(frozen=True, slots=True)
class Expected:
    """One row as the store must hold it. ``chunks``: the texts of its points in order, where the table cuts
    its texts into chunks, else empty: the text is that of the only point."""

    text: str
    metadata: Mapping[str, Value]
    chunks: tuple[str, ...] = ()


class Nothing(Enum):
    """What a change leaves when it leaves no point."""

    #: The row has no point: deleted, soft-deleted, filtered out, or without text.
    ABSENT = "absent"
    #: Nothing in the log tells the value of an unavailable column.
    UNKNOWABLE = "unknowable"


Leaves = Expected | Nothing


@dataclass(slots=True)
class Fold:
    """Apply the changes of one table in the order of their log; :attr:`rows` is what the store must hold.

    A change that can never be applied (:attr:`Nothing.UNKNOWABLE`) leaves the row's points as they were.
    ``count_tokens`` is that of the embedder.
    """

    mapping: TableMapping
    count_tokens: CountTokens = len
    rows: dict[Row, Expected] = field(default_factory=dict)
    _columns: dict[Row, dict[str, Value]] = field(default_factory=dict)

    def apply(self, change: Upserted | Deleted) -> tuple[Row, Leaves]:
        """Fold one change in. Raises DecodeError when its row cannot be told."""
        row = self.mapping.row_of(change)
        leaves = self._leaves(row, change)
        if isinstance(leaves, Expected):
            self.rows[row] = leaves
        elif leaves is Nothing.ABSENT:
            self.rows.pop(row, None)
        return row, leaves

    def truncate(self) -> None:
        """Fold a truncate in: every row is gone."""
        self.rows.clear()
        self._columns.clear()

    def _leaves(self, row: Row, change: Upserted | Deleted) -> Leaves:
        if isinstance(change, Deleted):
            self._columns.pop(row, None)
            return Nothing.ABSENT
        known = self._columns.get(row, {})
        columns = {**change.columns, **{name: known[name] for name in change.unavailable & known.keys()}}
        self._columns[row] = columns
        whole = Upserted(
            change.key, columns, op=change.op, committed_ms=change.committed_ms, table=change.table
        )
        if self.mapping.is_soft_deleted(whole):
            return Nothing.ABSENT
        if self.mapping.matches_where(columns) is False:
            return Nothing.ABSENT
        if any(name not in columns for name in self.mapping.mapped_columns):
            return Nothing.UNKNOWABLE
        text = self.mapping.render(self.mapping.rendered(whole), whole)
        if not text.strip():
            return Nothing.ABSENT
        chunking = self.mapping.chunking
        cut = () if chunking is None else chunks_of(text, chunking, self.count_tokens)
        return Expected(text, self.mapping.metadata_of(whole)[0], tuple(chunk.text for chunk in cut))
