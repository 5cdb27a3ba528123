"""Which of two mappings of a table may write a row, while processes with both are there.

When a new configuration is rolled out, partitions go back and forth between processes of the old one and of
the new one. A row that the new one has written would be embedded again, and lose its new metadata, whenever
an old one had its partition. So each stamp tells by which mapping it was written and since when its process
had that: another mapping never takes a row back from one that came later. The process that has the older one
rests with the table until a process with the later one has got the partition.

Who started last need not have the right mapping: an old process may have been restarted in between, or the
new configuration was withdrawn and its processes are gone. Who has rested long enough believes that, and
takes over.
"""

from __future__ import annotations

from typing import Final

from vectide.core.mapping import TableMapping
from vectide.core.model import Mapped
from vectide.ports import Clock

#: Rows of a later mapping that were met longer ago are another matter. A halted table tries more often.
_FORGOTTEN_S: Final = 180.0


class Generations:
    """Owned by the pump."""

    def __init__(self, clock: Clock, patience_s: float) -> None:
        self._clock = clock
        self._patience_s = patience_s
        self._started_ms = clock.wall_ms()
        self._mapped: dict[str, Mapped] = {}
        #: By table, when rows of a later mapping were met first and last (monotonic).
        self._met: dict[str, tuple[float, float]] = {}

    def of(self, mapping: TableMapping) -> Mapped:
        """By what the table's rows are written here."""
        known = self._mapped.get(mapping.table)
        if known is None:
            known = self._mapped[mapping.table] = Mapped(mapping.identity, self._started_ms)
        return known

    def take_over(self, mapping: TableMapping, later: Mapped) -> bool:
        """A row of a ``later`` mapping was met. Whether ours goes on all the same: it counts as the latest
        from now on."""
        now_s = self._clock.monotonic()
        first_s, last_s = self._met.get(mapping.table, (now_s, now_s))
        if now_s - last_s > _FORGOTTEN_S:
            first_s = now_s
        if now_s - first_s < self._patience_s:
            self._met[mapping.table] = (first_s, now_s)
            return False
        self._met.pop(mapping.table, None)
        self._mapped[mapping.table] = Mapped(mapping.identity, max(self._clock.wall_ms(), later.since_ms))
        return True
