"""Fields that vanish from the documents of a table.

A document has no columns, so that one without an embedded field is a document whose text is shorter, and may
be right. But where one document after the other loses the field and none is left that has it, the field was
renamed or removed at the source, and every text of the table is about to be embedded again without it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from vectide.core.mapping import TableMapping
from vectide.core.model import Row, Upserted, short_hash

#: So many documents have to lose a field, and none to have it in between.
LOSSES: Final = 20

_NULL: Final = short_hash(None)


class Vanishing:
    """Counts, by table and field, the rows that lost it since one was met that has it."""

    def __init__(self) -> None:
        self._lost: dict[tuple[str, str], set[Row]] = {}

    def met(self, row: Row, change: Upserted, mapping: TableMapping, stored: Mapping[str, str]) -> list[str]:
        """The fields that have vanished, now that this change is to be applied. ``stored``: the hashes of the
        row's columns in the store. Only documents count."""
        return [] if not change.is_document else list(self._vanished(row, change, mapping, stored))

    def _vanished(
        self, row: Row, change: Upserted, mapping: TableMapping, stored: Mapping[str, str]
    ) -> Iterator[str]:
        for name in mapping.embed_columns:
            if name in mapping.may_vanish or name in change.unavailable:
                continue
            lost = self._lost.setdefault((mapping.table, name), set())
            if change.columns.get(name) is not None:
                lost.clear()
            elif stored.get(name, _NULL) != _NULL:
                if len(lost) < LOSSES:
                    lost.add(row)
                if len(lost) >= LOSSES:
                    yield name
