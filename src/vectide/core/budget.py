"""Bounded memory: records received but not yet behind a commit position, what they take (invariant 11)."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Final

#: What a record takes beside its content, and how often it takes that: as it came, decoded, and as text to
#: embed. Measured as the resident memory of 20,000 records that waited for the provider.
_RECORD_BYTES: Final = 4_500
_COPIES: Final = 3


def memory_of(record_bytes: int) -> int:
    """About the memory, in bytes, that a record of this size takes from when it is received until it is
    settled."""
    return _RECORD_BYTES + _COPIES * record_bytes


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

    def room(self) -> int:
        """How many records may be received now, over all tables (0 when the bytes are spent)."""
        if self.held_bytes >= self.bytes:
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
            or self.held_bytes >= self.bytes
            or held_records >= self.records * mine
            or held_bytes >= self.bytes * mine
        )
