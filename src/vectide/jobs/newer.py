"""Looking for newer changes of rows among the records that follow in their partition."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from vectide.core.mapping import TableMapping
from vectide.core.model import Change, DecodeError, Deleted, Ignored, Record, Row, Truncated, Upserted

T = TypeVar("T", bound=Hashable)

#: Keys whose row is remembered, so that the records of other rows need not be decoded.
_MOST_KEYS: Final = 100_000


@dataclass(slots=True)
class Newer(Generic[T]):
    """The records of one partition are shown to it (:meth:`see`); what :meth:`seek` named is in ``found``
    once a newer change of its row was among them.

    A truncate is a newer change of every row. A record that cannot be decoded is taken for one of the row
    when it has the same Kafka key.
    """

    decode: Callable[[Record], Change]
    mapping: TableMapping
    found: set[T] = field(default_factory=set)
    _by_row: dict[Row, list[tuple[int, T]]] = field(default_factory=dict)
    _by_key: dict[bytes, list[tuple[int, T]]] = field(default_factory=dict)
    _rows: dict[bytes, Row] = field(default_factory=dict)

    def seek(self, what: T, row: Row, key: bytes | None, after: int) -> None:
        """Changes of ``row`` with an offset above ``after`` are newer; ``key`` is the Kafka key."""
        self._by_row.setdefault(row, []).append((after, what))
        if key is not None:
            self._by_key.setdefault(key, []).append((after, what))

    def see(self, record: Record) -> None:
        """The next record of the partition. Raises what ``decode`` raises besides DecodeError."""
        if record.key is not None:
            row = self._rows.get(record.key)
            if row is not None and row not in self._by_row:
                return
        try:
            change = self.decode(record)
            if isinstance(change, Ignored):
                return
            if isinstance(change, Truncated):
                self._truncated(record)
                return
            row = self._row_of(record, change)
        except DecodeError:
            self._newer(self._by_key.get(record.key or b"", []), record)
            return
        if row is not None:
            self._newer(self._by_row.get(row, []), record)

    def _row_of(self, record: Record, change: Upserted | Deleted) -> Row | None:
        if self.mapping.skip_reason(change) is not None:
            return None
        row = self.mapping.row_of(change)
        if record.key is not None and not self.mapping.key:
            if len(self._rows) >= _MOST_KEYS:
                self._rows.clear()
            self._rows[record.key] = row
        return row

    def _truncated(self, record: Record) -> None:
        if self.mapping.on_truncate != "skip":
            for sought in self._by_row.values():
                self._newer(sought, record)

    def _newer(self, sought: list[tuple[int, T]], record: Record) -> None:
        self.found.update(what for after, what in sought if record.offset > after)
