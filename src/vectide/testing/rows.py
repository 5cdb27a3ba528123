"""The source's tables in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vectide.core.failures import Failure
from vectide.core.model import Columns, canonical_json
from vectide.ports import AdapterError, Deadline, RowsRead, StartupRefused


@dataclass(slots=True)
class MemoryRows:
    """A :class:`~vectide.ports.RowReader`. ``tables``: for every table, the rows by the canonical JSON of
    their key. ``refused``: columns that it will not tell, and why. While ``failure`` is set, every call fails
    so. ``asked`` counts the rows asked for."""

    tables: Mapping[str, dict[str, Columns]] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    failure: Failure | None = None
    asked: int = 0

    def prepare(self, deadline: Deadline) -> None:
        """As :meth:`vectide.ports.RowReader.prepare`."""
        if self.failure is not None:
            raise StartupRefused(f"the source refuses: {self.failure.cause}")

    def read(
        self, table: str, keys: Sequence[Columns], columns: Sequence[str], deadline: Deadline
    ) -> RowsRead:
        """As :meth:`vectide.ports.RowReader.read`."""
        if self.failure is not None:
            raise AdapterError(self.failure)
        self.asked += len(keys)
        if table not in self.tables:
            return RowsRead([{} for _ in keys], dict.fromkeys(columns, f"the source has no table {table}"))
        refused = {name: self.refused[name] for name in columns if name in self.refused}
        found = [self.tables[table].get(canonical_json(dict(key))) for key in keys]
        told = [name for name in columns if name not in refused]
        return RowsRead(
            [row if row is None else {name: row[name] for name in told} for row in found], refused
        )

    def close(self) -> None:
        """Nothing to close."""
