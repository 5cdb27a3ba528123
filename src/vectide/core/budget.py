"""Bounded memory: records received but not yet behind a commit position, what they take, and what rows of
several chunks take beside (invariant 11).

How much a row takes is known only when it has been looked up. So where tables are cut into chunks, a part of
the memory is set aside for rows under way, and rows wait for it: only the last one let in may take more.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Final

#: What a record takes beside its content, and how often it takes that: as it came, decoded, and as text to
#: embed. Measured as the resident memory of 20,000 records that waited for the provider.
_RECORD_BYTES: Final = 4_500
_COPIES: Final = 3
#: What a chunk under way takes beside its text and its vector.
_CHUNK_BYTES: Final = 1_000
#: The part of the memory that is set aside for rows of several chunks.
_ROWS_SHARE: Final = 0.5


def memory_of(record_bytes: int) -> int:
    """About the memory, in bytes, that a record of this size takes from when it is received until it is
    settled."""
    return _RECORD_BYTES + _COPIES * record_bytes


def memory_of_chunks(chunks: int, text_bytes: int, dimensions: int) -> int:
    """About the memory, in bytes, that so many chunks of a row, with texts of that size together, take from
    when they are cut until the store has them."""
    return chunks * (_CHUNK_BYTES + 4 * dimensions) + text_bytes


@dataclass(slots=True)
class Budget:
    """Shared fairly: no table may hold more than its equal share while several tables are active.

    Pausing throws prefetched records away, so a table that was stopped may go on only when it is below
    ``resume_share`` of what stopped it.
    """

    records: int
    bytes: int
    resume_share: float = 0.7
    held_records: int = 0
    held_bytes: int = 0
    #: Set aside for the rows under way, and what these take.
    rows_bytes: int = 0
    held_by_rows: int = 0
    _rows: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    _tables: dict[str, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))

    def take(self, table: str, size_bytes: int) -> None:
        held = self._tables[table]
        held[0] += 1
        held[1] += size_bytes
        self.held_records += 1
        self.held_bytes += size_bytes

    def release(self, table: str, records: int, size_bytes: int) -> None:
        held = self._tables[table]
        held[0] -= records
        held[1] -= size_bytes
        self.held_records -= records
        self.held_bytes -= size_bytes

    def set_aside(self) -> None:
        """There are tables that are cut into chunks."""
        self.rows_bytes = int(self.bytes * _ROWS_SHARE)

    def admits(self, table: str, tables: int) -> bool:
        """Whether another row of ``table`` may be cut into chunks; the first one always may, however large
        it is. ``tables``: how many are active."""
        held = self._rows[table]
        spent = self.held_by_rows >= self.rows_bytes or held * max(1, tables) >= self.rows_bytes
        return not (held and spent)

    def grow(self, table: str, size_bytes: int) -> None:
        """A row takes so much more, or less."""
        self._rows[table] += size_bytes
        self.held_by_rows += size_bytes

    def room(self) -> int:
        """How many records may be received now, over all tables (0 when the bytes are spent)."""
        if self.held_bytes >= self._bytes_for_records:
            return 0
        return max(0, self.records - self.held_records)

    def is_full(self, table: str, tables: int, *, stopped: bool) -> bool:
        """Whether ``table`` must not receive now; ``tables`` is how many tables are active.

        ``stopped``: whether it is stopped already (then it must fall below the lower mark first).
        """
        # The whole has no lower mark: tables that stand still may hold more of it than that for ever.
        mine = (self.resume_share if stopped else 1.0) / max(1, tables)
        held_records, held_bytes = self._tables[table]
        return (
            self.held_records >= self.records
            or self.held_bytes >= self._bytes_for_records
            or held_records >= self.records * mine
            or held_bytes >= self._bytes_for_records * mine
        )

    @property
    def _bytes_for_records(self) -> int:
        return self.bytes - max(self.held_by_rows, self.rows_bytes)
